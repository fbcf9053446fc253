//! How many calls agents of a tenant had on this node, and how many of them were rejected.
//!
//! Always holds: each call counts once, when it ends; it is the same for all forms of a tenant that follow each other.

use std::sync::atomic::{AtomicU64, Ordering};

/// The counts, since the process started.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    calls: AtomicU64,
    rejected: AtomicU64,
}

impl Tally {
    /// A call ended.
    pub(crate) fn count(&self, is_rejected: bool) {
        if is_rejected {
            self.rejected.fetch_add(1, Ordering::Relaxed);
        }
        self.calls.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls, and those of them that were rejected.
    pub(crate) fn read(&self) -> (u64, u64) {
        // In this order more calls than rejections may be read, never fewer.
        let rejected = self.rejected.load(Ordering::Relaxed);
        (self.calls.load(Ordering::Relaxed).max(rejected), rejected)
    }
}
