//! The newest entries of the log, in memory: they are read several times soon after they were written, by each stream to
//! a follower and to be applied, and those reads are on the way of every write.
//!
//! What always holds: what is here is what the store acknowledged, without a hole, up to the log's last entry; at most
//! [`ENTRIES_MAX`] entries and [`BYTES_MAX`] bytes. A read that begins before the first entry here is the store's as a
//! whole.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::entry::Entry;

/// Entries that are kept: followers that keep up are some tens of entries behind, at most.
const ENTRIES_MAX: usize = 1_024;
/// Bytes that are kept: sixteen full entries.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// The entries.
#[derive(Debug, Default)]
pub(super) struct Tail(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// Each with its encoded length.
    entries: VecDeque<(Entry, usize)>,
    bytes: usize,
}

impl Tail {
    /// Notes entries that the store acknowledged, each with its encoded length.
    pub(super) fn append(&self, entries: impl IntoIterator<Item = (Entry, usize)>) {
        let mut kept = self.kept();
        for (entry, bytes) in entries {
            if kept.entries.back().is_some_and(|(last, _)| last.log_id.index + 1 != entry.log_id.index) {
                *kept = Kept::default();
            }
            kept.bytes += bytes;
            kept.entries.push_back((entry, bytes));
            while kept.entries.len() > ENTRIES_MAX || kept.bytes > BYTES_MAX {
                kept.pop_first();
            }
        }
    }

    /// Forgets the entries from `from` on, which are about to be deleted.
    pub(super) fn truncate(&self, from: u64) {
        let mut kept = self.kept();
        while kept.entries.back().is_some_and(|(last, _)| last.log_id.index >= from) {
            kept.bytes -= kept.entries.pop_back().map_or(0, |(_, bytes)| bytes);
        }
    }

    /// Forgets the entries up to and including `through`, which are about to be deleted.
    pub(super) fn purge(&self, through: u64) {
        let mut kept = self.kept();
        while kept.entries.front().is_some_and(|(first, _)| first.log_id.index <= through) {
            kept.pop_first();
        }
    }

    /// The entries with `start <= index < end`, stopping before more than `bytes_max` bytes but not before the first;
    /// `None` when the first of them is not here.
    pub(super) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Option<Vec<Entry>> {
        let kept = self.kept();
        let first = kept.entries.front()?.0.log_id.index;
        let skipped = usize::try_from(start.checked_sub(first)?).ok()?;
        if skipped >= kept.entries.len() {
            return None;
        }
        let (mut found, mut bytes) = (Vec::new(), 0);
        for (entry, more) in kept.entries.range(skipped..) {
            bytes += more;
            if entry.log_id.index >= end || (!found.is_empty() && bytes > bytes_max) {
                break;
            }
            found.push(entry.clone());
        }
        Some(found)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn pop_first(&mut self) {
        self.bytes -= self.entries.pop_front().map_or(0, |(_, bytes)| bytes);
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload, LogId};

    use super::*;

    fn entry(term: u64, index: u64, bytes: usize) -> (Entry, usize) {
        let log_id = LogId::new(CommittedLeaderId::new(term, 1), index);
        (Entry { log_id, payload: EntryPayload::Blank }, bytes)
    }

    /// Terms and indexes.
    fn read(tail: &Tail, start: u64, end: u64, bytes_max: usize) -> Option<Vec<(u64, u64)>> {
        let read = tail.read(start, end, bytes_max)?;
        Some(read.iter().map(|entry| (entry.log_id.leader_id.term, entry.log_id.index)).collect())
    }

    /// How many entries are kept, and how many bytes.
    fn size(tail: &Tail) -> (usize, usize) {
        let kept = tail.kept();
        (kept.entries.len(), kept.bytes)
    }

    #[test]
    fn it_has_what_was_appended_last_and_nothing_that_was_deleted() {
        let tail = Tail::default();
        assert_eq!(read(&tail, 0, 9, usize::MAX), None);
        tail.append((5..10).map(|index| entry(1, index, 10)));
        assert_eq!(read(&tail, 4, 9, usize::MAX), None, "the store has what is before");
        assert_eq!(read(&tail, 6, 8, usize::MAX), Some(vec![(1, 6), (1, 7)]));
        assert_eq!(read(&tail, 8, u64::MAX, usize::MAX), Some(vec![(1, 8), (1, 9)]));
        assert_eq!(read(&tail, 10, 11, usize::MAX), None);
        assert_eq!(read(&tail, 5, 10, 25), Some(vec![(1, 5), (1, 6)]));
        assert_eq!(read(&tail, 5, 10, 1), Some(vec![(1, 5)]), "one at least");
        tail.truncate(8);
        assert_eq!(read(&tail, 5, 10, usize::MAX), Some(vec![(1, 5), (1, 6), (1, 7)]));
        tail.append([entry(2, 8, 10)]);
        assert_eq!(read(&tail, 7, 10, usize::MAX), Some(vec![(1, 7), (2, 8)]));
        tail.purge(6);
        assert_eq!(read(&tail, 6, 10, usize::MAX), None);
        assert_eq!(read(&tail, 7, 10, usize::MAX), Some(vec![(1, 7), (2, 8)]));
        // After a checkpoint was installed the log goes on behind it.
        tail.append([entry(3, 20, 10)]);
        assert_eq!(read(&tail, 8, 30, usize::MAX), None);
        assert_eq!(read(&tail, 20, 30, usize::MAX), Some(vec![(3, 20)]));
    }

    #[test]
    fn it_keeps_no_more_than_it_may() {
        let tail = Tail::default();
        let count = ENTRIES_MAX as u64 + 5;
        tail.append((0..count).map(|index| entry(1, index, 1)));
        assert_eq!((read(&tail, 4, 9, 1), read(&tail, 5, 9, 1)), (None, Some(vec![(1, 5)])));
        assert_eq!(size(&tail), (ENTRIES_MAX, ENTRIES_MAX));
        tail.append([entry(1, count, BYTES_MAX - 1)]);
        assert_eq!(size(&tail), (2, BYTES_MAX));
        tail.append([entry(1, count + 1, BYTES_MAX + 1)]);
        assert_eq!(size(&tail), (0, 0));
        assert_eq!(read(&tail, count + 1, count + 2, usize::MAX), None);
    }
}
