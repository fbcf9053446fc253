//! Calls that are not made because nobody has approved them.
//!
//! Always holds: what waits, and what can be tried again, says when; who approves is no concern of the caller's.

use std::time::Duration;

use gantry_model::ApprovalId;
use serde_json::{Value, json};

use super::{code, seconds};

/// When it is worth calling again where nobody has decided: a person reads meanwhile.
const DECISION_WAIT: Duration = Duration::from_secs(15);
/// Where the control plane did not answer.
const CONTROL_PLANE_WAIT: Duration = Duration::from_secs(5);
/// Where what the call is bound to has just changed.
const CHANGE_WAIT: Duration = Duration::from_secs(1);

/// The key of the question that has a client open a URL (2026-07-28, `inputRequests`).
pub(crate) const APPROVAL_QUESTION: &str = "approval";

/// Why a call that needs an approval stops.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Approval {
    /// It waits for admins.
    Pending {
        /// The tool.
        tool: String,
        /// What it is found by.
        id: ApprovalId,
        /// Until nobody can approve it any more.
        expires_in: Duration,
    },
    /// It waits for admins, and the client is sent to a page that says so, and comes back.
    Linked {
        /// As above.
        tool: String,
        /// As above.
        id: ApprovalId,
        /// The page.
        url: String,
        /// What the client brings back.
        state: String,
    },
    /// An admin said no.
    Denied {
        /// The tool.
        tool: String,
        /// As above.
        id: ApprovalId,
    },
    /// Policies, the tool, or what was approved changed or ended while the call waited.
    Changed,
    /// Its client cancelled it, or ended its session.
    Cancelled,
    /// The control plane does not take the request.
    Refused(String),
    /// It does not answer. What it granted, if anything, is used up.
    Unanswered,
}

impl Approval {
    /// The word for it in records and in `error.data.rejection`.
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Approval::Pending { .. } | Approval::Linked { .. } | Approval::Changed => "awaiting_approval",
            Approval::Cancelled => "cancelled",
            Approval::Denied { .. } => "denied",
            Approval::Refused(_) => "limited",
            Approval::Unanswered => "not_ready",
        }
    }

    /// Whether the caller is told to make the very same call again.
    pub(crate) fn may_be_repeated(&self) -> bool {
        match self {
            Approval::Pending { .. }
            | Approval::Linked { .. }
            | Approval::Changed
            | Approval::Refused(_)
            | Approval::Unanswered => true,
            Approval::Denied { .. } | Approval::Cancelled => false,
        }
    }

    pub(super) fn code(&self) -> i32 {
        match self {
            Approval::Pending { .. } | Approval::Linked { .. } | Approval::Changed | Approval::Cancelled => {
                code::APPROVAL
            }
            Approval::Denied { .. } => code::DENIED,
            Approval::Refused(_) => code::LIMITED,
            Approval::Unanswered => code::NOT_READY,
        }
    }

    /// What `error.data` has besides.
    pub(super) fn tell(&self, data: &mut Value) {
        if let Approval::Pending { id, .. } | Approval::Denied { id, .. } = self {
            data["approval"] = json!(id.to_string());
        }
        if let Approval::Pending { expires_in, .. } = self {
            data["expiresInSeconds"] = json!(expires_in.as_secs());
        }
        let wait = match self {
            Approval::Pending { .. } | Approval::Refused(_) => DECISION_WAIT,
            Approval::Changed => CHANGE_WAIT,
            Approval::Unanswered => CONTROL_PLANE_WAIT,
            Approval::Denied { .. } | Approval::Linked { .. } | Approval::Cancelled => return,
        };
        data["retryAfterSeconds"] = json!(seconds(wait));
    }

    pub(super) fn message(&self) -> String {
        match self {
            Approval::Pending { tool, id, expires_in } => format!(
                "{tool:?} needs an approval, which was asked for ({id}) and waits for a person; call again with exactly \
                 the same arguments in {} s: it goes through once when it is approved, within {} s",
                seconds(DECISION_WAIT),
                expires_in.as_secs()
            ),
            Approval::Linked { tool, id, .. } => {
                format!("{tool:?} needs an approval, which was asked for ({id}) and waits for a person")
            }
            Approval::Denied { tool, id } => {
                format!("{tool:?} with these arguments was not approved ({id}); do not call it again")
            }
            Approval::Changed => {
                "what the approval was asked for has changed or ended meanwhile; call again".to_owned()
            }
            Approval::Cancelled => "the call was cancelled while it waited for an approval".to_owned(),
            Approval::Refused(_) => {
                "no more approvals can be asked for now; have those decided that wait, or try again later".to_owned()
            }
            Approval::Unanswered => {
                "the approval that this needs cannot be had while the control plane does not answer; nothing was sent \
                 to the server; call again later"
                    .to_owned()
            }
        }
    }
}

/// The result that has a client open a URL and come back.
pub(super) fn ask_to_open(message: &str, url: &str, state: &str, decision_id: &str) -> Value {
    let params = json!({"mode": "url", "message": message, "url": url});
    json!({
        "resultType": "input_required",
        "inputRequests": {APPROVAL_QUESTION: {"method": "elicitation/create", "params": params}},
        "requestState": state,
        "_meta": {"dev.gantry/decisionId": decision_id},
    })
}
