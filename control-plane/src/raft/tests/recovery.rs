//! Checkpoints, purges, failures under way, and directories that must not be started on.

use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

use openraft::storage::{RaftLogStorage, RaftLogStorageExt, RaftStateMachine};
use openraft::{CommittedLeaderId, EntryPayload};

use super::*;
use crate::raft::entry::Member;

/// Asks for a checkpoint and waits until the log under it is purged.
async fn checkpoint(consensus: &Consensus) -> Status {
    let applied = consensus.status().await.applied;
    let raft = &consensus.inner.raft;
    raft.trigger().snapshot().await.expect("trigger");
    let taken =
        |metrics: &openraft::RaftMetrics<u64, Member>| metrics.snapshot.map(|log_id| log_id.index) >= applied;
    raft.wait(Some(START_DEADLINE)).metrics(taken, "a checkpoint").await.expect("a checkpoint");
    raft.trigger().purge_log(applied.expect("applied")).await.expect("trigger");
    let purged =
        |metrics: &openraft::RaftMetrics<u64, Member>| metrics.purged.map(|log_id| log_id.index) >= applied;
    raft.wait(Some(START_DEADLINE)).metrics(purged, "a purge").await.expect("a purge");
    consensus.status().await
}

fn checkpoints(dir: &Path) -> usize {
    std::fs::read_dir(dir.join("checkpoints")).expect("checkpoints").count()
}

#[tokio::test]
async fn a_restart_after_a_checkpoint_and_a_purge_finds_everything() {
    let dir = tempfile::tempdir().expect("temporary directory");
    for round in 0..4 {
        let consensus = start(dir.path()).await;
        for at in 0..5 {
            apply(&consensus, &format!("tenant-{round}-{at}")).await;
        }
        let status = checkpoint(&consensus).await;
        assert_eq!((status.purged, status.checkpoint), (status.applied, status.applied));
        assert_eq!(checkpoints(dir.path()), 2.min(round + 1));
        if round % 2 == 0 {
            apply(&consensus, &format!("tenant-{round}-x")).await;
        }
        let expected = tenants(&consensus);
        consensus.shutdown().await.expect("shutdown");
        let consensus = start(dir.path()).await;
        assert_eq!(tenants(&consensus), expected);
        consensus.shutdown().await.expect("shutdown");
    }
}

#[tokio::test]
async fn a_checkpoint_installed_elsewhere_is_the_same_state_and_lasts() {
    let (from, to) = (tempfile::tempdir().expect("directory"), tempfile::tempdir().expect("directory"));
    let consensus = start(from.path()).await;
    apply(&consensus, "first").await;
    let [server, catalog] = large("acme", 200_000);
    consensus.propose(server).await.expect("propose");
    let last = consensus.propose(catalog).await.expect("propose").revision;
    checkpoint(&consensus).await;
    let expected = consensus.feed().latest().state;
    let sent = consensus.inner.raft.get_snapshot().await.expect("get").expect("a checkpoint");
    consensus.shutdown().await.expect("shutdown");

    let identity = entry::encode_identity(VOTER.0);
    let options = Options::new(to.path(), VOTER);
    let feed = Feed::new();
    let opened = Store::open(to.path(), &identity).expect("open");
    let store = opened.store.clone();
    let (mut log, mut machine) = restore(&options, opened, feed.clone()).expect("restore");
    let mut other = sent.meta.clone();
    other.snapshot_id.push('x');
    machine.install_snapshot(&other, sent.snapshot.clone()).await.expect_err("another one was announced");
    // openraft asks for both at once: the log goes when the state has come, and not before.
    let mut purge = Box::pin(log.purge(sent.meta.last_log_id.expect("something was applied")));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(purge.as_mut().poll(&mut context).is_pending());
    machine.install_snapshot(&sent.meta, sent.snapshot).await.expect("install");
    purge.await.expect("purge");
    assert_eq!(feed.latest().revision, last);
    assert_eq!(machine.get_current_snapshot().await.expect("get").expect("some").meta, sent.meta);
    store.close().await.expect("close");

    let opened = Store::open(to.path(), &identity).expect("open");
    let store = opened.store.clone();
    let (_log, mut machine) = restore(&options, opened, feed.clone()).expect("restore");
    assert_eq!(machine.applied_state().await.expect("state").0, sent.meta.last_log_id);
    let entries =
        |state: &State| state.entries().map(|(key, value)| (key.to_owned(), value)).collect::<Vec<_>>();
    assert_eq!(entries(&feed.latest().state), entries(&expected));
    store.close().await.expect("close");
}

#[tokio::test]
async fn state_that_trails_the_log_is_brought_forward_at_start() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let names: BTreeSet<_> = (0..10).map(|at| format!("tenant-{at}")).collect();
    for name in &names {
        apply(&consensus, name).await;
    }
    consensus.shutdown().await.expect("shutdown");
    // As after a power cut, which takes what was applied and not synced: an empty state under a whole log.
    let opened = Store::open(dir.path(), &[]).expect("open");
    opened.store.close().await.expect("close");
    crate::store::forget_state(dir.path());
    let consensus = start(dir.path()).await;
    assert_eq!(tenants(&consensus).into_iter().collect::<BTreeSet<_>>(), names);
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_disk_that_fails_makes_the_outcome_unknown_and_stops_the_voter() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    apply(&consensus, "before").await;
    consensus.inner.store.fail_after(0);
    let error = consensus.propose(put("during")).await.expect_err("the disk fails");
    assert!(
        matches!(&error, ProposeError::Unknown { reason } if reason.contains("injected failure")),
        "{error}"
    );
    assert_eq!(consensus.propose(put("after")).await, Err(ProposeError::ShuttingDown));
    // At once: there is no news to wait for any more.
    assert_eq!(consensus.catch_up().await, Err(StaleError("consensus is not running".to_owned())));
    let stopped = consensus.status().await.stopped.expect("stopped");
    assert!(stopped.contains("injected failure"), "{stopped}");
    consensus.shutdown().await.expect_err("the failure is told");
    let consensus = start(dir.path()).await;
    assert!(tenants(&consensus).contains(&"before".to_owned()));
    assert!(!tenants(&consensus).contains(&"after".to_owned()));
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn another_voters_directory_is_refused_and_stays_usable() {
    let dir = tempfile::tempdir().expect("temporary directory");
    start(dir.path()).await.shutdown().await.expect("shutdown");
    let error = try_start(dir.path(), VoterId(2)).await.expect_err("another voter");
    let expected = format!("data directory {} belongs to voter 1, this is voter 2", dir.path().display());
    assert_eq!(chain(&error), expected);
    start(dir.path()).await.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_directory_in_use_is_refused_by_name() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let error = try_start(dir.path(), VOTER).await.expect_err("in use");
    let (dir, process) = (dir.path().display(), std::process::id());
    let expected =
        format!("cannot open the store in {dir}: data directory {dir} is in use by process {process}");
    assert_eq!(chain(&error), expected);
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_member_of_a_larger_cluster_starts_without_the_others_with_what_it_has() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    apply(&consensus, "before").await;
    consensus.shutdown().await.expect("shutdown");
    append_to_closed(dir.path(), |log_id| {
        let members: BTreeMap<_, _> = [1, 2].map(|voter| (voter, Member::default())).into();
        let membership = openraft::Membership::new(vec![[1, 2].into()], members);
        entry::Entry { log_id, payload: EntryPayload::Membership(membership) }
    })
    .await;
    let consensus = start(dir.path()).await;
    assert_eq!(tenants(&consensus), ["before"]);
    let votes: Vec<_> = consensus.membership().members.iter().map(|member| member.voter.0).collect();
    assert_eq!(votes, [1, 2]);
    let refused = tokio::time::timeout(Duration::from_millis(200), consensus.propose(put("alone"))).await;
    assert!(refused.is_err(), "nothing is acknowledged without the other");
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_command_of_a_newer_build_stops_the_voter_and_is_not_skipped() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    apply(&consensus, "before").await;
    consensus.shutdown().await.expect("shutdown");
    append_to_closed(dir.path(), |log_id| {
        // Field 99, which no build has written yet.
        let commands = vec![Bytes::from_static(&[0x9a, 0x06, 0x00])];
        entry::Entry { log_id, payload: EntryPayload::Normal(entry::Batch { commands }) }
    })
    .await;
    for _ in 0..2 {
        let error = try_start(dir.path(), VOTER).await.expect_err("an unknown command");
        assert!(chain(&error).contains("not a command of this build"), "{}", chain(&error));
    }
}

/// Appends an entry behind the last one, as a leader of the last one's term would.
async fn append_to_closed(dir: &Path, make: impl FnOnce(entry::LogId) -> entry::Entry) {
    let opened = Store::open(dir, &[]).expect("open");
    let store = opened.store.clone();
    let options = Options::new(dir, VOTER);
    let (mut log, mut machine) = restore(&options, opened, Feed::new()).expect("restore");
    let last = machine.applied_state().await.expect("state").0.expect("something was applied");
    let leader = CommittedLeaderId::new(last.leader_id.term, last.leader_id.node_id);
    let entry = make(entry::LogId::new(leader, last.index + 1));
    log.blocking_append([entry]).await.expect("append");
    store.close().await.expect("close");
}
