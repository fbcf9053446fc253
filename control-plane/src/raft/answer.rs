//! Answering what other members ask.
//!
//! Always holds: a question for another member is refused, whoever has its address now; a message that cannot be read
//! in full changes nothing here.

use std::path::PathBuf;

use gantry_wire::raft_v1 as wire;
use openraft::storage::Snapshot;
use thiserror::Error;

use super::entry::{self, CheckpointFile, DecodeError};
use super::message;
use super::{Consensus, VoterId};

/// Why a question of another member has no answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AnswerError {
    /// It is for another member.
    #[error("this is member {own}, not member {asked}")]
    NotThisMember {
        /// Who this is.
        own: VoterId,
        /// Who was meant.
        asked: VoterId,
    },
    /// It cannot be read.
    #[error("the question cannot be read: {0}")]
    Unreadable(String),
    /// Consensus does not run.
    #[error("consensus is not running: {0}")]
    Stopped(String),
}

impl From<DecodeError> for AnswerError {
    fn from(error: DecodeError) -> AnswerError {
        AnswerError::Unreadable(error.to_string())
    }
}

impl Consensus {
    /// Answers a question of another member, which the caller has made sure is the one that it says it is.
    pub async fn answer(&self, question: wire::Question) -> Result<wire::Reply, AnswerError> {
        self.refuse_others(question.to)?;
        let unknown = || AnswerError::Unreadable("it is of a kind that this build does not know".to_owned());
        let stopped = |error: &dyn std::error::Error| AnswerError::Stopped(error.to_string());
        use wire::question::Question as Asked;
        let reply = match question.question.ok_or_else(unknown)? {
            Asked::Append(append) => {
                let reply = self.inner.raft.append_entries(message::append_from_wire(append)?).await;
                let reply = reply.map_err(|error| stopped(&error))?;
                wire::reply::Reply::Append(message::append_reply_to_wire(&reply))
            }
            Asked::Vote(ask) => {
                let reply = self.inner.raft.vote(message::vote_request_from_wire(ask)?).await;
                let reply = reply.map_err(|error| stopped(&error))?;
                wire::reply::Reply::Vote(message::vote_reply_to_wire(&reply))
            }
            Asked::Propose(propose) => wire::reply::Reply::Propose(self.propose_for(propose).await),
            Asked::ReadIndex(wire::ReadIndex {}) => {
                wire::reply::Reply::ReadIndex(wire::ReadIndexReply { outcome: Some(self.read_index().await) })
            }
            Asked::ChangeMembers(change) => wire::reply::Reply::ChangeMembers(self.change_for(change).await),
            // Not consensus's business: the service above answers them.
            Asked::Fleet(_) | Asked::Records(_) => return Err(unknown()),
            Asked::TakeOver(wire::TakeOver {}) => {
                self.inner.raft.trigger().elect().await.map_err(|error| stopped(&error))?;
                wire::reply::Reply::TakeOver(wire::TakeOver {})
            }
        };
        Ok(wire::Reply { reply: Some(reply) })
    }

    /// Installs a checkpoint that the leader handed over and that lies, whole and checked, in `file`. The file is the
    /// caller's to remove.
    pub async fn install(
        &self,
        head: wire::CheckpointHead,
        file: PathBuf,
    ) -> Result<wire::CheckpointReply, AnswerError> {
        self.refuse_others(head.to)?;
        let vote = entry::vote_from_wire(head.vote.ok_or(DecodeError::Missing("vote"))?);
        let header = head.header.ok_or(DecodeError::Missing("header"))?;
        let meta = entry::checkpoint_header_from_wire(header)?;
        let checkpoint = Snapshot { meta, snapshot: Box::new(CheckpointFile { path: file }) };
        let reply = self.inner.raft.install_full_snapshot(vote, checkpoint).await;
        let reply = reply.map_err(|error| AnswerError::Stopped(error.to_string()))?;
        Ok(wire::CheckpointReply { vote: Some(entry::vote_to_wire(&reply.vote)) })
    }

    /// Up to where the log is committed, if this member leads and a quorum says so: asked once for all members that wait.
    pub(super) async fn read_index(&self) -> wire::read_index_reply::Outcome {
        let index = self.inner.confirmed.index(async || self.confirm().await).await;
        index.map_or_else(|outcome| outcome, wire::read_index_reply::Outcome::Index)
    }

    async fn confirm(&self) -> Result<u64, wire::read_index_reply::Outcome> {
        use openraft::error::{CheckIsLeaderError, RaftError};
        match self.inner.raft.get_read_log_id().await {
            Ok((read, _)) => Ok(read.map_or(0, |log_id| log_id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
                Err(wire::read_index_reply::Outcome::NotLeader(self.not_leader()))
            }
            Err(error) => Err(wire::read_index_reply::Outcome::Failed(error.to_string())),
        }
    }

    /// Refuses what is meant for another member. 0 is whoever has the address: what a joining process asks that knows nobody yet.
    pub fn refuse_others(&self, asked: u64) -> Result<(), AnswerError> {
        let own = self.inner.voter;
        if asked == 0 || asked == own.0 {
            return Ok(());
        }
        Err(AnswerError::NotThisMember { own, asked: VoterId(asked) })
    }
}
