//! Nodes for tests: a mesh each, and a service that does what a request says.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use gantry_wire::sync_v1 as wire;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::mesh::{Bind, Frames, Mesh, MeshError, Peer, Process, Replies, Served, Service, Telling};

/// How long anything may take before a test gives up on it.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);

/// What a node's service saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Seen {
    Request(Peer, Bytes),
    Left(Peer),
    Notice(Peer, Bytes),
    Datagram(Peer, Bytes),
}

/// A node.
pub(super) struct TestNode {
    pub(super) mesh: Arc<Mesh>,
    pub(super) seen: mpsc::UnboundedReceiver<Seen>,
    pub(super) stop: CancellationToken,
    telling: Telling,
    _serving: JoinHandle<()>,
}

/// Carries packets between one peer and a node, until it is cut.
pub(super) struct Wire {
    pub(super) address: SocketAddr,
    is_cut: Arc<AtomicBool>,
    carrying: JoinHandle<()>,
}

/// `wait` sends a frame and waits until the asker leaves; `panic` sends a frame and panics; everything else is sent
/// back, between two empty frames.
struct Echo(mpsc::UnboundedSender<Seen>);

impl TestNode {
    /// A node that knows nobody.
    pub(super) fn new(name: &str) -> TestNode {
        let bind = Bind { listen: ([127, 0, 0, 1], 0).into(), advertise: None };
        let (mesh, acceptor) = Mesh::bind(name, bind).expect("a mesh");
        let (sender, seen) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(acceptor.serve(Arc::new(Echo(sender)), stop.clone()));
        TestNode { mesh: Arc::new(mesh), seen, stop, telling: Telling::default(), _serving: serving }
    }

    /// As the control plane tells of it.
    pub(super) fn member(&self) -> wire::Member {
        let node_id = self.mesh.me().to_string();
        wire::Member { node_id, incarnation: "one".to_owned(), mesh: self.mesh.whereabouts() }
    }

    /// As the control plane tells of it, found at another address.
    pub(super) fn member_at(&self, address: SocketAddr) -> wire::Member {
        let mut member = self.member();
        member.mesh.as_mut().expect("a place").address = address.to_string();
        member
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.mesh.whereabouts().expect("a place").address.parse().expect("an address")
    }

    /// Tells the node who is there.
    pub(super) fn told(&mut self, members: &[wire::Member]) {
        self.told_as(members, true);
    }

    pub(super) fn told_as(&mut self, members: &[wire::Member], complete: bool) {
        self.mesh.take_members(&mut self.telling, wire::Members { members: members.to_vec(), complete });
    }

    /// What the control plane says from now on comes on another stream.
    pub(super) fn has_connected_again(&mut self) {
        self.telling = Telling::default();
    }

    /// Asks a peer that must be there.
    pub(super) async fn ask(&self, peer: &str, request: &'static [u8]) -> Frames {
        let exchange = self.mesh.open(peer).await.expect("a peer that is there");
        exchange.send(Bytes::from_static(request)).await.expect("a request that is taken")
    }

    /// What the service saw next.
    pub(super) async fn next(&mut self) -> Seen {
        within(self.seen.recv()).await.expect("a service")
    }

    pub(super) fn members(&self) -> Vec<String> {
        self.mesh.members().iter().map(ToString::to_string).collect()
    }
}

/// Nodes that know each other.
pub(super) fn acquainted<const N: usize>(names: [&str; N]) -> [TestNode; N] {
    let mut nodes = names.map(TestNode::new);
    let members: Vec<_> = nodes.iter().map(TestNode::member).collect();
    nodes.iter_mut().for_each(|node| node.told(&members));
    nodes
}

impl Wire {
    /// To a node, for one peer.
    pub(super) async fn to(node: SocketAddr) -> Wire {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).await.expect("a socket");
        let address = socket.local_addr().expect("an address");
        let is_cut = Arc::new(AtomicBool::new(false));
        let cut = is_cut.clone();
        let carrying = tokio::spawn(async move {
            let (mut packet, mut peer) = (vec![0; 65_536], node);
            while let Ok((length, from)) = socket.recv_from(&mut packet).await {
                let to = if from == node { peer } else { node };
                if from != node {
                    peer = from;
                }
                if !cut.load(Ordering::Relaxed) {
                    let _ = socket.send_to(&packet[..length], to).await;
                }
            }
        });
        Wire { address, is_cut, carrying }
    }

    /// From now on packets vanish, or pass again.
    pub(super) fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.carrying.abort();
    }
}

impl Service for Echo {
    fn exchange(self: Arc<Self>, from: Peer, request: Bytes, mut replies: Replies) -> Served {
        Box::pin(async move {
            let _ = self.0.send(Seen::Request(from.clone(), request.clone()));
            let _ = replies.send(Bytes::new()).await;
            match &*request {
                b"wait" => {
                    replies.closed().await;
                    let _ = self.0.send(Seen::Left(from));
                }
                b"panic" => panic!("as the request said"),
                _ => {
                    let _ = replies.send(request).await;
                    let _ = replies.send(Bytes::new()).await;
                }
            }
        })
    }

    fn notice(&self, from: Peer, _process: Process, notice: Bytes) {
        let _ = self.0.send(Seen::Notice(from, notice));
    }

    fn datagram(&self, from: Peer, _process: Process, bytes: Bytes) {
        let _ = self.0.send(Seen::Datagram(from, bytes));
    }
}

pub(super) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("an end in time")
}

/// Every frame until the end, and how it ended.
pub(super) async fn all(mut frames: Frames) -> (Vec<Bytes>, Option<MeshError>) {
    let mut all = Vec::new();
    loop {
        match within(frames.next()).await {
            None => return (all, None),
            Some(Ok(frame)) => all.push(frame),
            Some(Err(error)) => return (all, Some(error)),
        }
    }
}

/// Looks again until it is so; for what nobody tells of.
pub(super) async fn eventually(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "it did not come true in time");
        tokio::task::yield_now().await;
    }
}
