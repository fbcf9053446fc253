//! The world: nodes, what passes between them, and what befalls them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::Ordering;

use super::Dice;
use super::checker::Admission;
use crate::engine::{Engine, Start, TICK_NS};
use crate::lease::Take;
use crate::limit::Limit;
use crate::message::{self, Item};
use crate::owner::Defect;
use crate::{Key, LEASE_NS, Member, Moment, NodeId};

const MS: u64 = 1_000_000;
/// How long a call waits for a token.
const PATIENCE_NS: u64 = 100 * MS;

/// How long it takes, after a node that was taken for gone is back, until all know.
const LOOSE_AFTER_NS: u64 = 700 * MS;

/// What the network does, in thousandths, and how long a message takes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weather {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) delayed: u64,
    pub(crate) delay_ns: u64,
}

pub(crate) const CALM: Weather = Weather { lost: 0, doubled: 0, delayed: 0, delay_ns: MS };

#[derive(Debug)]
enum Event {
    Tick,
    Deliver(Member, Item),
    Members(Vec<Member>),
    Call(usize),
}

pub(crate) struct Node {
    pub(crate) member: Member,
    pub(crate) engine: Engine,
    /// Its clock is another than the world's.
    ahead: u64,
    paused_until: u64,
    pub(crate) is_cut_off: bool,
    /// Calls that wait: of which key, and until when.
    waiting: Vec<(usize, u64)>,
}

pub(crate) struct World {
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) weather: Weather,
    pub(crate) limits: Vec<(Key, Limit)>,
    /// Calls in a second, by node and key.
    pub(crate) demand: Vec<Vec<f64>>,
    pub(crate) nodes: BTreeMap<u64, Node>,
    pub(crate) admitted: Vec<Vec<Admission>>,
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    /// Pairs that do not hear each other.
    pub(crate) parted: BTreeSet<(u64, u64)>,
    /// Whom the control plane sees.
    listed: BTreeSet<u64>,
    /// Nodes that live and are taken for gone, and the time for which there were any.
    loose: BTreeSet<u64>,
    told_until: BTreeMap<u64, u64>,
    loose_until: u64,
    loose_ns: u64,
    queue: BTreeMap<(u64, u64), (u64, u64, Event)>,
    number: u64,
    incarnations: u64,
    /// What was granted last, by key, owner, holder and ledger.
    granted: HashMap<(Key, Member, Member), (u32, u32, u64)>,
    defect: Option<Defect>,
}

impl World {
    pub(crate) fn new(seed: u64, limits: Vec<Limit>, defect: Option<Defect>) -> World {
        let mut dice = Dice::new(seed);
        let mut key = || {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&dice.roll().to_le_bytes());
            bytes[8..].copy_from_slice(&dice.roll().to_le_bytes());
            Key(bytes)
        };
        let limits: Vec<(Key, Limit)> = limits.into_iter().map(|limit| (key(), limit)).collect();
        World {
            now: 1_000 * MS,
            dice,
            weather: CALM,
            admitted: vec![Vec::new(); limits.len()],
            limits,
            demand: Vec::new(),
            nodes: BTreeMap::new(),
            messages: 0,
            bytes: 0,
            parted: BTreeSet::new(),
            listed: BTreeSet::new(),
            loose: BTreeSet::new(),
            told_until: BTreeMap::new(),
            loose_until: 0,
            loose_ns: 0,
            queue: BTreeMap::new(),
            number: 0,
            incarnations: 0,
            granted: HashMap::new(),
            defect,
        }
    }

    /// A process of a node begins, and the control plane sees it.
    pub(crate) fn start(&mut self, id: u64) {
        self.incarnations += 1;
        let member = Member { node: NodeId(crate::mix(id + 1)), incarnation: self.incarnations };
        let ahead = self.dice.below(1 << 40);
        let mut engine = Engine::new(member, Start::Joining, Moment(self.now + ahead));
        engine.owner.defect = self.defect;
        let (waiting, is_cut_off) = (Vec::new(), false);
        self.nodes.insert(id, Node { member, engine, ahead, paused_until: 0, is_cut_off, waiting });
        self.push(self.now, id, Event::Tick);
        for key in 0..self.limits.len() {
            self.push(self.now, id, Event::Call(key));
        }
        self.listed.insert(id);
        self.tell();
    }

    /// A process dies without a word; the control plane notices.
    pub(crate) fn crash(&mut self, id: u64) {
        self.nodes.remove(&id);
        self.loose.remove(&id);
        if self.listed.remove(&id) {
            self.tell();
        }
    }

    /// A process goes in good order.
    pub(crate) fn leave(&mut self, id: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.engine.leave(Moment(self.now + node.ahead));
        }
        self.carry(id);
        self.crash(id);
    }

    pub(crate) fn pause(&mut self, id: u64, ns: u64) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.paused_until = node.paused_until.max(self.now + ns);
        }
    }

    /// The control plane does not see a node any more, and takes it for gone, or sees it again.
    pub(crate) fn cut_off(&mut self, id: u64, is_cut_off: bool) {
        if let Some(node) = self.nodes.get_mut(&id) {
            node.is_cut_off = is_cut_off;
            let changed = if is_cut_off {
                self.loose.insert(id);
                self.listed.remove(&id)
            } else {
                self.listed.insert(id)
            };
            if changed {
                self.tell();
            }
        }
    }

    pub(crate) fn members(&self) -> usize {
        self.listed.len()
    }

    /// Who owns a key, as the first node sees it.
    pub(crate) fn owner(&self, key: usize) -> Option<u64> {
        let owner = self.nodes.values().next()?.engine.owner_of(self.limits[key].0)?;
        self.nodes.iter().find(|(_, node)| node.member.node == owner).map(|(id, _)| *id)
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 < end) {
            let ((at, _), (id, incarnation, event)) = entry.remove_entry();
            self.pass(at);
            let Some(node) = self.nodes.get(&id).filter(|node| node.member.incarnation == incarnation) else {
                continue;
            };
            if node.paused_until > at {
                let until = node.paused_until;
                self.push(until, id, event);
                continue;
            }
            self.happen(id, event);
            self.carry(id);
            self.serve_waiting(id);
        }
        self.pass(end);
    }

    fn pass(&mut self, at: u64) {
        if !self.loose.is_empty() {
            self.loose_until = at + LOOSE_AFTER_NS;
        }
        self.loose_ns += at.min(self.loose_until).saturating_sub(self.now);
        self.now = at;
    }

    fn happen(&mut self, id: u64, event: Event) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let local = Moment(now + node.ahead);
        if std::env::var_os("GANTRY_LIMITS_TRACE").is_some() && !matches!(event, Event::Tick | Event::Call(_))
        {
            println!("{} us: {id} {event:?}", now / 1_000);
        }
        match event {
            Event::Tick => {
                node.engine.tick(local);
                self.push(now + TICK_NS, id, Event::Tick);
            }
            Event::Deliver(from, item) => node.engine.receive(from, item, local),
            Event::Members(members) => {
                node.engine.change_members(members, local);
                if !node.is_cut_off {
                    self.loose.remove(&id);
                }
            }
            Event::Call(key) => {
                let rate = self.demand.get(id as usize).map_or(0.0, |keys| keys[key]);
                if rate > 0.0 {
                    self.call(id, key);
                    let wait = self.dice.wait(1e9 / rate).max(1);
                    self.push(now + wait, id, Event::Call(key));
                } else {
                    self.push(now + 20 * MS, id, Event::Call(key));
                }
            }
        }
    }

    fn call(&mut self, id: u64, key: usize) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (local, (name, limit)) = (Moment(self.now + node.ahead), self.limits[key]);
        let lease = node.engine.leases().get(name);
        match lease.map_or(Take::Wait, |lease| lease.take(local)) {
            Take::Taken { asks } => {
                if asks {
                    node.engine.ask(name, limit, local);
                }
                self.admit(key, 0);
                self.carry(id);
            }
            Take::Refused { .. } => {}
            Take::Wait => {
                node.waiting.push((key, self.now + PATIENCE_NS));
                node.engine.ask(name, limit, local).begin_waiting();
                self.serve_waiting(id);
            }
        }
    }

    /// Lets calls that wait look again.
    fn serve_waiting(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let (now, local) = (self.now, Moment(self.now + node.ahead));
        let mut admitted = Vec::new();
        let engine = &mut node.engine;
        let limits = &self.limits;
        node.waiting.retain(|(key, until)| {
            let (name, limit) = limits[*key];
            let lease = engine.ask_if_waiting(name, limit, local);
            let is_over = match lease.take_again(local) {
                Take::Taken { .. } => {
                    admitted.push(*key);
                    true
                }
                Take::Refused { .. } => true,
                Take::Wait => now >= *until,
            };
            if is_over {
                lease.end_waiting();
            }
            !is_over
        });
        // Tokens of those that are written down later are outstanding still.
        for (index, key) in admitted.iter().enumerate() {
            let later = admitted[index + 1..].iter().filter(|other| *other == key).count();
            self.admit(*key, later as u64);
        }
        self.carry(id);
    }

    fn admit(&mut self, key: usize, later: u64) {
        let (name, limit) = self.limits[key];
        let mut outstanding = 1 + later;
        for node in self.nodes.values() {
            let Some(lease) = node.engine.leases().get(name) else { continue };
            let local = Moment(self.now + node.ahead);
            // A lease that lasts longer than any can is none.
            let is_lease = lease.deadline.load(Ordering::Relaxed) <= local.0 + LEASE_NS;
            outstanding += if is_lease { u64::from(lease.tokens(local)) } else { 0 };
            // What gathers of its floor.
            let owner = node.engine.owner_of(name).and_then(|owner| node.engine.standing.floor(owner));
            outstanding += u64::from(owner.is_some_and(|(_, is_used)| is_used));
            let ledger = lease.ledger();
            for ((key, _, holder), (generation, granted, at)) in &self.granted {
                if *key == name
                    && *holder == node.member
                    && ledger.generation == *generation
                    && self.now < at + LEASE_NS
                {
                    outstanding += u64::from(granted.saturating_sub(ledger.applied));
                }
            }
        }
        // However much there is said to be: more than this is nobody's to lend.
        let most = if limit.is_small() {
            self.nodes.len() as u64 * 8
        } else {
            limit.room() + self.nodes.len() as u64
        };
        let admission = Admission { at: self.now, outstanding: outstanding.min(most), loose: self.loose_ns };
        self.admitted[key].push(admission);
    }

    /// Carries what a node says.
    fn carry(&mut self, id: u64) {
        let Some(node) = self.nodes.get_mut(&id) else { return };
        let from = node.member;
        for (to, item) in node.engine.take_messages() {
            let receiver = self.nodes.iter().find(|(_, node)| node.member == to);
            let Some((to, receiver)) = receiver.map(|(id, node)| (*id, node.member)) else { continue };
            let mut packet = Vec::new();
            assert!(item.write(&mut packet), "an item fits a packet");
            assert_eq!(message::read(&packet), Ok(vec![item.clone()]));
            self.messages += 1;
            self.bytes += packet.len() as u64;
            if let Item::Answer(answer) = &item {
                let entry = self.granted.entry((answer.key, from, receiver)).or_default();
                *entry = (answer.generation, answer.granted, self.now);
            }
            let is_parted = self.parted.contains(&(id.min(to), id.max(to)));
            let is_reliable = matches!(item, Item::Hand(_));
            if is_parted || !is_reliable && self.dice.chance(self.weather.lost) {
                continue;
            }
            for _ in 0..1 + u64::from(self.dice.chance(self.weather.doubled)) {
                let mut delay = self.weather.delay_ns / 2 + self.dice.below(self.weather.delay_ns);
                if self.dice.chance(self.weather.delayed) {
                    let longest = self.dice.pick(&[20, 100, 700, 2_000]);
                    delay += self.dice.below(longest * MS);
                }
                self.push(self.now + delay, to, Event::Deliver(from, item.clone()));
            }
        }
    }

    /// The control plane tells everybody whom it sees.
    fn tell(&mut self) {
        let members: Vec<Member> =
            self.listed.iter().filter_map(|id| self.nodes.get(id)).map(|node| node.member).collect();
        for id in self.listed.clone() {
            let longest = if self.dice.0.is_multiple_of(8) { 200 } else { 10 };
            let delay = MS + self.dice.below(longest * MS);
            // A stream keeps the order.
            let at = self.told_until.get(&id).copied().unwrap_or(0).max(self.now + delay);
            self.told_until.insert(id, at);
            self.push(at, id, Event::Members(members.clone()));
        }
    }

    fn push(&mut self, at: u64, id: u64, event: Event) {
        let Some(node) = self.nodes.get(&id) else { return };
        self.number += 1;
        self.queue.insert((at, self.number), (id, node.member.incarnation, event));
    }
}
