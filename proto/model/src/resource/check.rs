//! The bounds and rules that a specification keeps by itself.
//!
//! Always holds: a refusal names the field below `spec`. What needs other resources is [`crate::reference`]'s.

use std::borrow::Cow;

use super::{
    APPROVAL_HOLD_SECONDS_MAX, AgentSpec, ApprovalSpec, Breaker, CredentialSpec,
    FAIL_CLOSED_AFTER_SECONDS_MAX, FAIL_CLOSED_AFTER_SECONDS_MIN, LIST_MAX, LimitSpec, POLICY_BYTES_MAX,
    REGIONS_MAX, Spec, SpecError, TenantSpec, WINDOW_SECONDS_MAX,
};

pub(super) fn error(path: impl Into<Cow<'static, str>>, message: impl Into<String>) -> SpecError {
    SpecError { path: path.into(), message: message.into() }
}

impl Spec {
    /// Checks the bounds and rules that need nothing beside the specification. Whoever makes a `Spec` from outside
    /// (a document, a message) calls this once.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Spec::Tenant(spec) => spec.check(),
            Spec::Server(spec) => spec.check(),
            Spec::Endpoint(spec) => spec.check(),
            Spec::Agent(spec) if spec.groups.len() > LIST_MAX => {
                Err(error("groups", format!("has more than {LIST_MAX} elements")))
            }
            Spec::Agent(spec) => spec.check_identities(),
            Spec::Policy(spec) if spec.cedar.len() > POLICY_BYTES_MAX => {
                Err(error("cedar", format!("has more than {POLICY_BYTES_MAX} bytes")))
            }
            Spec::Policy(spec) if spec.cedar.trim().is_empty() => Err(error("cedar", "is empty")),
            Spec::Policy(spec) => spec.approval.as_ref().map_or(Ok(()), ApprovalSpec::check),
            Spec::Limit(spec) => spec.check(),
            Spec::Credential(spec) => spec.check(),
            Spec::Provider(spec) => spec.check(),
        }
    }
}

impl TenantSpec {
    fn check(&self) -> Result<(), SpecError> {
        let bounds = FAIL_CLOSED_AFTER_SECONDS_MIN..=FAIL_CLOSED_AFTER_SECONDS_MAX;
        match self.staleness.fail_closed_after_seconds {
            Some(seconds) if !bounds.contains(&seconds) => Err(error(
                "staleness.fail_closed_after_seconds",
                format!("must be from {FAIL_CLOSED_AFTER_SECONDS_MIN} to {FAIL_CLOSED_AFTER_SECONDS_MAX}"),
            )),
            _ if self.approval_hold_seconds.is_some_and(|seconds| seconds > APPROVAL_HOLD_SECONDS_MAX) => {
                let most = format!("must be at most {APPROVAL_HOLD_SECONDS_MAX}");
                Err(error("approval_hold_seconds", most))
            }
            _ if self.regions.len() > REGIONS_MAX => {
                Err(error("regions", format!("has more than {REGIONS_MAX} elements")))
            }
            _ => {
                self.public_url.as_deref().map_or(Ok(()), check_public_url)?;
                self.breaker.as_ref().map_or(Ok(()), Breaker::check)?;
                self.check.as_ref().map_or(Ok(()), |check| check.check("check"))?;
                self.inspection.check_without_tools()
            }
        }
    }
}

/// What tokens are for has one form: an origin.
fn check_public_url(text: &str) -> Result<(), SpecError> {
    let url = text.parse::<url::Url>().ok().filter(|url| {
        url.scheme() == "https" || (url.scheme() == "http" && super::provider::is_loopback(url))
    });
    match url {
        Some(url) if url.origin().ascii_serialization() == text => Ok(()),
        _ => Err(error(
            "public_url",
            "must be https (or http on loopback), a host and perhaps a port, in lower case, such as https://mcp.example.com",
        )),
    }
}

impl AgentSpec {
    fn check_identities(&self) -> Result<(), SpecError> {
        if self.identities.len() > LIST_MAX {
            return Err(error("identities", format!("has more than {LIST_MAX} elements")));
        }
        self.identities.iter().enumerate().try_for_each(|(index, identity)| identity.check(index))
    }
}

impl LimitSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.calls == 0 {
            return Err(error("calls", "must be at least 1; to forbid calls, use a policy"));
        }
        if self.window_seconds == 0 || self.window_seconds > WINDOW_SECONDS_MAX {
            return Err(error("window_seconds", format!("must be from 1 to {WINDOW_SECONDS_MAX}")));
        }
        if self.burst == Some(0) {
            return Err(error("burst", "must be at least 1"));
        }
        let mut parts = self.per.clone();
        parts.sort_unstable();
        parts.dedup();
        if parts.len() != self.per.len() {
            return Err(error("per", "names a part twice"));
        }
        Ok(())
    }

    /// Calls that may come at once.
    pub fn burst_calls(&self) -> u32 {
        self.burst.unwrap_or(self.calls)
    }
}

/// Headers that belong to the hop, to the protocol or to the gateway; a credential may not take their place.
const HEADERS_RESERVED: &[&str] = &[
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "last-event-id",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

impl CredentialSpec {
    fn check(&self) -> Result<(), SpecError> {
        let token = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"!#$%&'*+-.^_`|~".contains(&byte)
        };
        if self.header.is_empty() || !self.header.bytes().all(token) {
            return Err(error("header", "must be a header name in lower case"));
        }
        if HEADERS_RESERVED.contains(&self.header.as_str()) || self.header.starts_with("mcp-") {
            return Err(error("header", format!("`{}` belongs to the protocol", self.header)));
        }
        if self.prefix.bytes().any(|byte| !(b' '..=b'~').contains(&byte)) {
            return Err(error("prefix", "must be visible ASCII"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::Staleness;
    use super::*;

    #[test]
    fn a_breaker_is_bounded_and_has_something_that_trips_it() {
        let check = |breaker: serde_json::Value| {
            let breaker = Some(serde_json::from_value(breaker).expect("a breaker"));
            Spec::Tenant(TenantSpec { breaker, ..TenantSpec::default() }).check()
        };
        let failures = json!({"percent": 100, "calls": 5, "window_seconds": 1});
        for good in [
            json!({"repeats": {"calls": 1, "window_seconds": 3_600}}),
            json!({"failures": failures, "open_seconds": 3_600}),
        ] {
            assert_eq!(check(good.clone()), Ok(()), "{good}");
        }
        for (bad, path, message) in [
            (json!({}), "breaker", "says nothing that trips it: give `repeats`, `failures` or both"),
            (
                json!({"repeats": {"calls": 0, "window_seconds": 1}}),
                "breaker.repeats.calls",
                "must be from 1 to 10000",
            ),
            (
                json!({"repeats": {"calls": 1, "window_seconds": 3_601}}),
                "breaker.repeats.window_seconds",
                "must be from 1 to 3600",
            ),
            (
                json!({"failures": {"percent": 101, "calls": 5, "window_seconds": 1}}),
                "breaker.failures.percent",
                "must be from 1 to 100",
            ),
            (
                json!({"failures": {"percent": 1, "calls": 4, "window_seconds": 1}}),
                "breaker.failures.calls",
                "must be from 5 to 10000",
            ),
            (
                json!({"failures": failures, "open_seconds": 0}),
                "breaker.open_seconds",
                "must be from 1 to 3600",
            ),
        ] {
            assert_eq!(check(bad.clone()), Err(error(path, message)), "{bad}");
        }
    }

    #[test]
    fn a_tenant_is_refused_after_half_a_minute_at_the_least_and_a_month_at_the_most() {
        let check = |fail_closed_after_seconds| {
            let staleness = Staleness { fail_closed_after_seconds };
            Spec::Tenant(TenantSpec { staleness, ..TenantSpec::default() }).check()
        };
        for good in [None, Some(30), Some(3_600), Some(2_592_000)] {
            assert_eq!(check(good), Ok(()), "{good:?}");
        }
        for bad in [0, 29, 2_592_001, u32::MAX] {
            let refused = error("staleness.fail_closed_after_seconds", "must be from 30 to 2592000");
            assert_eq!(check(Some(bad)), Err(refused), "{bad}");
        }
    }
}
