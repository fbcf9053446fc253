//! A bucket: how much of a key's budget is spent, as a debt that time pays.
//!
//! Always holds: the debt is at most one burst. Time is what [`crate::standing`] says has flowed, not what a clock says.

use crate::limit::Limit;

/// What is spent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    debt: u128,
    /// Up to when it was paid.
    paid_until: u64,
}

impl Bucket {
    /// Nothing is spent.
    pub(crate) fn full(flow: u64) -> Bucket {
        Bucket { debt: 0, paid_until: flow }
    }

    /// Everything was spent so long ago.
    pub(crate) fn emptied(limit: Limit, ago_ns: u64, flow: u64) -> Bucket {
        let all = limit.parts(limit.burst().into());
        Bucket { debt: all.saturating_sub(limit.paid_in(ago_ns)), paid_until: flow }
    }

    /// Lets time pay. Of what is lent besides, and of the bucket, there is never more than the limit has room for.
    pub(crate) fn pay(&mut self, limit: Limit, flow: u64, lent: u64) {
        self.debt = self.debt.saturating_sub(limit.paid_in(flow.saturating_sub(self.paid_until)));
        self.paid_until = flow;
        if !limit.is_small() {
            let level_max = limit.room().saturating_sub(lent).min(limit.burst().into());
            self.debt = self.debt.max(limit.parts(u64::from(limit.burst()) - level_max));
        }
    }

    /// From now on another clock pays.
    pub(crate) fn rebase(&mut self, flow: u64) {
        self.paid_until = flow;
    }

    /// Tokens that are there.
    pub(crate) fn level(&self, limit: Limit) -> u64 {
        limit.tokens(limit.parts(limit.burst().into()).saturating_sub(self.debt))
    }

    /// Takes tokens that are there.
    pub(crate) fn take(&mut self, limit: Limit, tokens: u64) {
        debug_assert!(tokens <= self.level(limit));
        self.debt += limit.parts(tokens);
    }

    /// Takes tokens back.
    pub(crate) fn credit(&mut self, limit: Limit, tokens: u64) {
        self.debt = self.debt.saturating_sub(limit.parts(tokens));
    }

    /// Until so many tokens are there.
    pub(crate) fn wait(&self, limit: Limit, tokens: u64) -> u64 {
        let allowed = limit.parts(u64::from(limit.burst()).saturating_sub(tokens));
        limit.time_for(self.debt.saturating_sub(allowed))
    }

    /// Whether nothing is spent: it is as if it were not there.
    pub(crate) fn is_full(&self) -> bool {
        self.debt == 0
    }
}
