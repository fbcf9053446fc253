//! Asking other members over gRPC.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_model::Secret;
use gantry_model::identity::{ClusterId, MemberId, PeerName};
use gantry_node::bearer::Bearer;
use gantry_node::membership::Membership;
use gantry_node::tls::{Connector, Expected, Presenter, Trust};
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::raft_v1::peer_client::PeerClient;
use gantry_wire::raft_v1::{CheckpointHead, CheckpointReply, Question, Reply};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

use super::checkpoint::{self, TransferError};
use crate::raft::{Answering, Peer, PeerError, Peers};

/// Members to which connections are kept. A cluster has a handful; a stale address costs an entry until the restart.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection may take. Elections wait for it.
const CONNECT_DEADLINE: Duration = Duration::from_secs(1);
/// How often an idle connection is probed, and how long it may take to answer: a peer whose machine vanished is dialled
/// anew within the time of an election.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(1);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(2);
/// Parts of a checkpoint that wait to be sent.
const PARTS_QUEUED_MAX: usize = 4;

/// Reaches other members over gRPC.
pub(crate) struct GrpcPeers {
    proof: Proof,
    channels: Mutex<HashMap<Peer, Channel>>,
}

/// What proves this member to the others, and them to it.
enum Proof {
    /// A token that all of them share, in the clear: for members on one machine.
    Token(Option<Bearer>),
    /// Certificates of the cluster, over TLS.
    Certificate { cluster: ClusterId, presenter: Arc<Presenter>, trust: Arc<Trust> },
}

/// Shows the token with every call, where there is one.
#[derive(Clone)]
struct ShowToken(Option<Bearer>);

type Client = PeerClient<InterceptedService<Channel, ShowToken>>;

impl Interceptor for ShowToken {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            token.show(&mut request);
        }
        Ok(request)
    }
}

impl GrpcPeers {
    /// Members that know each other by a token, which is visible ASCII.
    pub(crate) fn by_token(token: &Secret<String>) -> Self {
        Self { proof: Proof::Token(Bearer::new(token).ok()), channels: Mutex::default() }
    }

    /// Members that know each other by the names in their certificates.
    pub(crate) fn by_certificate(own: &Membership) -> Self {
        let (presenter, trust) = (own.presenter().clone(), own.trust().clone());
        let proof = Proof::Certificate { cluster: own.cluster().clone(), presenter, trust };
        Self { proof, channels: Mutex::default() }
    }

    fn client(&self, peer: &Peer) -> Result<Client, PeerError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(peer) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.channel(peer)?;
                if channels.len() >= CONNECTIONS_MAX {
                    channels.clear();
                }
                channels.insert(peer.clone(), channel.clone());
                channel
            }
        };
        let token = match &self.proof {
            Proof::Token(token) => ShowToken(token.clone()),
            Proof::Certificate { .. } => ShowToken(None),
        };
        Ok(PeerClient::with_interceptor(channel, token)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// A way to a member, which is dialled when it is first needed.
    fn channel(&self, peer: &Peer) -> Result<Channel, PeerError> {
        let unusable = |reason: String| PeerError::Unreachable { peer: peer.clone(), reason };
        let endpoint = Endpoint::from_shared(format!("http://{}", peer.address))
            .map_err(|_| unusable("its address is not HOST:PORT".to_owned()))?
            .connect_timeout(CONNECT_DEADLINE)
            .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_DEADLINE)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        let (cluster, presenter, trust) = match &self.proof {
            Proof::Token(_) => return Ok(endpoint.connect_lazy()),
            Proof::Certificate { cluster, presenter, trust } => (cluster.clone(), presenter, trust),
        };
        let expected = match peer.voter {
            Some(voter) => {
                let member = MemberId::new(voter.0).ok_or_else(|| unusable("it has no number".to_owned()))?;
                Expected::Exactly(PeerName::control_plane(cluster, member))
            }
            // Who joins does not know yet whom it asks.
            None => Expected::ControlPlaneOf(cluster),
        };
        let connector = Connector::new(presenter.clone(), trust.clone(), expected)
            .map_err(|error| unusable(error.to_string()))?;
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

impl fmt::Debug for GrpcPeers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("GrpcPeers").finish_non_exhaustive()
    }
}

impl Peers for GrpcPeers {
    fn ask(&self, peer: Peer, question: Question, deadline: Duration) -> Answering<Reply> {
        let client = self.client(&peer);
        Box::pin(async move {
            let mut client = client?;
            let reply = tokio::time::timeout(deadline, client.ask(question)).await;
            let reply = reply.map_err(|_| PeerError::Late { peer: peer.clone(), after: deadline })?;
            Ok(reply.map_err(|status| failed(peer, &status))?.into_inner())
        })
    }

    fn install(
        &self,
        peer: Peer,
        head: CheckpointHead,
        file: PathBuf,
        deadline: Duration,
    ) -> Answering<CheckpointReply> {
        let client = self.client(&peer);
        Box::pin(async move {
            let mut client = client?;
            let (parts, sent) = mpsc::channel(PARTS_QUEUED_MAX);
            let reading = tokio::task::spawn_blocking(move || checkpoint::send(&file, head, &parts));
            let reply =
                tokio::time::timeout(deadline, client.install_checkpoint(ReceiverStream::new(sent))).await;
            let reply = reply.map_err(|_| PeerError::Late { peer: peer.clone(), after: deadline })?;
            // Why the file could not be read says more than that the parts ended early; that the other side stopped
            // taking them says less than its reply.
            if let Ok(Err(error @ TransferError::Io(_))) = reading.await {
                return Err(PeerError::Refused { peer, reason: error.to_string() });
            }
            Ok(reply.map_err(|status| failed(peer, &status))?.into_inner())
        })
    }
}

fn failed(peer: Peer, status: &Status) -> PeerError {
    let reason = reason(status);
    match status.code() {
        Code::Unavailable => PeerError::Unreachable { peer, reason },
        _ => PeerError::Refused { peer, reason },
    }
}

/// Where the connection failed, `tonic` hides why among the sources.
fn reason(status: &Status) -> String {
    let mut reasons = Vec::new();
    // Layers repeat what is below them, or say nothing.
    let mut add = |reason: String| {
        if reason != "transport error" && !reasons.contains(&reason) {
            reasons.push(reason);
        }
    };
    add(status.message().to_owned());
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        add(error.to_string());
        source = error.source();
    }
    reasons.join(": ")
}
