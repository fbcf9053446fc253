//! Budgets: this node's part in limits that hold across nodes, as [`gantry_limits`] decides it, on the mesh and the clock.
//!
//! Always holds: a call whose key has tokens here touches no lock that another waits for long, and no network; one that has
//! none waits for the owner at most [`PATIENCE`]; what a call took and did not use comes back ([`Held`]). Who speaks is who
//! the connection is with. Small messages go as datagrams, gathered for [`LINGER`], and by a stream where datagrams are
//! refused; buckets that move go by a stream.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_limits::engine::{Engine, Start, TICK_NS};
use gantry_limits::lease::{Lease, Leases, Take};
use gantry_limits::limit::Limit;
use gantry_limits::message::{self, Item};
use gantry_limits::{Key, Member, Moment, NodeId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::mesh::{Mesh, Peer, Process};

/// How long a call waits for the owner of its key, which is a round trip away, or a new connection.
const PATIENCE: Duration = Duration::from_millis(250);
/// After how long a call that waits looks again: an ask or its answer may be lost.
const LOOK: Duration = Duration::from_millis(25);
/// When a call may come again that waited in vain.
const RETRY: Duration = Duration::from_millis(500);
/// How long messages gather. A call that waits for its owner waits so much longer, twice.
const LINGER: Duration = Duration::from_millis(2);
/// How often the time is told where nothing is lent. Pulses are wanted each 100 ms.
const TICK_IDLE: Duration = Duration::from_millis(50);
/// Places where calls wait; a power of two. Calls of keys of one place wake each other.
const PLACES: usize = 64;

/// This node's part in all limits.
pub(crate) struct Budgets {
    leases: Arc<Leases>,
    engine: Mutex<Engine>,
    began: Instant,
    mesh: Arc<Mesh>,
    waiting: Vec<Notify>,
    /// There is something to be sent.
    to_send: Notify,
}

/// A token that a call took; it is given back when this is dropped, unless it was spent.
pub(crate) struct Held {
    lease: Arc<Lease>,
    generation: u32,
    began: Instant,
    is_spent: bool,
}

impl Held {
    /// The call is made.
    pub(crate) fn spend(&mut self) {
        self.is_spent = true;
    }
}

/// A call may be dropped anywhere, so nothing else sees each way out.
impl Drop for Held {
    fn drop(&mut self) {
        if !self.is_spent {
            self.lease.give_back(self.generation, moment(self.began));
        }
    }
}

/// A call that waits.
struct Waiting<'a>(&'a Lease);

impl<'a> Waiting<'a> {
    fn begin(lease: &'a Lease) -> Waiting<'a> {
        lease.begin_waiting();
        Waiting(lease)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.end_waiting();
    }
}

impl Budgets {
    /// A node that begins. One that takes no part in the mesh counts alone.
    pub(crate) fn new(mesh: Arc<Mesh>) -> Budgets {
        let began = Instant::now();
        let (me, start) = match mesh.process() {
            Some(process) => (member(mesh.me(), process), Start::Joining),
            None => (member(mesh.me(), Process(0)), Start::Alone),
        };
        let engine = Engine::new(me, start, moment(began));
        Budgets {
            leases: engine.leases(),
            engine: Mutex::new(engine),
            began,
            mesh,
            waiting: (0..PLACES).map(|_| Notify::new()).collect(),
            to_send: Notify::new(),
        }
    }

    /// Takes a token of a key. On refusal, how long until one may be there. Dropping the future takes nothing.
    pub(crate) async fn take(&self, key: Key, limit: Limit) -> Result<Held, Duration> {
        let now = self.now();
        let found = self.leases.with(key, |lease| (lease.take(now), lease.clone()));
        match found {
            Some((Take::Taken { asks }, lease)) => {
                let held = self.held(lease);
                if asks {
                    self.with_engine(|engine, now| engine.ask(key, limit, now));
                }
                Ok(held)
            }
            Some((Take::Refused { retry_ns }, _)) => Err(Duration::from_nanos(retry_ns)),
            Some((Take::Wait, _)) | None => self.wait(key, limit).await,
        }
    }

    async fn wait(&self, key: Key, limit: Limit) -> Result<Held, Duration> {
        let lease = self.with_engine(|engine, now| engine.lease(key, limit, now));
        let _waiting = Waiting::begin(&lease);
        let until = Instant::now() + PATIENCE;
        let Some(place) = self.waiting.get(key.place(PLACES)) else { return Err(RETRY) };
        loop {
            let mut woken = std::pin::pin!(place.notified());
            // From here on no answer is missed.
            woken.as_mut().enable();
            self.with_engine(|engine, now| engine.ask_if_waiting(key, limit, now));
            match lease.take_again(self.now()) {
                Take::Taken { .. } => return Ok(self.held(lease.clone())),
                Take::Refused { retry_ns } => return Err(Duration::from_nanos(retry_ns)),
                Take::Wait if Instant::now() >= until => return Err(RETRY),
                Take::Wait => {
                    // Whichever comes first, it looks again.
                    let _ = timeout(LOOK, woken).await;
                }
            }
        }
    }

    /// Takes a packet of a peer. `false`: it cannot be read.
    pub(crate) fn receive(&self, from: &Peer, process: Process, packet: &[u8]) -> bool {
        let Ok(items) = message::read(packet) else { return false };
        let from = member(from, process);
        for item in items {
            let key = if let Item::Answer(answer) = &item { Some(answer.key) } else { None };
            self.with_engine(|engine, now| engine.receive(from, item, now));
            if let Some(place) = key.and_then(|key| self.waiting.get(key.place(PLACES))) {
                place.notify_waiters();
            }
        }
        true
    }

    /// Tells the engine of time and members, and sends what it says, until the node goes; then hands over what it owns.
    pub(crate) async fn run(&self, leaving: CancellationToken) {
        let ticking = async {
            let mut seen = None;
            loop {
                self.look_at_members(&mut seen);
                self.with_engine(Engine::tick);
                let is_idle = self.leases.is_empty();
                sleep(if is_idle { TICK_IDLE } else { Duration::from_nanos(TICK_NS) }).await;
            }
        };
        let sending = async {
            loop {
                self.to_send.notified().await;
                sleep(LINGER).await;
                self.send();
            }
        };
        tokio::select! {
            () = leaving.cancelled() => {}
            () = ticking => {}
            () = sending => {}
        }
        self.with_engine(Engine::leave);
        self.send();
        self.mesh.all_told().await;
    }

    /// Tells the engine when the control plane said otherwise who the members are. Those that do not answer are some.
    fn look_at_members(&self, seen: &mut Option<u64>) {
        let Some(version) = self.mesh.version().filter(|version| *seen != Some(*version)) else { return };
        *seen = Some(version);
        let members: Vec<Member> =
            self.mesh.processes().iter().map(|(peer, process)| member(peer, *process)).collect();
        self.with_engine(|engine, now| engine.change_members(members, now));
    }

    fn send(&self) {
        let messages = self.engine().take_messages();
        if messages.is_empty() {
            return;
        }
        // By process: what is for one that is gone is not for the one that took its place.
        let peers: HashMap<Member, Peer> =
            self.mesh.processes().into_iter().map(|(peer, process)| (member(&peer, process), peer)).collect();
        let mut packets: HashMap<Member, Vec<u8>> = HashMap::new();
        for (to, item) in messages {
            let Some(peer) = peers.get(&to) else { continue };
            if matches!(item, Item::Hand(_)) {
                let mut packet = Vec::new();
                item.write(&mut packet);
                self.mesh.tell(peer, packet.into());
                continue;
            }
            let packet = packets.entry(to).or_default();
            if !item.write(packet) {
                self.send_packet(peer, std::mem::take(packet));
                item.write(packet);
            }
        }
        for (to, packet) in packets {
            if let Some(peer) = peers.get(&to) {
                self.send_packet(peer, packet);
            }
        }
    }

    fn send_packet(&self, peer: &Peer, packet: Vec<u8>) {
        let packet = Bytes::from(packet);
        let is_refused =
            self.mesh.datagram(peer, packet.clone()).is_err_and(|error| error.refuses_datagrams());
        // Anything else that fails is a loss, which the engine expects.
        if is_refused {
            self.mesh.tell(peer, packet);
        }
    }

    fn held(&self, lease: Arc<Lease>) -> Held {
        let generation = lease.generation();
        Held { lease, generation, began: self.began, is_spent: false }
    }

    fn now(&self) -> Moment {
        moment(self.began)
    }

    fn with_engine<T>(&self, act: impl FnOnce(&mut Engine, Moment) -> T) -> T {
        let mut engine = self.engine();
        let result = act(&mut engine, self.now());
        if engine.has_messages() {
            self.to_send.notify_one();
        }
        result
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Never 0, which is no moment.
fn moment(began: Instant) -> Moment {
    Moment(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1))
}

fn node_id(peer: &Peer) -> NodeId {
    let mut first = [0; 8];
    first.copy_from_slice(&blake3::hash(peer.as_bytes()).as_bytes()[..8]);
    NodeId(u64::from_be_bytes(first))
}

fn member(peer: &Peer, process: Process) -> Member {
    Member { node: node_id(peer), incarnation: process.0 }
}
