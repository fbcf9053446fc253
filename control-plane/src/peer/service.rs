//! Answering other members over gRPC.

use std::sync::Arc;

use bytes::Bytes;
use gantry_wire::raft_v1::peer_server::Peer;
use gantry_wire::raft_v1::question::Question;
use gantry_wire::raft_v1::reply::Reply as Answered;
use gantry_wire::raft_v1::{self as wire, CheckpointPart, CheckpointReply, Reply};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use super::checkpoint::{self, TransferError};
use crate::access::CertifiedMember;
use crate::fleet::Fleet;
use crate::journal::Journal;
use crate::raft::{AnswerError, Consensus};

/// `gantry.raft.v1.Peer` on this member's consensus.
#[derive(Debug, Clone)]
pub(crate) struct PeerService {
    consensus: Consensus,
    fleet: Arc<Fleet>,
    journal: Arc<Journal>,
}

impl PeerService {
    pub(crate) fn new(consensus: Consensus, fleet: Arc<Fleet>, journal: Arc<Journal>) -> Self {
        Self { consensus, fleet, journal }
    }

    fn hear_records(&self, from: u64, records: Vec<Bytes>) {
        for record in records {
            if let Err(error) = self.journal.push_told(record) {
                tracing::warn!(from, %error, "another member told of what is no record");
            }
        }
    }
}

#[tonic::async_trait]
impl Peer for PeerService {
    async fn ask(&self, request: Request<wire::Question>) -> Result<Response<Reply>, Status> {
        let certified = certified(&request);
        let asked = request.into_inner();
        refuse_impostors(certified, asked.from)?;
        self.consensus.refuse_others(asked.to).map_err(status)?;
        let answer = match asked.question {
            Some(Question::Fleet(news)) => {
                self.fleet.nodes.told(asked.from, news, Instant::now());
                Answered::Fleet(wire::Blank {})
            }
            Some(Question::Records(news)) => {
                self.hear_records(asked.from, news.records);
                Answered::Records(wire::Blank {})
            }
            _ => return Ok(Response::new(self.consensus.answer(asked).await.map_err(status)?)),
        };
        Ok(Response::new(Reply { reply: Some(answer) }))
    }

    async fn install_checkpoint(
        &self,
        request: Request<Streaming<CheckpointPart>>,
    ) -> Result<Response<CheckpointReply>, Status> {
        let certified = certified(&request);
        let file = self.consensus.incoming_checkpoint().await;
        let head = checkpoint::receive(request.into_inner(), &file).await.map_err(broken)?;
        refuse_impostors(certified, head.from)?;
        let installed = self.consensus.install(head, file.clone()).await;
        // What is left over is removed at the next start.
        let _ = tokio::fs::remove_file(&*file).await;
        Ok(Response::new(installed.map_err(status)?))
    }
}

fn certified<T>(request: &Request<T>) -> Option<CertifiedMember> {
    request.extensions().get().copied()
}

/// Refuses who says that it is another member than its certificate does. Where there are no certificates, whoever has
/// the token is believed.
fn refuse_impostors(certified: Option<CertifiedMember>, from: u64) -> Result<(), Status> {
    match certified {
        Some(CertifiedMember(member)) if member.get() != from => Err(Status::permission_denied(format!(
            "it calls itself member {from}, and its certificate is that of member {member}"
        ))),
        Some(_) | None => Ok(()),
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
