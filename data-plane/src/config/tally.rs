//! How many calls agents of a tenant had on this node, how many of them were rejected, and how many callers were turned away
//! before.
//!
//! Always holds: each call counts once, when it ends, and is none of those that were turned away; it is the same for all forms of a tenant that follow each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counts, since the process started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    rejected: AtomicU64,
    refused: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    /// Of the calls.
    pub(crate) rejected: u64,
    /// Callers that were turned away before anybody knew who they are.
    pub(crate) refused: u64,
}

impl Tally {
    /// A call ended.
    pub(crate) fn count(&self, is_rejected: bool) {
        if is_rejected {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// A caller was turned away.
    pub(crate) fn refuse(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What was counted so far.
    pub(crate) fn read(&self) -> Counts {
        // In this order more calls than rejections may be read, never fewer.
        let rejected = self.rejected.load(Ordering::Relaxed);
        let calls = self.calls.load(Ordering::Relaxed).max(rejected);
        Counts { calls, rejected, refused: self.refused.load(Ordering::Relaxed) }
    }
}
