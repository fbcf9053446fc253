//! Answering what other members ask.
//!
//! Always holds: a question for another member is refused, whoever has its address now; a message that cannot be read
//! in full changes nothing here.

use std::path::PathBuf;
use std::time::Duration;

use gantry_wire::raft_v1 as wire;
use openraft::storage::Snapshot;
use thiserror::Error;

use super::entry::{self, CheckpointFile, DecodeError};
use super::message;
use super::peers::Peer;
use super::{Consensus, VoterId};

/// How long a read may take to learn how far it has to go, and to get there: an election, twice.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// How long it is waited for news of a leader before another try.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

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

/// A read cannot be answered as of now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this member cannot be sure to have the newest state: {0}")]
pub struct StaleError(pub String);

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
            Asked::Propose(propose) => wire::reply::Reply::Propose(self.propose_for(propose.command).await),
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

    /// Waits until this member has applied everything that was acknowledged before the call, wherever.
    pub async fn catch_up(&self) -> Result<(), StaleError> {
        let caught_up = tokio::time::timeout(READ_DEADLINE, async {
            let mut metrics = self.inner.raft.server_metrics();
            loop {
                metrics.borrow_and_update();
                if let Some(index) = self.ask_read_index().await {
                    let wait = self.inner.raft.wait(Some(READ_DEADLINE));
                    let applied = wait.applied_index_at_least(Some(index), "a read's index").await;
                    return applied.map(|_| ()).map_err(|error| StaleError(error.to_string()));
                }
                if let Ok(Err(_)) = tokio::time::timeout(RETRY_INTERVAL, metrics.changed()).await {
                    return Err(StaleError("consensus is not running".to_owned()));
                }
            }
        });
        let seconds = READ_DEADLINE.as_secs();
        caught_up
            .await
            .unwrap_or_else(|_| Err(StaleError(format!("no leader with a quorum within {seconds} s"))))
    }

    /// Up to where a read as of now has to have the log applied; `None`: ask again.
    async fn ask_read_index(&self) -> Option<u64> {
        let (leader, address) = self.leader()?;
        let outcome = if leader == self.inner.voter {
            self.read_index().await
        } else {
            let peer = Peer { voter: Some(leader), address };
            let question = wire::question::Question::ReadIndex(wire::ReadIndex {});
            let question =
                wire::Question { from: self.inner.voter.0, to: leader.0, question: Some(question) };
            let reply = self.inner.peers.ask(peer, question, READ_DEADLINE).await.ok()?;
            let Some(wire::reply::Reply::ReadIndex(reply)) = reply.reply else { return None };
            reply.outcome?
        };
        match outcome {
            wire::read_index_reply::Outcome::Index(index) => Some(index),
            wire::read_index_reply::Outcome::NotLeader(_) | wire::read_index_reply::Outcome::Failed(_) => {
                None
            }
        }
    }

    async fn read_index(&self) -> wire::read_index_reply::Outcome {
        use openraft::error::{CheckIsLeaderError, RaftError};
        match self.inner.raft.get_read_log_id().await {
            Ok((read, _)) => wire::read_index_reply::Outcome::Index(read.map_or(0, |log_id| log_id.index)),
            Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(_))) => {
                wire::read_index_reply::Outcome::NotLeader(self.not_leader())
            }
            Err(error) => wire::read_index_reply::Outcome::Failed(error.to_string()),
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
