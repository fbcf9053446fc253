//! What the control plane says of the members, read into the roster.
//!
//! Always holds: at most [`MEMBERS_MAX`] members; a row that cannot be read is left out and logged. What an incomplete
//! message does not name is kept unless the same stream named it before: a control plane that has just started does
//! not yet know who is there, but sees who leaves.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use gantry_wire::sync_v1 as wire;

use super::identity::Fingerprint;
use super::roster::Roster;
use super::{Peer, Process};

/// Most members: as many nodes as a control-plane process takes.
const MEMBERS_MAX: usize = 10_000;

/// Another node, as the control plane names it. Differs in something when its process is another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) peer: Peer,
    pub(super) incarnation: String,
    pub(super) address: SocketAddr,
    pub(super) fingerprint: Fingerprint,
}

impl Member {
    /// Which process it is.
    pub(super) fn process(&self) -> Process {
        self.fingerprint.process()
    }
}

/// Whom the control plane named on one stream.
#[derive(Debug, Default)]
pub(crate) struct Telling {
    named: BTreeSet<Peer>,
}

impl Telling {
    pub(super) fn take(&mut self, roster: &Roster, message: wire::Members) {
        let mut members = Vec::new();
        for member in message.members.into_iter().take(MEMBERS_MAX) {
            match read(member) {
                Ok(member) => members.push(member),
                Err(node_id) => tracing::warn!(node_id, "a member cannot be read and is left out"),
            }
        }
        let named = &self.named;
        roster.replace(members.clone(), |peer| !message.complete && !named.contains(peer));
        // Who left is named no more; were the name kept, the set would grow with every node there ever was.
        self.named = members.into_iter().map(|member| member.peer).collect();
    }
}

/// `Err`: whose row it is.
fn read(member: wire::Member) -> Result<Member, String> {
    let wire::Member { node_id, incarnation, mesh } = member;
    let address = mesh.as_ref().and_then(|mesh| mesh.address.parse().ok());
    let fingerprint = mesh.and_then(|mesh| Fingerprint::from_bytes(&mesh.certificate_fingerprint));
    match address.zip(fingerprint) {
        Some((address, fingerprint)) => {
            Ok(Member { peer: node_id.into(), incarnation, address, fingerprint })
        }
        None => Err(node_id),
    }
}
