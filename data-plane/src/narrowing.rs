//! Denials that came ahead of the updates that bring them: what is refused already, though the configuration allows it.
//!
//! Always holds: a narrowing only takes away. It is in force from when it came until its tenant is served as of its
//! revision or a later one, over every configuration meanwhile, and not a moment longer; of two for one tenant the later
//! counts. One that cannot be put in force costs the others nothing. What the configuration of another cluster allows it does not touch. It does not cut what is under way: that is what
//! bans are for.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use gantry_model::{AgentName, EndpointName, GroupName, PolicyName, Revision, ServerName, TenantName};
use gantry_policy::{
    Call, CompileError, Decision, PolicySet, PolicyText, Principal, Standing, Target, Verdict,
};
use gantry_wire::sync_v1 as wire;

use crate::config::Config;
use crate::config::caller::Agent;
use crate::config::tenant::Tenant;

/// The narrowings, and the only way to replace a configuration.
#[derive(Default)]
pub(crate) struct Narrowings(Mutex<Layer>);

#[derive(Default)]
struct Layer {
    /// Whose control plane said it.
    cluster_id: String,
    tenants: BTreeMap<TenantName, Narrowing>,
}

/// What came of one tenant.
struct Narrowing {
    revision: Revision,
    rules: Arc<Rules>,
    /// As it came, to be kept.
    encoded: wire::Narrowing,
}

/// What decides about a tenant's calls, as of a revision; nothing of a tenant that is gone.
pub(crate) struct Rules {
    policies: PolicySet,
    agents: HashMap<AgentName, Groups>,
    servers: BTreeSet<ServerName>,
    endpoints: BTreeSet<EndpointName>,
}

/// What an agent is in, and what it is where it shows no token.
struct Groups {
    names: Vec<GroupName>,
    principal: Principal,
}

/// What the control plane said cannot be put in force.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NarrowingError {
    /// A part of it is not well formed.
    #[error("what is denied in tenant {0:?} is not well formed")]
    Form(String),
    /// A policy does not compile.
    #[error("a policy of tenant {0} does not compile")]
    Policy(TenantName, #[source] CompileError),
}

impl Narrowings {
    /// Takes what came ahead. It is in force when this returns, but for what is returned; compiling many policies takes a
    /// while.
    pub(crate) fn take(
        &self,
        cluster_id: &str,
        came: Vec<wire::Narrowing>,
        config: &ArcSwap<Config>,
    ) -> Vec<NarrowingError> {
        let (mut read_ones, mut unread) = (Vec::with_capacity(came.len()), Vec::new());
        for one in came {
            match read(one) {
                Ok(one) => read_ones.push(one),
                Err(error) => unread.push(error),
            }
        }
        let mut layer = self.layer();
        layer.hear(cluster_id);
        let before = config.load_full();
        for (tenant, narrowing) in read_ones {
            // What the configuration has already, or will have had by then.
            let is_late = before.cluster_id == cluster_id && narrowing.is_within(&before, &tenant);
            let known = layer.tenants.get(&tenant);
            if !is_late && known.is_none_or(|known| known.revision < narrowing.revision) {
                layer.tenants.insert(tenant, narrowing);
            }
        }
        let next = before.at((&before.cluster_id, before.revision), before.keys.clone());
        config.store(Arc::new(layer.narrow(next)));
        unread
    }

    /// Replaces the configuration, narrowed by what came ahead of it.
    pub(crate) fn put_in_force(&self, mut next: Config, config: &ArcSwap<Config>) {
        let mut layer = self.layer();
        layer.hear(&next.cluster_id);
        layer.tenants.retain(|name, narrowing| {
            let is_over = narrowing.is_within(&next, name);
            // The update that has it may not have touched the tenant: it may be as it was before the narrowing.
            if is_over && let Some(whole) = next.tenants.get(name).map(|tenant| tenant.whole().clone()) {
                next.put(whole);
            }
            !is_over
        });
        config.store(Arc::new(layer.narrow(next)));
    }

    /// What is in force and in no update that this node has, to be kept.
    pub(crate) fn ahead(&self) -> Vec<wire::Narrowing> {
        self.layer().tenants.values().map(|narrowing| narrowing.encoded.clone()).collect()
    }

    fn layer(&self) -> MutexGuard<'_, Layer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Layer {
    /// What another cluster said before means nobody any more.
    fn hear(&mut self, cluster_id: &str) {
        if self.cluster_id != cluster_id {
            self.cluster_id = cluster_id.to_owned();
            self.tenants.clear();
        }
    }

    fn narrow(&self, mut config: Config) -> Config {
        if config.cluster_id != self.cluster_id {
            return config;
        }
        for (name, narrowing) in &self.tenants {
            let tenant = config.tenants.get(name);
            if let Some(tenant) = tenant.filter(|tenant| !tenant.is_narrowed_by(&narrowing.rules)).cloned() {
                config.put(Tenant::narrowed(tenant.whole(), &narrowing.rules));
            }
        }
        config
    }
}

impl Narrowing {
    /// Whether a configuration of the same cluster has it. One whose tenant is in an older form does not.
    fn is_within(&self, config: &Config, tenant: &TenantName) -> bool {
        self.revision <= config.revision && !config.older.contains(tenant)
    }
}

impl Rules {
    /// What is allowed by the configuration, and by this.
    pub(crate) fn decide(
        &self,
        allowed: Decision,
        agent: &Agent,
        target: &Target<'_>,
        call: &Call<'_>,
    ) -> Decision {
        match self.principal(agent, target) {
            Some(principal) => allowed.and(self.policies.decide_call(&principal, target, call)),
            None => Decision { verdict: Verdict::Deny, reasons: Vec::new(), ..allowed },
        }
    }

    /// The standing of what the configuration allows, or allows in some calls.
    pub(crate) fn standing(&self, shown: Standing, agent: &Agent, target: &Target<'_>) -> Standing {
        let Some(principal) = self.principal(agent, target) else { return Standing::Refused };
        match (shown, self.policies.standing(&principal, target)) {
            (Standing::Open, Standing::Settled(decision)) if !decision.is_deny() => Standing::Open,
            (Standing::Settled(one), Standing::Settled(other)) => Standing::Settled(one.and(other)),
            (_, standing) => standing,
        }
    }

    fn principal(&self, agent: &Agent, target: &Target<'_>) -> Option<Cow<'_, Principal>> {
        let groups = self.agents.get(&agent.name).filter(|_| self.servers.contains(target.server()))?;
        Some(match agent.shows_nothing() {
            true => Cow::Borrowed(&groups.principal),
            // Made each time: this lasts until the update is here.
            false => Cow::Owned(agent.principal_in(&groups.names)),
        })
    }

    /// Whether an agent is there still.
    pub(crate) fn has_agent(&self, agent: &AgentName) -> bool {
        self.agents.contains_key(agent)
    }

    /// What decides.
    pub(crate) fn policies(&self) -> &PolicySet {
        &self.policies
    }

    /// Whether an endpoint is there still.
    pub(crate) fn has_endpoint(&self, endpoint: &EndpointName) -> bool {
        self.endpoints.contains(endpoint)
    }
}

fn read(came: wire::Narrowing) -> Result<(TenantName, Narrowing), NarrowingError> {
    let unformed = |_| NarrowingError::Form(came.tenant.clone());
    let tenant: TenantName = came.tenant.parse().map_err(unformed)?;
    let servers = came.servers.iter().map(|name| name.parse()).collect::<Result<_, _>>().map_err(unformed)?;
    let endpoints = came.endpoints.iter().map(|name| name.parse()).collect::<Result<_, _>>();
    let endpoints = endpoints.map_err(unformed)?;
    let texts = came.policies.iter().map(|policy| Ok((policy.name.parse()?, text(policy))));
    let texts: Vec<(PolicyName, PolicyText<'_>)> = texts.collect::<Result<_, _>>().map_err(unformed)?;
    let mut agents = HashMap::with_capacity(came.agents.len());
    for wire::NarrowingAgent { name, groups } in &came.agents {
        let name: AgentName = name.parse().map_err(unformed)?;
        let groups = groups.iter().map(|group| group.parse()).collect::<Result<Vec<_>, _>>();
        let names = groups.map_err(unformed)?;
        let principal = Principal::new(&name, &names);
        agents.insert(name, Groups { names, principal });
    }
    let policies = PolicySet::compile(texts.iter().map(|(name, text)| (name, *text)))
        .map_err(|source| NarrowingError::Policy(tenant.clone(), source))?;
    let rules = Arc::new(Rules { policies, agents, servers, endpoints });
    Ok((tenant, Narrowing { revision: Revision(came.revision), rules, encoded: came }))
}

fn text(policy: &wire::NarrowingPolicy) -> PolicyText<'_> {
    PolicyText { cedar: &policy.cedar, is_approvable: policy.needs_approval }
}

#[cfg(test)]
mod tests;
