//! Making the cluster at the first start, and leading it at once where this member is alone.
//!
//! Always holds: a cluster is made once; a voter that is alone leads, and has applied its log, before it takes anything.

use std::collections::BTreeMap;

use openraft::Raft;

use super::entry::{Config, Member};
use super::{Formation, START_DEADLINE, StartError, VoterId};

/// Makes the cluster when that is this member's part, and lets a voter that is alone lead.
pub(super) async fn form(
    raft: &Raft<Config>,
    voter: VoterId,
    formation: &Formation,
) -> Result<(), StartError> {
    let failed = |error: String| StartError::Raft(error);
    if raft.is_initialized().await.map_err(|error| failed(error.to_string()))? {
        let metrics = raft.metrics().borrow().clone();
        let voters: Vec<_> = metrics.membership_config.membership().voter_ids().collect();
        if voters != [voter.0] {
            return Ok(());
        }
        // Rather than after an election timeout.
        raft.trigger().elect().await.map_err(|error| failed(error.to_string()))?;
    } else {
        let Formation::Found(address) = formation else { return Ok(()) };
        let members = BTreeMap::from([(voter.0, Member { address: address.clone() })]);
        raft.initialize(members).await.map_err(|error| failed(error.to_string()))?;
    }
    lead(raft, voter).await
}

/// Waits until the only voter leads and has applied its log.
async fn lead(raft: &Raft<Config>, voter: VoterId) -> Result<(), StartError> {
    let failed = |error: String| StartError::Raft(error);
    let ready = |metrics: &openraft::RaftMetrics<u64, Member>| {
        let applied = metrics.last_applied.map(|log_id| log_id.index);
        let stopped = metrics.running_state.is_err();
        let leads = metrics.current_leader == Some(voter.0) && metrics.state.is_leader();
        stopped || (leads && applied.is_some() && applied == metrics.last_log_index)
    };
    let metrics = raft.wait(Some(START_DEADLINE)).metrics(ready, "leading").await;
    let metrics = metrics.map_err(|error| failed(error.to_string()))?;
    metrics.running_state.map_err(|error| failed(error.to_string()))
}
