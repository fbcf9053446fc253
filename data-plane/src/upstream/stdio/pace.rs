//! How soon a program that failed is started again.
//!
//! Always holds: between a failure and the next start lies a pause, which doubles with each failure in a row, up to
//! [`PAUSE_MAX`]. The clock is the caller's.

use std::time::Duration;

use tokio::time::Instant;

/// Pause after a first failure.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// Longest pause: a program that was repaired is back soon enough, and a broken one costs little.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A process that ran this long is taken to be sound: its end is no failure in a row with others.
const SOUND_AFTER: Duration = Duration::from_secs(60);

/// The failures in a row of one program.
#[derive(Debug, Default)]
pub(super) struct Pace {
    failures: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// How long to wait before a start.
    pub(super) fn pause(&self, now: Instant) -> Duration {
        self.not_before.map_or(Duration::ZERO, |instant| instant.saturating_duration_since(now))
    }

    /// A start failed, or what was started did not serve.
    pub(super) fn failed(&mut self, at: Instant) {
        let pause = PAUSE_FIRST.saturating_mul(1 << self.failures.min(16)).min(PAUSE_MAX);
        self.failures = self.failures.saturating_add(1);
        self.not_before = Some(at + pause);
    }

    /// A process serves.
    pub(super) fn serves(&mut self) {
        *self = Pace::default();
    }

    /// A process ended by itself.
    pub(super) fn ended(&mut self, lived: Duration, at: Instant) {
        if lived >= SOUND_AFTER {
            self.serves();
        }
        self.failed(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_begin_anew_after_a_sound_run() {
        let mut pace = Pace::default();
        let now = Instant::now();
        assert_eq!(pace.pause(now), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..10 {
            pace.ended(Duration::from_secs(1), now);
            pauses.push(pace.pause(now).as_millis());
        }
        assert_eq!(pauses, [200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000]);
        assert_eq!(pace.pause(now + PAUSE_MAX), Duration::ZERO);
        pace.ended(SOUND_AFTER, now);
        assert_eq!(pace.pause(now), PAUSE_FIRST);
        pace.serves();
        assert_eq!(pace.pause(now), Duration::ZERO);
    }
}
