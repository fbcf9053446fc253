//! openraft's state machine: the pure state of `gantry-control-state`, kept in the [`Store`], told to the [`Feed`].
//!
//! What always holds:
//! - State and log id move together: in memory here, on disk in one atomic change of the store. A revision that was
//!   published is committed, and durable in the log.
//! - The store may trail the state in memory by what is still queued, never lead it: a restart begins at the store's
//!   and applies the log from there.
//! - A committed command that this build cannot read stops the voter. It came from a newer build, and leaving it out
//!   would make this voter's state differ from the others'.
//!
//! Checkpoints are written from a clone of the state (constant time), beside the apply path.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_control_state::{CommandError, Proposal, State};
use gantry_model::Revision;
use gantry_model::record::RecordKey;
use openraft::storage::{RaftStateMachine, Snapshot};
use openraft::{AnyError, EntryPayload, OptionalSend, RaftSnapshotBuilder, StorageError, StorageIOError};
use tokio::sync::watch;

use super::entry::{
    self, Answers, Applied, Batch, CheckpointFile, CheckpointMeta, Config, Entry, LogId, StoredMembership,
};
use crate::feed::Feed;
use crate::store::{ChangeSet, CheckpointError, Store};

/// The state machine. openraft calls it from one task.
pub(super) struct Machine {
    state: State,
    applied: Applied,
    store: Store,
    feed: Feed,
    told: watch::Sender<Option<u64>>,
}

/// Writes one checkpoint of the state that it was made from.
pub(super) struct CheckpointBuilder {
    state: State,
    applied: Applied,
    store: Store,
}

type Changes = BTreeMap<String, Option<Arc<[u8]>>>;

impl Machine {
    /// The machine as the store had it at open, already told to the feed.
    pub(super) fn new(store: Store, feed: Feed, state: State, applied: Applied) -> Self {
        feed.reset(revision_of(&applied), state.clone());
        let told = watch::Sender::new(applied.last.map(|last| last.index));
        Self { state, applied, store, feed, told }
    }

    /// Tells up to where the log has its effect in the store, or in its queue. Ends with the machine.
    pub(super) fn watch_applied(&self) -> watch::Receiver<Option<u64>> {
        self.told.subscribe()
    }

    /// Applies the commands of one entry at the revision that they share.
    fn apply_batch(
        &mut self,
        log_id: LogId,
        batch: &Batch,
        changes: &mut Changes,
    ) -> Result<Answers, CommandError> {
        let revision = Revision(log_id.index);
        let proposals = batch.commands.iter().map(|command| Proposal::decode(command));
        let applied = self.state.apply_batch(revision, &proposals.collect::<Result<Vec<_>, _>>()?);
        let mut changed = applied.changes;
        changes.extend(changed.iter().map(|change| (change.key.clone(), change.value.clone())));
        // Nobody follows what proposers are remembered for, and it would crowd out what is followed.
        changed.retain(|change| !change.key.starts_with(RecordKey::PROPOSERS));
        self.feed.publish(revision, changed, self.state.clone());
        Ok(Answers(applied.answers))
    }

    fn apply_entry(&mut self, entry: Entry, changes: &mut Changes) -> Result<Answers, CommandError> {
        let answers = match entry.payload {
            EntryPayload::Normal(batch) => self.apply_batch(entry.log_id, &batch, changes)?,
            EntryPayload::Blank => self.apply_nothing(entry.log_id),
            EntryPayload::Membership(membership) => {
                self.applied.membership = StoredMembership::new(Some(entry.log_id), membership);
                self.apply_nothing(entry.log_id)
            }
        };
        self.applied.last = Some(entry.log_id);
        Ok(answers)
    }

    fn apply_nothing(&self, log_id: LogId) -> Answers {
        self.feed.publish(Revision(log_id.index), Vec::new(), self.state.clone());
        Answers(Vec::new())
    }
}

impl RaftStateMachine<Config> for Machine {
    type SnapshotBuilder = CheckpointBuilder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), StorageError<u64>> {
        Ok((self.applied.last, self.applied.membership.clone()))
    }

    async fn apply<Entries>(&mut self, entries: Entries) -> Result<Vec<Answers>, StorageError<u64>>
    where
        Entries: IntoIterator<Item = Entry> + OptionalSend,
        Entries::IntoIter: OptionalSend,
    {
        let mut changes = Changes::new();
        let mut answers = Vec::new();
        for entry in entries {
            let log_id = entry.log_id;
            let applied = self.apply_entry(entry, &mut changes);
            answers.push(applied.map_err(|error| StorageIOError::apply(log_id, AnyError::new(&error)))?);
        }
        if let (Some(last), false) = (self.applied.last, answers.is_empty()) {
            let change =
                ChangeSet { index: last.index, record: entry::encode_applied(&self.applied), changes };
            let queued = self.store.apply(change).await;
            queued.map_err(|error| StorageIOError::apply(last, AnyError::new(&error)))?;
            self.told.send_replace(Some(last.index));
        }
        Ok(answers)
    }

    async fn get_snapshot_builder(&mut self) -> CheckpointBuilder {
        let (state, applied) = (self.state.clone(), self.applied.clone());
        CheckpointBuilder { state, applied, store: self.store.clone() }
    }

    /// Names no file yet: whoever receives a checkpoint puts in the path of the file that it wrote.
    async fn begin_receiving_snapshot(&mut self) -> Result<Box<CheckpointFile>, StorageError<u64>> {
        Ok(Box::new(CheckpointFile { path: PathBuf::new() }))
    }

    async fn install_snapshot(
        &mut self,
        meta: &CheckpointMeta,
        checkpoint: Box<CheckpointFile>,
    ) -> Result<(), StorageError<u64>> {
        let failed = |error: AnyError| StorageIOError::read_snapshot(Some(meta.signature()), error);
        let read = self.store.read_checkpoint(checkpoint.path).await;
        let read = read.map_err(|error| failed(AnyError::new(&error)))?;
        let stored = entry::decode_checkpoint_header(&read.header);
        let stored = stored.map_err(|error| failed(AnyError::new(&error)))?;
        if stored != *meta {
            return Err(failed(AnyError::error("the checkpoint is another one than announced")).into());
        }
        let state = State::load(read.entries).map_err(|error| failed(AnyError::new(&error)))?;
        let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
        let changes = state.entries().map(|(key, value)| (key.to_owned(), Some(value))).collect();
        let index = revision_of(&applied).0;
        let change = ChangeSet { index, record: entry::encode_applied(&applied), changes };
        // First, so that there is one for every state whose log is gone. Until the state has it, it is not seen.
        let written = write_checkpoint(&self.store, meta, state.clone()).await;
        written.map_err(|error| failed(AnyError::new(&error)))?;
        let replaced = self.store.replace(change).await;
        replaced.map_err(|error| StorageIOError::write_state_machine(AnyError::new(&error)))?;
        self.feed.reset(revision_of(&applied), state.clone());
        (self.state, self.applied) = (state, applied);
        self.told.send_replace(meta.last_log_id.map(|last| last.index));
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot<Config>>, StorageError<u64>> {
        let failed = |error: AnyError| StorageIOError::read_snapshot(None, error);
        let newest = self.store.newest_checkpoint().await;
        let Some((path, header)) = newest.map_err(|error| failed(AnyError::new(&error)))? else {
            return Ok(None);
        };
        let meta = entry::decode_checkpoint_header(&header);
        let meta = meta.map_err(|error| failed(AnyError::new(&error)))?;
        if meta.last_log_id > self.applied.last {
            // It was received, and a crash came before it was installed.
            return Ok(None);
        }
        Ok(Some(Snapshot { meta, snapshot: Box::new(CheckpointFile { path }) }))
    }
}

impl RaftSnapshotBuilder<Config> for CheckpointBuilder {
    async fn build_snapshot(&mut self) -> Result<Snapshot<Config>, StorageError<u64>> {
        let id = self.applied.last.map(|last| format!("{}-{}", last.leader_id, last.index));
        let meta = CheckpointMeta {
            last_log_id: self.applied.last,
            last_membership: self.applied.membership.clone(),
            snapshot_id: id.unwrap_or_default(),
        };
        let failed = |error: AnyError| StorageIOError::write_snapshot(Some(meta.signature()), error);
        // INVARIANT: the state in the database is durable before a checkpoint of it is seen, because the log under a
        // checkpoint may be purged, and a restart begins at the database.
        self.store.sync().await.map_err(|error| failed(AnyError::new(&error)))?;
        let written = write_checkpoint(&self.store, &meta, self.state.clone()).await;
        let path = written.map_err(|error| failed(AnyError::new(&error)))?;
        Ok(Snapshot { meta, snapshot: Box::new(CheckpointFile { path }) })
    }
}

async fn write_checkpoint(
    store: &Store,
    meta: &CheckpointMeta,
    state: State,
) -> Result<PathBuf, CheckpointError> {
    let index = meta.last_log_id.map_or(0, |last| last.index);
    // In constant time: the entries are those of the clone, and are put into bytes where they are written.
    let entries = move || state.entries().map(|(key, value)| (key.to_owned(), value)).collect();
    store.write_checkpoint(index, entry::encode_checkpoint_header(meta), entries).await
}

fn revision_of(applied: &Applied) -> Revision {
    applied.last.map_or(Revision::NONE, |last| Revision(last.index))
}
