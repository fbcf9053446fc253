//! When an agent is stopped for a while because of what it does: the circuit breaker of a tenant.
//!
//! Always holds: what is not said does not trip. It does not say how calls are counted; nodes do that.

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::check::error;

/// Seconds for which a window or a stop may last: within an hour an agent that is stuck shows, and whoever looks after it
/// has mended it.
const SECONDS_MAX: u32 = 3_600;
/// Calls that may be allowed within a window.
const CALLS_MAX: u32 = 10_000;
/// Calls after which a share of failures says something.
const FAILURES_CALLS_MIN: u32 = 5;

/// What stops one principal (an agent, for a user or for nobody) for a while. Counted on each node by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Breaker {
    /// The same call again and again: a tool with the same arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Repeats>,
    /// Calls that fail, one after the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failures: Option<Failures>,
    /// Seconds for which calls are refused then.
    pub open_seconds: u32,
}

/// The same call more often than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Repeats {
    /// How often it may be made.
    pub calls: u32,
    /// Within so many seconds of the first.
    pub window_seconds: u32,
}

/// A larger share of failures than this.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// So many of a hundred calls, or more.
    pub percent: u32,
    /// Of so many calls at least.
    pub calls: u32,
    /// Within so many seconds of the first.
    pub window_seconds: u32,
}

impl Default for Breaker {
    fn default() -> Breaker {
        Breaker { repeats: None, failures: None, open_seconds: 30 }
    }
}

impl Breaker {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        let within =
            |path: &'static str, value: u32, least: u32, most: u32| match (least..=most).contains(&value) {
                true => Ok(()),
                false => Err(error(path, format!("must be from {least} to {most}"))),
            };
        if let Some(repeats) = &self.repeats {
            within("breaker.repeats.calls", repeats.calls, 1, CALLS_MAX)?;
            within("breaker.repeats.window_seconds", repeats.window_seconds, 1, SECONDS_MAX)?;
        }
        if let Some(failures) = &self.failures {
            within("breaker.failures.percent", failures.percent, 1, 100)?;
            within("breaker.failures.calls", failures.calls, FAILURES_CALLS_MIN, CALLS_MAX)?;
            within("breaker.failures.window_seconds", failures.window_seconds, 1, SECONDS_MAX)?;
        }
        if self.repeats.is_none() && self.failures.is_none() {
            return Err(error("breaker", "says nothing that trips it: give `repeats`, `failures` or both"));
        }
        within("breaker.open_seconds", self.open_seconds, 1, SECONDS_MAX)
    }
}
