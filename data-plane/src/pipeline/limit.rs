//! Limit: whether the call's budgets allow it now.
//!
//! Always holds: only calls of tools are counted, each at most once per limit; one that waits for an approval is counted
//! when it has it, and not whenever it is made again. When a later limit refuses, what an earlier one took is not given
//! back in this release.

use super::approve::{Approved, Pass};
use super::discover::Subject;
use super::{Caller, Received};
use crate::limiter::Usage;
use crate::rejection::Rejection;

/// Proof that the budgets allow the call. Only this stage builds it.
pub(super) struct Admitted {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) pass: Pass,
    _private: (),
}

/// A call that another node counted when it received it.
pub(super) fn counted(approved: Approved) -> Admitted {
    let Approved { caller, received, subject, pass, .. } = approved;
    Admitted { caller, received, subject, pass, _private: () }
}

pub(super) fn limit(approved: Approved) -> Result<Admitted, Rejection> {
    if let Subject::Tool(access) = &approved.subject {
        let caller = &approved.caller;
        let user = caller.user().map(ToString::to_string).unwrap_or_default();
        let usage = Usage {
            agent: caller.agent.name.as_str(),
            user: &user,
            server: access.server.name.as_str(),
            tool: &access.tool.name,
        };
        for limiter in &caller.tenant.limiters {
            limiter
                .take(usage)
                .map_err(|retry_after| Rejection::Limited { limit: limiter.name.clone(), retry_after })?;
        }
    }
    Ok(counted(approved))
}
