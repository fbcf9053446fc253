//! One node that follows this member: what is known of it, and how it is shown and told.
//!
//! Always holds: a node that is gone has no place.

use std::sync::Arc;

use gantry_node::seal::SealPublicKey;
use gantry_wire::raft_v1 as wire;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::fleet::acks::Answers;
use crate::fleet::told::{NodeView, Seen};
use crate::fleet::{NodeId, Place};

/// What is known of it.
#[derive(Debug)]
pub(super) struct Node {
    /// Whoever lists all nodes shares it; it is made anew when it changes meanwhile.
    pub(super) seen: Arc<Seen>,
    pub(super) session: u64,
    pub(super) replaced: CancellationToken,
    pub(super) place: Option<Place>,
    pub(super) connected_at: Instant,
    pub(super) gone_at: Option<Instant>,
    pub(super) provisioned: Option<SealPublicKey>,
    pub(super) answers: Answers,
    /// It ended its last session on purpose.
    pub(super) took_leave: bool,
}

impl Node {
    pub(super) fn new(now: Instant) -> Node {
        Node {
            seen: Arc::default(),
            session: 0,
            replaced: CancellationToken::new(),
            place: None,
            connected_at: now,
            gone_at: None,
            provisioned: None,
            answers: Answers::default(),
            took_leave: false,
        }
    }

    pub(super) fn news(&self, id: &NodeId) -> wire::FleetNode {
        let place = self.place.as_ref().map(|place| {
            let mesh = place.to_wire();
            wire::Place {
                incarnation: place.incarnation().to_owned(),
                address: mesh.address,
                certificate_fingerprint: mesh.certificate_fingerprint,
            }
        });
        wire::FleetNode {
            acked_revision: self.answers.configuration.newest().0,
            urgent_revision: self.answers.urgent.newest().0,
            place,
            ..self.seen.to_news(id)
        }
    }

    pub(super) fn view(&self, id: &NodeId) -> NodeView {
        NodeView {
            node: id.clone(),
            member: None,
            connected: self.gone_at.is_none(),
            acked: self.answers.configuration.newest(),
            urgent: self.answers.urgent.newest(),
            seen: self.seen.clone(),
        }
    }
}
