//! Consensus of one voter, from the storage that openraft demands to restarts and failures.

mod cluster;
mod conformance;
mod forwarding;
mod recovery;

use std::path::Path;

use gantry_control_state::{ChangeKind, Command};
use gantry_model::record::RecordKey;
use gantry_model::{Catalog, Definition, Kind, Resource, document};
use serde_json::json;

use super::*;

const VOTER: VoterId = VoterId(1);

fn tenant(name: &str) -> Resource {
    document::parse(json!({"kind": "Tenant", "name": name, "spec": {}})).expect("a valid tenant")
}

fn put(name: &str) -> Command {
    Command::Apply(vec![tenant(name)])
}

/// A server with a catalog of about this many bytes, to be proposed in this order.
fn large(name: &str, bytes: usize) -> [Command; 2] {
    let server =
        json!({"kind": "Server", "tenant": name, "name": "files", "spec": {"url": "http://127.0.0.1:1/"}});
    let json = format!("{:?}", "x".repeat(bytes));
    let mut catalog = Catalog::empty(name.parse().expect("a name"), "files".parse().expect("a name"));
    catalog.tools = vec![Definition::new("tool", json)];
    let resources = vec![tenant(name), document::parse(server).expect("a valid server")];
    [Command::Apply(resources), Command::PutCatalog(catalog)]
}

async fn try_start(dir: &Path, voter: VoterId) -> Result<Consensus, StartError> {
    Consensus::start(Options::new(dir, voter), Feed::new()).await
}

async fn start(dir: &Path) -> Consensus {
    try_start(dir, VOTER).await.expect("start")
}

async fn apply(consensus: &Consensus, name: &str) -> Revision {
    let committed = consensus.propose(put(name)).await.expect("propose");
    let done = vec![(tenant(name).id(), ChangeKind::Created)];
    assert_eq!(committed.outcome, Outcome::Done(done));
    committed.revision
}

fn tenants(consensus: &Consensus) -> Vec<String> {
    let state = consensus.feed().latest().state;
    state.names(&"any".parse().expect("a name"), Kind::Tenant)
}

fn chain(error: &dyn std::error::Error) -> String {
    let source = error.source().map_or_else(String::new, |source| format!(": {}", chain(source)));
    format!("{error}{source}")
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart_at_the_same_revision() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let first = apply(&consensus, "first").await;
    let second = apply(&consensus, "second").await;
    assert!(first < second);
    let again = consensus.propose(put("second")).await.expect("propose");
    assert_eq!(again.outcome, Outcome::Done(vec![(tenant("second").id(), ChangeKind::Unchanged)]));
    let revision = consensus.feed().latest().revision;
    assert_eq!(revision, again.revision);
    consensus.shutdown().await.expect("shutdown");

    let consensus = start(dir.path()).await;
    assert_eq!(tenants(&consensus), ["first", "second"]);
    assert!(consensus.feed().latest().revision >= revision);
    let state = consensus.feed().latest().state;
    let record = state.record(&RecordKey::from(&tenant("first").id())).expect("a record");
    assert_eq!(record.revision, first);
    assert!(apply(&consensus, "third").await > revision);
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_restart_leads_without_waiting_for_an_election() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut terms = Vec::new();
    for round in 0..3 {
        let begun = std::time::Instant::now();
        let consensus = start(dir.path()).await;
        let took = begun.elapsed();
        assert!(took < Duration::from_millis(ELECTION_MS_MIN), "{took:?}");
        let status = consensus.status().await;
        assert_eq!((status.leader, status.stopped.as_deref()), (Some(VOTER), None));
        assert_eq!(status.applied, status.last_log);
        terms.push(status.term);
        apply(&consensus, &format!("tenant-{round}")).await;
        consensus.shutdown().await.expect("shutdown");
    }
    assert_eq!(terms, [1, 2, 3], "each start leads in a term of its own");
}

#[tokio::test]
async fn commands_that_wait_together_share_an_entry_and_each_has_its_own_answer() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let before = consensus.status().await;
    let proposals = (0..600).map(|at| {
        let consensus = consensus.clone();
        // Every third name stands twice.
        let name = format!("tenant-{}", at - usize::from(at % 3 == 2));
        tokio::spawn(async move { consensus.propose(put(&name)).await.expect("propose") })
    });
    let (mut created, mut unchanged) = (0, 0);
    for proposal in proposals.collect::<Vec<_>>() {
        match proposal.await.expect("task").outcome {
            Outcome::Done(done) if done[0].1 == ChangeKind::Created => created += 1,
            Outcome::Done(done) if done[0].1 == ChangeKind::Unchanged => unchanged += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((created, unchanged), (400, 200));
    assert_eq!(tenants(&consensus).len(), 400);
    let after = consensus.status().await;
    let entries = after.applied.expect("applied") - before.applied.expect("applied");
    assert!(entries <= 60, "600 commands in {entries} entries");
    // Beside one for each entry, what 400 new keys of the state take.
    let syncs = after.syncs - before.syncs;
    assert!(syncs <= entries + 1 + 600 / 16, "{syncs} syncs for {entries} entries");
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn every_acknowledged_command_was_synced_before() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    for at in 0..20 {
        let before = consensus.status().await.syncs;
        apply(&consensus, &format!("tenant-{at}")).await;
        assert!(consensus.status().await.syncs > before);
    }
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_subscriber_sees_every_change_at_its_revision() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let (start, mut newest) = (consensus.feed().latest().revision, consensus.feed().subscribe());
    newest.mark_unchanged();
    let first = apply(&consensus, "first").await;
    newest.changed().await.expect("changed");
    assert!(*newest.borrow() >= first);
    apply(&consensus, "second").await;
    let refused = consensus.propose(Command::Delete(vec![tenant("nobody").id()])).await.expect("propose");
    assert!(matches!(refused.outcome, Outcome::Refused(_)));
    let last = consensus.feed().latest();
    assert_eq!(last.revision, refused.revision, "a refused command is a revision too");
    let keys = |since| {
        let changes = consensus.feed().since(since).expect("remembered");
        changes.changes.into_iter().map(|change| change.key).collect::<Vec<_>>()
    };
    let key = |name| RecordKey::from(&tenant(name).id()).to_string();
    assert_eq!(keys(start), [key("first"), key("second")]);
    assert_eq!(keys(first), [key("second")]);
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn a_command_above_the_limit_is_turned_away_and_one_below_it_is_not() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let [server, catalog] = large("acme", COMMAND_BYTES_MAX);
    consensus.propose(server).await.expect("propose");
    // The command itself, and its origin.
    let least = COMMAND_BYTES_MAX + 16;
    let refused = consensus.propose(catalog).await;
    assert!(matches!(refused, Err(ProposeError::TooLarge { bytes }) if bytes > least), "{refused:?}");
    let [_, catalog] = large("acme", 4 * 1024 * 1024 - 1024);
    consensus.propose(catalog).await.expect("propose");
    consensus.shutdown().await.expect("shutdown");
    let consensus = start(dir.path()).await;
    let stored = consensus.feed().latest().state;
    let stored = stored.catalog(&"acme".parse().expect("a name"), &"files".parse().expect("a name"));
    assert_eq!(stored.map(|catalog| catalog.tools[0].json.len()), Some(4 * 1024 * 1024 - 1024 + 2));
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn too_many_waiting_commands_are_turned_away_at_once() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    // On this one thread nothing is drained before the first await, so that exactly the queue is filled.
    let mut proposals: Vec<_> =
        (0..queue::QUEUED_MAX + 7).map(|_| Box::pin(consensus.propose(put("acme")))).collect();
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = proposals.iter_mut().map(|proposal| proposal.as_mut().poll(&mut context));
    let polled: Vec<_> = polled.collect();
    let turned_away =
        polled.iter().filter(|poll| **poll == std::task::Poll::Ready(Err(ProposeError::Overloaded)));
    assert_eq!(turned_away.count(), 7);
    for (proposal, _) in proposals.into_iter().zip(polled).filter(|(_, poll)| poll.is_pending()) {
        proposal.await.expect("committed");
    }
    consensus.shutdown().await.expect("shutdown");
}

#[tokio::test]
async fn other_handles_are_turned_away_after_a_shutdown() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let consensus = start(dir.path()).await;
    let other = consensus.clone();
    let waiting = tokio::spawn({
        let other = other.clone();
        async move { other.propose(put("waiting")).await }
    });
    consensus.shutdown().await.expect("shutdown");
    match waiting.await.expect("task") {
        Ok(committed) => assert!(matches!(committed.outcome, Outcome::Done(_))),
        Err(error) => assert_eq!(error, ProposeError::ShuttingDown),
    }
    assert_eq!(other.propose(put("late")).await, Err(ProposeError::ShuttingDown));
    assert_eq!(other.status().await.stopped.as_deref(), Some("raft stopped"));
    start(dir.path()).await.shutdown().await.expect("the directory is free");
}
