//! The breaker of one server: whether it is worth asking, by how its last answers went.
//!
//! Always holds: it is closed (everybody may ask) or away; while it is away nobody may ask until a pause is over, and
//! then one at a time, the probe. An outcome counts only for the state that let its call pass, so what was asked
//! before a change says nothing of the time after it. A pause lasts at most [`PAUSE_MAX`]. Time and chance are
//! arguments. While it is closed, a success takes no lock but once a second.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Failures in a row that open it: a server that is gone is left alone after these, and one lost connection opens
/// nothing.
pub(super) const STREAK: u32 = 5;
/// Seconds over which the share of failures is looked at.
const WINDOW_SECONDS: usize = 10;
/// Outcomes within the window below which a share means nothing.
pub(super) const SHARE_OUTCOMES_MIN: u64 = 20;
/// Percent of outcomes within the window that open it when they failed: more than a server under load sheds.
const SHARE_PERCENT: u64 = 50;
/// The first pause; it doubles with each opening until a call succeeds.
pub(super) const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// The longest pause: how long a server that came back may go unnoticed.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(30);
/// When to come again, for those who meet a probe under way.
pub(super) const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// Decides who may ask one server.
#[derive(Debug)]
pub(crate) struct Breaker {
    origin: Instant,
    /// Counts changes between closed (even) and away (odd).
    period: AtomicU64,
    /// Failures since the last success.
    streak: AtomicU32,
    /// Successes of the current second, not yet in the window.
    succeeded: AtomicU64,
    /// The current second since `origin`.
    second: AtomicU64,
    state: Mutex<State>,
}

/// That a call may be made. Its outcome is to be told with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    period: u64,
    pub(super) is_probe: bool,
}

#[derive(Debug)]
struct State {
    away: Option<Away>,
    /// Since a call last succeeded.
    openings: u32,
    window: [Second; WINDOW_SECONDS],
}

#[derive(Debug, Clone, Copy)]
struct Away {
    until: Instant,
    is_probed: bool,
}

/// The outcomes of one second.
#[derive(Debug, Clone, Copy, Default)]
struct Second {
    second: u64,
    succeeded: u64,
    failed: u64,
}

impl Breaker {
    /// A closed breaker.
    pub(crate) fn new(now: Instant) -> Breaker {
        Breaker {
            origin: now,
            period: AtomicU64::new(0),
            streak: AtomicU32::new(0),
            succeeded: AtomicU64::new(0),
            second: AtomicU64::new(0),
            state: Mutex::new(State { away: None, openings: 0, window: Default::default() }),
        }
    }

    /// Whether calls are refused, but for probes.
    pub(super) fn is_away(&self) -> bool {
        is_away(self.period.load(Ordering::Acquire))
    }

    /// Lets a call pass, or says after what time another should be tried.
    pub(crate) fn enter(&self, now: Instant) -> Result<Entry, Duration> {
        let period = self.period.load(Ordering::Acquire);
        if !is_away(period) {
            return Ok(Entry { period, is_probe: false });
        }
        let mut state = self.lock();
        let period = self.period.load(Ordering::Acquire);
        match &mut state.away {
            None => Ok(Entry { period, is_probe: false }),
            Some(away) if now < away.until => Err(away.until.duration_since(now)),
            Some(away) if away.is_probed => Err(PROBE_PAUSE),
            Some(away) => {
                away.is_probed = true;
                Ok(Entry { period, is_probe: true })
            }
        }
    }

    /// As [`Breaker::enter`], without taking the probe's place.
    pub(super) fn refusal(&self, now: Instant) -> Option<Duration> {
        if !self.is_away() {
            return None;
        }
        match self.lock().away {
            Some(away) if now < away.until => Some(away.until.duration_since(now)),
            Some(away) if away.is_probed => Some(PROBE_PAUSE),
            Some(_) | None => None,
        }
    }

    /// The call was answered.
    pub(crate) fn succeeded(&self, entry: Entry, now: Instant) {
        if entry.is_probe {
            let mut state = self.lock();
            if self.is_current(entry) {
                state.openings = 0;
                self.close(&mut state);
            }
            return;
        }
        if !self.is_current(entry) {
            return;
        }
        // Most of the time there is nothing to write, and the line stays shared between cores.
        if self.streak.load(Ordering::Relaxed) != 0 {
            self.streak.store(0, Ordering::Relaxed);
        }
        if self.second.load(Ordering::Relaxed) != self.second_of(now) {
            let mut state = self.lock();
            state.openings = if state.away.is_some() { state.openings } else { 0 };
            self.advance(&mut state, now);
        }
        self.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    /// The call failed. `chance` spreads the pauses of many nodes.
    pub(crate) fn failed(&self, entry: Entry, now: Instant, chance: u8) {
        let mut state = self.lock();
        if !self.is_current(entry) {
            return;
        }
        if entry.is_probe {
            state.open(now, chance);
            return;
        }
        let streak = self.streak.fetch_add(1, Ordering::Relaxed) + 1;
        self.advance(&mut state, now);
        let second = self.second_of(now);
        state.second(second).failed += 1;
        if streak >= STREAK || state.fails_too_often(second) {
            state.open(now, chance);
            self.period.fetch_add(1, Ordering::Release);
        }
    }

    /// The call was given up before its outcome was known.
    pub(crate) fn cancelled(&self, entry: Entry) {
        if !entry.is_probe {
            return;
        }
        let mut state = self.lock();
        if self.is_current(entry)
            && let Some(away) = &mut state.away
        {
            away.is_probed = false;
        }
    }

    /// The server answered somebody who asks whether or not it is away. The next pause is none the shorter for it: a
    /// server may answer such questions and no calls.
    pub(super) fn answered(&self) {
        if self.is_away() {
            let mut state = self.lock();
            if state.away.is_some() {
                self.close(&mut state);
            }
        } else {
            self.streak.store(0, Ordering::Relaxed);
        }
    }

    /// The server failed somebody who asks whether or not it is away.
    pub(super) fn unanswered(&self, now: Instant, chance: u8) {
        let period = self.period.load(Ordering::Acquire);
        if !is_away(period) {
            self.failed(Entry { period, is_probe: false }, now, chance);
        }
    }

    fn close(&self, state: &mut State) {
        state.away = None;
        state.window = Default::default();
        self.streak.store(0, Ordering::Relaxed);
        self.succeeded.store(0, Ordering::Relaxed);
        self.period.fetch_add(1, Ordering::Release);
    }

    /// Periods change under the lock only: with the lock held the answer stays true.
    fn is_current(&self, entry: Entry) -> bool {
        self.period.load(Ordering::Acquire) == entry.period
    }

    /// Books the successes so far for the second they were counted in, and begins the current one.
    fn advance(&self, state: &mut State, now: Instant) {
        let succeeded = self.succeeded.swap(0, Ordering::Relaxed);
        let before = self.second.load(Ordering::Relaxed);
        state.second(before).succeeded += succeeded;
        self.second.store(self.second_of(now).max(before), Ordering::Relaxed);
    }

    fn second_of(&self, now: Instant) -> u64 {
        now.duration_since(self.origin).as_secs()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change below leaves a state that is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn open(&mut self, now: Instant, chance: u8) {
        let doublings = self.openings.min(PAUSE_MAX.as_secs().ilog2() + 1);
        let pause = (PAUSE_FIRST * 2_u32.pow(doublings)).min(PAUSE_MAX);
        self.openings = self.openings.saturating_add(1);
        // Between half of the pause and all of it.
        let until = now + pause - pause / 2 * u32::from(chance) / u32::from(u8::MAX);
        self.away = Some(Away { until, is_probed: false });
    }

    fn second(&mut self, second: u64) -> &mut Second {
        let slot = &mut self.window[(second % WINDOW_SECONDS as u64) as usize];
        // A late outcome of a second that has left the window is counted in the slot's newer one.
        if slot.second < second {
            *slot = Second { second, succeeded: 0, failed: 0 };
        }
        slot
    }

    fn fails_too_often(&self, now: u64) -> bool {
        let recent = self.window.iter().filter(|slot| slot.second + WINDOW_SECONDS as u64 > now);
        let (succeeded, failed) = recent
            .fold((0, 0), |(succeeded, failed), slot| (succeeded + slot.succeeded, failed + slot.failed));
        let outcomes = succeeded + failed;
        outcomes >= SHARE_OUTCOMES_MIN && failed * 100 >= outcomes * SHARE_PERCENT
    }
}

fn is_away(period: u64) -> bool {
    period % 2 == 1
}

#[cfg(test)]
mod tests;
