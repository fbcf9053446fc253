//! How many calls an admin has under way.
//!
//! Always holds: nobody has more than [`CALLS_OF_ADMIN_MAX`], so that one admin, whose calls may last as long as they
//! may, leaves room for the others.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_model::Name;

use crate::audit::ENTRIES_MAX;

/// Calls of one admin at one time: a quarter of all, and far more than a pipeline makes.
pub(crate) const CALLS_OF_ADMIN_MAX: usize = ENTRIES_MAX / 4;

/// Counts calls by admin. Clones share the count.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seats(Arc<Mutex<HashMap<Name, usize>>>);

/// A call that is under way, until it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    admin: Name,
}

impl Seats {
    /// Counts one more call of an admin; `None`: he has too many.
    pub(crate) fn take(&self, admin: &Name) -> Option<Seat> {
        let mut counts = self.counts();
        let count = counts.entry(admin.clone()).or_default();
        if *count >= CALLS_OF_ADMIN_MAX {
            return None;
        }
        *count += 1;
        Some(Seat { seats: self.clone(), admin: admin.clone() })
    }

    fn counts(&self) -> MutexGuard<'_, HashMap<Name, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Seat {
    /// A call also ends when its caller leaves, which nothing else sees.
    fn drop(&mut self) {
        let mut counts = self.seats.counts();
        if let Some(count) = counts.get_mut(&self.admin) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.admin);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_admin_leaves_room_for_another_and_what_has_ended_does_not_count() {
        let (alice, bob) = ("alice".parse::<Name>().expect("a name"), "bob".parse().expect("a name"));
        let seats = Seats::default();
        let mut taken: Vec<Seat> = (0..CALLS_OF_ADMIN_MAX).filter_map(|_| seats.take(&alice)).collect();
        assert_eq!(taken.len(), CALLS_OF_ADMIN_MAX);
        assert!(seats.take(&alice).is_none());
        assert!(seats.take(&bob).is_some());
        taken.pop();
        taken.extend(seats.take(&alice));
        assert_eq!(taken.len(), CALLS_OF_ADMIN_MAX);
        drop(taken);
        assert!(seats.counts().is_empty(), "nobody is remembered for nothing");
    }
}
