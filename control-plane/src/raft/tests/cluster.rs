//! Several members in one process, over a network that can be cut.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use gantry_wire::raft_v1::{self as wire, CheckpointHead, CheckpointReply, Question, Reply};
use tempfile::TempDir;

use super::*;
use crate::raft::entry::Member;

/// Members of one process, and who cannot hear whom.
#[derive(Debug, Default)]
pub(super) struct Switch {
    members: Mutex<HashMap<VoterId, Consensus>>,
    cut: Mutex<HashSet<(VoterId, VoterId)>>,
    /// So many replies to proposals are lost from now on.
    pub(super) lose_proposal_replies: AtomicUsize,
    /// Messages with commands for a leader.
    pub(super) proposals: AtomicUsize,
    /// Proposals are not answered at all.
    pub(super) swallow_proposals: AtomicBool,
    /// Members are of a build that reads the first command of a message only.
    pub(super) reads_one_command: AtomicBool,
}

/// The way of one member to the others.
#[derive(Debug)]
struct Wire {
    own: VoterId,
    switch: Arc<Switch>,
}

impl Wire {
    /// Whom a question reaches, if the answer also finds its way.
    fn reach(&self, peer: &Peer) -> Result<Consensus, PeerError> {
        let lost = |reason: &str| PeerError::Unreachable { peer: peer.clone(), reason: reason.to_owned() };
        let target = peer.address.parse().map(VoterId).map_err(|_| lost("no such address"))?;
        let cut = self.switch.cut.lock().expect("not poisoned");
        if cut.contains(&(self.own, target)) || cut.contains(&(target, self.own)) {
            return Err(lost("the wire is cut"));
        }
        let member = self.switch.members.lock().expect("not poisoned").get(&target).cloned();
        member.ok_or_else(|| lost("it is down"))
    }
}

impl Peers for Wire {
    fn ask(&self, peer: Peer, mut question: Question, deadline: Duration) -> Answering<Reply> {
        let (target, switch) = (self.reach(&peer), self.switch.clone());
        Box::pin(async move {
            let is_proposal = match &mut question.question {
                Some(wire::question::Question::Propose(propose)) => {
                    switch.proposals.fetch_add(1, Ordering::SeqCst);
                    if switch.reads_one_command.load(Ordering::SeqCst) {
                        propose.more.clear();
                    }
                    true
                }
                _ => false,
            };
            let (target, is_swallowed) = (target?, switch.swallow_proposals.load(Ordering::SeqCst));
            let answering = async {
                if is_proposal && is_swallowed {
                    std::future::pending::<()>().await;
                }
                target.answer(question).await
            };
            let answer = tokio::time::timeout(deadline, answering).await;
            let fewer = |left: usize| left.checked_sub(1);
            let left = &switch.lose_proposal_replies;
            if is_proposal && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, fewer).is_ok() {
                return Err(PeerError::Unreachable { peer, reason: "the reply was lost".to_owned() });
            }
            let answer = answer.map_err(|_| PeerError::Late { peer: peer.clone(), after: deadline })?;
            answer.map_err(|error| PeerError::Refused { peer, reason: error.to_string() })
        })
    }

    fn install(
        &self,
        peer: Peer,
        head: CheckpointHead,
        file: PathBuf,
        deadline: Duration,
    ) -> Answering<CheckpointReply> {
        let target = self.reach(&peer);
        Box::pin(async move {
            let target = target?;
            let refused = |reason: String| PeerError::Refused { peer: peer.clone(), reason };
            let incoming = target.incoming_checkpoint().await;
            std::fs::copy(file, &*incoming).map_err(|error| refused(error.to_string()))?;
            let installed = tokio::time::timeout(deadline, target.install(head, incoming.clone())).await;
            installed.expect("in time").map_err(|error| refused(error.to_string()))
        })
    }
}

pub(super) struct Cluster {
    pub(super) switch: Arc<Switch>,
    directories: Vec<TempDir>,
    checkpoint_entries: u64,
}

impl Cluster {
    /// Members 1 to `voters`, all of them voters.
    pub(super) async fn start(voters: u64, checkpoint_entries: u64) -> Self {
        let mut cluster = Self { switch: Arc::default(), directories: Vec::new(), checkpoint_entries };
        cluster.add(Formation::Found("1".to_owned())).await;
        for id in 2..=voters {
            cluster.join(VoterId(id)).await;
        }
        cluster
    }

    async fn add(&mut self, formation: Formation) -> VoterId {
        self.directories.push(tempfile::tempdir().expect("temporary directory"));
        let voter = VoterId(self.directories.len() as u64);
        self.up(voter, formation).await;
        voter
    }

    async fn up(&self, voter: VoterId, formation: Formation) {
        let directory = self.directories[voter.0 as usize - 1].path();
        let peers = Arc::new(Wire { own: voter, switch: self.switch.clone() });
        let checkpoint_entries = self.checkpoint_entries;
        let options = Options { formation, peers, checkpoint_entries, ..Options::new(directory, voter) };
        let consensus = Consensus::start(options, Feed::new()).await.expect("start");
        self.switch.members.lock().expect("not poisoned").insert(voter, consensus);
    }

    /// Adds a member, and makes it a voter.
    async fn join(&mut self, expected: VoterId) {
        let voter = self.add(Formation::Join).await;
        assert_eq!(voter, expected);
        let learn = MembershipChange::Learn(voter, voter.to_string());
        self.member(VoterId(1)).change_members(learn, None).await.expect("learn");
        let version = self.member(VoterId(1)).membership().version;
        let promote = MembershipChange::Promote(voter);
        self.member(VoterId(1)).change_members(promote, version).await.expect("promote");
    }

    async fn down(&self, voter: VoterId) {
        let member = self.switch.members.lock().expect("not poisoned").remove(&voter).expect("it is up");
        member.shutdown().await.expect("shutdown");
    }

    pub(super) fn member(&self, voter: VoterId) -> Consensus {
        self.switch.members.lock().expect("not poisoned")[&voter].clone()
    }

    fn cut(&self, one: VoterId) {
        let others = self.switch.members.lock().expect("not poisoned").keys().copied().collect::<Vec<_>>();
        self.switch.cut.lock().expect("not poisoned").extend(others.into_iter().map(|other| (one, other)));
    }

    fn heal(&self) {
        self.switch.cut.lock().expect("not poisoned").clear();
    }

    /// Who leads, as the member sees it, once that is one of these.
    pub(super) async fn leader_among(&self, seen_by: VoterId, among: &[VoterId]) -> VoterId {
        let member = self.member(seen_by);
        let led = |metrics: &openraft::RaftMetrics<u64, Member>| {
            metrics.current_leader.is_some_and(|leader| among.contains(&VoterId(leader)))
        };
        let metrics = member.inner.raft.wait(Some(Duration::from_secs(20))).metrics(led, "a leader").await;
        VoterId(metrics.expect("a leader").current_leader.expect("a leader"))
    }

    pub(super) async fn stop(self) {
        let members: Vec<_> = self.switch.members.lock().expect("not poisoned").keys().copied().collect();
        for member in members {
            self.down(member).await;
        }
    }
}

async fn has(consensus: &Consensus, expected: &[&str]) {
    consensus.catch_up().await.expect("caught up");
    assert_eq!(tenants(consensus), expected);
}

pub(super) const ONE: VoterId = VoterId(1);
pub(super) const TWO: VoterId = VoterId(2);
pub(super) const THREE: VoterId = VoterId(3);

#[tokio::test]
async fn every_member_takes_commands_and_reads_what_was_acknowledged_anywhere() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    for (member, name) in [(ONE, "one"), (TWO, "three"), (THREE, "two")] {
        apply(&cluster.member(member), name).await;
    }
    for member in [ONE, TWO, THREE] {
        has(&cluster.member(member), &["one", "three", "two"]).await;
    }
    let membership = cluster.member(TWO).membership();
    let members: Vec<_> = membership.members.iter().map(|member| (member.voter, member.votes)).collect();
    assert_eq!(members, [(ONE, true), (TWO, true), (THREE, true)]);
    cluster.stop().await;
}

#[tokio::test]
async fn commands_go_on_when_the_leader_is_gone_and_it_catches_up_when_it_is_back() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    apply(&cluster.member(TWO), "before").await;
    assert_eq!(cluster.leader_among(TWO, &[ONE, TWO, THREE]).await, ONE);
    cluster.down(ONE).await;
    // Proposed while nobody leads: it waits for the vote.
    apply(&cluster.member(TWO), "during").await;
    cluster.leader_among(THREE, &[TWO, THREE]).await;
    cluster.up(ONE, Formation::Join).await;
    has(&cluster.member(ONE), &["before", "during"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_is_cut_off_acknowledges_nothing_and_what_it_had_is_applied_once() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    cluster.cut(ONE);
    let cut_off = cluster.member(ONE);
    let waits = tokio::spawn(async move { cut_off.propose(put("lost")).await });
    let leader = cluster.leader_among(TWO, &[TWO, THREE]).await;
    apply(&cluster.member(leader), "kept").await;
    assert!(cluster.member(ONE).catch_up().await.is_err(), "a read that cannot be as of now is not answered");
    cluster.heal();
    // Whatever it was answered, it is there at most once, and where it was acknowledged it is there.
    let answered = waits.await.expect("task");
    let survivors = cluster.member(leader);
    survivors.catch_up().await.expect("caught up");
    let there = tenants(&survivors).contains(&"lost".to_owned());
    match answered {
        Ok(committed) => {
            assert!(there);
            assert_eq!(committed.outcome, Outcome::Done(vec![(tenant("lost").id(), ChangeKind::Created)]));
        }
        Err(ProposeError::Unknown { .. }) => {}
        Err(error) => panic!("{error}"),
    }
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_whose_disk_fails_acknowledges_nothing_more_and_the_others_go_on() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    apply(&cluster.member(TWO), "before").await;
    assert_eq!(cluster.leader_among(TWO, &[ONE, TWO, THREE]).await, ONE);
    let failing = cluster.member(ONE);
    failing.inner.store.fail_after(0);
    failing.propose(put("during")).await.expect_err("the disk fails");
    cluster.leader_among(TWO, &[TWO, THREE]).await;
    apply(&cluster.member(THREE), "other").await;
    let stopped = failing.status().await.stopped.expect("it stepped down");
    assert!(stopped.contains("injected failure"), "{stopped}");
    let failed = cluster.switch.members.lock().expect("not poisoned").remove(&ONE).expect("it was up");
    drop(failing);
    failed.shutdown().await.expect_err("the failure is told");
    cluster.up(ONE, Formation::Join).await;
    let back = cluster.member(ONE);
    back.catch_up().await.expect("caught up");
    let there = tenants(&back);
    // Nobody was told what became of the one under way; both are right.
    assert!(there == ["before", "other"] || there == ["before", "during", "other"], "{there:?}");
    cluster.stop().await;
}

#[tokio::test]
async fn a_member_that_is_far_behind_is_given_a_checkpoint() {
    let mut cluster = Cluster::start(1, 4).await;
    for round in 0..40 {
        apply(&cluster.member(ONE), &format!("t{round:02}")).await;
    }
    let first = cluster.member(ONE);
    let purged = |metrics: &openraft::RaftMetrics<u64, Member>| metrics.snapshot.is_some();
    first.inner.raft.wait(Some(Duration::from_secs(10))).metrics(purged, "a checkpoint").await.expect("made");
    let index = first.status().await.checkpoint.expect("a checkpoint");
    first.inner.raft.trigger().purge_log(index).await.expect("purge");
    let gone = |metrics: &openraft::RaftMetrics<u64, Member>| metrics.purged.is_some();
    first.inner.raft.wait(Some(Duration::from_secs(10))).metrics(gone, "purged").await.expect("purged");
    cluster.join(TWO).await;
    let second = cluster.member(TWO);
    second.catch_up().await.expect("caught up");
    assert_eq!(tenants(&second), tenants(&first));
    assert!(second.status().await.checkpoint.is_some(), "it came as a checkpoint");
    assert_eq!(second.feed().latest().state.digest(), first.feed().latest().state.digest());
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_whose_command_went_with_a_checkpoint_proposes_again_when_it_leads() {
    let cluster = Cluster::start(3, 4).await;
    cluster.cut(ONE);
    let cut_off = cluster.member(ONE);
    let lost = tokio::spawn(async move { cut_off.propose(put("lost")).await });
    let leader = cluster.leader_among(TWO, &[TWO, THREE]).await;
    let leader = cluster.member(leader);
    for round in 0..40 {
        apply(&leader, &format!("t{round:02}")).await;
    }
    // What the one that is cut off needs next is there in no log any more.
    let index = leader.status().await.checkpoint.expect("a checkpoint");
    leader.inner.raft.trigger().purge_log(index).await.expect("purge");
    let gone = |metrics: &openraft::RaftMetrics<u64, Member>| {
        metrics.purged.is_some_and(|log_id| log_id.index >= index)
    };
    leader.inner.raft.wait(Some(Duration::from_secs(10))).metrics(gone, "purged").await.expect("purged");
    cluster.heal();
    let back = cluster.member(ONE);
    back.catch_up().await.expect("caught up");
    assert_eq!(tenants(&back), tenants(&leader));
    let installed = |metrics: &openraft::RaftMetrics<u64, Member>| {
        metrics.purged.is_some_and(|log_id| log_id.index >= index)
    };
    back.inner
        .raft
        .wait(Some(Duration::from_secs(10)))
        .metrics(installed, "a checkpoint")
        .await
        .expect("it came as one");
    // Whoever asked would have left by itself after [`PROPOSE_DEADLINE`].
    lost.abort();
    leader.change_members(MembershipChange::HandOver(ONE), None).await.expect("handed over");
    apply(&back, "after").await;
    cluster.stop().await;
}

#[tokio::test]
async fn changes_of_membership_are_guarded() {
    let mut cluster = Cluster::start(2, CHECKPOINT_ENTRIES).await;
    let leader = cluster.member(ONE);
    let seen = leader.membership().version;
    cluster.join(THREE).await;
    let refused = |error: &str| Err(ChangeError::Refused(error.to_owned()));
    let change = |change, version| {
        let follower = cluster.member(TWO);
        async move { follower.change_members(change, version).await }
    };
    let changed = "the membership changed meanwhile; look at it with `gantry cluster status`";
    assert_eq!(change(MembershipChange::Remove(THREE), seen).await, refused(changed));
    assert_eq!(change(MembershipChange::Promote(THREE), None).await, refused("member 3 votes already"));
    assert_eq!(change(MembershipChange::Remove(VoterId(9)), None).await, refused("there is no member 9"));
    assert_eq!(change(MembershipChange::HandOver(ONE), None).await, refused("member 1 leads already"));
    let left = change(MembershipChange::Remove(THREE), None).await.expect("removed");
    assert_eq!(left.members.iter().map(|member| member.voter).collect::<Vec<_>>(), [ONE, TWO]);
    apply(&cluster.member(TWO), "after").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_hands_over_and_commands_go_on() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    apply(&cluster.member(ONE), "before").await;
    cluster.member(ONE).change_members(MembershipChange::HandOver(THREE), None).await.expect("handed over");
    assert_eq!(cluster.leader_among(ONE, &[TWO, THREE]).await, THREE);
    apply(&cluster.member(ONE), "during").await;
    has(&cluster.member(TWO), &["before", "during"]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_that_goes_down_hands_over_to_a_voter_that_is_there() {
    // Each of the two others is the one that is gone once: by their logs no one can tell.
    for gone in [TWO, THREE] {
        let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
        apply(&cluster.member(ONE), "before").await;
        for member in [TWO, THREE] {
            has(&cluster.member(member), &["before"]).await;
        }
        cluster.down(gone).await;
        let leader = cluster.member(ONE);
        leader.hand_over_to_any().await.expect("handed over");
        let other = if gone == TWO { THREE } else { TWO };
        assert_eq!(cluster.leader_among(other, &[TWO, THREE]).await, other);
        cluster.stop().await;
    }
}

#[tokio::test]
async fn a_hand_over_goes_on_when_whoever_asked_for_it_goes_away() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    let leader = cluster.member(ONE);
    let asked =
        tokio::spawn(async move { leader.change_members(MembershipChange::HandOver(THREE), None).await });
    let leader = cluster.member(ONE);
    until(|| leader.is_handing_over()).await;
    asked.abort();
    assert_eq!(cluster.leader_among(ONE, &[TWO, THREE]).await, THREE);
    until(|| !leader.is_handing_over()).await;
    apply(&leader, "after").await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_change_of_voters_that_stopped_half_way_is_finished() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    let leader = cluster.member(ONE);
    cluster.cut(ONE);
    let raft = leader.inner.raft.clone();
    let change = openraft::ChangeMembers::RemoveVoters([THREE.0].into());
    let asked = tokio::spawn(async move { raft.change_membership(change, false).await });
    until(|| leader.membership().changing).await;
    asked.abort();
    assert!(asked.await.expect_err("it was aborted").is_cancelled());
    cluster.heal();
    until(|| !leader.membership().changing).await;
    let voters: Vec<_> = leader.membership().members.iter().map(|member| member.voter).collect();
    assert_eq!(voters, [ONE, TWO]);
    apply(&cluster.member(TWO), "after").await;
    cluster.stop().await;
}

/// Waits for a condition.
pub(super) async fn until(mut holds: impl FnMut() -> bool) {
    let held = async {
        while !holds() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held).await.expect("it holds in time");
}

#[tokio::test]
async fn a_leader_without_a_quorum_says_so_and_proposes_nothing() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    let leader = cluster.member(ONE);
    assert_eq!(leader.status().await.quorum_silent, None);
    cluster.cut(ONE);
    let silent = |metrics: &openraft::RaftMetrics<u64, Member>| {
        metrics.millis_since_quorum_ack.is_some_and(|millis| millis > ELECTION_MS_MAX)
    };
    let wait = leader.inner.raft.wait(Some(Duration::from_secs(20)));
    wait.metrics(silent, "silence").await.expect("silence");
    let said = leader.status().await.quorum_silent.expect("it says so");
    assert!(said > Duration::from_millis(ELECTION_MS_MAX), "{said:?}");
    assert_eq!(leader.propose(put("never")).await, Err(ProposeError::NoQuorum));
    cluster.heal();
    has(&cluster.member(TWO), &[]).await;
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_can_be_removed_and_the_others_go_on() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    apply(&cluster.member(ONE), "before").await;
    let left = cluster.member(TWO).change_members(MembershipChange::Remove(ONE), None).await;
    let left = left.expect("removed");
    assert_eq!(left.members.iter().map(|member| member.voter).collect::<Vec<_>>(), [TWO, THREE]);
    cluster.down(ONE).await;
    cluster.leader_among(THREE, &[TWO, THREE]).await;
    apply(&cluster.member(TWO), "after").await;
    has(&cluster.member(THREE), &["after", "before"]).await;
    cluster.stop().await;
}
