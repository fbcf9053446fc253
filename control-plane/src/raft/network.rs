//! openraft's network on [`Peers`].
//!
//! Always holds: a reply that does not fit the question, or that this build does not know, counts as none.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use gantry_wire::raft_v1 as wire;
use openraft::OptionalSend;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;

use super::VoterId;
use super::entry::{self, Config, Member, Vote};
use super::message;
use super::peers::{Peer, PeerError, Peers};

/// How long a checkpoint may take to cross and to be installed: a gigabyte at 10 MB/s, and its writing.
const CHECKPOINT_DEADLINE: Duration = Duration::from_secs(300);
/// How long a member that cannot be reached is left alone: a heartbeat.
const RETRY_INTERVAL: Duration = Duration::from_millis(super::HEARTBEAT_MS);

/// Makes the ways to other members.
#[derive(Debug)]
pub(super) struct Network {
    pub(super) own: VoterId,
    pub(super) peers: Arc<dyn Peers>,
}

/// The way to one member.
#[derive(Debug)]
pub(super) struct Link {
    own: VoterId,
    peer: Peer,
    peers: Arc<dyn Peers>,
}

type AskError = RPCError<u64, Member, RaftError<u64>>;

impl RaftNetworkFactory<Config> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, member: &Member) -> Link {
        let peer = Peer { voter: Some(VoterId(target)), address: member.address.clone() };
        Link { own: self.own, peer, peers: self.peers.clone() }
    }
}

impl Link {
    async fn ask(
        &self,
        question: wire::question::Question,
        deadline: Duration,
    ) -> Result<wire::reply::Reply, AskError> {
        let to = self.peer.voter.map_or(0, |voter| voter.0);
        let question = wire::Question { from: self.own.0, to, question: Some(question) };
        let reply = self.peers.ask(self.peer.clone(), question, deadline).await.map_err(failed)?;
        reply.reply.ok_or_else(|| failed(self.unfit()))
    }

    fn unfit(&self) -> PeerError {
        PeerError::Refused { peer: self.peer.clone(), reason: "its reply does not fit the question".into() }
    }
}

fn failed(error: PeerError) -> AskError {
    match error {
        PeerError::Unreachable { .. } => RPCError::Unreachable(Unreachable::new(&error)),
        PeerError::Late { .. } | PeerError::Refused { .. } => RPCError::Network(NetworkError::new(&error)),
    }
}

impl RaftNetwork<Config> for Link {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Config>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, AskError> {
        let question = wire::question::Question::Append(message::append_to_wire(&request));
        match self.ask(question, option.hard_ttl()).await? {
            wire::reply::Reply::Append(reply) => {
                message::append_reply_from_wire(reply).ok_or_else(|| failed(self.unfit()))
            }
            _ => Err(failed(self.unfit())),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, AskError> {
        let question = wire::question::Question::Vote(message::vote_to_wire(&request));
        match self.ask(question, option.hard_ttl()).await? {
            wire::reply::Reply::Vote(reply) => {
                message::vote_reply_from_wire(reply).ok_or_else(|| failed(self.unfit()))
            }
            _ => Err(failed(self.unfit())),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        checkpoint: Snapshot<Config>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Config, Fatal<u64>>> {
        let head = wire::CheckpointHead {
            from: self.own.0,
            to: self.peer.voter.map_or(0, |voter| voter.0),
            vote: Some(entry::vote_to_wire(&vote)),
            header: Some(entry::checkpoint_header_to_wire(&checkpoint.meta)),
            // The sender of the file fills it in.
            bytes: 0,
        };
        let file = checkpoint.snapshot.path.clone();
        let installed = self.peers.install(self.peer.clone(), head, file, CHECKPOINT_DEADLINE);
        let reply = tokio::select! {
            biased;
            closed = cancel => return Err(StreamingError::Closed(closed)),
            reply = installed => reply,
        };
        // Whatever happened, the next try is better made a little later than at once.
        let unreachable = |error: PeerError| StreamingError::Unreachable(Unreachable::new(&error));
        let vote = reply.map_err(unreachable)?.vote.ok_or_else(|| unreachable(self.unfit()))?;
        Ok(SnapshotResponse::new(entry::vote_from_wire(vote)))
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(RETRY_INTERVAL))
    }
}
