//! Listing tools, and what policy says of them for one agent.
//!
//! Always holds: the verdict comes from the evaluator that nodes decide with, on the same policies and catalog. It is
//! the verdict now; a node that is behind may still decide by an earlier revision. For an agent, what is withheld from all
//! of them for what its definition says is left out, and counted in a warning.

use std::collections::HashSet;

use gantry_control_state::State;
use gantry_model::name::ANONYMOUS_AGENT;
use gantry_model::record::RecordValue;
use gantry_model::{AgentName, Catalog, Definition, GroupName, ResourceId, ServerName, Spec, TenantName};
use gantry_policy::{Hints, PolicySet, Principal, Standing, Target};
use gantry_wire::admin_v1::{ListToolsRequest, ListToolsResponse, ToolInfo, Verdict};
use prost::Message;
use serde::Deserialize;
use tonic::Status;

use super::call::Call;
use super::policy::{policies, told};
use super::read::ANSWER_BYTES_MAX;
use super::rejection::{parse, parse_or_every, require, require_tenant};
use super::scan;

/// Longest description in an answer, in characters; lists of tools with essays are common.
const DESCRIPTION_CHARS_MAX: usize = 1_000;

/// Who is asked for, with the policies that decide.
struct Judge {
    policies: PolicySet,
    principal: Principal,
}

#[derive(Default, Deserialize)]
struct Described {
    #[serde(default)]
    description: Option<String>,
}

pub(super) async fn list(call: &Call, request: ListToolsRequest) -> Result<ListToolsResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let server: Option<ServerName> = parse_or_every("server", &request.server)?;
    let agent: Option<AgentName> = parse_or_every("agent", &request.agent)?;
    let state = call.view().state;
    require_tenant(&state, &tenant)?;
    // Definitions of all servers of a tenant together may be far longer than an answer, and would be copied to find out.
    if request.definitions && server.is_none() {
        return Err(Status::invalid_argument("definitions are told of one server; name it in `server`"));
    }
    if let Some(server) = &server {
        require(&state, &ResourceId::server(&tenant, server))?;
    }
    if let Some(agent) = agent.as_ref().filter(|agent| agent.as_str() != ANONYMOUS_AGENT) {
        require(&state, &ResourceId::agent(&tenant, agent))?;
    }
    let servers = servers(&state, &tenant, server.as_ref());
    let mut warnings: Vec<String> =
        servers.iter().flat_map(|server| warned(call, &state, &tenant, server)).collect();
    let work = move || {
        let judge = agent.map(|agent| Judge::of(&state, &tenant, &agent)).transpose();
        let (judge, warning) = match judge {
            Ok(judge) => (judge, None),
            Err(warning) => (None, Some(warning)),
        };
        let mut warnings: Vec<String> = warning.into_iter().collect();
        let mut tools: Vec<ToolInfo> = Vec::new();
        for catalog in servers.iter().filter_map(|server| state.catalog(&tenant, server)) {
            let withheld = match judge {
                Some(_) => scan::withheld(&state, &tenant, catalog),
                None => HashSet::new(),
            };
            if !withheld.is_empty() {
                warnings.push(told_withheld(withheld.len(), catalog));
            }
            let offered = catalog.tools.iter().filter(|tool| !withheld.contains(&tool.name));
            tools.extend(offered.map(|tool| ToolInfo {
                definition: if request.definitions { tool.json.to_string() } else { String::new() },
                ..info(catalog, tool, judge.as_ref())
            }));
        }
        (tools, warnings)
    };
    let (tools, more) = scan::aside(call, work).await?;
    if tools.iter().map(|tool| tool.encoded_len() + 8).sum::<usize>() > ANSWER_BYTES_MAX {
        return Err(Status::resource_exhausted("the answer would be too long; ask for one server"));
    }
    warnings.extend(more);
    Ok(ListToolsResponse { tools, warnings })
}

/// What an admin should know of what a server offers.
fn warned(call: &Call, state: &State, tenant: &TenantName, server: &ServerName) -> Vec<String> {
    let mut warnings = Vec::new();
    let waiting = state.catalog(tenant, server).map_or(0, |catalog| catalog.quarantined.len());
    if waiting > 0 {
        warnings.push(format!(
            "{waiting} definitions of server {tenant}/{server} wait for approval; \
             `gantry catalog diff {server} --tenant {tenant}` shows them"
        ));
    }
    let failure = call.plane.fleet.failures.get(tenant, server);
    match (state.catalog(tenant, server), failure) {
        (None, None) => {
            warnings.push(format!("no node has reported yet what server {tenant}/{server} offers"))
        }
        (None, Some(failure)) => {
            warnings.push(format!("server {tenant}/{server} could not be asked: {failure}"))
        }
        (Some(_), Some(failure)) => warnings.push(format!(
            "server {tenant}/{server} could not be asked lately, this is what it offered before: {failure}"
        )),
        (Some(_), None) => {}
    }
    warnings
}

fn told_withheld(count: usize, catalog: &Catalog) -> String {
    let Catalog { tenant, server, .. } = catalog;
    format!(
        "{count} tools of server {tenant}/{server} are withheld for what their definitions say; \
         `gantry catalog scan {server} --tenant {tenant}` shows them"
    )
}

fn servers(state: &State, tenant: &TenantName, only: Option<&ServerName>) -> Vec<ServerName> {
    let server = |value: &RecordValue| match value {
        RecordValue::Resource(resource) if matches!(resource.spec, Spec::Server(_)) => {
            Some(ServerName::from(resource.name.clone()))
        }
        _ => None,
    };
    state
        .tenant_records(tenant)
        .filter_map(|record| server(&record.value))
        .filter(|server| only.is_none_or(|only| server == only))
        .collect()
}

impl Judge {
    fn of(state: &State, tenant: &TenantName, agent: &AgentName) -> Result<Judge, String> {
        let policies = policies(state, tenant);
        let enforced = policies.iter().filter(|(_, spec)| !spec.shadow);
        let compiled = PolicySet::compile(enforced.map(|(name, spec)| (name, spec)));
        let policies = compiled.map_err(|error| format!("no verdicts: {}", told(&error)))?;
        Ok(Judge { policies, principal: Principal::new(agent, &groups(state, tenant, agent)) })
    }
}

fn groups(state: &State, tenant: &TenantName, agent: &AgentName) -> Vec<GroupName> {
    match state.resource(&ResourceId::agent(tenant, agent)).map(|(resource, _)| &resource.spec) {
        Some(Spec::Agent(spec)) => spec.groups.clone(),
        _ => Vec::new(),
    }
}

fn info(catalog: &Catalog, tool: &Definition, judge: Option<&Judge>) -> ToolInfo {
    let described: Described = serde_json::from_str(&tool.json).unwrap_or_default();
    let description = described.description.unwrap_or_default();
    let (verdict, policies) = match judge {
        None => (Verdict::Unspecified, Vec::new()),
        Some(judge) => {
            let target = Target::Tool {
                server: &catalog.server,
                name: &tool.name,
                hints: Hints::from_definition(&tool.json),
            };
            match judge.policies.standing(&judge.principal, &target) {
                Standing::Settled(decision) => {
                    let verdict = match decision.verdict {
                        gantry_policy::Verdict::Allow => Verdict::Allow,
                        gantry_policy::Verdict::RequireApproval => Verdict::RequireApproval,
                        gantry_policy::Verdict::Deny => Verdict::Deny,
                    };
                    (verdict, decision.reasons.iter().map(ToString::to_string).collect())
                }
                Standing::Refused => {
                    let mut decision = judge.policies.decide(&judge.principal, &target);
                    let readers = judge.policies.readers(&judge.principal, &target);
                    decision.reasons.retain(|reason| !readers.contains(reason));
                    (Verdict::Deny, decision.reasons.iter().map(ToString::to_string).collect())
                }
                Standing::Open => {
                    let readers = judge.policies.readers(&judge.principal, &target);
                    (Verdict::ByCall, readers.iter().map(ToString::to_string).collect())
                }
            }
        }
    };
    ToolInfo {
        tenant: catalog.tenant.to_string(),
        server: catalog.server.to_string(),
        name: tool.name.to_string(),
        description: description.chars().take(DESCRIPTION_CHARS_MAX).collect(),
        hash: tool.hash.to_vec(),
        verdict: verdict.into(),
        policies,
        definition: String::new(),
    }
}
