//! Finishing changes of voters that stopped half way: openraft 0.9 takes two steps for one, and leaves two sets of voters
//! when the leader goes between them.
//!
//! Always holds: whoever leads takes the second step, as long as two sets are there; a leader that is in the old set only
//! hands over before, because openraft lets one that removed itself lead, and change more, until its next tick.

use std::collections::BTreeSet;

use openraft::ChangeMembers;

use super::Consensus;
use super::members::{ChangeError, Metrics, RETRY_INTERVAL};

impl Consensus {
    /// Takes the second step of changes of voters that stopped after the first, whenever this member leads. Ends with
    /// consensus.
    pub(super) async fn finish_changes(self) {
        let half_way = |metrics: &Metrics| {
            metrics.running_state.is_err()
                || metrics.state.is_leader()
                    && metrics.membership_config.membership().get_joint_config().len() > 1
        };
        let mut metrics = self.inner.raft.metrics();
        let finish = async {
            while metrics.wait_for(half_way).await.is_ok_and(|metrics| metrics.running_state.is_ok()) {
                let _one = self.inner.changing.lock().await;
                if half_way(&metrics.borrow_and_update()) {
                    match self.finish_change().await {
                        Ok(()) => tracing::info!("a change of voters that had stopped half way was finished"),
                        Err(error) => tracing::debug!(%error, "a change of voters cannot be finished yet"),
                    }
                }
                tokio::time::sleep(RETRY_INTERVAL).await;
            }
        };
        self.inner.stop.run_until_cancelled(finish).await;
    }

    async fn finish_change(&self) -> Result<(), ChangeError> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        if self.is_to_leave(&metrics) {
            return Err(self.leave().await);
        }
        self.set_members(ChangeMembers::AddVoterIds(BTreeSet::new())).await
    }

    /// Whether the next change, of whatever sort, would remove this member.
    pub(super) fn is_to_leave(&self, metrics: &Metrics) -> bool {
        let newest = metrics.membership_config.membership().get_joint_config().last();
        newest.is_some_and(|newest| !newest.contains(&self.inner.voter.0))
    }

    /// Hands over, so that whoever leads then makes the change.
    pub(super) async fn leave(&self) -> ChangeError {
        let left = async { self.hand_over(self.successor().await?).await };
        left.await.err().unwrap_or(ChangeError::NoLeader)
    }
}
