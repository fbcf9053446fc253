//! Who is a member, and what is whose.

use std::collections::BTreeMap;

use bytes::Bytes;
use gantry_wire::sync_v1 as wire;
use tokio::time::Instant;

use super::nodes::{Seen, TestNode, acquainted, all, within};
use crate::mesh::{MeshError, Unreachable};

#[tokio::test]
async fn who_leaves_loses_its_connections_at_once() {
    // It makes no difference which end hears of it.
    for asker_hears in [true, false] {
        let [mut a, mut b] = acquainted(["a", "b"]);
        let mut frames = a.ask("b", b"wait").await;
        assert!(matches!(within(frames.next()).await, Some(Ok(_))));
        assert_eq!(b.next().await, Seen::Request("a".into(), Bytes::from_static(b"wait")));
        let start = Instant::now();
        let hears = if asker_hears { &mut a } else { &mut b };
        let alone = [hears.member()];
        hears.told(&alone);
        let lost = within(frames.next()).await;
        assert!(matches!(lost, Some(Err(MeshError::Lost(_)))), "{lost:?}");
        assert_eq!(b.next().await, Seen::Left("a".into()));
        assert!(start.elapsed().as_millis() < 1_000, "{:?}", start.elapsed());
        let refused = a.mesh.open("b").await.err();
        let is_stranger = matches!(refused, Some(Unreachable::NotMember));
        assert!(refused.is_some() && is_stranger == asker_hears, "{refused:?}");
    }
}

#[tokio::test]
async fn a_node_that_was_started_anew_is_another_process_of_the_same_peer() {
    let [mut a, mut b] = acquainted(["a", "b"]);
    let mut frames = a.ask("b", b"wait").await;
    assert!(matches!(within(frames.next()).await, Some(Ok(_))));
    let mut again = TestNode::new("b");
    let members = [a.member(), again.member()];
    a.told(&members);
    again.told(&members);
    assert!(matches!(within(frames.next()).await, Some(Err(MeshError::Lost(_)))));
    assert!(all(a.ask("b", b"hello").await).await.1.is_none());
    assert_eq!(again.next().await, Seen::Request("a".into(), Bytes::from_static(b"hello")));
    // The old process is refused by whoever heard of the new one.
    b.told(&members);
    assert!(b.mesh.open("a").await.is_err());
}

#[tokio::test]
async fn telling_the_same_again_disturbs_nothing() {
    let [mut a, b, c] = acquainted(["a", "b", "c"]);
    let mut frames = a.ask("b", b"wait").await;
    assert!(matches!(within(frames.next()).await, Some(Ok(_))));
    a.told(&[b.member(), a.member()]);
    a.told(&[a.member(), b.member(), c.member()]);
    assert_eq!(a.members(), ["a", "b", "c"]);
    assert!(frames_are_open(&mut frames).await);
}

#[tokio::test]
async fn a_control_plane_that_has_just_started_takes_away_only_whom_it_saw_leave() {
    let [mut a, b, c] = acquainted(["a", "b", "c"]);
    let [one, two, three] = [a.member(), b.member(), c.member()];
    // It lost its memory with its start; the first to find back is this node.
    a.has_connected_again();
    a.told_as(std::slice::from_ref(&one), false);
    assert_eq!(a.members(), ["a", "b", "c"]);
    a.told_as(&[one.clone(), two.clone()], false);
    a.told_as(std::slice::from_ref(&one), false);
    assert_eq!(a.members(), ["a", "c"], "it was there, and left");
    a.told_as(&[one.clone(), two.clone()], false);
    assert_eq!(a.members(), ["a", "b", "c"]);
    a.told_as(&[one, two], true);
    assert_eq!(a.members(), ["a", "b"], "who is not there by now is gone");
    drop(three);
}

#[tokio::test]
async fn rows_that_cannot_be_read_are_left_out() {
    let [mut a, b] = acquainted(["a", "b"]);
    let place = |address: &str, bytes| {
        Some(wire::Mesh { address: address.to_owned(), certificate_fingerprint: vec![0; bytes] })
    };
    let member =
        |node_id: &str, mesh| wire::Member { node_id: node_id.to_owned(), incarnation: String::new(), mesh };
    let rows = [
        member("x", None),
        member("y", place("nowhere", 32)),
        member("z", place("127.0.0.1:1", 31)),
        b.member(),
    ];
    a.told(&rows);
    assert_eq!(a.members(), ["a", "b"]);
}

#[tokio::test]
async fn every_node_finds_the_same_home_and_only_keys_of_who_leaves_move() {
    let [mut a, b, c] = acquainted(["a", "b", "c"]);
    let keys: Vec<[u8; 4]> = (0..3_000_u32).map(u32::to_be_bytes).collect();
    let homes =
        |node: &TestNode| -> Vec<String> { keys.iter().map(|key| node.mesh.home(key).to_string()).collect() };
    let before = homes(&a);
    assert_eq!((&before, &before), (&homes(&b), &homes(&c)));
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    before.iter().for_each(|home| *counts.entry(home).or_default() += 1);
    assert!(counts.len() == 3 && counts.values().all(|count| (900..1_100).contains(count)), "{counts:?}");

    a.told(&[a.member(), c.member()]);
    for (before, after) in before.iter().zip(homes(&a)) {
        assert!(after == *before || before == "b" && after != "b", "{before} {after}");
    }
    // A build that found other homes could not stand beside this one.
    assert_eq!(before[..16].concat(), "baaaaaaccbbcabac");
}

async fn frames_are_open(frames: &mut crate::mesh::Frames) -> bool {
    tokio::select! {
        biased;
        _ = frames.next() => false,
        () = tokio::task::yield_now() => true,
    }
}
