//! The proposal batcher: many commands, one log entry.
//!
//! openraft 0.9 writes and syncs once per entry, so commands that wait together are proposed together.
//!
//! What always holds:
//! - One entry is in flight, as long as anybody waits for it. Meanwhile commands wait in a [`Queue`].
//! - A command that was turned away was never proposed. Of every other one that failed it is unknown whether it was
//!   committed, and nobody here proposes it again.

use std::time::Duration;

use gantry_control_state::Answer;
use openraft::Raft;
use openraft::error::{ClientWriteError, RaftError};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::entry::{Batch, Config, Member};
use super::queue::{Queue, Waiting};
use super::{Committed, ProposeError};

/// Bytes of log after which a checkpoint is asked for, so that few large commands do not grow the log without bound.
const CHECKPOINT_LOG_BYTES: u64 = 64 * 1024 * 1024;

/// Commands in an entry that show that many write, and how long the next entry then waits for those whom this one has
/// answered: an entry costs the members as much as some ten commands do.
const CROWD: usize = 8;
const LINGER: Duration = Duration::from_millis(1);

/// How long the entry in flight may still take once this member is to stop. A leader that lost its quorum would wait
/// for ever.
const STOP_GRACE: Duration = Duration::from_secs(1);

/// What became of a command that was proposed here.
pub(super) type Proposed = Result<Committed, ProposeError>;

/// Turns proposals into entries until it is stopped.
pub(super) struct Batcher {
    pub(super) raft: Raft<Config>,
    pub(super) proposals: Queue<Proposed>,
    pub(super) stop: CancellationToken,
    /// Bytes in the log since the last checkpoint, roughly.
    pub(super) log_bytes: u64,
}

impl Batcher {
    /// Ends when it is stopped, when every sender is gone, or when consensus has ended. What waits then is turned away.
    pub(super) async fn run(mut self) {
        while let Some(batch) = self.proposals.next().await {
            let crowded = batch.len() >= CROWD;
            if !self.commit(batch).await {
                break;
            }
            if crowded {
                tokio::time::sleep(LINGER).await;
            }
        }
        self.proposals.turn_away(|| Err(ProposeError::ShuttingDown));
    }

    /// Proposes an entry and answers all who wait for it. `false` when consensus has ended.
    async fn commit(&mut self, batch: Vec<Waiting<Proposed>>) -> bool {
        let (commands, mut replies): (Vec<_>, Vec<_>) =
            batch.into_iter().map(|waiting| (waiting.command, waiting.reply)).unzip();
        self.log_bytes += commands.iter().map(|command| command.len() as u64).sum::<u64>();
        let written = tokio::select! {
            biased;
            written = self.raft.client_write(Batch { commands }) => written,
            () = self.given_up() => {
                let reason = "this member is going down, and no quorum has answered".to_owned();
                for reply in replies {
                    let _ = reply.send(Err(ProposeError::Unknown { reason: reason.clone() }));
                }
                return false;
            }
            // openraft 0.9 never answers for an entry of a leader that lost its office, and whose log was then replaced
            // by a checkpoint. Waiting on, this member would propose nothing more, not even when it leads again.
            () = everybody_left(&mut replies) => return true,
        };
        match written {
            Ok(committed) => {
                answer(committed.data.0, replies);
                self.checkpoint_when_due().await
            }
            Err(error) => {
                let alive = !matches!(error, RaftError::Fatal(_));
                let reason = describe(&error);
                for reply in replies {
                    let _ = reply.send(Err(ProposeError::Unknown { reason: reason.clone() }));
                }
                alive
            }
        }
    }

    /// Ends [`STOP_GRACE`] after the stop.
    async fn given_up(&self) {
        self.stop.cancelled().await;
        tokio::time::sleep(STOP_GRACE).await;
    }

    async fn checkpoint_when_due(&mut self) -> bool {
        if self.log_bytes < CHECKPOINT_LOG_BYTES {
            return true;
        }
        self.log_bytes = 0;
        self.raft.trigger().snapshot().await.is_ok()
    }
}

fn answer(answers: Vec<Answer>, replies: Vec<oneshot::Sender<Proposed>>) {
    // INVARIANT: the state machine answers every command of a batch.
    assert_eq!(answers.len(), replies.len(), "one answer per command");
    for (reply, Answer { revision, outcome }) in replies.into_iter().zip(answers) {
        let forgotten = || ProposeError::Unknown {
            reason: "it was proposed before, and what became of it is not remembered any more".into(),
        };
        let _ = reply.send(outcome.map(|outcome| Committed { revision, outcome }).ok_or_else(forgotten));
    }
}

/// Whoever proposes waits for so long and no longer.
async fn everybody_left(replies: &mut [oneshot::Sender<Proposed>]) {
    for reply in replies {
        reply.closed().await;
    }
}

fn describe(error: &RaftError<u64, ClientWriteError<u64, Member>>) -> String {
    match error {
        RaftError::APIError(error) => error.to_string(),
        RaftError::Fatal(error) => format!("consensus has stopped: {error}"),
    }
}
