//! The members, and which of them a key belongs to.
//!
//! Always holds: a link stands for one process of a peer; when the control plane says anything else of the peer, the
//! link is retired and another takes its place. Reading takes no lock.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use super::Peer;
use super::identity::Fingerprint;
use super::link::Link;
use super::member::Member;

/// The members.
pub(super) struct Roster {
    me: Peer,
    table: ArcSwap<Table>,
    /// How often it was replaced.
    version: AtomicU64,
    /// Held while the table is replaced.
    replacing: Mutex<()>,
}

#[derive(Default)]
struct Table {
    links: BTreeMap<Peer, Arc<Link>>,
    by_fingerprint: HashMap<Fingerprint, Arc<Link>>,
}

impl Roster {
    pub(super) fn new(me: &str) -> Roster {
        Roster {
            me: me.into(),
            table: ArcSwap::default(),
            version: AtomicU64::new(0),
            replacing: Mutex::new(()),
        }
    }

    /// Replaces the members; of those that are not named, the ones stay that `keeps` says.
    pub(super) fn replace(&self, members: Vec<Member>, keeps: impl Fn(&Peer) -> bool) {
        let _replacing = self.replacing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table.load_full();
        let mut links = BTreeMap::new();
        for member in members.into_iter().filter(|member| member.peer != self.me) {
            let same = before.links.get(&member.peer).filter(|link| link.member == member);
            let link = same.cloned().unwrap_or_else(|| Arc::new(Link::new(member)));
            links.insert(link.member.peer.clone(), link);
        }
        for (peer, link) in &before.links {
            if !links.contains_key(peer) && keeps(peer) {
                links.insert(peer.clone(), link.clone());
            }
        }
        let by_fingerprint = links.values().map(|link| (link.member.fingerprint, link.clone())).collect();
        let after = Arc::new(Table { links, by_fingerprint });
        self.table.store(after.clone());
        self.version.fetch_add(1, Ordering::Release);
        tracing::info!(peers = after.links.len(), "the control plane told of the mesh");
        // Only now, so that nobody finds a retired link.
        for link in before.links.values() {
            if !after.links.get(&link.member.peer).is_some_and(|now| Arc::ptr_eq(now, link)) {
                link.retire();
            }
        }
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub(super) fn link(&self, peer: &str) -> Option<Arc<Link>> {
        self.table.load().links.get(peer).cloned()
    }

    pub(super) fn links(&self) -> Vec<Arc<Link>> {
        self.table.load().links.values().cloned().collect()
    }

    /// Whose certificate it is.
    pub(super) fn owner(&self, fingerprint: &Fingerprint) -> Option<Arc<Link>> {
        self.table.load().by_fingerprint.get(fingerprint).cloned()
    }

    pub(super) fn is_living(&self, peer: &str) -> bool {
        *self.me == *peer || self.table.load().links.get(peer).is_some_and(|link| !link.is_suspect())
    }

    /// With this node, sorted.
    pub(super) fn living(&self) -> Vec<Peer> {
        let table = self.table.load();
        let mut living: Vec<Peer> = table.living().cloned().collect();
        let place = living.partition_point(|peer| *peer < self.me);
        living.insert(place, self.me.clone());
        living
    }

    pub(super) fn home(&self, key: &[u8]) -> Peer {
        let table = self.table.load();
        let key = blake3::hash(key);
        let mut home = &self.me;
        let mut highest = weight(&key, home);
        for peer in table.living() {
            let weight = weight(&key, peer);
            if (weight, peer) > (highest, home) {
                (highest, home) = (weight, peer);
            }
        }
        home.clone()
    }
}

impl Table {
    fn living(&self) -> impl Iterator<Item = &Peer> {
        self.links.iter().filter(|(_, link)| !link.is_suspect()).map(|(peer, _)| peer)
    }
}

/// A peer's weight for a key. Every build must agree on it, or a key has two homes.
fn weight(key: &blake3::Hash, peer: &str) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(key.as_bytes()).update(peer.as_bytes());
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    u64::from_be_bytes(first)
}
