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
pub(crate) mod router;
pub(crate) mod session;
pub(crate) mod sse;
pub(crate) mod stdio;

use std::sync::Arc;

use dashmap::DashMap;
use gantry_model::resource::Transport;
use gantry_model::{ServerName, TenantName};

use crate::config::Config;
use crate::config::tenant::Server;
use crate::rejection::{Rejection, Upstream};
use crate::upstream::health::Health;
use crate::upstream::http::HttpUpstream;
use crate::upstream::stdio::StdioServer;

/// Everything that reaches servers.
pub(crate) struct Upstreams {
    pub(crate) http: HttpUpstream,
    /// Bounded by the servers of the configuration.
    health: DashMap<(TenantName, ServerName), Arc<Health>>,
    /// Bounded by the servers of the configuration.
    stdio: DashMap<(TenantName, ServerName), Arc<StdioServer>>,
    allow_stdio: bool,
}

impl Upstreams {
    /// Without connections or processes yet.
    pub(crate) fn new(allow_stdio: bool) -> Upstreams {
        Upstreams { http: HttpUpstream::new(), health: DashMap::new(), stdio: DashMap::new(), allow_stdio }
    }

    /// Starts the processes that a new configuration wants, and ends those that it no longer does.
    pub(crate) fn reconcile(&self, config: &Config) {
        let server = |(tenant, name): &(TenantName, ServerName)| {
            config.tenants.get(tenant).and_then(|tenant| tenant.servers.get(name))
        };
        self.health.retain(|key, health| server(key).is_some_and(|server| health.is_of(&server.spec)));
        self.stdio
            .retain(|key, running| server(key).is_some_and(|server| running.runs(&server.spec.transport)));
        if !self.allow_stdio {
            return;
        }
        for server in config.tenants.values().flat_map(|tenant| tenant.servers.values()) {
            if let Transport::Stdio { command, environment } = &server.spec.transport {
                self.stdio
                    .entry((server.tenant.clone(), server.name.clone()))
                    .or_insert_with(|| Arc::new(StdioServer::start(&server.name, command, environment)));
            }
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

    /// The process of a server.
    pub(crate) fn stdio(&self, server: &Server) -> Result<Arc<StdioServer>, Rejection> {
        let key = (server.tenant.clone(), server.name.clone());
        let running = self.stdio.get(&key).map(|running| running.clone());
        running.ok_or(Rejection::Upstream(Upstream::Unreachable))
    }

    /// Whether this node may start processes at all.
    pub(crate) fn allows_stdio(&self) -> bool {
        self.allow_stdio
    }
}
