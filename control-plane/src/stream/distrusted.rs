//! Telling a node which certificates of the control plane were taken back.
//!
//! Always holds: a node that follows hears of each as soon as it is in force in this process, and of all before its first
//! update; where there is no TLS nobody is told anything. It does not say which nodes were thrown out: those have no
//! peers in the mesh any more, because their streams were cut.

use gantry_model::enrolment::Revoked;
use gantry_node::tls::Revocations;
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Distrusted, ServerMessage};

use super::session::Outbound;
use crate::plane::Plane;

/// Tells until the node is gone.
pub(super) async fn tell(plane: &Plane, outbound: &Outbound) {
    let Some(trust) = &plane.trust else { return std::future::pending().await };
    let mut revoked = trust.revocations();
    let mut told = Distrusted::default();
    loop {
        let now = to_wire(&revoked.borrow_and_update());
        if now != told {
            let message = Some(ToNode::Distrusted(now.clone()));
            if outbound.send(Ok(ServerMessage { message })).await.is_err() {
                return;
            }
            told = now;
        }
        // It lives as long as the process.
        if revoked.changed().await.is_err() {
            return;
        }
    }
}

/// In an order of their own, so that the same is seen to be the same.
fn to_wire(revoked: &Revocations) -> Distrusted {
    let is_of_members = |subject: &Revoked| match subject {
        Revoked::Name(name) => name.party.is_control_plane(),
        // Whose it is, nobody knows.
        Revoked::Serial(_) => true,
    };
    let told = revoked.iter().filter(|revocation| is_of_members(&revocation.subject));
    let mut revocations: Vec<_> = told.map(|revocation| (&revocation).into()).collect();
    revocations.sort_by_cached_key(prost::Message::encode_to_vec);
    Distrusted { revocations }
}
