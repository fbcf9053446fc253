//! When each of the latest revisions came to this process.
//!
//! Always holds: at most [`REVISIONS_MAX`] revisions, the newest; every revision that a node was sent is among them
//! until it is forgotten. Revisions that came together may be one entry.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_model::Revision;
use tokio::time::Instant;

/// Most revisions: as many as the feed remembers at most, since an older node starts from a snapshot anyway.
const REVISIONS_MAX: usize = 4_096;

/// The timeline.
#[derive(Debug, Default)]
pub(crate) struct Timeline(Mutex<BTreeMap<Revision, Instant>>);

impl Timeline {
    /// Notes a revision; a second note of the same one changes nothing.
    pub(crate) fn note(&self, revision: Revision, now: Instant) {
        let mut moments = self.lock();
        moments.entry(revision).or_insert(now);
        while moments.len() > REVISIONS_MAX {
            moments.pop_first();
        }
    }

    /// When the state first was at this revision or a later one; `None` when that is not remembered or not yet so.
    pub(crate) fn came(&self, revision: Revision) -> Option<Instant> {
        let moments = self.lock();
        let (oldest, _) = moments.first_key_value()?;
        if revision < *oldest {
            return None;
        }
        moments.range(revision..).next().map(|(_, came)| *came)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Revision, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_revision_came_when_it_or_a_later_one_was_first_seen() {
        let timeline = Timeline::default();
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        timeline.note(Revision(5), at(1));
        timeline.note(Revision(8), at(2));
        timeline.note(Revision(8), at(3));
        assert_eq!(timeline.came(Revision(4)), None);
        assert_eq!(timeline.came(Revision(5)), Some(at(1)));
        assert_eq!(timeline.came(Revision(6)), Some(at(2)));
        assert_eq!(timeline.came(Revision(8)), Some(at(2)));
        assert_eq!(timeline.came(Revision(9)), None);
    }

    #[test]
    fn the_oldest_revisions_are_forgotten() {
        let timeline = Timeline::default();
        let now = Instant::now();
        for revision in 1..=REVISIONS_MAX as u64 + 1 {
            timeline.note(Revision(revision), now);
        }
        assert_eq!(timeline.came(Revision(1)), None);
        assert_eq!(timeline.came(Revision(2)), Some(now));
    }
}
