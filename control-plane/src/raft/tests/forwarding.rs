//! Commands that members hand on to their leader.

use std::sync::atomic::Ordering;

use super::cluster::{Cluster, ONE, THREE, TWO, until};
use super::*;

/// Proposes so many tenants at a time on a member that does not lead, and gives how many messages that took.
async fn propose_elsewhere(cluster: &Cluster, count: usize) -> usize {
    let (leader, elsewhere) = (cluster.member(ONE), cluster.member(TWO));
    let before = cluster.switch.proposals.load(Ordering::SeqCst);
    let proposals = (0..count).map(|at| {
        let elsewhere = elsewhere.clone();
        tokio::spawn(async move { apply(&elsewhere, &format!("tenant-{at:03}")).await })
    });
    let mut revisions = Vec::new();
    for proposal in proposals.collect::<Vec<_>>() {
        revisions.push(proposal.await.expect("task"));
    }
    for (at, revision) in revisions.into_iter().enumerate() {
        let key = RecordKey::from(&tenant(&format!("tenant-{at:03}")).id());
        let record = leader.feed().latest().state.record(&key).map(|record| record.revision);
        assert_eq!(record, Some(revision), "each has its own answer");
    }
    assert_eq!(tenants(&leader).len(), count);
    cluster.switch.proposals.load(Ordering::SeqCst) - before
}

#[tokio::test]
async fn commands_that_wait_together_go_to_the_leader_together() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    let messages = propose_elsewhere(&cluster, 300).await;
    assert!(messages <= 30, "{messages} messages for 300 commands");
    cluster.stop().await;
}

#[tokio::test]
async fn a_leader_of_an_earlier_build_is_sent_one_command_a_message() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    cluster.switch.reads_one_command.store(true, Ordering::SeqCst);
    let messages = propose_elsewhere(&cluster, 30).await;
    assert_eq!(messages, 30);
    cluster.stop().await;
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_and_the_command_applied_once() {
    let cluster = Cluster::start(2, CHECKPOINT_ENTRIES).await;
    cluster.switch.lose_proposal_replies.store(1, Ordering::SeqCst);
    // Were it applied again, the answer would be that nothing changed.
    let revision = apply(&cluster.member(TWO), "once").await;
    assert_eq!(cluster.switch.lose_proposal_replies.load(Ordering::SeqCst), 0, "a reply was lost");
    let state = cluster.member(TWO).feed().latest().state;
    let record = state.record(&RecordKey::from(&tenant("once").id())).expect("a record").clone();
    assert_eq!(record.revision, revision);
    cluster.stop().await;
}

#[tokio::test]
async fn commands_do_not_wait_for_a_leader_that_is_none_any_more() {
    let cluster = Cluster::start(3, CHECKPOINT_ENTRIES).await;
    let (before, elsewhere) = (cluster.member(ONE), cluster.member(TWO));
    // What a proposer that nobody knows tries again stays unknown.
    apply(&elsewhere, "known").await;
    cluster.switch.swallow_proposals.store(true, Ordering::SeqCst);
    // More than leave at one time.
    let lost: Vec<_> = (0..8)
        .map(|at| {
            let elsewhere = elsewhere.clone();
            tokio::spawn(async move { apply(&elsewhere, &format!("lost-{at}")).await })
        })
        .collect();
    until(|| cluster.switch.proposals.load(Ordering::SeqCst) > 1).await;
    cluster.switch.swallow_proposals.store(false, Ordering::SeqCst);
    let began = tokio::time::Instant::now();
    before.change_members(MembershipChange::HandOver(THREE), None).await.expect("handed over");
    for lost in lost {
        lost.await.expect("proposed again");
    }
    assert!(began.elapsed() < PROPOSE_DEADLINE / 2, "{:?}", began.elapsed());
    assert_eq!(tenants(&elsewhere).len(), 9);
    cluster.stop().await;
}
