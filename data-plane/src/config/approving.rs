//! What is needed of a tenant to have its calls approved: which policies may be satisfied so, as of when, and for how long
//! calls wait.
//!
//! Always holds: it grants nothing. An approval is bound to the change of a policy that is told here, and the control plane
//! refuses it when that is not the last one.

use std::collections::HashMap;
use std::time::Duration;

use gantry_model::resource::{APPROVAL_HOLD_SECONDS_DEFAULT, PolicySpec};
use gantry_model::{Name, PolicyName, Revision};

/// The approvals of a tenant.
pub(crate) struct Approving {
    policies: HashMap<PolicyName, Revision>,
    /// For how long a call is held that waits for one.
    pub(crate) hold: Duration,
}

impl Default for Approving {
    fn default() -> Approving {
        let hold = Duration::from_secs(APPROVAL_HOLD_SECONDS_DEFAULT.into());
        Approving { policies: HashMap::new(), hold }
    }
}

impl Approving {
    /// Notes a policy, where what it forbids may be approved.
    pub(super) fn add(&mut self, name: Name, spec: &PolicySpec, revision: Revision) {
        if spec.approval.is_some() {
            self.policies.insert(name.into(), revision);
        }
    }

    /// Notes what the tenant says of it.
    pub(super) fn set_hold(&mut self, seconds: Option<u32>) {
        if let Some(seconds) = seconds {
            self.hold = Duration::from_secs(seconds.into());
        }
    }

    /// Whether any call may have to wait.
    pub(crate) fn is_used(&self) -> bool {
        !self.policies.is_empty()
    }

    /// The last change of a policy; `None`: it may not be satisfied so, or came ahead of its update.
    pub(crate) fn revision(&self, policy: &PolicyName) -> Option<Revision> {
        self.policies.get(policy).copied()
    }
}
