//! How members of a cluster reach each other: the seam between consensus and the network.
//!
//! Always holds: what is asked of a member reaches that member or nobody; an answer is that member's. Whoever
//! implements [`Peers`] proves it, by certificates or by being one process.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use gantry_wire::raft_v1::{CheckpointHead, CheckpointReply, Question, Reply};
use thiserror::Error;

use super::VoterId;

/// An answer that is on its way.
pub type Answering<Answer> = Pin<Box<dyn Future<Output = Result<Answer, PeerError>> + Send>>;

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Peer {
    /// The member; `None`: whichever has the address, while this process knows no other way into the cluster.
    pub voter: Option<VoterId>,
    /// Host and port.
    pub address: String,
}

/// Reaches other members.
pub trait Peers: fmt::Debug + Send + Sync + 'static {
    /// Asks, and waits for the answer at most `deadline`. Dropping the future leaves it unknown whether it was heard.
    fn ask(&self, peer: Peer, question: Question, deadline: Duration) -> Answering<Reply>;

    /// Hands over the checkpoint in `file`. Ends when the peer has installed it, or at the deadline.
    fn install(
        &self,
        peer: Peer,
        head: CheckpointHead,
        file: PathBuf,
        deadline: Duration,
    ) -> Answering<CheckpointReply>;
}

/// Why a peer did not answer. In every case it may have heard the question.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PeerError {
    /// There is no way to it now.
    #[error("member {peer} cannot be reached: {reason}")]
    Unreachable {
        /// Whom.
        peer: Peer,
        /// Why.
        reason: String,
    },
    /// It did not answer in time.
    #[error("member {peer} did not answer within {} ms", .after.as_millis())]
    Late {
        /// Who.
        peer: Peer,
        /// What it was given.
        after: Duration,
    },
    /// It answered what this build does not understand, or refused.
    #[error("member {peer} refused: {reason}")]
    Refused {
        /// Who.
        peer: Peer,
        /// Why.
        reason: String,
    },
}

/// The way to other members of a cluster that has none.
#[derive(Debug)]
pub struct NoPeers;

impl Peers for NoPeers {
    fn ask(&self, peer: Peer, _question: Question, _deadline: Duration) -> Answering<Reply> {
        Box::pin(std::future::ready(Err(nobody(peer))))
    }

    fn install(
        &self,
        peer: Peer,
        _head: CheckpointHead,
        _file: PathBuf,
        _deadline: Duration,
    ) -> Answering<CheckpointReply> {
        Box::pin(std::future::ready(Err(nobody(peer))))
    }
}

fn nobody(peer: Peer) -> PeerError {
    PeerError::Unreachable { peer, reason: "this process was started without a way to others".to_owned() }
}

impl fmt::Display for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.voter {
            Some(voter) => write!(formatter, "{voter} at {}", self.address),
            None => write!(formatter, "at {}", self.address),
        }
    }
}
