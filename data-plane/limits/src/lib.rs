//! Limits that hold across nodes: who lends what to whom, and what may be spent.
//!
//! A key (of a limit) has one *owner* among the members, by rendezvous hash. The owner keeps the key's bucket and lends
//! tokens of it; nodes spend what they were lent without asking anybody. Pure: no I/O, no clock, no task; whoever drives an
//! [`engine::Engine`] hands it calls, messages, changes of the members and the time, and carries away what it wants sent.
//!
//! Always holds, whatever is lost, doubled, late, out of order, paused or dead:
//! - a token is debited when it is lent, and spent at most once, before its lease ends; the owner never takes a lease for
//!   ended before its holder does, because the holder counts from when it *asked*;
//! - what buckets of a key take in, at all nodes together, is at most the limit's rate ([`standing`]), and a new owner of a
//!   key begins with none unless it was handed what is there;
//! - so what is admitted in any window is at most rate times window, one burst, and the leases that were outstanding when
//!   the window began.
//!
//! What the last point does not hold through is said in [`standing`]. Regions, windows that survive the death of an owner,
//! concurrency, bytes and costs are not here.

mod bucket;
pub mod engine;
mod hand;
mod holder;
pub mod lease;
pub mod limit;
pub mod members;
pub mod message;
mod owner;
mod standing;
mod tenure;
#[cfg(test)]
mod tests;

/// How long a lease lasts, from when it was asked for.
pub const LEASE_NS: u64 = 500_000_000;
/// What an owner adds to it, for clocks that run at different speeds.
const LEASE_MARGIN_NS: u64 = LEASE_NS / 64;
/// For how much of its demand a holder asks ahead. A tenth of a lease: what is lent and not used comes back soon.
pub const SLICE_NS: u64 = 50_000_000;

/// A moment on a clock of one process that never goes back, in nanoseconds. Moments of two processes say nothing to each
/// other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Moment(pub u64);

/// A node, by a hash of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct NodeId(pub u64);

/// One process of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Member {
    /// The node.
    pub node: NodeId,
    /// Which of its processes.
    pub incarnation: u64,
}

/// What is counted: a hash of the tenant, the limit as it is specified, and what it is counted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Key(pub [u8; 16]);

impl Moment {
    /// The moment so much later.
    #[must_use]
    pub fn plus(self, ns: u64) -> Moment {
        Moment(self.0.saturating_add(ns))
    }

    /// Nanoseconds since an earlier moment; 0 when it is later.
    pub fn since(self, earlier: Moment) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl Key {
    /// Its halves. A key is a hash, so each is as good as a random number.
    pub(crate) fn halves(self) -> (u64, u64) {
        let number = u128::from_le_bytes(self.0);
        (number as u64, (number >> 64) as u64)
    }

    /// Which of `count` places it belongs to; `count` is a power of two.
    pub fn place(self, count: usize) -> usize {
        self.halves().1 as usize & (count - 1)
    }
}

/// Mixes a number so that each of its bits decides about each bit of the result (the end of SplitMix64).
pub(crate) fn mix(mut number: u64) -> u64 {
    number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
