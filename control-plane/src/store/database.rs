//! The sled database under the store: opening it, writing to it, and the one way to make writes durable.
//!
//! What always holds:
//! - Writes are recovered as a prefix: all trees share sled's one log, so a write that survives a crash comes with
//!   every write before it, of any tree. So nothing here needs sled's batches, each of which costs its file two writes
//!   more; what has to be there as a whole is made so by its last write.
//! - No more than [`UNSYNCED_BYTES_MAX`] and [`UNSYNCED_KEYS_MAX`] are written between two syncs.
//! - After [`Database::sync`] everything written before it survives a power cut. sled's own `flush` does not promise
//!   that (it calls `sync_file_range`), so the data file is synced here as well.
//! - After a failed write or sync nothing is written any more: what the disk holds is not known (the caller stops).
//!
//! Nothing else in the crate writes to sled, and only the store's I/O thread calls the writing functions.

use std::collections::VecDeque;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::directory::{sync_directory, sync_parent};
use super::record::split_part_key;
use super::{OpenError, WriteError};

/// Most that is written between two syncs, and most keys. sled rewrites a leaf (16 values, so 64 KiB) about every 10 keys.
///
/// sled takes a piece of its file (512 KiB) into use again once what replaced its content lies one such piece back and
/// was given to the operating system, which may then write the new content before what replaced the old. A power cut
/// between the two leaves neither. So less than one piece is written between syncs.
const UNSYNCED_BYTES_MAX: usize = 64 * 1024;
const UNSYNCED_KEYS_MAX: usize = 64;

/// sled's page cache. State is held in memory by the state machine; this is for the log and for the trees' nodes.
const CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// How many of the latest syncs the 99th percentile is taken of.
const SYNC_TIMES_KEPT: usize = 1024;

/// A sync slower than this is worth a warning: consensus waits for it.
const SYNC_SLOW: Duration = Duration::from_millis(100);

/// How long a database that was just closed in this process may still be locked, and how often to look.
const CLOSING_MAX: Duration = Duration::from_secs(5);
const CLOSING_POLL: Duration = Duration::from_millis(1);

/// The open database with its three trees.
pub(super) struct Database {
    /// Log entries: `index u64 BE | part u16 BE`.
    pub(super) log: sled::Tree,
    /// Vote, purge mark, identity.
    pub(super) meta: sled::Tree,
    /// State entries and how far they go.
    pub(super) machine: sled::Tree,
    sled: sled::Db,
    file: File,
    blobs: PathBuf,
    syncs: Arc<SyncTimes>,
    unsynced_bytes: AtomicUsize,
    unsynced_keys: AtomicUsize,
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

/// How long the latest syncs took, and how many there were.
#[derive(Debug, Default)]
pub(super) struct SyncTimes {
    count: AtomicU64,
    latest: Mutex<VecDeque<Duration>>,
}

/// A key, and its new value or `None` to delete it.
pub(super) type Write = (Vec<u8>, Option<Vec<u8>>);

/// The keys and values that share a prefix, which is all of the key but the number of the part.
pub(super) struct Group {
    pub(super) found: Vec<(sled::IVec, sled::IVec)>,
}

impl Database {
    /// Opens or creates the database at `path`; its files and names are durable when this returns. Panics on some
    /// damaged files, as sled does.
    pub(super) fn open(path: &Path, syncs: Arc<SyncTimes>) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { dir: path.to_owned(), source };
        fs::create_dir_all(path).map_err(failed)?;
        remove_unfinished_snapshots(path).map_err(failed)?;
        let (sled, log, meta, machine) = open_when_free(path)?;
        let file = File::open(path.join("db")).map_err(failed)?;
        for name in ["conf", "db"] {
            File::open(path.join(name)).and_then(|file| file.sync_all()).map_err(failed)?;
        }
        sync_directory(path).and_then(|()| sync_parent(path)).map_err(failed)?;
        Ok(Self {
            log,
            meta,
            machine,
            sled,
            file,
            blobs: path.join("blobs"),
            syncs,
            unsynced_bytes: AtomicUsize::new(0),
            unsynced_keys: AtomicUsize::new(0),
            #[cfg(test)]
            faults: super::faults::Faults::default(),
        })
    }

    /// Writes to one of the trees, in the order given: what a crash leaves is there up to some write, and no further.
    pub(super) fn write(
        &self,
        tree: &sled::Tree,
        writes: impl IntoIterator<Item = Write>,
    ) -> Result<(), WriteError> {
        for (key, value) in writes {
            self.make_room(key.len() + value.as_ref().map_or(0, Vec::len))?;
            #[cfg(test)]
            self.faults.before_write()?;
            match value {
                Some(value) => tree.insert(key, value)?,
                None => tree.remove(key)?,
            };
        }
        Ok(())
    }

    /// Counts a write of so many bytes in, after a sync if it would be one too many without.
    fn make_room(&self, bytes: usize) -> Result<(), WriteError> {
        let more_bytes = self.unsynced_bytes.load(Ordering::Relaxed) + bytes > UNSYNCED_BYTES_MAX;
        if more_bytes || self.unsynced_keys.load(Ordering::Relaxed) == UNSYNCED_KEYS_MAX {
            self.sync()?;
        }
        self.unsynced_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.unsynced_keys.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Makes everything written so far durable.
    pub(super) fn sync(&self) -> Result<(), WriteError> {
        #[cfg(test)]
        self.faults.before_sync();
        let begun = Instant::now();
        self.sled.flush()?;
        self.file.sync_data().map_err(WriteError::sync)?;
        self.sync_blobs().map_err(WriteError::sync)?;
        self.unsynced_bytes.store(0, Ordering::Relaxed);
        self.unsynced_keys.store(0, Ordering::Relaxed);
        let took = begun.elapsed();
        if took > SYNC_SLOW {
            tracing::warn!(took_ms = took.as_millis(), "slow sync of the log: check the disk");
        }
        self.syncs.record(took);
        Ok(())
    }

    /// INVARIANT: `blobs/` is empty, because no value is long enough to go there. Should sled use it all the same, its
    /// files are made durable before anything is acknowledged.
    fn sync_blobs(&self) -> io::Result<()> {
        let mut found = 0_usize;
        for entry in fs::read_dir(&self.blobs)? {
            File::open(entry?.path())?.sync_all()?;
            found += 1;
        }
        if found > 0 {
            sync_directory(&self.blobs)?;
            tracing::warn!(files = found, "the database spilled values to files of their own");
        }
        Ok(())
    }
}

impl SyncTimes {
    /// How many syncs have been completed.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// The 99th percentile of the latest syncs; `None` before the first.
    pub(super) fn p99(&self) -> Option<Duration> {
        let mut times: Vec<_> =
            self.latest.lock().unwrap_or_else(PoisonError::into_inner).iter().copied().collect();
        times.sort_unstable();
        let last = times.len().checked_sub(1)?;
        times.get(last * 99 / 100).copied()
    }

    fn record(&self, took: Duration) {
        let mut latest = self.latest.lock().unwrap_or_else(PoisonError::into_inner);
        if latest.len() == SYNC_TIMES_KEPT {
            latest.pop_front();
        }
        latest.push_back(took);
        drop(latest);
        self.count.fetch_add(1, Ordering::Release);
    }
}

/// Collects what a scan finds into records, in the order of their keys.
pub(super) fn groups(
    scan: impl Iterator<Item = sled::Result<(sled::IVec, sled::IVec)>>,
) -> impl Iterator<Item = sled::Result<Group>> {
    let mut scan = scan.peekable();
    std::iter::from_fn(move || {
        let first = match scan.next()? {
            Ok(first) => first,
            Err(error) => return Some(Err(error)),
        };
        let mut group = Group { found: vec![first] };
        let same = |group: &Group, key: &[u8]| {
            group.prefix().is_some() && group.prefix() == split_part_key(key).map(|(prefix, _)| prefix)
        };
        while let Some(Ok(next)) = scan.next_if(|next| next.as_ref().is_ok_and(|(key, _)| same(&group, key)))
        {
            group.found.push(next);
        }
        Some(Ok(group))
    })
}

impl Group {
    /// `None` when the key is too short to be that of a part.
    pub(super) fn prefix(&self) -> Option<&[u8]> {
        let (key, _) = self.found.first()?;
        split_part_key(key).map(|(prefix, _)| prefix)
    }

    /// The writes that delete it, first part first.
    pub(super) fn removal(&self) -> impl DoubleEndedIterator<Item = Write> {
        self.found.iter().map(|(key, _)| (key.to_vec(), None))
    }
}

/// sled's own threads may hold its file for some milliseconds after it was closed. The directory's lock keeps other
/// processes of ours away, so this is the only thing to wait for.
fn open_when_free(path: &Path) -> Result<(sled::Db, sled::Tree, sled::Tree, sled::Tree), OpenError> {
    let begun = Instant::now();
    loop {
        match open_sled(path) {
            Ok(trees) => return Ok(trees),
            Err(error) if !is_locked(&error) => {
                return Err(OpenError::Database { path: path.to_owned(), reason: error.to_string() });
            }
            Err(_) if begun.elapsed() < CLOSING_MAX => std::thread::sleep(CLOSING_POLL),
            Err(_) => return Err(OpenError::InUse { dir: path.to_owned(), holder: None }),
        }
    }
}

fn is_locked(error: &sled::Error) -> bool {
    matches!(error, sled::Error::Io(error) if error.to_string().contains("could not acquire lock"))
}

fn open_sled(path: &Path) -> sled::Result<(sled::Db, sled::Tree, sled::Tree, sled::Tree)> {
    let sled = sled::Config::new()
        .path(path)
        .mode(sled::Mode::HighThroughput)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None)
        .open()?;
    let (log, meta, machine) = (sled.open_tree("log")?, sled.open_tree("meta")?, sled.open_tree("sm")?);
    Ok((sled, log, meta, machine))
}

/// Removes a database whose making was cut short.
pub(super) fn discard(path: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            // `blobs`, which is empty.
            fs::remove_dir(entry.path())?;
        } else {
            fs::remove_file(entry.path())?;
        }
    }
    sync_directory(path)
}

/// sled takes a page-table snapshot whose writing was cut short for its newest one and refuses to open. The rename is
/// what makes one real, so those without it are removed.
fn remove_unfinished_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if name.starts_with("snap.") && name.ends_with(".generating") {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
