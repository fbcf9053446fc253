//! The mesh: how nodes hand each other what must be done on a certain node, over QUIC.
//!
//! Always holds:
//! - who is a member is what the control plane said last; whoever is not is neither connected to nor answered, and a
//!   member that leaves loses its connections at once;
//! - both ends of a connection proved who they are ([`identity`]);
//! - an exchange is reserved before its request is sent, so a request that could not be handed over was handed over to
//!   nobody; reserving takes at most [`OPEN_DEADLINE`];
//! - a peer that does not answer is a *suspect*: no living member, asked for nothing, until it answers a probe or the
//!   control plane tells of it anew. Probes go on as long as it is a member;
//! - a peer that vanishes is noticed within [`IDLE_TIMEOUT`] and one more [`KEEP_ALIVE`].
//!
//! It does not know what requests, notices and datagrams mean, and keeps no order between any two of them. It routes
//! nothing: a message goes to the peer that it is for, directly, or not at all.

pub(crate) mod accept;
mod dial;
mod exchange;
mod frame;
mod identity;
mod link;
mod member;
mod roster;
#[cfg(test)]
mod tests;
mod transport;

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_wire::sync_v1 as sync_wire;
use tokio_util::sync::CancellationToken;

use self::accept::Acceptor;
use self::dial::Dialer;
pub(crate) use self::exchange::{Frames, Outbound, Replies};
use self::frame::FRAME_BYTES_MAX;
use self::identity::{Identity, IdentityError};
pub(crate) use self::member::Telling;
use self::roster::Roster;

/// How long a peer may take to say that it takes an exchange, connecting included. On a network within a region it
/// takes milliseconds; the caller's caller still waits.
pub(crate) const OPEN_DEADLINE: Duration = Duration::from_secs(1);
/// How long telling everybody may take: whoever waits for it is a client that changed something.
pub(crate) const TELL_DEADLINE: Duration = Duration::from_millis(250);
/// How often a silent connection is probed: several times within [`IDLE_TIMEOUT`], so that one lost packet is no death.
const KEEP_ALIVE: Duration = Duration::from_millis(500);
/// After how much silence a connection is given up, and with it every exchange on it.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest notice: it is told to every node.
pub(crate) const NOTICE_BYTES_MAX: usize = 64 * 1024;
/// Longest datagram: with QUIC's own bytes it fits a packet of 1,200 bytes, which every path carries.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 1_150;

/// Name of a node in the mesh: its id.
pub(crate) type Peer = Arc<str>;

/// Which process of a node: told from others by the certificate that it made at its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Process(pub(crate) u64);

/// What a service does for an exchange.
pub(crate) type Served = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What serves peers' requests.
pub(crate) trait Service: Send + Sync + 'static {
    /// Answers a request. When the future ends, the peer sees the proper end of the replies; when it panics or is
    /// dropped, that they were broken off. It goes on when the peer left ([`Replies::closed`] tells), but is dropped
    /// some seconds after the connection is gone.
    fn exchange(self: Arc<Self>, from: Peer, request: Bytes, replies: Replies) -> Served;
    /// Takes a notice; the peer is told that it was taken. Must not block.
    fn notice(&self, from: Peer, process: Process, notice: Bytes);
    /// Takes a datagram. It may come late, twice or never. Must not block.
    fn datagram(&self, from: Peer, process: Process, bytes: Bytes);
}

/// Where a node's mesh is bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bind {
    /// UDP; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Where peers find it, if not at `listen`. Port 0 stands for the port that was bound.
    pub(crate) advertise: Option<SocketAddr>,
}

/// Why the mesh does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    #[error("{address} cannot be bound")]
    Socket {
        address: SocketAddr,
        #[source]
        source: std::io::Error,
    },
    #[error("{0} is every address: say by which one peers find this node")]
    Unspecified(SocketAddr),
    #[error("the node has no identity")]
    Identity(#[from] IdentityError),
}

/// Why a peer was not reached. Nothing of a request was sent to it.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unreachable {
    #[error("it is no member")]
    NotMember,
    #[error("it did not answer lately")]
    Suspect,
    #[error("it did not answer in time")]
    Late,
    #[error("it is going down")]
    GoingDown,
    #[error("it broke the exchange off")]
    Cut,
    #[error("there is no connection yet; one is being made")]
    NotConnected,
    #[error("a datagram has at most {DATAGRAM_BYTES_MAX} bytes, not {bytes}")]
    TooLarge { bytes: usize },
    #[error("datagrams do not pass")]
    NoDatagrams,
    #[error("the connection was lost")]
    Lost(#[source] quinn::ConnectionError),
    #[error("it cannot be connected to")]
    Connect(#[source] quinn::ConnectError),
    #[error("this node has no identity to show")]
    Identity(#[source] Arc<IdentityError>),
}

impl Unreachable {
    /// Whether a stream may carry what no datagram does.
    pub(crate) fn refuses_datagrams(&self) -> bool {
        matches!(self, Unreachable::NoDatagrams)
    }
}

/// Why an exchange broke off. The peer may have done anything or nothing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum MeshError {
    #[error("a frame has at most {FRAME_BYTES_MAX} bytes, not {bytes}")]
    TooLarge { bytes: usize },
    #[error("the peer broke the exchange off")]
    Cut,
    #[error("the connection was lost")]
    Lost(#[source] quinn::ConnectionError),
}

/// The other side of an exchange left.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the other side left")]
pub(crate) struct Gone(#[source] pub(crate) MeshError);

/// A node's place in the mesh.
pub(crate) struct Mesh {
    me: Peer,
    roster: Arc<Roster>,
    /// Absent on a node that takes no part.
    dialer: Option<Arc<Dialer>>,
    /// Cancelled once the control plane has told of the members.
    told: CancellationToken,
}

impl Mesh {
    /// A mesh of this node alone.
    pub(crate) fn alone(me: &str) -> (Mesh, Acceptor) {
        let mesh = Mesh {
            me: me.into(),
            roster: Arc::new(Roster::new(me)),
            dialer: None,
            told: CancellationToken::new(),
        };
        mesh.told.cancel();
        (mesh, Acceptor::of_nobody())
    }

    /// Binds the mesh. It has no other members until the control plane tells of some ([`Mesh::take_members`]), and
    /// answers nobody until the acceptor serves.
    pub(crate) fn bind(me: &str, bind: Bind) -> Result<(Mesh, Acceptor), BindError> {
        let roster = Arc::new(Roster::new(me));
        let dialer = Arc::new(Dialer::bind(roster.clone(), Identity::generate()?, bind)?);
        let acceptor = Acceptor::new(dialer.clone());
        let told = CancellationToken::new();
        Ok((Mesh { me: me.into(), roster, dialer: Some(dialer), told }, acceptor))
    }

    /// This node.
    pub(crate) fn me(&self) -> &Peer {
        &self.me
    }

    /// Where peers find this node and by what they know it; `None` when it takes no part.
    pub(crate) fn whereabouts(&self) -> Option<sync_wire::Mesh> {
        self.dialer.as_ref().map(|dialer| dialer.whereabouts())
    }

    /// Which process this is; `None` when it takes no part.
    pub(crate) fn process(&self) -> Option<Process> {
        self.dialer.as_ref().map(|dialer| dialer.process())
    }

    /// Changes with what the control plane says of the members; `None` until it said something.
    pub(crate) fn version(&self) -> Option<u64> {
        let is_told = self.dialer.is_some() && self.told.is_cancelled();
        is_told.then(|| self.roster.version())
    }

    /// The other members, whether or not they answer, and which processes of theirs they are.
    pub(crate) fn processes(&self) -> Vec<(Peer, Process)> {
        let links = self.roster.links();
        links.iter().map(|link| (link.member.peer.clone(), link.member.process())).collect()
    }

    /// Living members with this node, sorted.
    pub(crate) fn members(&self) -> Vec<Peer> {
        self.roster.living()
    }

    /// Whether it is this node or another living member.
    pub(crate) fn is_member(&self, peer: &str) -> bool {
        self.roster.is_living(peer)
    }

    /// The living member that a key belongs to (rendezvous hash): the same on every node that sees the same living
    /// members; when one goes, only its keys move.
    pub(crate) fn home(&self, key: &[u8]) -> Peer {
        self.roster.home(key)
    }

    /// Takes what the control plane says of the members. `telling` is what it said on the same stream before.
    pub(crate) fn take_members(&self, telling: &mut Telling, members: sync_wire::Members) {
        if self.dialer.is_some() {
            telling.take(&self.roster, members);
            self.told.cancel();
        }
    }

    /// Waits until the control plane has told of the members; not at all on a node that takes no part.
    pub(crate) async fn told(&self) {
        self.told.cancelled().await;
    }

    /// Reserves an exchange with a peer: returns once the peer said that it is there and will take it. Nothing of the
    /// request was sent before, so on `Err` the caller may go elsewhere. Ends within [`OPEN_DEADLINE`]; a peer that
    /// was not reached is a suspect then. This node itself is not a peer. Dropping the future lets the peer go.
    pub(crate) async fn open(&self, peer: &str) -> Result<Outbound, Unreachable> {
        let dialer = self.dialer.as_ref().ok_or(Unreachable::NotMember)?;
        dialer.open(peer).await
    }

    /// Tells all peers something small; waits at most [`TELL_DEADLINE`] until each living one acknowledged. A suspect
    /// is told too, but not waited for. Dropping the future takes nothing back.
    pub(crate) async fn tell_all(&self, notice: Bytes) {
        if let Some(dialer) = &self.dialer {
            dialer.tell_all(notice).await;
        }
    }

    /// Tells one peer something small, aside. It may get lost with the peer. Must be called within the runtime.
    pub(crate) fn tell(&self, peer: &str, notice: Bytes) {
        if let Some(dialer) = &self.dialer {
            dialer.tell(peer, notice);
        }
    }

    /// Waits, within a bound, until what was told before has arrived.
    pub(crate) async fn all_told(&self) {
        if let Some(dialer) = &self.dialer {
            dialer.told().await;
        }
    }

    /// Sends a datagram: at most [`DATAGRAM_BYTES_MAX`] bytes that may get lost. Must be called within the runtime.
    pub(crate) fn datagram(&self, peer: &str, bytes: Bytes) -> Result<(), Unreachable> {
        let dialer = self.dialer.as_ref().ok_or(Unreachable::NotMember)?;
        dialer.datagram(peer, bytes)
    }

    /// Waits, within a bound, until the exchanges that peers have with this node ended. Meaningful once the acceptor
    /// takes no new ones.
    pub(crate) async fn drain(&self) {
        if let Some(dialer) = &self.dialer {
            dialer.drain().await;
        }
    }

    /// Closes every connection, and with them every exchange.
    pub(crate) async fn close(&self) {
        if let Some(dialer) = &self.dialer {
            dialer.close().await;
        }
    }
}
