//! What passes between two nodes.

use std::time::Instant;

use bytes::Bytes;
use tokio::task::JoinSet;

use super::nodes::{Seen, acquainted, all, within};
use crate::mesh::{DATAGRAM_BYTES_MAX, FRAME_BYTES_MAX, MeshError, NOTICE_BYTES_MAX, Unreachable};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_whole_and_in_order_in_both_directions() {
    let [a, mut b] = acquainted(["a", "b"]);
    for length in [0, 1, 1_000, 65_536, FRAME_BYTES_MAX] {
        let request = Bytes::from((0..length).map(|at| (at % 251) as u8).collect::<Vec<_>>());
        for (asker, asked) in [(&a, "b"), (&b, "a")] {
            let exchange = asker.mesh.open(asked).await.expect("a peer");
            let frames = exchange.send(request.clone()).await.expect("a request");
            let (frames, error) = all(frames).await;
            assert!(error.is_none(), "{error:?}");
            assert!(frames == [Bytes::new(), request.clone(), Bytes::new()], "{length}");
        }
        assert!(b.next().await == Seen::Request("a".into(), request));
    }
}

#[tokio::test]
async fn a_frame_beyond_the_bound_is_not_sent() {
    let [a, _b] = acquainted(["a", "b"]);
    let exchange = a.mesh.open("b").await.expect("a peer");
    let sent = exchange.send(Bytes::from(vec![0; FRAME_BYTES_MAX + 1])).await;
    let refused = matches!(sent.err(), Some(MeshError::TooLarge { bytes }) if bytes == FRAME_BYTES_MAX + 1);
    assert!(refused);
}

#[tokio::test]
async fn an_asker_that_leaves_is_noticed() {
    let [a, mut b] = acquainted(["a", "b"]);
    let mut frames = a.ask("b", b"wait").await;
    assert_eq!(b.next().await, Seen::Request("a".into(), Bytes::from_static(b"wait")));
    assert!(matches!(within(frames.next()).await, Some(Ok(frame)) if frame.is_empty()));
    drop(frames);
    assert_eq!(b.next().await, Seen::Left("a".into()));

    // Who leaves before the request has asked nothing.
    drop(a.mesh.open("b").await.expect("a peer"));
    let frames = a.ask("b", b"next").await;
    assert_eq!(b.next().await, Seen::Request("a".into(), Bytes::from_static(b"next")));
    assert!(all(frames).await.1.is_none());
}

#[tokio::test]
async fn replies_that_a_service_breaks_off_do_not_look_finished() {
    let [a, _b] = acquainted(["a", "b"]);
    let (frames, error) = all(a.ask("b", b"panic").await).await;
    assert_eq!(frames, [Bytes::new()]);
    assert!(matches!(error, Some(MeshError::Cut)), "{error:?}");
    // The peer serves on.
    assert!(all(a.ask("b", b"more").await).await.1.is_none());
}

#[tokio::test]
async fn a_wait_for_a_frame_can_be_given_up_and_taken_up_again() {
    let [a, _b] = acquainted(["a", "b"]);
    let exchange = a.mesh.open("b").await.expect("a peer");
    let request = Bytes::from(vec![7; 1024 * 1024]);
    let mut frames = exchange.send(request.clone()).await.expect("a request");
    let mut taken = Vec::new();
    loop {
        tokio::select! {
            biased;
            frame = frames.next() => match frame {
                Some(frame) => taken.push(frame.expect("a frame")),
                None => break,
            },
            () = tokio::task::yield_now() => {}
        }
    }
    assert!(taken == [Bytes::new(), request, Bytes::new()]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_exchanges_run_side_by_side() {
    let [a, _b] = acquainted(["a", "b"]);
    let mut exchanges = JoinSet::new();
    for number in 0..1_000_u32 {
        let mesh = a.mesh.clone();
        exchanges.spawn(async move {
            let request = Bytes::from(vec![number as u8; number as usize]);
            let exchange = mesh.open("b").await.expect("a peer");
            let (frames, error) = all(exchange.send(request.clone()).await.expect("a request")).await;
            assert!(error.is_none(), "{error:?}");
            assert_eq!(frames, [Bytes::new(), request, Bytes::new()]);
        });
    }
    within(exchanges.join_all()).await;
}

#[tokio::test]
async fn readers_that_do_not_read_hold_up_nobody_else() {
    let [a, _b] = acquainted(["a", "b"]);
    let request = Bytes::from(vec![1; 1024 * 1024]);
    let mut unread = Vec::new();
    for _ in 0..64 {
        let exchange = a.mesh.open("b").await.expect("a peer");
        unread.push(exchange.send(request.clone()).await.expect("a request"));
    }
    let (frames, error) = all(a.ask("b", b"passes").await).await;
    assert!(error.is_none(), "{error:?}");
    assert_eq!(frames[1], "passes");
    for frames in unread {
        assert!(all(frames).await.0[1] == request);
    }
}

#[tokio::test]
async fn a_notice_was_taken_by_everybody_when_it_is_told() {
    let [a, mut b, mut c] = acquainted(["a", "b", "c"]);
    a.mesh.tell_all(Bytes::from_static(b"gone")).await;
    let notice = Seen::Notice("a".into(), Bytes::from_static(b"gone"));
    assert_eq!((b.seen.try_recv(), c.seen.try_recv()), (Ok(notice.clone()), Ok(notice)));

    a.mesh.tell_all(Bytes::from(vec![0; NOTICE_BYTES_MAX + 1])).await;
    a.mesh.tell_all(Bytes::new()).await;
    assert_eq!(b.next().await, Seen::Notice("a".into(), Bytes::new()), "what is too long is not told");
    assert_eq!(c.next().await, Seen::Notice("a".into(), Bytes::new()));
}

#[tokio::test]
async fn datagrams_arrive_once_there_is_a_connection() {
    let [a, mut b] = acquainted(["a", "b"]);
    let longest = Bytes::from(vec![9; DATAGRAM_BYTES_MAX]);
    // The first one finds no connection and has one made.
    let early = a.mesh.datagram("b", longest.clone());
    assert!(matches!(early, Err(Unreachable::NotConnected)), "{early:?}");
    let sent = async {
        while let Err(error) = a.mesh.datagram("b", longest.clone()) {
            assert!(matches!(error, Unreachable::NotConnected), "{error}");
            tokio::task::yield_now().await;
        }
    };
    within(sent).await;
    assert_eq!(b.next().await, Seen::Datagram("a".into(), longest));

    let too_long = a.mesh.datagram("b", Bytes::from(vec![0; DATAGRAM_BYTES_MAX + 1]));
    assert!(matches!(too_long, Err(Unreachable::TooLarge { .. })), "{too_long:?}");
    let stranger = a.mesh.datagram("x", Bytes::new());
    assert!(matches!(stranger, Err(Unreachable::NotMember)), "{stranger:?}");
}

/// Prints what an exchange costs between two nodes on one machine (`--nocapture`).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exchange_takes_a_small_part_of_its_deadline() {
    const COUNT: usize = 2_000;
    let [a, _b] = acquainted(["a", "b"]);
    all(a.ask("b", b"first").await).await;
    let (mut opens, mut wholes) = (Vec::with_capacity(COUNT), Vec::with_capacity(COUNT));
    for _ in 0..COUNT {
        let start = Instant::now();
        let exchange = a.mesh.open("b").await.expect("a peer");
        opens.push(start.elapsed());
        all(exchange.send(Bytes::from_static(&[b'x'; 512])).await.expect("a request")).await;
        wholes.push(start.elapsed());
    }
    opens.sort_unstable();
    wholes.sort_unstable();
    let [half, most] = [COUNT / 2, COUNT * 99 / 100];
    println!("open: median {:?}, p99 {:?}", opens[half], opens[most]);
    println!("open, send, replies to the end: median {:?}, p99 {:?}", wholes[half], wholes[most]);
    assert!(wholes[half] < crate::mesh::OPEN_DEADLINE / 10, "{:?}", wholes[half]);
}
