//! Why a stream ends before its node does, and what the node is told.
//!
//! Always holds: a status has no internal text; what a node cannot help says that trying again will.

use std::time::Duration;

use gantry_model::{Name, Revision};
use gantry_node::seal::SealError;
use tonic::Status;

use crate::fleet::{FleetFull, NodeId, NodeIdError, PlaceError};

/// Why a stream ends.
#[derive(Debug, thiserror::Error)]
pub(super) enum StreamEnd {
    #[error("the stream does not begin with Hello within {} s", .0.as_secs())]
    NoHello(Duration),
    #[error("the node calls itself {said:?}, and its certificate is that of {certified}")]
    OtherName { said: String, certified: Name },
    #[error("Hello comes once, as the first message")]
    SecondHello,
    #[error(transparent)]
    NodeId(#[from] NodeIdError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error("the node's sealing key cannot be used: {0}")]
    SealKey(SealError),
    #[error(transparent)]
    Full(#[from] FleetFull),
    #[error("node {0} has connected again; this is its older stream")]
    Replaced(NodeId),
    #[error("the node did not answer the update to revision {revision} within {} s", .after.as_secs())]
    NoAnswer { revision: Revision, after: Duration },
    #[error("the node refused {0} snapshots in a row")]
    SnapshotsRefused(usize),
    #[error("the control plane could not prepare an update")]
    Update,
    #[error("this member is behind revision {has}, which the node has; connect to another or try again")]
    Behind { has: Revision },
    #[error("the control plane is going down; connect to another or try again")]
    GoingDown,
}

impl From<StreamEnd> for Status {
    fn from(end: StreamEnd) -> Status {
        let message = end.to_string();
        match end {
            StreamEnd::NoHello(_)
            | StreamEnd::SecondHello
            | StreamEnd::NodeId(_)
            | StreamEnd::Place(_)
            | StreamEnd::SealKey(_) => Status::invalid_argument(message),
            StreamEnd::OtherName { .. } => Status::permission_denied(message),
            StreamEnd::Full(_) => Status::resource_exhausted(message),
            StreamEnd::Replaced(_) => Status::aborted(message),
            StreamEnd::NoAnswer { .. } => Status::deadline_exceeded(message),
            StreamEnd::SnapshotsRefused(_) => Status::failed_precondition(message),
            StreamEnd::Update => Status::internal(message),
            StreamEnd::Behind { .. } | StreamEnd::GoingDown => Status::unavailable(message),
        }
    }
}
