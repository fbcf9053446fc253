//! The node: what every request and task of this process shares.
//!
//! Always holds: the configuration is replaced by one pointer swap and never changed in place.

use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use gantry_model::Revision;
use gantry_wire::sync_v1 as wire;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::bans::Bans;
use crate::bridge::handoff::Notice;
use crate::bridge::home::Homes;
use crate::bridge::parked::Parked;
use crate::budget::Budgets;
use crate::config::Config;
use crate::config::server::Server;
use crate::config::site::Site;
use crate::config::tenant::Tenant;
use crate::front::sse::Streams;
use crate::held::HeldCalls;
use crate::mcp::session::Ended;
use crate::mesh::Mesh;
use crate::narrowing::{NarrowingError, Narrowings};
use crate::sync::approvals::Approvals;
use crate::sync::contact::Contact;
use crate::sync::counting::Counting;
use crate::upstream::Upstreams;
use crate::upstream::discovery::Wakeup;

/// Shared by all requests and tasks.
pub(crate) struct Node {
    config: ArcSwap<Config>,
    swapped: watch::Sender<Revision>,
    /// When a control plane was last heard.
    pub(crate) contact: Contact,
    /// Who is stopped, whatever the configuration says.
    pub(crate) bans: Arc<Bans>,
    /// What is denied ahead of the configuration.
    narrowings: Narrowings,
    /// Where approvals of calls are asked for.
    pub(crate) approvals: Approvals,
    /// Calls that wait for these.
    pub(crate) held: Arc<HeldCalls>,
    /// Of which tenants the control plane is told how many calls they had.
    pub(crate) counting: Counting,
    pub(crate) audit: Audit,
    pub(crate) upstreams: Upstreams,
    pub(crate) discovery: Wakeup,
    pub(crate) ended: Ended,
    pub(crate) streams: Streams,
    pub(crate) mesh: Arc<Mesh>,
    /// What calls may spend of limits.
    pub(crate) budgets: Budgets,
    /// Sessions of legacy clients that are at home here.
    pub(crate) homes: Homes,
    /// Calls that wait here for their clients.
    pub(crate) parked: Parked,
    /// What serves requests beyond their connections.
    pub(crate) tasks: TaskTracker,
    /// No new requests are taken, and streams are to end.
    pub(crate) stopping: CancellationToken,
    /// What is still under way is to end.
    pub(crate) leaving: CancellationToken,
    /// Whether agents can connect from this machine only.
    pub(crate) on_loopback: bool,
}

/// What a server's event says when its lists changed.
const LIST_CHANGED: &[u8] = b"list_changed";

impl Node {
    /// A node without a configuration.
    pub(crate) fn new(audit: Audit, upstreams: Upstreams, discovery: Wakeup, mesh: Mesh, site: Site) -> Node {
        let mesh = Arc::new(mesh);
        Node {
            on_loopback: site.loopback_url.is_some(),
            config: ArcSwap::from_pointee(Config::empty(Arc::new(site))),
            swapped: watch::Sender::default(),
            contact: Contact::default(),
            bans: Arc::default(),
            narrowings: Narrowings::default(),
            counting: Counting::default(),
            approvals: Approvals::default(),
            held: Arc::default(),
            audit,
            upstreams,
            discovery,
            ended: Ended::default(),
            streams: Streams::default(),
            homes: Homes::new(mesh.me()),
            budgets: Budgets::new(mesh.clone()),
            mesh,
            parked: Parked::default(),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
            leaving: CancellationToken::new(),
        }
    }

    /// The configuration as it is now. A request keeps it to its end.
    pub(crate) fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Replaces the configuration; what came ahead of it stays in force.
    pub(crate) fn swap(&self, config: Config) {
        let revision = config.revision;
        self.narrowings.put_in_force(config, &self.config);
        self.swapped.send_replace(revision);
    }

    /// Takes what is denied ahead of the updates. It is in force when this returns, but for what is returned.
    pub(crate) fn narrow(&self, cluster_id: &str, narrowings: Vec<wire::Narrowing>) -> Vec<NarrowingError> {
        if narrowings.is_empty() {
            return Vec::new();
        }
        let errors = self.narrowings.take(cluster_id, narrowings, &self.config);
        self.tell_of_lists();
        errors
    }

    /// What came ahead of the updates and is in none that this node has, to be kept.
    pub(crate) fn ahead(&self) -> wire::KeptUrgent {
        wire::KeptUrgent { narrowings: self.narrowings.ahead(), ..self.bans.ahead() }
    }

    /// Whether a tenant is refused, because no control plane was heard for longer than it allows.
    pub(crate) fn is_stale(&self, tenant: &Tenant) -> bool {
        tenant.fail_closed_after.is_some_and(|after| self.contact.silence() >= after)
    }

    /// What ends a stream of a tenant that begins now.
    pub(crate) fn cut_of(&self, tenant: &Tenant) -> CancellationToken {
        let cut = tenant.live.token();
        // It may have become stale since it was asked, and what was there then been cut.
        if self.is_stale(tenant) {
            cut.cancel();
        }
        cut
    }

    /// Tells of each change of the configuration.
    pub(crate) fn swaps(&self) -> watch::Receiver<Revision> {
        self.swapped.subscribe()
    }

    /// Has whoever told clients of lists look at them again.
    pub(crate) fn tell_of_lists(&self) {
        self.swapped.send_modify(|_| ());
    }

    /// Ends a session, here and on all nodes that can be reached soon.
    pub(crate) async fn end_session(&self, token: &str) {
        if self.note_ended(token) {
            self.mesh.tell_all(Notice::Ended(token.to_owned()).to_bytes()).await;
        }
    }

    /// Takes note that a session is over. Returns whether that is news.
    pub(crate) fn note_ended(&self, token: &str) -> bool {
        let is_new = self.ended.insert(token);
        self.held.end(token);
        is_new
    }

    /// Cancels a call that waits for an approval, wherever it is held.
    pub(crate) async fn cancel_held(&self, tenant: &Tenant, session: &Arc<str>, id: &Bytes) {
        if !self.held.cancel(session, id) && tenant.approving.is_used() {
            let id = String::from_utf8_lossy(id).into_owned();
            self.mesh.tell_all(Notice::Cancelled { session: session.to_string(), id }.to_bytes()).await;
        }
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
