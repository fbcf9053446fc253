//! The node: what every request and task of this process shares.
//!
//! Always holds: the configuration is replaced by one pointer swap and never changed in place.

use std::sync::Arc;

use arc_swap::ArcSwap;
use gantry_model::Revision;
use tokio::sync::watch;

use crate::audit::Audit;
use crate::config::Config;
use crate::config::tenant::Server;
use crate::front::sse::Streams;
use crate::mcp::session::Ended;
use crate::mesh::Mesh;
use crate::upstream::Upstreams;
use crate::upstream::discovery::Wakeup;

/// Shared by all requests and tasks.
pub(crate) struct Node {
    config: ArcSwap<Config>,
    swapped: watch::Sender<Revision>,
    pub(crate) audit: Audit,
    pub(crate) upstreams: Upstreams,
    pub(crate) discovery: Wakeup,
    pub(crate) ended: Ended,
    pub(crate) streams: Streams,
    pub(crate) mesh: Arc<Mesh>,
    /// Whether agents can connect from this machine only.
    pub(crate) on_loopback: bool,
}

/// What a server's event says when its lists changed.
const LIST_CHANGED: &[u8] = b"list_changed";

impl Node {
    /// A node without a configuration.
    pub(crate) fn new(
        audit: Audit,
        upstreams: Upstreams,
        discovery: Wakeup,
        mesh: Mesh,
        on_loopback: bool,
    ) -> Node {
        Node {
            config: ArcSwap::from_pointee(Config::empty()),
            swapped: watch::Sender::default(),
            audit,
            upstreams,
            discovery,
            ended: Ended::default(),
            streams: Streams::default(),
            mesh: Arc::new(mesh),
            on_loopback,
        }
    }

    /// The configuration as it is now. A request keeps it to its end.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Replaces the configuration.
    pub(crate) fn swap(&self, config: Config) {
        let revision = config.revision;
        self.config.store(Arc::new(config));
        self.swapped.send_replace(revision);
    }

    /// Waits until the configuration is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Config) -> bool) {
        let mut swapped = self.swapped.subscribe();
        while !wanted(&self.config()) {
            // The sender lives as long as the node.
            if swapped.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks at an event that a server sent on any stream.
    pub(crate) fn notice(&self, server: &Server, event: &[u8]) {
        if memchr::memmem::find(event, LIST_CHANGED).is_some() {
            self.discovery.wake(&server.tenant, &server.name);
        }
    }

    /// Takes the node apart; the audit is left to be finished.
    pub(crate) fn into_audit(self) -> Audit {
        self.audit
    }
}
