//! What a ban does to what nobody asks for: kept sessions with servers, processes of servers, and lists that clients
//! were told.
//!
//! Always holds: what requests and streams hold is cut by their own leashes, not here; this only lets go of the rest.

use std::sync::Arc;

use gantry_model::BanTarget;
use tokio_util::sync::CancellationToken;

use super::Who;
use crate::node::Node;
use crate::upstream::pool::SessionKey;

/// Enforces each change until `stop`.
pub(crate) async fn keep_enforcing(node: Arc<Node>, stop: CancellationToken) {
    let mut changes = node.bans.subscribe();
    loop {
        changes.borrow_and_update();
        enforce(&node).await;
        // Lists that clients hold may have tools of a server in them that are gone, or back.
        node.tell_of_lists();
        tokio::select! {
            () = stop.cancelled() => return,
            changed = changes.changed() => if changed.is_err() { return },
        }
    }
}

/// Lets go of what belongs to whom is banned now.
pub(crate) async fn enforce(node: &Node) {
    let refusal = |key: &SessionKey| node.bans.refusal(&key.who());
    let is_servers = |key: &SessionKey| match refusal(key) {
        Some(BanTarget::Server(_) | BanTarget::Tenant) => true,
        Some(BanTarget::Agent(_) | BanTarget::User(_) | BanTarget::Key(_) | BanTarget::Session(_)) | None => {
            false
        }
    };
    // Nothing is sent to a server that is banned, not even that its session is over.
    drop(node.upstreams.pool.take_banned(is_servers));
    node.upstreams.stdio.let_go(|tenant, server| node.bans.refusal(&Who::server(tenant, server)).is_some());
    let others = node.upstreams.pool.take_banned(|key| refusal(key).is_some());
    node.upstreams.pool.end(others).await;
}
