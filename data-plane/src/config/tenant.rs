//! One tenant, compiled from its records.
//!
//! Always holds: a tenant is built whole or not at all; parts whose records did not change are taken over from the
//! tenant before it, so that a change of one policy does not compile schemas anew.

mod servers;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use gantry_model::key::KeyId;
use gantry_model::record::{Record, RecordValue};
use gantry_model::resource::{
    self as model, AgentSpec, CredentialSpec, EndpointSpec, Inspection, PolicySpec, ProviderSpec, ServerSpec,
};
use gantry_model::{
    AgentKey, AgentName, Catalog, CredentialName, EndpointName, PolicyName, ProviderName, Secret, ServerName,
    Spec, TenantName,
};
use gantry_policy::{Call, Decision, PolicySet, Standing, Target};

use crate::breaker::Breaker;
use crate::check::Checker;
use crate::config::access::Access;
use crate::config::approving::Approving;
use crate::config::asking::host_of;
use crate::config::caller::{Agent, Callers, SeveralAgents, believed};
use crate::config::endpoint::Endpoint;
use crate::config::live::Live;
use crate::config::server::Server;
use crate::config::{shadow::Shadow, site::Site, tally::Tally, view::View};
use crate::identity::{Identity, certificate::Authority, provider::Provider, seen::Seen};
use crate::limiter::Limiter;
use crate::narrowing::Rules;

/// A tenant, ready for requests.
pub(crate) struct Tenant {
    pub(crate) name: TenantName,
    pub(crate) keys: HashMap<KeyId, Arc<AgentKey>>,
    pub(crate) agents: HashMap<AgentName, Arc<Agent>>,
    pub(crate) endpoints: HashMap<EndpointName, Arc<Endpoint>>,
    pub(crate) servers: HashMap<ServerName, Arc<Server>>,
    policies: Arc<PolicySet>,
    shadow: Option<Arc<Shadow>>,
    /// What came ahead of the configuration, and has to allow a call too.
    ahead: Option<Ahead>,
    pub(crate) limiters: Vec<Arc<Limiter>>,
    /// After how long a silence of all control planes its calls are refused; `None`: never.
    pub(crate) fail_closed_after: Option<Duration>,
    pub(crate) live: Arc<Live>,
    pub(crate) tally: Arc<Tally>,
    /// What stops a principal for a while; the same as long as its specification is.
    pub(crate) breaker: Option<Arc<Breaker>>,
    /// What is needed of it to have calls approved.
    pub(crate) approving: Arc<Approving>,
    /// Whose tokens are believed, by issuer.
    pub(crate) providers: HashMap<String, Arc<Provider>>,
    /// Whose certificates are believed, by name.
    pub(crate) authorities: Vec<Arc<Authority>>,
    /// Tokens that were verified.
    pub(crate) seen: Arc<Seen>,
    /// Where its agents connect to, in lower case, where it says that.
    pub(crate) public_host: Option<String>,
    callers: Callers,
    /// Who is asked about its calls.
    pub(crate) check: Option<Arc<Checker>>,
}

/// What narrows a tenant, and the tenant without it.
struct Ahead {
    rules: Arc<Rules>,
    whole: Arc<Tenant>,
}

/// Why a tenant cannot be compiled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TenantError {
    /// A policy does not compile.
    #[error("a policy does not compile")]
    Policy(#[from] gantry_policy::CompileError),
    /// A server's URL cannot be requested.
    #[error("the url of server {0} cannot be requested")]
    Address(ServerName),
    /// A pattern by which answers are redacted is none.
    #[error("a pattern of server {0} or its tenant cannot be used")]
    Pattern(ServerName, #[source] gantry_inspect::PatternError),
    /// A resource names one that is not there; the control plane sends no such state.
    #[error("{0} is named but not there")]
    Dangling(String),
    /// A credential's secret cannot stand in a header.
    #[error("the secret of credential {0} cannot stand in a header")]
    Unsendable(CredentialName),
}

/// An agent, and what an authority says of its certificate.
type Certified = (Arc<Agent>, Arc<Identity>);

/// Secrets by credential, as released to this node.
pub(crate) type Secrets = HashMap<CredentialName, Arc<Secret<Vec<u8>>>>;

#[derive(Default)]
struct Parts {
    agents: HashMap<AgentName, AgentSpec>,
    keys: HashMap<KeyId, Arc<AgentKey>>,
    endpoints: Vec<(EndpointName, EndpointSpec)>,
    servers: Vec<(ServerName, ServerSpec)>,
    catalogs: HashMap<ServerName, Arc<Catalog>>,
    credentials: HashMap<CredentialName, CredentialSpec>,
    providers: Vec<(ProviderName, ProviderSpec)>,
    policies: HashMap<PolicyName, PolicySpec>,
    approving: Approving,
    fail_closed_after: Option<Duration>,
    breaker: Option<model::Breaker>,
    public_url: Option<String>,
    inspection: Inspection,
    check: Option<model::ExternalCheck>,
    limits: Vec<(gantry_model::LimitName, gantry_model::resource::LimitSpec)>,
}

impl Tenant {
    /// Compiles a tenant's records; `before` is its last good form.
    pub(crate) fn build<'a>(
        name: &TenantName,
        records: impl Iterator<Item = &'a Record>,
        secrets: &Secrets,
        before: Option<&Tenant>,
        site: &Site,
    ) -> Result<Tenant, TenantError> {
        let parts = sort(records);
        let enforced = || parts.policies.iter().filter(|(_, spec)| !spec.shadow);
        let texts = || enforced();
        let policies = match before {
            Some(before) if before.policies.is_of(texts()) => before.policies.clone(),
            Some(before) => Arc::new(before.policies.followed_by(texts())?),
            None => Arc::new(PolicySet::compile(texts())?),
        };
        let shadow_before = before.and_then(|before| before.shadow.as_deref());
        let shadow = Shadow::of(&parts.policies, &policies, shadow_before)?.map(Arc::new);
        let servers = servers::build(name, &parts, secrets, before)?;
        let check = servers::check_of_tenant(&parts, secrets, before)?;
        let providers = believed(&parts.providers, before.map(|before| &before.providers), &site.keepers);
        let authorities = Authority::all(&parts.providers, before.map_or(&[], |before| &before.authorities));
        let base_url = parts.public_url.as_ref().or(site.loopback_url.as_ref());
        let mut endpoints = HashMap::with_capacity(parts.endpoints.len());
        for (endpoint, spec) in parts.endpoints {
            let find = |server| servers.get(server).cloned();
            let named: Option<Vec<_>> = spec.servers.iter().map(find).collect();
            let named = named.ok_or_else(|| TenantError::Dangling(format!("a server of {endpoint}")))?;
            let url = base_url.map(|base| format!("{base}/{name}/{endpoint}/mcp"));
            let access = Access::compile(&spec.authentication, providers.values(), &authorities, url);
            let built = Endpoint::compile(endpoint.clone(), &spec, named, access);
            endpoints.insert(endpoint, Arc::new(built));
        }
        let limiters = parts
            .limits
            .into_iter()
            .filter_map(|(limit, spec)| Limiter::new(name, limit, spec).map(Arc::new))
            .collect();
        Ok(Tenant {
            name: name.clone(),
            keys: parts.keys,
            agents: parts
                .agents
                .iter()
                .map(|(name, spec)| (name.clone(), Arc::new(Agent::new(name, spec))))
                .collect(),
            callers: Callers::of(&parts.agents, &parts.providers),
            check,
            public_host: parts.public_url.as_deref().and_then(host_of),
            approving: Arc::new(parts.approving),
            providers,
            authorities,
            seen: before.map(|before| before.seen.clone()).unwrap_or_default(),
            endpoints,
            servers,
            policies,
            shadow,
            ahead: None,
            limiters,
            fail_closed_after: parts.fail_closed_after,
            live: before.map(|before| before.live.clone()).unwrap_or_default(),
            tally: before.map(|before| before.tally.clone()).unwrap_or_default(),
            breaker: parts
                .breaker
                .map(|spec| Breaker::of(&spec, before.and_then(|before| before.breaker.as_ref()))),
        })
    }

    /// A tenant, allowing nothing that `rules` do not allow.
    pub(crate) fn narrowed(whole: &Arc<Tenant>, rules: &Arc<Rules>) -> Tenant {
        let agents = whole.agents.iter().filter(|(name, _)| rules.has_agent(name));
        let endpoints = whole.endpoints.iter().filter(|(name, _)| rules.has_endpoint(name));
        Tenant {
            name: whole.name.clone(),
            keys: whole.keys.clone(),
            // Without what they saw before.
            agents: agents.map(|(name, agent)| (name.clone(), Arc::new(agent.anew()))).collect(),
            endpoints: endpoints.map(|(name, endpoint)| (name.clone(), endpoint.clone())).collect(),
            servers: whole.servers.clone(),
            policies: whole.policies.clone(),
            shadow: whole.shadow.clone(),
            ahead: Some(Ahead { rules: rules.clone(), whole: whole.clone() }),
            limiters: whole.limiters.clone(),
            fail_closed_after: whole.fail_closed_after,
            live: whole.live.clone(),
            tally: whole.tally.clone(),
            breaker: whole.breaker.clone(),
            approving: whole.approving.clone(),
            providers: whole.providers.clone(),
            authorities: whole.authorities.clone(),
            seen: whole.seen.clone(),
            public_host: whole.public_host.clone(),
            check: whole.check.clone(),
            callers: whole.callers.of_those(|agent| rules.has_agent(agent)),
        }
    }

    /// The tenant as it was compiled, whatever came ahead of its update.
    pub(crate) fn whole(self: &Arc<Self>) -> &Arc<Tenant> {
        self.ahead.as_ref().map_or(self, |ahead| &ahead.whole)
    }

    /// Whether just these rules narrow it.
    pub(crate) fn is_narrowed_by(&self, rules: &Arc<Rules>) -> bool {
        self.ahead.as_ref().is_some_and(|ahead| Arc::ptr_eq(&ahead.rules, rules))
    }

    /// Whether an agent may have a target by this call.
    pub(crate) fn decide(&self, agent: &Agent, target: &Target<'_>, call: &Call<'_>) -> Decision {
        let decision = self.policies.decide_call(&agent.principal, target, call);
        match &self.ahead {
            Some(ahead) if !decision.is_deny() => ahead.rules.decide(decision, agent, target, call),
            _ => decision,
        }
    }

    /// What the call would come to if every policy were enforced, where those that are not say something of it.
    pub(crate) fn shadow(
        &self,
        enforced: &Decision,
        agent: &Agent,
        target: &Target<'_>,
        call: &Call<'_>,
    ) -> Option<Decision> {
        let shadow = self.shadow.as_ref()?;
        match &self.ahead {
            // What came ahead of its update is no word of these policies.
            Some(_) if !enforced.is_allow() => {
                let own = self.policies.decide_call(&agent.principal, target, call);
                shadow.decide(&own, agent, target, call)
            }
            _ => shadow.decide(enforced, agent, target, call),
        }
    }

    /// What can be said of an agent and a target before there is a call. Lists rest on it.
    pub(crate) fn standing(&self, agent: &Agent, target: &Target<'_>) -> Standing {
        let standing = self.policies.standing(&agent.principal, target);
        match &self.ahead {
            Some(ahead) if standing.is_shown() => ahead.rules.standing(standing, agent, target),
            _ => standing,
        }
    }

    /// What an agent sees of an endpoint, of servers that are not banned; `None` while no server's catalog is recorded.
    pub(crate) fn view(
        &self,
        agent: &Agent,
        endpoint: &Endpoint,
        banned: &Arc<BTreeSet<ServerName>>,
    ) -> Option<Arc<View>> {
        if endpoint.servers.iter().all(|server| server.offer.is_none()) {
            return None;
        }
        Some(agent.view(&endpoint.name, banned, || View::build(self, agent, endpoint, banned)))
    }

    /// The agent that a token means, with all that policies may ask of it; `None`: no agent is that.
    pub(crate) fn agent_of(&self, identity: &Identity) -> Option<Arc<Agent>> {
        let ahead = self.ahead.as_ref().map(|ahead| ahead.rules.policies());
        let shadow = self.shadow.as_ref().map(|shadow| shadow.policies());
        let policies: Vec<&PolicySet> =
            std::iter::once(self.policies.as_ref()).chain(ahead).chain(shadow).collect();
        self.callers.agent(&policies, identity)
    }

    /// The agent that a certificate means by what authorities say of it, and which of them says so.
    pub(crate) fn certified(&self, said: &[Arc<Identity>]) -> Result<Option<Certified>, SeveralAgents> {
        let identity = self.callers.choose(said)?;
        Ok(identity.and_then(|identity| Some((self.agent_of(identity)?, identity.clone()))))
    }

    /// The agent of a name: as it calls by a key, or by a token.
    pub(crate) fn caller(&self, name: &AgentName, identity: Option<&Identity>) -> Option<Arc<Agent>> {
        match identity {
            None => self.agents.get(name).cloned(),
            // It may be another's by now.
            Some(identity) => self.agent_of(identity).filter(|agent| agent.name == *name),
        }
    }
}

fn sort<'a>(records: impl Iterator<Item = &'a Record>) -> Parts {
    let mut parts = Parts::default();
    for record in records {
        match &record.value {
            RecordValue::AgentKey(key) => {
                parts.keys.insert(key.id, key.clone());
            }
            RecordValue::Catalog(catalog) => {
                parts.catalogs.insert(catalog.server.clone(), catalog.clone());
            }
            RecordValue::Resource(resource) => {
                let name = resource.name.clone();
                match &resource.spec {
                    Spec::Tenant(spec) => {
                        let seconds = spec.staleness.fail_closed_after_seconds;
                        parts.public_url = spec.public_url.clone();
                        parts.breaker.clone_from(&spec.breaker);
                        parts.inspection = spec.inspection.clone();
                        parts.check.clone_from(&spec.check);
                        parts.approving.set_hold(spec.approval_hold_seconds);
                        parts.fail_closed_after = seconds.map(|seconds| Duration::from_secs(seconds.into()));
                    }
                    Spec::Agent(spec) => {
                        parts.agents.insert(name.into(), spec.clone());
                    }
                    Spec::Server(spec) => parts.servers.push((name.into(), spec.clone())),
                    Spec::Endpoint(spec) => parts.endpoints.push((name.into(), spec.clone())),
                    Spec::Policy(spec) => {
                        parts.approving.add(name.clone(), spec, record.revision);
                        parts.policies.insert(name.into(), spec.clone());
                    }
                    Spec::Provider(spec) => parts.providers.push((name.into(), spec.clone())),
                    Spec::Limit(spec) => parts.limits.push((name.into(), spec.clone())),
                    Spec::Credential(spec) => {
                        parts.credentials.insert(name.into(), spec.clone());
                    }
                }
            }
            // The control plane keeps these to itself; one that came anyway has no meaning here.
            RecordValue::SealedSecret(_)
            | RecordValue::TenantKey(_)
            | RecordValue::Cluster(_)
            | RecordValue::Proposer(_)
            | RecordValue::Admin(_)
            | RecordValue::Deletions(_)
            // In force beside the tenant, also while it cannot be compiled.
            | RecordValue::Ban(_)
            | RecordValue::Rollout(_)
            | RecordValue::ApprovalRequest(_) => {}
        }
    }
    parts
}
