//! The state tree: the state's entries as of one revision, and the mark that says which.
//!
//! ```text
//! 0x00                                        mark: next u64 LE | entries u64 LE | digest u64 LE | caller's record
//! 0x01 key 0x00 revision u64 BE part u16 BE   an entry's version: a record of 0x01 and the value, or of 0x00: deleted
//! ```
//!
//! INVARIANT: a version whose revision is not below the mark's `next` does not exist. So a change of any size becomes
//! visible by one small write: first its versions are written under keys that nobody reads, then the mark is raised, then
//! the versions that it replaced are deleted, deletions last. A crash before the mark leaves the old state, a crash after
//! it the new one, and the next open clears the rest away.
//!
//! INVARIANT: the mark counts the entries and sums a digest of each one's key, revision, length and checksum. Entries
//! that vanish from the disk without a trace are therefore noticed at open.
//!
//! Nothing here is durable by itself: after a power cut the state may be an earlier one, and the log, which is durable,
//! brings it forward again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::database::{Database, Group, Write, groups};
use super::record::{self, Damage, Head, RECORD_BYTES_MAX};
use super::{Item, OpenError, WriteError};

/// Longest key of a state entry. Keys are made of names, each of which is far shorter.
pub const KEY_BYTES_MAX: usize = 1024;

const MARK_KEY: &[u8] = &[0];
const ENTRY: u8 = 1;
const KEY_END: u8 = 0;
const PRESENT: u8 = 1;
const DELETED: u8 = 0;
const MARK_BYTES: usize = 24;

/// What one or more applied log entries do to the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeSet {
    /// Log index of the last of them; greater than that of any change set before.
    pub index: u64,
    /// Given back by the next open, with the state that belongs to it.
    pub record: Vec<u8>,
    /// The last value of each changed key, `None` when it is deleted. Keys hold no NUL and at most [`KEY_BYTES_MAX`]
    /// bytes.
    pub changes: BTreeMap<String, Option<Arc<[u8]>>>,
}

/// The mark, as the I/O thread knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Machine {
    next: u64,
    count: u64,
    digest: u64,
}

/// What [`Machine::open`] found.
pub(super) struct Opened {
    pub(super) machine: Machine,
    pub(super) record: Vec<u8>,
    pub(super) entries: Vec<(String, Vec<u8>)>,
}

/// One version of one entry on disk.
struct Version {
    key: String,
    revision: u64,
    group: Group,
}

impl Machine {
    /// Writes the mark of an empty state.
    pub(super) fn create(database: &Database) -> Result<(), WriteError> {
        let mark = Self { next: 0, count: 0, digest: 0 }.mark(&[])?;
        database.write(&database.machine, [mark])
    }

    /// Reads and checks the whole state and clears away what a crash left half done.
    pub(super) fn open(database: &Database) -> Result<Opened, OpenError> {
        let (machine, record) = Self::read_mark(database)?;
        let mut found = Self { count: 0, digest: 0, ..machine };
        let mut entries = Vec::new();
        let (mut stale, mut deletions) = (Vec::<Write>::new(), Vec::<Write>::new());
        let mut newest: Option<Version> = None;
        for group in groups(database.machine.range([ENTRY]..)) {
            let version = Version::read(group?).map_err(|damage| damaged(Item::State, damage))?;
            if version.revision >= machine.next {
                stale.extend(version.group.removal());
                continue;
            }
            if let Some(older) = newest.take() {
                if older.key == version.key {
                    stale.extend(older.group.removal());
                } else {
                    found.take(older, &mut entries, &mut deletions)?;
                }
            }
            newest = Some(version);
        }
        if let Some(last) = newest {
            found.take(last, &mut entries, &mut deletions)?;
        }
        if found != machine {
            return Err(OpenError::StateIncomplete { expected: machine.count, found: found.count });
        }
        database.write(&database.machine, stale).map_err(OpenError::Repair)?;
        database.write(&database.machine, deletions).map_err(OpenError::Repair)?;
        Ok(Opened { machine, record, entries })
    }

    /// One past the revision of the state.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// Takes the state from the revision it has to that of `change`, as a whole.
    pub(super) fn apply(&mut self, database: &Database, change: &ChangeSet) -> Result<(), WriteError> {
        if change.index < self.next {
            return Err(WriteError::OutOfOrder { index: change.index, next: self.next });
        }
        let mut after = Self { next: change.index + 1, ..*self };
        let mut stale = Vec::<Write>::new();
        for (key, value) in &change.changes {
            check_key(key)?;
            for version in versions(database, key)? {
                after.forget(&version)?;
                stale.extend(version.group.removal());
            }
            let content = content(value.as_deref());
            if content.len() > RECORD_BYTES_MAX {
                return Err(WriteError::TooLarge { bytes: content.len() });
            }
            if value.is_some() {
                after.add(&version_prefix(key, change.index), Head::of(&content));
            }
        }
        let mark = after.mark(&change.record)?;
        let fresh = versions_of(change).flat_map(|(prefix, value)| writes(&prefix, &content(value)));
        database.write(&database.machine, fresh)?;
        database.write(&database.machine, [mark])?;
        database.write(&database.machine, stale)?;
        let deleted = versions_of(change).filter(|(_, value)| value.is_none());
        let deletions = deleted.flat_map(|(prefix, value)| writes(&prefix, &content(value)));
        database.write(&database.machine, deletions.map(|(key, _)| (key, None)))?;
        *self = after;
        Ok(())
    }

    /// Takes the state to exactly `change`: keys that it does not name are deleted.
    pub(super) fn replace(&mut self, database: &Database, mut change: ChangeSet) -> Result<(), WriteError> {
        for key in keys(database)? {
            change.changes.entry(key).or_insert(None);
        }
        self.apply(database, &change)
    }

    fn read_mark(database: &Database) -> Result<(Self, Vec<u8>), OpenError> {
        let damaged = |damage| damaged(Item::StateMark, damage);
        let value = database.machine.get(MARK_KEY)?.ok_or(OpenError::Missing { item: Item::StateMark })?;
        let mark = record::unframe(MARK_KEY, &value).map_err(damaged)?;
        let (numbers, record) = mark.split_first_chunk::<MARK_BYTES>().ok_or(damaged(Damage::Layout))?;
        let number = |at: usize| {
            let bytes = numbers[at..at + 8].try_into().map_err(|_| damaged(Damage::Layout))?;
            Ok::<u64, OpenError>(u64::from_le_bytes(bytes))
        };
        Ok((Self { next: number(0)?, count: number(8)?, digest: number(16)? }, record.to_vec()))
    }

    fn mark(&self, record: &[u8]) -> Result<Write, WriteError> {
        let numbers = [self.next, self.count, self.digest];
        let mut mark: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        mark.extend_from_slice(record);
        if !record::fits_one_value(&mark) {
            return Err(WriteError::TooLarge { bytes: mark.len() });
        }
        Ok((MARK_KEY.to_vec(), Some(record::frame(MARK_KEY, &mark))))
    }

    fn add(&mut self, prefix: &[u8], head: Head) {
        self.count += 1;
        self.digest = self.digest.wrapping_add(term(prefix, head));
    }

    fn forget(&mut self, version: &Version) -> Result<(), WriteError> {
        let item = || Item::StateEntry(version.key.clone());
        let content = record::assemble(&version.group.found)
            .map_err(|damage| WriteError::Damaged { item: item(), damage })?;
        if content.first() == Some(&PRESENT) {
            let prefix = version_prefix(&version.key, version.revision);
            self.count = self.count.wrapping_sub(1);
            self.digest = self.digest.wrapping_sub(term(&prefix, Head::of(&content)));
        }
        Ok(())
    }

    /// Counts the version of an entry that exists, at open.
    fn take(
        &mut self,
        version: Version,
        entries: &mut Vec<(String, Vec<u8>)>,
        deletions: &mut Vec<Write>,
    ) -> Result<(), OpenError> {
        let damaged = |damage| damaged(Item::StateEntry(version.key.clone()), damage);
        let content = record::assemble(&version.group.found).map_err(damaged)?;
        match content.split_first() {
            Some((&PRESENT, value)) => {
                self.add(&version_prefix(&version.key, version.revision), Head::of(&content));
                entries.push((version.key, value.to_vec()));
            }
            Some((&DELETED, [])) => deletions.extend(version.group.removal()),
            Some(_) | None => return Err(damaged(Damage::Layout)),
        }
        Ok(())
    }
}

impl Version {
    fn read(group: Group) -> Result<Self, Damage> {
        let (key, revision) = Self::split(&group).ok_or(Damage::Layout)?;
        Ok(Self { key, revision, group })
    }

    fn split(group: &Group) -> Option<(String, u64)> {
        let (rest, revision) = group.prefix()?.split_last_chunk::<8>()?;
        let key = rest.strip_prefix(&[ENTRY])?.strip_suffix(&[KEY_END])?;
        Some((String::from_utf8(key.to_vec()).ok()?, u64::from_be_bytes(*revision)))
    }
}

fn versions(database: &Database, key: &str) -> Result<Vec<Version>, WriteError> {
    let scan = database.machine.scan_prefix([&[ENTRY], key.as_bytes(), &[KEY_END]].concat());
    let read = |group: sled::Result<Group>| {
        Version::read(group?)
            .map_err(|damage| WriteError::Damaged { item: Item::StateEntry(key.into()), damage })
    };
    groups(scan).map(read).collect()
}

fn keys(database: &Database) -> Result<BTreeSet<String>, WriteError> {
    let read = |group: sled::Result<Group>| match Version::read(group?) {
        Ok(version) => Ok(version.key),
        Err(damage) => Err(WriteError::Damaged { item: Item::State, damage }),
    };
    groups(database.machine.range([ENTRY]..)).map(read).collect()
}

fn versions_of(change: &ChangeSet) -> impl Iterator<Item = (Vec<u8>, Option<&[u8]>)> {
    change.changes.iter().map(|(key, value)| (version_prefix(key, change.index), value.as_deref()))
}

fn content(value: Option<&[u8]>) -> Vec<u8> {
    value.map_or_else(|| vec![DELETED], |value| [&[PRESENT], value].concat())
}

fn writes(prefix: &[u8], content: &[u8]) -> Vec<Write> {
    record::parts(prefix, content).into_iter().map(|(key, value)| (key, Some(value))).collect()
}

fn version_prefix(key: &str, revision: u64) -> Vec<u8> {
    [&[ENTRY], key.as_bytes(), &[KEY_END], &revision.to_be_bytes()].concat()
}

fn term(prefix: &[u8], head: Head) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(prefix).update(&head.length.to_le_bytes()).update(&head.checksum.to_le_bytes());
    let mut bytes = [0; 8];
    hasher.finalize_xof().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn check_key(key: &str) -> Result<(), WriteError> {
    if key.is_empty() || key.len() > KEY_BYTES_MAX || key.as_bytes().contains(&KEY_END) {
        return Err(WriteError::Key { bytes: key.len() });
    }
    Ok(())
}

fn damaged(item: Item, damage: Damage) -> OpenError {
    OpenError::Damaged { item, damage }
}
