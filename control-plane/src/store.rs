//! The store: what a voter must not forget, on sled and in files.
//!
//! It keeps three things in one data directory: the Raft log with its vote, the state with the mark that says how far
//! it goes, and checkpoint files. Commands, entries and votes are opaque bytes here; `raft` gives them meaning. This
//! is the only module that names sled.
//!
//! What always holds:
//! - When [`Store::append`], [`Store::save_vote`], [`Store::truncate`], [`Store::purge`] or [`Store::sync`] has returned
//!   `Ok`, it survives a power cut. A change of state ([`Store::apply`]) survives with the next of these; until then
//!   the log brings it back.
//! - One thread writes, in the order of the calls (`writer.rs`).
//! - Every value is checked when it is read (`record.rs`). Damage stops the voter; nothing is skipped or guessed.
//! - One process has the directory open, and only a directory whose format this build knows (`directory.rs`).
//!
//! It does not interpret what it stores, replicate it, encrypt it (secrets are sealed before they are proposed) or
//! back it up.

mod checkpoint;
mod database;
mod directory;
mod error;
#[cfg(test)]
mod faults;
mod log;
mod machine;
mod record;
#[cfg(test)]
pub(crate) mod simulated;
#[cfg(test)]
mod tests;
mod vote;
mod watermark;
mod writer;

use std::any::Any;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use database::{Database, SyncTimes};
use directory::Directory;
use machine::Machine;
use vote::Votes;
use watermark::{Mark, Watermark};
use writer::{QUEUE_REQUESTS_MAX, Request, Writer};

pub use checkpoint::{Checkpoint, CheckpointError};
pub use directory::{FORMAT_VERSION, is_made};
pub use error::{Item, OpenError, ReadError, WriteError};
pub use log::IndexedEntry;
pub use machine::{ChangeSet, KEY_BYTES_MAX};
pub use record::Damage;

const IDENTITY_KEY: &[u8] = b"identity";

/// A handle on the open store; clones share it. Close it with [`Store::close`]: a store that is merely dropped is
/// closed by its thread some time later.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
    requests: mpsc::Sender<Request>,
    thread: Arc<Mutex<Option<JoinHandle<()>>>>,
    /// Stands in for the directory and the thread.
    #[cfg(test)]
    simulated: Option<Arc<simulated::Disk>>,
}

/// The open store and what it remembers.
pub struct Opened {
    /// The store itself.
    pub store: Store,
    /// What was given as identity when the directory was made.
    pub identity: Vec<u8>,
    /// The last saved vote.
    pub vote: Option<Vec<u8>>,
    /// The record of the last purge.
    pub purged: Option<Vec<u8>>,
    /// The last log entry.
    pub last_entry: Option<Vec<u8>>,
    /// Length of all log entries together.
    pub log_bytes: u64,
    /// The record of the last applied change; empty when nothing has been applied.
    pub applied: Vec<u8>,
    /// The state.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// What the I/O thread and the readers share.
struct Shared {
    open: RwLock<Option<Open>>,
    bounds: log::Bounds,
    syncs: Arc<SyncTimes>,
    checkpoints: PathBuf,
}

/// Dropped in this order: the database is closed before the lock is given back.
struct Open {
    database: Database,
    _directory: Directory,
}

impl Store {
    /// Opens the data directory, or makes one with this identity. Blocks: the whole log and state are read.
    pub fn open(dir: &Path, identity: &[u8]) -> Result<Opened, OpenError> {
        // sled panics on some damaged files. Nothing is shared with the closure but what is on disk.
        catch_unwind(AssertUnwindSafe(|| Self::open_unguarded(dir, identity))).unwrap_or_else(|panic| {
            Err(OpenError::Panicked { dir: dir.to_owned(), reason: text_of(panic.as_ref()) })
        })
    }

    fn open_unguarded(dir: &Path, identity: &[u8]) -> Result<Opened, OpenError> {
        let directory = Directory::open(dir)?;
        let syncs = Arc::<SyncTimes>::default();
        let database = open_database(&directory, identity, Arc::clone(&syncs))?;
        let identity = read_identity(&database)?;
        let (votes, vote) = Votes::open(&database)?;
        let bounds = log::Bounds::default();
        let log = log::Log::open(&database, &bounds)?;
        let machine = Machine::open(&database)?;
        let mark = Mark { log: log.log.next(), state: machine.machine.next(), votes: votes.saved() };
        let watermark = check_watermark(directory.root(), mark)?;
        let checkpoints = directory.checkpoints();
        let failed = |source| OpenError::Directory { dir: checkpoints.clone(), source };
        checkpoint::prepare(&checkpoints).map_err(failed)?;
        directory::sync_directory(directory.root()).map_err(failed)?;
        let open = RwLock::new(Some(Open { database, _directory: directory }));
        let shared = Arc::new(Shared { open, bounds, syncs, checkpoints });
        let (sender, requests) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let writer = Writer {
            shared: Arc::clone(&shared),
            requests,
            log: log.log,
            machine: machine.machine,
            votes,
            watermark,
        };
        let thread = std::thread::Builder::new().name("gantry-store".into());
        let thread = thread.spawn(move || writer.run()).map_err(OpenError::Thread)?;
        let store = Self {
            shared,
            requests: sender,
            thread: Arc::new(Mutex::new(Some(thread))),
            #[cfg(test)]
            simulated: None,
        };
        Ok(Opened {
            store,
            identity,
            vote,
            purged: log.purged,
            last_entry: log.last_entry,
            log_bytes: log.bytes,
            applied: machine.record,
            entries: machine.entries,
        })
    }

    /// Appends log entries with consecutive indexes from `first` on, each at most 16 MiB. They are durable and readable
    /// when this returns. Dropping the future does not take them back.
    pub async fn append(&self, first: u64, entries: Vec<Vec<u8>>) -> Result<(), WriteError> {
        self.request(|done| Request::Append { first, entries, done }).await
    }

    /// Replaces the vote; at most 4 KiB. Durable when this returns.
    pub async fn save_vote(&self, vote: Vec<u8>) -> Result<(), WriteError> {
        self.request(|done| Request::SaveVote { vote, done }).await
    }

    /// Deletes the log entries from index `from` on.
    pub async fn truncate(&self, from: u64) -> Result<(), WriteError> {
        self.request(|done| Request::Truncate { from, done }).await
    }

    /// Deletes the log entries up to and including `through`, after making all changes of state so far durable.
    pub async fn purge(&self, through: u64, record: Vec<u8>) -> Result<(), WriteError> {
        self.request(|done| Request::Purge { through, record, done }).await
    }

    /// Queues a change of state. It is atomic and in order with all other writes, and durable with the next durable
    /// one; a failure is reported by the next durable write.
    pub async fn apply(&self, change: ChangeSet) -> Result<(), WriteError> {
        self.requests.send(Request::Apply { change }).await.map_err(|_| WriteError::Closed)
    }

    /// Replaces the whole state, atomically. Durable when this returns.
    pub async fn replace(&self, change: ChangeSet) -> Result<(), WriteError> {
        self.request(|done| Request::Replace { change, done }).await
    }

    /// Makes everything that was queued before durable.
    pub async fn sync(&self) -> Result<(), WriteError> {
        self.request(|done| Request::Sync { done }).await
    }

    /// Reads the log entries with `start <= index < end` that are there, and stops after `bytes_max` bytes but not
    /// before the first. Old entries may come from the disk, so this runs on a blocking thread.
    pub async fn read_log(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<IndexedEntry>, ReadError> {
        #[cfg(test)]
        if let Some(disk) = &self.simulated {
            return disk.read_log(start, end, bytes_max).await;
        }
        let shared = Arc::clone(&self.shared);
        let read = move || {
            let read = |database: &Database| log::read(database, &shared.bounds, start, end, bytes_max);
            shared.with_database(read).unwrap_or(Err(ReadError::Closed))
        };
        tokio::task::spawn_blocking(read).await.unwrap_or(Err(ReadError::Interrupted))
    }

    /// Writes a checkpoint as of log entry `index`, on a blocking thread, where its entries are gathered too. Durable
    /// when this returns.
    pub async fn write_checkpoint(
        &self,
        index: u64,
        header: Vec<u8>,
        entries: impl FnOnce() -> Vec<(String, Arc<[u8]>)> + Send + 'static,
    ) -> Result<PathBuf, CheckpointError> {
        #[cfg(test)]
        if let Some(disk) = &self.simulated {
            return disk.write_checkpoint(index, header, entries()).await;
        }
        let shared = Arc::clone(&self.shared);
        checkpoint::blocking(move || {
            checkpoint::write(&shared.checkpoints, index, &header, entries().into_iter())
        })
        .await
    }

    /// The newest checkpoint and its header, looked for on a blocking thread.
    pub async fn newest_checkpoint(&self) -> Result<Option<(PathBuf, Vec<u8>)>, CheckpointError> {
        #[cfg(test)]
        if let Some(disk) = &self.simulated {
            return Ok(disk.newest_checkpoint());
        }
        let shared = Arc::clone(&self.shared);
        checkpoint::blocking(move || checkpoint::newest(&shared.checkpoints)).await
    }

    /// Reads a whole checkpoint, checked to the last byte, on a blocking thread.
    pub async fn read_checkpoint(&self, path: PathBuf) -> Result<Checkpoint, CheckpointError> {
        #[cfg(test)]
        if let Some(disk) = &self.simulated {
            return disk.read_checkpoint(path).await;
        }
        checkpoint::blocking(move || checkpoint::read(&path)).await
    }

    /// How many times the database has been made durable since it was opened.
    pub fn sync_count(&self) -> u64 {
        self.shared.syncs.count()
    }

    /// How long that takes: 99th percentile of the latest thousand. `None` before the first.
    pub fn sync_p99(&self) -> Option<Duration> {
        self.shared.syncs.p99()
    }

    /// Where a checkpoint from elsewhere may be written before it is installed; what lies there is removed at open.
    pub fn incoming_checkpoint(&self) -> PathBuf {
        checkpoint::incoming(&self.shared.checkpoints)
    }

    /// Makes everything durable, stops the I/O thread and gives the directory back. Later calls fail with `Closed`.
    pub async fn close(&self) -> Result<(), WriteError> {
        let closed = self.request(|done| Request::Close { done }).await;
        #[cfg(test)]
        if self.simulated.is_some() {
            return closed;
        }
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = Arc::clone(&self.shared);
        let join = move || {
            let joined = thread.map(JoinHandle::join);
            // Where the thread panicked it has not come to this itself.
            shared.close();
            joined.is_none_or(|joined| joined.is_ok())
        };
        let whole = tokio::task::spawn_blocking(join).await.unwrap_or(false);
        if whole { closed } else { Err(WriteError::Closed) }
    }

    async fn request(&self, make: impl FnOnce(writer::Done) -> Request) -> Result<(), WriteError> {
        let (done, answer) = oneshot::channel();
        self.requests.send(make(done)).await.map_err(|_| WriteError::Closed)?;
        answer.await.unwrap_or(Err(WriteError::Closed))
    }
}

#[cfg(test)]
impl Store {
    /// Lets this many more batches reach the database, then fails every one.
    pub(crate) fn fail_after(&self, batches: u64) {
        self.shared.with_database(|database| database.faults.fail_after(batches));
    }

    /// Lets log entries be appended in any order.
    pub(crate) fn accept_any_order(&self) {
        self.shared.with_database(|database| database.faults.accept_any_order());
    }
}

impl Shared {
    fn with_database<Answer>(&self, act: impl FnOnce(&Database) -> Answer) -> Option<Answer> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.as_ref().map(|open| act(&open.database))
    }

    fn close(&self) {
        let open = self.open.write().unwrap_or_else(PoisonError::into_inner).take();
        drop(open);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Store").field("checkpoints", &self.shared.checkpoints).finish_non_exhaustive()
    }
}

/// Opens the database and, in a directory that is being made, gives it its first content.
///
/// INVARIANT: `checkpoints/` is made after that content is durable, so where it is, content that is missing is lost.
fn open_database(
    directory: &Directory,
    identity: &[u8],
    syncs: Arc<SyncTimes>,
) -> Result<Database, OpenError> {
    let path = directory.database();
    let made = directory.checkpoints().exists();
    let failed = |source| OpenError::Directory { dir: path.clone(), source };
    if !made && !Watermark::says_anything(directory.root()) {
        // A first start was cut short. Nothing was ever acknowledged, and sled does not open what it wrote by half.
        database::discard(&path).map_err(failed)?;
    }
    if made && !path.join("db").exists() {
        let reason = "its file db is gone".to_owned();
        return Err(OpenError::Database { path, reason });
    }
    let database = Database::open(&path, syncs)?;
    if database.meta.contains_key(IDENTITY_KEY)? {
        return Ok(database);
    }
    if made || !database.log.is_empty() || !database.meta.is_empty() {
        return Err(OpenError::Missing { item: Item::Identity });
    }
    Machine::create(&database).map_err(OpenError::Repair)?;
    let value = record::frame(IDENTITY_KEY, identity);
    let written = database.write(&database.meta, [(IDENTITY_KEY.to_vec(), Some(value))]);
    written.and_then(|()| database.sync()).map_err(OpenError::Repair)?;
    Ok(database)
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no reason given").to_owned()
}

fn read_identity(database: &Database) -> Result<Vec<u8>, OpenError> {
    let missing = OpenError::Missing { item: Item::Identity };
    let value = database.meta.get(IDENTITY_KEY)?.ok_or(missing)?;
    let damaged = |damage| OpenError::Damaged { item: Item::Identity, damage };
    Ok(record::unframe(IDENTITY_KEY, &value).map_err(damaged)?.to_vec())
}

/// Refuses a database that knows less than what was durable.
fn check_watermark(dir: &Path, found: Mark) -> Result<Watermark, OpenError> {
    let (watermark, durable) = Watermark::open(dir)?;
    let durable = durable.unwrap_or_default();
    for (item, expected, found) in [
        (Item::Log, durable.log, found.log),
        (Item::State, durable.state, found.state),
        (Item::Vote, durable.votes, found.votes),
    ] {
        if found < expected {
            return Err(OpenError::Lost { item, expected, found, watermark: Watermark::path(dir) });
        }
    }
    Ok(watermark)
}

/// Leaves a closed store with its log and an empty state, as a power cut may that takes what was not synced.
#[cfg(test)]
pub(crate) fn forget_state(dir: &Path) {
    let database = Database::open(&dir.join("raft"), Arc::default()).expect("database");
    database.machine.clear().expect("clear");
    std::fs::remove_file(Watermark::path(dir)).expect("remove");
    Machine::create(&database).expect("create");
}
