//! Telling a node who its peers in the mesh are.
//!
//! Always holds: whoever takes part hears of every change at once; while it does not read, changes become one. A
//! node that takes no part is told nothing.
//!
//! It tells of the nodes that follow any member of the control plane, as far as this one has heard of them.

use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Hello, Member, Members, ServerMessage};
use tokio::time::sleep_until;

use super::session::Outbound;
use crate::plane::Plane;

/// Tells until the node is gone.
pub(super) async fn tell(plane: &Plane, hello: &Hello, outbound: &Outbound) {
    if hello.mesh.is_none() {
        return std::future::pending().await;
    }
    let mut changes = plane.fleet.nodes.subscribe_to_members();
    loop {
        changes.borrow_and_update();
        let is_settled = plane.fleet.is_settled();
        let message = members(plane, is_settled);
        if outbound.send(Ok(ServerMessage { message: Some(ToNode::Members(message)) })).await.is_err() {
            return;
        }
        tokio::select! {
            // The table lives as long as the process.
            changed = changes.changed() => if changed.is_err() { return },
            () = sleep_until(plane.fleet.settled_at()), if !is_settled => {}
        }
    }
}

fn members(plane: &Plane, complete: bool) -> Members {
    let members = plane.fleet.nodes.members().into_iter().map(|(node, place)| Member {
        node_id: node.to_string(),
        incarnation: place.incarnation().to_owned(),
        mesh: Some(place.to_wire()),
    });
    Members { members: members.collect(), complete }
}
