//! Why a node serves nobody, or nobody of a tenant, whatever is asked.

use crate::rejection::code;

/// Why nothing is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unserved {
    /// The node found no control plane since it started, and nothing that it served before.
    NoConfiguration,
    /// No control plane was heard for longer than the tenant allows.
    Stale,
}

impl Unserved {
    /// The word for it in records and in `error.data.rejection`.
    pub(super) fn outcome(self) -> &'static str {
        match self {
            Unserved::NoConfiguration => "not_ready",
            Unserved::Stale => "stale",
        }
    }

    pub(super) fn code(self) -> i32 {
        match self {
            Unserved::NoConfiguration => code::NOT_READY,
            Unserved::Stale => code::STALE,
        }
    }

    pub(super) fn message(self) -> String {
        let message = match self {
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
