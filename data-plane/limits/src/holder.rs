//! The holder's side: asking ahead of demand, applying what is lent, giving back what is not needed.
//!
//! Always holds: a lease is counted from when it was asked for; tokens that it ended with are dropped before any new ones
//! are there; an answer is applied once, and only to the ledger that asked. One ask of a key is under way at a time, or
//! two when the first seems lost.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::engine::{Engine, RETRY_NS};
use crate::lease::{Lease, Ledger};
use crate::limit::{Limit, OnOwnerLoss};
use crate::message::{Answer, Ask, Item};
use crate::{Key, LEASE_NS, Moment, NodeId, SLICE_NS};

/// Over how long demand is averaged.
const DEMAND_NS: f32 = 100_000_000.0;
/// A shorter time says nothing of demand.
const DEMAND_NS_MIN: u64 = 2_000_000;
/// After how long without a call a key is forgotten, once it has nothing.
const IDLE_NS: u64 = 2 * LEASE_NS;
/// Tokens after which a ledger is closed, far from where its numbers end.
const LEDGER_MAX: u32 = 1 << 30;

impl Engine {
    /// Sees to it that a key gets what its calls need: for a call that waits, or one that took nearly the last token.
    /// Where this node owns the key, it is there when this returns.
    pub fn ask(&mut self, key: Key, limit: Limit, now: Moment) -> Arc<Lease> {
        let lease = self.lease(key, limit, now);
        let is_asked = {
            let latest = lease.ledger().asked[0];
            latest.0 != 0 && self.now.since(latest.1) < RETRY_NS
        };
        if !is_asked {
            self.ask_for(key, &lease);
        }
        lease
    }

    /// What may be spent of a key, which is nothing when it is new.
    pub fn lease(&mut self, key: Key, limit: Limit, now: Moment) -> Arc<Lease> {
        self.advance(now);
        match self.leases.get(key) {
            Some(lease) => lease,
            None => self.leases.get_or_insert(key, || Lease::new(Ledger::new(limit, self.now))),
        }
    }

    /// The same for a call that waits already: once its key is there, it is asked for only when it has nothing.
    pub fn ask_if_waiting(&mut self, key: Key, limit: Limit, now: Moment) -> Arc<Lease> {
        self.advance(now);
        match self.leases.get(key) {
            Some(lease) if lease.tokens(self.now) > 0 || self.is_refused(&lease) => lease,
            _ => self.ask(key, limit, now),
        }
    }

    fn is_refused(&self, lease: &Lease) -> bool {
        lease.refused_until.load(Ordering::Relaxed) > self.now.0
    }

    /// Asks for a key, or tells of it.
    fn ask_for(&mut self, key: Key, lease: &Arc<Lease>) {
        let Some(owner) = self.standing.members().owner(key) else { return };
        let floor = self.standing.floor(owner);
        let mut ledger = lease.ledger();
        self.end(lease);
        if ledger.owner != owner || ledger.generation == 0 || ledger.applied > LEDGER_MAX {
            self.generation += 1;
            ledger.begin(owner, self.generation, lease.tokens(self.now));
            ledger.floor_spent = floor.map_or(0, |(floor, _)| floor);
            lease.refused_until.store(0, Ordering::Relaxed);
        }
        ledger.measure(lease, self.now);
        let tokens = lease.tokens(self.now);
        let ahead = ledger.target();
        lease.ask_below.store(ahead.div_ceil(2), Ordering::Relaxed);
        let waiting = lease.waiting_count();
        let want = ahead.saturating_sub(tokens).saturating_add(waiting);
        if let Some((flowed, true)) = floor {
            self.take_floor(lease, &mut ledger, flowed, want);
            return;
        }
        ledger.seq += 1;
        ledger.asked = [(ledger.seq, self.now), ledger.asked[0]];
        lease.is_asking.store(true, Ordering::Relaxed);
        let ask = Ask { want, waiting, ..ledger.report(key, tokens) };
        drop(ledger);
        if owner == self.me.node {
            if let Some(answer) = self.lend(self.me, &ask) {
                self.apply(owner, &answer);
            }
        } else if let Some(owner) = self.standing.members().of(owner) {
            self.asked.push_back((self.now.plus(RETRY_NS), key, ask.seq));
            self.out.push((owner, Item::Ask(ask)));
        }
    }

    /// Takes what a node may without the owner, which is not heard.
    fn take_floor(&mut self, lease: &Lease, ledger: &mut Ledger, flowed: u64, want: u32) {
        let limit = ledger.limit;
        let given = match limit.on_owner_loss() {
            OnOwnerLoss::Deny => 0,
            OnOwnerLoss::Allow => want,
            OnOwnerLoss::Floor => {
                // No more than one gathers: it is beside what the bucket of whoever is the owner has.
                let most = limit.time_for(limit.parts(1));
                ledger.floor_spent = ledger.floor_spent.max(flowed.saturating_sub(most));
                let there = limit.tokens(limit.paid_in(flowed - ledger.floor_spent));
                let given = there.min(want.into());
                ledger.floor_spent += limit.time_for(limit.parts(given));
                u32::try_from(given).unwrap_or(u32::MAX)
            }
        };
        lease.is_asking.store(false, Ordering::Relaxed);
        if given < want {
            // Its share is half of an even one.
            let next = limit
                .time_for(limit.parts(1))
                .saturating_mul(2 * self.standing.members().list().len() as u64);
            lease.refused_until.store(self.now.plus(next.min(RETRY_NS)).0, Ordering::Relaxed);
        }
        if given > 0 {
            // The owner lent none of these, and counts them as another's when it is heard again.
            self.generation += 1;
            let held = lease.tokens(self.now);
            ledger.begin(ledger.owner, self.generation, held + given);
            lease.deadline.store(self.now.plus(LEASE_NS).0, Ordering::Release);
            lease.tokens.fetch_add(given, Ordering::AcqRel);
        }
    }

    /// Applies an owner's answer.
    pub(crate) fn apply(&mut self, from: NodeId, answer: &Answer) {
        let Some(lease) = self.leases.get(answer.key) else { return };
        let mut ledger = lease.ledger();
        if ledger.owner != from || ledger.generation != answer.generation {
            return;
        }
        let asked = ledger.asked.iter().find(|(seq, _)| *seq == answer.seq && *seq != 0);
        let Some((_, sent)) = asked.copied() else { return };
        #[cfg(test)]
        let sent = if self.owner.defect == Some(crate::owner::Defect::NeverEnds) {
            self.now.plus(4 * LEASE_NS)
        } else {
            sent
        };
        for asked in &mut ledger.asked {
            // An answer tells of all before it.
            if asked.0 <= answer.seq {
                *asked = (0, Moment(0));
            }
        }
        self.end(&lease);
        let given = answer.granted.saturating_sub(ledger.applied);
        #[cfg(test)]
        let given =
            if self.owner.defect == Some(crate::owner::Defect::AppliesTwice) { 2 * given } else { given };
        ledger.applied = ledger.applied.max(answer.granted);
        let deadline = sent.plus(LEASE_NS);
        // What comes too late is gone: the owner may count it as ended.
        if self.now < deadline {
            lease.deadline.fetch_max(deadline.0, Ordering::AcqRel);
            lease.tokens.fetch_add(given, Ordering::AcqRel);
        }
        let retry_ns = answer.retry_us.saturating_mul(1_000);
        let until = if retry_ns == 0 { 0 } else { self.now.plus(retry_ns).0 };
        lease.refused_until.store(until, Ordering::Relaxed);
        lease.is_asking.store(false, Ordering::Relaxed);
    }

    /// Asks anew for what was not answered.
    pub(crate) fn ask_again(&mut self) {
        while self.asked.front().is_some_and(|(due, ..)| *due <= self.now) {
            let Some((_, key, seq)) = self.asked.pop_front() else { return };
            let Some(lease) = self.leases.get(key) else { continue };
            let is_wanted = {
                let ledger = lease.ledger();
                let is_used = lease.waiting_count() > 0
                    || lease.tokens(self.now) > 0
                    || self.now.since(ledger.called_at) < LEASE_NS;
                ledger.asked[0].0 == seq && is_used
            };
            if is_wanted {
                self.ask_for(key, &lease);
            }
        }
    }

    /// Looks at the keys of a shard: drops what has ended, gives back what is too much, forgets what is idle.
    pub(crate) fn sweep_leases(&mut self, shard: usize) {
        let mut to_tell = Vec::new();
        let leases = self.leases.clone();
        leases.retain(shard, |key, lease| {
            let mut ledger = lease.ledger();
            ledger.measure(lease, self.now);
            self.end(lease);
            let tokens = lease.tokens(self.now);
            let target = ledger.target();
            if tokens > 2 * target + 1 && Some(ledger.owner) == self.owner_of(key) {
                let take = |tokens: u32| (tokens > target).then_some(target);
                let before = lease.tokens.fetch_update(Ordering::AcqRel, Ordering::Acquire, take);
                ledger.returned += before.map_or(0, |before| before - target);
                to_tell.push((key, lease.clone()));
            }
            let is_idle = self.now.since(ledger.called_at) >= IDLE_NS && lease.waiting_count() == 0;
            !is_idle || tokens > 0 || Arc::strong_count(lease) > 1
        });
        for (key, lease) in to_tell {
            self.ask_for(key, &lease);
        }
    }

    /// Drops tokens that have ended.
    fn end(&self, lease: &Lease) {
        #[cfg(test)]
        if self.owner.defect == Some(crate::owner::Defect::NeverEnds) {
            return;
        }
        if self.now.0 >= lease.deadline.load(Ordering::Acquire) {
            lease.drain();
        }
    }
}

impl Ledger {
    fn new(limit: Limit, now: Moment) -> Ledger {
        Ledger {
            limit,
            owner: NodeId(0),
            generation: 0,
            seq: 0,
            applied: 0,
            returned: 0,
            asked: [(0, Moment(0)); 2],
            demand: 0.0,
            calls_seen: 0,
            seen_at: now,
            called_at: now,
            floor_spent: 0,
        }
    }

    /// Begins anew with an owner, holding so much.
    fn begin(&mut self, owner: NodeId, generation: u32, held: u32) {
        self.owner = owner;
        (self.generation, self.seq) = (generation, 0);
        (self.applied, self.returned) = (held, 0);
        self.asked = [(0, Moment(0)); 2];
    }

    fn measure(&mut self, lease: &Lease, now: Moment) {
        let (calls, span) = (lease.calls.load(Ordering::Relaxed), now.since(self.seen_at));
        if span < DEMAND_NS_MIN {
            return;
        }
        let fresh = calls.wrapping_sub(self.calls_seen);
        let span = span as f32;
        self.demand += (fresh as f32 * 1e9 / span - self.demand) * span / (span + DEMAND_NS);
        if fresh > 0 {
            self.called_at = now;
        }
        (self.calls_seen, self.seen_at) = (calls, now);
    }

    /// Tokens that it wants to have. None where a slice is less than one call: it would end unused on most nodes.
    fn target(&self) -> u32 {
        let wanted = (self.demand * SLICE_NS as f32 / 1e9) as u64;
        let is_small = self.limit.is_small();
        if is_small { 0 } else { u32::try_from(wanted.min(self.limit.slice())).unwrap_or(u32::MAX) }
    }

    fn report(&self, key: Key, tokens: u32) -> Ask {
        let (generation, seq) = (self.generation, self.seq);
        let (applied, returned) = (self.applied, self.returned);
        let (used, demand, want, waiting) = (self.used(tokens), self.demand as u32, 0, 0);
        Ask { key, limit: self.limit, generation, seq, applied, used, returned, demand, want, waiting }
    }
}
