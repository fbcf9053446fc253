//! A limit: so many calls in a window on average, and a burst.
//!
//! Always holds: each number is at least 1. All arithmetic is on whole numbers, without rounding: a nanosecond pays `calls`
//! parts of a token, and a token is as many parts as the window has nanoseconds.

use crate::SLICE_NS;

const SECOND_NS: u64 = 1_000_000_000;
/// Limits of fewer calls a second are asked for call by call: a slice of them would be a few calls, held in the wrong place.
const AHEAD_PER_SECOND_MIN: u64 = 100;
/// For how much of a limit's rate leases may be outstanding where its burst is less. Twice a slice: one that is spent, and
/// one on its way.
const OUTSTANDING_NS: u64 = 2 * SLICE_NS;

/// What holders do when the owner of a key is not heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnOwnerLoss {
    /// Each admits half of its even share.
    #[default]
    Floor,
    /// Nothing is admitted.
    Deny,
    /// Everything is admitted: the limit does not hold meanwhile.
    Allow,
}

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Limit {
    calls: u32,
    window_seconds: u32,
    burst: u32,
    on_owner_loss: OnOwnerLoss,
}

impl Limit {
    /// `None` when a number is 0.
    pub fn new(calls: u32, window_seconds: u32, burst: u32, on_owner_loss: OnOwnerLoss) -> Option<Limit> {
        let is_legal = calls > 0 && window_seconds > 0 && burst > 0;
        is_legal.then_some(Limit { calls, window_seconds, burst, on_owner_loss })
    }

    /// Calls in a window.
    pub fn calls(self) -> u32 {
        self.calls
    }

    /// The window.
    pub fn window_seconds(self) -> u32 {
        self.window_seconds
    }

    /// Calls at once.
    pub fn burst(self) -> u32 {
        self.burst
    }

    /// What holders do without the owner.
    pub fn on_owner_loss(self) -> OnOwnerLoss {
        self.on_owner_loss
    }

    /// Whether it is asked for call by call.
    pub fn is_small(self) -> bool {
        u64::from(self.calls) < AHEAD_PER_SECOND_MIN * u64::from(self.window_seconds)
    }

    /// Parts of a token that so much time pays.
    pub(crate) fn paid_in(self, ns: u64) -> u128 {
        u128::from(ns) * u128::from(self.calls)
    }

    /// Parts that tokens are.
    pub(crate) fn parts(self, tokens: u64) -> u128 {
        u128::from(tokens) * u128::from(u64::from(self.window_seconds) * SECOND_NS)
    }

    /// Whole tokens in so many parts.
    pub(crate) fn tokens(self, parts: u128) -> u64 {
        u64::try_from(parts / self.parts(1)).unwrap_or(u64::MAX)
    }

    /// Time that pays so many parts, not less.
    pub(crate) fn time_for(self, parts: u128) -> u64 {
        u64::try_from(parts.div_ceil(u128::from(self.calls))).unwrap_or(u64::MAX)
    }

    /// Tokens that a slice pays, at least one.
    pub(crate) fn slice(self) -> u64 {
        self.tokens(self.paid_in(SLICE_NS)).max(1)
    }

    /// The most tokens that may be in the bucket and lent, together. What is asked for call by call is spent when it is
    /// lent, and does not count.
    pub(crate) fn room(self) -> u64 {
        u64::from(self.burst).max(self.tokens(self.paid_in(OUTSTANDING_NS)))
    }
}
