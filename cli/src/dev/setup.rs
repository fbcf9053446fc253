//! What `gantry dev` applies to itself, as an admin like any other.
//!
//! Always holds: what is stored already stays as it is, except what a flag of this start says otherwise (how a
//! server is reached, whether an endpoint is anonymous). A policy or limit that the user changed is never undone.

use std::collections::HashMap;

use gantry_model::key::PresentedKey;
use gantry_model::name::{CredentialName, Name, NameError, TenantName};
use gantry_model::resource::{
    AgentSpec, EndpointSpec, Kind, LimitKeyPart, LimitSpec, PolicySpec, Resource, ResourceId, ServerSpec,
    Spec, TenantSpec,
};
use gantry_wire::admin_v1::{ApplyRequest, CreateKeyRequest, KeyInfo, ListKeysRequest, PutCredentialRequest};

use super::plan::{Plan, PlannedServer};
use crate::admin::Admin;
use crate::context::SecretText;
use crate::failure::Failure;
use crate::name::sanitised;
use crate::output;
use crate::verb::get::get;

/// The agent whose key is printed.
pub(super) const AGENT: &str = "demo-agent";
/// The agent that callers of an anonymous endpoint are.
const ANONYMOUS: &str = "anonymous";
/// The restrictive policy of the demo.
pub(super) const RESTRICTIVE: &str = "no-destructive-tools";
/// The limit of the demo, in calls of an agent to a tool in a minute.
const DEMO_CALLS: u32 = 60;

const RESTRICTIVE_CEDAR: &str = r#"// Made by `gantry dev`: no agent may call a tool that says of itself that it destroys.
@id("no-destructive-tools")
forbid(
  principal,
  action == Action::"tools/call",
  resource
) when { resource.destructive };
"#;

fn permissive_cedar(server: &str) -> String {
    format!(
        r#"// Made by `gantry dev`: any agent of this tenant may use everything that this server offers.
permit(
  principal,
  action in [
    Action::"server/use",
    Action::"tools/call",
    Action::"prompts/get",
    Action::"resources/read",
    Action::"resources/subscribe",
    Action::"completion/complete"
  ],
  resource in Server::"{server}"
);
"#
    )
}

/// What is stored, by id.
type Stored = HashMap<ResourceId, Resource>;

/// Applies what is missing; returns the last revision that it made, 0 when nothing was missing.
pub(super) async fn set_up(admin: &Admin, plan: &Plan, anonymous: bool) -> Result<u64, Failure> {
    let stored: Stored = get(admin, "", plan.tenant, "")
        .await?
        .into_iter()
        .map(|(resource, _)| (resource.id(), resource))
        .collect();
    let wanted = wanted(plan, anonymous, &stored)?;
    let missing: Vec<Resource> =
        wanted.into_iter().filter(|resource| stored.get(&resource.id()) != Some(resource)).collect();
    // A server is asked as soon as it is stored, so its secret must be there before it.
    let (before, after): (Vec<_>, Vec<_>) = missing
        .into_iter()
        .partition(|resource| matches!(resource.spec.kind(), Kind::Tenant | Kind::Credential));
    let mut revision = apply(admin, &before).await?;
    for server in &plan.servers {
        if let Some(secret) = &server.secret {
            let request = PutCredentialRequest {
                tenant: plan.tenant.to_owned(),
                name: server.name.to_string(),
                secret: secret.value.expose().clone().into_bytes(),
                expected_revision: None,
            };
            let next = "check the header's value in the imported file";
            revision = admin.ask(admin.service().put_credential(request), next).await?.revision;
        }
    }
    Ok(revision.max(apply(admin, &after).await?))
}

async fn apply(admin: &Admin, resources: &[Resource]) -> Result<u64, Failure> {
    if resources.is_empty() {
        return Ok(0);
    }
    let request = ApplyRequest {
        resources: resources.iter().map(Into::into).collect(),
        dry_run: false,
        expected_revision: None,
    };
    let next = "correct the flags, then start again";
    let answer = admin.ask(admin.service().apply(request), next).await?;
    for warning in &answer.warnings {
        output::warn(&output::visible(warning));
    }
    if answer.problems.is_empty() {
        return Ok(answer.revision);
    }
    let lines = answer
        .problems
        .iter()
        .map(|problem| {
            let resource = usize::try_from(problem.index).ok().and_then(|index| resources.get(index));
            let label = resource.map_or("the set".to_owned(), |resource| resource.id().to_string());
            crate::documents::problem_line(&label, problem)
        })
        .collect();
    Err(Failure::error("what was asked for cannot be set up", next).with_details(lines))
}

fn wanted(plan: &Plan, anonymous: bool, stored: &Stored) -> Result<Vec<Resource>, Failure> {
    let draft = Draft { tenant: name(plan.tenant)?, stored };
    let mut resources = Vec::new();
    let tenant = TenantSpec { description: "Made by `gantry dev`".to_owned(), ..TenantSpec::default() };
    resources.push(draft.kept(Name::clone(draft.tenant.as_name()), Spec::Tenant(tenant)));
    let agents = [Some(AGENT), anonymous.then_some(ANONYMOUS)];
    for agent in agents.into_iter().flatten() {
        let spec = AgentSpec { description: "Made by `gantry dev`".to_owned(), ..AgentSpec::default() };
        resources.push(draft.kept(name::<Name>(agent)?, Spec::Agent(spec)));
    }
    for server in &plan.servers {
        resources.extend(draft.of_server(server, anonymous)?);
    }
    if plan.is_demo {
        let policy = PolicySpec::enforced(RESTRICTIVE_CEDAR);
        resources.push(draft.kept(name::<Name>(RESTRICTIVE)?, Spec::Policy(policy)));
        let limit = LimitSpec {
            per: vec![LimitKeyPart::Agent, LimitKeyPart::Tool],
            calls: DEMO_CALLS,
            window_seconds: 60,
            burst: None,
            agent: None,
            server: None,
            tool: None,
        };
        resources.push(draft.kept(name::<Name>("calls-per-minute")?, Spec::Limit(limit)));
    }
    Ok(resources)
}

struct Draft<'a> {
    tenant: TenantName,
    stored: &'a Stored,
}

impl Draft<'_> {
    fn resource(&self, name: Name, spec: Spec) -> Resource {
        Resource { tenant: self.tenant.clone(), name, spec }
    }

    /// What is stored under that name, else the one that is given.
    fn kept(&self, name: Name, spec: Spec) -> Resource {
        let resource = self.resource(name, spec);
        self.stored.get(&resource.id()).cloned().unwrap_or(resource)
    }

    fn of_server(&self, planned: &PlannedServer, anonymous: bool) -> Result<Vec<Resource>, Failure> {
        let mut resources = Vec::new();
        let server_name = planned.name.as_name().clone();
        let mut spec = ServerSpec::new(planned.transport.clone());
        if let Some(Spec::Server(stored)) =
            self.stored.get(&ResourceId::server(&self.tenant, &planned.name)).map(|stored| &stored.spec)
        {
            spec = ServerSpec { transport: planned.transport.clone(), ..stored.clone() };
        }
        if let Some(secret) = &planned.secret {
            spec.credential = Some(CredentialName::from(server_name.clone()));
            resources.push(self.resource(server_name.clone(), Spec::Credential(secret.spec.clone())));
        }
        resources.push(self.resource(server_name.clone(), Spec::Server(spec)));
        let endpoint_name = planned.endpoint.as_name().clone();
        let mut endpoint = EndpointSpec { anonymous, ..EndpointSpec::bare(planned.name.clone()) };
        if let Some(Spec::Endpoint(stored)) =
            self.stored.get(&ResourceId::endpoint(&self.tenant, &planned.endpoint)).map(|stored| &stored.spec)
        {
            endpoint = EndpointSpec { anonymous, ..stored.clone() };
        }
        resources.push(self.resource(endpoint_name, Spec::Endpoint(endpoint)));
        let policy = PolicySpec::enforced(permissive_cedar(planned.name.as_str()));
        let policy_name = sanitised(&format!("use-{server_name}")).ok_or_else(|| {
            Failure::usage(format!("{server_name} makes no policy's name"), "rename the server")
        })?;
        resources.push(self.kept(policy_name, Spec::Policy(policy)));
        for resource in &resources {
            resource.spec.check().map_err(|problem| {
                let id = resource.id();
                Failure::usage(format!("{id}: spec.{problem}"), "correct the flags, then start again")
            })?;
        }
        Ok(resources)
    }
}

fn name<T: std::str::FromStr<Err = NameError>>(text: &str) -> Result<T, Failure> {
    text.parse().map_err(|error| Failure::error(format!("{text:?}: {error}"), "`gantry dev --help`"))
}

/// The key of the agent: the one that an earlier start stored while it is still valid, else a new one.
pub(super) async fn agent_key(
    admin: &Admin,
    tenant: &str,
    stored: Option<&SecretText>,
) -> Result<SecretText, Failure> {
    let next = "`gantry get agents`";
    if let Some(key) = stored
        && let Ok(presented) = key.expose().parse::<PresentedKey>()
    {
        let request = ListKeysRequest { tenant: tenant.to_owned(), agent: AGENT.to_owned() };
        let known = admin.ask(admin.service().list_keys(request), next).await?.keys;
        let is_good = |known: &KeyInfo| known.revoked_at_ms == 0 && is_valid(known.expires_at_ms);
        if known.iter().any(|known| known.id == presented.id.to_string() && is_good(known)) {
            return Ok(key.clone());
        }
    }
    let request =
        CreateKeyRequest { tenant: tenant.to_owned(), agent: AGENT.to_owned(), ..Default::default() };
    let answer = admin.ask(admin.service().create_key(request), next).await?;
    Ok(SecretText::new(answer.key))
}

fn is_valid(expires_at_ms: u64) -> bool {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    expires_at_ms == 0 || u128::from(expires_at_ms) > now.as_millis()
}

#[cfg(test)]
mod tests {
    use gantry_model::document;

    use super::*;

    fn stored(resources: &[Resource]) -> Stored {
        resources.iter().map(|resource| (resource.id(), resource.clone())).collect()
    }

    fn titles(resources: &[Resource]) -> Vec<String> {
        resources.iter().map(|resource| resource.id().to_string()).collect()
    }

    #[test]
    fn a_second_start_moves_the_server_and_leaves_all_else() -> Result<(), Failure> {
        let first = wanted(&Plan::demo("http://127.0.0.1:1/mcp")?, false, &Stored::new())?;
        assert_eq!(
            titles(&first),
            [
                "Tenant demo",
                "Agent demo/demo-agent",
                "Server demo/demo",
                "Endpoint demo/main",
                "Policy demo/use-demo",
                "Policy demo/no-destructive-tools",
                "Limit demo/calls-per-minute",
            ]
        );
        let mut kept = stored(&first);
        let changed = document::parse(serde_json::json!({
            "kind": "Policy", "tenant": "demo", "name": "use-demo", "spec": {"cedar": "forbid(principal, action, resource);"}
        }))
        .map_err(|error| Failure::error(error.to_string(), ""))?;
        kept.insert(changed.id(), changed);
        let second = wanted(&Plan::demo("http://127.0.0.1:2/mcp")?, false, &kept)?;
        let missing: Vec<_> =
            second.into_iter().filter(|resource| kept.get(&resource.id()) != Some(resource)).collect();
        assert_eq!(titles(&missing), ["Server demo/demo"]);
        Ok(())
    }

    #[test]
    fn an_endpoint_is_anonymous_exactly_when_the_flag_says_so() -> Result<(), Failure> {
        let plan = Plan::demo("http://127.0.0.1:1/mcp")?;
        let open = wanted(&plan, true, &Stored::new())?;
        assert!(titles(&open).contains(&"Agent demo/anonymous".to_owned()));
        let kept = stored(&open);
        let closed = wanted(&plan, false, &kept)?;
        let missing: Vec<_> =
            closed.into_iter().filter(|resource| kept.get(&resource.id()) != Some(resource)).collect();
        assert_eq!(titles(&missing), ["Endpoint demo/main"]);
        Ok(())
    }

    #[test]
    fn a_url_with_a_secret_is_refused() -> Result<(), Failure> {
        let mut plan = Plan::demo("http://127.0.0.1:1/mcp")?;
        plan.servers[0].transport = gantry_model::resource::Transport::Http {
            url: "http://user:secret@host/".parse().expect("a URL"),
        };
        let refused = wanted(&plan, false, &Stored::new()).err();
        let message = "Server demo/demo: spec.url: holds a secret; put it with `gantry credential put` and name the credential";
        assert_eq!(refused, Some(Failure::usage(message, "correct the flags, then start again")));
        Ok(())
    }
}
