//! Starting a control plane, and the handle on a running one.
//!
//! Always holds: when [`start`] returns, this process has the cluster's facts, has opened its vault, and its services
//! answer; one that is alone leads and has applied its log, a member of several may be behind. A start that fails ends
//! what it began and gives the data directory back. When the services or consensus end by themselves,
//! [`ControlPlane::failed`] says so and everything else ends too: there is no half of a control plane.

mod facts;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use gantry_node::owner_only;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::audit::{Audit, AuditError};
use crate::feed::Feed;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::membership::Membership;
use crate::options::{MemberOptions, Options, OptionsError};
use crate::plane::{BACKUPS_MAX, Plane, SCANS_MAX, SNAPSHOT_BUILDS_MAX, TAILS_MAX};
use crate::raft::{self, Consensus, ProposeError, VoterId};
use crate::revoked::{self, revocations};
use crate::services::{DRAIN_DEADLINE, serve, supervise};
use crate::store::WriteError;
use crate::stream::keep_time;
use crate::transport::{SecureError, Secured, Transport};
use crate::vault::{FoundError, UnsealError};

pub(crate) use facts::open_vault;

/// The voter of a cluster that can have only one, and the founder of every other.
pub(crate) const ONLY_VOTER: VoterId = VoterId(1);
/// Where consensus keeps its data, below the data directory.
pub(crate) const CONSENSUS_DIRECTORY: &str = "consensus";

/// A running control plane. End it with [`ControlPlane::shutdown`]; dropping it leaves it running.
#[derive(Debug)]
pub struct ControlPlane {
    address: SocketAddr,
    peer_address: Option<String>,
    plane: Arc<Plane>,
    failure: watch::Receiver<Option<Failure>>,
    supervisor: JoinHandle<()>,
}

/// Why a control plane does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The options do not fit.
    #[error("the control plane cannot be started so")]
    Options(#[from] OptionsError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The data directory cannot be made.
    #[error("cannot make the data directory {}", .directory.display())]
    DataDirectory {
        /// The directory.
        directory: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Consensus or its store does not start.
    #[error("consensus does not start")]
    Consensus(#[from] raft::StartError),
    /// A new cluster cannot be made.
    #[error("the cluster cannot be made")]
    Found(#[from] FoundError),
    /// The facts of a new cluster were not committed.
    #[error("the facts of the new cluster were not stored")]
    Bootstrap(#[from] ProposeError),
    /// The vault does not open.
    #[error("the vault does not open")]
    Unseal(#[from] UnsealError),
    /// TLS cannot be had.
    #[error("TLS cannot be set up")]
    Secure(#[from] SecureError),
    /// Calls of admins cannot be recorded.
    #[error("audit cannot be started")]
    Audit(#[from] AuditError),
    /// The other members do not take this one for a member any more.
    #[error("{}", cut_off(.0))]
    CutOff(VoterId),
    /// The process is ending.
    #[error("the start was interrupted")]
    Interrupted,
}

/// Why a control plane ended by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Consensus stopped: its disk failed, or what it holds is damaged.
    #[error("consensus has stopped: {0}")]
    Consensus(String),
    /// The listener failed.
    #[error("the services have stopped: {0}")]
    Services(String),
    /// The other members do not take this one for a member any more: what it has is no longer theirs.
    #[error("{}", cut_off(.0))]
    CutOff(VoterId),
}

/// A shutdown that did not end well. Every acknowledged change is durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The store could not be closed.
    #[error("the store could not be closed")]
    Store(#[from] WriteError),
}

/// Starts a control plane. A member of several may have to wait for the others before it can serve: it says so in the
/// log and goes on trying. Dropping the future leaves what was started until the process ends.
pub async fn start(options: Options) -> Result<ControlPlane, StartError> {
    options.check()?;
    let bound = Bound::new(&options).await?;
    let voter = options.member.as_ref().map_or(ONLY_VOTER, |member| member.voter);
    let mut consensus_options = raft::Options::new(options.data_dir.join(CONSENSUS_DIRECTORY), voter);
    if let Some(membership) = &bound.membership {
        consensus_options.formation = membership.formation();
        consensus_options.peers = membership.peers();
    }
    let consensus = Consensus::start(consensus_options, Feed::new()).await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let begun = Begun { voter, consensus, stop, tasks };
    let opened = tokio::select! {
        opened = open(&options, bound, &begun) => opened,
        () = is_cut_off(&options) => Err(StartError::CutOff(voter)),
    };
    if opened.is_err() {
        begun.end().await;
    }
    opened
}

/// What a start has begun, and has to end when it fails.
struct Begun {
    voter: VoterId,
    consensus: Consensus,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Begun {
    async fn end(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(DRAIN_DEADLINE, self.tasks.wait()).await.is_err() {
            tracing::warn!("tasks did not end in time and are left behind");
        }
        // Gives the directory back; the first error is the one to tell.
        let _ = self.consensus.shutdown().await;
    }
}

/// What listens already, so that an address in use is found before anything is written.
struct Bound {
    listener: TcpListener,
    address: SocketAddr,
    membership: Option<Membership>,
}

impl Bound {
    async fn new(options: &Options) -> Result<Bound, StartError> {
        let failed = |address| move |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed(options.listen))?;
        let address = listener.local_addr().map_err(failed(options.listen))?;
        make_directory(options.data_dir.clone()).await?;
        let membership = match &options.member {
            Some(member) => Some(Membership::bind(member).await.map_err(failed(member.listen))?),
            None => None,
        };
        Ok(Bound { listener, address, membership })
    }
}

/// Everything on top of consensus. What it begins ends with [`Begun::end`].
async fn open(options: &Options, bound: Bound, begun: &Begun) -> Result<ControlPlane, StartError> {
    let Begun { voter, consensus, stop, tasks, .. } = begun;
    let (fleet, journal) = (Arc::new(Fleet::new(Instant::now())), Journal::new());
    let peer_address = bound.membership.as_ref().map(|membership| membership.address().to_owned());
    let certificate = options.member.as_ref().and_then(MemberOptions::certificate);
    if let Some(certificate) = certificate {
        // What it knew when it went down counts from the first handshake on.
        let state = consensus.feed().latest().state;
        certificate.trust().replace_revocations(revocations(&state, &consensus.membership()));
        let (certificate, stop) = (certificate.clone(), stop.clone());
        // From now on, because it may be long until there is a cluster to be a member of.
        tasks.spawn(async move { stop.run_until_cancelled(certificate.follow()).await });
    }
    if let Some(membership) = bound.membership {
        membership.run(consensus, (&fleet, &journal), tasks, stop).map_err(SecureError::from)?;
    }
    let is_founder = options.member.as_ref().is_none_or(MemberOptions::is_founder);
    let vault = open_vault(consensus, &options.data_dir, is_founder).await?;
    let secured = match &options.transport {
        Transport::Plain { .. } => None,
        Transport::Tls => {
            let state = consensus.feed().latest().state;
            Some(Secured::new(&vault, &state, *voter, certificate, options.certificate_life)?)
        }
    };
    // Its thread ends with the plane.
    let audit = Audit::start(&options.data_dir, &format!("control-plane-{}", voter.0))?;
    let plane = Arc::new(Plane {
        consensus: consensus.clone(),
        vault,
        trust: secured.as_ref().map(|secured| secured.trust.clone()),
        data_dir: options.data_dir.clone(),
        certificate_life: options.certificate_life,
        journal,
        audit,
        fleet,
        snapshot_builds: Semaphore::new(SNAPSHOT_BUILDS_MAX),
        tails: Arc::new(Semaphore::new(TAILS_MAX)),
        backups: Arc::new(Semaphore::new(BACKUPS_MAX)),
        scans: Arc::new(Semaphore::new(SCANS_MAX)),
        stop: stop.clone(),
        tasks: tasks.clone(),
    });
    let services = serve(plane.clone(), bound.listener, secured.as_ref(), options)?;
    plane.tasks.spawn(keep_time(plane.clone()));
    plane.tasks.spawn(crate::rollout::watch(plane.clone()));
    if let Some(secured) = secured {
        plane.tasks.spawn(revoked::follow(plane.clone(), secured.trust.clone()));
        plane.tasks.spawn(secured.renew(plane.clone()));
    }
    let (failed, failure) = watch::channel(None);
    let options = options.clone();
    let cut_off = async move { is_cut_off(&options).await };
    let supervisor = tokio::spawn(supervise(plane.clone(), services, cut_off, failed));
    Ok(ControlPlane { address: bound.address, peer_address, plane, failure, supervisor })
}

/// Completes when another member says that this one's certificate does not count any more.
async fn is_cut_off(options: &Options) {
    match options.member.as_ref().and_then(MemberOptions::certificate) {
        Some(certificate) => certificate.presenter().is_told_revoked().await,
        None => std::future::pending().await,
    }
}

fn cut_off(voter: &VoterId) -> String {
    format!(
        "the other members refuse the certificate of member {voter}: it was removed from the cluster, and its number is \
         never used again; join anew from an empty directory, with `gantry cluster token --role control-plane` at another \
         member and `gantry cluster join` here"
    )
}

impl ControlPlane {
    /// Where the services listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The cluster that it belongs to.
    pub fn cluster_id(&self) -> &str {
        self.plane.vault.cluster_id()
    }

    /// The certificate of the cluster's authority, as DER: by it others know this control plane.
    pub fn authority(&self) -> Option<Vec<u8>> {
        let state = self.plane.consensus.feed().latest().state;
        let authority = state.cluster()?.enrolment.authority.as_ref();
        authority.map(|authority| authority.certificate.clone())
    }

    /// Where other members are heard; `None`: there are none.
    pub fn peer_address(&self) -> Option<&str> {
        self.peer_address.as_deref()
    }

    /// Makes a member that has joined a voter, which is nothing for one that is; on whichever member it is called.
    pub async fn promote(&self, voter: VoterId) -> Result<(), raft::ChangeError> {
        let members = self.plane.consensus.membership().members;
        if members.iter().any(|member| member.voter == voter && member.votes) {
            return Ok(());
        }
        let change = raft::MembershipChange::Promote(voter);
        self.plane.consensus.change_members(change, None).await.map(|_| ())
    }

    /// Lets another voter lead, when this one does and there is one: for a member that is about to go down.
    pub async fn hand_over(&self) -> Result<(), raft::ChangeError> {
        self.plane.consensus.hand_over_to_any().await
    }

    /// Waits until the control plane ends by itself; for ever when it does not. Dropping the future is safe.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.failure.clone();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|failed| failed.clone());
        match failed {
            Some(failure) => failure,
            None => Failure::Services("their task broke off".to_owned()),
        }
    }

    /// Ends streams, finishes calls that are under way, closes consensus and gives the data directory back.
    pub async fn shutdown(self) -> Result<(), ShutdownError> {
        self.plane.stop.cancel();
        // A supervisor that panicked has nothing more to end.
        let _ = self.supervisor.await;
        self.plane.tasks.close();
        if tokio::time::timeout(DRAIN_DEADLINE, self.plane.tasks.wait()).await.is_err() {
            tracing::warn!("tasks did not end in time and are left behind");
        }
        let plane = self.plane.clone();
        if tokio::task::spawn_blocking(move || plane.audit.finish()).await.is_err() {
            tracing::error!("the end of the audit broke off");
        }
        Ok(self.plane.consensus.clone().shutdown().await?)
    }
}

pub(crate) async fn make_directory(directory: PathBuf) -> Result<(), StartError> {
    let failed = |source| StartError::DataDirectory { directory: directory.clone(), source };
    let path = directory.clone();
    let make = move || owner_only::make_directory(&path);
    tokio::task::spawn_blocking(make).await.map_err(|_| StartError::Interrupted)?.map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use gantry_control_state::Command;
    use gantry_model::Secret;

    use super::*;
    use crate::vault::Vault;

    #[tokio::test]
    async fn a_control_plane_whose_consensus_stops_says_so_and_ends() -> Result<(), Box<dyn std::error::Error>>
    {
        let directory = tempfile::tempdir()?;
        let options = Options {
            data_dir: directory.path().join("made"),
            listen: ([127, 0, 0, 1], 0).into(),
            transport: Transport::Plain { node_token: Secret::new("n".repeat(32)) },
            admin_token: Secret::new("a".repeat(32)),
            certificate_life: crate::options::CERTIFICATE_LIFE_MAX,
            member: None,
        };
        let running = start(options.clone()).await?;
        running.plane.consensus.clone().shutdown().await?;
        let failure = tokio::time::timeout(Duration::from_secs(10), running.failed()).await?;
        assert!(matches!(failure, Failure::Consensus(_)), "{failure}");
        let address = running.address();
        // The store is closed already, which is what it says.
        let _ = running.shutdown().await;
        assert!(tokio::net::TcpStream::connect(address).await.is_err(), "the services ended");
        // The directory was given back.
        start(options).await?.shutdown().await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_cluster_of_a_build_before_authorities_gets_one_and_keeps_it()
    -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let consensus = directory.path().join(CONSENSUS_DIRECTORY);
        let consensus = Consensus::start(raft::Options::new(consensus, ONLY_VOTER), Feed::new()).await?;
        let mut cluster = Vault::found(directory.path())?;
        cluster.enrolment.authority = None;
        consensus.propose(Command::Bootstrap(cluster)).await?;
        consensus.shutdown().await?;

        let options = Options {
            data_dir: directory.path().to_owned(),
            listen: ([127, 0, 0, 1], 0).into(),
            transport: Transport::Tls,
            admin_token: Secret::new("a".repeat(32)),
            certificate_life: crate::options::CERTIFICATE_LIFE_MAX,
            member: None,
        };
        let running = start(options.clone()).await?;
        let authority = running.authority();
        assert!(authority.is_some());
        running.shutdown().await?;
        let running = start(options).await?;
        assert_eq!(running.authority(), authority);
        running.shutdown().await?;
        Ok(())
    }
}
