//! Reads as of now, on any member: up to where its log has to be applied is asked of the leader, once for all who wait.
//!
//! Always holds: the round whose answer a read takes began after the read had come. Rounds follow each other, one at a
//! time, from a member to the leader and from the leader to a quorum alike, so any number of readers costs little more
//! than one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_model::Revision;
use gantry_wire::raft_v1 as wire;
use thiserror::Error;
use tokio::sync::Mutex;

use super::Consensus;
use super::peers::Peer;

/// How long a read may take to learn how far it has to go, and to get there: an election, twice.
const READ_DEADLINE: Duration = Duration::from_secs(10);
/// How long it is waited for news of a leader before another try.
const RETRY_INTERVAL: Duration = Duration::from_millis(50);

/// A read cannot be answered as of now.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("this member cannot be sure to have the newest state: {0}")]
pub struct StaleError(pub String);

/// Rounds of questions.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// Rounds that have begun.
    begun: AtomicU64,
    /// The last that was answered; held by the one who asks.
    answered: Mutex<Round>,
}

/// A round: its number, from 1, and up to where the log was committed when it began, or later.
#[derive(Debug, Clone, Copy, Default)]
struct Round {
    number: u64,
    index: u64,
}

impl Reads {
    /// The answer of a round that begins after this call: its own, or that of another who waits too.
    pub(super) async fn index<Error>(
        &self,
        ask: impl AsyncFnOnce() -> Result<u64, Error>,
    ) -> Result<u64, Error> {
        let begun_before = self.begun.load(Ordering::SeqCst);
        let mut answered = self.answered.lock().await;
        if answered.number <= begun_before {
            let number = self.begun.fetch_add(1, Ordering::SeqCst) + 1;
            *answered = Round { number, index: ask().await? };
        }
        Ok(answered.index)
    }
}

impl Consensus {
    /// Waits until this member has applied everything that was acknowledged before the call, wherever.
    pub async fn catch_up(&self) -> Result<(), StaleError> {
        let caught_up = tokio::time::timeout(READ_DEADLINE, async {
            let index = self.inner.reads.index(async || self.committed().await).await?;
            self.applied(Revision(index)).await
        });
        let seconds = READ_DEADLINE.as_secs();
        caught_up
            .await
            .unwrap_or_else(|_| Err(StaleError(format!("no leader with a quorum within {seconds} s"))))
    }

    /// Waits until the state that is read here has a revision.
    pub(super) async fn applied(&self, revision: Revision) -> Result<(), StaleError> {
        let mut newest = self.inner.feed.subscribe();
        let mut metrics = self.inner.raft.server_metrics();
        let ended = async { while metrics.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            reached = newest.wait_for(|newest| *newest >= revision) => reached.map(|_| ()).map_err(|_| not_running()),
            () = ended => Err(not_running()),
        }
    }

    /// Up to where the log is committed, as the leader says once there is one.
    async fn committed(&self) -> Result<u64, StaleError> {
        let mut metrics = self.inner.raft.server_metrics();
        loop {
            metrics.borrow_and_update();
            if let Some(index) = self.ask_read_index().await {
                return Ok(index);
            }
            if let Ok(Err(_)) = tokio::time::timeout(RETRY_INTERVAL, metrics.changed()).await {
                return Err(not_running());
            }
        }
    }

    /// `None`: ask again.
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
}

fn not_running() -> StaleError {
    StaleError("consensus is not running".to_owned())
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn a_read_takes_no_answer_of_a_round_that_began_before_it_and_many_share_one() {
        let reads = std::sync::Arc::new(Reads::default());
        let asked = std::sync::Arc::new(AtomicU64::new(0));
        let (let_go, held) = oneshot::channel::<()>();
        let spawn = |gate: Option<oneshot::Receiver<()>>| {
            let (reads, asked) = (reads.clone(), asked.clone());
            tokio::spawn(async move {
                let ask = async || {
                    let round = asked.fetch_add(1, Ordering::SeqCst) + 1;
                    if let Some(gate) = gate {
                        let _ = gate.await;
                    }
                    Ok::<_, StaleError>(round)
                };
                reads.index(ask).await.expect("every round is answered")
            })
        };
        let first = spawn(Some(held));
        tokio::task::yield_now().await;
        assert_eq!(asked.load(Ordering::SeqCst), 1, "its round is under way");
        let later: Vec<_> = (0..10).map(|_| spawn(None)).collect();
        tokio::task::yield_now().await;
        assert_eq!(let_go.send(()), Ok(()));
        assert_eq!(first.await.expect("no panic"), 1);
        for read in later {
            assert_eq!(read.await.expect("no panic"), 2, "one round for all who came meanwhile");
        }
        assert_eq!(asked.load(Ordering::SeqCst), 2);
        assert_eq!(spawn(None).await.expect("no panic"), 3, "a read that comes later asks anew");
    }
}
