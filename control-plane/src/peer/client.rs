//! Asking other members over gRPC.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use gantry_model::Secret;
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::raft_v1::peer_client::PeerClient;
use gantry_wire::raft_v1::{CheckpointHead, CheckpointReply, Question, Reply};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
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

/// Reaches other members over gRPC, in the clear: for members on one machine.
pub struct GrpcPeers {
    token: Option<MetadataValue<Ascii>>,
    channels: Mutex<HashMap<Peer, Channel>>,
}

/// Shows the token with every call.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

type Client = PeerClient<InterceptedService<Channel, Bearer>>;

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request.metadata_mut().insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl GrpcPeers {
    /// Members that know each other by a token, which is visible ASCII.
    pub fn new(token: &Secret<String>) -> Self {
        let mut token = MetadataValue::try_from(format!("Bearer {}", token.expose())).ok();
        if let Some(token) = &mut token {
            token.set_sensitive(true);
        }
        Self { token, channels: Mutex::default() }
    }

    fn client(&self, peer: &Peer) -> Result<Client, PeerError> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match channels.get(peer) {
            Some(channel) => channel.clone(),
            None => {
                let endpoint = Endpoint::from_shared(format!("http://{}", peer.address));
                let unusable = |_| PeerError::Unreachable {
                    peer: peer.clone(),
                    reason: "its address is not HOST:PORT".to_owned(),
                };
                let channel = endpoint
                    .map_err(unusable)?
                    .connect_timeout(CONNECT_DEADLINE)
                    .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
                    .keep_alive_timeout(KEEPALIVE_DEADLINE)
                    .keep_alive_while_idle(true)
                    .tcp_nodelay(true)
                    .connect_lazy();
                if channels.len() >= CONNECTIONS_MAX {
                    channels.clear();
                }
                channels.insert(peer.clone(), channel.clone());
                channel
            }
        };
        Ok(PeerClient::with_interceptor(channel, Bearer(self.token.clone()))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
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
    let reason = status.message().to_owned();
    match status.code() {
        Code::Unavailable => PeerError::Unreachable { peer, reason },
        _ => PeerError::Refused { peer, reason },
    }
}
