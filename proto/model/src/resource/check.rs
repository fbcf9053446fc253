//! The bounds and rules that a specification keeps by itself.
//!
//! Always holds: a refusal names the field below `spec`. What needs other resources is [`crate::reference`]'s.

use std::borrow::Cow;

use super::{CredentialSpec, LIST_MAX, LimitSpec, POLICY_BYTES_MAX, Spec, SpecError, WINDOW_SECONDS_MAX};

pub(super) fn error(path: impl Into<Cow<'static, str>>, message: impl Into<String>) -> SpecError {
    SpecError { path: path.into(), message: message.into() }
}

impl Spec {
    /// Checks the bounds and rules that need nothing beside the specification. Whoever makes a `Spec` from outside
    /// (a document, a message) calls this once.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Spec::Tenant(_) => Ok(()),
            Spec::Server(spec) => spec.check(),
            Spec::Endpoint(spec) => spec.check(),
            Spec::Agent(spec) if spec.groups.len() > LIST_MAX => {
                Err(error("groups", format!("has more than {LIST_MAX} elements")))
            }
            Spec::Agent(_) => Ok(()),
            Spec::Policy(spec) if spec.cedar.len() > POLICY_BYTES_MAX => {
                Err(error("cedar", format!("has more than {POLICY_BYTES_MAX} bytes")))
            }
            Spec::Policy(spec) if spec.cedar.trim().is_empty() => Err(error("cedar", "is empty")),
            Spec::Policy(_) => Ok(()),
            Spec::Limit(spec) => spec.check(),
            Spec::Credential(spec) => spec.check(),
        }
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
