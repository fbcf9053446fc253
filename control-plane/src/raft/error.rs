//! What can go wrong with consensus: at start, and with a proposal.

use std::path::PathBuf;

use gantry_control_state::LoadError;
use thiserror::Error;

use super::entry::DecodeError;
use super::{COMMAND_BYTES_MAX, VoterId};
use crate::store::OpenError;

/// Why consensus did not start.
#[derive(Debug, Error)]
pub enum StartError {
    /// The data directory does not open.
    #[error("cannot open the store in {}", .dir.display())]
    Store {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: OpenError,
    },
    /// The store opens and holds what this build cannot read.
    #[error("cannot read {what} in {}", .dir.display())]
    Unreadable {
        /// The directory.
        dir: PathBuf,
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: DecodeError,
    },
    /// The state that was stored does not load.
    #[error("cannot load the state in {}", .dir.display())]
    State {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: LoadError,
    },
    /// The directory is another voter's.
    #[error("data directory {} belongs to voter {actual}, this is voter {expected}", .dir.display())]
    OtherVoter {
        /// The directory.
        dir: PathBuf,
        /// Whose it is.
        actual: VoterId,
        /// Who this is.
        expected: VoterId,
    },
    /// openraft did not start.
    #[error("cannot start consensus: {0}")]
    Raft(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Random,
    /// The process is ending.
    #[error("the start was interrupted")]
    Interrupted,
}

/// Why a command is not known to be applied.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProposeError {
    /// It may be applied now, later or never. Look at the state before proposing it again.
    #[error("it is unknown whether the command was applied: {reason}")]
    Unknown {
        /// What happened.
        reason: String,
    },
    /// Too many commands wait. It was not proposed; try again later.
    #[error("too many commands are waiting; the command was not proposed")]
    Overloaded,
    /// It was not proposed.
    #[error("a command of {bytes} bytes is longer than {COMMAND_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// No member is known to lead. It was not proposed.
    #[error("the cluster has no leader; the command was not proposed")]
    NoLeader,
    /// The leader does not hear from a quorum of voters, or is handing over. It was not proposed.
    #[error("the leader has no quorum now; the command was not proposed")]
    NoQuorum,
    /// Consensus has ended, or is about to. It was not proposed.
    #[error("consensus is not running; the command was not proposed")]
    ShuttingDown,
}

impl StartError {
    /// What an operator does about it.
    pub fn way_back(&self) -> &'static str {
        match self {
            Self::Store { source, .. } => source.way_back(),
            Self::OtherVoter { .. } => "name another directory with `--data-dir DIR`",
            Self::Unreadable { .. } | Self::State { .. } => {
                "run the newer gantry that wrote the directory; when there is none, replace this member with `gantry \
                 cluster replace`"
            }
            Self::Raft(_) | Self::Random | Self::Interrupted => {
                "read the log above, then start it again: what was acknowledged is stored"
            }
        }
    }
}
