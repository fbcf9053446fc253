//! What goes on by a proof that was given when it began: streams, and connections that stay.
//!
//! Always holds: whoever would not be let in any more by what was shown goes on for [`PAUSE`] at most after the change of the
//! configuration that says so (a key, an authority, a provider, an agent or an endpoint that is gone), for [`LOOK_EVERY`]
//! where no change does (an authority between that has ended, a token that its issuer took back), and not at all after the end
//! of what was shown, of the earlier one where two were. It is asked by the code that lets requests in. That nobody can tell
//! now is no proof.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::key::KeyId;
use gantry_model::{EndpointName, TenantName};
use tokio_util::task::AbortOnDropHandle;

use super::{demand_scopes, find, presented};
use crate::config::Config;
use crate::config::endpoint::Endpoint;
use crate::config::tenant::Tenant;
use crate::front::Credentials;
use crate::identity::Principal;
use crate::node::Node;
use crate::pipeline::{Caller, Shown, now_seconds};
use crate::reply::Lapse;

/// How long nobody looks again after a look: tenants may change several times a second, and 10,000 streams are looked at each
/// time.
const PAUSE: Duration = Duration::from_secs(1);
/// How often somebody looks though nothing has changed: 10,000 streams are 170 looks a second, of some microseconds.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Who began something that goes on, and by what.
pub(crate) struct Standing {
    node: Arc<Node>,
    tenant: Arc<Tenant>,
    endpoint: Arc<Endpoint>,
    principal: Arc<str>,
    key: Option<KeyId>,
    credentials: Credentials,
    /// In seconds since 1970.
    ends_at: Option<u64>,
    /// By which it was let in.
    config: Arc<Config>,
}

impl Standing {
    /// Of a caller who was let in by these.
    pub(crate) fn of(node: &Arc<Node>, caller: &Caller, credentials: Credentials) -> Standing {
        Standing {
            node: node.clone(),
            tenant: caller.tenant.clone(),
            endpoint: caller.endpoint.clone(),
            principal: caller.principal.clone(),
            key: caller.key,
            credentials,
            ends_at: caller.ends_at,
            config: caller.config.clone(),
        }
    }

    /// Whose endpoint it is at.
    pub(crate) fn tenant(&self) -> &Arc<Tenant> {
        &self.tenant
    }

    /// Completes when the caller would not be let in any more. Dropping the future is safe.
    pub(crate) fn lapse(self) -> impl Future<Output = Lapse> + Send + Sync + 'static {
        let mut swaps = self.node.swaps();
        // Whatever changes from here on is told. The configuration itself is not to be kept for as long as a stream lasts.
        let mut is_known = Arc::ptr_eq(&self.config, &self.node.config());
        let Standing { node, tenant, endpoint, principal, key, credentials, mut ends_at, .. } = self;
        let (tenant, endpoint) = (tenant.name.clone(), endpoint.name.clone());
        let asked = Arc::new(Asked { node, tenant, endpoint, principal, key, credentials });
        async move {
            loop {
                if !is_known {
                    let asked = asked.clone();
                    let look = AbortOnDropHandle::new(tokio::spawn(async move { asked.look().await }));
                    match look.await {
                        Ok(Some(ends)) => ends_at = ends,
                        Ok(None) | Err(_) => return Lapse::Withdrawn,
                    }
                    tokio::time::sleep(within(ends_at, PAUSE)).await;
                }
                tokio::select! {
                    changed = swaps.changed() => if changed.is_err() { return Lapse::Withdrawn },
                    () = tokio::time::sleep(within(ends_at, LOOK_EVERY)) => {}
                }
                if ends_at.is_some_and(|at| at <= now_seconds()) {
                    return Lapse::Ended;
                }
                is_known = false;
            }
        }
    }
}

/// What is asked at each look.
struct Asked {
    node: Arc<Node>,
    tenant: TenantName,
    endpoint: EndpointName,
    principal: Arc<str>,
    key: Option<KeyId>,
    credentials: Credentials,
}

impl Asked {
    /// When what was shown ends now; `None`: it would not let the same caller in.
    async fn look(&self) -> Option<Option<u64>> {
        let config = self.node.config();
        let tenant = config.tenants.get(&self.tenant)?.clone();
        let endpoint = tenant.endpoints.get(&self.endpoint)?.clone();
        let headers = self.credentials.headers();
        let certificate = self.credentials.certificate();
        let shown = Shown { headers: &headers, query: None, certificate };
        let presented = presented(shown).ok()?;
        let found = find(&self.node, &config, (&tenant, Some(&endpoint)), shown, presented).await.ok()?;
        demand_scopes(&endpoint, found.identity.as_deref(), None).ok()?;
        let user = found.identity.as_ref().and_then(|identity| identity.user.clone());
        let principal = Principal { agent: found.agent.name.clone(), user };
        (principal.id() == self.principal && found.key == self.key).then_some(found.ends_at)
    }
}

/// So long, and not beyond the end.
fn within(ends_at: Option<u64>, most: Duration) -> Duration {
    ends_at.map_or(most, |at| most.min(Duration::from_secs(at.saturating_sub(now_seconds()))))
}
