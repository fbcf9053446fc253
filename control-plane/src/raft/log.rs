//! openraft's log storage on the [`Store`].
//!
//! What always holds: an append is acknowledged when it is durable, a vote when it is durable, and both go through the
//! store's one queue, so neither overtakes the other. What is remembered here is what the store has acknowledged; the
//! newest entries are read from memory ([`Tail`]), the others from the store.

use std::fmt::Debug;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use openraft::storage::{LogFlushed, LogState, RaftLogStorage};
use openraft::{AnyError, OptionalSend, RaftLogId, RaftLogReader, StorageError, StorageIOError};

use tokio::sync::watch;

use super::entry::{self, Config, DecodeError, Entry, LogId, Vote};
use super::tail::Tail;
use crate::store::Store;

/// Bytes of entries that are sent to a follower in one message.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// The log with its vote. openraft calls the writing methods from one task.
#[derive(Debug)]
pub(super) struct Log {
    store: Store,
    tail: Arc<Tail>,
    vote: Option<Vote>,
    purged: Option<LogId>,
    last: Option<LogId>,
    /// Up to where the state machine has the log's effect.
    applied: watch::Receiver<Option<u64>>,
}

/// Reads entries while the log is written.
#[derive(Debug, Clone)]
pub(super) struct LogReader {
    store: Store,
    tail: Arc<Tail>,
}

impl Log {
    /// The log as the store had it at open, of the voter `own`.
    ///
    /// INVARIANT: no voter leads again in the term that it led before it was started. openraft would let it, with no
    /// entry of its own behind what it had committed: it would answer reads from before what it had acknowledged.
    pub(super) fn new(
        store: Store,
        remembered: Remembered<'_>,
        own: u64,
        applied: watch::Receiver<Option<u64>>,
    ) -> Result<Self, DecodeError> {
        let vote = remembered.vote.map(entry::decode_vote).transpose()?;
        let vote = vote
            .map(|vote| if vote.leader_id.node_id == own { Vote { committed: false, ..vote } } else { vote });
        let purged = remembered.purged.map(entry::decode_log_id).transpose()?;
        let last = remembered.last_entry.map(entry::decode_log_id_of_entry).transpose()?;
        Ok(Self { store, tail: Arc::default(), vote, purged, last: last.max(purged), applied })
    }
}

/// What the store remembers of the log.
pub(super) struct Remembered<'a> {
    pub(super) vote: Option<&'a [u8]>,
    pub(super) purged: Option<&'a [u8]>,
    pub(super) last_entry: Option<&'a [u8]>,
}

#[cfg(test)]
impl Log {
    /// Takes everything for applied. openraft's suite purges what no state machine has seen, which openraft never does.
    pub(super) fn accept_any_purge(&mut self) {
        self.applied = watch::Sender::new(Some(u64::MAX)).subscribe();
    }
}

impl LogReader {
    async fn read(&self, start: u64, end: u64, bytes_max: usize) -> Result<Vec<Entry>, StorageError<u64>> {
        if let Some(found) = self.tail.read(start, end, bytes_max) {
            return Ok(found);
        }
        let read = self.store.read_log(start, end, bytes_max).await;
        let found = read.map_err(|error| StorageIOError::read_logs(AnyError::new(&error)))?;
        let decode = |(index, bytes)| entry::decode_entry(index, bytes).map_err(|error| (index, error));
        let decoded = found.into_iter().map(decode).collect::<Result<_, _>>();
        decoded
            .map_err(|(index, error)| StorageIOError::read_log_at_index(index, AnyError::new(&error)).into())
    }
}

impl RaftLogReader<Config> for LogReader {
    async fn try_get_log_entries<Range: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: Range,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        let (start, end) = half_open(&range);
        self.read(start, end, usize::MAX).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        self.read(start, end, READ_BYTES_MAX).await
    }
}

impl RaftLogReader<Config> for Log {
    async fn try_get_log_entries<Range: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: Range,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        self.get_log_reader().await.try_get_log_entries(range).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> Result<Vec<Entry>, StorageError<u64>> {
        self.get_log_reader().await.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<Config> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> Result<LogState<Config>, StorageError<u64>> {
        Ok(LogState { last_purged_log_id: self.purged, last_log_id: self.last })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { store: self.store.clone(), tail: self.tail.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), StorageError<u64>> {
        let saved = self.store.save_vote(entry::encode_vote(vote)).await;
        saved.map_err(|error| StorageIOError::write_vote(AnyError::new(&error)))?;
        self.vote = Some(*vote);
        Ok(())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, StorageError<u64>> {
        Ok(self.vote)
    }

    /// Returns when the entries are durable: openraft 0.9 awaits the callback before anything else in any case.
    async fn append<Entries>(
        &mut self,
        entries: Entries,
        callback: LogFlushed<Config>,
    ) -> Result<(), StorageError<u64>>
    where
        Entries: IntoIterator<Item = Entry> + OptionalSend,
        Entries::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            callback.log_io_completed(Ok(()));
            return Ok(());
        };
        let (first, last) = (first.log_id.index, last.log_id);
        let encoded: Vec<_> = entries.iter().map(entry::encode_entry).collect();
        let lengths: Vec<_> = encoded.iter().map(Vec::len).collect();
        match self.store.append(first, encoded).await {
            Ok(()) => {
                self.last = Some(last);
                self.tail.append(entries.into_iter().zip(lengths));
                callback.log_io_completed(Ok(()));
                Ok(())
            }
            Err(error) => {
                callback.log_io_completed(Err(std::io::Error::other(error.clone())));
                Err(StorageIOError::write_log_entry(last, AnyError::new(&error)).into())
            }
        }
    }

    async fn truncate(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        self.tail.truncate(log_id.index);
        let truncated = self.store.truncate(log_id.index).await;
        truncated.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        let before = log_id.index.saturating_sub(1);
        let left = self.get_log_reader().await.read(before, log_id.index, 1).await?;
        self.last = left.first().map(|entry| *entry.get_log_id()).max(self.purged);
        Ok(())
    }

    async fn purge(&mut self, log_id: LogId) -> Result<(), StorageError<u64>> {
        // INVARIANT: no entry goes before the state has its effect. openraft asks for this while a checkpoint that was
        // received is still being installed: a crash between the two would leave a hole that is passed over in silence.
        let applied = self.applied.wait_for(|applied| *applied >= Some(log_id.index)).await.map(|_| ());
        applied.map_err(|_| StorageIOError::write_logs(AnyError::error("the state machine has ended")))?;
        self.tail.purge(log_id.index);
        let purged = self.store.purge(log_id.index, entry::encode_log_id(&log_id)).await;
        purged.map_err(|error| StorageIOError::write_logs(AnyError::new(&error)))?;
        self.purged = self.purged.max(Some(log_id));
        self.last = self.last.max(self.purged);
        Ok(())
    }
}

fn half_open(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let start = match range.start_bound() {
        Bound::Included(index) => *index,
        Bound::Excluded(index) => index.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(index) => index.saturating_add(1),
        Bound::Excluded(index) => *index,
        Bound::Unbounded => u64::MAX,
    };
    (start, end)
}
