//! The kill switch: on its way to nodes ahead of everything, acknowledged by itself, kept, listed and lifted.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::ban_target::Target;
use gantry_wire::resource_v1::{Ban, BanTarget, WholeTenant};
use gantry_wire::sync_v1::UrgentAck;
use gantry_wire::sync_v1::node_message::Message;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tonic::Code;

use crate::harness::{ADMIN_TOKEN, Harness, Result, acme, admin, agent, eventually, policy};
use crate::node::{Connection, Process};
use crate::stream::nack;

/// Entries of a large configuration.
const ENTRIES: usize = 10_000;
/// The bar for a revocation to be in force on a node.
const IN_FORCE_MAX: Duration = Duration::from_millis(250);

fn of(target: Target) -> Option<BanTarget> {
    Some(BanTarget { target: Some(target) })
}

fn bot() -> Target {
    Target::Agent("bot".to_owned())
}

async fn revoke(harness: &mut Harness, target: Target, reason: &str) -> Result<RevokeResponse> {
    let request = RevokeRequest { tenant: "acme".into(), target: of(target), reason: reason.into() };
    Ok(harness.admin.revoke(request).await?.into_inner())
}

async fn lift(harness: &mut Harness, target: Target) -> Result<u64> {
    let request = LiftRevocationRequest { tenant: "acme".into(), target: of(target) };
    Ok(harness.admin.lift_revocation(request).await?.into_inner().revision)
}

async fn wait(
    harness: &mut Harness,
    revision: u64,
    urgent: bool,
    timeout_ms: u32,
) -> Result<WaitAppliedResponse> {
    let request = WaitAppliedRequest { revision, timeout_ms, urgent, each: true };
    Ok(harness.admin.wait_applied(request).await?.into_inner())
}

async fn listed(harness: &mut Harness) -> Result<Vec<Ban>> {
    Ok(harness.admin.list_revocations(ListRevocationsRequest::default()).await?.into_inner().bans)
}

/// Documents that make a configuration of so many entries, in sets that can be applied.
async fn fill(harness: &mut Harness, entries: usize) -> Result {
    let description = "x".repeat(300);
    let document = |index: usize| {
        let spec = json!({"description": description});
        json!({"kind": "Agent", "tenant": "acme", "name": format!("agent-{index}"), "spec": spec})
    };
    let all: Vec<Value> = (0..entries).map(document).collect();
    for set in all.chunks(2_000) {
        harness.apply(set).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_overtakes_a_snapshot_of_ten_thousand_entries() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    fill(&mut harness, ENTRIES).await?;
    let mut process = Process::new("node")?;
    let mut connection = process.connect(harness.address()).await?;
    let first = connection.urgent().await?;
    assert_eq!((first.complete, first.upserts.len(), first.deletes.len()), (true, 0, 0));
    connection.send(Message::Urgent(UrgentAck { revision: first.revision })).await?;
    // The snapshot is under way, and the node takes it as fast as it can read.
    let mut update = connection.part().await??;
    assert!(!update.last);

    let began = Instant::now();
    let revoked = revoke(&mut harness, bot(), "leaked").await?;
    let (urgent, parts) = connection.urgent_and_parts().await?;
    let heard = began.elapsed();
    connection.send(Message::Urgent(UrgentAck { revision: urgent.revision })).await?;
    let waited = wait(&mut harness, revoked.revision, true, 10_000).await?;
    println!(
        "a revocation was heard {heard:?} after it was asked for, after {} parts of the snapshot; in force after {} ms",
        parts.len(),
        waited.slowest_ms
    );
    let keys: Vec<_> = urgent.upserts.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((keys, urgent.complete), (vec!["acme/ban/agent/bot"], false));
    assert!(urgent.revision >= revoked.revision);
    assert_eq!((waited.node_count, waited.acked_count), (1, 1));
    assert!(waited.slowest_ms <= IN_FORCE_MAX.as_millis() as u64, "{waited:?}");
    // The snapshot itself is not there yet.
    assert!(parts.iter().all(|part| !part.last), "the snapshot was through before");
    let configured = wait(&mut harness, revoked.revision, false, 1).await?;
    assert_eq!(configured.acked_count, 0);

    parts.into_iter().for_each(|part| update.upserts.extend(part.upserts));
    let rest = connection.update().await?;
    update.upserts.extend(rest.upserts);
    let whole = gantry_wire::sync_v1::Update { upserts: update.upserts, ..rest };
    process.take(&whole)?;
    connection.ack(&whole, process.digest()).await?;
    // The configuration brings it too.
    process.follow_to(&mut connection, revoked.revision).await?;
    assert!(process.entries.contains_key("acme/ban/agent/bot"));
    harness.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbid_overtakes_a_snapshot_of_ten_thousand_entries_and_waits_for_nothing_else() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    fill(&mut harness, ENTRIES).await?;
    let mut process = Process::new("node")?;
    let mut connection = process.connect(harness.address()).await?;
    let first = connection.urgent().await?;
    assert_eq!((first.complete, first.narrowings.len()), (true, 0));
    connection.send(Message::Urgent(UrgentAck { revision: first.revision })).await?;
    let mut update = connection.part().await??;
    assert!(!update.last);

    let began = Instant::now();
    let allowed = harness.apply(&[policy("more", "permit(principal, action, resource);")]).await?;
    let forbidden = harness.apply(&[policy("less", "forbid(principal, action, resource);")]).await?;
    let (urgent, parts) = connection.urgent_and_parts().await?;
    let heard = began.elapsed();
    connection.send(Message::Urgent(UrgentAck { revision: urgent.revision })).await?;
    let waited = wait(&mut harness, forbidden, true, 10_000).await?;
    println!(
        "a forbid was heard {heard:?} after it was asked for, after {} parts of the snapshot; in force after {} ms",
        parts.len(),
        waited.slowest_ms
    );
    let [narrowing] = urgent.narrowings.as_slice() else { panic!("{:?}", urgent.narrowings.len()) };
    let policies: Vec<_> = narrowing.policies.iter().map(|policy| policy.name.as_str()).collect();
    assert_eq!((policies, narrowing.agents.len()), (vec!["less", "more"], ENTRIES + 1));
    assert_eq!(
        (&narrowing.servers, &narrowing.endpoints),
        (&vec!["files".to_owned()], &vec!["main".to_owned()])
    );
    assert!(narrowing.revision >= forbidden && urgent.revision >= forbidden && forbidden > allowed);
    assert!(urgent.upserts.is_empty(), "{:?}", urgent.upserts);
    assert_eq!((waited.node_count, waited.acked_count), (1, 1));
    assert!(waited.slowest_ms <= IN_FORCE_MAX.as_millis() as u64, "{waited:?}");
    // The snapshot itself is not there yet, and its acknowledgement is its own.
    assert!(parts.iter().all(|part| !part.last), "the snapshot was through before");
    assert_eq!(wait(&mut harness, forbidden, false, 1).await?.acked_count, 0);

    parts.into_iter().for_each(|part| update.upserts.extend(part.upserts));
    let rest = connection.update().await?;
    update.upserts.extend(rest.upserts);
    let whole = gantry_wire::sync_v1::Update { upserts: update.upserts, ..rest };
    process.take(&whole)?;
    connection.ack(&whole, process.digest()).await?;
    process.follow_to(&mut connection, forbidden).await?;
    assert!(process.entries.contains_key("acme/policy/less"));

    // With nothing in its way the update is the fastest, and nothing comes twice.
    let last = harness.apply(&[policy("least", "forbid(principal, action, resource);")]).await?;
    let (urgent, update) = connection.urgent_and_update().await?;
    assert_eq!((urgent, update.revision), (None, last));
    // Once the node says that it has not taken that, a snapshot is in the way of what is denied.
    connection.send(nack(last, "of another build", true)).await?;
    let (urgent, parts) = connection.urgent_and_parts().await?;
    let narrowed: Vec<_> = urgent.narrowings.iter().flat_map(|narrowing| &narrowing.policies).collect();
    assert!(narrowed.iter().any(|policy| policy.name == "least"), "{narrowed:?}");
    assert!(parts.iter().all(|part| !part.last), "the snapshot was through before");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_was_revoked_or_lifted_while_a_node_was_away_is_told_before_its_update() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    revoke(&mut harness, Target::Server("files".to_owned()), "").await?;
    let mut process = Process::new("node")?;
    let (connection, _) = process.join(harness.address()).await?;
    assert!(process.entries.contains_key("acme/ban/server/files"));
    drop(connection);

    let revoked = revoke(&mut harness, bot(), "").await?.revision;
    let lifted = lift(&mut harness, Target::Server("files".to_owned())).await?;
    let mut connection = process.connect(harness.address()).await?;
    let urgent = connection.urgent().await?;
    assert!(urgent.revision >= lifted && !urgent.complete, "{urgent:?}");
    let keys: Vec<_> = urgent.upserts.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!(
        (keys, urgent.deletes),
        (vec!["acme/ban/agent/bot"], vec!["acme/ban/server/files".to_owned()])
    );
    let stands = wait(&mut harness, revoked, true, 1).await?;
    assert_eq!(stands.acked_count, 0, "nothing is answered yet");
    process.follow_to(&mut connection, lifted).await?;
    let with_bans: Vec<_> = process.entries.keys().filter(|key| key.contains("/ban/")).collect();
    assert_eq!(with_bans, ["acme/ban/agent/bot"]);
    // The update alone is answer enough.
    assert_eq!(wait(&mut harness, revoked, true, 10_000).await?.acked_count, 1);

    // So it is after a restart of the control plane.
    drop(connection);
    let mut harness = Harness::start_in(harness.stop().await?).await?;
    let bans = listed(&mut harness).await?;
    assert_eq!(bans.iter().map(|ban| ban.target.clone()).collect::<Vec<_>>(), [of(bot())]);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_revocation_says_who_and_why_stays_as_it_was_and_is_lifted_once() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let first = revoke(&mut harness, bot(), "leaked").await?;
    let again = revoke(&mut harness, bot(), "other").await?;
    assert_eq!((again.revision, again.already, &again.ban), (first.revision, true, &first.ban));
    let tenant = revoke(&mut harness, Target::Tenant(WholeTenant {}), "").await?;
    let bans = listed(&mut harness).await?;
    let told: Vec<_> = bans.iter().map(|ban| (&*ban.by, &*ban.reason, ban.until_ms)).collect();
    assert_eq!(told, [("root", "leaked", 0), ("root", "", 0)]);
    assert!(!tenant.already && bans[0].at_ms > 0);

    lift(&mut harness, bot()).await?;
    let request = LiftRevocationRequest { tenant: "acme".into(), target: of(bot()) };
    let twice = harness.admin.lift_revocation(request).await.expect_err("it is lifted");
    let message = "agent bot of tenant acme is not revoked; `gantry revoke ls --tenant acme` lists what is";
    assert_eq!((twice.code(), twice.message()), (Code::NotFound, message));
    assert_eq!(listed(&mut harness).await?.len(), 1);

    // What is not there, and what cannot be stopped.
    let mut refused = async |tenant: &str, target: Target, reason: &str| {
        let request = RevokeRequest { tenant: tenant.into(), target: of(target), reason: reason.into() };
        let status = harness.admin.revoke(request).await.expect_err("refused");
        (status.code(), status.message().to_owned())
    };
    let nobody = refused("acme", Target::Agent("boot".to_owned()), "").await;
    let message = "there is no Agent acme/boot; nearest: bot; `gantry get agent` lists what is there";
    assert_eq!(nobody, (Code::NotFound, message.to_owned()));
    assert_eq!(refused("acme", Target::Key("0".repeat(16)), "").await.0, Code::NotFound);
    assert_eq!(refused("globex", bot(), "").await.0, Code::NotFound);
    assert_eq!(refused("acme", Target::User("ann".to_owned()), "").await.0, Code::InvalidArgument);
    assert_eq!(refused("acme", Target::Session("x".to_owned()), "").await.0, Code::InvalidArgument);
    assert_eq!(refused("acme", bot(), &"x".repeat(257)).await.0, Code::InvalidArgument);
    assert_eq!(refused("acme", bot(), "two\nlines").await.0, Code::InvalidArgument);
    harness.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn of_revocations_that_are_made_at_once_one_is_the_first_and_all_are_told_of_it() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    for round in 0..10 {
        let revoke = |number: usize| {
            let admin = admin(harness.address(), Some(ADMIN_TOKEN));
            async move {
                let reason = format!("{number} of round {round}");
                let request = RevokeRequest { tenant: "acme".into(), target: of(bot()), reason };
                Result::Ok(admin.await?.revoke(request).await?.into_inner())
            }
        };
        let write = |_| {
            let admin = admin(harness.address(), Some(ADMIN_TOKEN));
            let request =
                CreateKeyRequest { tenant: "acme".into(), agent: "bot".into(), ..Default::default() };
            async move { Result::Ok(admin.await?.create_key(request).await.map(drop)?) }
        };
        // Behind other writes, so that they share a revision.
        let writes: Vec<_> = (0..4).map(|number| tokio::spawn(write(number))).collect();
        let asked: Vec<_> = (0..8).map(|number| tokio::spawn(revoke(number))).collect();
        let mut answers = Vec::new();
        for asked in asked {
            answers.push(asked.await??);
        }
        for write in writes {
            write.await??;
        }
        let first: Vec<_> = answers.iter().filter(|answer| !answer.already).collect();
        assert_eq!(first.len(), 1, "{answers:?}");
        for answer in &answers {
            assert_eq!((answer.revision, &answer.ban), (first[0].revision, &first[0].ban));
        }
        lift(&mut harness, bot()).await?;
    }
    harness.stop().await?;
    Ok(())
}

/// Passes connections on to an address until it is dropped.
async fn proxy(to: SocketAddr) -> Result<(SocketAddr, tokio::task::JoinHandle<()>)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let passing = tokio::spawn(async move {
        let Ok((mut near, _)) = listener.accept().await else { return };
        let Ok(mut far) = TcpStream::connect(to).await else { return };
        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    });
    Ok((address, passing))
}

#[tokio::test]
async fn a_node_that_is_lost_is_named_and_one_that_took_leave_is_not() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let [mut lost, mut left, mut here] =
        [Process::new("lost")?, Process::new("left")?, Process::new("here")?];
    let (address, passing) = proxy(harness.address()).await?;
    let (_lost, _) = lost.join(address).await?;
    let (gone, _) = left.join(harness.address()).await?;
    let (mut connection, _) = here.join(harness.address()).await?;
    drop(gone);
    passing.abort();
    let connected = |status: &StatusResponse| status.nodes.iter().filter(|node| node.connected).count();
    eventually(async || harness.status().await, |status| connected(status) == 1).await?;

    let revoked = revoke(&mut harness, bot(), "").await?.revision;
    acknowledge(&mut connection).await?;
    let waited = wait(&mut harness, revoked, true, 10_000).await?;
    assert_eq!((waited.node_count, waited.acked_count), (1, 1));
    let nodes: Vec<_> =
        waited.nodes.iter().map(|node| (&*node.node_id, node.connected, node.acked)).collect();
    assert_eq!(nodes, [("here", true, true), ("lost", false, false)]);
    harness.apply(&[agent("new")]).await?;
    harness.stop().await?;
    Ok(())
}

async fn acknowledge(connection: &mut Connection) -> Result {
    let urgent = connection.urgent().await?;
    connection.send(Message::Urgent(UrgentAck { revision: urgent.revision })).await
}
