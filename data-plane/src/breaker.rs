//! The circuit breaker of a tenant: it stops a principal for a while that makes the same call again and again, or whose
//! calls fail one after the other.
//!
//! Always holds: it judges calls of tools only, each principal by its own; what is refused for a limit, a revocation or by
//! the breaker itself does not count as a failure, so that nobody is kept out by having been kept out. What is remembered
//! of a principal has a fixed size, and at most [`PRINCIPALS_MAX`] are remembered. It counts on this node, not across nodes.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dashmap::DashMap;
use gantry_model::resource as model;
use serde_json::Value;

/// Principals of one tenant that are remembered: 10 MB at most. Beyond, those who did nothing for a window are forgotten, or else all.
const PRINCIPALS_MAX: usize = 10_000;
/// Different calls that are told apart, of one principal. A loop is of a few; what is called between more of them is
/// work.
const CALLS_KEPT: usize = 32;
/// How often a call is spared that its caller is told to make again: less than it is told to wait, and more than a loop does.
const SPARED_EVERY: Duration = Duration::from_secs(10);

/// What a tenant's principals did lately.
pub(crate) struct Breaker {
    spec: model::Breaker,
    principals: DashMap<Arc<str>, Habits>,
    /// Nobody outside can make two calls look the same.
    hasher: RandomState,
}

/// A breaker, as one principal meets it.
#[derive(Clone)]
pub(crate) struct Watched {
    breaker: Arc<Breaker>,
    principal: Arc<str>,
}

/// Why somebody is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trip {
    /// The same call was made more often than this.
    Repeats(model::Repeats),
    /// Of so many calls so many failed.
    Failures { calls: u32, failed: u32 },
}

/// A call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tripped {
    pub(crate) trip: Trip,
    /// Until calls are let through again.
    pub(crate) retry_after: Duration,
}

/// Of one principal.
struct Habits {
    open: Option<(Trip, Instant)>,
    repeats: Vec<Repeated>,
    /// Since when outcomes are counted.
    since: Instant,
    calls: u32,
    failed: u32,
    last: Instant,
}

/// The same call, in its window.
struct Repeated {
    fingerprint: u64,
    since: Instant,
    times: u32,
    /// When it was last not counted.
    spared: Option<Instant>,
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Watched({})", self.principal)
    }
}

impl Breaker {
    /// A breaker that has seen nothing; `before` goes on where it is of the same specification.
    pub(crate) fn of(spec: &model::Breaker, before: Option<&Arc<Breaker>>) -> Arc<Breaker> {
        let kept = before.filter(|before| before.spec == *spec).cloned();
        kept.unwrap_or_else(|| {
            let (principals, hasher) = (DashMap::new(), RandomState::new());
            Arc::new(Breaker { spec: spec.clone(), principals, hasher })
        })
    }

    /// As a principal meets it.
    pub(crate) fn watch(self: &Arc<Self>, principal: &Arc<str>) -> Watched {
        Watched { breaker: self.clone(), principal: principal.clone() }
    }

    fn fingerprint(&self, (tool, arguments): (&str, Option<&Value>)) -> u64 {
        let of = |arguments| fingerprint(&self.hasher, arguments);
        self.hasher.hash_one((tool, arguments.map(of)))
    }

    fn open_for(&self) -> Duration {
        Duration::from_secs(self.spec.open_seconds.into())
    }

    fn forget_some(&self, now: Instant) {
        if self.principals.len() < PRINCIPALS_MAX {
            return;
        }
        let windows = [
            self.spec.repeats.map(|repeats| repeats.window_seconds),
            self.spec.failures.map(|failures| failures.window_seconds),
            Some(self.spec.open_seconds),
        ];
        let longest = Duration::from_secs(windows.into_iter().flatten().max().unwrap_or_default().into());
        self.principals.retain(|_, habits| now.duration_since(habits.last) < longest);
        if self.principals.len() >= PRINCIPALS_MAX {
            self.principals.clear();
        }
    }

    fn with<Answer>(
        &self,
        principal: &Arc<str>,
        now: Instant,
        act: impl FnOnce(&mut Habits) -> Answer,
    ) -> Answer {
        if let Some(mut habits) = self.principals.get_mut(principal) {
            return act(&mut habits);
        }
        self.forget_some(now);
        act(&mut self.principals.entry(principal.clone()).or_insert_with(|| Habits::new(now)))
    }
}

impl Watched {
    /// Counts a call that begins, of a tool with arguments, or refuses it. `None`: one that goes on.
    pub(crate) fn begin(&self, call: Option<(&str, Option<&Value>)>, now: Instant) -> Result<(), Tripped> {
        let spec = &self.breaker.spec;
        let fingerprint = spec.repeats.and(call).map(|call| self.breaker.fingerprint(call));
        self.breaker.with(&self.principal, now, |habits| {
            habits.last = now;
            if let Some((trip, until)) = habits.open {
                if now < until {
                    return Err(Tripped { trip, retry_after: until - now });
                }
                *habits = Habits::new(now);
            }
            let (Some(repeats), Some(fingerprint)) = (spec.repeats, fingerprint) else { return Ok(()) };
            match habits.again(fingerprint, Duration::from_secs(repeats.window_seconds.into()), now) {
                times if times > repeats.calls => Err(self.trip(habits, Trip::Repeats(repeats), now)),
                _ => Ok(()),
            }
        })
    }

    /// Takes back that a call was counted as a repetition, once in a while: its caller is told to make it again.
    pub(crate) fn spare(&self, call: (&str, Option<&Value>), now: Instant) {
        if self.breaker.spec.repeats.is_none() {
            return;
        }
        let fingerprint = self.breaker.fingerprint(call);
        self.breaker.with(&self.principal, now, |habits| {
            let known = habits.repeats.iter_mut().find(|known| known.fingerprint == fingerprint);
            let is_due = |spared: Option<Instant>| {
                spared.is_none_or(|spared| now.duration_since(spared) >= SPARED_EVERY)
            };
            if let Some(known) = known.filter(|known| is_due(known.spared)) {
                known.times = known.times.saturating_sub(1);
                known.spared = Some(now);
            }
        });
    }

    /// Counts a call that ended.
    pub(crate) fn end(&self, is_failure: bool, now: Instant) {
        let Some(failures) = self.breaker.spec.failures else { return };
        self.breaker.with(&self.principal, now, |habits| {
            if habits.open.is_some() {
                return;
            }
            if now.duration_since(habits.since) >= Duration::from_secs(failures.window_seconds.into()) {
                (habits.since, habits.calls, habits.failed) = (now, 0, 0);
            }
            habits.calls = habits.calls.saturating_add(1);
            habits.failed = habits.failed.saturating_add(u32::from(is_failure));
            let (calls, failed) = (habits.calls, habits.failed);
            let is_much = u64::from(failed) * 100 >= u64::from(failures.percent) * u64::from(calls);
            if is_failure && calls >= failures.calls && is_much {
                self.trip(habits, Trip::Failures { calls, failed }, now);
            }
        });
    }

    fn trip(&self, habits: &mut Habits, trip: Trip, now: Instant) -> Tripped {
        let retry_after = self.breaker.open_for();
        habits.open = Some((trip, now + retry_after));
        tracing::warn!(principal = %self.principal, ?trip, "a principal is stopped for a while");
        Tripped { trip, retry_after }
    }
}

impl Trip {
    /// The field of the specification that it is by.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Trip::Repeats(_) => "repeats",
            Trip::Failures { .. } => "failures",
        }
    }
}

impl Habits {
    fn new(now: Instant) -> Habits {
        Habits { open: None, repeats: Vec::new(), since: now, calls: 0, failed: 0, last: now }
    }

    /// How often a call was made in its window, with this time.
    fn again(&mut self, fingerprint: u64, window: Duration, now: Instant) -> u32 {
        self.repeats.retain(|known| now.duration_since(known.since) < window);
        if let Some(known) = self.repeats.iter_mut().find(|known| known.fingerprint == fingerprint) {
            known.times = known.times.saturating_add(1);
            return known.times;
        }
        if self.repeats.len() >= CALLS_KEPT {
            // The one that was made least; of equals the oldest, which stands first.
            let least = self.repeats.iter().enumerate().min_by_key(|(_, known)| known.times);
            if let Some(index) = least.map(|(index, _)| index) {
                self.repeats.remove(index);
            }
        }
        self.repeats.push(Repeated { fingerprint, since: now, times: 1, spared: None });
        1
    }
}

/// The same for the same value, in whatever order the members of its objects stand.
fn fingerprint(hasher: &RandomState, value: &Value) -> u64 {
    match value {
        Value::Null => hasher.hash_one(()),
        Value::Bool(value) => hasher.hash_one(value),
        Value::Number(value) => hasher.hash_one(value),
        Value::String(value) => hasher.hash_one(value),
        Value::Array(values) => {
            let one = |before, value| hasher.hash_one((before, fingerprint(hasher, value)));
            values.iter().fold(1, one)
        }
        Value::Object(members) => members.iter().fold(2, |sum: u64, (name, value)| {
            sum.wrapping_add(hasher.hash_one((name, fingerprint(hasher, value))))
        }),
    }
}

#[cfg(test)]
mod tests;
