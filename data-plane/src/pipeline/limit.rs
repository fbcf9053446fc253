//! Limit: whether the call's budgets allow it now.
//!
//! Always holds: only calls of tools are counted, each at most once per limit; one that waits for an approval is counted
//! when it has it, and not whenever it is made again. It takes from all limits that concern it or from none: what it took is
//! given back when a later limit refuses, and when it is not sent on, whatever stops it.

use super::approve::{Approved, Pass};
use super::discover::Subject;
use super::{Caller, Received};
use crate::budget::Held;
use crate::limiter::Usage;
use crate::node::Node;
use crate::rejection::Rejection;

/// Proof that the budgets allow the call. Only this stage builds it.
pub(super) struct Admitted {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) pass: Pass,
    pub(super) budget: Budget,
    _private: (),
}

/// What a call took; it is given back when this is dropped before the call is made.
#[derive(Default)]
pub(super) struct Budget(Vec<Held>);

impl Budget {
    /// The call is made.
    pub(super) fn spend(mut self) {
        self.0.iter_mut().for_each(Held::spend);
    }
}

/// A call that another node counted when it received it.
pub(super) fn counted(approved: Approved) -> Admitted {
    admit(approved, Budget::default())
}

pub(super) async fn limit(node: &Node, approved: Approved) -> Result<Admitted, Rejection> {
    let mut budget = Budget::default();
    if let Subject::Tool(access) = &approved.subject
        && !approved.caller.tenant.limiters.is_empty()
    {
        let caller = &approved.caller;
        let user = caller.user().map(ToString::to_string).unwrap_or_default();
        let usage = Usage {
            agent: caller.agent.name.as_str(),
            user: &user,
            server: access.server.name.as_str(),
            tool: &access.tool.name,
        };
        for limiter in &caller.tenant.limiters {
            let taken = limiter.take(&node.budgets, usage).await;
            let refused = |retry_after| Rejection::Limited { limit: limiter.name.clone(), retry_after };
            budget.0.extend(taken.map_err(refused)?);
        }
    }
    Ok(admit(approved, budget))
}

fn admit(approved: Approved, budget: Budget) -> Admitted {
    let Approved { caller, received, subject, pass, .. } = approved;
    Admitted { caller, received, subject, pass, budget, _private: () }
}
