//! Policies that are evaluated and not enforced: what a call would come to if they were.
//!
//! Always holds: it decides nothing, and a tenant without such policies pays nothing for it. They are evaluated together
//! with those that are enforced, by the same evaluator, so what is found is what enforcing them would make of the call.
//! Lists do not show it.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gantry_model::PolicyName;
use gantry_model::resource::PolicySpec;
use gantry_policy::{Call, CompileError, Decision, PolicySet, Target};

use crate::config::caller::Agent;

/// The policies of a tenant as if all were enforced.
pub(crate) struct Shadow {
    all: Arc<PolicySet>,
    /// Those that are not enforced.
    names: BTreeSet<PolicyName>,
}

impl Shadow {
    /// Those of a tenant; `None` where all are enforced.
    pub(crate) fn of(
        policies: &HashMap<PolicyName, PolicySpec>,
        enforced: &PolicySet,
        before: Option<&Shadow>,
    ) -> Result<Option<Shadow>, CompileError> {
        let names: BTreeSet<PolicyName> =
            policies.iter().filter(|(_, spec)| spec.shadow).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return Ok(None);
        }
        let texts = || policies.iter();
        let all = match before {
            Some(before) if before.all.is_of(texts()) => before.all.clone(),
            Some(before) => Arc::new(before.all.followed_by(texts())?),
            None => Arc::new(enforced.followed_by(texts())?),
        };
        Ok(Some(Shadow { all, names }))
    }

    /// All of them.
    pub(crate) fn policies(&self) -> &PolicySet {
        &self.all
    }

    /// What a call would come to; `None` where what is not enforced says nothing of it. `enforced` is what those of the
    /// tenant's policies say that are.
    pub(crate) fn decide(
        &self,
        enforced: &Decision,
        agent: &Agent,
        target: &Target<'_>,
        call: &Call<'_>,
    ) -> Option<Decision> {
        let would = self.all.decide_call(&agent.principal, target, call);
        let failed = would.failures.iter().filter_map(|failure| failure.statement.as_ref());
        let says = would.reasons.iter().chain(failed).any(|statement| self.names.contains(&statement.policy));
        (says || would.verdict != enforced.verdict).then_some(would)
    }
}
