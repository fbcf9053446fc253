//! Whether more calls are rejected than were to be expected.
//!
//! The test: for both sides the Wilson score interval of the share of rejected calls, at 99 %. It is a rise when the lower
//! end of the one is above the upper end of the other, and the shares themselves differ by more than the threshold.
//!
//! Always holds: with fewer calls than the threshold on either side nothing is decided. Its limits: calls are taken to be
//! independent of each other, and one agent that repeats itself is not; nodes are taken to get the same kinds of calls;
//! it is asked again and again, so that over a long stage a difference by chance is found more often than once in a
//! hundred.

use gantry_model::rollout::Thresholds;

/// The quantile of the normal distribution that leaves half a hundredth above.
const QUANTILE: f64 = 2.576;

/// Calls, how many of them were rejected, and how many callers were turned away before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Calls {
    pub(crate) calls: u64,
    pub(crate) rejected: u64,
    /// Callers of whom nobody knew who they are: they are not among the calls.
    pub(crate) refused: u64,
}

impl Calls {
    /// Both together.
    pub(crate) fn and(self, other: Calls) -> Calls {
        Calls {
            calls: self.calls.saturating_add(other.calls),
            rejected: self.rejected.saturating_add(other.rejected),
            refused: self.refused.saturating_add(other.refused),
        }
    }

    /// With those who were turned away as calls that were rejected.
    pub(crate) fn with_refused(self) -> Calls {
        let Calls { calls, rejected, refused } = self;
        let (calls, rejected) = (calls.saturating_add(refused), rejected.saturating_add(refused));
        Calls { calls, rejected, refused: 0 }
    }

    /// Those since there were `before`. A process that has fewer than before was started anew.
    pub(crate) fn since(self, before: Calls) -> Calls {
        let is_anew = self.calls < before.calls || self.rejected < before.rejected;
        if is_anew || self.refused < before.refused {
            return self;
        }
        Calls {
            calls: self.calls - before.calls,
            rejected: self.rejected - before.rejected,
            refused: self.refused - before.refused,
        }
    }

    /// Whether they are enough to compare with others.
    pub(crate) fn are_enough(self, thresholds: &Thresholds) -> bool {
        self.calls >= u64::from(thresholds.calls_min.max(1))
    }

    /// Whether more of these are rejected than of others.
    pub(crate) fn rose_above(self, others: Calls, thresholds: &Thresholds) -> bool {
        if !self.are_enough(thresholds) || !others.are_enough(thresholds) {
            return false;
        }
        let ((lower, _), (_, upper)) = (self.interval(), others.interval());
        let rise = self.share() - others.share();
        lower > upper && rise * 100.0 > f64::from(thresholds.rise_percent)
    }

    /// The share that was rejected; of no calls none.
    fn share(self) -> f64 {
        if self.calls == 0 { 0.0 } else { float(self.rejected.min(self.calls)) / float(self.calls) }
    }

    /// Between what the share may be.
    fn interval(self) -> (f64, f64) {
        let (calls, share) = (float(self.calls.max(1)), self.share());
        let square = QUANTILE * QUANTILE;
        let center = share + square / (2.0 * calls);
        let spread = QUANTILE * (share * (1.0 - share) / calls + square / (4.0 * calls * calls)).sqrt();
        let scale = 1.0 + square / calls;
        ((center - spread) / scale, (center + spread) / scale)
    }
}

/// Counts beyond what this is exact for are compared as well.
fn float(count: u64) -> f64 {
    u32::try_from(count).map_or(f64::from(u32::MAX), f64::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rejected: u64, calls: u64) -> Calls {
        Calls { calls, rejected, refused: 0 }
    }

    #[test]
    fn a_rise_is_one_only_with_enough_calls_and_by_more_than_the_threshold() {
        let thresholds = Thresholds { rise_percent: 5, calls_min: 50 };
        let rose = |one: Calls, other: Calls| one.rose_above(other, &thresholds);
        assert!(rose(of(50, 50), of(0, 50)));
        assert!(!rose(of(49, 49), of(0, 1_000)), "too few in the stage");
        assert!(!rose(of(1_000, 1_000), of(0, 49)), "too few elsewhere");
        assert!(!rose(of(5, 50), of(0, 50)), "by chance");
        assert!(rose(of(100, 1_000), of(10, 1_000)));
        assert!(!rose(of(10, 1_000), of(100, 1_000)), "a fall");
        assert!(!rose(of(500, 10_000), of(100, 10_000)), "sure, and less than the threshold");
        assert!(rose(of(700, 10_000), of(100, 10_000)));
        assert!(rose(of(400, 1_000), of(200, 1_000)));
        let never = Thresholds { rise_percent: 100, calls_min: 0 };
        assert!(!of(1_000, 1_000).rose_above(of(0, 1_000), &never));
        assert!(!of(0, 0).rose_above(of(0, 0), &Thresholds { rise_percent: 0, calls_min: 0 }));
    }

    #[test]
    fn the_interval_is_that_of_wilson() {
        // 10 of 100 at 99 %: worked out by hand.
        let (lower, upper) = of(10, 100).interval();
        assert!((lower - 0.04602).abs() < 0.00001 && (upper - 0.20376).abs() < 0.00001, "{lower} {upper}");
    }

    #[test]
    fn a_process_that_began_anew_has_all_its_calls_since() {
        assert_eq!(of(3, 10).since(of(1, 4)), of(2, 6));
        assert_eq!(of(1, 3).since(of(1, 4)), of(1, 3));
        assert_eq!(of(0, 9).since(of(1, 4)), of(0, 9));
        let refused = |refused| Calls { refused, ..of(1, 4) };
        assert_eq!(refused(9).since(refused(2)), Calls { refused: 7, ..of(0, 0) });
        assert_eq!(refused(1).since(refused(2)), refused(1));
    }
}
