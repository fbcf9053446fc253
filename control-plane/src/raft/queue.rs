//! Commands that wait to leave this member together: in a log entry, or in a message to the leader.
//!
//! What always holds:
//! - At most [`QUEUED_MAX`] commands wait; whoever sends one more is turned away at once.
//! - What leaves together is at most [`BATCH_COMMANDS_MAX`] commands and [`BATCH_BYTES_MAX`] bytes, or one longer command,
//!   in the order in which it came. Commands for which nobody waits any more are left out.

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Commands that may wait: four full entries, about ten milliseconds of a disk's work.
pub(super) const QUEUED_MAX: usize = 1024;

/// Commands in one batch. Beyond this the sync of an entry no longer weighs anything.
const BATCH_COMMANDS_MAX: usize = 256;

/// Bytes in one batch, so that a follower's heartbeat never waits long behind an entry.
const BATCH_BYTES_MAX: usize = 256 * 1024;

/// A command on its way, with whoever waits for it.
#[derive(Debug)]
pub(super) struct Waiting<Answer> {
    pub(super) command: Bytes,
    pub(super) reply: oneshot::Sender<Answer>,
}

/// Where commands wait.
#[derive(Debug)]
pub(super) struct Queue<Answer> {
    waiting: mpsc::Receiver<Waiting<Answer>>,
    /// Did not fit the last batch.
    held: Option<Waiting<Answer>>,
    stop: CancellationToken,
}

impl<Answer> Queue<Answer> {
    /// A queue that ends when it is stopped or every sender is gone.
    pub(super) fn new(stop: CancellationToken) -> (mpsc::Sender<Waiting<Answer>>, Self) {
        let (sender, waiting) = mpsc::channel(QUEUED_MAX);
        (sender, Self { waiting, held: None, stop })
    }

    /// What leaves next, never empty, once there is something; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<Vec<Waiting<Answer>>> {
        loop {
            if self.stop.is_cancelled() {
                return None;
            }
            let first = match self.held.take() {
                Some(first) => first,
                None => tokio::select! {
                    biased;
                    () = self.stop.cancelled() => return None,
                    first = self.waiting.recv() => first?,
                },
            };
            let batch = self.gather(first);
            if !batch.is_empty() {
                return Some(batch);
            }
        }
    }

    /// Answers whatever waits still, and takes nothing more.
    pub(super) fn turn_away(mut self, answer: impl Fn() -> Answer) {
        self.waiting.close();
        let held = self.held.take();
        let waiting = std::iter::from_fn(|| self.waiting.try_recv().ok());
        for left in held.into_iter().chain(waiting) {
            let _ = left.reply.send(answer());
        }
    }

    /// Takes what waits behind `first` as far as it fits; what does not fit any more is held.
    fn gather(&mut self, first: Waiting<Answer>) -> Vec<Waiting<Answer>> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(waiting) = next {
            if !waiting.reply.is_closed() {
                if !batch.is_empty() && bytes + waiting.command.len() > BATCH_BYTES_MAX {
                    self.held = Some(waiting);
                    return batch;
                }
                bytes += waiting.command.len();
                batch.push(waiting);
            }
            next = (batch.len() < BATCH_COMMANDS_MAX).then(|| self.waiting.try_recv().ok()).flatten();
        }
        batch
    }
}
