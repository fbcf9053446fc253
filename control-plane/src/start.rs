//! Starting a control plane, and the handle on a running one.
//!
//! Always holds: when [`start`] returns, this process leads, has applied its log and has opened its vault, and both
//! services answer. When the services or consensus end by themselves, [`ControlPlane::failed`] says so and everything
//! else ends too: there is no half of a control plane.

use std::fs::DirBuilder;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_control_state::{Command, Outcome};
use gantry_model::enrolment::EnrolmentChange;
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::admin_v1::admin_server::AdminServer;
use gantry_wire::enrol_v1::enrol_server::EnrolServer;
use gantry_wire::sync_v1::sync_server::SyncServer;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::access::gate::Gate;
use crate::access::identity::Doorkeeper;
use crate::access::{NodeCheck, TokenCheck, Whose};
use crate::admin::AdminService;
use crate::audit::{Audit, AuditError};
use crate::enrol::EnrolService;
use crate::feed::Feed;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::membership::Membership;
use crate::options::{Options, OptionsError};
use crate::plane::{Plane, SNAPSHOT_BUILDS_MAX, TAILS_MAX};
use crate::raft::{self, Consensus, ProposeError, VoterId};
use crate::revoked;
use crate::store::WriteError;
use crate::stream::{StreamService, keep_time};
use crate::transport::{SecureError, Secured, Transport};
use crate::vault::{FoundError, UnsealError, Vault};

/// The voter of a cluster that can have only one.
const ONLY_VOTER: VoterId = VoterId(1);
/// Where consensus keeps its data, below the data directory.
const CONSENSUS_DIRECTORY: &str = "consensus";
/// How long open calls may take to end. Streams end by themselves at once; the rest are single requests.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is asked whether consensus still runs.
const CONSENSUS_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How often an idle connection is probed, and how long it may take to answer: a node that lost power is seen as gone
/// within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// Calls at one time on one connection. A node has one; an admin's tool a few.
const STREAMS_MAX: u32 = 128;

/// The services while they run.
type Services = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

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
}

/// A shutdown that did not end well. Every acknowledged change is durable all the same.
#[derive(Debug, thiserror::Error)]
pub enum ShutdownError {
    /// The store could not be closed.
    #[error("the store could not be closed")]
    Store(#[from] WriteError),
}

/// Starts a control plane. Dropping the future leaves what was started until the process ends.
pub async fn start(options: Options) -> Result<ControlPlane, StartError> {
    options.check()?;
    let listen_failed = |source| StartError::Listen { address: options.listen, source };
    let listener = TcpListener::bind(options.listen).await.map_err(listen_failed)?;
    let address = listener.local_addr().map_err(listen_failed)?;
    make_directory(options.data_dir.clone()).await?;
    let membership = match &options.member {
        Some(member) => {
            let failed = |source| StartError::Listen { address: member.listen, source };
            Some(Membership::bind(member).await.map_err(failed)?)
        }
        None => None,
    };
    let peer_address = membership.as_ref().map(|membership| membership.address().to_owned());
    let data_dir = options.data_dir.join(CONSENSUS_DIRECTORY);
    let voter = options.member.as_ref().map_or(ONLY_VOTER, |member| member.voter);
    let mut consensus_options = raft::Options::new(data_dir, voter);
    if let Some(membership) = &membership {
        consensus_options.formation = membership.formation();
        consensus_options.peers = membership.peers();
    }
    let audit = Audit::start(&options.data_dir, &format!("control-plane-{}", voter.0))?;
    let consensus = Consensus::start(consensus_options, Feed::new()).await?;
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let (fleet, journal) = (Arc::new(Fleet::new(Instant::now())), Journal::new());
    if let Some(membership) = membership {
        membership.run(&consensus, (&fleet, &journal), &tasks, &stop);
    }
    let is_founder = options.member.as_ref().is_none_or(|member| member.join.is_none());
    let vault = match open_vault(&consensus, &options.data_dir, is_founder).await {
        Ok(vault) => vault,
        Err(error) => {
            stop.cancel();
            // The first error is the one to tell.
            let _ = consensus.shutdown().await;
            return Err(error);
        }
    };
    let state = consensus.feed().latest().state;
    let secured = match options.transport {
        Transport::Plain => None,
        Transport::Tls => Some(Secured::new(&vault, &state, voter)?),
    };
    let plane = Arc::new(Plane {
        consensus,
        vault,
        journal,
        audit,
        fleet,
        snapshot_builds: Semaphore::new(SNAPSHOT_BUILDS_MAX),
        tails: Arc::new(Semaphore::new(TAILS_MAX)),
        stop,
        tasks,
    });
    plane.tasks.spawn(keep_time(plane.clone()));
    if let Some(secured) = &secured {
        plane.tasks.spawn(revoked::follow(plane.clone(), secured.trust.clone()));
        plane.tasks.spawn(secured.clone().renew(plane.clone()));
    }
    let (failed, failure) = watch::channel(None);
    let services = serve(plane.clone(), listener, secured.as_ref(), &options)?;
    let supervisor = tokio::spawn(supervise(plane.clone(), services, failed));
    Ok(ControlPlane { address, peer_address, plane, failure, supervisor })
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

async fn make_directory(directory: PathBuf) -> Result<(), StartError> {
    let failed = |source| StartError::DataDirectory { directory: directory.clone(), source };
    let path = directory.clone();
    let make = move || DirBuilder::new().recursive(true).mode(0o700).create(path);
    tokio::task::spawn_blocking(make).await.map_err(|_| StartError::Interrupted)?.map_err(failed)
}

/// Opens the vault; on a first start, makes the cluster.
async fn open_vault(consensus: &Consensus, directory: &Path, is_founder: bool) -> Result<Vault, StartError> {
    if !is_founder {
        let mut revisions = consensus.feed().subscribe();
        while consensus.feed().latest().state.cluster().is_none() {
            revisions.changed().await.map_err(|_| StartError::Interrupted)?;
        }
    } else if consensus.feed().latest().state.cluster().is_none() {
        let path = directory.to_owned();
        let found = tokio::task::spawn_blocking(move || Vault::found(&path)).await;
        let cluster = found.map_err(|_| StartError::Interrupted)??;
        let committed = consensus.propose(Command::Bootstrap(cluster)).await?;
        if let Outcome::Refused(_) = committed.outcome {
            tracing::info!("the cluster was made by another start meanwhile");
        }
    }
    let state = consensus.feed().latest().state;
    let cluster = state.cluster().cloned().ok_or(StartError::Interrupted)?;
    let has_authority = cluster.enrolment.authority.is_some();
    let path = directory.to_owned();
    let unsealed = tokio::task::spawn_blocking(move || Vault::unseal(&path, &cluster)).await;
    let vault = unsealed.map_err(|_| StartError::Interrupted)??;
    if !has_authority {
        // A build before authorities made the cluster. When another process was faster, its authority is as good.
        let founding = EnrolmentChange::FoundAuthority(vault.found_authority()?);
        consensus.propose(Command::ChangeEnrolment(founding)).await?;
    }
    Ok(vault)
}

/// Serves until the process is to end and every connection has ended.
fn serve(
    plane: Arc<Plane>,
    listener: TcpListener,
    secured: Option<&Secured>,
    options: &Options,
) -> Result<Services, SecureError> {
    let admin = AdminServer::new(AdminService::new(plane.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let stream = SyncServer::new(StreamService::new(plane.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let node_check = match secured {
        None => NodeCheck::Token(TokenCheck::new(Whose::Node, &options.node_token)),
        Some(_) => NodeCheck::Certificate,
    };
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(Gate::new(admin, plane.clone(), Doorkeeper::new(&options.admin_token)))
        .add_service(InterceptedService::new(stream, node_check))
        .add_service(EnrolServer::new(EnrolService::new(plane.clone())));
    let stop = plane.stop.clone().cancelled_owned();
    Ok(match secured {
        None => {
            let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
            Box::pin(router.serve_with_incoming_shutdown(incoming, stop))
        }
        Some(secured) => Box::pin(router.serve_with_incoming_shutdown(secured.incoming(listener)?, stop)),
    })
}

/// Owns the services; ends everything when one part ends by itself.
async fn supervise(plane: Arc<Plane>, mut services: Services, failed: watch::Sender<Option<Failure>>) {
    let failure = tokio::select! {
        biased;
        () = plane.stop.cancelled() => None,
        ended = &mut services => {
            let reason = ended.err().map_or_else(|| "the listener ended".to_owned(), |error| error.to_string());
            Some(Failure::Services(reason))
        }
        reason = consensus_stops(&plane.consensus) => Some(Failure::Consensus(reason)),
    };
    let services_ended = matches!(failure, Some(Failure::Services(_)));
    if let Some(failure) = failure {
        tracing::error!(%failure, "the control plane ends");
        failed.send_replace(Some(failure));
    }
    plane.stop.cancel();
    if !services_ended && tokio::time::timeout(DRAIN_DEADLINE, services).await.is_err() {
        tracing::warn!("calls did not end in time and are broken off");
    }
}

async fn consensus_stops(consensus: &Consensus) -> String {
    let mut interval = tokio::time::interval(CONSENSUS_CHECK_INTERVAL);
    loop {
        interval.tick().await;
        if let Some(reason) = consensus.status().await.stopped {
            return reason;
        }
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::Secret;

    use super::*;

    #[tokio::test]
    async fn a_control_plane_whose_consensus_stops_says_so_and_ends() -> Result<(), Box<dyn std::error::Error>>
    {
        let directory = tempfile::tempdir()?;
        let options = Options {
            data_dir: directory.path().join("made"),
            listen: ([127, 0, 0, 1], 0).into(),
            transport: Transport::Plain,
            admin_token: Secret::new("a".repeat(32)),
            node_token: Secret::new("n".repeat(32)),
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
            node_token: Secret::new("n".repeat(32)),
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
