//! How often the log hears of servers that cannot be reached: one line of each in [`INTERVAL`], with how many there
//! would have been. A server that takes no connections fails every call, and a line for each costs those of others.
//!
//! Always holds: the first failure of a server is told at once; none is told twice; at most [`SERVERS_MAX`] are known.
//! Time is an argument.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::uri::Authority;

/// How long a server is not complained of again: often enough to see when it began and that it lasts.
const INTERVAL: Duration = Duration::from_secs(10);
/// Servers that are known: more than a node's configuration has out of reach at once.
const SERVERS_MAX: usize = 1_024;

/// Decides which failures are told.
#[derive(Default)]
pub(super) struct Complaints(Mutex<HashMap<Authority, Complaint>>);

struct Complaint {
    told: Instant,
    untold: u64,
}

impl Complaints {
    /// Takes note of a failure. Where it is to be told: how many were not since the last that was.
    pub(super) fn of(&self, server: &Authority, now: Instant) -> Option<u64> {
        // Every change below leaves a table that is whole.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(complaint) = known.get_mut(server) {
            if now.saturating_duration_since(complaint.told) < INTERVAL {
                complaint.untold += 1;
                return None;
            }
            complaint.told = now;
            return Some(std::mem::take(&mut complaint.untold));
        }
        if known.len() == SERVERS_MAX {
            // What was told long ago and not repeated is over.
            known.retain(|_, complaint| now.saturating_duration_since(complaint.told) < INTERVAL);
        }
        if known.len() < SERVERS_MAX {
            known.insert(server.clone(), Complaint { told: now, untold: 0 });
            return Some(0);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(number: usize) -> Authority {
        format!("server{number}:80").parse().expect("an authority")
    }

    #[test]
    fn a_server_is_complained_of_once_in_an_interval_with_the_number_of_failures_between() {
        let (complaints, began) = (Complaints::default(), Instant::now());
        let of = |number, after_ms| complaints.of(&server(number), began + Duration::from_millis(after_ms));
        assert_eq!(of(1, 0), Some(0));
        assert_eq!((of(1, 1), of(1, 9_999)), (None, None));
        assert_eq!(of(2, 9_999), Some(0));
        assert_eq!(of(1, 10_000), Some(2));
        assert_eq!(of(1, 19_999), None);
        assert_eq!(of(1, 20_000), Some(1));
    }

    #[test]
    fn a_full_table_forgets_what_is_over_and_takes_no_more_than_that() {
        let (complaints, began) = (Complaints::default(), Instant::now());
        for number in 0..SERVERS_MAX {
            assert_eq!(complaints.of(&server(number), began), Some(0));
        }
        assert_eq!(complaints.of(&server(SERVERS_MAX), began), None);
        assert_eq!(complaints.of(&server(SERVERS_MAX), began + INTERVAL), Some(0));
        assert_eq!(complaints.0.lock().expect("whole").len(), 1);
    }
}
