//! Peers that vanish, and peers that say goodbye.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::nodes::{Seen, TestNode, Wire, acquainted, all, eventually, within};
use crate::mesh::{IDLE_TIMEOUT, KEEP_ALIVE, MeshError, OPEN_DEADLINE, TELL_DEADLINE, Unreachable};

/// What a busy machine may add to a deadline.
const SLACK: Duration = Duration::from_secs(1);
/// How long the silence of a connection lasts at most: what it sent last may have been sent into it.
const SILENCE_MAX: Duration = IDLE_TIMEOUT.saturating_add(KEEP_ALIVE);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_is_a_suspect_until_it_answers_again() {
    let [mut a, mut b] = ["a", "b"].map(TestNode::new);
    let wire = Wire::to(b.address()).await;
    a.told(&[b.member_at(wire.address)]);
    b.told(&[a.member()]);
    let mut frames = a.ask("b", b"wait").await;
    assert!(matches!(within(frames.next()).await, Some(Ok(_))));
    assert_eq!(b.next().await, Seen::Request("a".into(), Bytes::from_static(b"wait")));
    let key = (0_u32..).map(u32::to_be_bytes).find(|key| &*a.mesh.home(key) == "b").expect("a key of b");

    wire.cut(true);
    let start = Instant::now();
    let late = a.mesh.open("b").await.err();
    assert!(matches!(late, Some(Unreachable::Late)), "{late:?}");
    assert!(start.elapsed() < OPEN_DEADLINE + SLACK, "{:?}", start.elapsed());
    // From here on nobody waits for it.
    let start = Instant::now();
    let suspect = a.mesh.open("b").await.err();
    assert!(matches!(suspect, Some(Unreachable::Suspect)), "{suspect:?}");
    assert!(matches!(a.mesh.datagram("b", Bytes::new()), Err(Unreachable::Suspect)));
    assert_eq!((a.members(), a.mesh.is_member("b")), (vec!["a".to_owned()], false));
    assert_eq!(&*a.mesh.home(&key), "a");
    a.mesh.tell_all(Bytes::from_static(b"lost")).await;
    assert!(start.elapsed() < TELL_DEADLINE + SLACK, "{:?}", start.elapsed());

    // What was under way ends, on both sides.
    let start = Instant::now();
    let lost = within(frames.next()).await;
    assert!(matches!(lost, Some(Err(MeshError::Lost(_)))), "{lost:?}");
    assert_eq!(b.next().await, Seen::Left("a".into()));
    assert!(start.elapsed() < SILENCE_MAX + SLACK, "{:?}", start.elapsed());

    wire.cut(false);
    eventually(|| a.mesh.is_member("b")).await;
    assert!(all(a.ask("b", b"again").await).await.1.is_none());
    assert_eq!(&*a.mesh.home(&key), "b");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_death_is_noticed_without_asking() {
    let [mut a, mut b] = ["a", "b"].map(TestNode::new);
    let wire = Wire::to(b.address()).await;
    a.told(&[b.member_at(wire.address)]);
    b.told(&[a.member()]);
    assert!(all(a.ask("b", b"once").await).await.1.is_none());
    wire.cut(true);
    let start = Instant::now();
    eventually(|| !a.mesh.is_member("b")).await;
    assert!(start.elapsed() < SILENCE_MAX + SLACK, "{:?}", start.elapsed());
    // The control plane says that the node was started anew: there is no suspicion left.
    b.told(&[]);
    a.told(&[b.member()]);
    assert_eq!(a.members(), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_was_never_there_is_given_up_in_time() {
    let [mut a, b] = ["a", "b"].map(TestNode::new);
    let wire = Wire::to(b.address()).await;
    wire.cut(true);
    a.told(&[b.member_at(wire.address)]);
    let start = Instant::now();
    let opens: Vec<_> = (0..100)
        .map(|_| {
            let mesh = a.mesh.clone();
            tokio::spawn(async move { mesh.open("b").await.map(drop) })
        })
        .collect();
    for open in opens {
        let late = open.await.expect("a task");
        assert!(matches!(late, Err(Unreachable::Late | Unreachable::Suspect)), "{late:?}");
    }
    assert!(start.elapsed() < OPEN_DEADLINE + SLACK, "{:?}", start.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_notice_waits_for_nobody_who_is_silent() {
    let [mut a, mut b, mut c] = acquainted(["a", "b", "c"]);
    let wire = Wire::to(b.address()).await;
    wire.cut(true);
    a.told(&[b.member_at(wire.address), c.member()]);
    let start = Instant::now();
    a.mesh.tell_all(Bytes::from_static(b"news")).await;
    let took = start.elapsed();
    assert!(took >= TELL_DEADLINE && took < TELL_DEADLINE + SLACK, "{took:?}");
    assert_eq!(c.next().await, Seen::Notice("a".into(), Bytes::from_static(b"news")));
    assert!(b.seen.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_goes_down_finishes_what_it_took_and_takes_nothing_new() {
    let [a, mut b] = acquainted(["a", "b"]);
    let mut frames = a.ask("b", b"wait").await;
    assert!(matches!(within(frames.next()).await, Some(Ok(_))));
    assert_eq!(b.next().await, Seen::Request("a".into(), Bytes::from_static(b"wait")));

    b.stop.cancel();
    let refused = a.mesh.open("b").await.err();
    assert!(matches!(refused, Some(Unreachable::GoingDown)), "{refused:?}");
    assert_eq!(a.members(), ["a"], "its keys have another home");
    let draining = tokio::spawn({
        let mesh = b.mesh.clone();
        async move { mesh.drain().await }
    });
    tokio::task::yield_now().await;
    assert!(!draining.is_finished());
    drop(frames);
    assert_eq!(b.next().await, Seen::Left("a".into()));
    within(draining).await.expect("a task");
    within(b.mesh.close()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_closes_is_noticed_at_once() {
    let [a, b] = acquainted(["a", "b"]);
    let mut frames = a.ask("b", b"wait").await;
    assert!(matches!(within(frames.next()).await, Some(Ok(_))));
    let start = Instant::now();
    b.mesh.close().await;
    let lost = within(frames.next()).await;
    assert!(matches!(lost, Some(Err(MeshError::Lost(_)))), "{lost:?}");
    eventually(|| !a.mesh.is_member("b")).await;
    assert!(start.elapsed() < SLACK, "{:?}", start.elapsed());
}
