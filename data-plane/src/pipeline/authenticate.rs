//! Authenticate: who calls. An agent's API key, or nobody where an endpoint allows that.
//!
//! Always holds: a key is looked up by its id within the tenant of the path, and its secret is compared as a keyed
//! hash in constant time. Nothing of the body is read before. Whether a tenant or endpoint exists is not told to
//! whoever has no key of the tenant. A node that has no configuration says so: it cannot know that a key is bad.
//! Nor can one know what was revoked that heard from no control plane; after how long that matters is the tenant's.

use std::sync::Arc;

use aws_lc_rs::hmac;
use gantry_model::AgentKey;
use gantry_model::key::PresentedKey;
use gantry_model::name::ANONYMOUS_AGENT;
use http::HeaderMap;
use http::header::AUTHORIZATION;

use crate::audit::entry::Facts;
use crate::bans::Who;
use crate::bridge::handoff::Handoff;
use crate::config::Config;
use crate::config::tenant::Tenant;
use crate::node::Node;
use crate::pipeline::Caller;
use crate::rejection::{Rejection, Unauthenticated, Unserved};
use crate::route::EndpointPath;

const API_KEY: &str = "x-api-key";

/// Proof that the caller is known. Only this stage builds it.
pub(super) struct Authenticated {
    pub(super) caller: Caller,
    _private: (),
}

pub(super) fn authenticate(
    node: &Node,
    path: EndpointPath<'_>,
    headers: &HeaderMap,
    facts: &mut Facts,
) -> Result<Authenticated, Rejection> {
    let config = node.config();
    facts.revision = config.revision;
    if config.keys.is_none() {
        return Err(Rejection::Unserved(Unserved::NoConfiguration));
    }
    let presented = presented(headers);
    let tenant = config.tenants.get(path.tenant).cloned();
    let mut shown = None;
    let agent = match (&presented, &tenant) {
        (None, None) => return Err(Rejection::Unauthenticated(Unauthenticated::Missing)),
        (None, Some(tenant)) => match tenant.endpoints.get(path.endpoint) {
            Some(endpoint) if endpoint.anonymous && node.on_loopback => tenant.agents.get(ANONYMOUS_AGENT),
            _ => return Err(Rejection::Unauthenticated(Unauthenticated::Missing)),
        },
        (Some(text), tenant) => {
            let key = tenant.as_ref().and_then(|tenant| verify(&config, tenant, text, super::now_ms()));
            let key = key.ok_or(Rejection::Unauthenticated(Unauthenticated::Invalid))?;
            facts.key_id = Some(key.id.to_string());
            shown = Some(key.id);
            tenant.as_ref().and_then(|tenant| tenant.agents.get(&key.agent))
        }
    };
    let (Some(tenant), Some(agent)) = (&tenant, agent.cloned()) else {
        return Err(Rejection::Unauthenticated(Unauthenticated::Invalid));
    };
    facts.tenant = Some(tenant.name.to_string());
    facts.agent = Some(agent.name.to_string());
    refuse_stale(node, tenant)?;
    refuse_banned(node, &Who::agent(&tenant.name, &agent.name, shown))?;
    let endpoint = tenant.endpoints.get(path.endpoint).cloned().ok_or(Rejection::NoEndpoint)?;
    facts.endpoint = Some(endpoint.name.to_string());
    facts.server = endpoint.only().map(|server| server.name.to_string());
    let caller = Caller { tenant: tenant.clone(), config, endpoint, agent, key: shown };
    Ok(Authenticated { caller, _private: () })
}

/// A caller whom another node authenticated, which the mesh knows to be one of ours.
pub(super) fn vouched(node: &Node, handoff: &Handoff) -> Result<Authenticated, Rejection> {
    let config = node.config();
    let tenant = config.tenants.get(&handoff.tenant).cloned().ok_or(Rejection::NoEndpoint)?;
    refuse_stale(node, &tenant)?;
    let endpoint = tenant.endpoints.get(&handoff.endpoint).cloned().ok_or(Rejection::NoEndpoint)?;
    let agent = tenant.agents.get(&handoff.agent).cloned();
    let agent = agent.ok_or(Rejection::Unauthenticated(Unauthenticated::Invalid))?;
    let key = handoff.key.as_ref().and_then(|key| key.parse().ok());
    refuse_banned(node, &Who::agent(&tenant.name, &agent.name, key))?;
    Ok(Authenticated { caller: Caller { config, tenant, endpoint, agent, key }, _private: () })
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

/// The key that a request presents: `Authorization: Bearer KEY`, or `X-API-Key: KEY`.
fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(value) = headers.get(AUTHORIZATION) {
        let text = value.to_str().unwrap_or_default();
        // RFC 9110, 11.1: the scheme's name has no case.
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        return Some(if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" });
    }
    headers.get(API_KEY).map(|value| value.to_str().unwrap_or_default())
}

fn verify(config: &Config, tenant: &Tenant, text: &str, now_ms: u64) -> Option<Arc<AgentKey>> {
    let presented: PresentedKey = text.parse().ok()?;
    let stored = tenant.keys.get(&presented.id)?;
    let keys = config.keys.as_ref()?;
    hmac::verify(&keys.key_hash, presented.secret.expose(), &stored.hash).ok()?;
    let live = stored.expires_at_ms.is_none_or(|expires| now_ms < expires);
    live.then(|| stored.clone())
}
