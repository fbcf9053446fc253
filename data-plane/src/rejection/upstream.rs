//! The ways that a server fails, as its callers are told.
//!
//! Always holds: no address and no word of the server is told, but its HTTP status.

use std::time::Duration;

use http::StatusCode;

use super::seconds;

/// When to try again a server that has too many calls under way.
const BUSY_PAUSE: Duration = Duration::from_secs(1);

/// How a server failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Upstream {
    /// It cannot be reached.
    Unreachable,
    /// It did not answer within the deadline.
    Timeout(Duration),
    /// It refused the gateway's credential.
    Refused(StatusCode),
    /// It answered with a failure of its own.
    Status(StatusCode),
    /// It answered with what is no MCP.
    Protocol,
    /// It failed before, and is left alone for a while.
    Away {
        /// Until it is tried again.
        retry_after: Duration,
    },
    /// It has as many requests under way as it may have.
    Busy,
}

impl Upstream {
    /// What the caller reads.
    pub(crate) fn message(&self) -> String {
        match self {
            Upstream::Unreachable => "the server cannot be reached".to_owned(),
            Upstream::Timeout(deadline) => {
                format!("the server did not answer within {} ms", deadline.as_millis())
            }
            Upstream::Refused(_) => "the server refused the gateway's credential".to_owned(),
            Upstream::Status(status) => format!("the server answered with HTTP status {}", status.as_u16()),
            Upstream::Protocol => "the server's answer is not MCP".to_owned(),
            Upstream::Away { retry_after } => {
                format!("the server is away; it is tried again in {} s", seconds(*retry_after))
            }
            Upstream::Busy => {
                format!("the server has too many calls under way; try again in {} s", seconds(BUSY_PAUSE))
            }
        }
    }

    /// When a caller may try again, where that is known.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Upstream::Away { retry_after } => Some(*retry_after),
            Upstream::Busy => Some(BUSY_PAUSE),
            Upstream::Unreachable
            | Upstream::Timeout(_)
            | Upstream::Refused(_)
            | Upstream::Status(_)
            | Upstream::Protocol => None,
        }
    }
}
