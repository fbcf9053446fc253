//! Letting another voter lead.
//!
//! openraft 0.9 has no leader transfer: this leader stops proposing, falls silent, and asks the other to stand until the
//! voters elect it, so that nobody leads for about an election's time.
//!
//! Always holds: a leader that goes on leading, or whose hand-over breaks off, takes commands and sends heartbeats again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use gantry_wire::raft_v1 as wire;
use tokio::time::{Instant, timeout};

use super::members::{CHANGE_DEADLINE, ChangeError, MembershipChange, Metrics, matched};
use super::peers::Peer;
use super::{Consensus, ELECTION_MS_MAX, ELECTION_MS_MIN, VoterId};

/// How long a hand-over may take. The others vote once they have not heard of this leader for an election's time.
pub(super) const HAND_OVER_DEADLINE: Duration = Duration::from_millis(4 * ELECTION_MS_MAX);

/// While it is there, this member proposes nothing.
struct HandingOver<'a>(&'a Consensus);

impl<'a> HandingOver<'a> {
    fn begin(leader: &'a Consensus) -> Self {
        leader.inner.handing_over.store(true, Ordering::SeqCst);
        Self(leader)
    }

    /// No heartbeat, no candidacy: the voters believe that this leader is gone.
    fn fall_silent(&self) {
        let runtime = self.0.inner.raft.runtime_config();
        runtime.heartbeat(false);
        runtime.elect(false);
    }
}

impl Drop for HandingOver<'_> {
    fn drop(&mut self) {
        let runtime = self.0.inner.raft.runtime_config();
        runtime.heartbeat(true);
        runtime.elect(true);
        self.0.inner.handing_over.store(false, Ordering::SeqCst);
    }
}

impl Consensus {
    /// Lets another voter lead. [`ChangeError::Refused`]: this member leads on.
    pub(super) async fn hand_over(&self, voter: VoterId) -> Result<(), ChangeError> {
        let handing_over = HandingOver::begin(self);
        self.await_catch_up(voter).await?;
        handing_over.fall_silent();
        let deadline = Instant::now() + HAND_OVER_DEADLINE;
        let mut metrics = self.inner.raft.metrics();
        let address = metrics.borrow().membership_config.membership().get_node(&voter.0).cloned();
        let address = address.ok_or_else(|| ChangeError::Refused(format!("member {voter} is gone")))?.address;
        loop {
            // Asked again until the lease of this leader has run out and the others vote for it.
            let question = wire::question::Question::TakeOver(wire::TakeOver {});
            let question = wire::Question { from: self.inner.voter.0, to: voter.0, question: Some(question) };
            let peer = Peer { voter: Some(voter), address: address.clone() };
            // Whether it was heard shows in who leads.
            let _ = self.inner.peers.ask(peer, question, CHANGE_DEADLINE).await;
            let led =
                |metrics: &Metrics| metrics.current_leader.is_some_and(|leader| leader != self.inner.voter.0);
            if let Ok(Ok(_)) =
                timeout(Duration::from_millis(ELECTION_MS_MIN / 2), metrics.wait_for(led)).await
            {
                return Ok(());
            }
            if Instant::now() > deadline {
                let reason = format!("member {voter} did not win the vote; this member goes on leading");
                return Err(ChangeError::Refused(reason));
            }
        }
    }

    /// Hands over to the voter that has most of the log, of those that answer; nothing when this member does not lead or
    /// is alone.
    pub async fn hand_over_to_any(&self) -> Result<(), ChangeError> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let is_own = |voter: u64| voter == self.inner.voter.0;
        let others = metrics.membership_config.membership().voter_ids().any(|voter| !is_own(voter));
        if !metrics.current_leader.is_some_and(is_own) || !others {
            return Ok(());
        }
        let voter = self.successor().await?;
        self.change_here(MembershipChange::HandOver(voter), None).await.map(|_| ())
    }

    /// The voter that has most of the log, of those that answer and that are to stay voters.
    pub(super) async fn successor(&self) -> Result<VoterId, ChangeError> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        let membership = metrics.membership_config.membership();
        let newest = membership.get_joint_config().last().cloned().unwrap_or_default();
        let mut voters: Vec<_> = newest.into_iter().filter(|voter| *voter != self.inner.voter.0).collect();
        voters.sort_by_key(|voter| std::cmp::Reverse(matched(&metrics, VoterId(*voter))));
        // In an idle cluster one that is gone has as much of the log as the others.
        for voter in voters {
            let Some(member) = membership.get_node(&voter) else { continue };
            let peer = Peer { voter: Some(VoterId(voter)), address: member.address.clone() };
            let question = wire::question::Question::ReadIndex(wire::ReadIndex {});
            let question = wire::Question { from: self.inner.voter.0, to: voter, question: Some(question) };
            let deadline = Duration::from_millis(ELECTION_MS_MAX);
            if self.inner.peers.ask(peer, question, deadline).await.is_ok() {
                return Ok(VoterId(voter));
            }
        }
        Err(ChangeError::Refused("no other voter answers; this member goes on leading".to_owned()))
    }

    pub(super) fn is_handing_over(&self) -> bool {
        self.inner.handing_over.load(Ordering::SeqCst)
    }
}
