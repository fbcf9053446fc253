//! How long calls took: a histogram that many workers fill apart and that is merged at the end.
//!
//! What always holds: a value is off by less than 0.1 %, and none is dropped; one beyond
//! `LATENCY_MAX` counts as `LATENCY_MAX`. It does not know what was measured.

use std::time::Duration;

use hdrhistogram::Histogram;

/// One microsecond: no call over a socket is faster.
const LATENCY_MIN: Duration = Duration::from_micros(1);
/// One minute: several times what the driver waits for an answer.
const LATENCY_MAX: Duration = Duration::from_secs(60);
/// Three digits keep ranges narrower than the noise of any run.
const SIGNIFICANT_DIGITS: u8 = 3;

/// Latencies of calls, mergeable without loss.
#[derive(Clone, Debug)]
pub struct Latencies {
    histogram: Histogram<u64>,
}

impl Latencies {
    /// No latencies yet.
    #[must_use]
    pub fn new() -> Self {
        let histogram = Histogram::new_with_bounds(
            nanoseconds(LATENCY_MIN),
            nanoseconds(LATENCY_MAX),
            SIGNIFICANT_DIGITS,
        )
        .expect("the constant bounds are valid");
        Self { histogram }
    }

    /// Adds one call.
    pub fn record(&mut self, latency: Duration) {
        self.histogram.saturating_record(nanoseconds(latency));
    }

    /// Adds every call of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.histogram.add(&other.histogram).expect("all latencies share one range");
    }

    /// How many calls were added.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The latency that the share `quantile` (0 to 1) of calls did not exceed; zero without calls.
    #[must_use]
    pub fn at(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.histogram.value_at_quantile(quantile))
    }

    /// The same in milliseconds.
    #[must_use]
    pub fn ms_at(&self, quantile: f64) -> f64 {
        self.at(quantile).as_secs_f64() * 1e3
    }

    /// The same in microseconds.
    #[must_use]
    pub fn us_at(&self, quantile: f64) -> f64 {
        self.at(quantile).as_secs_f64() * 1e6
    }
}

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_close(actual: Duration, expected: Duration) {
        let error = actual.as_secs_f64() / expected.as_secs_f64() - 1.0;
        assert!(error.abs() < 0.001, "{actual:?} is not {expected:?}");
    }

    #[test]
    fn merged_latencies_equal_those_recorded_in_one_place() {
        let (mut even, mut odd, mut all) = (Latencies::new(), Latencies::new(), Latencies::new());
        for microseconds in 1..=10_000 {
            let latency = Duration::from_micros(microseconds);
            let part = if microseconds % 2 == 0 { &mut even } else { &mut odd };
            part.record(latency);
            all.record(latency);
        }
        even.merge(&odd);
        assert_eq!(even.count(), 10_000);
        assert_eq!(even.histogram, all.histogram);
        assert_close(even.at(0.5), Duration::from_micros(5_000));
        assert_close(even.at(0.99), Duration::from_micros(9_900));
        assert_close(even.at(0.999), Duration::from_micros(9_990));
    }

    #[test]
    fn a_latency_beyond_the_range_counts_as_the_longest() {
        let mut latencies = Latencies::new();
        latencies.record(Duration::from_secs(3_600));
        assert_eq!(latencies.count(), 1);
        assert!(latencies.at(1.0) >= LATENCY_MAX);
    }

    #[test]
    fn no_calls_have_no_latency() {
        assert_eq!(Latencies::new().at(0.99), Duration::ZERO);
    }
}
