//! What this process knows of the nodes, in memory: who is connected and how far, when revisions came, which servers
//! could not be asked, which offer now this, now that, and how rollouts go.
//!
//! Always holds: everything here is bounded and can be lost; after a start it fills again as nodes connect. Nothing
//! here is configuration.

mod acks;
mod failures;
mod flapping;
mod node_id;
mod nodes;
mod others;
mod place;
mod progress;
#[cfg(test)]
mod tests;
mod timeline;
mod told;

use std::time::Duration;

use tokio::time::Instant;

pub(crate) use acks::Lane;
pub(crate) use failures::Failures;
pub(crate) use flapping::Flapping;
pub(crate) use node_id::{NodeId, NodeIdError};
pub(crate) use nodes::{Arrival, FleetFull, Nodes, Ticket};
pub(crate) use place::{Place, PlaceError};
pub(crate) use progress::{Progress, Standing};
pub(crate) use timeline::Timeline;
#[cfg(test)]
pub(crate) use told::Seen;
pub(crate) use told::{NodeView, Problem, labels};

use crate::rollout::Rollouts;

/// How long after its start a process does not know yet who is there: longer than any pause that a node makes before
/// it connects again (15 s).
const SETTLING: Duration = Duration::from_secs(20);

/// The nodes of this process.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) nodes: Nodes,
    pub(crate) timeline: Timeline,
    pub(crate) failures: Failures,
    pub(crate) flapping: Flapping,
    pub(crate) rollouts: Rollouts,
    settled_at: Instant,
}

impl Fleet {
    /// Nobody has connected yet.
    pub(crate) fn new(now: Instant) -> Fleet {
        Fleet {
            nodes: Nodes::default(),
            timeline: Timeline::default(),
            failures: Failures::default(),
            flapping: Flapping::default(),
            rollouts: Rollouts::default(),
            settled_at: now + SETTLING,
        }
    }

    /// From when on a node that is not connected is gone.
    pub(crate) fn settled_at(&self) -> Instant {
        self.settled_at
    }

    /// Whether that has come.
    pub(crate) fn is_settled(&self) -> bool {
        Instant::now() >= self.settled_at
    }
}
