//! Authenticate: who calls. An agent's API key, a provider's token, the certificate of the connection, or nobody where an
//! endpoint allows that.
//!
//! Always holds: what is shown is told apart by its form and tried as that alone; what is shown twice, in two ways that differ
//! or in the query is refused. A key is looked up by its id within the tenant of the path, and its secret is compared as a
//! keyed hash in constant time. A token is that of the provider of the tenant that it names, or of nobody. Where an endpoint
//! takes certificates, one that a connection began with has to be good, and to be the agent's that a key or token is beside
//! it; elsewhere it is not looked at. Nothing of the body is read before. Whether a tenant or endpoint exists is told to
//! strangers only where it takes tokens, which cannot be asked for otherwise. A node that has no configuration says so: it
//! cannot know that a key is bad. Nor can one know what was revoked that heard from no control plane; after how long that
//! matters is the tenant's.

mod presented;
mod standing;

use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use gantry_model::AgentKey;
use gantry_model::key::{KeyId, PresentedKey};
use gantry_model::name::ANONYMOUS_AGENT;
use gantry_token::Compact;

use crate::audit::entry::Facts;
use crate::bans::Who;
use crate::bridge::handoff::Handoff;
use crate::config::Config;
use crate::config::caller::{Agent, SeveralAgents};
use crate::config::endpoint::Endpoint;
use crate::config::tenant::Tenant;
use crate::identity::provider::{IdentifyError, Provider};
use crate::identity::seen::TokenHash;
use crate::identity::{Identity, Principal};
use crate::node::Node;
use crate::pipeline::authenticate::presented::{Presented, presented};
pub(crate) use crate::pipeline::authenticate::standing::Standing;
use crate::pipeline::{Caller, Shown};
use crate::rejection::{Rejection, Unauthenticated, Unserved};
use crate::route::EndpointPath;

/// Proof that the caller is known. Only this stage builds it.
pub(super) struct Authenticated {
    pub(super) caller: Caller,
    _private: (),
}

/// Who was found to call.
struct Found {
    agent: Arc<Agent>,
    key: Option<KeyId>,
    identity: Option<Arc<Identity>>,
    /// When what says so ends, in seconds since 1970.
    ends_at: Option<u64>,
}

pub(super) async fn authenticate(
    node: &Node,
    path: EndpointPath<'_>,
    shown: Shown<'_>,
    facts: &mut Facts,
) -> Result<Authenticated, Rejection> {
    let config = node.config();
    facts.revision = config.revision;
    if config.keys.is_none() {
        return Err(Rejection::Unserved(Unserved::NoConfiguration));
    }
    let tenant = config.tenants.get(path.tenant).cloned();
    let endpoint = tenant.as_ref().and_then(|tenant| tenant.endpoints.get(path.endpoint)).cloned();
    let refused = |why| unauthenticated(why, endpoint.as_deref());
    let presented = presented(shown).map_err(refused)?;
    let Some(tenant) = &tenant else {
        return Err(refused(match presented {
            Presented::Nothing => Unauthenticated::Missing,
            Presented::Key(_) => Unauthenticated::Invalid,
            Presented::Token(_) => Unauthenticated::Issuer,
        }));
    };
    let found = find(node, &config, (tenant, endpoint.as_deref()), shown, presented).await;
    let Found { agent, key, identity, ends_at } = found.map_err(|why| {
        if why.may_follow_from_a_change() {
            tenant.tally.refuse();
        }
        refused(why)
    })?;
    facts.key_id = key.map(|key| key.to_string());
    facts.identity.clone_from(&identity);
    facts.tenant = Some(tenant.name.to_string());
    facts.agent = Some(agent.name.to_string());
    refuse_stale(node, tenant)?;
    let user = identity.as_ref().and_then(|identity| identity.user.clone());
    let principal = Principal { agent: agent.name.clone(), user };
    refuse_banned(node, &Who::agent(&tenant.name, &principal, key))?;
    // Not before: whoever shows no good key or was stopped says nothing of how a change of the tenant does.
    facts.tally = Some(tenant.tally.clone());
    let endpoint = endpoint.ok_or(Rejection::NoEndpoint)?;
    facts.endpoint = Some(endpoint.name.to_string());
    facts.server = endpoint.only().map(|server| server.name.to_string());
    demand_scopes(&endpoint, identity.as_deref(), None)?;
    let (tenant, principal) = (tenant.clone(), principal.id());
    facts.watched = tenant.breaker.as_ref().map(|breaker| breaker.watch(&principal));
    let caller = Caller { tenant, config, endpoint, agent, key, identity, principal, ends_at };
    Ok(Authenticated { caller, _private: () })
}

/// A caller whom another node authenticated, which the mesh knows to be one of ours.
pub(super) fn vouched(node: &Node, handoff: &Handoff) -> Result<Authenticated, Rejection> {
    let config = node.config();
    let tenant = config.tenants.get(&handoff.tenant).cloned().ok_or(Rejection::NoEndpoint)?;
    refuse_stale(node, &tenant)?;
    let endpoint = tenant.endpoints.get(&handoff.endpoint).cloned().ok_or(Rejection::NoEndpoint)?;
    let identity = handoff.identity.clone();
    let agent = tenant.caller(&handoff.agent, identity.as_deref());
    let agent = agent.ok_or_else(|| unauthenticated(Unauthenticated::Invalid, Some(&endpoint)))?;
    let key = handoff.key.as_ref().and_then(|key| key.parse().ok());
    let user = identity.as_ref().and_then(|identity| identity.user.clone());
    let principal = Principal { agent: agent.name.clone(), user };
    refuse_banned(node, &Who::agent(&tenant.name, &principal, key))?;
    let ends_at = identity.as_ref().map(|identity| identity.ends_at);
    let principal = principal.id();
    let caller = Caller { config, tenant, endpoint, agent, key, identity, principal, ends_at };
    Ok(Authenticated { caller, _private: () })
}

/// Whether the token that was shown is for what is asked.
pub(super) fn demand_scopes(
    endpoint: &Endpoint,
    identity: Option<&Identity>,
    tool: Option<&str>,
) -> Result<(), Rejection> {
    endpoint.access.check_scopes(identity, tool).map_err(|missing| Rejection::Scope {
        challenge: endpoint.access.challenge(Some(&missing)),
        needed: missing.needed.into_iter().collect(),
    })
}

/// Who calls a tenant's endpoint, by all that is shown. A stream that goes on asks it again and again.
async fn find(
    node: &Node,
    config: &Config,
    (tenant, endpoint): (&Tenant, Option<&Endpoint>),
    shown: Shown<'_>,
    presented: Presented<'_>,
) -> Result<Found, Unauthenticated> {
    let found = match presented {
        Presented::Nothing => nobody(node, tenant, endpoint),
        Presented::Key(text) => by_key(config, tenant, text, endpoint),
        Presented::Token(text) => by_token(tenant, text, shown, endpoint).await,
    };
    let certified = by_certificate(tenant, shown, endpoint);
    agreed(matches!(presented, Presented::Nothing), found, certified)
}

fn unauthenticated(why: Unauthenticated, endpoint: Option<&Endpoint>) -> Rejection {
    let challenge = endpoint.map(|endpoint| endpoint.access.challenge(None)).unwrap_or_default();
    Rejection::Unauthenticated { why, challenge }
}

fn nobody(node: &Node, tenant: &Tenant, endpoint: Option<&Endpoint>) -> Result<Found, Unauthenticated> {
    match endpoint {
        Some(endpoint) if endpoint.anonymous && node.on_loopback => {
            let agent = tenant.agents.get(ANONYMOUS_AGENT).cloned().ok_or(Unauthenticated::Invalid)?;
            Ok(Found { agent, key: None, identity: None, ends_at: None })
        }
        _ => Err(Unauthenticated::Missing),
    }
}

fn by_key(
    config: &Config,
    tenant: &Tenant,
    text: &str,
    endpoint: Option<&Endpoint>,
) -> Result<Found, Unauthenticated> {
    let key = verify(config, tenant, text, super::now_ms()).ok_or(Unauthenticated::Invalid)?;
    if endpoint.is_some_and(|endpoint| !endpoint.access.keys) {
        return Err(Unauthenticated::NoKeys);
    }
    let agent = tenant.agents.get(&key.agent).cloned().ok_or(Unauthenticated::Invalid)?;
    let ends_at = key.expires_at_ms.map(|ms| ms.div_ceil(1_000));
    Ok(Found { agent, key: Some(key.id), identity: None, ends_at })
}

/// `None`: there is no certificate that the endpoint looks at.
fn by_certificate(
    tenant: &Tenant,
    shown: Shown<'_>,
    endpoint: Option<&Endpoint>,
) -> Option<Result<Found, Unauthenticated>> {
    let (certificate, endpoint) = shown.certificate.zip(endpoint)?;
    let authorities = &endpoint.access.authorities;
    if authorities.is_empty() {
        return None;
    }
    let identified = certificate.identify(authorities, super::now_seconds());
    Some(identified.map_err(Unauthenticated::Certificate).and_then(|said| {
        let certified = tenant.certified(&said).map_err(|SeveralAgents| Unauthenticated::SeveralAgents)?;
        let (agent, identity) = certified.ok_or(Unauthenticated::NoCertifiedAgent)?;
        Ok(Found { agent, key: None, ends_at: Some(identity.ends_at), identity: Some(identity) })
    }))
}

/// Who calls by all that was shown. A key or a token says more than a certificate beside it: by which key, for which user. It
/// counts as long as both do. To a stranger, who may make a certificate of his own, it is not told that somebody looked at it.
fn agreed(
    is_bare: bool,
    found: Result<Found, Unauthenticated>,
    certified: Option<Result<Found, Unauthenticated>>,
) -> Result<Found, Unauthenticated> {
    match certified {
        None => found,
        Some(Err(Unauthenticated::Certificate(error))) if is_bare && !error.is_of_known() => {
            Err(Unauthenticated::Stranger(error))
        }
        Some(certified) if is_bare => certified,
        Some(certified) => {
            let found = found?;
            let certified = certified.map_err(|why| match why {
                Unauthenticated::Certificate(error) => Unauthenticated::CertificateBeside(error),
                why => why,
            })?;
            if found.agent.name != certified.agent.name {
                return Err(Unauthenticated::Disagree);
            }
            let ends_at = [found.ends_at, certified.ends_at].into_iter().flatten().min();
            Ok(Found { ends_at, ..found })
        }
    }
}

async fn by_token(
    tenant: &Tenant,
    text: &str,
    shown: Shown<'_>,
    endpoint: Option<&Endpoint>,
) -> Result<Found, Unauthenticated> {
    // What a token has to be for is an endpoint; for one that is not there none is, and one that takes none is like it.
    let endpoint = endpoint.filter(|endpoint| endpoint.access.takes_any()).ok_or(Unauthenticated::Issuer)?;
    let audience = endpoint.access.url.as_deref();
    let hash = TokenHash::of(text, audience);
    let is_current = |provider: &Arc<Provider>| {
        tenant.providers.get(provider.issuer()).is_some_and(|current| Arc::ptr_eq(current, provider))
            && endpoint.access.takes(&provider.name)
    };
    let identity = match tenant.seen.get(&hash, super::now_seconds(), is_current) {
        Some(identity) => identity,
        // In a box, for a client's first request of many only.
        None => Box::pin(verify_token(tenant, text, endpoint, hash)).await?,
    };
    if let Some(bound_to) = &identity.bound_to
        && shown.certificate.map(|certificate| certificate.thumbprint()) != Some(bound_to)
    {
        return Err(Unauthenticated::Bound);
    }
    let agent = tenant.agent_of(&identity).ok_or(Unauthenticated::NoAgent)?;
    Ok(Found { agent, key: None, ends_at: Some(identity.ends_at), identity: Some(identity) })
}

async fn verify_token(
    tenant: &Tenant,
    text: &str,
    endpoint: &Endpoint,
    hash: TokenHash,
) -> Result<Arc<Identity>, Unauthenticated> {
    let token = Compact::parse(text).map_err(|error| Unauthenticated::Token(error.into()))?;
    let claimed = token.claimed_issuer().unwrap_or_default();
    let provider = tenant.providers.get(&claimed).filter(|provider| endpoint.access.takes(&provider.name));
    let provider = provider.ok_or(Unauthenticated::Issuer)?;
    let now = SystemTime::now();
    let identified = provider.identify(text, endpoint.access.url.as_deref(), now).await;
    let (identity, keys) = identified.map_err(|error| match error {
        IdentifyError::Keys => Unauthenticated::Unverifiable,
        error => Unauthenticated::Token(error),
    })?;
    let identity = Arc::new(identity);
    if let Some(keys) = keys {
        tenant.seen.put(hash, provider, keys, &identity, super::now_seconds());
    }
    Ok(identity)
}

/// Keys of a tenant may have been revoked while the node heard nothing.
fn refuse_stale(node: &Node, tenant: &Tenant) -> Result<(), Rejection> {
    if node.is_stale(tenant) { Err(Rejection::Unserved(Unserved::Stale)) } else { Ok(()) }
}

/// Whom an admin stopped: before anything of the request is read.
fn refuse_banned(node: &Node, who: &Who) -> Result<(), Rejection> {
    match node.bans.refusal(who) {
        Some(target) => Err(Rejection::Unserved(Unserved::Revoked(target))),
        None => Ok(()),
    }
}

fn verify(config: &Config, tenant: &Tenant, text: &str, now_ms: u64) -> Option<Arc<AgentKey>> {
    let presented: PresentedKey = text.parse().ok()?;
    let stored = tenant.keys.get(&presented.id)?;
    let keys = config.keys.as_ref()?;
    hmac::verify(&keys.key_hash, presented.secret.expose(), &stored.hash).ok()?;
    let live = stored.expires_at_ms.is_none_or(|expires| now_ms < expires);
    live.then(|| stored.clone())
}
