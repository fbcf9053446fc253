//! Telling a node who its peers in the mesh are.
//!
//! Always holds: whoever takes part hears of every change, after a pause that grows with the number of those who are told
//! ([`LINGER_PER_MEMBER`]); what changes meanwhile, or while it does not read, becomes one. A node that takes no part is
//! told nothing.
//!
//! It tells of the nodes that follow any member of the control plane, as far as this one has heard of them, and that may
//! have a tenant in common with the one that is told.

use std::time::Duration;

use gantry_model::Scope;
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Hello, Member, Members, ServerMessage};
use tokio::time::{sleep, sleep_until};

use super::session::Outbound;
use crate::fleet::Ticket;
use crate::plane::Plane;

/// Pause before a change is told, for each who is told of: telling `n` nodes of `n` nodes takes time by the square, and
/// a thousand nodes that come back at one moment are a thousand changes. Ten nodes hear within some milliseconds.
const LINGER_PER_MEMBER: Duration = Duration::from_micros(500);
/// Longest pause, of 2,000 nodes. A node that joins is told of all others at once in any case.
const LINGER_MAX: Duration = Duration::from_secs(1);

/// Tells until the node is gone.
pub(super) async fn tell(plane: &Plane, ticket: &Ticket, hello: &Hello, outbound: &Outbound) {
    if hello.mesh.is_none() {
        return std::future::pending().await;
    }
    let mut changes = plane.fleet.nodes.subscribe_to_members();
    loop {
        changes.borrow_and_update();
        let is_settled = plane.fleet.is_settled();
        let message = members(plane, &ticket.scope, is_settled);
        let pause = linger(message.members.len());
        if outbound.send(Ok(ServerMessage { message: Some(ToNode::Members(message)) })).await.is_err() {
            return;
        }
        tokio::select! {
            // The table lives as long as the process.
            changed = changes.changed() => {
                if changed.is_err() {
                    return;
                }
                sleep(pause).await;
            }
            () = sleep_until(plane.fleet.settled_at()), if !is_settled => {}
        }
    }
}

/// The pause before the next change is told to those who were told of so many.
fn linger(members: usize) -> Duration {
    LINGER_PER_MEMBER.saturating_mul(u32::try_from(members).unwrap_or(u32::MAX)).min(LINGER_MAX)
}

fn members(plane: &Plane, scope: &Scope, complete: bool) -> Members {
    let members = plane.fleet.nodes.members(scope).into_iter().map(|(node, place)| Member {
        node_id: node.to_string(),
        incarnation: place.incarnation().to_owned(),
        mesh: Some(place.to_wire()),
    });
    Members { members: members.collect(), complete }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_within_milliseconds_and_nobody_waits_longer_than_the_bound() {
        let pauses = [0, 2, 10, 1_000, 2_000, usize::MAX].map(linger).map(|pause| pause.as_millis());
        assert_eq!(pauses, [0, 1, 5, 500, 1_000, 1_000]);
    }
}
