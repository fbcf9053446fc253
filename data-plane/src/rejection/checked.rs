//! What a caller is told of a check by a service of the organisation's own.

use super::code;

/// Why what was asked about does not pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The service says no.
    Denied {
        /// In its words; empty: it gives none.
        reason: String,
    },
    /// It said nothing that counts, and what it says nothing of is refused.
    Failed,
}

impl Checked {
    pub(super) fn outcome(&self) -> &'static str {
        match self {
            Checked::Denied { .. } => "denied",
            Checked::Failed => "upstream_failed",
        }
    }

    pub(super) fn code(&self) -> i32 {
        match self {
            Checked::Denied { .. } => code::INSPECTED,
            Checked::Failed => code::NOT_READY,
        }
    }

    pub(super) fn message(&self, what: &str, is_answer: bool) -> String {
        let of = if is_answer { "the answer of" } else { "the call of" };
        match self {
            Checked::Denied { reason } if reason.is_empty() => {
                format!("{of} {what:?} does not pass a check of your organisation")
            }
            Checked::Denied { reason } => {
                format!("{of} {what:?} does not pass a check of your organisation: {reason}")
            }
            Checked::Failed => format!("{of} {what:?} could not be checked; try again in a moment"),
        }
    }
}
