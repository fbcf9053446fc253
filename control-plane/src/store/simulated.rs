//! The disk of a simulation: what the store promises, in memory, and no more than that.
//!
//! What always holds: requests are carried out in order; they are answered once they are durable; only what is durable
//! is sure to outlive [`Disk::crash`], and of the rest a part that the seed chooses, from its beginning on, as of a log
//! that was being written. After a failure everything is refused, until the next start.
//!
//! It knows no layout: that is tested on sled (`tests/`).

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::mpsc;

use super::log::{Bounds, IndexedEntry};
use super::writer::{Done, QUEUE_REQUESTS_MAX, Request};
use super::{
    ChangeSet, Checkpoint, CheckpointError, Opened, ReadError, Shared, Store, WriteError, checkpoint,
};
use crate::simulation::executor;
use crate::simulation::random::Random;

/// How long a disk takes to make something durable, in microseconds.
const SYNC_MICROS: (u64, u64) = (200, 4_000);
/// The same while it is slow: some of it is longer than an election.
const SLOW_SYNC_MICROS: (u64, u64) = (20_000, 2_500_000);
/// As the real one.
const CHECKPOINTS_KEPT: usize = 2;

/// A disk; it outlives the starts of its member.
#[derive(Debug)]
pub(crate) struct Disk {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    random: Random,
    durable: Content,
    /// What the running member sees: `durable` and all of `unsynced`.
    current: Content,
    unsynced: VecDeque<Change>,
    checkpoints: BTreeMap<PathBuf, Arc<Checkpoint>>,
    is_slow: bool,
    fails: bool,
    syncs: u64,
}

#[derive(Debug, Clone, Default)]
struct Content {
    vote: Option<Vec<u8>>,
    purged: Option<(u64, Vec<u8>)>,
    log: BTreeMap<u64, Arc<[u8]>>,
    applied: Vec<u8>,
    state: BTreeMap<String, Arc<[u8]>>,
}

#[derive(Debug, Clone)]
enum Change {
    Append(u64, Arc<[u8]>),
    Vote(Vec<u8>),
    Truncate(u64),
    Purge(u64, Vec<u8>),
    Apply(Arc<ChangeSet>),
    Replace(Arc<ChangeSet>),
}

impl Content {
    fn make(&mut self, change: &Change) {
        match change {
            Change::Append(index, entry) => {
                self.log.insert(*index, entry.clone());
            }
            Change::Vote(vote) => self.vote = Some(vote.clone()),
            Change::Truncate(from) => {
                self.log.split_off(from);
            }
            Change::Purge(through, record) => {
                self.log = self.log.split_off(&(through + 1));
                self.purged = Some((*through, record.clone()));
            }
            Change::Apply(set) | Change::Replace(set) => {
                if matches!(change, Change::Replace(_)) {
                    self.state.clear();
                }
                self.applied.clone_from(&set.record);
                for (key, value) in &set.changes {
                    match value {
                        Some(value) => self.state.insert(key.clone(), value.clone()),
                        None => self.state.remove(key),
                    };
                }
            }
        }
    }
}

impl Disk {
    /// An empty disk.
    pub(crate) fn new(random: Random) -> Arc<Self> {
        let inner = Inner {
            random,
            durable: Content::default(),
            current: Content::default(),
            unsynced: VecDeque::new(),
            checkpoints: BTreeMap::new(),
            is_slow: false,
            fails: false,
            syncs: 0,
        };
        Arc::new(Self { inner: Mutex::new(inner) })
    }

    /// Opens the store on it; the task that calls this owns the disk's.
    pub(crate) fn open(self: &Arc<Self>, identity: Vec<u8>) -> Opened {
        let (requests, received) = mpsc::channel(QUEUE_REQUESTS_MAX);
        let shared = Shared {
            open: std::sync::RwLock::new(None),
            bounds: Bounds::default(),
            syncs: Arc::default(),
            checkpoints: PathBuf::from("simulated"),
        };
        let simulated = Some(self.clone());
        let store = Store { shared: Arc::new(shared), requests, thread: Arc::default(), simulated };
        executor::spawn(self.clone().serve(received));
        let content = self.inner().current.clone();
        Opened {
            store,
            identity,
            vote: content.vote,
            purged: content.purged.map(|(_, record)| record),
            last_entry: content.log.last_key_value().map(|(_, entry)| entry.to_vec()),
            log_bytes: content.log.values().map(|entry| entry.len() as u64).sum(),
            applied: content.applied,
            entries: content.state.into_iter().map(|(key, value)| (key, value.to_vec())).collect(),
        }
    }

    /// Power is gone: what was not durable is there in part, or not at all.
    pub(crate) fn crash(&self) {
        let mut inner = self.inner();
        let written = inner.unsynced.len() as u64;
        let kept = inner.random.below(written + 1);
        let lost = inner.unsynced.split_off(kept as usize);
        drop(lost);
        inner.make_durable();
        inner.current = inner.durable.clone();
        inner.fails = false;
        let incoming = checkpoint::incoming(Path::new("simulated"));
        inner.checkpoints.remove(&incoming);
    }

    /// Makes the disk slow, or as fast as it was.
    pub(crate) fn set_slow(&self, is_slow: bool) {
        self.inner().is_slow = is_slow;
    }

    /// Lets the next write fail, and all after it.
    pub(crate) fn fail(&self) {
        self.inner().fails = true;
    }

    /// Puts a checkpoint of another disk where it is received.
    pub(crate) fn receive(&self, path: PathBuf, checkpoint: Arc<Checkpoint>) {
        self.inner().checkpoints.insert(path, checkpoint);
    }

    /// A checkpoint on this disk.
    pub(crate) fn checkpoint(&self, path: &Path) -> Option<Arc<Checkpoint>> {
        self.inner().checkpoints.get(path).cloned()
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    async fn serve(self: Arc<Self>, mut requests: mpsc::Receiver<Request>) {
        let mut failed: Option<WriteError> = None;
        while let Some(request) = requests.recv().await {
            let (mut waiting, mut closers) = (Vec::new(), Vec::new());
            let mut next = Some(request);
            while let Some(request) = next {
                self.carry_out(request, &mut waiting, &mut closers);
                let more = waiting.len() < QUEUE_REQUESTS_MAX && closers.is_empty();
                next = more.then(|| requests.try_recv().ok()).flatten();
            }
            if !waiting.is_empty() || !closers.is_empty() {
                self.pass_time().await;
                failed = failed.or_else(|| self.sync().err());
            }
            for done in waiting {
                let _ = done.send(failed.clone().map_or(Ok(()), Err));
            }
            if !closers.is_empty() {
                requests.close();
            }
            for done in closers {
                let _ = done.send(failed.clone().map_or(Ok(()), Err));
            }
        }
    }

    fn carry_out(&self, request: Request, waiting: &mut Vec<Done>, closers: &mut Vec<Done>) {
        let mut inner = self.inner();
        let (change, done) = match request {
            Request::Append { first, entries, done } => {
                let entries = (first..).zip(entries);
                entries.for_each(|(index, entry)| inner.write(Change::Append(index, entry.into())));
                waiting.push(done);
                return;
            }
            Request::SaveVote { vote, done } => (Some(Change::Vote(vote)), Some(done)),
            Request::Truncate { from, done } => (Some(Change::Truncate(from)), Some(done)),
            Request::Purge { through, record, done } => (Some(Change::Purge(through, record)), Some(done)),
            Request::Apply { change } => (Some(Change::Apply(Arc::new(change))), None),
            Request::Replace { change, done } => (Some(Change::Replace(Arc::new(change))), Some(done)),
            Request::Sync { done } => (None, Some(done)),
            Request::Close { done } => {
                closers.push(done);
                return;
            }
        };
        change.into_iter().for_each(|change| inner.write(change));
        waiting.extend(done);
    }

    async fn pass_time(&self) {
        let micros = {
            let mut inner = self.inner();
            let (low, high) = if inner.is_slow { SLOW_SYNC_MICROS } else { SYNC_MICROS };
            inner.random.between(low, high)
        };
        executor::wait(Duration::from_micros(micros)).await;
    }

    fn sync(&self) -> Result<(), WriteError> {
        let mut inner = self.inner();
        if inner.fails {
            return Err(WriteError::Injected);
        }
        inner.syncs += 1;
        inner.make_durable();
        Ok(())
    }

    /// See [`Store::read_log`].
    pub(super) async fn read_log(
        &self,
        start: u64,
        end: u64,
        bytes_max: usize,
    ) -> Result<Vec<IndexedEntry>, ReadError> {
        let inner = self.inner();
        let mut bytes = 0;
        let mut found = Vec::new();
        for (index, entry) in inner.current.log.range(start..end.max(start)) {
            if !found.is_empty() && bytes + entry.len() > bytes_max {
                break;
            }
            bytes += entry.len();
            found.push((*index, entry.to_vec()));
        }
        Ok(found)
    }

    /// See [`Store::write_checkpoint`].
    pub(super) async fn write_checkpoint(
        &self,
        index: u64,
        header: Vec<u8>,
        entries: Vec<(String, Arc<[u8]>)>,
    ) -> Result<PathBuf, CheckpointError> {
        self.pass_time().await;
        let entries = entries.into_iter().map(|(key, value)| (key, value.to_vec())).collect();
        let path = PathBuf::from(format!("{index:020}"));
        let mut inner = self.inner();
        inner.checkpoints.insert(path.clone(), Arc::new(Checkpoint { header, entries }));
        let own: Vec<_> = inner.checkpoints.keys().filter(|path| is_own(path)).cloned().collect();
        for old in own.iter().rev().skip(CHECKPOINTS_KEPT) {
            inner.checkpoints.remove(old);
        }
        Ok(path)
    }

    /// See [`Store::newest_checkpoint`].
    pub(super) fn newest_checkpoint(&self) -> Option<(PathBuf, Vec<u8>)> {
        let inner = self.inner();
        let newest = inner.checkpoints.iter().rfind(|(path, _)| is_own(path));
        newest.map(|(path, checkpoint)| (path.clone(), checkpoint.header.clone()))
    }

    /// See [`Store::read_checkpoint`].
    pub(super) async fn read_checkpoint(&self, path: PathBuf) -> Result<Checkpoint, CheckpointError> {
        self.pass_time().await;
        let gone = CheckpointError::Damaged { path: path.clone(), reason: "it is gone" };
        self.checkpoint(&path).map(|checkpoint| checkpoint.as_ref().clone()).ok_or(gone)
    }
}

impl Inner {
    fn write(&mut self, change: Change) {
        self.current.make(&change);
        self.unsynced.push_back(change);
    }

    fn make_durable(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            self.durable.make(&change);
        }
    }
}

/// Whether a checkpoint was written here, not received.
fn is_own(path: &Path) -> bool {
    !path.starts_with("simulated")
}
