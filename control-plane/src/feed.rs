//! The feed: the newest state, and what changed lately, for those who send it to nodes.
//!
//! What always holds:
//! - A view is one revision's state, whole. Revisions only grow, and a subscriber that wakes up finds a view at least
//!   as new as the revision that woke it.
//! - [`Feed::since`] gives either every change after a revision, the last one per key, or `None`; never a part.
//! - Memory is bounded by [`CHANGES_MAX`] and [`REVISIONS_MAX`], however slow the readers are: whoever falls behind
//!   starts again from a view.
//!
//! It keeps no list of readers and waits for none.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_control_state::{Change, State};
use gantry_model::Revision;
use tokio::sync::watch;

/// Changes that are remembered. Values are shared with the state, so this bounds the memory of replaced values and of
/// a coalesced answer; a node that is further behind is served faster by a snapshot.
pub const CHANGES_MAX: usize = 65_536;

/// Revisions that are remembered. At the tens of changes a second of a busy fleet, minutes of absence.
pub const REVISIONS_MAX: usize = 4_096;

/// The feed; clones share it.
#[derive(Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

/// The state as of a revision.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// The revision.
    pub revision: Revision,
    /// The state. Cloning it takes constant time.
    pub state: State,
}

struct Inner {
    ring: Mutex<Ring>,
    newest: watch::Sender<Revision>,
}

/// INVARIANT: `revisions` holds every change with `floor < revision <= view.revision`, in order.
#[derive(Default)]
struct Ring {
    view: View,
    floor: Revision,
    revisions: VecDeque<(Revision, Arc<[Change]>)>,
    changes: usize,
}

impl Feed {
    /// A feed of an empty state at [`Revision::NONE`].
    pub fn new() -> Self {
        let newest = watch::Sender::new(Revision::NONE);
        Self { inner: Arc::new(Inner { ring: Mutex::default(), newest }) }
    }

    /// Takes in an applied revision: the changes since the one before it, and the state that they led to. Revisions
    /// that are not newer than the newest are ignored.
    pub fn publish(&self, revision: Revision, changes: Vec<Change>, state: State) {
        let mut ring = self.ring();
        if revision <= ring.view.revision {
            return;
        }
        ring.view = View { revision, state };
        if !changes.is_empty() {
            ring.changes += changes.len();
            ring.revisions.push_back((revision, changes.into()));
        }
        ring.forget_oldest();
        drop(ring);
        self.inner.newest.send_replace(revision);
    }

    /// Starts again from a state whose past is not known: at start, and after a checkpoint was installed.
    pub fn reset(&self, revision: Revision, state: State) {
        *self.ring() =
            Ring { view: View { revision, state }, floor: revision, revisions: VecDeque::new(), changes: 0 };
        self.inner.newest.send_replace(revision);
    }

    /// The newest view.
    pub fn latest(&self) -> View {
        self.ring().view.clone()
    }

    /// Tells of each newer revision; several may arrive as one.
    pub fn subscribe(&self) -> watch::Receiver<Revision> {
        self.inner.newest.subscribe()
    }

    /// What changed after `revision`, up to the newest view: the last change of each key, in the order of the keys.
    /// `None` when that is not remembered any more, or when `revision` is newer than the newest (its past is another).
    pub fn since(&self, revision: Revision) -> Option<Vec<Change>> {
        let ring = self.ring();
        if revision < ring.floor || revision > ring.view.revision {
            return None;
        }
        let newer = ring.revisions.iter().skip_while(|(of, _)| *of <= revision);
        let newer: Vec<_> = newer.map(|(_, changes)| Arc::clone(changes)).collect();
        // Coalescing may take a while; the state machine must not wait for it.
        drop(ring);
        let mut last = BTreeMap::new();
        for change in newer.iter().flat_map(|changes| changes.iter()) {
            last.insert(change.key.as_str(), change);
        }
        Some(last.into_values().cloned().collect())
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn forget_oldest(&mut self) {
        while self.changes > CHANGES_MAX || self.revisions.len() > REVISIONS_MAX {
            let Some((revision, changes)) = self.revisions.pop_front() else {
                return;
            };
            self.floor = revision;
            self.changes -= changes.len();
        }
    }
}

impl Default for Feed {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Feed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let revision = self.ring().view.revision;
        formatter.debug_struct("Feed").field("revision", &revision).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(key: &str, value: Option<u8>) -> Change {
        Change { key: key.into(), value: value.map(|value| [value].into()) }
    }

    fn publish(feed: &Feed, revision: u64, changes: Vec<Change>) {
        feed.publish(Revision(revision), changes, State::default());
    }

    #[test]
    fn a_reader_gets_the_last_change_of_each_key_after_its_revision() {
        let feed = Feed::new();
        feed.reset(Revision(10), State::default());
        publish(&feed, 11, vec![change("b", Some(1)), change("a", Some(1))]);
        publish(&feed, 12, vec![]);
        publish(&feed, 13, vec![change("b", None), change("c", Some(3))]);
        assert_eq!(feed.latest().revision, Revision(13));
        assert_eq!(
            feed.since(Revision(10)),
            Some(vec![change("a", Some(1)), change("b", None), change("c", Some(3))])
        );
        let last = vec![change("b", None), change("c", Some(3))];
        assert_eq!(feed.since(Revision(11)), Some(last.clone()));
        assert_eq!(feed.since(Revision(12)), Some(last));
        assert_eq!(feed.since(Revision(13)), Some(vec![]));
        assert_eq!(feed.since(Revision(9)), None, "before the ring");
        assert_eq!(feed.since(Revision(14)), None, "from another past");
    }

    #[test]
    fn the_ring_forgets_whole_revisions_at_either_limit() {
        let feed = Feed::new();
        for revision in 1..=REVISIONS_MAX as u64 + 2 {
            publish(&feed, revision, vec![change("key", Some(1))]);
        }
        assert_eq!(feed.since(Revision(1)), None);
        assert_eq!(feed.since(Revision(2)), Some(vec![change("key", Some(1))]));

        let half = vec![change("key", Some(2)); CHANGES_MAX / 2 + 1];
        publish(&feed, 10_000, half.clone());
        publish(&feed, 10_001, half);
        assert_eq!(feed.since(Revision(9_999)), None);
        assert_eq!(feed.since(Revision(10_000)), Some(vec![change("key", Some(2))]));

        publish(&feed, 10_002, vec![change("key", Some(3)); CHANGES_MAX + 1]);
        assert_eq!(feed.since(Revision(10_001)), None);
        assert_eq!(feed.since(Revision(10_002)), Some(vec![]));
    }

    #[test]
    fn a_reset_forgets_the_past_and_an_old_revision_is_ignored() {
        let feed = Feed::new();
        publish(&feed, 5, vec![change("a", Some(1))]);
        feed.reset(Revision(20), State::default());
        assert_eq!(feed.since(Revision(5)), None);
        assert_eq!(feed.since(Revision(20)), Some(vec![]));
        publish(&feed, 20, vec![change("a", Some(2))]);
        assert_eq!(feed.since(Revision(20)), Some(vec![]));
    }

    #[tokio::test]
    async fn a_subscriber_finds_a_view_at_least_as_new_as_what_woke_it() {
        let feed = Feed::new();
        let mut newest = feed.subscribe();
        publish(&feed, 1, vec![]);
        publish(&feed, 2, vec![change("a", Some(1))]);
        newest.changed().await.expect("changed");
        assert_eq!(*newest.borrow_and_update(), Revision(2));
        assert_eq!(feed.latest().revision, Revision(2));
        assert!(!newest.has_changed().expect("open"));
    }
}
