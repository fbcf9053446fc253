//! What a policy says that does not forbid for good: whose approval lets a call through.
//!
//! Always holds: at least one approval is asked, and no more than there are approvers. It does not say who may approve at
//! all; roles of admins do (`control-plane/src/access`).

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::check::error;
use crate::name::Name;

/// Seconds in which a call is to be approved and made, where a policy says nothing: a person has to be found.
pub const APPROVAL_EXPIRES_SECONDS_DEFAULT: u32 = 900;
/// Least such time: shorter, and nobody could read what is asked.
const EXPIRES_SECONDS_MIN: u32 = 10;
/// Most such time: a week, beyond which what was looked at is not what is there.
const EXPIRES_SECONDS_MAX: u32 = 604_800;
/// Most approvals of one call.
pub const APPROVALS_MAX: u32 = 8;
/// Most approvers that are named: they are part of every request that waits.
pub const APPROVERS_MAX: usize = 32;
/// For how long a call is held where its tenant says nothing: below the minute for which clients commonly wait.
pub const APPROVAL_HOLD_SECONDS_DEFAULT: u32 = 50;
/// Longest hold in seconds: proxies on the way drop what is silent for longer.
pub const APPROVAL_HOLD_SECONDS_MAX: u32 = 300;

/// Whose approval lets a call through that a policy forbids.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApprovalSpec {
    /// How many different admins have to approve: 1 to [`APPROVALS_MAX`].
    pub approvals: u32,
    /// Names of the admins whose word counts; empty: everybody who may approve in the tenant.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub approvers: BTreeSet<Name>,
    /// Seconds after which it is too late, from the first time that the call was made.
    pub expires_seconds: u32,
}

impl Default for ApprovalSpec {
    fn default() -> ApprovalSpec {
        ApprovalSpec {
            approvals: 1,
            approvers: BTreeSet::new(),
            expires_seconds: APPROVAL_EXPIRES_SECONDS_DEFAULT,
        }
    }
}

impl ApprovalSpec {
    /// Whether the word of an admin counts.
    pub fn counts(&self, admin: &Name) -> bool {
        self.approvers.is_empty() || self.approvers.contains(admin)
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        let enough = usize::try_from(self.approvals).is_ok_and(|approvals| approvals <= self.approvers.len());
        if !(1..=APPROVALS_MAX).contains(&self.approvals) {
            Err(error("approval.approvals", format!("must be from 1 to {APPROVALS_MAX}")))
        } else if self.approvers.len() > APPROVERS_MAX {
            Err(error("approval.approvers", format!("has more than {APPROVERS_MAX} elements")))
        } else if !self.approvers.is_empty() && !enough {
            Err(error("approval.approvers", "are fewer than `approvals` asks, so nothing could be approved"))
        } else if !(EXPIRES_SECONDS_MIN..=EXPIRES_SECONDS_MAX).contains(&self.expires_seconds) {
            let range = format!("must be from {EXPIRES_SECONDS_MIN} to {EXPIRES_SECONDS_MAX}");
            Err(error("approval.expires_seconds", range))
        } else {
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_could_meet_is_refused_with_its_place() {
        let spec =
            |json: serde_json::Value| -> ApprovalSpec { serde_json::from_value(json).expect("a spec") };
        let refused = |json| spec(json).check().err().map(|error| error.path.into_owned());
        use serde_json::json;
        assert_eq!(refused(json!({})), None);
        assert_eq!(refused(json!({"approvals": 2, "approvers": ["ann", "bob"]})), None);
        let path = |field: &str| Some(format!("approval.{field}"));
        assert_eq!(refused(json!({"approvals": 0})), path("approvals"));
        assert_eq!(refused(json!({"approvals": APPROVALS_MAX + 1})), path("approvals"));
        assert_eq!(refused(json!({"approvals": 2, "approvers": ["ann"]})), path("approvers"));
        assert_eq!(refused(json!({"expires_seconds": 9})), path("expires_seconds"));
        assert_eq!(refused(json!({"expires_seconds": 604_801})), path("expires_seconds"));
    }
}
