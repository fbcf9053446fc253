//! Answering other members over gRPC.

use std::sync::Arc;

use gantry_wire::raft_v1::peer_server::Peer;
use gantry_wire::raft_v1::{CheckpointPart, CheckpointReply, Question, Reply};
use tonic::{Request, Response, Status, Streaming};

use super::checkpoint::{self, TransferError};
use crate::raft::{AnswerError, Consensus};

/// `gantry.raft.v1.Peer` on this member's consensus.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    consensus: Arc<Consensus>,
}

impl PeerService {
    pub(crate) fn new(consensus: Consensus) -> Self {
        Self { consensus: Arc::new(consensus) }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn ask(&self, request: Request<Question>) -> Result<Response<Reply>, Status> {
        let reply = self.consensus.answer(request.into_inner()).await.map_err(status)?;
        Ok(Response::new(reply))
    }

    async fn install_checkpoint(
        &self,
        request: Request<Streaming<CheckpointPart>>,
    ) -> Result<Response<CheckpointReply>, Status> {
        let file = self.consensus.incoming_checkpoint().await;
        let head = checkpoint::receive(request.into_inner(), &file).await.map_err(broken)?;
        let installed = self.consensus.install(head, file.clone()).await;
        // What is left over is removed at the next start.
        let _ = tokio::fs::remove_file(&*file).await;
        Ok(Response::new(installed.map_err(status)?))
    }
}

fn status(error: AnswerError) -> Status {
    let message = error.to_string();
    match error {
        AnswerError::NotThisMember { .. } => Status::failed_precondition(message),
        AnswerError::Unreadable(_) => Status::invalid_argument(message),
        AnswerError::Stopped(_) => Status::unavailable(message),
    }
}

fn broken(error: TransferError) -> Status {
    tracing::warn!(%error, "a checkpoint was not taken");
    match error {
        TransferError::Io(_) => Status::resource_exhausted("the checkpoint cannot be written here"),
        TransferError::Gone => Status::aborted(error.to_string()),
        TransferError::Damaged(_) => Status::data_loss(error.to_string()),
    }
}
