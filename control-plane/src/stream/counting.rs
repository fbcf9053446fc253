//! Telling a node of which tenants it is to count calls: of those with a rollout that runs.
//!
//! Always holds: a node is asked of no tenant that it does not hold; while no rollout runs, nothing is sent either way.

use std::collections::BTreeSet;

use gantry_model::TenantName;
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Counting, ServerMessage};

use super::session::Outbound;
use crate::fleet::Ticket;
use crate::plane::Plane;

/// Tells until the node is gone.
pub(super) async fn tell(plane: &Plane, ticket: &Ticket, outbound: &Outbound) {
    let mut news = plane.consensus.feed().subscribe_to_rollouts();
    let mut told = BTreeSet::new();
    loop {
        news.borrow_and_update();
        let view = plane.consensus.feed().latest();
        let running = view.state.running_rollouts().map(|(rollout, _)| rollout.tenant.clone());
        let tenants: BTreeSet<TenantName> =
            running.filter(|tenant| view.state.digests().has(&ticket.scope, tenant)).collect();
        if tenants != told {
            let counting = Counting { tenants: tenants.iter().map(ToString::to_string).collect() };
            let message = Some(ToNode::Counting(counting));
            if outbound.send(Ok(ServerMessage { message })).await.is_err() {
                return;
            }
            told = tenants;
        }
        // The feed lives as long as the process.
        if news.changed().await.is_err() {
            return;
        }
    }
}
