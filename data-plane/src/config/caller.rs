//! The agents of a tenant as policies know them: by a key, or by a token that says more of them.
//!
//! Always holds: what policies decide of a caller rests on what is in its [`Agent`] and on nothing else, so that two callers
//! with the same one may share lists and verdicts; at most [`CLASSES_MAX`] of those that tokens make are kept.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use gantry_model::resource::{AgentIdentity, AgentSpec, ClientName, ProviderSpec};
use gantry_model::{AgentName, EndpointName, GroupName, ProviderName, ServerName};
use gantry_policy::{PolicySet, Principal, Shown};

use crate::config::view::View;
use crate::identity::Identity;
use crate::identity::keepers::Keepers;
use crate::identity::provider::Provider;

/// What tokens make of agents, as far as policies can tell it apart: agents times the sets of groups, scopes and claims that
/// are in use. Each has its views, of about 100 bytes a tool. Beyond, all of them are made anew.
const CLASSES_MAX: usize = 4_096;

/// A program that calls, with all that policies may ask of it.
pub(crate) struct Agent {
    pub(crate) name: AgentName,
    pub(crate) principal: Principal,
    /// What policies may ask of its token.
    shown: Option<Shown>,
    /// Made at first use; bounded by the endpoints of its tenant.
    views: RwLock<HashMap<EndpointName, Arc<View>>>,
}

/// Whom tokens and certificates mean.
#[derive(Default)]
pub(crate) struct Callers {
    by_identity: HashMap<AgentIdentity, (AgentName, Vec<GroupName>)>,
    classes: RwLock<HashMap<(AgentName, Shown), Arc<Agent>>>,
}

/// An agent that is named for what a provider says.
struct Named<'a> {
    name: &'a AgentName,
    groups: &'a [GroupName],
    /// By its own name there, not as one of all others.
    is_exact: bool,
}

/// What is shown is several agents'.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SeveralAgents;

/// The issuers of tokens of a tenant, by what they call themselves; those that did not change are taken over, with the
/// tokens that they verified.
pub(crate) fn believed(
    specs: &[(ProviderName, ProviderSpec)],
    before: Option<&HashMap<String, Arc<Provider>>>,
    keepers: &Keepers,
) -> HashMap<String, Arc<Provider>> {
    let build = |(name, spec): &(ProviderName, ProviderSpec)| {
        let ProviderSpec::Issuer(spec) = spec else { return None };
        let kept = before.and_then(|before| before.get(&spec.issuer));
        let kept = kept.filter(|kept| kept.name == *name && kept.is(spec)).cloned();
        let built = kept.unwrap_or_else(|| Arc::new(Provider::compile(name.clone(), spec.clone(), keepers)));
        Some((spec.issuer.clone(), built))
    };
    specs.iter().filter_map(build).collect()
}

impl Agent {
    /// An agent that shows a key, or nothing.
    pub(crate) fn new(name: &AgentName, spec: &AgentSpec) -> Agent {
        Agent::of(name, &spec.groups, None)
    }

    fn of(name: &AgentName, groups: &[GroupName], shown: Option<Shown>) -> Agent {
        let (principal, name) = (principal(name, groups, shown.as_ref()), name.clone());
        Agent { name, principal, shown, views: RwLock::default() }
    }

    /// The same, for a tenant that decides otherwise.
    pub(crate) fn anew(&self) -> Agent {
        let (name, principal, shown) = (self.name.clone(), self.principal.clone(), self.shown.clone());
        Agent { name, principal, shown, views: RwLock::default() }
    }

    /// Whether it is known by a key, or by nothing.
    pub(crate) fn shows_nothing(&self) -> bool {
        self.shown.is_none()
    }

    /// The same in other groups.
    pub(crate) fn principal_in(&self, groups: &[GroupName]) -> Principal {
        principal(&self.name, groups, self.shown.as_ref())
    }

    /// What it sees of an endpoint, of servers that are not banned.
    pub(crate) fn view(
        &self,
        endpoint: &EndpointName,
        banned: &Arc<BTreeSet<ServerName>>,
        build: impl FnOnce() -> View,
    ) -> Arc<View> {
        let kept = self.views.read().unwrap_or_else(PoisonError::into_inner).get(endpoint).cloned();
        if let Some(view) = kept.filter(|view| view.is_without(banned)) {
            return view;
        }
        // Built outside the lock; two requests may build it twice, and build the same.
        let view = Arc::new(build());
        self.views.write().unwrap_or_else(PoisonError::into_inner).insert(endpoint.clone(), view.clone());
        view
    }
}

fn principal(name: &AgentName, groups: &[GroupName], shown: Option<&Shown>) -> Principal {
    match shown {
        None => Principal::new(name, groups),
        Some(shown) => Principal::showing(name, groups, shown),
    }
}

impl Callers {
    /// By what providers call these agents.
    pub(crate) fn of(
        agents: &HashMap<AgentName, AgentSpec>,
        providers: &[(ProviderName, ProviderSpec)],
    ) -> Callers {
        // Names of hosts have no case, and certificates are read without (`ClientNames`).
        let hosts: BTreeSet<&ProviderName> = providers
            .iter()
            .filter(|(_, spec)| matches!(spec, ProviderSpec::Authority(spec) if spec.client_name == ClientName::Dns))
            .map(|(name, _)| name)
            .collect();
        let (mut by_identity, mut twice) = (HashMap::new(), BTreeSet::new());
        for (name, spec) in agents {
            for identity in &spec.identities {
                let mut identity = identity.clone();
                if hosts.contains(&identity.provider) {
                    identity.client = identity.client.map(|client| client.to_ascii_lowercase());
                }
                let agent = (name.clone(), spec.groups.clone());
                let other = by_identity.insert(identity.clone(), agent).filter(|(other, _)| other != name);
                twice.extend(other.map(|_| identity));
            }
        }
        for identity in twice {
            let (provider, client) = (&identity.provider, &identity.client);
            tracing::error!(%provider, client, "two agents are one client, which is nobody then");
            by_identity.remove(&identity);
        }
        Callers { by_identity, classes: RwLock::default() }
    }

    /// The same without agents that do not count.
    pub(crate) fn of_those(&self, counts: impl Fn(&AgentName) -> bool) -> Callers {
        let by_identity = self.by_identity.iter().filter(|(_, (name, _))| counts(name));
        let by_identity = by_identity.map(|(identity, agent)| (identity.clone(), agent.clone())).collect();
        Callers { by_identity, classes: RwLock::default() }
    }

    /// The agent that is named for what a provider says.
    fn named(&self, identity: &Identity) -> Option<Named<'_>> {
        let provider = identity.provider.clone();
        let mut wanted = AgentIdentity { provider, client: Some(identity.client.clone()) };
        let exact = self.by_identity.get(&wanted);
        let (name, groups) = exact.or_else(|| {
            wanted.client = None;
            self.by_identity.get(&wanted)
        })?;
        Some(Named { name, groups, is_exact: exact.is_some() })
    }

    /// The one of what several providers say of one caller that counts: by which an agent is named before those by which it is
    /// one of all others. `None`: no agent is. An error: several agents are, and which of them calls is not for an order of
    /// names to say.
    pub(crate) fn choose<'i>(
        &self,
        said: &'i [Arc<Identity>],
    ) -> Result<Option<&'i Arc<Identity>>, SeveralAgents> {
        let named: Vec<_> =
            said.iter().filter_map(|identity| Some((identity, self.named(identity)?))).collect();
        let is_any_exact = named.iter().any(|(_, named)| named.is_exact);
        let mut counting = named.into_iter().filter(|(_, named)| named.is_exact == is_any_exact);
        let Some((identity, first)) = counting.next() else { return Ok(None) };
        if counting.all(|(_, named)| named.name == first.name) {
            Ok(Some(identity))
        } else {
            Err(SeveralAgents)
        }
    }

    /// The agent that a token means, as far as these policies can tell it apart.
    pub(crate) fn agent(&self, policies: &[&PolicySet], identity: &Identity) -> Option<Arc<Agent>> {
        let Named { name, groups, .. } = self.named(identity)?;
        let key = (name.clone(), PolicySet::reduce(policies, identity.shown()));
        let known = self.classes.read().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if known.is_some() {
            return known;
        }
        let agent = Arc::new(Agent::of(name, groups, Some(key.1.clone())));
        let mut classes = self.classes.write().unwrap_or_else(PoisonError::into_inner);
        if classes.len() >= CLASSES_MAX {
            classes.clear();
        }
        Some(classes.entry(key).or_insert(agent).clone())
    }
}

#[cfg(test)]
mod tests;
