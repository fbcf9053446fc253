//! What one worker counts, and how the workers of a slot become one outcome.
//!
//! What always holds: every call that a worker began is counted exactly once, as answered or as
//! failed; only answered calls of the measured time have a latency.

use std::time::Duration;

use super::{
    Outcome,
    call::{Endpoint, Era},
    connection::{CallError, Connection},
};
use crate::{causes::on_one_line, latency::Latencies};

/// Failures that are kept to be shown; they tend to be alike.
const FAILURE_SHOWN_MAX: usize = 3;
/// A target that closes a worker's connection more often than this is not measured any further.
const RECONNECT_COUNT_MAX: usize = 16;

/// The count of one worker.
#[derive(Debug, Default)]
pub(super) struct Tally {
    latencies: Latencies,
    succeeded_count: u64,
    failed_count: u64,
    failures: Vec<String>,
    reconnect_count: usize,
}

impl Tally {
    /// A correct answer; with its latency if it belongs to the measured time.
    pub(super) fn succeed(&mut self, latency: Option<Duration>) {
        self.succeeded_count += 1;
        if let Some(latency) = latency {
            self.latencies.record(latency);
        }
    }

    /// `count` calls that failed for one reason.
    pub(super) fn fail(&mut self, count: u64, reason: impl FnOnce() -> String) {
        self.failed_count += count;
        if count > 0 {
            self.note(reason);
        }
    }

    /// Calls counted so far.
    pub(super) fn call_count(&self) -> u64 {
        self.succeeded_count + self.failed_count
    }

    fn note(&mut self, reason: impl FnOnce() -> String) {
        if self.failures.len() < FAILURE_SHOWN_MAX {
            self.failures.push(reason());
        }
    }

    /// A call that failed. Gives back a connection that can go on, a new one if need be; `None`
    /// when the worker has to give up.
    pub(super) async fn recover(
        &mut self,
        failure: &CallError,
        connection: Connection,
        endpoint: &Endpoint,
        era: Era,
    ) -> Option<Connection> {
        self.fail(1, || on_one_line(failure));
        if !failure.is_connection_lost() {
            return Some(connection);
        }
        connection.close().await;
        if self.reconnect_count == RECONNECT_COUNT_MAX {
            return None;
        }
        self.reconnect_count += 1;
        match Connection::open(endpoint, era).await {
            Ok(connection) => Some(connection),
            Err(failure) => {
                self.note(|| format!("gave up: {}", on_one_line(&failure)));
                None
            }
        }
    }

    pub(super) fn merge(&mut self, other: Self) {
        self.latencies.merge(&other.latencies);
        self.succeeded_count += other.succeeded_count;
        self.failed_count += other.failed_count;
        let room = FAILURE_SHOWN_MAX.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
    }

    pub(super) fn into_outcome(self, measured: Duration) -> Outcome {
        Outcome {
            completed_count: self.latencies.count(),
            latencies: self.latencies,
            succeeded_count: self.succeeded_count,
            failed_count: self.failed_count,
            failures: self.failures,
            measured,
        }
    }
}
