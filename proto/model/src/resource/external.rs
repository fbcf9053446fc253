//! A check by a service of the organisation's own: which, and what becomes of a call where it cannot be had.
//!
//! Always holds after its check: the address is an origin, with TLS unless it is this very machine; every number is within
//! its bounds; something is checked. Whether the authorities can be read is looked at where they are used, and where they
//! are applied.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::error;
use super::{BUNDLE_BYTES_MAX, SpecError};
use crate::name::CredentialName;

/// How long a check may take where nothing is said, in milliseconds.
pub const CHECK_TIMEOUT_MS_DEFAULT: u32 = 500;
/// Longest time of a check, in milliseconds: an agent waits for it, twice.
pub const CHECK_TIMEOUT_MS_MAX: u32 = 30_000;
/// Checks at once from one node where nothing is said.
pub const CHECK_CONCURRENCY_DEFAULT: u32 = 64;
/// Most checks at once from one node: streams of one HTTP/2 connection, of which servers commonly allow so many.
pub const CHECK_CONCURRENCY_MAX: u32 = 1_024;
/// Most bytes of an answer, or of one message of it, where nothing is said.
pub const CHECK_ANSWER_BYTES_DEFAULT: u32 = 256 * 1024;
/// Most bytes that may be said: they are held until the service has answered.
pub const CHECK_ANSWER_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Longest address in bytes.
const URL_BYTES_MAX: usize = 2_048;

/// A service that is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalCheck {
    /// Where it is: an origin.
    pub url: Url,
    /// Authorities of its certificate, as PEM; `None`: those that the web believes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorities: Option<String>,
    /// The credential that is sent with each question, as its header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<CredentialName>,
    /// When it is asked.
    #[serde(default = "default_phases", skip_serializing_if = "is_default_phases")]
    pub phases: BTreeSet<CheckPhase>,
    /// How long it may take, with the wait for a place.
    #[serde(default = "default_timeout", skip_serializing_if = "is_default_timeout")]
    pub timeout_ms: u32,
    /// What becomes of what it says nothing of.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_failure: OnFailure,
    /// Checks at once from one node.
    #[serde(default = "default_concurrency", skip_serializing_if = "is_default_concurrency")]
    pub concurrency: u32,
    /// What of the arguments it is shown.
    #[serde(default, skip_serializing_if = "is_default")]
    pub arguments: ShownArguments,
    /// Whether it may put something in place of arguments and answers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub may_replace: bool,
    /// Most bytes of an answer, or of one message of it, that it is shown; a larger one is a failure.
    #[serde(default = "default_answer", skip_serializing_if = "is_default_answer")]
    pub max_answer_bytes: u32,
}

/// When a service is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CheckPhase {
    /// Before the request is forwarded.
    Request,
    /// Before the answer is handed to the agent.
    Answer,
}

/// What becomes of a call of which a service says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// It is refused.
    #[default]
    Closed,
    /// It passes, and its record says so.
    Open,
}

/// What a service is shown of arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ShownArguments {
    /// All of them.
    #[default]
    Whole,
    /// What records say of them: without known forms of secrets, and not at full length.
    Redacted,
}

impl CheckPhase {
    /// The word for it, as in documents.
    pub const fn as_str(self) -> &'static str {
        match self {
            CheckPhase::Request => "request",
            CheckPhase::Answer => "answer",
        }
    }
}

impl ExternalCheck {
    /// Of a field of a specification.
    pub(super) fn check(&self, field: &'static str) -> Result<(), SpecError> {
        let at = |name: &str| format!("{field}.{name}");
        if self.url.as_str().len() > URL_BYTES_MAX
            || self.url.origin().ascii_serialization() + "/" != self.url.as_str()
        {
            return Err(error(at("url"), "must be an origin, such as https://guard.example.com:8443"));
        }
        match self.url.scheme() {
            "https" => {}
            "http" if super::provider::is_loopback(&self.url) && self.authorities.is_none() => {}
            "http" if super::provider::is_loopback(&self.url) => {
                return Err(error(at("authorities"), "go with https"));
            }
            _ => {
                return Err(error(
                    at("url"),
                    "must be https (or http on loopback): arguments and answers go there",
                ));
            }
        }
        if let Some(pem) = &self.authorities {
            let message = if pem.len() > BUNDLE_BYTES_MAX {
                format!("has more than {BUNDLE_BYTES_MAX} bytes")
            } else if pem.contains("PRIVATE KEY") {
                "holds a private key, which nobody but its owner may have; certificates are enough".to_owned()
            } else if !pem.contains("-----BEGIN CERTIFICATE-----") {
                "holds no certificate; PEM is expected".to_owned()
            } else {
                String::new()
            };
            if !message.is_empty() {
                return Err(error(at("authorities"), message));
            }
        }
        if self.phases.is_empty() {
            return Err(error(
                at("phases"),
                "is empty; give `request`, `answer` or both, or leave the check out",
            ));
        }
        for (name, value, most) in [
            ("timeout_ms", self.timeout_ms, CHECK_TIMEOUT_MS_MAX),
            ("concurrency", self.concurrency, CHECK_CONCURRENCY_MAX),
            ("max_answer_bytes", self.max_answer_bytes, CHECK_ANSWER_BYTES_MAX),
        ] {
            if !(1..=most).contains(&value) {
                return Err(error(at(name), format!("must be from 1 to {most}")));
            }
        }
        Ok(())
    }

    /// Whether it is asked in a phase.
    pub fn is_asked(&self, phase: CheckPhase) -> bool {
        self.phases.contains(&phase)
    }
}

fn default_phases() -> BTreeSet<CheckPhase> {
    [CheckPhase::Request].into()
}

fn is_default_phases(phases: &BTreeSet<CheckPhase>) -> bool {
    *phases == default_phases()
}

fn default_timeout() -> u32 {
    CHECK_TIMEOUT_MS_DEFAULT
}

fn is_default_timeout(value: &u32) -> bool {
    *value == CHECK_TIMEOUT_MS_DEFAULT
}

fn default_concurrency() -> u32 {
    CHECK_CONCURRENCY_DEFAULT
}

fn is_default_concurrency(value: &u32) -> bool {
    *value == CHECK_CONCURRENCY_DEFAULT
}

fn default_answer() -> u32 {
    CHECK_ANSWER_BYTES_DEFAULT
}

fn is_default_answer(value: &u32) -> bool {
    *value == CHECK_ANSWER_BYTES_DEFAULT
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: serde_json::Value) -> ExternalCheck {
        serde_json::from_value(fields).expect("it can be read")
    }

    #[test]
    fn what_nobody_says_is_closed_and_bounded() {
        let check = read(json!({"url": "https://guard.example.com:8443"}));
        assert_eq!(check.check("check"), Ok(()));
        assert_eq!(check.on_failure, OnFailure::Closed);
        assert!(check.is_asked(CheckPhase::Request) && !check.is_asked(CheckPhase::Answer));
        assert_eq!(
            serde_json::to_value(&check).expect("JSON"),
            json!({"url": "https://guard.example.com:8443/"})
        );
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_named() {
        for (fields, refused) in [
            (
                json!({"url": "http://guard.example.com"}),
                "check.url: must be https (or http on loopback): arguments and answers go there",
            ),
            (
                json!({"url": "https://guard.example.com/x"}),
                "check.url: must be an origin, such as https://guard.example.com:8443",
            ),
            (
                json!({"url": "https://u:p@guard.example.com"}),
                "check.url: must be an origin, such as https://guard.example.com:8443",
            ),
            (json!({"url": "http://127.0.0.1:1", "authorities": "x"}), "check.authorities: go with https"),
            (
                json!({"url": "https://g", "authorities": "x"}),
                "check.authorities: holds no certificate; PEM is expected",
            ),
            (
                json!({"url": "https://g", "phases": []}),
                "check.phases: is empty; give `request`, `answer` or both, or leave the check out",
            ),
            (json!({"url": "https://g", "timeout_ms": 0}), "check.timeout_ms: must be from 1 to 30000"),
            (json!({"url": "https://g", "concurrency": 1025}), "check.concurrency: must be from 1 to 1024"),
            (
                json!({"url": "https://g", "max_answer_bytes": 4_194_305}),
                "check.max_answer_bytes: must be from 1 to 4194304",
            ),
        ] {
            let error = read(fields.clone()).check("check").expect_err("it is refused").to_string();
            assert_eq!(error, refused, "{fields}");
        }
    }
}
