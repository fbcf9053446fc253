//! The owner's side: buckets of keys, and what is lent of them.
//!
//! Always holds: a token is debited before it is lent, and comes back only from a lease that this owner gave and that has
//! not ended. What holders say that they hold of somebody else's lending counts as lent, and is never credited. A key of
//! which nothing is spent and nothing lent is not kept.

use std::collections::HashMap;

use crate::bucket::Bucket;
use crate::limit::Limit;
use crate::message::{Answer, Ask, HANDED_MAX, Handed};
use crate::standing::Flows;
use crate::{Key, LEASE_MARGIN_NS, LEASE_NS, Member, Moment, SLICE_NS};

/// Most keys. One that is asked for beyond them is refused: a caller that makes up keys must not fill the memory. About
/// 200 MB.
pub(crate) const KEYS_MAX: usize = 1 << 20;
/// Shortest time until a holder may ask again for what there was not enough of.
const RETRY_NS_MIN: u64 = 20_000_000;
/// For how long a demand counts of which nothing was heard since: who has some asks once in a slice.
const DEMAND_NS: u64 = 3 * SLICE_NS;

/// What an owner does wrong, so that the checker of the simulation is seen to notice.
#[cfg(test)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Defect {
    /// Lends without a debit.
    NoDebit,
    /// A new owner begins with a full bucket.
    BeginsFull,
    /// A holder spends what has ended.
    NeverEnds,
    /// A holder applies an answer as often as it comes.
    AppliesTwice,
    /// An owner acts for all of the rate, whoever stands by it.
    NoVoices,
    /// What was handed over is kept too.
    KeepsHanded,
    /// Returned tokens are credited as often as they are told of.
    CreditsTwice,
}

#[derive(Default)]
pub(crate) struct Owner {
    keys: HashMap<Key, Entry>,
    #[cfg(test)]
    pub(crate) defect: Option<Defect>,
}

struct Entry {
    limit: Limit,
    bucket: Bucket,
    /// Which of the flows pays it.
    is_fresh: bool,
    loans: Vec<Loan>,
}

/// What one process holds.
struct Loan {
    holder: Member,
    deadline: Moment,
    generation: u32,
    seq: u32,
    granted: u32,
    used: u32,
    returned: u32,
    /// Of what is outstanding, what another lent.
    adopted: u32,
    /// Of what is outstanding, what calls waited for, so that it is spent as good as now.
    awaited: u32,
    demand: u32,
}

/// How a key begins that is not kept.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Beginning {
    /// When it was empty; `None`: nothing is spent.
    pub(crate) emptied_ago: Option<u64>,
    pub(crate) is_fresh: bool,
}

impl Entry {
    fn new(limit: Limit, beginning: Beginning, flows: Flows) -> Entry {
        let flow = flows.of(beginning.is_fresh);
        let bucket = match beginning.emptied_ago {
            None => Bucket::full(flow),
            Some(ago_ns) => Bucket::emptied(limit, ago_ns, flow),
        };
        Entry { limit, bucket, is_fresh: beginning.is_fresh, loans: Vec::new() }
    }

    fn lent(&self) -> u64 {
        let kept = |loan: &Loan| u64::from(loan.outstanding().saturating_sub(loan.awaited));
        self.loans.iter().map(kept).sum()
    }

    /// Lets time pay, and leases end.
    fn advance(&mut self, flows: Flows, now: Moment) {
        let lent = self.lent();
        self.bucket.pay(self.limit, flows.of(self.is_fresh), lent);
        self.loans.retain(|loan| now < loan.deadline);
    }

    /// The loan of whoever asks, with what it says taken in; `None` when it said something later before.
    fn take_report(&mut self, from: Member, ask: &Ask) -> Option<&mut Loan> {
        let place = self.loans.iter().position(|loan| loan.holder == from);
        let place = place.unwrap_or_else(|| {
            // Of most keys few nodes hold any; a vector of its own mind begins with room for four.
            self.loans.reserve_exact(1);
            self.loans.push(Loan::new(from, ask));
            self.loans.len() - 1
        });
        let loan = self.loans.get_mut(place)?;
        if (ask.generation, ask.seq) <= (loan.generation, loan.seq) && loan.seq != 0 {
            return None;
        }
        if ask.generation != loan.generation {
            // Nothing of the former ledger will be applied any more.
            *loan = Loan::new(from, ask);
        }
        let credit = loan.settle(ask);
        self.bucket.credit(self.limit, credit);
        self.loans.get_mut(place)
    }
}

impl Loan {
    fn new(holder: Member, ask: &Ask) -> Loan {
        Loan {
            holder,
            deadline: Moment(0),
            generation: ask.generation,
            seq: 0,
            granted: ask.applied,
            used: ask.used,
            returned: ask.returned,
            adopted: ask.applied - ask.used - ask.returned,
            awaited: 0,
            demand: 0,
        }
    }

    fn outstanding(&self) -> u32 {
        self.granted.saturating_sub(self.used).saturating_sub(self.returned)
    }

    /// Takes a later report in. Returns the tokens that come back.
    fn settle(&mut self, ask: &Ask) -> u64 {
        if ask.applied > self.granted {
            // It was given more than is known here: by another, or before this was forgotten.
            self.adopted += ask.applied - self.granted;
            self.granted = ask.applied;
        }
        let returned = ask.returned.saturating_sub(self.returned);
        let credit = returned.saturating_sub(self.adopted);
        self.adopted = self.adopted.saturating_sub(returned);
        self.used = self.used.max(ask.used);
        self.returned = self.returned.max(ask.returned);
        self.adopted = self.adopted.min(self.outstanding());
        self.awaited = 0;
        self.seq = ask.seq;
        self.demand = ask.demand;
        credit.into()
    }
}

impl Flows {
    fn of(self, is_fresh: bool) -> u64 {
        if is_fresh { self.fresh } else { self.stay }
    }
}

impl Owner {
    /// Answers an ask; `None` when there is nothing to say: it is late, or there is no room for another key.
    pub(crate) fn ask(
        &mut self,
        from: Member,
        ask: &Ask,
        flows: Flows,
        now: Moment,
        beginning: impl FnOnce() -> Beginning,
    ) -> Option<Answer> {
        let is_full = self.keys.len() >= KEYS_MAX && !self.keys.contains_key(&ask.key);
        if is_full {
            return Some(answer(ask, ask.applied, RETRY_NS_MIN * 50));
        }
        #[cfg(test)]
        let defect = self.defect;
        #[cfg(test)]
        let beginning = || match defect {
            Some(Defect::BeginsFull) => Beginning { emptied_ago: None, ..beginning() },
            _ => beginning(),
        };
        let new = || Entry::new(ask.limit, beginning(), flows);
        let entry = self.keys.entry(ask.key).or_insert_with(new);
        entry.advance(flows, now);
        let limit = entry.limit;
        #[cfg(test)]
        if defect == Some(Defect::CreditsTwice) {
            entry.bucket.credit(limit, ask.returned.into());
        }
        let total: u64 =
            entry.loans.iter().filter(|loan| loan.holder != from).map(|loan| loan.demand_at(now)).sum();
        let loan = entry.take_report(from, ask)?;
        loan.deadline = now.plus(LEASE_NS + LEASE_MARGIN_NS);
        let level = entry.bucket.level(limit);
        // By demand, so that who has much gets much; twice that, so that little stays; one at least, so that nobody starves.
        let own = u64::from(ask.demand.max(1));
        let fair =
            u64::try_from(2 * u128::from(level) * u128::from(own) / u128::from(own + total)).unwrap_or(level);
        let given = level.min(fair.max(1)).min(ask.want.into());
        #[cfg(test)]
        let debit = if defect == Some(Defect::NoDebit) { 0 } else { given };
        #[cfg(not(test))]
        let debit = given;
        entry.bucket.take(limit, debit);
        let given = u32::try_from(given).unwrap_or(u32::MAX);
        let granted = {
            let loan = entry.loans.iter_mut().find(|loan| loan.holder == from)?;
            loan.granted = loan.granted.saturating_add(given);
            loan.awaited = given.min(ask.waiting);
            loan.granted
        };
        let retry = if given < ask.want { retry(limit, &entry.bucket) } else { 0 };
        Some(answer(ask, granted, retry))
    }

    /// Takes a bucket over.
    pub(crate) fn take_over(&mut self, handed: &Handed, flows: Flows, beginning: impl FnOnce() -> Beginning) {
        if self.keys.len() < KEYS_MAX || self.keys.contains_key(&handed.key) {
            let new = || Entry::new(handed.limit, beginning(), flows);
            let entry = self.keys.entry(handed.key).or_insert_with(new);
            entry.bucket.credit(entry.limit, handed.tokens.into());
        }
    }

    /// Gives up the keys that are not its own any more, by who owns them now. Nothing of them stays here.
    pub(crate) fn hand_over<N: std::hash::Hash + Eq>(
        &mut self,
        flows: Flows,
        now: Moment,
        owner: impl Fn(Key) -> Option<N>,
    ) -> HashMap<N, Vec<Handed>> {
        let mut handed: HashMap<N, Vec<Handed>> = HashMap::new();
        #[cfg(test)]
        let defect = self.defect;
        self.keys.retain(|key, entry| {
            let Some(next) = owner(*key) else { return true };
            entry.advance(flows, now);
            let tokens = u32::try_from(entry.bucket.level(entry.limit)).unwrap_or(u32::MAX);
            handed.entry(next).or_default().push(Handed { key: *key, limit: entry.limit, tokens });
            #[cfg(test)]
            return defect == Some(Defect::KeepsHanded);
            #[cfg(not(test))]
            false
        });
        handed
    }

    /// All agree on the members: what came since they did before is as what stayed.
    pub(crate) fn settle(&mut self, flows: Flows, now: Moment) {
        for entry in self.keys.values_mut().filter(|entry| entry.is_fresh) {
            entry.advance(flows, now);
            entry.is_fresh = false;
            entry.bucket.rebase(flows.stay);
        }
    }

    /// Forgets keys of which nothing is spent and nothing lent.
    pub(crate) fn sweep(&mut self, flows: Flows, now: Moment) {
        self.keys.retain(|_, entry| {
            entry.advance(flows, now);
            !(entry.loans.is_empty() && entry.bucket.is_full())
        });
        if self.keys.capacity() > 4 * self.keys.len().max(256) {
            self.keys.shrink_to_fit();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(crate) fn clear(&mut self) {
        self.keys.clear();
    }
}

impl Loan {
    fn demand_at(&self, now: Moment) -> u64 {
        let is_recent = self.deadline.plus(DEMAND_NS) > now.plus(LEASE_NS + LEASE_MARGIN_NS);
        if is_recent { self.demand.into() } else { 0 }
    }
}

/// For who wants more: a token's time where it is long, a slice's where tokens are many.
fn retry(limit: Limit, bucket: &Bucket) -> u64 {
    if limit.is_small() { bucket.wait(limit, 1).max(1) } else { bucket.wait(limit, 1).max(SLICE_NS) }
        .max(if limit.is_small() { 1 } else { RETRY_NS_MIN })
}

fn answer(ask: &Ask, granted: u32, retry_ns: u64) -> Answer {
    let Ask { key, generation, seq, .. } = *ask;
    Answer { key, generation, seq, granted, retry_us: retry_ns.div_ceil(1_000) }
}

/// Parts of a hand-over: at least one, so that it is known when all have come.
pub(crate) fn parts(keys: Vec<Handed>) -> Vec<Vec<Handed>> {
    if keys.is_empty() { vec![Vec::new()] } else { keys.chunks(HANDED_MAX).map(<[Handed]>::to_vec).collect() }
}
