//! What a request brings beside who asks for what: when, in which protocol, and with which arguments. It is Cedar's
//! `context`.
//!
//! Always holds: a context made here conforms to [`crate::SCHEMA`], with the arguments typed as the tool's shape has
//! them. Times are UTC. What is not there makes a policy that reads it fail, which denies.

use std::sync::Arc;

use cedar_policy_core::ast::{Context, Value};
use gantry_model::facts::Facts;

use crate::arguments::Shape;
use crate::facts;

/// Makes the facts of a call, or says why there are none. They cost more than the rest, so they are made where a statement in
/// scope reads them.
pub type MakeFacts<'a> = dyn Fn() -> Result<Facts, String> + 'a;

/// The circumstances of one request.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// Now, in seconds since 1970-01-01T00:00:00Z.
    pub at_seconds: u64,
    /// The era of the protocol that the client speaks: `legacy` or `modern`.
    pub era: &'a str,
    /// The protocol's revision that the client says or agreed on, such as `2025-11-25`; empty where it says none.
    pub revision: &'a str,
    /// For `tools/call`: what the tool takes, and what it is given.
    pub arguments: Option<(&'a Shape, &'a serde_json::Value)>,
    /// For `tools/call`: what parsers read in the arguments.
    pub facts: Option<&'a MakeFacts<'a>>,
}

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Call<'_> {
    /// The context, with time and facts where they are read; an error says what cannot be put to the policies.
    pub(crate) fn context(&self, reads_time: bool, reads_facts: bool) -> Result<Context, String> {
        let mut pairs = vec![("era", Value::from(self.era)), ("revision", Value::from(self.revision))];
        if reads_time {
            pairs.push(("time", time(self.at_seconds)));
        }
        if let Some((shape, arguments)) = self.arguments {
            pairs.push(("arguments", shape.value(arguments)?));
        }
        if let (true, Some(facts)) = (reads_facts, self.facts) {
            pairs.push(("facts", facts::value(&facts()?)));
        }
        let pairs = pairs.into_iter().map(|(name, value)| (name.into(), value));
        Ok(Context::Value(Arc::new(pairs.collect())))
    }
}

fn time(at_seconds: u64) -> Value {
    // Far beyond any date that a clock has; it keeps the sums below within their types.
    let seconds = i64::try_from(at_seconds).unwrap_or(i64::MAX).min(253_402_300_799);
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // 1970-01-01 was a Thursday.
    let weekday = usize::try_from((days + 3) % 7).ok().and_then(|index| WEEKDAYS.get(index)).unwrap_or(&"");
    Value::record(
        [
            ("seconds", Value::from(seconds)),
            ("date", Value::from(date(days))),
            ("hour", Value::from(second / 3_600)),
            ("minute", Value::from(second / 60 % 60)),
            ("weekday", Value::from(*weekday)),
        ],
        None,
    )
}

/// The date of a day since 1970-01-01 as a number, such as 20261123, by the Gregorian calendar.
fn date(days: i64) -> i64 {
    // Counted from 0000-03-01, so that a leap day ends its year; 146,097 days are 400 years.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let shifted = (5 * of_year + 2) / 153;
    let of_month = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = era * 400 + year + i64::from(month <= 2);
    year * 10_000 + month * 100 + of_month
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_told_in_parts() {
        let told = |at_seconds| time(at_seconds).to_string();
        assert_eq!(told(0), r#"{date: 19700101, hour: 0, minute: 0, seconds: 0, weekday: "thursday"}"#);
        assert_eq!(
            told(1_795_445_999),
            r#"{date: 20261123, hour: 14, minute: 59, seconds: 1795445999, weekday: "monday"}"#
        );
        assert_eq!(
            [951_782_400, 951_868_800, 4_107_542_400].map(|at: i64| date(at / 86_400)),
            [20000229, 20000301, 21000301]
        );
        assert!(told(u64::MAX).starts_with(r#"{date: 99991231, hour: 23, minute: 59,"#));
    }
}
