//! What the services of one control-plane process share.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_node::tls::Trust;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::Audit;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::raft::Consensus;
use crate::vault::Vault;

/// Snapshots that are built at one time: each takes a processor, and memory by the size of the state.
pub(crate) const SNAPSHOT_BUILDS_MAX: usize = 4;
/// Tails of the audit records at one time. They are for people; a collector reads the nodes' files.
pub(crate) const TAILS_MAX: usize = 64;

/// Backups that are made at one time: each holds a view of the state, and seals as fast as its reader reads.
pub(crate) const BACKUPS_MAX: usize = 2;

/// Scans of catalogs at one time: each takes a processor for as long as a tenant's catalogs are.
pub(crate) const SCANS_MAX: usize = 2;

/// What the services share.
#[derive(Debug)]
pub(crate) struct Plane {
    pub(crate) consensus: Consensus,
    pub(crate) vault: Vault,
    /// Whom this process believes; `None` without TLS.
    pub(crate) trust: Option<Arc<Trust>>,
    /// Where the key file is.
    pub(crate) data_dir: PathBuf,
    /// How long the certificates count that it signs.
    pub(crate) certificate_life: Duration,
    pub(crate) journal: Arc<Journal>,
    pub(crate) audit: Audit,
    pub(crate) fleet: Arc<Fleet>,
    /// Room for [`SNAPSHOT_BUILDS_MAX`].
    pub(crate) snapshot_builds: Semaphore,
    /// Room for [`TAILS_MAX`].
    pub(crate) tails: Arc<Semaphore>,
    /// Room for [`BACKUPS_MAX`].
    pub(crate) backups: Arc<Semaphore>,
    /// Room for [`SCANS_MAX`].
    pub(crate) scans: Arc<Semaphore>,
    /// Cancelled when the process is to end.
    pub(crate) stop: CancellationToken,
    /// Every task that a service spawns; awaited at the end.
    pub(crate) tasks: TaskTracker,
}

/// Milliseconds since 1970. A clock before that is taken as then.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
