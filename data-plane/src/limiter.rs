//! Limits on one node: a budget of calls per key, by the generic cell rate algorithm (`governor`).
//!
//! Always holds: a limiter outlives changes of configuration as long as its specification stays; monotonic time
//! only. It does not count across nodes; that is absent in this release.

use std::num::NonZeroU32;
use std::time::Duration;

use gantry_model::LimitName;
use gantry_model::resource::{LimitKeyPart, LimitSpec};
use governor::clock::{Clock, DefaultClock};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

/// Keys after which those that are full again are forgotten. A key takes about 100 bytes.
const KEYS_BEFORE_SWEEP: usize = 10_000;

/// One limit with its counters.
pub(crate) struct Limiter {
    pub(crate) name: LimitName,
    spec: LimitSpec,
    counters: DefaultKeyedRateLimiter<String>,
    clock: DefaultClock,
}

/// What a call counts against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage<'a> {
    pub(crate) agent: &'a str,
    /// For whom it acts; empty: for nobody.
    pub(crate) user: &'a str,
    pub(crate) server: &'a str,
    pub(crate) tool: &'a str,
}

impl Limiter {
    /// A limiter with a full budget for every key.
    pub(crate) fn new(name: LimitName, spec: LimitSpec) -> Limiter {
        let calls = NonZeroU32::new(spec.calls).unwrap_or(NonZeroU32::MIN);
        let burst = NonZeroU32::new(spec.burst_calls()).unwrap_or(NonZeroU32::MIN);
        let window = Duration::from_secs(u64::from(spec.window_seconds));
        let per_call = (window / calls.get()).max(Duration::from_nanos(1));
        let quota = Quota::with_period(per_call).unwrap_or(Quota::per_second(calls)).allow_burst(burst);
        Limiter { name, spec, counters: RateLimiter::keyed(quota), clock: DefaultClock::default() }
    }

    /// Whether it is the limiter of this limit, so that its counters may be kept.
    pub(crate) fn is(&self, name: &LimitName, spec: &LimitSpec) -> bool {
        self.name == *name && self.spec == *spec
    }

    /// Takes one call from the budget, when the limit concerns it. On refusal, how long until one is there.
    pub(crate) fn take(&self, usage: Usage<'_>) -> Result<(), Duration> {
        if !self.concerns(usage) {
            return Ok(());
        }
        if self.counters.len() > KEYS_BEFORE_SWEEP {
            self.counters.retain_recent();
        }
        self.counters.check_key(&self.key(usage)).map_err(|refused| refused.wait_time_from(self.clock.now()))
    }

    fn concerns(&self, usage: Usage<'_>) -> bool {
        let is = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|wanted| wanted == actual);
        is(self.spec.agent.as_ref().map(AsRef::as_ref), usage.agent)
            && is(self.spec.server.as_ref().map(AsRef::as_ref), usage.server)
            && is(self.spec.tool.as_ref().map(AsRef::as_ref), usage.tool)
    }

    /// The parts are joined by a character that no name has.
    fn key(&self, usage: Usage<'_>) -> String {
        let mut key = String::new();
        for part in &self.spec.per {
            key.push_str(match part {
                LimitKeyPart::Agent => usage.agent,
                LimitKeyPart::Server => usage.server,
                LimitKeyPart::Tool => usage.tool,
                LimitKeyPart::User => usage.user,
            });
            key.push('\n');
        }
        key
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limiter(per: Vec<LimitKeyPart>, calls: u32, burst: Option<u32>) -> Limiter {
        let spec = LimitSpec { per, calls, window_seconds: 60, burst, agent: None, server: None, tool: None };
        Limiter::new("l".parse().expect("a name"), spec)
    }

    const BOT: Usage<'static> = Usage { agent: "bot", user: "", server: "files", tool: "read" };

    #[test]
    fn a_burst_is_allowed_and_then_the_rate_rules() {
        let limiter = limiter(vec![LimitKeyPart::Agent], 60, Some(2));
        assert_eq!(limiter.take(BOT), Ok(()));
        assert_eq!(limiter.take(Usage { tool: "write", ..BOT }), Ok(()));
        let wait = limiter.take(BOT).expect_err("refused");
        assert!(wait <= Duration::from_secs(1) && wait > Duration::from_millis(500), "{wait:?}");
        assert_eq!(limiter.take(Usage { agent: "eve", ..BOT }), Ok(()));
    }

    #[test]
    fn a_limit_on_one_tool_leaves_the_others_alone() {
        let mut spec = limiter(Vec::new(), 1, None).spec;
        spec.tool = "read".parse().ok();
        let limiter = Limiter::new("l".parse().expect("a name"), spec);
        assert_eq!(limiter.take(BOT), Ok(()));
        assert!(limiter.take(BOT).is_err());
        assert_eq!(limiter.take(Usage { tool: "write", ..BOT }), Ok(()));
    }
}
