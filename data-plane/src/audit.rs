//! Audit: one record for every outcome, also when the client leaves.
//!
//! Always holds: an entry takes its place in the queue before the stages run, so closing it cannot fail; a slow disk
//! slows requests instead of losing records. Records are JSON, a line each. They are not chained, not fsynced and
//! not exported in this release.

pub(crate) mod entry;
pub(crate) mod redaction;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_node::records::{OpenError, Writer};
use tokio::sync::mpsc;

use crate::audit::entry::Entry;

/// Requests that may be under way or wait for the disk at once, per node; more wait before their first stage.
const ENTRIES_MAX: usize = 16_384;

/// Opens entries, and owns the writer's thread.
pub(crate) struct Audit {
    sender: mpsc::Sender<Vec<u8>>,
    writer: Writer,
    dropped: Arc<AtomicU64>,
    node: Arc<str>,
    id_prefix: String,
    id_next: AtomicU64,
}

/// The queue of the audit is closed: the node is shutting down.
#[derive(Debug, thiserror::Error)]
#[error("the audit is closed")]
pub(crate) struct Closed;

impl Audit {
    /// Starts the writer on `audit.jsonl` in a directory. `reports` receives a copy of each record as far as it keeps
    /// up; `incarnation` makes the decision ids of this process its own.
    pub(crate) fn start(
        directory: &Path,
        node: &str,
        incarnation: &str,
        reports: mpsc::Sender<Vec<u8>>,
    ) -> Result<Audit, OpenError> {
        let (sender, receiver) = mpsc::channel(ENTRIES_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let count = dropped.clone();
        let report = move |record| {
            if reports.try_send(record).is_err() {
                count.fetch_add(1, Ordering::Relaxed);
            }
        };
        let writer = Writer::start(directory.join("audit.jsonl"), receiver, report)?;
        Ok(Audit {
            sender,
            writer,
            dropped,
            node: node.into(),
            id_prefix: incarnation.chars().take(8).collect(),
            id_next: AtomicU64::new(1),
        })
    }

    /// Opens the entry of a request; waits while too many are open.
    pub(crate) async fn open(&self) -> Result<Entry, Closed> {
        let permit = self.sender.clone().reserve_owned().await.map_err(|_| Closed)?;
        let number = self.id_next.fetch_add(1, Ordering::Relaxed);
        Ok(Entry::new(permit, format!("{}-{number:06x}", self.id_prefix), self.node.clone()))
    }

    /// The node's name, as records have it.
    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    /// Records that were not reported to the control plane because it did not keep up.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Ends the writer once every entry is closed; blocks until the last record is written.
    pub(crate) fn finish(self) {
        drop(self.sender);
        self.writer.join();
    }
}
