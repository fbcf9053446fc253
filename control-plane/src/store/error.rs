//! What can go wrong with the store, one enum per operation.
//!
//! A failed write is unknown, never undone: it may be there after the next open.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::directory::FORMAT_VERSION;
use super::record::Damage;

/// What an error is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The log as a whole.
    Log,
    /// The log entry with this index.
    Entry(u64),
    /// The record of the last purge.
    PurgeMark,
    /// The vote.
    Vote,
    /// The identity.
    Identity,
    /// The state as a whole.
    State,
    /// The record of the last applied change.
    StateMark,
    /// The state entry with this key.
    StateEntry(String),
}

/// Why a data directory cannot be opened. Nothing has been lost by trying.
#[derive(Debug, Error)]
pub enum OpenError {
    /// A newer build owns the directory.
    #[error(
        "data directory {} was written by a newer gantry (format {found}, this build reads {FORMAT_VERSION}); \
         run that version or choose another data directory",
        .dir.display()
    )]
    Newer {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// `FORMAT` is there and says nothing that any build wrote.
    #[error("cannot read the format mark of data directory {}", .dir.display())]
    FormatUnreadable {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The directory holds other things.
    #[error(
        "directory {} has no FORMAT file but holds {found:?}; it is not a data directory, choose an empty one",
        .dir.display()
    )]
    Unmarked {
        /// The directory.
        dir: PathBuf,
        /// One of the things.
        found: String,
    },
    /// Another process has it.
    #[error("data directory {} is in use by {}", .dir.display(), Holder(*.holder))]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// Its process id, when known.
        holder: Option<u32>,
    },
    /// The file system refused.
    #[error("cannot use data directory {}", .dir.display())]
    Directory {
        /// The directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database does not open.
    #[error("cannot open the database in {}: {reason}", .path.display())]
    Database {
        /// Where it lies.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The database gave up on what it found.
    #[error("cannot read the database in {}: it panicked: {reason}", .dir.display())]
    Panicked {
        /// The data directory.
        dir: PathBuf,
        /// What it said.
        reason: String,
    },
    /// The database opens and cannot be read.
    #[error("cannot read the database")]
    Read(#[from] sled::Error),
    /// A crash left something half done and clearing it away failed.
    #[error("cannot finish what was interrupted")]
    Repair(#[source] WriteError),
    /// Something that every data directory has is not there.
    #[error("{item} is missing")]
    Missing {
        /// What.
        item: Item,
    },
    /// Something is there and is not what was written.
    #[error("{item} is damaged")]
    Damaged {
        /// What.
        item: Item,
        /// How.
        #[source]
        damage: Damage,
    },
    /// An entry in the middle of the log is not there.
    #[error("log entry {expected} is missing, the next one is {found}")]
    Gap {
        /// The index that should come next.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// The entries found do not add up to the state that was written.
    #[error("state is incomplete: {found} entries found, {expected} written, or not the same ones")]
    StateIncomplete {
        /// How many were written.
        expected: u64,
        /// How many were found.
        found: u64,
    },
    /// What was durable is not there any more.
    #[error(
        "{item} goes to {found}, but was durable to {expected}: the disk has lost data (to accept the loss, remove {})",
        .watermark.display()
    )]
    Lost {
        /// What.
        item: Item,
        /// How far it went.
        expected: u64,
        /// How far it goes.
        found: u64,
        /// The file that tells.
        watermark: PathBuf,
    },
    /// The watermark cannot be used.
    #[error("cannot use {}", .path.display())]
    Watermark {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The operating system gave no thread.
    #[error("cannot start the I/O thread")]
    Thread(#[source] io::Error),
}

/// Why a write is not known to be durable. It may have been written all the same.
#[derive(Debug, Clone, Error)]
pub enum WriteError {
    /// The database refused.
    #[error("cannot write to the database")]
    Database(#[from] sled::Error),
    /// Writing it to the disk failed.
    #[error("cannot make the database durable")]
    Sync(#[source] Arc<io::Error>),
    /// Noting that it is durable failed.
    #[error("cannot write the watermark")]
    Watermark(#[source] Arc<io::Error>),
    /// What is to be replaced is not what was written.
    #[error("{item} is damaged")]
    Damaged {
        /// What.
        item: Item,
        /// How.
        #[source]
        damage: Damage,
    },
    /// The caller left a hole or went back.
    #[error("log index {index} is out of order, the next one is {next}")]
    OutOfOrder {
        /// The index given.
        index: u64,
        /// The index expected.
        next: u64,
    },
    /// More than any record may hold.
    #[error("{bytes} bytes are too many for one record")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A state key that cannot be stored.
    #[error("a state key of {bytes} bytes is empty, too long or holds a NUL")]
    Key {
        /// Its length.
        bytes: usize,
    },
    /// An earlier write failed; nothing has been written since.
    #[error("the store has stopped after an earlier failure")]
    Stopped(#[source] Arc<WriteError>),
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
    /// A test asked for it.
    #[cfg(test)]
    #[error("injected failure")]
    Injected,
}

/// Why the log cannot be read.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The database refused.
    #[error("cannot read the database")]
    Database(#[from] sled::Error),
    /// Something is there and is not what was written.
    #[error("{item} is damaged")]
    Damaged {
        /// What.
        item: Item,
        /// How.
        #[source]
        damage: Damage,
    },
    /// An entry in the middle is not there.
    #[error("log entry {expected} is missing, the next one is {found}")]
    Gap {
        /// The index that should come next.
        expected: u64,
        /// The one that does.
        found: u64,
    },
    /// The database panicked on what it found, or the process is ending.
    #[error("the reading was interrupted")]
    Interrupted,
    /// The store is closed.
    #[error("the store is closed")]
    Closed,
}

struct Holder(Option<u32>);

impl OpenError {
    /// What an operator does about it.
    pub fn way_back(&self) -> &'static str {
        match self {
            Self::Newer { .. } | Self::FormatUnreadable { .. } | Self::Unmarked { .. } => {
                "name another directory with `--data-dir DIR`"
            }
            Self::InUse { .. } => {
                "stop the process that uses the directory, or name another with `--data-dir DIR`"
            }
            Self::Directory { .. } | Self::Watermark { .. } | Self::Repair(_) | Self::Thread(_) => {
                "make room, mend the disk or the permissions, then start it again: what was acknowledged is stored"
            }
            Self::Database { .. }
            | Self::Panicked { .. }
            | Self::Read(_)
            | Self::Missing { .. }
            | Self::Damaged { .. }
            | Self::Gap { .. }
            | Self::StateIncomplete { .. }
            | Self::Lost { .. } => {
                "mend the disk and leave the directory as it is; one of several members is replaced with `gantry \
                 cluster replace`, the only one made anew with `gantry cluster restore`"
            }
        }
    }
}

impl WriteError {
    pub(super) fn sync(error: io::Error) -> Self {
        Self::Sync(Arc::new(error))
    }

    pub(super) fn watermark(error: io::Error) -> Self {
        Self::Watermark(Arc::new(error))
    }

    pub(super) fn stopped(first: &Self) -> Self {
        match first {
            Self::Stopped(first) => Self::Stopped(Arc::clone(first)),
            other => Self::Stopped(Arc::new(other.clone())),
        }
    }
}

impl fmt::Display for Item {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log => formatter.write_str("the log"),
            Self::Entry(index) => write!(formatter, "log entry {index}"),
            Self::PurgeMark => formatter.write_str("the purge mark"),
            Self::Vote => formatter.write_str("the vote"),
            Self::Identity => formatter.write_str("the identity"),
            Self::State => formatter.write_str("the state"),
            Self::StateMark => formatter.write_str("the state's mark"),
            Self::StateEntry(key) => write!(formatter, "state entry {key:?}"),
        }
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(process) => write!(formatter, "process {process}"),
            None => formatter.write_str("another process"),
        }
    }
}
