//! What this process knows of the nodes, in memory: who is connected and how far, when revisions came, which servers
//! could not be asked.
//!
//! Always holds: everything here is bounded and can be lost; after a start it fills again as nodes connect. Nothing
//! here is configuration.

mod failures;
mod nodes;
#[cfg(test)]
mod tests;
mod timeline;

pub(crate) use failures::Failures;
pub(crate) use nodes::{Arrival, FleetFull, NodeId, NodeIdError, NodeView, Nodes, Progress, Ticket};
pub(crate) use timeline::Timeline;

/// The nodes of this process.
#[derive(Debug, Default)]
pub(crate) struct Fleet {
    pub(crate) nodes: Nodes,
    pub(crate) timeline: Timeline,
    pub(crate) failures: Failures,
}
