//! The stream to nodes: updates, answers, going on after a break.

use std::time::{Duration, Instant};

use gantry_wire::admin_v1::{NodeStatus, StatusResponse, WaitAppliedRequest, WaitAppliedResponse};
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{Ack, Nack, Problem};
use tonic::Code;

use crate::harness::{Harness, Result, acme, agent, eventually};
use crate::node::{Connection, Process};

pub(crate) fn nack(revision: u64, message: &str, need_snapshot: bool) -> Message {
    let problem = Problem { tenant: "acme".into(), resource: String::new(), message: message.into() };
    Message::Nack(Nack { revision, problems: vec![problem], need_snapshot })
}

#[tokio::test]
async fn a_change_arrives_is_acknowledged_and_the_status_shows_it() -> Result {
    let mut harness = Harness::start().await?;
    let mut process = Process::new("node-1")?;
    let (mut connection, snapshot) = process.join(harness.address()).await?;
    assert_eq!((snapshot.from_revision, snapshot.upserts.len()), (0, 0));

    let revision = harness.apply(&acme()).await?;
    let update = connection.update().await?;
    assert_eq!((update.from_revision, update.revision), (snapshot.revision, revision));
    let keys: Vec<_> = update.upserts.iter().map(|entry| entry.key.as_str()).collect();
    let expected = [
        "acme/agent/bot",
        "acme/credential/token",
        "acme/endpoint/main",
        "acme/server/files",
        "acme/tenant/acme",
    ];
    assert_eq!(keys, expected);

    // Not acknowledged yet: the wait ends at its deadline and names the node.
    let request = WaitAppliedRequest { revision, timeout_ms: 50, ..WaitAppliedRequest::default() };
    let waited = harness.admin.wait_applied(request).await?.into_inner();
    assert_eq!((waited.node_count, waited.acked_count, waited.slowest_node.as_str()), (1, 0, "node-1"));
    assert!(waited.slowest_ms >= 50, "{waited:?}");

    process.take(&update)?;
    connection.ack(&update, process.digest()).await?;
    let request = WaitAppliedRequest { revision, timeout_ms: 10_000, ..WaitAppliedRequest::default() };
    let waited = harness.admin.wait_applied(request).await?.into_inner();
    let slowest_ms = waited.slowest_ms;
    let expected = WaitAppliedResponse {
        node_count: 1,
        acked_count: 1,
        slowest_node: "node-1".into(),
        slowest_ms,
        nodes: Vec::new(),
    };
    assert_eq!(waited, expected);
    let expected = NodeStatus {
        node_id: "node-1".into(),
        build: "test".into(),
        connected: true,
        acked_revision: revision,
        apply_us: 42,
        member: 1,
        ..NodeStatus::default()
    };
    // What the test cannot know beforehand.
    let known = |status: &StatusResponse| {
        let known = status.nodes.iter().map(|node| {
            assert!(node.address.starts_with("127.0.0.1:") && node.connected_at_ms > 0, "{node:?}");
            let (address, connected_at_ms, urgent_revision) = (String::new(), 0, 0);
            NodeStatus { address, connected_at_ms, urgent_revision, ..node.clone() }
        });
        known.collect::<Vec<_>>()
    };
    assert_eq!(known(&harness.status().await?), std::slice::from_ref(&expected));

    drop(connection);
    let gone = NodeStatus { connected: false, ..expected };
    eventually(async || harness.status().await, |status| known(status) == [gone.clone()]).await?;
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_changes_while_an_update_is_unanswered_comes_as_one_more() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;

    harness.apply(&[agent("one")]).await?;
    let first = connection.update().await?;
    for name in ["two", "three", "four"] {
        harness.apply(&[agent(name)]).await?;
    }
    let last = harness.apply(&[agent("two")]).await?;
    process.take(&first)?;
    connection.ack(&first, process.digest()).await?;

    // Had there been another update meanwhile, it would come first and end earlier.
    let second = process.follow(&mut connection).await?;
    assert_eq!((second.from_revision, second.revision), (first.revision, last));
    let keys: Vec<_> = second.upserts.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(keys, ["acme/agent/four", "acme/agent/three", "acme/agent/two"]);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_goes_on_by_a_delta_after_a_break() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.put_secret("token", "hunter2").await?;
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(harness.address()).await?;
    let at = process.revision;
    eventually(async || harness.status().await, |status| status.nodes[0].acked_revision == at).await?;
    drop(connection);

    let revision = harness.apply(&[agent("new")]).await?;
    let (connection, update) = process.join(harness.address()).await?;
    assert_eq!((update.from_revision, update.revision), (at, revision));
    assert_eq!(update.upserts.len(), 1);
    assert_eq!((update.secrets.len(), update.node_keys), (0, None), "the process has them");
    drop(connection);

    // Another process of the node has the entries (from a file, say), but no secrets.
    let restarted = Process { node_keys: None, ..Process::new("node")? };
    let mut restarted = Process {
        cluster_id: process.cluster_id.clone(),
        revision: process.revision,
        entries: process.entries.clone(),
        ..restarted
    };
    let (_connection, update) = restarted.join(harness.address()).await?;
    assert_eq!((update.from_revision, update.upserts.len()), (revision, 0));
    assert_eq!(restarted.secrets["token"], b"hunter2");
    assert_eq!(restarted.node_keys, process.node_keys);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_cannot_go_on_gets_a_snapshot() -> Result {
    let mut harness = Harness::start().await?;
    let revision = harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    process.join(harness.address()).await?;
    assert_eq!(process.revision, revision);

    // Its digest is not that of its revision.
    let entries = process.entries.clone();
    process.entries.clear();
    let (_, update) = process.join(harness.address()).await?;
    assert_eq!((update.from_revision, update.upserts.len()), (0, 5));
    assert_eq!(process.entries, entries);

    // It comes from another cluster.
    process.cluster_id = "another".into();
    let (_, update) = process.join(harness.address()).await?;
    assert_eq!(update.from_revision, 0);

    // It is ahead: the state was restored from a backup.
    process.revision += 1_000;
    let (_, update) = process.join(harness.address()).await?;
    assert_eq!(update.from_revision, 0);

    // Its revision is not remembered any more: the control plane went on without it and was started anew.
    harness.apply(&[agent("new")]).await?;
    let harness = Harness::start_in(harness.stop().await?).await?;
    let (_, update) = process.join(harness.address()).await?;
    assert_eq!((update.from_revision, update.upserts.len()), (0, 6));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_digest_that_differs_after_an_update_is_repaired_by_a_snapshot() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;

    // The node says itself that its digest differs.
    harness.apply(&[agent("one")]).await?;
    let delta = connection.update().await?;
    connection.send(nack(delta.revision, "the digest differs", true)).await?;
    let snapshot = process.follow(&mut connection).await?;
    assert_eq!((snapshot.from_revision, snapshot.upserts.len()), (0, 6));

    // The server sees it.
    harness.apply(&[agent("two")]).await?;
    let delta = connection.update().await?;
    assert_ne!(delta.from_revision, 0);
    connection.ack(&delta, vec![0; 32]).await?;
    let snapshot = process.follow(&mut connection).await?;
    assert_eq!((snapshot.from_revision, snapshot.upserts.len()), (0, 7));

    // The node finds out later, unasked.
    connection.send(nack(snapshot.revision, "a record was lost", true)).await?;
    let snapshot = process.follow(&mut connection).await?;
    assert_eq!(snapshot.from_revision, 0);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_refuses_every_snapshot_is_sent_away() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let process = Process::new("node")?;
    let mut connection = process.connect(harness.address()).await?;
    for _ in 0..4 {
        let snapshot = connection.update().await?;
        connection.send(nack(snapshot.revision, "cannot be read", true)).await?;
    }
    let status = connection.end().await?;
    assert_eq!(
        (status.code(), status.message()),
        (Code::FailedPrecondition, "the node refused 3 snapshots in a row")
    );
    let gone = eventually(async || harness.status().await, |status| !status.nodes[0].connected).await?;
    assert_eq!(gone.nodes[0].last_error, "the node refused 3 snapshots in a row");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_tenant_that_a_node_cannot_serve_shows_in_the_status_and_the_node_goes_on() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let acked = process.revision;

    let revision = harness.apply(&[agent("one")]).await?;
    let update = connection.update().await?;
    process.take(&update)?;
    connection.send(nack(revision, "does not compile", false)).await?;
    let wrong = format!("revision {revision}: acme: does not compile");
    let status =
        eventually(async || harness.status().await, |status| status.nodes[0].last_error == wrong).await?;
    assert_eq!(status.nodes[0].acked_revision, acked, "a refused revision is not acknowledged");

    let next = harness.apply(&[agent("two")]).await?;
    let update = process.follow(&mut connection).await?;
    assert_eq!((update.from_revision, update.revision), (revision, next));
    let good = |node: &NodeStatus| node.acked_revision == next && node.last_error.is_empty();
    eventually(async || harness.status().await, |status| good(&status.nodes[0])).await?;
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_large_state_comes_in_parts() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let text = "x".repeat(1_000);
    let documents: Vec<_> = (0..1_000)
        .map(|index| {
            serde_json::json!({"kind": "Agent", "tenant": "acme", "name": format!("agent-{index}"),
                "spec": {"description": text}})
        })
        .collect();
    harness.apply(&documents).await?;
    let process = Process::new("node")?;
    let mut connection = process.connect(harness.address()).await?;
    let mut parts = Vec::new();
    while parts.last().is_none_or(|part: &gantry_wire::sync_v1::Update| !part.last) {
        parts.push(connection.part().await??);
    }
    assert!(parts.len() >= 4, "{}", parts.len());
    assert!(parts.iter().all(|part| prost::Message::encoded_len(part) < 300 * 1024));
    assert_eq!(parts.iter().map(|part| part.upserts.len()).sum::<usize>(), 1_005);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_stream_that_breaks_the_protocol_is_ended_with_the_reason() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let process = Process::new("node")?;
    let open = async || {
        Connection::open(harness.address(), Some(crate::harness::NODE_TOKEN)).await?.map_err(Into::into)
    };
    let ended = async |connection: Result<Connection>, message: Message| -> Result<(Code, String)> {
        let mut connection = connection?;
        connection.send(message).await?;
        let status = connection.end().await?;
        Ok((status.code(), status.message().to_owned()))
    };
    let refused = |message: &str| (Code::InvalidArgument, message.to_owned());

    let first = Message::Ack(Ack::default());
    let expected = refused("the stream does not begin with Hello within 10 s");
    assert_eq!(ended(open().await, first).await?, expected);
    let mut hello = process.hello();
    hello.node_id = "a b".into();
    let expected = refused("a node's id has 1 to 128 visible ASCII characters");
    assert_eq!(ended(open().await, Message::Hello(hello)).await?, expected);
    let mut hello = process.hello();
    hello.seal_public_key = vec![1];
    let expected = refused("the node's sealing key cannot be used: a public key has 32 bytes, not 1");
    assert_eq!(ended(open().await, Message::Hello(hello)).await?, expected);
    let mut hello = process.hello();
    hello.seal_public_key = vec![0; 32];
    let (code, message) = ended(open().await, Message::Hello(hello)).await?;
    assert_eq!(code, Code::InvalidArgument, "{message}");
    let second = Message::Hello(process.hello());
    let expected = refused("Hello comes once, as the first message");
    assert_eq!(ended(process.connect(harness.address()).await, second).await?, expected);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_node_that_connects_again_ends_its_older_stream() -> Result {
    let mut harness = Harness::start().await?;
    let mut process = Process::new("node")?;
    let (mut old, _) = process.join(harness.address()).await?;
    let (mut new, _) = process.join(harness.address()).await?;
    assert_eq!(old.end().await?.code(), Code::Aborted);
    let revision = harness.apply(&acme()).await?;
    process.follow_to(&mut new, revision).await?;
    let status = harness.status().await?;
    assert_eq!((status.nodes.len(), status.nodes[0].connected), (1, true));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn streams_end_when_the_control_plane_goes_down() -> Result {
    let harness = Harness::start().await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let start = Instant::now();
    let stopping = tokio::spawn(harness.stop());
    assert_eq!(connection.end().await?.code(), Code::Unavailable);
    drop(connection);
    stopping.await??;
    assert!(start.elapsed() < Duration::from_secs(4), "no deadline was waited for: {:?}", start.elapsed());
    Ok(())
}
