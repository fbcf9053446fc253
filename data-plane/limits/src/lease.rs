//! What a node may spend of a key: the one thing that a call touches.
//!
//! Always holds: taking a token allocates nothing and takes no lock; of the tokens of a lease each is taken once, and none
//! after the lease ended. Looking a key up takes a lock that only those wait for who add or remove a key of its shard.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use crate::limit::Limit;
use crate::{Key, Moment, NodeId};

/// Shards of the table; a power of two. More than there are processors, so that they seldom meet.
pub(crate) const SHARDS: usize = 64;

/// What may be spent of a key.
pub struct Lease {
    /// Tokens.
    pub(crate) tokens: AtomicU32,
    /// At how many tokens more are asked for.
    pub(crate) ask_below: AtomicU32,
    /// Calls that asked for a token, ever.
    pub(crate) calls: AtomicU32,
    /// Calls that wait for one.
    waiting: AtomicU32,
    /// When the tokens end.
    pub(crate) deadline: AtomicU64,
    /// Until when the owner wants not to be asked.
    pub(crate) refused_until: AtomicU64,
    /// Whether more is asked for already.
    pub(crate) is_asking: AtomicBool,
    ledger: Mutex<Ledger>,
}

/// What only those touch that ask.
pub(crate) struct Ledger {
    pub(crate) limit: Limit,
    pub(crate) owner: NodeId,
    pub(crate) generation: u32,
    pub(crate) seq: u32,
    pub(crate) applied: u32,
    pub(crate) returned: u32,
    /// Asks without an answer, and when they were sent; the later one first.
    pub(crate) asked: [(u32, Moment); 2],
    /// Calls in a second.
    pub(crate) demand: f32,
    pub(crate) calls_seen: u32,
    pub(crate) seen_at: Moment,
    pub(crate) called_at: Moment,
    /// How much of its floor is spent.
    pub(crate) floor_spent: u64,
}

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// It has a token.
    Taken {
        /// More is to be asked for now, by [`crate::engine::Engine::ask`].
        asks: bool,
    },
    /// There is none, and none will be for so long.
    Refused {
        /// In nanoseconds.
        retry_ns: u64,
    },
    /// The owner has to be asked.
    Wait,
}

impl Lease {
    pub(crate) fn new(ledger: Ledger) -> Lease {
        Lease {
            tokens: AtomicU32::new(0),
            ask_below: AtomicU32::new(0),
            calls: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            deadline: AtomicU64::new(0),
            refused_until: AtomicU64::new(0),
            is_asking: AtomicBool::new(false),
            ledger: Mutex::new(ledger),
        }
    }

    /// Takes a token for a call. `now` must have been read after the call came.
    pub fn take(&self, now: Moment) -> Take {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.take_again(now)
    }

    /// The same for a call that waited.
    pub fn take_again(&self, now: Moment) -> Take {
        // The deadline is written before the tokens are there, so whoever sees these sees it too.
        let mut tokens = self.tokens.load(Ordering::Acquire);
        while tokens > 0 && now.0 < self.deadline.load(Ordering::Acquire) {
            match self.tokens.compare_exchange_weak(tokens, tokens - 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let is_low = tokens <= self.ask_below.load(Ordering::Relaxed);
                    let asks = is_low && !self.is_asking.swap(true, Ordering::Relaxed);
                    return Take::Taken { asks };
                }
                Err(now_there) => tokens = now_there,
            }
        }
        match self.refused_until.load(Ordering::Relaxed).saturating_sub(now.0) {
            0 => Take::Wait,
            retry_ns => Take::Refused { retry_ns },
        }
    }

    /// A call waits from now on.
    pub fn begin_waiting(&self) {
        self.waiting.fetch_add(1, Ordering::Relaxed);
    }

    /// A call waits no more.
    pub fn end_waiting(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Which ledger tokens belong to that are taken now, for [`Lease::give_back`].
    pub fn generation(&self) -> u32 {
        self.ledger().generation
    }

    /// Gives back the token of a call that was not made, when it is still good. For calls that are refused late.
    pub fn give_back(&self, generation: u32, now: Moment) {
        let ledger = self.ledger();
        let is_good = ledger.generation == generation && now.0 < self.deadline.load(Ordering::Acquire);
        if is_good && ledger.used(self.tokens.load(Ordering::Acquire)) > 0 {
            self.tokens.fetch_add(1, Ordering::AcqRel);
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn waiting_count(&self) -> u32 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Takes all tokens away. Those that a call takes at the same moment are not among them.
    pub(crate) fn drain(&self) -> u32 {
        self.tokens.swap(0, Ordering::AcqRel)
    }

    /// Tokens that can be spent.
    pub fn tokens(&self, now: Moment) -> u32 {
        if now.0 < self.deadline.load(Ordering::Acquire) { self.tokens.load(Ordering::Acquire) } else { 0 }
    }
}

impl Ledger {
    /// Tokens that are gone, when so many are there.
    pub(crate) fn used(&self, tokens: u32) -> u32 {
        self.applied.saturating_sub(self.returned).saturating_sub(tokens)
    }
}

/// A key is a hash already; what strangers choose in it they cannot choose the hash of.
#[derive(Default)]
pub(crate) struct KeyHasher(u64);

impl Hasher for KeyHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

/// Hashes keys.
#[derive(Default, Clone)]
pub(crate) struct KeyHash;

impl BuildHasher for KeyHash {
    type Hasher = KeyHasher;

    fn build_hasher(&self) -> KeyHasher {
        KeyHasher::default()
    }
}

type Shard = RwLock<HashMap<Key, Arc<Lease>, KeyHash>>;

/// All leases of a node.
pub struct Leases {
    shards: Vec<Shard>,
}

impl Leases {
    pub(crate) fn new() -> Leases {
        Leases { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }

    /// A key's, if there is one.
    pub fn get(&self, key: Key) -> Option<Arc<Lease>> {
        self.with(key, |lease| lease.clone())
    }

    /// Looks at a key's, if there is one. Nobody adds or removes a key of its shard meanwhile.
    pub fn with<T>(&self, key: Key, look: impl FnOnce(&Arc<Lease>) -> T) -> Option<T> {
        let shard = self.shard(key.place(SHARDS)).read().unwrap_or_else(PoisonError::into_inner);
        shard.get(&key).map(look)
    }

    pub(crate) fn get_or_insert(&self, key: Key, new: impl FnOnce() -> Lease) -> Arc<Lease> {
        let mut shard = self.shard(key.place(SHARDS)).write().unwrap_or_else(PoisonError::into_inner);
        shard.entry(key).or_insert_with(|| Arc::new(new())).clone()
    }

    /// Looks at all of a shard; those stay that are wanted.
    pub(crate) fn retain(&self, shard: usize, mut keep: impl FnMut(Key, &Arc<Lease>) -> bool) {
        let mut shard = self.shard(shard).write().unwrap_or_else(PoisonError::into_inner);
        shard.retain(|key, lease| keep(*key, lease));
        if shard.capacity() > 4 * shard.len().max(16) {
            shard.shrink_to_fit();
        }
    }

    /// Whoever refused may own keys no longer.
    pub(crate) fn forget_refusals(&self) {
        for shard in &self.shards {
            for lease in shard.read().unwrap_or_else(PoisonError::into_inner).values() {
                lease.refused_until.store(0, Ordering::Relaxed);
            }
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        let count = |shard: &Shard| shard.read().unwrap_or_else(PoisonError::into_inner).len();
        self.shards.iter().map(count).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, index: usize) -> &Shard {
        // There are `SHARDS` of them.
        &self.shards[index]
    }
}
