//! Servers that offer now this, now that: two builds behind one balancer, or a definition with the time in it.
//!
//! Always holds: of one server at most [`FREE_CHANGES`] changes at once, one more per [`FREE_CHANGE_INTERVAL`], and
//! one per [`SETTLED`] are recorded. Beyond the free ones a catalog is recorded once nothing else was reported of its
//! server for [`SETTLED`]; until then what is recorded stays, so that a server that flaps does not make revisions
//! for ever, and one that has settled, as after a deployment, is not forgotten.
//!
//! It counts the reports that this process hears. What withdraws a pinned definition is never held: the caller does
//! not ask then.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_model::{ServerName, TenantName};
use tokio::time::Instant;

/// Changes of one server that are recorded at once: a person who works on a server makes a few in a row, a server whose
/// tools come and go with its state makes more, and several nodes that ask in the middle of a change tell it twice.
const FREE_CHANGES: u32 = 64;
/// How long until one more change is recorded at once.
const FREE_CHANGE_INTERVAL: Duration = Duration::from_secs(600);
/// How long nothing else may be reported: several of the rounds in which each node asks (60 s), so that a balancer
/// with two builds behind it would have to answer with one of them every time.
const SETTLED: Duration = Duration::from_secs(300);
/// Most servers that are watched; changes of the others are recorded at once.
const SERVERS_MAX: usize = 10_000;

/// What was reported of each server that changed lately.
#[derive(Debug, Default)]
pub(crate) struct Flapping(Mutex<HashMap<(TenantName, ServerName), History>>);

#[derive(Debug)]
struct History {
    free: u32,
    /// From when on the next free change is counted.
    refilled: Instant,
    held: Option<Held>,
}

/// What waits until nothing else is reported.
#[derive(Debug)]
struct Held {
    digest: [u8; 32],
    since: Instant,
}

impl Flapping {
    /// Whether a report that would change what is recorded is to be recorded now.
    pub(crate) fn may_change(
        &self,
        tenant: &TenantName,
        server: &ServerName,
        digest: [u8; 32],
        now: Instant,
    ) -> bool {
        let mut histories = self.lock();
        let key = (tenant.clone(), server.clone());
        if histories.len() >= SERVERS_MAX && !histories.contains_key(&key) {
            return true;
        }
        let new = || History { free: FREE_CHANGES, refilled: now, held: None };
        histories.entry(key).or_insert_with(new).may_change(digest, now)
    }

    /// A report says what is recorded: nothing else is settled.
    pub(crate) fn agrees(&self, tenant: &TenantName, server: &ServerName) {
        if let Some(history) = self.lock().get_mut(&(tenant.clone(), server.clone())) {
            history.held = None;
        }
    }

    /// What to tell of a server whose last report is held back.
    pub(crate) fn told(&self, tenant: &TenantName, server: &ServerName) -> Option<String> {
        let histories = self.lock();
        histories.get(&(tenant.clone(), server.clone()))?.held.as_ref()?;
        let minutes = SETTLED.as_secs() / 60;
        Some(format!(
            "it offers now this, now that; what it offers is recorded once it stays the same for {minutes} minutes"
        ))
    }

    /// Forgets servers that are gone.
    pub(crate) fn retain(&self, is_there: impl Fn(&TenantName, &ServerName) -> bool) {
        self.lock().retain(|(tenant, server), _| is_there(tenant, server));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<(TenantName, ServerName), History>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl History {
    fn may_change(&mut self, digest: [u8; 32], now: Instant) -> bool {
        while self.free < FREE_CHANGES && now.duration_since(self.refilled) >= FREE_CHANGE_INTERVAL {
            self.free += 1;
            self.refilled += FREE_CHANGE_INTERVAL;
        }
        if self.free == FREE_CHANGES {
            self.refilled = now;
        }
        if self.free > 0 {
            self.free -= 1;
            self.held = None;
            return true;
        }
        match &self.held {
            Some(held) if held.digest == digest => {
                let settled = now.duration_since(held.since) >= SETTLED;
                if settled {
                    self.held = None;
                }
                settled
            }
            Some(_) | None => {
                self.held = Some(Held { digest, since: now });
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: [u8; 32] = [1; 32];
    const B: [u8; 32] = [2; 32];
    const ROUND: Duration = Duration::from_secs(60);

    fn names() -> Result<(TenantName, ServerName), gantry_model::name::NameError> {
        Ok(("acme".parse()?, "files".parse()?))
    }

    #[test]
    fn a_server_that_flaps_for_a_day_makes_few_revisions() -> Result<(), gantry_model::name::NameError> {
        let (flapping, (tenant, server)) = (Flapping::default(), names()?);
        let (start, mut recorded, mut changes) = (Instant::now(), A, 0);
        for round in 0..24 * 60 {
            let now = start + ROUND * round;
            for report in [A, B] {
                if report == recorded {
                    flapping.agrees(&tenant, &server);
                } else if flapping.may_change(&tenant, &server, report, now) {
                    (recorded, changes) = (report, changes + 1);
                }
            }
        }
        // The free ones, and one for each interval; nothing ever settles.
        assert_eq!(changes, FREE_CHANGES + 24 * 6 - 1);
        Ok(())
    }

    #[test]
    fn a_server_that_settles_is_recorded_and_forgiven() -> Result<(), gantry_model::name::NameError> {
        let (flapping, (tenant, server)) = (Flapping::default(), names()?);
        let start = Instant::now();
        for change in 0..FREE_CHANGES {
            let digest = if change % 2 == 0 { B } else { A };
            assert!(flapping.may_change(&tenant, &server, digest, start), "{change}");
        }
        assert_eq!(flapping.told(&tenant, &server), None);
        assert!(!flapping.may_change(&tenant, &server, B, start));
        let told =
            "it offers now this, now that; what it offers is recorded once it stays the same for 5 minutes";
        assert_eq!(flapping.told(&tenant, &server).as_deref(), Some(told));
        // One report of the other in between begins the wait anew.
        assert!(!flapping.may_change(&tenant, &server, B, start + ROUND * 4));
        flapping.agrees(&tenant, &server);
        assert!(!flapping.may_change(&tenant, &server, B, start + ROUND * 5 - ROUND / 2));
        assert!(!flapping.may_change(&tenant, &server, B, start + ROUND * 9));
        assert!(flapping.may_change(&tenant, &server, B, start + ROUND * 19 / 2));
        assert_eq!(flapping.told(&tenant, &server), None);
        // Much later it has all its free changes again.
        let later = start + FREE_CHANGE_INTERVAL * (FREE_CHANGES + 1);
        for change in 0..FREE_CHANGES {
            assert!(flapping.may_change(&tenant, &server, A, later), "{change}");
        }
        assert!(!flapping.may_change(&tenant, &server, A, later));
        Ok(())
    }

    #[test]
    fn the_number_of_watched_servers_is_bounded() -> Result<(), gantry_model::name::NameError> {
        let flapping = Flapping::default();
        let (tenant, now) = ("acme".parse()?, Instant::now());
        for index in 0..=SERVERS_MAX {
            let server = format!("s{index}").parse()?;
            assert!(flapping.may_change(&tenant, &server, A, now));
        }
        assert_eq!(flapping.lock().len(), SERVERS_MAX);
        flapping.retain(|_, server| server.as_str() == "s1");
        assert_eq!(flapping.lock().len(), 1);
        Ok(())
    }
}
