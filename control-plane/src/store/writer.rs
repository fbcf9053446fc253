//! The I/O thread: the one owner of everything that is written.
//!
//! What always holds:
//! - Requests are carried out in the order in which they came, votes and log entries alike, from a bounded queue.
//! - What waits is drained, written, made durable by one sync, noted in the watermark, and only then answered, in order. Changes of state wait
//!   for nobody: they are not durable by themselves (see `machine.rs`).
//! - After the first failure nothing is written any more: what the disk holds is unknown until the next open. Every
//!   later request is answered with that failure.
//! - When the thread ends the database is closed and its directory is free.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::database::Database;
use super::log::Log;
use super::machine::{ChangeSet, Machine};
use super::vote::Votes;
use super::watermark::{Mark, Watermark};
use super::{Shared, WriteError};

/// Requests that may wait. Consensus has one entry in flight, one vote, one purge and one checkpoint at a time; more than
/// a few waiting means that the disk stands still, and then the proposers must notice.
pub(super) const QUEUE_REQUESTS_MAX: usize = 64;

/// Answered when the request is durable, or with the failure that made that unknown.
pub(super) type Done = oneshot::Sender<Result<(), WriteError>>;

/// One thing to write.
pub(super) enum Request {
    Append { first: u64, entries: Vec<Vec<u8>>, done: Done },
    SaveVote { vote: Vec<u8>, done: Done },
    Truncate { from: u64, done: Done },
    Purge { through: u64, record: Vec<u8>, done: Done },
    Apply { change: ChangeSet },
    Replace { change: ChangeSet, done: Done },
    Sync { done: Done },
    Close { done: Done },
}

/// The I/O thread's own state.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) log: Log,
    pub(super) machine: Machine,
    pub(super) votes: Votes,
    pub(super) watermark: Watermark,
}

/// Whether the thread goes on after a round.
enum Round {
    Next,
    Close(Vec<Done>),
}

impl Writer {
    /// Serves requests until the store is closed or forgotten.
    pub(super) fn run(mut self) {
        let mut failed: Option<WriteError> = None;
        let closers = loop {
            let Some(request) = self.requests.blocking_recv() else {
                break Vec::new();
            };
            if let Round::Close(closers) = self.round(request, &mut failed) {
                break closers;
            }
        };
        self.requests.close();
        while let Ok(request) = self.requests.try_recv() {
            request.refuse(&WriteError::Closed);
        }
        // The last sync, so that a clean stop leaves nothing to the operating system.
        let last = match failed {
            None => self.sync().and_then(|()| self.watermark.sync().map_err(WriteError::watermark)),
            Some(error) => Err(error),
        };
        // sled panics when a sync of its own fails while it is closed. The directory is given back all the same, and
        // the first failure is the one to tell.
        let closed = catch_unwind(AssertUnwindSafe(|| self.shared.close()));
        let last = last.and(closed.map_err(|_| WriteError::Closed));
        for done in closers {
            let _ = done.send(last.clone());
        }
    }

    /// Carries out `request` and everything that waits behind it.
    fn round(&mut self, request: Request, failed: &mut Option<WriteError>) -> Round {
        let was_sound = failed.is_none();
        let mut waiting = Vec::new();
        let mut closers = Vec::new();
        let mut next = Some(request);
        while let Some(request) = next {
            if let Some(error) = failed {
                request.refuse_or_close(&WriteError::stopped(error), &mut closers);
            } else {
                let carried_out = self.carry_out(request, &mut waiting, &mut closers);
                *failed = carried_out.err();
            }
            let more = waiting.len() < QUEUE_REQUESTS_MAX && closers.is_empty();
            next = more.then(|| self.requests.try_recv().ok()).flatten();
        }
        if !waiting.is_empty() && failed.is_none() {
            *failed = self.sync().err();
        }
        if let (Some(error), true) = (&failed, was_sound) {
            // Once, and here: a change of state has nobody else to tell.
            tracing::error!(error = error as &dyn std::error::Error, "the store has stopped");
        }
        for done in waiting {
            let _ = done.send(failed.clone().map_or(Ok(()), Err));
        }
        if closers.is_empty() { Round::Next } else { Round::Close(closers) }
    }

    fn carry_out(
        &mut self,
        request: Request,
        waiting: &mut Vec<Done>,
        closers: &mut Vec<Done>,
    ) -> Result<(), WriteError> {
        self.with_database(|writer, database| {
            let bounds = &writer.shared.bounds;
            match request {
                Request::Append { first, entries, done } => {
                    waiting.push(done);
                    writer.log.append(database, bounds, first, &entries)
                }
                Request::SaveVote { vote, done } => {
                    waiting.push(done);
                    writer.votes.save(database, &vote)
                }
                Request::Truncate { from, done } => {
                    waiting.push(done);
                    // The one thing that takes back what was durable: the watermark goes first.
                    writer.watermark.lower(from).map_err(WriteError::watermark)?;
                    writer.log.truncate(database, bounds, from)
                }
                Request::Purge { through, record, done } => {
                    waiting.push(done);
                    writer.log.purge(database, bounds, through, &record)
                }
                Request::Apply { change } => writer.machine.apply(database, &change),
                Request::Replace { change, done } => {
                    waiting.push(done);
                    writer.machine.replace(database, change)
                }
                Request::Sync { done } => {
                    waiting.push(done);
                    Ok(())
                }
                Request::Close { done } => {
                    closers.push(done);
                    Ok(())
                }
            }
        })
    }

    /// Makes everything durable, then says so in the watermark.
    fn sync(&mut self) -> Result<(), WriteError> {
        self.with_database(|writer, database| {
            database.sync()?;
            writer.watermark.write(writer.mark()).map_err(WriteError::watermark)
        })
    }

    fn mark(&self) -> Mark {
        Mark { log: self.log.next(), state: self.machine.next(), votes: self.votes.saved() }
    }

    fn with_database(
        &mut self,
        act: impl FnOnce(&mut Self, &Database) -> Result<(), WriteError>,
    ) -> Result<(), WriteError> {
        let shared = Arc::clone(&self.shared);
        shared.with_database(|database| act(self, database)).unwrap_or(Err(WriteError::Closed))
    }
}

impl Request {
    fn refuse(self, error: &WriteError) {
        self.refuse_or_close(error, &mut Vec::new());
    }

    fn refuse_or_close(self, error: &WriteError, closers: &mut Vec<Done>) {
        let done = match self {
            Self::Close { done } => {
                closers.push(done);
                return;
            }
            Self::Apply { .. } => return,
            Self::Append { done, .. }
            | Self::SaveVote { done, .. }
            | Self::Truncate { done, .. }
            | Self::Purge { done, .. }
            | Self::Replace { done, .. }
            | Self::Sync { done } => done,
        };
        let _ = done.send(Err(error.clone()));
    }
}
