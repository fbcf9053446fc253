//! A tenant as its documents have it, with the evaluator that nodes decide with.
//!
//! Always holds: what its policies name is there, as for `gantry apply`; who and what a case names is there too, so that
//! a misspelt name is an error and not a denial that was expected. It reads no file.

use std::collections::{BTreeMap, BTreeSet};

use gantry_inspect::Declared;
use gantry_model::nearest::nearest;
use gantry_model::resource::{Inspection, PolicySpec, Resource};
use gantry_model::{
    AgentName, Catalog, Definition, GroupName, PolicyName, ProviderName, ServerName, Spec, TenantName,
};
use gantry_policy::{
    ActsFor, Call, CompileError, Decision, Gaps, Hints, Known, MakeFacts, PolicySet, Principal, Shape, Shown,
    Unsure, check,
};
use serde_json::{Value, json};

use super::cases::{Asked, Case};
use crate::documents::{Document, problem_of};

/// Said of a tool of which nobody knows the definition, where that matters.
const BLIND: &str = "what the tool takes is not known";

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

/// A question to the policies.
pub(super) struct Question<'a> {
    pub(super) principal: Principal,
    pub(super) asked: &'a Asked,
    /// Of a tool.
    pub(super) arguments: Option<&'a Value>,
    pub(super) at_seconds: u64,
    pub(super) era: &'a str,
    pub(super) revision: &'a str,
}

impl Offline {
    /// The tenant, with what its servers offer; or a line for everything that is wrong with it.
    pub(super) fn of(
        tenant: &TenantName,
        documents: &[Document],
        tools: BTreeMap<ServerName, Vec<Definition>>,
    ) -> Result<Offline, Vec<String>> {
        let resources = documents.iter().map(|document| &document.resource);
        let (mut offline, texts) = Offline::gather(tenant, resources, tools);
        let problems = offline.problems(tenant, documents);
        if !problems.is_empty() {
            return Err(problems);
        }
        offline.compile(&texts).map_err(|why| vec![why])?;
        Ok(offline)
    }

    /// The same without looking whether what policies name is there; an error says that they do not compile.
    pub(super) fn unchecked<'d>(
        tenant: &TenantName,
        resources: impl Iterator<Item = &'d Resource>,
        tools: BTreeMap<ServerName, Vec<Definition>>,
    ) -> Result<Offline, String> {
        let (mut offline, texts) = Offline::gather(tenant, resources, tools);
        offline.compile(&texts)?;
        Ok(offline)
    }

    /// All but the policies, and those.
    fn gather<'d>(
        tenant: &TenantName,
        resources: impl Iterator<Item = &'d Resource>,
        tools: BTreeMap<ServerName, Vec<Definition>>,
    ) -> (Offline, Vec<(PolicyName, &'d PolicySpec)>) {
        let mut offline = Offline {
            agents: BTreeMap::new(),
            providers: BTreeSet::new(),
            servers: BTreeMap::new(),
            of_tenant: Inspection::default(),
            inspections: BTreeMap::new(),
            policies: PolicySet::default(),
        };
        let mut texts: Vec<(PolicyName, &PolicySpec)> = Vec::new();
        for resource in resources.filter(|resource| resource.tenant == *tenant) {
            let name = resource.name.clone();
            match &resource.spec {
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
                Spec::Policy(policy) => texts.push((name.into(), policy)),
                Spec::Endpoint(_) | Spec::Limit(_) | Spec::Credential(_) => {}
            }
        }
        for (server, tools) in tools {
            let mut catalog = Catalog::empty(tenant.clone(), server.clone());
            catalog.tools = tools;
            offline.servers.insert(server, Some(catalog));
        }
        (offline, texts)
    }

    fn compile(&mut self, texts: &[(PolicyName, &PolicySpec)]) -> Result<(), String> {
        let enforced = texts.iter().filter(|(_, policy)| !policy.shadow);
        let texts = enforced.map(|(name, policy)| (name, *policy));
        self.policies = PolicySet::compile(texts).map_err(|error| match &error {
            CompileError::Text { problem, .. } => format!("{error}: {problem}"),
            CompileError::Twice { .. } | CompileError::TooMany { .. } => error.to_string(),
        })?;
        Ok(())
    }

    fn add_anonymous(&mut self) {
        let name = gantry_model::name::ANONYMOUS_AGENT.parse();
        self.agents.extend(name.ok().map(|name| (name, Vec::new())));
    }

    /// What `gantry apply` would refuse of these policies.
    pub(super) fn problems(&self, tenant: &TenantName, documents: &[Document]) -> Vec<String> {
        let mut known = Known::new();
        self.agents.keys().for_each(|agent| known.add_agent(agent));
        self.agents.values().flatten().for_each(|group| known.add_group(group));
        self.providers.iter().for_each(|provider| known.add_provider(provider));
        self.servers.iter().for_each(|(server, catalog)| known.add_server(server, catalog.as_ref()));
        let policies = documents.iter().filter_map(|document| match &document.resource.spec {
            Spec::Policy(policy) if document.resource.tenant == *tenant => Some((document, policy)),
            _ => None,
        });
        let problems = policies.flat_map(|(document, policy)| {
            let found = check(policy, &known).problems.into_iter();
            found.map(|problem| problem_of(document, &problem.to_string()))
        });
        problems.collect()
    }

    /// What the policies say of a case; an error says what is wrong with the case.
    pub(super) fn decide(&self, case: &Case) -> Result<Decision, String> {
        let (principal, asked) = (self.principal(case)?, case.asked()?);
        if case.arguments.is_some() && !matches!(asked, Asked::Tool(..)) {
            return Err("only a tool has `arguments`".to_owned());
        }
        let question = Question {
            principal,
            asked: &asked,
            arguments: case.arguments.as_ref(),
            at_seconds: case.at_seconds()?,
            era: case.era.as_str(),
            revision: case.revision(),
        };
        let told = self.ask(&question, &Gaps::default()).map_err(|why| match why {
            why if why == BLIND => {
                format!("{BLIND}; write what server {} offers under `tools`", asked.server())
            }
            why => why,
        });
        told?.map_err(|_| "it cannot be told".to_owned())
    }

    /// What the policies say to a question of which not all may be known; an error says that it is of something that is not
    /// there.
    pub(super) fn ask(
        &self,
        question: &Question<'_>,
        gaps: &Gaps,
    ) -> Result<Result<Decision, Unsure>, String> {
        let Question { principal, asked, at_seconds, era, revision, .. } = question;
        known("Server", asked.server(), self.servers.keys())?;
        let definition = self.definition(asked)?;
        let json = definition.map(|definition| &*definition.json).unwrap_or_default();
        let target = asked.target(Hints::from_definition(json));
        let (shape, none) = (Shape::from_definition(json), json!({}));
        let given = question.arguments.unwrap_or(&none);
        let is_tool = matches!(asked, Asked::Tool(..));
        let is_blind = is_tool && definition.is_none();
        if is_blind && (question.arguments.is_some() || !self.policies.readers(principal, &target).is_empty())
        {
            return Err(BLIND.to_owned());
        }
        let declared = self.declared(asked);
        let facts = || gantry_inspect::facts::of(&declared, given).map_err(|error| error.to_string());
        let facts: &MakeFacts<'_> = &facts;
        let call = Call {
            at_seconds: *at_seconds,
            era,
            revision,
            arguments: is_tool.then_some((&shape, given)),
            facts: is_tool.then_some(facts),
        };
        Ok(self.policies.decide_recorded(principal, &target, &call, gaps))
    }

    fn principal(&self, case: &Case) -> Result<Principal, String> {
        let of_user = case.user.as_ref().map(|user| user.provider());
        let Some(provider) = case.provider.as_ref().or(of_user) else {
            let shows = !case.user_groups.is_empty() || !case.scopes.is_empty() || !case.tags.is_empty();
            return match shows {
                true => Err("what a token says needs the `user` or the `provider` that it is of".to_owned()),
                false => self.principal_of(&case.agent, &case.groups, None),
            };
        };
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
        self.principal_of(&case.agent, &case.groups, Some(&shown))
    }

    /// An agent that is here, in its groups and `more`, with what its token says.
    pub(super) fn principal_of(
        &self,
        agent: &AgentName,
        more: &[GroupName],
        shown: Option<&Shown>,
    ) -> Result<Principal, String> {
        known("Agent", agent, self.agents.keys())?;
        let groups: Vec<GroupName> =
            self.agents.get(agent).into_iter().flatten().chain(more).cloned().collect();
        let Some(shown) = shown else { return Ok(Principal::new(agent, &groups)) };
        known("Provider", &shown.provider, self.providers.iter())?;
        Ok(Principal::showing(agent, &groups, shown))
    }

    /// What is said of the arguments of a tool, the last word counting.
    pub(super) fn layers(&self, asked: &Asked) -> impl Iterator<Item = &Inspection> {
        let server = self.inspections.get(asked.server());
        let tool = match asked {
            Asked::Tool(_, name) => server.and_then(|server| server.tools.get(name.as_str())),
            _ => None,
        };
        [Some(&self.of_tenant), server, tool].into_iter().flatten()
    }

    /// Which arguments of a tool are declared as what.
    fn declared(&self, asked: &Asked) -> Declared {
        match asked {
            Asked::Tool(..) => Declared::of(self.layers(asked)).0,
            _ => Declared::default(),
        }
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
