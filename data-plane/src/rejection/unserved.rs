//! Why a node serves nobody, or nobody of a tenant, whatever is asked.

use gantry_model::BanTarget;
use http::StatusCode;

use crate::rejection::code;

/// The word for what an admin stopped, in records and answers.
pub(crate) const REVOKED: &str = "revoked";

/// Why nothing is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The node found no control plane since it started, and nothing that it served before.
    NoConfiguration,
    /// No control plane was heard for longer than the tenant allows.
    Stale,
    /// An admin stopped whoever asks, or what is asked.
    Revoked(BanTarget),
}

impl Unserved {
    /// The word for it in records and in `error.data.rejection`.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Unserved::NoConfiguration => "not_ready",
            Unserved::Stale => "stale",
            Unserved::Revoked(_) => REVOKED,
        }
    }

    /// One server that is stopped is a failure of the call, as the others of servers are. A session that is over is not
    /// found: by that clients know that they are to begin another (MCP 2025-11-25, transports, session management).
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Unserved::NoConfiguration | Unserved::Stale => StatusCode::SERVICE_UNAVAILABLE,
            Unserved::Revoked(BanTarget::Server(_)) => StatusCode::OK,
            Unserved::Revoked(BanTarget::Session(_)) => StatusCode::NOT_FOUND,
            Unserved::Revoked(_) => StatusCode::FORBIDDEN,
        }
    }

    pub(super) fn code(&self) -> i32 {
        match self {
            Unserved::NoConfiguration => code::NOT_READY,
            Unserved::Stale => code::STALE,
            Unserved::Revoked(_) => code::REVOKED,
        }
    }

    pub(super) fn message(&self) -> String {
        let message = match self {
            Unserved::Revoked(target) => return revoked(target),
            Unserved::NoConfiguration => {
                "this node has no configuration yet; try again in a moment, or at another node"
            }
            Unserved::Stale => {
                "this node has heard from no control plane for longer than the tenant allows; try again later, or at \
                 another node"
            }
        };
        message.to_owned()
    }
}

/// Why an admin did it is told to admins only.
pub(crate) fn revoked(target: &BanTarget) -> String {
    match target {
        BanTarget::Agent(agent) => format!("agent {:?} is revoked", agent.as_str()),
        BanTarget::User(_) => "the user is revoked".to_owned(),
        BanTarget::Key(_) => "the agent key is revoked".to_owned(),
        BanTarget::Session(_) => "the session is revoked; another may be begun".to_owned(),
        BanTarget::Server(server) => {
            format!("server {:?} is revoked: nothing is sent to it", server.as_str())
        }
        BanTarget::Tenant => "the tenant is revoked".to_owned(),
    }
}
