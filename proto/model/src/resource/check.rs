//! The bounds and rules that a specification keeps by itself.
//!
//! Always holds: a refusal names the field below `spec`. What needs other resources is [`crate::reference`]'s.

use super::{
    CredentialSpec, LIST_MAX, LimitSpec, POLICY_BYTES_MAX, ServerSpec, Spec, SpecError, TIMEOUT_MS_MAX,
    Transport, WINDOW_SECONDS_MAX,
};

pub(super) fn error(path: &'static str, message: impl Into<String>) -> SpecError {
    SpecError { path, message: message.into() }
}

impl Spec {
    /// Checks the bounds and rules that need nothing beside the specification. Whoever makes a `Spec` from outside
    /// (a document, a message) calls this once.
    pub fn check(&self) -> Result<(), SpecError> {
        match self {
            Spec::Tenant(_) => Ok(()),
            Spec::Server(spec) => spec.check(),
            Spec::Endpoint(spec) => match spec.servers.len() {
                1 => Ok(()),
                0 => Err(error("servers", "is empty; an endpoint has one server")),
                count => Err(error(
                    "servers",
                    format!("has {count} servers; this release serves one server per endpoint"),
                )),
            },
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

impl ServerSpec {
    fn check(&self) -> Result<(), SpecError> {
        if self.timeout_ms == 0 || self.timeout_ms > TIMEOUT_MS_MAX {
            return Err(error("timeout_ms", format!("must be from 1 to {TIMEOUT_MS_MAX}")));
        }
        match &self.transport {
            Transport::Http { url } => {
                if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
                    return Err(error("url", "must be http or https, with a host"));
                }
                if !url.username().is_empty() || url.password().is_some() {
                    return Err(error(
                        "url",
                        "holds a secret; put it with `gantry credential put` and name the credential",
                    ));
                }
                Ok(())
            }
            Transport::Stdio { command, environment } => {
                if command.first().is_none_or(String::is_empty) {
                    return Err(error("command", "is empty"));
                }
                if command.len() > LIST_MAX || environment.len() > LIST_MAX {
                    return Err(error("command", format!("has more than {LIST_MAX} elements")));
                }
                if self.credential.is_some() {
                    return Err(error("credential", "is sent as a header, which a `command` has not"));
                }
                Ok(())
            }
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

/// Headers that belong to the hop or to the protocol; a credential may not take their place.
const HEADERS_RESERVED: &[&str] =
    &["host", "content-length", "content-type", "transfer-encoding", "connection", "accept", "te", "upgrade"];

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
