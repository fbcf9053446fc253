//! The services of a control plane while they run, and who looks after them.
//!
//! Always holds: when the services or consensus end by themselves everything else ends too, and why is told once.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::admin_v1::admin_server::AdminServer;
use gantry_wire::enrol_v1::enrol_server::EnrolServer;
use gantry_wire::sync_v1::sync_server::SyncServer;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::access::federation::{self, Federation};
use crate::access::gate::Gate;
use crate::access::identity::Doorkeeper;
use crate::access::{NodeCheck, TokenCheck, Whose};
use crate::admin::AdminService;
use crate::enrol::EnrolService;
use crate::options::Options;
use crate::plane::Plane;
use crate::raft::Consensus;
use crate::start::Failure;
use crate::stream::StreamService;
use crate::transport::{SecureError, Secured, Transport};

/// How long open calls may take to end. Streams end by themselves at once; the rest are single requests.
pub(crate) const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
/// How often it is asked whether consensus still runs.
const CONSENSUS_CHECK_INTERVAL: Duration = Duration::from_millis(250);
/// How often an idle connection is probed, and how long it may take to answer: a node that lost power is seen as gone
/// within half a minute.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_DEADLINE: Duration = Duration::from_secs(10);
/// Calls at one time on one connection. A node has one; an admin's tool a few.
const STREAMS_MAX: u32 = 128;

/// The services while they run.
pub(crate) type Services = Pin<Box<dyn Future<Output = Result<(), tonic::transport::Error>> + Send>>;

/// Serves until the process is to end and every connection has ended.
pub(crate) fn serve(
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
    let node_check = match &options.transport {
        Transport::Plain { node_token } => NodeCheck::Token(TokenCheck::new(Whose::Node, node_token)),
        Transport::Tls => NodeCheck::Certificate,
    };
    let federation = Federation::default();
    plane.tasks.spawn(federation::follow(plane.clone(), federation.clone()));
    let doorkeeper = Doorkeeper::new(&options.admin_token, federation);
    let router = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_DEADLINE))
        .max_concurrent_streams(STREAMS_MAX)
        .add_service(Gate::new(admin, plane.clone(), doorkeeper))
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
pub(crate) async fn supervise(
    plane: Arc<Plane>,
    mut services: Services,
    cut_off: impl Future<Output = ()>,
    failed: watch::Sender<Option<Failure>>,
) {
    let failure = tokio::select! {
        biased;
        () = plane.stop.cancelled() => None,
        ended = &mut services => {
            let reason = ended.err().map_or_else(|| "the listener ended".to_owned(), |error| error.to_string());
            Some(Failure::Services(reason))
        }
        () = cut_off => Some(Failure::CutOff(plane.consensus.status().await.voter)),
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
