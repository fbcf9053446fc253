//! What the cluster has revoked, in force in this process: certificates, and members that were removed.
//!
//! Always holds: a revocation that is in the state refuses handshakes here and cuts connections, from when it is
//! applied here on. A member is cut off once its removal is remembered and the membership is without it: before that
//! its vote may be needed to remove it.

use std::sync::Arc;

use gantry_control_state::State;
use gantry_model::identity::{MemberId, PeerName};
use gantry_model::record::Cluster;
use gantry_node::tls::{Revocations, Trust};

use crate::plane::Plane;
use crate::raft::{Membership, MembershipVersion};

/// What `state` says is revoked, where these are the members.
pub(crate) fn revocations(state: &State, membership: &Membership) -> Revocations {
    let mut revoked = Revocations::default();
    let Some(cluster) = state.cluster() else { return revoked };
    revoked.extend(cluster.enrolment.revocations.iter().cloned());
    for number in &cluster.enrolment.removed_members {
        let is_member = membership.members.iter().any(|member| member.voter.0 == *number);
        if let (false, Ok(cluster), Some(number)) = (is_member, cluster.id.parse(), MemberId::new(*number)) {
            // For ever, whatever it certifies itself with.
            revoked.names.insert(PeerName::control_plane(cluster, number), u64::MAX);
        }
    }
    revoked
}

/// Keeps `trust` as the state says; ends with the process.
pub(crate) async fn follow(plane: Arc<Plane>, trust: Arc<Trust>) {
    let mut newest = plane.consensus.feed().subscribe();
    let mut before: Option<(Arc<Cluster>, Option<MembershipVersion>)> = None;
    loop {
        newest.borrow_and_update();
        let state = plane.consensus.feed().latest().state;
        let membership = plane.consensus.membership();
        // Both change rarely, and the cluster's record is shared while it does not.
        let is_same = before.as_ref().zip(state.cluster()).is_some_and(|((before, version), cluster)| {
            Arc::ptr_eq(before, cluster) && *version == membership.version
        });
        if !is_same {
            before = state.cluster().cloned().map(|cluster| (cluster, membership.version));
            trust.replace_revocations(revocations(&state, &membership));
        }
        tokio::select! {
            () = plane.stop.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}
