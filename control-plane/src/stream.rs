//! The stream service: how nodes follow the state (`sync.proto`).
//!
//! Always holds:
//! - a node has at most one update unanswered; what changes meanwhile becomes one later update, so a slow node costs
//!   memory by the number of keys, never a queue;
//! - an update leads exactly to the state of its revision, and says the digest of it; a node whose digest differs
//!   gets a snapshot;
//! - every revision is acknowledged, also one that changes nothing for nodes (its update is empty), so that the
//!   status shows who has it;
//! - a ban goes ahead of all updates, also of one that is being sent or taken in, and has an answer of its own; a denial
//!   does where an update is in its way;
//! - a node hears which certificates of members were taken back before anything else;
//! - a node of the mesh is told of the others at once when one joins or leaves, between the parts of an update too;
//! - a node is told nothing of a tenant beyond its scope, which its certificate says, and is not believed where it tells
//!   of one;
//! - a secret is sent in the update that changes it, sealed to the key of the one process.
//!
//! A node with a certificate is known by the name in it, and takes no other. Without TLS all nodes share a token.

mod approvals;
mod catalogs;
mod counting;
mod distrusted;
mod intake;
mod members;
mod rejection;
mod session;
mod update;
mod urgent;

use std::sync::Arc;

use gantry_model::{ResourceId, ServerName, TenantName};
use gantry_node::tls::Caller;
use gantry_wire::sync_v1::sync_server::Sync;
use gantry_wire::sync_v1::{
    ApprovalAnswer, AskApprovalRequest, NodeMessage, ServerMessage, TakeApprovalRequest,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::access::CertifiedNode;
use crate::plane::Plane;

/// Parts of an update that wait for the transport; it has buffers of its own.
const PARTS_QUEUED_MAX: usize = 2;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct StreamService {
    plane: Arc<Plane>,
}

impl StreamService {
    pub(crate) fn new(plane: Arc<Plane>) -> StreamService {
        StreamService { plane }
    }
}

#[tonic::async_trait]
impl Sync for StreamService {
    type FollowStream = ReceiverStream<Result<ServerMessage, Status>>;

    async fn follow(
        &self,
        request: Request<Streaming<NodeMessage>>,
    ) -> Result<Response<Self::FollowStream>, Status> {
        let (outbound, messages) = mpsc::channel(PARTS_QUEUED_MAX);
        let plane = self.plane.clone();
        let certified = request.extensions().get::<CertifiedNode>().cloned();
        // With TLS the connection is one of our own making.
        let address = request.extensions().get::<Caller>().map(|caller| caller.address);
        let proof = (certified, address.or(request.remote_addr()));
        self.plane.tasks.spawn(async move {
            let ended = session::serve(&plane, proof, request.into_inner(), &outbound).await;
            if let Err(end) = ended {
                tracing::info!(reason = %end, "a node's stream ends");
                // A node that does not read learns by the end of the stream itself.
                let _ = outbound.try_send(Err(end.into()));
            }
        });
        Ok(Response::new(ReceiverStream::new(messages)))
    }

    async fn ask_approval(
        &self,
        request: Request<AskApprovalRequest>,
    ) -> Result<Response<ApprovalAnswer>, Status> {
        let certified = request.extensions().get::<CertifiedNode>().cloned();
        approvals::ask(&self.plane, certified.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn take_approval(
        &self,
        request: Request<TakeApprovalRequest>,
    ) -> Result<Response<ApprovalAnswer>, Status> {
        let certified = request.extensions().get::<CertifiedNode>().cloned();
        approvals::take(&self.plane, certified.as_ref(), request.into_inner()).await.map(Response::new)
    }
}

/// Notes when each revision came, and forgets what is known of servers that it took away; ends with the process.
pub(crate) async fn keep_time(plane: Arc<Plane>) {
    let mut newest = plane.consensus.feed().subscribe();
    loop {
        newest.borrow_and_update();
        let view = plane.consensus.feed().latest();
        plane.fleet.timeline.note(view.revision, Instant::now());
        let is_there = |tenant: &TenantName, server: &ServerName| {
            view.state.resource(&ResourceId::server(tenant, server)).is_some()
        };
        plane.fleet.failures.retain(is_there);
        plane.fleet.flapping.retain(is_there);
        tokio::select! {
            () = plane.stop.cancelled() => return,
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}
