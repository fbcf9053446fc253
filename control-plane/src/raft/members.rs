//! Who belongs to the cluster, who leads it, and changes of both.
//!
//! Always holds: one change at a time, and only on top of the membership that whoever asks for it has seen; a learner
//! becomes a voter only once it has the log; the last voter is never removed. A change without an answer is unknown; one
//! that has begun is finished by whoever leads.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_wire::raft_v1 as wire;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{ChangeMembers, RaftMetrics};
use tokio::time::{Instant, timeout};

use super::entry::{self, LogId, Member, StoredMembership};
use super::hand_over::HAND_OVER_DEADLINE;
use super::message;
use super::peers::Peer;
use super::{Consensus, VoterId, runtime};

/// How long a learner may take to have the log before it is made a voter. It goes on catching up when that is not
/// enough, so the change can be asked for again.
const CATCH_UP_DEADLINE: Duration = Duration::from_secs(15);
/// How long a change of membership may take: two entries, each with its quorum.
pub(super) const CHANGE_DEADLINE: Duration = Duration::from_secs(10);
/// How long it is waited for news of a leader before another try.
pub(super) const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A member of the cluster, as this process knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberStatus {
    /// Who.
    pub voter: VoterId,
    /// Host and port at which the others reach it.
    pub address: String,
    /// Whether it votes; a learner only follows.
    pub votes: bool,
    /// Up to where it has the leader's log; known to the leader alone.
    pub matched: Option<u64>,
}

/// Who belongs to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Names this membership: a change that expects it is refused once there is another.
    pub version: Option<MembershipVersion>,
    /// In the order of their ids.
    pub members: Vec<MemberStatus>,
    /// Whether a change of voters is between its two steps; whoever leads takes the second.
    pub changing: bool,
}

/// The log id of a membership, as an admin hands it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MembershipVersion {
    /// The term of the leader that proposed it.
    pub term: u64,
    /// That leader.
    pub leader: u64,
    /// Its place in the log.
    pub index: u64,
}

/// A change of who belongs to the cluster, or who leads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// A new member follows, or one that is there has another address.
    Learn(VoterId, String),
    /// A learner votes from now on.
    Promote(VoterId),
    /// A member is one no longer; its id is never used again.
    Remove(VoterId),
    /// Another voter is to lead.
    HandOver(VoterId),
}

/// Why a change of membership is not known to be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// Nothing was changed.
    #[error("{0}")]
    Refused(String),
    /// It may have been made, or may yet be.
    #[error("it is unknown whether the change was made: {0}")]
    Unknown(String),
    /// There is no leader that could make it. Nothing was changed.
    #[error("the cluster has no leader now; nothing was changed")]
    NoLeader,
}

pub(super) type Metrics = RaftMetrics<u64, Member>;

impl Consensus {
    /// The leader and its address, as far as this member knows.
    pub(super) fn leader(&self) -> Option<(VoterId, String)> {
        let metrics = self.inner.raft.metrics();
        let metrics = metrics.borrow();
        let leader = metrics.current_leader?;
        let member = metrics.membership_config.membership().get_node(&leader)?;
        Some((VoterId(leader), member.address.clone()))
    }

    /// Who belongs to the cluster, as far as this member knows.
    pub fn membership(&self) -> Membership {
        let metrics = self.inner.raft.metrics().borrow().clone();
        membership(&metrics)
    }

    /// Makes a change, on whichever member leads. `expected`: only on top of that membership.
    pub async fn change_members(
        &self,
        change: MembershipChange,
        expected: Option<MembershipVersion>,
    ) -> Result<Membership, ChangeError> {
        let wait = if matches!(change, MembershipChange::HandOver(_)) {
            HAND_OVER_DEADLINE
        } else {
            CATCH_UP_DEADLINE
        };
        // A leader that is to be removed hands over before.
        let deadline = Instant::now() + CHANGE_DEADLINE + HAND_OVER_DEADLINE;
        let mut metrics = self.inner.raft.server_metrics();
        loop {
            metrics.borrow_and_update();
            if let Some((leader, address)) = self.leader() {
                let answer = if leader == self.inner.voter {
                    Some(self.change_here(change.clone(), expected).await)
                } else {
                    let peer = Peer { voter: Some(leader), address };
                    let question = message::change_to_wire(self.inner.voter, leader.0, &change, expected);
                    let reply = self.inner.peers.ask(peer, question, wait + CHANGE_DEADLINE).await;
                    let reply = reply.map_err(|error| ChangeError::Unknown(error.to_string()))?;
                    message::change_reply_from_wire(reply)
                };
                if let Some(answer) = answer.filter(|answer| *answer != Err(ChangeError::NoLeader)) {
                    return answer;
                }
            }
            let news = timeout(RETRY_INTERVAL, metrics.changed()).await;
            // Without a sender there will be no news: consensus has ended here.
            if matches!(news, Ok(Err(_))) || Instant::now() >= deadline {
                return Err(ChangeError::NoLeader);
            }
        }
    }

    /// Makes this member known to its cluster under an address: through the leader, or through the member at `join`
    /// while none is known.
    pub async fn present(&self, address: &str, join: Option<&str>) -> Result<(), ChangeError> {
        let own = self.inner.voter;
        let is_known = |membership: &Membership| {
            membership.members.iter().any(|member| member.voter == own && member.address == address)
        };
        if is_known(&self.membership()) {
            return Ok(());
        }
        let change = MembershipChange::Learn(own, address.to_owned());
        if self.leader().is_some() {
            return self.change_members(change, None).await.map(|_| ());
        }
        let mut contact = join.map(str::to_owned).ok_or(ChangeError::NoLeader)?;
        // The first that is asked may name the leader.
        for _ in 0..2 {
            let peer = Peer { voter: None, address: contact };
            let question = message::change_to_wire(own, 0, &change, None);
            let reply = self.inner.peers.ask(peer, question, CATCH_UP_DEADLINE).await;
            let reply = reply.map_err(|error| ChangeError::Unknown(error.to_string()))?;
            match message::named_leader(&reply) {
                Some(leader) => contact = leader,
                None => {
                    return message::change_reply_from_wire(reply)
                        .unwrap_or(Err(ChangeError::NoLeader))
                        .map(|_| ());
                }
            }
        }
        Err(ChangeError::NoLeader)
    }

    /// Tells every other member something, at the same time; who does not answer in time is passed over.
    pub async fn tell_members(&self, news: &wire::question::Question, deadline: Duration) {
        let own = self.inner.voter;
        let mut telling = tokio::task::JoinSet::new();
        for member in self.membership().members {
            if member.voter == own {
                continue;
            }
            let question = wire::Question { from: own.0, to: member.voter.0, question: Some(news.clone()) };
            let peer = Peer { voter: Some(member.voter), address: member.address };
            telling.spawn(self.inner.peers.ask(peer, question, deadline));
        }
        while telling.join_next().await.is_some() {}
    }

    /// Makes a change for another member.
    pub(super) async fn change_for(&self, ask: wire::ChangeMembers) -> wire::ChangeMembersReply {
        use wire::change_members_reply::Outcome as To;
        let leads = self.leader().is_some_and(|(leader, _)| leader == self.inner.voter);
        let outcome = match (leads, message::change_from_wire(&ask)) {
            (false, _) => To::NotLeader(self.not_leader()),
            (true, None) => To::Refused("this build does not know the change".to_owned()),
            (true, Some((change, expected))) => match self.change_here(change, expected).await {
                Ok(_) => {
                    let metrics = self.inner.raft.metrics().borrow().clone();
                    To::Membership(entry::stored_membership_to_wire(&metrics.membership_config))
                }
                Err(ChangeError::Refused(reason)) => To::Refused(reason),
                Err(ChangeError::Unknown(reason)) => To::Unknown(reason),
                Err(ChangeError::NoLeader) => To::NotLeader(self.not_leader()),
            },
        };
        wire::ChangeMembersReply { outcome: Some(outcome) }
    }

    /// Makes a change on this member, which leads. It goes on when whoever asked goes away: a change that ends half way
    /// would leave two sets of voters, or a leader that is silent.
    pub(super) async fn change_here(
        &self,
        change: MembershipChange,
        expected: Option<MembershipVersion>,
    ) -> Result<Membership, ChangeError> {
        let leader = self.clone();
        let changed = runtime::spawn(async move { leader.change_now(change, expected).await }).await;
        changed.unwrap_or_else(|_| Err(ChangeError::Unknown("its task broke off".to_owned())))
    }

    async fn change_now(
        &self,
        change: MembershipChange,
        expected: Option<MembershipVersion>,
    ) -> Result<Membership, ChangeError> {
        let _one = self.inner.changing.lock().await;
        self.may_change(&change, expected).await?;
        // Before the first step, too: whatever was waited for meanwhile, another member may have led and changed more.
        let set = async |step| {
            self.may_change(&change, expected).await?;
            self.set_members(step).await
        };
        match change.clone() {
            MembershipChange::Learn(voter, address) => {
                self.refuse_removed(voter).await?;
                set(ChangeMembers::SetNodes(BTreeMap::from([(voter.0, Member { address })]))).await?;
            }
            MembershipChange::Promote(voter) => {
                self.refuse_removed(voter).await?;
                self.await_catch_up(voter).await?;
                set(ChangeMembers::AddVoterIds([voter.0].into())).await?;
            }
            MembershipChange::Remove(voter) => {
                self.remember_removed(voter).await?;
                let metrics = self.inner.raft.metrics().borrow().clone();
                let is_voter = metrics.membership_config.membership().voter_ids().any(|id| id == voter.0);
                set(if is_voter {
                    ChangeMembers::RemoveVoters([voter.0].into())
                } else {
                    ChangeMembers::RemoveNodes([voter.0].into())
                })
                .await?;
            }
            MembershipChange::HandOver(voter) => self.hand_over(voter).await?,
        }
        Ok(self.membership())
    }

    /// Whether this member may make the change now. One that it would remove hands over, so that another makes it.
    async fn may_change(
        &self,
        change: &MembershipChange,
        expected: Option<MembershipVersion>,
    ) -> Result<(), ChangeError> {
        let metrics = self.inner.raft.metrics().borrow().clone();
        check(&metrics, change, expected)?;
        let is_hand_over = matches!(change, MembershipChange::HandOver(_));
        if *change == MembershipChange::Remove(self.inner.voter)
            || self.is_to_leave(&metrics) && !is_hand_over
        {
            return Err(self.leave().await);
        }
        Ok(())
    }

    pub(super) async fn set_members(&self, change: ChangeMembers<u64, Member>) -> Result<(), ChangeError> {
        let changed = timeout(CHANGE_DEADLINE, self.inner.raft.change_membership(change, false)).await;
        let late = |_| ChangeError::Unknown("the voters did not agree in time".to_owned());
        changed.map_err(late)?.map(|_| ()).map_err(refused)
    }

    /// Waits until a member has what the leader had when it was asked.
    pub(super) async fn await_catch_up(&self, voter: VoterId) -> Result<(), ChangeError> {
        let goal = self.inner.raft.metrics().borrow().last_log_index;
        let caught_up = |metrics: &Metrics| {
            metrics.replication.is_none() || matched(metrics, voter).map(|log_id| log_id.index) >= goal
        };
        let wait = self.inner.raft.wait(Some(CATCH_UP_DEADLINE));
        let behind = |_| {
            let seconds = CATCH_UP_DEADLINE.as_secs();
            ChangeError::Refused(format!(
                "member {voter} did not catch up within {seconds} seconds; is it running?"
            ))
        };
        let metrics = wait.metrics(caught_up, "a member has the log").await.map_err(behind)?;
        if metrics.replication.is_none() {
            return Err(ChangeError::Refused("this member does not lead any more".to_owned()));
        }
        Ok(())
    }
}

pub(super) fn matched(metrics: &Metrics, voter: VoterId) -> Option<LogId> {
    metrics.replication.as_ref()?.get(&voter.0).copied().flatten()
}

pub(super) fn membership(metrics: &Metrics) -> Membership {
    let stored: &StoredMembership = &metrics.membership_config;
    let voters: Vec<u64> = stored.membership().voter_ids().collect();
    let member = |(voter, member): (&u64, &Member)| MemberStatus {
        voter: VoterId(*voter),
        address: member.address.clone(),
        votes: voters.contains(voter),
        matched: matched(metrics, VoterId(*voter)).map(|log_id| log_id.index),
    };
    Membership {
        version: stored.log_id().as_ref().map(version),
        members: stored.nodes().map(member).collect(),
        changing: stored.membership().get_joint_config().len() > 1,
    }
}

fn version(log_id: &LogId) -> MembershipVersion {
    MembershipVersion { term: log_id.leader_id.term, leader: log_id.leader_id.node_id, index: log_id.index }
}

/// Refuses what must not be done to the membership as it is.
fn check(
    metrics: &Metrics,
    change: &MembershipChange,
    expected: Option<MembershipVersion>,
) -> Result<(), ChangeError> {
    let refuse = |reason: String| Err(ChangeError::Refused(reason));
    let now = membership(metrics);
    if !now.members.iter().any(|member| member.voter.0 == metrics.id) {
        // It was removed, and leads only until the others know that. openraft does not let it make a change any more.
        return Err(ChangeError::NoLeader);
    }
    if expected.is_some() && expected != now.version {
        return refuse(
            "the membership changed meanwhile; look at it with `gantry cluster status`".to_owned(),
        );
    }
    let find = |voter: &VoterId| now.members.iter().find(|member| member.voter == *voter);
    let voters = now.members.iter().filter(|member| member.votes).count();
    match change {
        MembershipChange::Learn(..) => Ok(()),
        MembershipChange::Promote(voter)
        | MembershipChange::Remove(voter)
        | MembershipChange::HandOver(voter)
            if find(voter).is_none() =>
        {
            refuse(format!("there is no member {voter}"))
        }
        // While it has only begun to, asking again finishes it.
        MembershipChange::Promote(voter)
            if find(voter).is_some_and(|member| member.votes) && !now.changing =>
        {
            refuse(format!("member {voter} votes already"))
        }
        MembershipChange::Remove(voter) if voters == 1 && find(voter).is_some_and(|member| member.votes) => {
            refuse(format!("member {voter} is the only voter"))
        }
        MembershipChange::HandOver(voter) if !find(voter).is_some_and(|member| member.votes) => {
            refuse(format!("member {voter} does not vote; `gantry cluster add {voter}` makes it a voter"))
        }
        MembershipChange::HandOver(voter) if metrics.id == voter.0 => {
            refuse(format!("member {voter} leads already"))
        }
        MembershipChange::Promote(_) | MembershipChange::Remove(_) | MembershipChange::HandOver(_) => Ok(()),
    }
}

fn refused(error: RaftError<u64, ClientWriteError<u64, Member>>) -> ChangeError {
    match error {
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            ChangeError::Refused(error.to_string())
        }
        // A leader that loses its office answers so also for what it had proposed.
        error => ChangeError::Unknown(error.to_string()),
    }
}
