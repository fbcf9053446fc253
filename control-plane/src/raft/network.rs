//! The network between voters, which this release does not have.
//!
//! Clusters have one voter, so openraft never calls it. It answers that there is nobody, not that it failed.

use std::future::Future;

use openraft::OptionalSend;
use openraft::error::{Fatal, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use thiserror::Error;

use super::entry::{Config, Member, Vote};

/// Makes clients that reach nobody.
#[derive(Debug)]
pub(super) struct NoNetwork;

/// A client that reaches nobody.
#[derive(Debug)]
pub(super) struct NoPeer {
    target: u64,
}

#[derive(Debug, Error)]
#[error("voter {0} cannot be reached: this release has no network between voters")]
struct NoNetworkError(u64);

impl NoPeer {
    fn unreachable(&self) -> Unreachable {
        Unreachable::new(&NoNetworkError(self.target))
    }
}

impl RaftNetworkFactory<Config> for NoNetwork {
    type Network = NoPeer;

    async fn new_client(&mut self, target: u64, _node: &Member) -> NoPeer {
        NoPeer { target }
    }
}

impl RaftNetwork<Config> for NoPeer {
    async fn append_entries(
        &mut self,
        _request: AppendEntriesRequest<Config>,
        _option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, RPCError<u64, Member, RaftError<u64>>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn vote(
        &mut self,
        _request: VoteRequest<u64>,
        _option: RPCOption,
    ) -> Result<VoteResponse<u64>, RPCError<u64, Member, RaftError<u64>>> {
        Err(RPCError::Unreachable(self.unreachable()))
    }

    async fn full_snapshot(
        &mut self,
        _vote: Vote,
        _checkpoint: Snapshot<Config>,
        _cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<Config, Fatal<u64>>> {
        Err(StreamingError::Unreachable(self.unreachable()))
    }
}
