//! A tenant as its documents have it, with the evaluator that nodes decide with.
//!
//! Always holds: what its policies name is there, as for `gantry apply`; who and what a case names is there too, so that
//! a misspelt name is an error and not a denial that was expected. It reads no file.

use std::collections::{BTreeMap, BTreeSet};

use gantry_inspect::Declared;
use gantry_model::nearest::nearest;
use gantry_model::resource::{Inspection, PolicySpec};
use gantry_model::{
    AgentName, Catalog, Definition, GroupName, PolicyName, ProviderName, ServerName, Spec, TenantName,
};
use gantry_policy::{
    ActsFor, Call, Decision, Hints, Known, MakeFacts, PolicySet, Principal, Shape, Shown, Target, check,
};
use serde_json::{Value, json};

use super::cases::{Asked, Case};
use crate::documents::{Document, problem_of};

/// A tenant.
pub(super) struct Offline {
    agents: BTreeMap<AgentName, Vec<GroupName>>,
    providers: BTreeSet<ProviderName>,
    servers: BTreeMap<ServerName, Option<Catalog>>,
    /// What is said of the arguments of all tools, and by server.
    of_tenant: Inspection,
    inspections: BTreeMap<ServerName, Inspection>,
    policies: PolicySet,
}

impl Offline {
    /// The tenant, with what its servers offer; or a line for everything that is wrong with it.
    pub(super) fn of(
        tenant: &TenantName,
        documents: &[Document],
        tools: BTreeMap<ServerName, Vec<Definition>>,
    ) -> Result<Offline, Vec<String>> {
        let mut offline = Offline {
            agents: BTreeMap::new(),
            providers: BTreeSet::new(),
            servers: BTreeMap::new(),
            of_tenant: Inspection::default(),
            inspections: BTreeMap::new(),
            policies: PolicySet::default(),
        };
        let mut texts: Vec<(PolicyName, &PolicySpec, &Document)> = Vec::new();
        let of_tenant = documents.iter().filter(|document| document.resource.tenant == *tenant);
        for document in of_tenant {
            let name = document.resource.name.clone();
            match &document.resource.spec {
                Spec::Agent(agent) => {
                    offline.agents.insert(name.into(), agent.groups.clone());
                }
                Spec::Server(server) => {
                    let name = ServerName::from(name);
                    offline.inspections.insert(name.clone(), server.inspection.clone());
                    offline.servers.entry(name).or_default();
                }
                Spec::Tenant(tenant) => offline.of_tenant = tenant.inspection.clone(),
                Spec::Provider(_) => {
                    offline.providers.insert(name.into());
                }
                Spec::Endpoint(endpoint) if endpoint.anonymous => offline.add_anonymous(),
                Spec::Policy(policy) => texts.push((name.into(), policy, document)),
                Spec::Endpoint(_) | Spec::Limit(_) | Spec::Credential(_) => {}
            }
        }
        for (server, tools) in tools {
            let mut catalog = Catalog::empty(tenant.clone(), server.clone());
            catalog.tools = tools;
            offline.servers.insert(server, Some(catalog));
        }
        let problems = offline.problems(&texts);
        if !problems.is_empty() {
            return Err(problems);
        }
        let enforced = texts.iter().filter(|(_, policy, _)| !policy.shadow);
        let texts = enforced.map(|(name, policy, _)| (name, policy.cedar.as_str()));
        offline.policies = PolicySet::compile(texts).map_err(|error| vec![error.to_string()])?;
        Ok(offline)
    }

    fn add_anonymous(&mut self) {
        let name = gantry_model::name::ANONYMOUS_AGENT.parse();
        self.agents.extend(name.ok().map(|name| (name, Vec::new())));
    }

    /// What `gantry apply` would refuse.
    fn problems(&self, texts: &[(PolicyName, &PolicySpec, &Document)]) -> Vec<String> {
        let mut known = Known::new();
        self.agents.keys().for_each(|agent| known.add_agent(agent));
        self.agents.values().flatten().for_each(|group| known.add_group(group));
        self.providers.iter().for_each(|provider| known.add_provider(provider));
        self.servers.iter().for_each(|(server, catalog)| known.add_server(server, catalog.as_ref()));
        let problems = texts.iter().flat_map(|(_, policy, document)| {
            let found = check(&policy.cedar, &known).problems.into_iter();
            found.map(|problem| problem_of(document, &problem.to_string()))
        });
        problems.collect()
    }

    /// What the policies say of a case; an error says what is wrong with the case.
    pub(super) fn decide(&self, case: &Case) -> Result<Decision, String> {
        let (principal, asked) = (self.principal(case)?, case.asked()?);
        known("Server", asked.server(), self.servers.keys())?;
        let definition = self.definition(&asked)?;
        let json = definition.map(|definition| &*definition.json).unwrap_or_default();
        let hints = Hints::from_definition(json);
        let target = match &asked {
            Asked::Tool(server, name) => Target::Tool { server, name, hints },
            Asked::Prompt(server, name) => Target::Prompt { server, name },
            Asked::Resource(server, uri) => Target::Resource { server, uri },
            Asked::Server(server) => Target::Server { server },
        };
        let (shape, none) = (Shape::from_definition(json), json!({}));
        let arguments = match (&asked, &case.arguments) {
            (Asked::Tool(..), arguments) => Some((&shape, arguments.as_ref().unwrap_or(&none))),
            (_, None) => None,
            (_, Some(_)) => return Err("only a tool has `arguments`".to_owned()),
        };
        if let (Asked::Tool(server, _), None) = (&asked, definition)
            && (case.arguments.is_some() || !self.policies.readers(&principal, &target).is_empty())
        {
            return Err(format!(
                "what the tool takes is not known; write what server {server} offers under `tools`"
            ));
        }
        let (at_seconds, era, revision) = (case.at_seconds()?, case.era.as_str(), case.revision());
        let declared = self.declared(&asked);
        let facts = || {
            let arguments = arguments.map_or(&none, |(_, arguments)| arguments);
            gantry_inspect::facts::of(&declared, arguments).map_err(|error| error.to_string())
        };
        let facts: Option<&MakeFacts<'_>> = match asked {
            Asked::Tool(..) => Some(&facts),
            _ => None,
        };
        let call = Call { at_seconds, era, revision, arguments, facts };
        Ok(self.policies.decide_call(&principal, &target, &call))
    }

    fn principal(&self, case: &Case) -> Result<Principal, String> {
        known("Agent", &case.agent, self.agents.keys())?;
        let groups: Vec<GroupName> =
            self.agents.get(&case.agent).into_iter().flatten().chain(&case.groups).cloned().collect();
        let of_user = case.user.as_ref().map(|user| user.provider());
        let Some(provider) = case.provider.as_ref().or(of_user) else {
            let shows = !case.user_groups.is_empty() || !case.scopes.is_empty() || !case.tags.is_empty();
            return match shows {
                true => Err("what a token says needs the `user` or the `provider` that it is of".to_owned()),
                false => Ok(Principal::new(&case.agent, &groups)),
            };
        };
        known("Provider", provider, self.providers.iter())?;
        if of_user.is_some_and(|of_user| of_user != provider) {
            return Err(format!("the user is not one of provider {provider}"));
        }
        let shown = Shown {
            provider: provider.clone(),
            user: case.user.clone().map(ActsFor::User),
            groups: case.user_groups.clone(),
            scopes: case.scopes.clone(),
            tags: case.tags.clone(),
        };
        Ok(Principal::showing(&case.agent, &groups, &shown))
    }

    /// Which arguments of a tool are declared as what.
    fn declared(&self, asked: &Asked) -> Declared {
        let Asked::Tool(server, tool) = asked else { return Declared::default() };
        let server = self.inspections.get(server);
        let tool = server.and_then(|server| server.tools.get(tool.as_str()));
        Declared::of([Some(&self.of_tenant), server, tool].into_iter().flatten()).0
    }

    /// The definition of a tool, where its server's are known.
    fn definition(&self, asked: &Asked) -> Result<Option<&Definition>, String> {
        let Asked::Tool(server, name) = asked else { return Ok(None) };
        let Some(Some(catalog)) = self.servers.get(server) else { return Ok(None) };
        match catalog.tools.iter().find(|tool| *tool.name == **name) {
            Some(tool) => Ok(Some(tool)),
            None => {
                let near = nearest(name, catalog.tools.iter().map(|tool| &*tool.name));
                Err(missing("tool", &format!("{server}/{name}"), near))
            }
        }
    }
}

/// Refuses a name that no document has.
fn known<'n, N: AsRef<str> + PartialEq + 'n>(
    kind: &str,
    name: &N,
    names: impl Iterator<Item = &'n N> + Clone,
) -> Result<(), String> {
    if names.clone().any(|known| known == name) {
        return Ok(());
    }
    Err(missing(kind, name.as_ref(), nearest(name.as_ref(), names.map(AsRef::as_ref))))
}

fn missing(kind: &str, name: &str, near: Option<&str>) -> String {
    let near = near.map(|near| format!(" (nearest: {near})")).unwrap_or_default();
    format!("there is no {kind} {name:?}{near}")
}

/// Definitions as a server answers `tools/list`: a list, or the result that has one.
pub(super) fn definitions(value: &Value) -> Result<Vec<Definition>, String> {
    let list = value.as_array().or_else(|| value.get("tools").and_then(Value::as_array));
    let list = list.ok_or("neither a list of tools nor an object with `tools`")?;
    let definition = |tool: &Value| match tool.get("name").and_then(Value::as_str) {
        Some(name) => Ok(Definition::new(name, tool.to_string())),
        None => Err("a tool has no `name`".to_owned()),
    };
    list.iter().map(definition).collect()
}
