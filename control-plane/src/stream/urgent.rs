//! Telling a node of bans, ahead of the updates that bring them.
//!
//! Always holds: whoever is banned is told of at once, also between the parts of an update, and while one is unanswered;
//! while the node does not read, bans become one message. What is told here stands in a later update too.

use bytes::Bytes;
use gantry_control_state::Digests;
use gantry_model::{RecordKey, Revision, Scope};
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Entry, ServerMessage, Urgent};

use super::session::Outbound;
use tokio::time::Instant;

use crate::feed;
use crate::fleet::Ticket;
use crate::plane::Plane;

/// Tells until the node is gone; from what it has, which is all up to `position`, or nothing that counts.
/// Of tenants beyond the node's scope it tells nothing; one that comes into it later brings its bans with the update.
pub(super) async fn tell(plane: &Plane, ticket: &Ticket, position: Option<Revision>, outbound: &Outbound) {
    let mut news = plane.consensus.feed().subscribe_to_urgent();
    let mut told = position;
    loop {
        news.borrow_and_update();
        let mut urgent = plane.consensus.feed().urgent_since(told);
        told = Some(urgent.revision);
        let is_any = !urgent.changes.is_empty();
        if let Scope::Of(_) = ticket.scope {
            let view = plane.consensus.feed().latest();
            let digests = view.state.digests();
            urgent.changes.retain(|change| is_within(digests, &ticket.scope, &change.key));
        }
        // Also without a ban: what the node may have of another time of the cluster is then over.
        if urgent.is_complete || !urgent.changes.is_empty() {
            let cluster_id = plane.vault.cluster_id().to_owned();
            let message = Some(ToNode::Urgent(to_wire(urgent, cluster_id)));
            if outbound.send(Ok(ServerMessage { message })).await.is_err() {
                return;
            }
        } else if is_any {
            // What stops others only, it cannot let through.
            plane.fleet.nodes.urgent_acked(ticket, urgent.revision, Instant::now());
        }
        // The feed lives as long as the process.
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Whether a node of a scope holds the tenant of a ban.
fn is_within(digests: &Digests, scope: &Scope, key: &str) -> bool {
    let key = key.parse::<RecordKey>();
    key.is_ok_and(|key| key.tenant().is_some_and(|tenant| digests.has(scope, tenant)))
}

fn to_wire(urgent: feed::Urgent, cluster_id: String) -> Urgent {
    let mut message =
        Urgent { revision: urgent.revision.0, complete: urgent.is_complete, cluster_id, ..Urgent::default() };
    for change in urgent.changes {
        match change.value {
            Some(record) => {
                message.upserts.push(Entry { key: change.key, record: Bytes::from_owner(record) });
            }
            None => message.deletes.push(change.key),
        }
    }
    message
}
