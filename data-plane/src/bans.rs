//! Bans in force on this node: whom it refuses, and whom it cuts off, whatever its configuration says.
//!
//! Always holds: a ban is in force from the moment that it came, by whichever way came first: ahead of the updates
//! ([`Bans::take`]) or with one ([`Bans::configure`]); what came ahead counts until an update of its revision or a later
//! one is there. Whoever begins asks first and is told of every ban from then on ([`Bans::leash`]), so nobody slips in
//! between. A tenant that cannot be compiled has its bans in force all the same.

mod enforce;
mod layers;
mod who;

use std::collections::{BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwap;
use gantry_model::{Ban, BanTarget, Revision, ServerName, TenantName};
use gantry_wire::sync_v1 as wire;
use tokio::sync::watch;

pub(crate) use enforce::{enforce, keep_enforcing};
use layers::{InForce, Layers};
pub(crate) use who::Who;

/// Resolves when its bearer is banned, with the ban's target.
pub(crate) type Leash = Pin<Box<dyn Future<Output = BanTarget> + Send + Sync>>;

/// The bans.
pub(crate) struct Bans {
    layers: Mutex<Layers>,
    in_force: ArcSwap<InForce>,
    changes: watch::Sender<u64>,
}

/// The bans of the tenants that an update touched.
pub(crate) type Configured = HashMap<TenantName, Vec<Arc<Ban>>>;

/// What the control plane said of bans cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("the ban {key:?} cannot be read")]
pub(crate) struct UnreadableBan {
    key: String,
    #[source]
    source: gantry_wire::WireError,
}

impl Default for Bans {
    fn default() -> Bans {
        let (layers, in_force) = (Mutex::default(), ArcSwap::default());
        Bans { layers, in_force, changes: watch::Sender::new(0) }
    }
}

impl Bans {
    /// Why somebody is refused now; `None`: nobody banned them.
    pub(crate) fn refusal(&self, who: &Who) -> Option<BanTarget> {
        self.in_force.load().refusal(who)
    }

    /// Servers of a tenant to which nothing is sent.
    pub(crate) fn servers(&self, tenant: &TenantName) -> Arc<BTreeSet<ServerName>> {
        self.in_force.load().servers(tenant)
    }

    /// Whether nothing is sent to a server.
    pub(crate) fn is_banned(&self, tenant: &TenantName, server: &ServerName) -> bool {
        self.refusal(&Who::server(tenant, server)).is_some()
    }

    /// Holds somebody who begins something: resolves when they are banned, which may be at once.
    pub(crate) fn leash(self: &Arc<Bans>, who: Who) -> Leash {
        let bans = self.clone();
        Box::pin(async move {
            let mut changes = bans.changes.subscribe();
            loop {
                changes.borrow_and_update();
                if let Some(target) = bans.refusal(&who) {
                    return target;
                }
                // The sender is in what this holds.
                if changes.changed().await.is_err() {
                    return std::future::pending().await;
                }
            }
        })
    }

    /// Waits while nothing may be sent to a server.
    pub(crate) async fn until_free(&self, tenant: &TenantName, server: &ServerName) {
        let mut changes = self.changes.subscribe();
        while self.is_banned(tenant, server) {
            // The sender lives as long as this.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Tells of each change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Takes what comes ahead of the updates. It is in force when this returns.
    pub(crate) fn take(&self, urgent: wire::Urgent) -> Result<(), UnreadableBan> {
        let mut layers = self.layers();
        layers.take(urgent)?;
        self.put_in_force(&layers);
        Ok(())
    }

    /// Takes the bans that an update brought, or left, of the tenants that it touched.
    pub(crate) fn configure(&self, cluster_id: &str, revision: Revision, touched: Configured) {
        let mut layers = self.layers();
        if layers.configure(cluster_id, revision, touched) {
            self.put_in_force(&layers);
        }
    }

    /// What came ahead of the updates and is in none that this node has, to be kept.
    pub(crate) fn ahead(&self) -> wire::KeptUrgent {
        self.layers().ahead()
    }

    /// Begins with what was kept.
    pub(crate) fn restore(&self, kept: wire::KeptUrgent) -> Result<(), UnreadableBan> {
        let mut layers = self.layers();
        layers.restore(kept)?;
        self.put_in_force(&layers);
        Ok(())
    }

    fn put_in_force(&self, layers: &Layers) {
        self.in_force.store(Arc::new(layers.in_force()));
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        self.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
