//! One connection of the stream: hello, then updates in and answers and reports out, until it ends.

use std::time::Duration;

use gantry_node::bearer::{Bearer, BearerError};
use gantry_node::membership::causes;
use gantry_node::tls::TlsError;
use gantry_wire::sync_v1::node_message::Message as ToServer;
use gantry_wire::sync_v1::sync_client::SyncClient;
use gantry_wire::{MESSAGE_BYTES_MAX, sync_v1 as wire};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status, Streaming};

use super::Follower;
use super::choice::bare;
use super::counting::Told;
use super::reader::Reader;
use crate::config::holdings::Problem;
use crate::start::Proof;
use crate::upstream::discovery::Report;

/// Messages that may wait to be sent. Reports wait for room; records are dropped by whoever offers them.
const OUTBOX_MAX: usize = 256;
/// Records sent in one message.
const RECORDS_MAX: usize = 256;
/// Bytes of records after which a message is sent; far below what the control plane takes in one.
const RECORDS_BYTES: usize = 1024 * 1024;
/// How long the connection may take to be made: a control plane that has lost its power shall not cost more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How often a silent connection is probed.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long the answer may take; a busy control plane answers within milliseconds, one that is stopped never.
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);
/// A control plane that is gone without a word is noticed within this.
#[cfg(test)]
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(8);
/// How often a node that hears notes it on its disk, for a start without a control plane: that start takes the silence
/// to be longer by up to as much.
const NOTE_INTERVAL: Duration = Duration::from_secs(10);
/// How often the control plane is told of calls, where it asked.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum FollowError {
    #[error("the control plane cannot be reached: {}", causes(.0))]
    Connect(tonic::transport::Error),
    #[error("the node has no usable token: {0}")]
    Token(#[from] BearerError),
    #[error("TLS cannot be set up: {0}")]
    Tls(#[from] TlsError),
    #[error("the control plane ended the stream: {}", .0.message())]
    Status(#[source] Box<Status>),
    #[error("the control plane closed the stream")]
    Closed,
    #[error("an update is larger than this build takes")]
    TooLarge,
}

impl From<Status> for FollowError {
    fn from(status: Status) -> FollowError {
        FollowError::Status(Box::new(status))
    }
}

/// Follows over one connection; returns why it ended.
pub(super) async fn follow(follower: &mut Follower) -> FollowError {
    match open(follower).await {
        Ok((stream, outbox)) => match run(follower, stream, outbox).await {
            Ok(never) => match never {},
            Err(error) => error,
        },
        Err(error) => error,
    }
}

/// Where messages for the control plane go.
pub(super) type Outbox = mpsc::Sender<wire::NodeMessage>;

/// A connection to a member.
pub(super) async fn connect(address: &str, proof: &Proof) -> Result<Channel, FollowError> {
    // Also for TLS: what is below the connection is the connector's.
    let address = format!("http://{}", bare(address));
    let endpoint = Endpoint::from_shared(address).map_err(FollowError::Connect)?;
    let endpoint = endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true);
    let channel = match proof {
        Proof::Token(_) => endpoint.connect().await,
        Proof::Certificate(membership) => endpoint.connect_with_connector(membership.connector()?).await,
    };
    channel.map_err(FollowError::Connect)
}

async fn open(follower: &Follower) -> Result<(Streaming<wire::ServerMessage>, Outbox), FollowError> {
    let identity = &follower.identity;
    let channel = connect(identity.control_planes.current(), &identity.proof).await?;
    let mut client = SyncClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let (outbox, messages) = mpsc::channel(OUTBOX_MAX);
    let hello = wire::Hello {
        node_id: identity.node_id.clone(),
        incarnation: identity.incarnation.clone(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        cluster_id: follower.holdings.cluster_id().to_owned(),
        applied_revision: follower.holdings.revision().0,
        applied_digest: follower.holdings.digest().to_bytes().to_vec(),
        seal_public_key: follower.seal.public_key().as_bytes().to_vec(),
        mesh: follower.node.mesh.whereabouts(),
    };
    send(&outbox, ToServer::Hello(hello)).await?;
    let mut request = Request::new(ReceiverStream::new(messages));
    if let Proof::Token(token) = &identity.proof {
        Bearer::new(token)?.show(&mut request);
    }
    let stream = client.follow(request).await?.into_inner();
    Ok((stream, outbox))
}

async fn run(
    follower: &mut Follower,
    stream: Streaming<wire::ServerMessage>,
    outbox: Outbox,
) -> Result<std::convert::Infallible, FollowError> {
    let reader = Reader {
        node: follower.node.clone(),
        stream,
        outbox: outbox.clone(),
        keeper: follower.keeper.urgent(),
        distrust: follower.identity.distrust.clone(),
        address: follower.identity.control_planes.current().to_owned(),
    };
    follower.node.counting.ask(wire::Counting::default());
    let mut told = Told::default();
    let mut counting = tokio::time::interval(COUNT_INTERVAL);
    counting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut updates, _reading) = reader.start();
    let mut noting = tokio::time::interval_at(Instant::now() + NOTE_INTERVAL, NOTE_INTERVAL);
    noting.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = noting.tick() => follower.note_contact(),
            _ = counting.tick() => {
                if let Some(counts) = told.news(&follower.node.counting, &follower.node.config()) {
                    send(&outbox, ToServer::Calls(counts)).await?;
                }
            }
            update = updates.recv() => {
                let answer = apply(follower, update.ok_or(FollowError::Closed)??).await;
                let is_good = matches!(answer, ToServer::Ack(_));
                send(&outbox, answer).await?;
                if is_good {
                    follower.identity.control_planes.worked();
                    follower.keeper.offer(follower.holdings.image());
                }
            }
            Some(report) = follower.catalogs.recv() => {
                // What is served is what was acknowledged: one that waited meanwhile may be of a server that is another now.
                if report.is_current(&follower.node.config()) {
                    send(&outbox, ToServer::Catalog(to_wire(report))).await?;
                }
            }
            Some(record) = follower.records.recv() => {
                let records = batch(record, &mut follower.records);
                let dropped = follower.node.audit.dropped();
                send(&outbox, ToServer::Records(wire::RecordReport { records, dropped })).await?;
            }
        }
    }
}

fn batch(first: Vec<u8>, more: &mut mpsc::Receiver<Vec<u8>>) -> Vec<Vec<u8>> {
    let mut size = first.len();
    let mut records = vec![without_newline(first)];
    while records.len() < RECORDS_MAX
        && size < RECORDS_BYTES
        && let Ok(record) = more.try_recv()
    {
        size += record.len();
        records.push(without_newline(record));
    }
    records
}

/// Applies an update and says how it went.
async fn apply(follower: &mut Follower, update: wire::Update) -> ToServer {
    let started = Instant::now();
    let revision = update.revision;
    let problems = match follower.take(update).await {
        Ok(problems) => problems,
        Err(error) => {
            tracing::warn!(revision, %error, "an update cannot be taken; asking for a snapshot");
            let problem = wire::Problem { message: error.to_string(), ..wire::Problem::default() };
            return ToServer::Nack(wire::Nack { revision, problems: vec![problem], need_snapshot: true });
        }
    };
    if problems.is_empty() {
        let apply_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        let digest = follower.holdings.digest().to_bytes().to_vec();
        return ToServer::Ack(wire::Ack { revision, digest, apply_us });
    }
    let to_wire = |Problem { tenant, message }: Problem| wire::Problem {
        tenant: tenant.to_string(),
        resource: String::new(),
        message,
    };
    let problems = problems.into_iter().map(to_wire).collect();
    ToServer::Nack(wire::Nack { revision, problems, need_snapshot: false })
}

fn to_wire(report: Report) -> wire::CatalogReport {
    match report.found {
        Ok(catalog) => wire::CatalogReport { catalog: Some(catalog.as_ref().into()), failure: None },
        Err(message) => {
            let (tenant, server) = (report.tenant.to_string(), report.server.to_string());
            let failure = wire::ServerFailure { tenant, server, message };
            wire::CatalogReport { catalog: None, failure: Some(failure) }
        }
    }
}

fn without_newline(mut record: Vec<u8>) -> Vec<u8> {
    if record.ends_with(b"\n") {
        record.pop();
    }
    record
}

pub(super) async fn send(outbox: &Outbox, message: ToServer) -> Result<(), FollowError> {
    outbox.send(wire::NodeMessage { message: Some(message) }).await.map_err(|_| FollowError::Closed)
}
