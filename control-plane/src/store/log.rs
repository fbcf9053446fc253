//! The log tree: entries by index, opaque to the store.
//!
//! What always holds: the entries on disk are those from the one after the purge mark to the last, without a hole;
//! only the very last may be incomplete, when a crash cut its writing short, and such an entry was never acknowledged.
//! Therefore appends go upwards, truncation downwards, and the purge mark is written before the first entry under it
//! is deleted. Anything else found at open or by a reader is damage, and is reported, never skipped.

use std::sync::atomic::{AtomicU64, Ordering};

use super::database::{Database, Group, Write, groups};
use super::record::{self, Damage, RECORD_BYTES_MAX};
use super::{Item, OpenError, ReadError, WriteError};

const PURGED_KEY: &[u8] = b"purged";

/// What readers may read: `first <= index < next`. Written by the I/O thread alone.
#[derive(Debug, Default)]
pub(super) struct Bounds {
    first: AtomicU64,
    next: AtomicU64,
}

/// How far the log goes, as the I/O thread knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Log {
    /// One past the purge mark.
    first: u64,
    /// One past the last entry; `None` before the first entry of all.
    next: Option<u64>,
}

/// What [`Log::open`] found.
pub(super) struct Opened {
    pub(super) log: Log,
    pub(super) purged: Option<Vec<u8>>,
    pub(super) last_entry: Option<Vec<u8>>,
    /// Length of all entries together.
    pub(super) bytes: u64,
}

/// A log index and the entry's bytes.
pub type IndexedEntry = (u64, Vec<u8>);

impl Bounds {
    fn set(&self, log: Log) {
        self.first.store(log.first, Ordering::Release);
        self.next.store(log.next(), Ordering::Release);
    }
}

impl Log {
    /// Checks the whole log and clears away what a crash left half done.
    pub(super) fn open(database: &Database, bounds: &Bounds) -> Result<Opened, OpenError> {
        let purged = read_purge_mark(database)?;
        let first = purged.as_ref().map_or(0, |(index, _)| index + 1);
        let mut next = first;
        let mut last_entry = None;
        let mut bytes = 0;
        let mut torn = None;
        let mut leftovers = Vec::<Write>::new();
        for group in groups(database.log.iter()) {
            let group = group?;
            let index =
                index_of(&group).ok_or(OpenError::Damaged { item: Item::Log, damage: Damage::Layout })?;
            if index < first {
                leftovers.extend(group.removal());
                continue;
            }
            let damaged = |damage| OpenError::Damaged { item: Item::Entry(next), damage };
            if let Some(damage) = torn.take() {
                return Err(OpenError::Damaged { item: Item::Entry(next - 1), damage });
            }
            if index != next {
                return Err(OpenError::Gap { expected: next, found: index });
            }
            match record::assemble(&group.found) {
                Ok(content) => {
                    bytes += content.len() as u64;
                    last_entry = Some(content);
                }
                Err(damage @ Damage::Torn { .. }) => {
                    tracing::warn!(index, %damage, "the last log entry was never written in full: dropped");
                    torn = Some(damage);
                    leftovers.extend(group.removal().rev());
                }
                Err(damage) => return Err(damaged(damage)),
            }
            next += 1;
        }
        next -= u64::from(torn.is_some());
        database.write(&database.log, leftovers).map_err(OpenError::Repair)?;
        let log = Self { first, next: (next > 0).then_some(next) };
        bounds.set(log);
        Ok(Opened { log, purged: purged.map(|(_, record)| record), last_entry, bytes })
    }

    /// One past the last entry.
    pub(super) fn next(&self) -> u64 {
        self.next.unwrap_or(self.first)
    }

    /// Writes entries with consecutive indexes; the first follows the last one there is.
    pub(super) fn append(
        &mut self,
        database: &Database,
        bounds: &Bounds,
        first: u64,
        entries: &[Vec<u8>],
    ) -> Result<(), WriteError> {
        let in_order = self.next.is_none_or(|next| next == first);
        #[cfg(test)]
        let in_order = in_order || database.faults.accepts_any_order();
        if !in_order {
            return Err(WriteError::OutOfOrder { index: first, next: self.next.unwrap_or_default() });
        }
        if let Some(long) = entries.iter().find(|entry| entry.len() > RECORD_BYTES_MAX) {
            return Err(WriteError::TooLarge { bytes: long.len() });
        }
        let writes =
            (first..).zip(entries).flat_map(|(index, entry)| record::parts(&index.to_be_bytes(), entry));
        database.write(&database.log, writes.map(|(key, value)| (key, Some(value))))?;
        self.next = Some(first + entries.len() as u64);
        bounds.set(*self);
        Ok(())
    }

    /// Deletes the entries from `from` on, the last first.
    pub(super) fn truncate(
        &mut self,
        database: &Database,
        bounds: &Bounds,
        from: u64,
    ) -> Result<(), WriteError> {
        if from < self.first {
            return Err(WriteError::OutOfOrder { index: from, next: self.first });
        }
        self.next = self.next.map(|next| next.min(from)).filter(|next| *next > 0);
        bounds.set(*self);
        let keys = database.log.range(from.to_be_bytes()..).keys().rev();
        let keys = keys.collect::<sled::Result<Vec<_>>>()?;
        database.write(&database.log, keys.into_iter().map(|key| (key.to_vec(), None)))
    }

    /// Deletes the entries up to and including `through`, the first first. `record` is given back at the next open.
    ///
    /// INVARIANT: state that was made from these entries is durable before the first of them is deleted.
    pub(super) fn purge(
        &mut self,
        database: &Database,
        bounds: &Bounds,
        through: u64,
        record: &[u8],
    ) -> Result<(), WriteError> {
        if through < self.first {
            return Ok(());
        }
        let mark = [&through.to_le_bytes(), record].concat();
        if !record::fits_one_value(&mark) {
            return Err(WriteError::TooLarge { bytes: mark.len() });
        }
        database.sync()?;
        let value = record::frame(PURGED_KEY, &mark);
        database.write(&database.meta, [(PURGED_KEY.to_vec(), Some(value))])?;
        self.first = through + 1;
        self.next = Some(self.next.unwrap_or(0).max(self.first));
        bounds.set(*self);
        let keys = database.log.range(..self.first.to_be_bytes()).keys();
        let keys = keys.collect::<sled::Result<Vec<_>>>()?;
        database.write(&database.log, keys.into_iter().map(|key| (key.to_vec(), None)))
    }
}

/// Reads the entries with `start <= index < end` that are there, at least one if there is one, and stops after
/// `bytes_max` bytes.
///
/// Entries that are purged meanwhile are left out; a hole above the purge mark is an error.
pub(super) fn read(
    database: &Database,
    bounds: &Bounds,
    start: u64,
    end: u64,
    bytes_max: usize,
) -> Result<Vec<IndexedEntry>, ReadError> {
    let end = end.min(bounds.next.load(Ordering::Acquire));
    let mut entries: Vec<IndexedEntry> = Vec::new();
    if start >= end {
        return Ok(entries);
    }
    let mut bytes = 0;
    for group in groups(database.log.range(start.to_be_bytes()..end.to_be_bytes())) {
        let group = group?;
        let index = index_of(&group).ok_or(ReadError::Damaged { item: Item::Log, damage: Damage::Layout })?;
        let content = record::assemble(&group.found);
        // Read after the entry: the purge raises the bound before it deletes.
        let first = bounds.first.load(Ordering::Acquire);
        entries.retain(|(kept, _)| *kept >= first);
        if index < first {
            continue;
        }
        if let Some((last, _)) = entries.last()
            && last + 1 != index
        {
            return Err(ReadError::Gap { expected: last + 1, found: index });
        }
        let content = content.map_err(|damage| ReadError::Damaged { item: Item::Entry(index), damage })?;
        bytes += content.len();
        entries.push((index, content));
        if bytes >= bytes_max {
            break;
        }
    }
    Ok(entries)
}

fn read_purge_mark(database: &Database) -> Result<Option<IndexedEntry>, OpenError> {
    let damaged = |damage| OpenError::Damaged { item: Item::PurgeMark, damage };
    let Some(value) = database.meta.get(PURGED_KEY)? else {
        return Ok(None);
    };
    let mark = record::unframe(PURGED_KEY, &value).map_err(damaged)?;
    let (index, record) = mark.split_first_chunk::<8>().ok_or(damaged(Damage::Layout))?;
    Ok(Some((u64::from_le_bytes(*index), record.to_vec())))
}

fn index_of(group: &Group) -> Option<u64> {
    Some(u64::from_be_bytes(group.prefix()?.try_into().ok()?))
}
