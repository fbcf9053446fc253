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
pub(crate) mod peer;
pub(crate) mod pool;
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod stdio;

use std::sync::atomic::{AtomicU64, Ordering};

use crate::config::{Changed, Config};
use crate::upstream::http::HttpUpstream;
use crate::upstream::pool::Pool;
use crate::upstream::stdio::Stdio;

/// Everything that reaches servers.
pub(crate) struct Upstreams {
    pub(crate) http: HttpUpstream,
    /// Servers that are child processes.
    pub(crate) stdio: Stdio,
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
            pool: Pool::default(),
            // Beyond what processes number by themselves.
            ids: AtomicU64::new(1 << 32),
        }
    }

    /// An id for a request that belongs to no session.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends what belongs to servers that a new configuration has not, or has as others. Of the configuration before,
    /// nothing but the tenants that changed is looked at.
    pub(crate) fn reconcile(&self, before: &Config, config: &Config, changed: &Changed) {
        let tenants = changed.iter().filter_map(|tenant| before.tenants.get(tenant));
        for server in tenants.flat_map(|tenant| tenant.servers.values()) {
            self.stdio.reconcile(server, config);
        }
        let gone = self.pool.reconcile(config, changed);
        if !gone.is_empty() {
            tokio::spawn(async move {
                for pooled in gone {
                    pooled.session.close().await;
                }
            });
        }
    }
}
