//! Audit of the admin service: one record for every call, also for those that are refused and those of nobody.
//!
//! Always holds: an entry takes its place in the queue before anything of the call is looked at, so closing it cannot
//! fail; it is closed exactly once, also when the caller leaves. A record holds names of the form that resources have,
//! and nothing else of what was sent: no text of a request, no message of an answer, no secret.
//!
//! Records are JSON, a line each, in `admin-audit.jsonl` of the data directory, which rotates as that of a node; the latest
//! are in memory for `audit tail --admins`, each from before its caller was answered. They are not fsynced. Calls of
//! nobody are counted rather than written when more come than [`NOBODY_PER_SECOND_MAX`], so that a flood does not push out
//! what matters. A call for which there is no room is refused, and has no record.

mod entry;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_node::records::{OpenError, Writer};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::journal::Journal;
use crate::vault::{CryptoError, fill_random};

pub(crate) use entry::{ADMIN_KIND, Ended, Entry, Notes, Subject};

/// Calls that may be under way or wait for the disk at once; more wait before they are looked at.
pub(crate) const ENTRIES_MAX: usize = 4_096;
/// How long a call waits for room: whoever calls is told before he gives up.
const OPEN_DEADLINE: Duration = Duration::from_secs(5);
/// How long the end waits for the last record. Calls have ended by then, or are broken off.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);
/// Records of calls by nobody in one second: enough to see who tries what.
const NOBODY_PER_SECOND_MAX: u64 = 20;
/// Where records are written, in the data directory.
const FILE: &str = "admin-audit.jsonl";

/// Opens entries, and owns the writer's thread.
#[derive(Debug)]
pub(crate) struct Audit {
    sender: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    writer: Mutex<Option<Writer>>,
    /// The latest records.
    pub(crate) journal: Arc<Journal>,
    member: Arc<str>,
    id_prefix: String,
    id_next: AtomicU64,
    nobody: Arc<Mutex<Nobody>>,
}

/// Calls of nobody: how many were written in this second, and how many were not since one was.
#[derive(Debug, Default)]
struct Nobody {
    since: Option<Instant>,
    written: u64,
    left_out: u64,
}

/// Why a call has no entry, and is not to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoEntry {
    /// The process is going down.
    #[error("the control plane is going down")]
    Ending,
    /// There was no room in time.
    #[error(
        "{ENTRIES_MAX} calls are under way already or their records wait for the disk; nothing was changed; try again"
    )]
    Crowded,
}

/// Why audit cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// Its file cannot be used.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No randomness for the ids of decisions.
    #[error("no id for the decisions of this process can be made")]
    Id(#[from] CryptoError),
}

impl Audit {
    /// Starts the writer in a data directory; `member` is this process in its records.
    pub(crate) fn start(directory: &Path, member: &str) -> Result<Audit, AuditError> {
        let mut id = [0; 4];
        fill_random(&mut id)?;
        let journal = Journal::new();
        let (sender, receiver) = mpsc::channel(ENTRIES_MAX);
        // Who has been answered finds the record of it, so entries are known to the journal before the writer has them.
        let writer = Writer::start(directory.join(FILE), receiver, drop)?;
        Ok(Audit {
            sender: Mutex::new(Some(sender)),
            writer: Mutex::new(Some(writer)),
            journal,
            member: member.into(),
            id_prefix: format!("{:08x}", u32::from_be_bytes(id)),
            id_next: AtomicU64::new(1),
            nobody: Arc::default(),
        })
    }

    /// Opens the entry of a call; waits a little while too many are open.
    pub(crate) async fn open(&self, method: &'static str, address: String) -> Result<Entry, NoEntry> {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let permit = sender.ok_or(NoEntry::Ending)?.reserve_owned();
        let permit = tokio::time::timeout(OPEN_DEADLINE, permit).await.map_err(|_| NoEntry::Crowded)?;
        let permit = permit.map_err(|_| NoEntry::Ending)?;
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        let decision_id = format!("{}-{number:06x}", self.id_prefix);
        Ok(Entry::new(permit, decision_id, (method, address), self))
    }

    /// Ends the writer once every entry is closed; blocks until the last record is written, for a while.
    pub(crate) fn finish(&self) {
        drop(self.sender.lock().unwrap_or_else(PoisonError::into_inner).take());
        if let Some(writer) = self.writer.lock().unwrap_or_else(PoisonError::into_inner).take() {
            writer.join_within(FINISH_DEADLINE);
        }
    }
}

impl Nobody {
    /// Whether one more is written, and how many were left out before it.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_same = self.since.is_some_and(|since| now.duration_since(since).as_secs() == 0);
        if !is_same {
            (self.since, self.written) = (Some(now), 0);
        }
        if self.written >= NOBODY_PER_SECOND_MAX {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_does_not_wait_for_ever_for_room() {
        let directory = tempfile::tempdir().expect("a directory");
        let audit = Audit::start(directory.path(), "control-plane-1").expect("started");
        let mut open = Vec::new();
        for _ in 0..ENTRIES_MAX {
            open.push(audit.open("Get", String::new()).await.expect("room"));
        }
        let began = Instant::now();
        let refused = audit.open("Revoke", String::new()).await.map(drop);
        assert_eq!(refused, Err(NoEntry::Crowded));
        assert!((OPEN_DEADLINE..2 * OPEN_DEADLINE).contains(&began.elapsed()), "{:?}", began.elapsed());
        // The thread that writes has no part in the clock of the test.
        tokio::time::resume();
        open.pop();
        assert_eq!(audit.open("Revoke", String::new()).await.map(drop), Ok(()));
        drop(open);
        audit.finish();
        assert_eq!(audit.open("Revoke", String::new()).await.map(drop), Err(NoEntry::Ending));
    }

    #[test]
    fn a_flood_of_calls_by_nobody_is_counted_and_told_with_the_next_record() {
        let mut nobody = Nobody::default();
        let now = Instant::now();
        for _ in 0..NOBODY_PER_SECOND_MAX {
            assert_eq!(nobody.admit(now), Some(0));
        }
        assert_eq!(nobody.admit(now), None);
        assert_eq!(nobody.admit(now + Duration::from_millis(999)), None);
        assert_eq!(nobody.admit(now + Duration::from_secs(1)), Some(2));
        assert_eq!(nobody.admit(now + Duration::from_secs(1)), Some(0));
    }
}
