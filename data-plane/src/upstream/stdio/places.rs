//! How many processes of a server run at once.
//!
//! Always holds: places taken <= limit; a process has its place until it has ended, so that ending ones count. Who
//! finds all places taken waits only while one of them is becoming free.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use crate::rejection::Upstream;
use crate::upstream::stdio::child::KILL_AFTER;

/// How long to wait for a place that is becoming free: what the end of a process takes at most, and a second.
const WAIT_MAX: Duration = KILL_AFTER.saturating_add(Duration::from_secs(1));

/// The places of one server.
pub(super) struct Places {
    limit: u32,
    counts: Mutex<Counts>,
    freed: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    taken: u32,
    /// Of those that are taken.
    ending: u32,
}

/// The place of one process; free again when dropped.
pub(super) struct Place {
    places: Arc<Places>,
    is_ending: bool,
}

impl Places {
    pub(super) fn new(limit: u32) -> Places {
        Places { limit, counts: Mutex::default(), freed: Notify::new() }
    }

    /// Takes a place. [`Upstream::Busy`] when all are taken to stay.
    pub(super) async fn take(self: &Arc<Self>) -> Result<Place, Upstream> {
        let taken = tokio::time::timeout(WAIT_MAX, async {
            loop {
                let freed = self.freed.notified();
                if let Some(taken) = self.try_take() {
                    return taken;
                }
                freed.await;
            }
        });
        taken.await.unwrap_or(Err(Upstream::Busy))
    }

    /// `None`: one is becoming free.
    fn try_take(self: &Arc<Self>) -> Option<Result<Place, Upstream>> {
        let mut counts = self.lock();
        if counts.taken < self.limit {
            counts.taken += 1;
            return Some(Ok(Place { places: self.clone(), is_ending: false }));
        }
        (counts.ending == 0).then_some(Err(Upstream::Busy))
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Its process is ending.
    pub(super) fn ending(&mut self) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.places.lock().ending += 1;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.places.lock();
        counts.taken -= 1;
        counts.ending -= u32::from(self.is_ending);
        drop(counts);
        // All look again: those who find nothing that is becoming free are refused at once.
        self.places.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_refused_beyond_the_limit_and_waited_for_while_one_is_becoming_free() {
        let places = Arc::new(Places::new(2));
        let (mut one, two) = (places.take().await, places.take().await);
        assert_eq!(places.take().await.err(), Some(Upstream::Busy));
        one.as_mut().expect("a place").ending();
        let waiting: Vec<_> = (0..2)
            .map(|_| {
                let places = places.clone();
                tokio::spawn(async move { places.take().await })
            })
            .collect();
        tokio::task::yield_now().await;
        drop(one);
        let mut outcomes = Vec::new();
        for waiting in waiting {
            outcomes.push(waiting.await.expect("no panic"));
        }
        // The one that is becoming free goes to one of them; the other is told at once.
        assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
        drop((two, outcomes));
        assert_eq!(places.lock().taken, 0);
    }
}
