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

mod denials;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_control_state::{Change, Digests, State};
use gantry_model::digest::Digest;
use gantry_model::record::RecordKey;
use gantry_model::{Ban, Revision, Scope, TenantName};
use tokio::sync::watch;

use crate::rollout::{Laid, Overlays};

/// Changes that are remembered. Values are shared with the state, so this bounds the memory of replaced values and of
/// a coalesced answer; a node that is further behind is served faster by a snapshot.
pub const CHANGES_MAX: usize = 65_536;

/// Revisions that are remembered. At the tens of changes a second of a busy fleet, minutes of absence.
pub const REVISIONS_MAX: usize = 4_096;

/// Changes of bans that are remembered apart, since they are looked at for every node at every ban. A node that was away
/// for longer gets all bans.
const BANS_REMEMBERED_MAX: usize = 4_096;

/// Tenants with denials that are remembered, once for each revision. A node that so many overtake gets the oldest of
/// them with the update that it waits for.
const DENIALS_REMEMBERED_MAX: usize = 1_024;

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
    /// What rollouts that run in it make of it, for nodes in their stages.
    pub(crate) overlays: Overlays,
}

/// What changed since a revision.
#[derive(Debug, Clone)]
pub struct Since {
    /// What nodes held at it.
    pub(crate) before: Past,
    /// The last change of each key, in the order of the keys.
    pub changes: Vec<Change>,
}

/// What nodes held at a revision.
#[derive(Debug, Clone, Default)]
pub(crate) struct Past {
    pub(crate) digests: Digests,
    pub(crate) overlays: Overlays,
}

/// What changed of bans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Urgent {
    /// Up to where.
    pub revision: Revision,
    /// Whether these are all bans that there are.
    pub is_complete: bool,
    /// In the order of the keys.
    pub changes: Vec<Change>,
}

struct Inner {
    ring: Mutex<Ring>,
    newest: watch::Sender<Revision>,
    urgent: watch::Sender<Revision>,
    rollouts: watch::Sender<Revision>,
}

/// INVARIANT: `revisions` holds every change with `floor < revision <= view.revision`, in order.
#[derive(Default)]
struct Ring {
    view: View,
    floor: Revision,
    floor_past: Past,
    /// With what nodes held after it.
    revisions: VecDeque<(Revision, Arc<[Change]>, Past)>,
    changes: usize,
    /// Changes of bans with `bans_floor < revision <= view.revision`, in order.
    bans: VecDeque<(Revision, Change)>,
    bans_floor: Revision,
    /// The newest denials, in order.
    denials: VecDeque<(Revision, TenantName)>,
}

impl Feed {
    /// A feed of an empty state at [`Revision::NONE`].
    pub fn new() -> Self {
        let [newest, urgent, rollouts] = [(); 3].map(|()| watch::Sender::new(Revision::NONE));
        Self { inner: Arc::new(Inner { ring: Mutex::default(), newest, urgent, rollouts }) }
    }

    /// Takes in an applied revision: the changes since the one before it, and the state that they led to. Revisions
    /// that are not newer than the newest are ignored. Nobody else publishes or resets meanwhile.
    pub fn publish(&self, revision: Revision, changes: Vec<Change>, state: State) {
        let before = self.latest();
        if revision <= before.revision {
            return;
        }
        // What rollouts make of it takes a while, and readers wait for the ring.
        let overlays = before.overlays.after(&state, Some(&changes));
        let mut ring = self.ring();
        let is_denial = ring.note_denials(revision, &changes, &state);
        let is_other = !overlays.are_of_the_same(&ring.view.overlays);
        let past = Past { digests: state.digests().clone(), overlays: overlays.clone() };
        ring.view = View { revision, state, overlays };
        let is_urgent = ring.note_bans(revision, &changes) || is_denial;
        if !changes.is_empty() {
            ring.changes += changes.len();
            ring.revisions.push_back((revision, changes.into(), past));
        }
        ring.forget_oldest();
        drop(ring);
        if is_urgent {
            self.inner.urgent.send_replace(revision);
        }
        if is_other {
            self.inner.rollouts.send_replace(revision);
        }
        self.inner.newest.send_replace(revision);
    }

    /// Starts again from a state whose past is not known: at start, and after a checkpoint was installed.
    pub fn reset(&self, revision: Revision, state: State) {
        let overlays = Overlays::default().after(&state, None);
        let floor_past = Past { digests: state.digests().clone(), overlays: overlays.clone() };
        let (floor, view) = (revision, View { revision, state, overlays });
        *self.ring() = Ring { view, floor, floor_past, bans_floor: floor, ..Ring::default() };
        self.inner.rollouts.send_replace(revision);
        self.inner.urgent.send_replace(revision);
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

    /// What changed after `revision`, up to the newest view. `None` when that is not remembered any more, or when
    /// `revision` is newer than the newest (its past is another).
    pub fn since(&self, revision: Revision) -> Option<Since> {
        let ring = self.ring();
        let before = ring.past_at(revision)?;
        let newer = ring.revisions.iter().skip_while(|(of, ..)| *of <= revision);
        let newer: Vec<_> = newer.map(|(_, changes, _)| Arc::clone(changes)).collect();
        // Coalescing may take a while; the state machine must not wait for it.
        drop(ring);
        let mut last = BTreeMap::new();
        for change in newer.iter().flat_map(|changes| changes.iter()) {
            last.insert(change.key.as_str(), change);
        }
        Some(Since { before, changes: last.into_values().cloned().collect() })
    }

    /// What nodes held at a revision, as far back as changes are remembered.
    pub(crate) fn past_at(&self, revision: Revision) -> Option<Past> {
        self.ring().past_at(revision)
    }

    /// What nodes held at a revision and since, where a rollout ran; as far back as is remembered.
    pub(crate) fn staged_since(&self, revision: Revision) -> Vec<Past> {
        let ring = self.ring();
        let first = ring.revisions.partition_point(|(of, ..)| *of <= revision);
        let at = first.checked_sub(1).and_then(|at| ring.revisions.get(at));
        let at = at.map_or(&ring.floor_past, |(_, _, past)| past);
        let since = ring.revisions.iter().skip(first).map(|(_, _, past)| past);
        std::iter::once(at).chain(since).filter(|past| !past.overlays.are_none()).cloned().collect()
    }

    /// Tells of each newer revision at which a rollout began or ended; several may arrive as one.
    pub(crate) fn subscribe_to_rollouts(&self) -> watch::Receiver<Revision> {
        self.inner.rollouts.subscribe()
    }

    /// Tells of each newer revision that bans something, lifts a ban or denies something; several may arrive as one.
    pub fn subscribe_to_urgent(&self) -> watch::Receiver<Revision> {
        self.inner.urgent.subscribe()
    }

    /// What changed of bans after `revision`, the last change of each; all bans that there are for `None`, and where
    /// what changed is not remembered any more. Up to the revision that it says.
    pub fn urgent_since(&self, revision: Option<Revision>) -> Urgent {
        let ring = self.ring();
        let known = revision.filter(|revision| (ring.bans_floor..=ring.view.revision).contains(revision));
        let Some(after) = known else {
            let view = ring.view.clone();
            drop(ring);
            let of_ban = |ban: &Arc<Ban>| {
                let key = RecordKey::ban(&ban.tenant, &ban.target).to_string();
                Change { value: view.state.bytes(&key), key }
            };
            let changes = view.state.bans().map(of_ban).collect();
            return Urgent { revision: view.revision, is_complete: true, changes };
        };
        let newer = ring.bans.iter().filter(|(of, _)| *of > after);
        let last: BTreeMap<&str, &Change> = newer.map(|(_, change)| (change.key.as_str(), change)).collect();
        let changes = last.into_values().cloned().collect();
        Urgent { revision: ring.view.revision, is_complete: false, changes }
    }

    /// The tenants of the denials after one revision and up to another, as far as they are remembered; the latest first.
    pub fn denied_between(&self, after: Revision, upto: Revision) -> Vec<TenantName> {
        let ring = self.ring();
        let within = ring.denials.iter().rev().filter(|(of, _)| *of > after && *of <= upto);
        let mut seen = BTreeSet::new();
        within.filter(|(_, tenant)| seen.insert(tenant)).map(|(_, tenant)| tenant.clone()).collect()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.inner.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl View {
    /// What a node is served beyond the state.
    pub(crate) fn laid(&self, node: &str, scope: &Scope) -> Laid {
        self.overlays.laid(node, scope, self.state.digests())
    }
}

impl Past {
    /// What a node was served beyond the state.
    pub(crate) fn laid(&self, node: &str, scope: &Scope) -> Laid {
        self.overlays.laid(node, scope, &self.digests)
    }

    /// The digest of what a node held.
    pub(crate) fn digest(&self, node: &str, scope: &Scope) -> Digest {
        self.laid(node, scope).over(self.digests.of(scope))
    }
}

impl Ring {
    fn past_at(&self, revision: Revision) -> Option<Past> {
        if revision < self.floor || revision > self.view.revision {
            return None;
        }
        let upto = self.revisions.partition_point(|(of, ..)| *of <= revision);
        let last = upto.checked_sub(1).and_then(|last| self.revisions.get(last));
        Some(last.map_or(&self.floor_past, |(_, _, past)| past).clone())
    }

    /// Remembers what of the changes is urgent. Says whether anything is.
    fn note_bans(&mut self, revision: Revision, changes: &[Change]) -> bool {
        let before = self.bans.len();
        let urgent = changes.iter().filter(|change| RecordKey::is_of_ban(&change.key));
        self.bans.extend(urgent.map(|change| (revision, change.clone())));
        let is_any = self.bans.len() > before;
        while self.bans.len() > BANS_REMEMBERED_MAX {
            self.bans_floor = self.bans.pop_front().map_or(self.bans_floor, |(revision, _)| revision);
        }
        is_any
    }

    /// Remembers whom the changes may deny something that the state before allowed. Says whether anybody.
    fn note_denials(&mut self, revision: Revision, changes: &[Change], after: &State) -> bool {
        let tenants = denials::tenants(&self.view.state, changes, after);
        let is_any = !tenants.is_empty();
        self.denials.extend(tenants.into_iter().map(|tenant| (revision, tenant)));
        let excess = self.denials.len().saturating_sub(DENIALS_REMEMBERED_MAX);
        self.denials.drain(..excess);
        is_any
    }

    fn forget_oldest(&mut self) {
        while self.changes > CHANGES_MAX || self.revisions.len() > REVISIONS_MAX {
            let Some((revision, changes, past)) = self.revisions.pop_front() else {
                return;
            };
            (self.floor, self.floor_past) = (revision, past);
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

    fn since(feed: &Feed, revision: Revision) -> Option<Vec<Change>> {
        feed.since(revision).map(|since| since.changes)
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
            since(&feed, Revision(10)),
            Some(vec![change("a", Some(1)), change("b", None), change("c", Some(3))])
        );
        let last = vec![change("b", None), change("c", Some(3))];
        assert_eq!(since(&feed, Revision(11)), Some(last.clone()));
        assert_eq!(since(&feed, Revision(12)), Some(last));
        assert_eq!(since(&feed, Revision(13)), Some(vec![]));
        assert_eq!(since(&feed, Revision(9)), None, "before the ring");
        assert_eq!(since(&feed, Revision(14)), None, "from another past");
    }

    #[test]
    fn the_ring_forgets_whole_revisions_at_either_limit() {
        let feed = Feed::new();
        for revision in 1..=REVISIONS_MAX as u64 + 2 {
            publish(&feed, revision, vec![change("key", Some(1))]);
        }
        assert_eq!(since(&feed, Revision(1)), None);
        assert_eq!(since(&feed, Revision(2)), Some(vec![change("key", Some(1))]));

        let half = vec![change("key", Some(2)); CHANGES_MAX / 2 + 1];
        publish(&feed, 10_000, half.clone());
        publish(&feed, 10_001, half);
        assert_eq!(since(&feed, Revision(9_999)), None);
        assert_eq!(since(&feed, Revision(10_000)), Some(vec![change("key", Some(2))]));

        publish(&feed, 10_002, vec![change("key", Some(3)); CHANGES_MAX + 1]);
        assert_eq!(since(&feed, Revision(10_001)), None);
        assert_eq!(since(&feed, Revision(10_002)), Some(vec![]));
    }

    #[test]
    fn a_reset_forgets_the_past_and_an_old_revision_is_ignored() {
        let feed = Feed::new();
        publish(&feed, 5, vec![change("a", Some(1))]);
        feed.reset(Revision(20), State::default());
        assert_eq!(since(&feed, Revision(5)), None);
        assert_eq!(since(&feed, Revision(20)), Some(vec![]));
        publish(&feed, 20, vec![change("a", Some(2))]);
        assert_eq!(since(&feed, Revision(20)), Some(vec![]));
    }

    #[test]
    fn what_is_urgent_is_told_apart_and_as_far_back_as_is_remembered() {
        let feed = Feed::new();
        feed.reset(Revision(10), State::default());
        let mut urgent = feed.subscribe_to_urgent();
        urgent.borrow_and_update();
        publish(&feed, 11, vec![change("acme/agent/ban", Some(1))]);
        assert!(!urgent.has_changed().expect("open"));
        let ban = |value| change("acme/ban/agent/bot", value);
        publish(&feed, 12, vec![ban(Some(1)), change("acme/agent/bot", None)]);
        publish(&feed, 13, vec![ban(None), change("acme/ban/tenant", Some(2))]);
        assert!(urgent.has_changed().expect("open"));
        let told = |after, changes| {
            assert_eq!(feed.urgent_since(after), changes, "{after:?}");
        };
        let some = |changes| Urgent { revision: Revision(13), is_complete: false, changes };
        told(Some(Revision(12)), some(vec![ban(None), change("acme/ban/tenant", Some(2))]));
        told(Some(Revision(10)), some(vec![ban(None), change("acme/ban/tenant", Some(2))]));
        told(Some(Revision(13)), some(vec![]));
        // The state of this test has none.
        let all = Urgent { revision: Revision(13), is_complete: true, changes: vec![] };
        told(Some(Revision(9)), all.clone());
        told(Some(Revision(14)), all.clone());
        told(None, all);
        let many = (0..BANS_REMEMBERED_MAX).map(|_| ban(Some(3))).collect();
        publish(&feed, 14, many);
        assert!(feed.urgent_since(Some(Revision(12))).is_complete);
        assert_eq!(feed.urgent_since(Some(Revision(13))).changes, [ban(Some(3))]);
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
