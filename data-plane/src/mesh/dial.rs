//! Reaching peers: the node's QUIC endpoint, connections that go out, and what becomes of peers that do not answer.
//!
//! Always holds: one connection goes out to a peer, made when first needed; every wait here has a deadline; a suspect
//! has exactly one task that probes it. Whatever is repeated here is repeated before a request was sent.

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_wire::mesh_v1 as wire;
use gantry_wire::mesh_v1::opening::Purpose;
use gantry_wire::mesh_v1::reception::Reception;
use gantry_wire::sync_v1 as sync_wire;
use prost::Message;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig, TokioRuntime};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::frame::{FrameReader, FrameWriter};
use super::identity::{Fingerprint, Identity, SERVER_NAME};
use super::link::{GOING_DOWN, Link};
use super::roster::Roster;
use super::transport;
use super::{
    Bind, BindError, DATAGRAM_BYTES_MAX, MeshError, NOTICE_BYTES_MAX, OPEN_DEADLINE, Outbound, Process,
    TELL_DEADLINE, Unreachable,
};

/// Between attempts to reach a peer. A connection that is refused or lost is made again: the peer may not have
/// heard of this node yet, or have been started anew. Together they stay within [`OPEN_DEADLINE`].
const ATTEMPT_PAUSES: [Duration; 4] = [
    Duration::from_millis(10),
    Duration::from_millis(40),
    Duration::from_millis(160),
    Duration::from_millis(320),
];
/// First pause between probes of a suspect; doubles up to [`PROBE_PAUSE_MAX`].
const PROBE_PAUSE_FIRST: Duration = Duration::from_millis(50);
/// Longest pause between probes of a suspect.
const PROBE_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Notices on their way, each to one peer. More are told later; they are small, and rare against requests.
const NOTICES_MAX: usize = 4_096;
/// How long exchanges of peers may go on when this node goes down: as long as its own requests may.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long it may take to say goodbye.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);

/// Reaches peers.
pub(super) struct Dialer {
    pub(super) endpoint: Endpoint,
    pub(super) roster: Arc<Roster>,
    /// Exchanges that peers have with this node.
    pub(super) served: TaskTracker,
    identity: Identity,
    address: SocketAddr,
    notices: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

type Streams = (FrameWriter, FrameReader);

impl Dialer {
    pub(super) fn bind(roster: Arc<Roster>, identity: Identity, bind: Bind) -> Result<Dialer, BindError> {
        let failed = |source| BindError::Socket { address: bind.listen, source };
        let known = roster.clone();
        let server = identity.server(Box::new(move |shown| known.owner(shown).is_some()))?;
        let server = transport::server(server);
        let socket = UdpSocket::bind(bind.listen).map_err(failed)?;
        let bound = socket.local_addr().map_err(failed)?;
        let mut address = bind.advertise.unwrap_or(bound);
        if address.ip().is_unspecified() {
            return Err(BindError::Unspecified(address));
        }
        if address.port() == 0 {
            address.set_port(bound.port());
        }
        let runtime = Arc::new(TokioRuntime);
        let endpoint = Endpoint::new(EndpointConfig::default(), Some(server), socket, runtime);
        Ok(Dialer {
            endpoint: endpoint.map_err(failed)?,
            roster,
            served: TaskTracker::new(),
            identity,
            address,
            notices: Arc::new(Semaphore::new(NOTICES_MAX)),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        })
    }

    pub(super) fn whereabouts(&self) -> sync_wire::Mesh {
        let fingerprint: Fingerprint = self.identity.fingerprint();
        sync_wire::Mesh {
            address: self.address.to_string(),
            certificate_fingerprint: fingerprint.as_bytes().to_vec(),
        }
    }

    pub(super) fn process(&self) -> Process {
        self.identity.fingerprint().process()
    }

    pub(super) fn tell(self: &Arc<Dialer>, peer: &str, notice: Bytes) {
        let Some(link) = self.roster.link(peer) else { return };
        // What does not fit is lost, as with a peer that goes.
        let Ok(permit) = self.notices.clone().try_acquire_owned() else { return };
        let dialer = self.clone();
        self.tasks.spawn(async move {
            let told = dialer.reach(&link, Purpose::Notice(wire::Notice { notice })).await;
            drop(permit);
            if let Err(error) = told {
                tracing::debug!(peer = %link.member.peer, %error, "a notice did not arrive");
            }
        });
    }

    /// Waits, within a bound, until what was told before has arrived.
    pub(super) async fn told(&self) {
        let all = u32::try_from(NOTICES_MAX).unwrap_or(u32::MAX);
        let _ = timeout(TELL_DEADLINE, self.notices.acquire_many(all)).await;
    }

    pub(super) async fn open(self: &Arc<Dialer>, peer: &str) -> Result<Outbound, Unreachable> {
        let link = self.roster.link(peer).ok_or(Unreachable::NotMember)?;
        if link.is_suspect() {
            return Err(Unreachable::Suspect);
        }
        let (writer, reader) = self.reach(&link, Purpose::Exchange(wire::Exchange {})).await?;
        Ok(Outbound { writer, reader })
    }

    pub(super) async fn tell_all(self: &Arc<Dialer>, notice: Bytes) {
        if notice.len() > NOTICE_BYTES_MAX {
            tracing::error!(bytes = notice.len(), "a notice is too long and is not told");
            return;
        }
        let telling = async {
            let mut awaited = Vec::new();
            for link in self.roster.links() {
                let Ok(permit) = self.notices.clone().acquire_owned().await else { return };
                let is_living = !link.is_suspect();
                let (dialer, purpose) =
                    (self.clone(), Purpose::Notice(wire::Notice { notice: notice.clone() }));
                let told = self.tasks.spawn(async move {
                    let told = dialer.reach(&link, purpose).await;
                    drop(permit);
                    if let Err(error) = told {
                        tracing::debug!(peer = %link.member.peer, %error, "a notice did not arrive");
                    }
                });
                if is_living {
                    awaited.push(told);
                }
            }
            for told in awaited {
                let _ = told.await;
            }
        };
        if timeout(TELL_DEADLINE, telling).await.is_err() {
            tracing::warn!("not every peer acknowledged a notice in time");
        }
    }

    pub(super) fn datagram(self: &Arc<Dialer>, peer: &str, datagram: Bytes) -> Result<(), Unreachable> {
        let bytes = datagram.len();
        if bytes > DATAGRAM_BYTES_MAX {
            return Err(Unreachable::TooLarge { bytes });
        }
        let link = self.roster.link(peer).ok_or(Unreachable::NotMember)?;
        if link.is_suspect() {
            return Err(Unreachable::Suspect);
        }
        let Some(connection) = link.connection() else {
            self.dial_aside(&link);
            return Err(Unreachable::NotConnected);
        };
        connection.send_datagram(datagram).map_err(|error| match error {
            quinn::SendDatagramError::ConnectionLost(error) => Unreachable::Lost(error),
            // Too large for this path: no larger ones than everybody agreed on come here.
            quinn::SendDatagramError::TooLarge
            | quinn::SendDatagramError::UnsupportedByPeer
            | quinn::SendDatagramError::Disabled => Unreachable::NoDatagrams,
        })
    }

    /// Waits until peers' exchanges with this node ended.
    pub(super) async fn drain(&self) {
        self.served.close();
        if timeout(DRAIN_DEADLINE, self.served.wait()).await.is_err() {
            tracing::warn!(count = self.served.len(), "exchanges of peers are broken off");
        }
    }

    /// Ends every connection and task.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        self.endpoint.close(GOING_DOWN, b"");
        self.tasks.close();
        let ended = async {
            self.tasks.wait().await;
            self.endpoint.wait_idle().await;
        };
        // What peers did not hear they notice by the silence.
        let _ = timeout(CLOSE_DEADLINE, ended).await;
    }

    /// Opens a stream and waits for its reception, within [`OPEN_DEADLINE`].
    async fn reach(self: &Arc<Dialer>, link: &Arc<Link>, purpose: Purpose) -> Result<Streams, Unreachable> {
        let reached = link.retired.run_until_cancelled(self.try_to_reach(link, purpose));
        let reached = match timeout(OPEN_DEADLINE, reached).await {
            Ok(Some(reached)) => reached,
            Ok(None) => Err(Unreachable::NotMember),
            Err(_) => Err(Unreachable::Late),
        };
        if let Err(why) = &reached {
            self.suspect(link, why);
        }
        reached
    }

    async fn try_to_reach(
        self: &Arc<Dialer>,
        link: &Arc<Link>,
        purpose: Purpose,
    ) -> Result<Streams, Unreachable> {
        for pause in ATTEMPT_PAUSES {
            match self.attempt(link, &purpose).await {
                Err(Unreachable::Lost(_) | Unreachable::Cut) => sleep(pause).await,
                settled => return settled,
            }
        }
        self.attempt(link, &purpose).await
    }

    async fn attempt(
        self: &Arc<Dialer>,
        link: &Arc<Link>,
        purpose: &Purpose,
    ) -> Result<Streams, Unreachable> {
        let connection = self.connection(link).await?;
        let (send, receive) = connection.open_bi().await.map_err(Unreachable::Lost)?;
        let (mut writer, mut reader) = (FrameWriter::new(send), FrameReader::new(receive));
        let opening = wire::Opening { purpose: Some(purpose.clone()) };
        writer.write(opening.encode_to_vec().into()).await?;
        if !matches!(purpose, Purpose::Exchange(_)) {
            writer.end().await?;
        }
        let reception = reader.next().await?.ok_or(Unreachable::Cut)?;
        match wire::Reception::decode(reception).ok().and_then(|message| message.reception) {
            Some(Reception::Ready(_)) => Ok((writer, reader)),
            Some(Reception::GoingDown(_)) => Err(Unreachable::GoingDown),
            None => Err(Unreachable::Cut),
        }
    }

    /// The connection to the peer, made when there is none.
    async fn connection(self: &Arc<Dialer>, link: &Arc<Link>) -> Result<Connection, Unreachable> {
        if let Some(connection) = link.connection() {
            return Ok(connection);
        }
        let _gate = link.gate.lock().await;
        if let Some(connection) = link.connection() {
            return Ok(connection);
        }
        let config = self.identity.client(link.member.fingerprint);
        let config = config.map_err(|error| Unreachable::Identity(Arc::new(error)))?;
        let mut config = ClientConfig::new(Arc::new(config));
        config.transport_config(Arc::new(transport::of_dialer()));
        let connecting = self.endpoint.connect_with(config, link.member.address, SERVER_NAME);
        let connection = connecting.map_err(Unreachable::Connect)?.await.map_err(Unreachable::Lost)?;
        if !link.keep(&connection) {
            return Err(Unreachable::NotMember);
        }
        self.tasks.spawn(watch(self.clone(), link.clone(), connection.clone()));
        Ok(connection)
    }

    /// Makes a connection that a datagram found missing.
    fn dial_aside(self: &Arc<Dialer>, link: &Arc<Link>) {
        if link.begin_dialling() {
            let (dialer, link) = (self.clone(), link.clone());
            self.tasks.spawn(async move {
                // Who cannot be reached is a suspect then, which the next datagram is told.
                let _ = dialer.reach(&link, Purpose::Probe(wire::Probe {})).await;
                link.end_dialling();
            });
        }
    }

    /// The peer does not answer.
    fn suspect(self: &Arc<Dialer>, link: &Arc<Link>, why: &Unreachable) {
        if link.retired.is_cancelled() || self.stop.is_cancelled() || !link.suspect(true) {
            return;
        }
        let why: &(dyn std::error::Error + 'static) = why;
        tracing::warn!(peer = %link.member.peer, why, "a peer cannot be reached");
        self.tasks.spawn(probe(self.clone(), link.clone()));
    }
}

/// Waits for the end of a connection; a peer that vanished is a suspect.
async fn watch(dialer: Arc<Dialer>, link: Arc<Link>, connection: Connection) {
    let reason = connection.closed().await;
    link.forget(&connection);
    match reason {
        ConnectionError::TimedOut => dialer.suspect(&link, &Unreachable::Lost(reason)),
        ConnectionError::ApplicationClosed(close) if close.error_code == GOING_DOWN => {
            dialer.suspect(&link, &Unreachable::GoingDown);
        }
        _ => {}
    }
}

/// Probes a suspect until it answers, or is no member any more.
async fn probe(dialer: Arc<Dialer>, link: Arc<Link>) {
    let mut pause = PROBE_PAUSE_FIRST;
    let probing = async {
        loop {
            sleep(pause).await;
            let attempt = dialer.attempt(&link, &Purpose::Probe(wire::Probe {}));
            if let Ok(Ok(_)) = timeout(OPEN_DEADLINE, attempt).await {
                link.suspect(false);
                tracing::info!(peer = %link.member.peer, "a peer can be reached again");
                return;
            }
            pause = (pause * 2).min(PROBE_PAUSE_MAX);
        }
    };
    tokio::select! {
        () = probing => {}
        () = link.retired.cancelled() => {}
        () = dialer.stop.cancelled() => {}
    }
}

impl From<MeshError> for Unreachable {
    fn from(error: MeshError) -> Unreachable {
        match error {
            MeshError::Lost(error) => Unreachable::Lost(error),
            MeshError::TooLarge { .. } | MeshError::Cut => Unreachable::Cut,
        }
    }
}
