//! What the cluster has revoked, in force in this process.
//!
//! Always holds: a revocation that is in the state refuses handshakes here and cuts connections, from when it is
//! applied here on.

use std::sync::Arc;

use gantry_control_state::State;
use gantry_model::enrolment::Revoked;
use gantry_model::record::Cluster;
use gantry_node::tls::{Revocations, Trust};

use crate::plane::Plane;

/// What `state` says is revoked.
pub(crate) fn revocations(state: &State) -> Revocations {
    let mut revoked = Revocations::default();
    for revocation in state.cluster().iter().flat_map(|cluster| &cluster.enrolment.revocations) {
        match &revocation.subject {
            Revoked::Name(name) => {
                revoked.names.insert(name.clone(), revocation.until_ms);
            }
            Revoked::Serial(serial) => {
                revoked.serials.insert(serial.clone());
            }
        }
    }
    revoked
}

/// Keeps `trust` as the state says; ends with the process.
pub(crate) async fn follow(plane: Arc<Plane>, trust: Arc<Trust>) {
    let mut newest = plane.consensus.feed().subscribe();
    let mut before: Option<Arc<Cluster>> = None;
    loop {
        newest.borrow_and_update();
        let state = plane.consensus.feed().latest().state;
        // The cluster's record changes rarely, and is shared while it does not.
        let cluster = state.cluster();
        let is_same =
            before.as_ref().zip(cluster).is_some_and(|(before, cluster)| Arc::ptr_eq(before, cluster));
        if !is_same {
            before = cluster.cloned();
            trust.replace_revocations(revocations(&state));
        }
        tokio::select! {
            () = plane.stop.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}
