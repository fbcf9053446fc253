//! Consensus: commands go in, each becomes a revision of the replicated state, and none that was acknowledged is lost.
//!
//! ```text
//! propose -> Batcher -> openraft -> Log (durable in the Store) -> Machine -> answer
//!                                                                    |-> Store (state)  -> checkpoint files
//!                                                                    `-> Feed (subscribers)
//! ```
//!
//! Several members are reached over [`Peers`]; the network itself is not here. This is the only module that names
//! openraft.
//!
//! What always holds:
//! - A command whose [`Consensus::propose`] returned `Ok` is durable and applied, at the revision that it names.
//! - [`ProposeError::Unknown`] means unknown: it may be applied now, later or never. The other refusals mean never.
//! - A damaged store stops the voter. It never answers from, or builds on, what it could not read.

mod answer;
mod batcher;
mod directory;
mod entry;
mod error;
mod finish;
mod formation;
mod forwarder;
mod hand_over;
mod log;
mod machine;
mod members;
mod message;
mod network;
mod peers;
mod propose;
mod queue;
mod reads;
mod removed;
mod runtime;
mod tail;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use gantry_control_state::{Outcome, State};
use gantry_model::Revision;
use openraft::{Raft, SnapshotPolicy};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::feed::Feed;
use crate::store::{Opened, Store, WriteError};
use batcher::{Batcher, Proposed};
use entry::{Applied, Config};
use formation::form;
use log::{Log, Remembered};
use machine::Machine;
use network::Network;
use propose::{Proposer, Tried};
use queue::{Queue, Waiting};
use reads::Reads;

pub use answer::AnswerError;
pub use directory::BeginError;
pub(crate) use directory::{Founder, begin_with, is_made, make};
pub use entry::DecodeError;
pub use error::{ProposeError, StartError};
pub use members::{ChangeError, MemberStatus, Membership, MembershipChange, MembershipVersion};
pub use peers::{Answering, NoPeers, Peer, PeerError, Peers};
pub use reads::StaleError;

/// Longest encoded command: the catalog of a large server is 4 MiB, and this leaves room for its framing.
pub const COMMAND_BYTES_MAX: usize = 5 * 1024 * 1024;

/// How long a proposal may take before its outcome is unknown to the proposer. A disk that stalls this long is broken.
pub const PROPOSE_DEADLINE: Duration = Duration::from_secs(10);

/// How long a start may take to become the leader and apply what is in the log.
const START_DEADLINE: Duration = Duration::from_secs(60);

/// A voter writes to disk before it answers a heartbeat, so these are ten times openraft's defaults for memory.
const HEARTBEAT_MS: u64 = 250;
const ELECTION_MS_MIN: u64 = 1500;
const ELECTION_MS_MAX: u64 = 3000;

/// Entries after which a checkpoint is written (and see `batcher.rs` for the same in bytes): the log that a restart
/// reads stays within a second.
pub const CHECKPOINT_ENTRIES: u64 = 4096;

/// One in this many of the entries between checkpoints is kept in the log below one, for members that are a little
/// behind: they need no checkpoint then.
const CHECKPOINT_ENTRIES_KEPT_ONE_IN: u64 = 4;

/// Entries purged at once.
const PURGE_ENTRIES: u64 = 64;

/// Identifies a control-plane process in its cluster, for ever: never given to another, nor to another directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VoterId(pub u64);

/// How a member comes to its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Formation {
    /// It makes the cluster, as its only voter, when its directory is new. The others will reach it at this address.
    Found(String),
    /// It is told of the cluster by the leader, once that knows of it.
    Join,
}

/// What consensus needs to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// A directory for consensus alone; made when it is not there.
    pub data_dir: PathBuf,
    /// This process.
    pub voter: VoterId,
    /// Log entries after which a checkpoint is written, at least 1; [`CHECKPOINT_ENTRIES`] unless there is a reason.
    pub checkpoint_entries: u64,
    /// How it comes to its cluster. Has no meaning for a directory that has one already.
    pub formation: Formation,
    /// The way to other members.
    pub peers: Arc<dyn Peers>,
}

/// A handle on running consensus; clones share it. End it with [`Consensus::shutdown`].
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

/// A command that is part of the state's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The revision that it is part of; commands of one batch share it.
    pub revision: Revision,
    /// What the state machine said.
    pub outcome: Outcome,
}

/// How consensus is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// This process.
    pub voter: VoterId,
    /// The term of the newest vote.
    pub term: u64,
    /// The leader of that term, when known.
    pub leader: Option<VoterId>,
    /// Index of the last log entry.
    pub last_log: Option<u64>,
    /// Index of the last applied entry: the newest revision.
    pub applied: Option<u64>,
    /// Index of the last entry in a checkpoint.
    pub checkpoint: Option<u64>,
    /// Index of the last purged entry.
    pub purged: Option<u64>,
    /// How many times the log was made durable since the start.
    pub syncs: u64,
    /// How long that takes: 99th percentile of the latest thousand.
    pub sync_p99: Option<Duration>,
    /// How long this member has led several voters without a word from a quorum, once that is too long to write.
    pub quorum_silent: Option<Duration>,
    /// Why consensus has stopped; `None` while it runs.
    pub stopped: Option<String>,
}

struct Inner {
    voter: VoterId,
    raft: Raft<Config>,
    peers: Arc<dyn Peers>,
    proposer: Proposer,
    /// How far the leader says that reads have to go.
    reads: Reads,
    /// How far the quorum says, while this member leads.
    confirmed: Reads,
    store: Store,
    feed: Feed,
    /// Where a checkpoint is put that the leader hands over, by one task at a time.
    incoming: tokio::sync::Mutex<PathBuf>,
    /// One change of membership at a time.
    changing: tokio::sync::Mutex<()>,
    handing_over: AtomicBool,
    /// What waits here while this member leads.
    proposals: mpsc::Sender<Waiting<Proposed>>,
    /// What waits here while another does.
    forwards: mpsc::Sender<Waiting<Tried>>,
    stop: CancellationToken,
    batcher: Mutex<Option<runtime::JoinHandle<()>>>,
}

impl Options {
    /// The usual options, for a cluster of this voter alone.
    pub fn new(data_dir: impl Into<PathBuf>, voter: VoterId) -> Self {
        Self {
            data_dir: data_dir.into(),
            voter,
            checkpoint_entries: CHECKPOINT_ENTRIES,
            formation: Formation::Found(String::new()),
            peers: Arc::new(NoPeers),
        }
    }
}

impl Consensus {
    /// Opens the data directory, or makes one. A voter that is alone leads and has applied every committed entry when
    /// this returns: the feed then holds the newest state. A member of a larger cluster has what it knew when it went
    /// down, and learns the rest from then on. Dropping the future may leave the directory open until the process ends.
    pub async fn start(options: Options, feed: Feed) -> Result<Self, StartError> {
        let (dir, voter) = (options.data_dir.clone(), options.voter);
        let identity = entry::encode_identity(voter.0);
        let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &identity)).await;
        let opened = opened.map_err(|_| StartError::Interrupted)?;
        let opened = opened.map_err(|source| StartError::Store { dir: options.data_dir.clone(), source })?;
        let store = opened.store.clone();
        let mut proposer = [0; 16];
        let random = SystemRandom::new().fill(&mut proposer).map_err(|_| StartError::Random);
        let started = match random {
            Ok(()) => Self::start_on(options, opened, feed, proposer).await,
            Err(error) => Err(error),
        };
        if started.is_err() {
            // Gives the directory back; the first error is the one to tell.
            let _ = store.close().await;
        }
        started
    }

    /// Starts on an open store, as the proposer of this name, which no other start has.
    pub(crate) async fn start_on(
        options: Options,
        opened: Opened,
        feed: Feed,
        proposer: [u8; 16],
    ) -> Result<Self, StartError> {
        let (store, log_bytes, voter) = (opened.store.clone(), opened.log_bytes, options.voter);
        let (log, machine) = restore(&options, opened, feed.clone())?;
        let configuration = Arc::new(configuration(&options));
        let network = Network { own: voter, peers: options.peers.clone() };
        let raft = Raft::new(voter.0, configuration, network, log, machine).await;
        let raft = raft.map_err(|error| StartError::Raft(error.to_string()))?;
        if let Err(error) = form(&raft, voter, &options.formation).await {
            let _ = raft.shutdown().await;
            return Err(error);
        }
        let stop = CancellationToken::new();
        let (proposals, queue) = Queue::new(stop.clone());
        let batcher = Batcher { raft: raft.clone(), proposals: queue, stop: stop.clone(), log_bytes };
        let (forwards, queue) = Queue::new(stop.clone());
        let batcher = Mutex::new(Some(runtime::spawn(batcher.run())));
        let inner = Inner {
            voter,
            raft,
            peers: options.peers,
            proposer: Proposer::new(proposer),
            reads: Reads::default(),
            confirmed: Reads::default(),
            incoming: tokio::sync::Mutex::new(store.incoming_checkpoint()),
            store,
            feed,
            changing: tokio::sync::Mutex::new(()),
            handing_over: AtomicBool::new(false),
            proposals,
            forwards,
            stop,
            batcher,
        };
        let consensus = Self { inner: Arc::new(inner) };
        // They end with consensus, and are not waited for.
        drop(runtime::spawn(consensus.clone().forward_commands(queue)));
        drop(runtime::spawn(consensus.clone().finish_changes()));
        Ok(consensus)
    }

    /// Where a checkpoint that the leader hands over is to be written; for whoever holds the guard.
    pub async fn incoming_checkpoint(&self) -> tokio::sync::MutexGuard<'_, PathBuf> {
        self.inner.incoming.lock().await
    }

    /// The feed of applied revisions.
    pub fn feed(&self) -> &Feed {
        &self.inner.feed
    }

    /// How consensus is doing. Also answers after it has stopped.
    pub async fn status(&self) -> Status {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let index = |log_id: Option<openraft::LogId<u64>>| log_id.map(|log_id| log_id.index);
        Status {
            voter: self.inner.voter,
            term: metrics.current_term,
            leader: metrics.current_leader.map(VoterId),
            last_log: metrics.last_log_index,
            applied: index(metrics.last_applied),
            checkpoint: index(metrics.snapshot),
            purged: index(metrics.purged),
            quorum_silent: self.quorum_silent(),
            syncs: self.inner.store.sync_count(),
            sync_p99: self.inner.store.sync_p99(),
            stopped: metrics.running_state.err().map(|error| error.to_string()),
        }
    }

    /// Turns away what waits, finishes what is in flight, makes everything durable, stops the I/O thread and gives the
    /// data directory back. Other handles' proposals then fail with [`ProposeError::ShuttingDown`]. Waits for the disk.
    ///
    /// The error is the store's: what made it stop earlier, or why the last sync failed.
    pub async fn shutdown(self) -> Result<(), WriteError> {
        self.inner.stop.cancel();
        let batcher = self.inner.batcher.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(batcher) = batcher {
            // A batcher that panicked has dropped its replies, which their owners read as unknown.
            let _ = batcher.await;
        }
        // openraft's own join error: its core task panicked. The store is closed all the same.
        let _ = self.inner.raft.shutdown().await;
        self.inner.store.close().await
    }
}

#[cfg(test)]
impl Consensus {
    /// What a store is opened with that is this member's.
    pub(crate) fn identity(voter: VoterId) -> Vec<u8> {
        entry::encode_identity(voter.0)
    }

    /// Whether this member believes that it leads.
    pub(crate) fn leads(&self) -> bool {
        self.inner.raft.metrics().borrow().state.is_leader()
    }
}

impl fmt::Display for VoterId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

impl fmt::Debug for Consensus {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Consensus").field("voter", &self.inner.voter).finish_non_exhaustive()
    }
}

/// Gives what the store remembers its meaning.
fn restore(options: &Options, opened: Opened, feed: Feed) -> Result<(Log, Machine), StartError> {
    let dir = &options.data_dir;
    let unreadable = |what| move |source| StartError::Unreadable { dir: dir.clone(), what, source };
    let actual = VoterId(entry::decode_identity(&opened.identity).map_err(unreadable("the identity"))?);
    if actual != options.voter {
        return Err(StartError::OtherVoter { dir: dir.clone(), actual, expected: options.voter });
    }
    let remembered = Remembered {
        vote: opened.vote.as_deref(),
        purged: opened.purged.as_deref(),
        last_entry: opened.last_entry.as_deref(),
    };
    let applied = match opened.applied.as_slice() {
        [] => Applied::default(),
        record => entry::decode_applied(record).map_err(unreadable("the state's mark"))?,
    };
    let state = State::load(opened.entries);
    let state = state.map_err(|source| StartError::State { dir: dir.clone(), source })?;
    let machine = Machine::new(opened.store.clone(), feed, state, applied);
    let log = Log::new(opened.store, remembered, actual.0, machine.watch_applied());
    Ok((log.map_err(unreadable("the log"))?, machine))
}

fn configuration(options: &Options) -> openraft::Config {
    openraft::Config {
        cluster_name: "gantry".into(),
        heartbeat_interval: HEARTBEAT_MS,
        election_timeout_min: ELECTION_MS_MIN,
        election_timeout_max: ELECTION_MS_MAX,
        snapshot_policy: SnapshotPolicy::LogsSinceLast(options.checkpoint_entries.max(1)),
        max_in_snapshot_log_to_keep: options.checkpoint_entries / CHECKPOINT_ENTRIES_KEPT_ONE_IN,
        purge_batch_size: PURGE_ENTRIES,
        ..openraft::Config::default()
    }
}
