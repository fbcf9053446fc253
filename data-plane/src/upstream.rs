//! Servers: how a node reaches them, over HTTP or as child processes, and how it learns what they offer.
//!
//! Always holds: connections and processes outlive changes of configuration that do not concern them.

pub(crate) mod client;
pub(crate) mod discovery;
pub(crate) mod exchange;
pub(crate) mod health;
pub(crate) mod http;
pub(crate) mod legacy;
pub(crate) mod modern;
#[cfg(test)]
mod peer;
pub(crate) mod pool;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod stdio;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use dashmap::DashMap;
use gantry_model::{ServerName, TenantName};

use crate::config::Config;
use crate::config::tenant::Server;
use crate::upstream::health::Health;
use crate::upstream::http::HttpUpstream;
use crate::upstream::pool::Pool;
use crate::upstream::stdio::Stdio;

/// Everything that reaches servers.
pub(crate) struct Upstreams {
    pub(crate) http: HttpUpstream,
    /// Servers that are child processes.
    pub(crate) stdio: Stdio,
    /// Bounded by the servers of the configuration.
    health: DashMap<(TenantName, ServerName), Arc<Health>>,
    /// Sessions with legacy servers.
    pub(crate) pool: Pool,
    ids: AtomicU64,
}

impl Upstreams {
    /// Without connections or processes yet.
    pub(crate) fn new(allow_stdio: bool) -> Upstreams {
        Upstreams {
            http: HttpUpstream::new(),
            stdio: Stdio::new(allow_stdio),
            health: DashMap::new(),
            pool: Pool::default(),
            // Beyond what processes number by themselves.
            ids: AtomicU64::new(1 << 32),
        }
    }

    /// An id for a request that belongs to no session.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether a server is known not to answer.
    pub(crate) fn is_away(&self, server: &Server) -> bool {
        self.health(server).is_away()
    }

    /// Ends what belongs to servers that a new configuration has not, or has as others.
    pub(crate) fn reconcile(&self, config: &Config) {
        let server = |(tenant, name): &(TenantName, ServerName)| {
            config.tenants.get(tenant).and_then(|tenant| tenant.servers.get(name))
        };
        self.health.retain(|key, health| server(key).is_some_and(|server| health.is_of(&server.spec)));
        self.stdio.reconcile(config);
        let gone = self.pool.reconcile(config);
        if !gone.is_empty() {
            tokio::spawn(async move {
                for pooled in gone {
                    pooled.session.close().await;
                }
            });
        }
    }

    /// The health of a server. A request under an older configuration may bring back one that was dropped; it goes
    /// with the next.
    pub(crate) fn health(&self, server: &Server) -> Arc<Health> {
        let key = (server.tenant.clone(), server.name.clone());
        if let Some(health) = self.health.get(&key) {
            return health.clone();
        }
        self.health.entry(key).or_insert_with(|| Arc::new(Health::new(&server.name, &server.spec))).clone()
    }
}
