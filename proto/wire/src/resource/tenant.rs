//! What a tenant says of itself, to and from messages.

use gantry_model::resource::{Breaker, Failures, Repeats, Staleness, TenantSpec};

use crate::convert::{WireError, name, text_or_empty};
use crate::resource_v1 as wire;

impl From<&TenantSpec> for wire::TenantSpec {
    fn from(spec: &TenantSpec) -> wire::TenantSpec {
        wire::TenantSpec {
            description: spec.description.clone(),
            fail_closed_after_seconds: spec.staleness.fail_closed_after_seconds.unwrap_or(0),
            regions: spec.regions.iter().map(ToString::to_string).collect(),
            public_url: text_or_empty(spec.public_url.as_ref()),
            breaker: spec.breaker.as_ref().map(Into::into),
            inspection: super::inspection::to_wire(&spec.inspection),
            approval_hold_seconds: spec.approval_hold_seconds,
            check: spec.check.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&wire::TenantSpec> for TenantSpec {
    type Error = WireError;

    fn try_from(spec: &wire::TenantSpec) -> Result<TenantSpec, WireError> {
        let seconds = spec.fail_closed_after_seconds;
        Ok(TenantSpec {
            description: spec.description.clone(),
            staleness: Staleness { fail_closed_after_seconds: (seconds != 0).then_some(seconds) },
            regions: spec.regions.iter().map(|text| name("regions", text)).collect::<Result<_, _>>()?,
            public_url: (!spec.public_url.is_empty()).then(|| spec.public_url.clone()),
            breaker: spec.breaker.as_ref().map(Into::into),
            inspection: super::inspection::from_wire(spec.inspection.as_ref())?,
            approval_hold_seconds: spec.approval_hold_seconds,
            check: spec.check.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&Breaker> for wire::Breaker {
    fn from(breaker: &Breaker) -> wire::Breaker {
        let repeats = |it: Repeats| wire::Repeats { calls: it.calls, window_seconds: it.window_seconds };
        let failures = |it: Failures| wire::Failures {
            percent: it.percent,
            calls: it.calls,
            window_seconds: it.window_seconds,
        };
        wire::Breaker {
            open_seconds: breaker.open_seconds,
            repeats: breaker.repeats.map(repeats),
            failures: breaker.failures.map(failures),
        }
    }
}

/// Its bounds are checked with the rest of the specification.
impl From<&wire::Breaker> for Breaker {
    fn from(breaker: &wire::Breaker) -> Breaker {
        let repeats = |it: wire::Repeats| Repeats { calls: it.calls, window_seconds: it.window_seconds };
        let failures = |it: wire::Failures| Failures {
            percent: it.percent,
            calls: it.calls,
            window_seconds: it.window_seconds,
        };
        Breaker {
            repeats: breaker.repeats.map(repeats),
            failures: breaker.failures.map(failures),
            open_seconds: breaker.open_seconds,
        }
    }
}
