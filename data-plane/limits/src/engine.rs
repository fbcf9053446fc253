//! The engine: a node's part in all limits. Events in, messages out.
//!
//! Always holds: it acts at what it is told and at nothing else; given the same, it does the same. Every event has the
//! time, and time never goes back (what is earlier counts as the latest).

use std::collections::VecDeque;
use std::sync::Arc;

use crate::hand::Hands;
use crate::lease::{Leases, SHARDS};
use crate::members::Members;
use crate::message::{Answer, Ask, Item};
use crate::owner::Owner;
use crate::standing::{PULSE_NS, Standing};
use crate::tenure::Tenures;
use crate::{Key, Member, Moment, NodeId, mix};

/// How often [`Engine::tick`] wants to be called. A lost ask is made again at the next after [`RETRY_NS`].
pub const TICK_NS: u64 = 5_000_000;
/// After how long without an answer a key is asked for again: several round trips within a region.
pub(crate) const RETRY_NS: u64 = 25_000_000;
/// How often keys are looked at that may be forgotten. It looks at all of them.
const SWEEP_NS: u64 = 1_000_000_000;

/// How long a node that begins waits to be told of others. After it, it acts as if there were none.
const TOLD_NS: u64 = 5_000_000_000;

/// How a node begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// There are no others, and what was spent before is forgotten: buckets are full.
    Alone,
    /// It will be told of others, and lends nothing before. After a while it acts as if there were none; buckets are
    /// empty then.
    Joining,
}

/// A node's part in all limits.
pub struct Engine {
    pub(crate) me: Member,
    pub(crate) now: Moment,
    pub(crate) standing: Standing,
    pub(crate) tenures: Tenures,
    pub(crate) owner: Owner,
    pub(crate) hands: Hands,
    pub(crate) leases: Arc<Leases>,
    /// Asks that may have to be made again.
    pub(crate) asked: VecDeque<(Moment, Key, u32)>,
    /// The last ledger that was begun.
    pub(crate) generation: u32,
    pub(crate) out: Vec<(Member, Item)>,
    is_told: bool,
    has_left: bool,
    started_at: Moment,
    pulsed_at: Moment,
    swept_at: Moment,
    next_shard: usize,
}

impl Engine {
    /// A node that begins.
    pub fn new(me: Member, start: Start, now: Moment) -> Engine {
        let is_alone = start == Start::Alone;
        let standing = Standing::new(me, is_alone, now);
        Engine {
            me,
            now,
            tenures: Tenures::new(standing.members().clone(), is_alone, is_alone),
            standing,
            owner: Owner::default(),
            hands: Hands::default(),
            leases: Arc::new(Leases::new()),
            asked: VecDeque::new(),
            // Two processes of a node have other ledgers, even where one gets what was said to the other.
            generation: (mix(me.incarnation) >> 34) as u32,
            out: Vec::new(),
            is_told: is_alone,
            has_left: false,
            started_at: now,
            pulsed_at: now,
            swept_at: now,
            next_shard: 0,
        }
    }

    /// Where calls take their tokens from.
    pub fn leases(&self) -> Arc<Leases> {
        self.leases.clone()
    }

    /// What is to be sent, to whom. It is for that very process: another one of the node must not get it.
    pub fn take_messages(&mut self) -> Vec<(Member, Item)> {
        std::mem::take(&mut self.out)
    }

    /// Whether there is something to be sent.
    pub fn has_messages(&self) -> bool {
        !self.out.is_empty()
    }

    /// Keys of which this node keeps buckets, as their owner.
    pub fn owned_count(&self) -> usize {
        self.owner.len()
    }

    /// Who owns a key, as this node sees it.
    pub fn owner_of(&self, key: Key) -> Option<NodeId> {
        self.standing.members().owner(key)
    }

    /// The control plane says who the members are, this node included.
    pub fn change_members(&mut self, members: Vec<Member>, now: Moment) {
        self.advance(now);
        let mut list: Vec<Member> =
            members.into_iter().filter(|member| member.node != self.me.node).collect();
        list.push(self.me);
        let members = Arc::new(Members::new(list));
        let is_first = !self.is_told;
        self.is_told = true;
        if self.has_left || !is_first && members == *self.standing.members() {
            return;
        }
        if is_first {
            // What it did while it knew of nobody was not its own.
            self.owner.clear();
            let is_alone = members.list().len() == 1;
            self.standing = Standing::new(self.me, is_alone, self.now);
            self.tenures = Tenures::new(members.clone(), is_alone, is_alone);
        }
        self.change(&members, is_first);
    }

    /// A message of another member, as the connection says who that is.
    pub fn receive(&mut self, from: Member, item: Item, now: Moment) {
        self.advance(now);
        if !self.standing.members().has(from) && !matches!(item, Item::Hand(_)) {
            return;
        }
        match item {
            Item::Ask(ask) => {
                if let Some(answer) = self.lend(from, &ask) {
                    self.out.push((from, Item::Answer(answer)));
                }
            }
            Item::Answer(answer) => self.apply(from.node, &answer),
            Item::Pulse(pulse) => {
                if self.standing.hear(from, &pulse) {
                    self.settle();
                }
            }
            Item::Hand(hand) => self.take_hand(from, hand),
        }
    }

    /// Does what the time demands.
    pub fn tick(&mut self, now: Moment) {
        self.advance(now);
        if !self.is_untold() && self.standing.settle() {
            self.settle();
        }
        if self.now.since(self.pulsed_at) >= PULSE_NS && !self.has_left {
            self.pulsed_at = self.now;
            self.pulse();
        }
        self.ask_again();
        self.sweep_leases(self.next_shard);
        self.next_shard = (self.next_shard + 1) % SHARDS;
        if self.now.since(self.swept_at) >= SWEEP_NS {
            self.swept_at = self.now;
            self.owner.sweep(self.standing.flows(), self.now);
        }
    }

    /// Goes away in good order: hands over what it owns. It owns nothing from now on; what it holds it may spend.
    pub fn leave(&mut self, now: Moment) {
        self.advance(now);
        if !self.has_left {
            self.has_left = true;
            let members = self.standing.members().without(self.me.node);
            self.hand_over(&members, true, false);
        }
    }

    /// The owner's answer to an ask, this node's own or another's. `None`: nothing is to be said.
    pub(crate) fn lend(&mut self, from: Member, ask: &Ask) -> Option<Answer> {
        if self.is_untold() {
            return None;
        }
        if self.has_left || self.standing.members().owner(ask.key) != Some(self.me.node) {
            // One of the two has not heard yet who the members are; soon both will.
            let Ask { key, generation, seq, applied, .. } = *ask;
            return Some(Answer { key, generation, seq, granted: applied, retry_us: RETRY_NS / 1_000 });
        }
        let (tenures, me) = (&self.tenures, self.me.node);
        let beginning = || tenures.beginning(me, ask.key);
        self.owner.ask(from, ask, self.standing.flows(), self.now, beginning)
    }

    /// Whether it waits to be told of others.
    fn is_untold(&self) -> bool {
        !self.is_told && self.now.since(self.started_at) < TOLD_NS
    }

    pub(crate) fn change(&mut self, members: &Arc<Members>, is_first: bool) {
        let gone: Vec<Member> = {
            let before = self.standing.members().list().iter();
            before.copied().filter(|member| !members.has(*member)).collect()
        };
        self.standing.change(members.clone(), self.now);
        if !is_first {
            self.tenures.begin(members.clone(), gone.is_empty());
        }
        self.hands.change(gone, is_first);
        self.take_stashed();
        self.hand_over(members, false, is_first);
        self.leases.forget_refusals();
        // Others hear at once, so that they agree soon.
        self.pulsed_at = self.now;
        self.pulse();
    }

    fn pulse(&mut self) {
        let members = self.standing.members().clone();
        for member in members.list() {
            if let Some(pulse) = self.standing.pulse(member.node) {
                self.out.push((*member, Item::Pulse(pulse)));
            }
        }
    }

    fn settle(&mut self) {
        self.owner.settle(self.standing.flows(), self.now);
        self.tenures.settle();
        // Whom it was to agree with hears that it does.
        self.pulsed_at = self.now;
        self.pulse();
    }

    pub(crate) fn advance(&mut self, now: Moment) {
        self.now = self.now.max(now);
        let before = self.standing.flows();
        self.standing.advance(self.now);
        #[cfg(test)]
        self.standing.pretend(self.owner.defect);
        self.tenures.advance(before, self.standing.flows());
    }
}
