//! Serving peers: connections that come in, and the exchanges on them.
//!
//! Always holds: nobody but a member is served, and none for longer than it is one; a node that goes down says so to
//! whoever asks for something new, for as long as its endpoint is open.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_wire::mesh_v1 as wire;
use gantry_wire::mesh_v1::opening::Purpose;
use gantry_wire::mesh_v1::reception::Reception;
use prost::Message;
use quinn::{Connection, Incoming, RecvStream, SendStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::dial::Dialer;
use super::frame::{FrameReader, FrameWriter};
use super::identity::Fingerprint;
use super::link::{Link, NOT_MEMBER};
use super::transport::STREAMS_MAX;
use super::{MeshError, Peer, Process, Replies, Service};

/// Connections that come in: one from each peer of a large fleet, with room for those that are made anew.
const CONNECTIONS_MAX: usize = 4_096;
/// Connections above which whoever connects must first show that its address is its own.
const CONNECTIONS_EASY: usize = 1_024;
/// How long a handshake may take.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(2);
/// How long who opened a stream may take to say what for, and then to send the request.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// How long exchanges may go on whose peer is gone: enough to write their records. Together with the drain it is less
/// than what a node may take to stop.
const ORPHANED_DEADLINE: Duration = Duration::from_secs(3);

/// Serves peers.
pub(crate) struct Acceptor {
    dialer: Option<Arc<Dialer>>,
}

/// What every connection and stream needs.
#[derive(Clone)]
struct Serving {
    dialer: Arc<Dialer>,
    service: Arc<dyn Service>,
    stop: CancellationToken,
}

impl Acceptor {
    pub(super) fn new(dialer: Arc<Dialer>) -> Acceptor {
        Acceptor { dialer: Some(dialer) }
    }

    pub(super) fn of_nobody() -> Acceptor {
        Acceptor { dialer: None }
    }

    /// Serves until the mesh is closed ([`super::Mesh::close`]). From `stop` on nothing new is taken.
    pub(crate) async fn serve(self, service: Arc<dyn Service>, stop: CancellationToken) {
        let Some(dialer) = self.dialer else { return stop.cancelled().await };
        let endpoint = dialer.endpoint.clone();
        let serving = Serving { dialer, service, stop };
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                incoming = endpoint.accept() => match incoming {
                    None => break,
                    Some(incoming) if connections.len() >= CONNECTIONS_MAX => incoming.refuse(),
                    Some(incoming) if connections.len() >= CONNECTIONS_EASY && incoming.may_retry() => {
                        // Who cannot be answered is no loss.
                        let _ = incoming.retry();
                    }
                    Some(incoming) => {
                        connections.spawn(serving.clone().connection(incoming));
                    }
                },
                Some(ended) = connections.join_next() => report(ended),
            }
        }
        while let Some(ended) = connections.join_next().await {
            report(ended);
        }
    }
}

impl Serving {
    async fn connection(self, incoming: Incoming) {
        let from = incoming.remote_address();
        let Ok(connecting) = incoming.accept() else { return };
        let connection = match timeout(HANDSHAKE_DEADLINE, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                let error: &(dyn std::error::Error + 'static) = &error;
                return tracing::info!(%from, error, "a connection of the mesh is refused");
            }
            Err(_) => return,
        };
        // It was one at the handshake.
        let owner = Fingerprint::of_peer(&connection).and_then(|shown| self.dialer.roster.owner(&shown));
        match owner {
            Some(link) => self.streams(&link, connection).await,
            None => connection.close(NOT_MEMBER, b""),
        }
    }

    async fn streams(&self, link: &Link, connection: Connection) {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                () = link.retired.cancelled() => {
                    connection.close(NOT_MEMBER, b"");
                    break;
                }
                opened = connection.accept_bi(), if streams.len() < STREAMS_MAX as usize => {
                    let Ok((send, receive)) = opened else { break };
                    let from = (link.member.peer.clone(), link.member.process());
                    let stream = self.clone().stream(from, send, receive);
                    streams.spawn(self.dialer.served.track_future(stream));
                }
                datagram = connection.read_datagram() => {
                    let Ok(datagram) = datagram else { break };
                    self.service.datagram(link.member.peer.clone(), link.member.process(), datagram);
                }
                Some(ended) = streams.join_next() => report(ended),
            }
        }
        let orphaned = async {
            while let Some(ended) = streams.join_next().await {
                report(ended);
            }
        };
        let _ = timeout(ORPHANED_DEADLINE, orphaned).await;
        streams.shutdown().await;
    }

    async fn stream(self, from: (Peer, Process), send: SendStream, receive: RecvStream) {
        let (writer, reader) = (FrameWriter::new(send), FrameReader::new(receive));
        if let Err(error) = self.serve(from.clone(), writer, reader).await {
            let error: &(dyn std::error::Error + 'static) = &error;
            tracing::debug!(from = %from.0, error, "a stream of a peer ended early");
        }
    }

    async fn serve(
        &self,
        (from, process): (Peer, Process),
        mut writer: FrameWriter,
        mut reader: FrameReader,
    ) -> Result<(), MeshError> {
        let opening = within(REQUEST_DEADLINE, reader.next()).await?.ok_or(MeshError::Cut)?;
        // A purpose of a newer build is not served.
        let opening = wire::Opening::decode(opening).map_err(|_| MeshError::Cut)?;
        match opening.purpose.ok_or(MeshError::Cut)? {
            Purpose::Notice(notice) => {
                self.service.notice(from, process, notice.notice);
                writer.write(reception(ready())).await?;
                writer.end().await
            }
            Purpose::Probe(_) => {
                let is_ready = !self.stop.is_cancelled();
                writer.write(reception(if is_ready { ready() } else { going_down() })).await?;
                writer.end().await
            }
            Purpose::Exchange(_) => {
                if self.stop.is_cancelled() {
                    writer.write(reception(going_down())).await?;
                    return writer.end().await;
                }
                writer.write(reception(ready())).await?;
                let Some(request) = within(REQUEST_DEADLINE, reader.next()).await? else { return Ok(()) };
                let None = within(REQUEST_DEADLINE, reader.next()).await? else { return Err(MeshError::Cut) };
                let (replies, end) = Replies::new(writer);
                self.service.clone().exchange(from, request, replies).await;
                end.end().await
            }
        }
    }
}

fn ready() -> Reception {
    Reception::Ready(wire::Ready {})
}

fn going_down() -> Reception {
    Reception::GoingDown(wire::GoingDown {})
}

fn reception(reception: Reception) -> Bytes {
    wire::Reception { reception: Some(reception) }.encode_to_vec().into()
}

async fn within<T>(
    deadline: Duration,
    next: impl Future<Output = Result<T, MeshError>>,
) -> Result<T, MeshError> {
    timeout(deadline, next).await.unwrap_or(Err(MeshError::Cut))
}

fn report(ended: Result<(), JoinError>) {
    if ended.is_err_and(|error| error.is_panic()) {
        tracing::error!("serving a peer panicked");
    }
}
