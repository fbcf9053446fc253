//! Limit: whether the call's budgets allow it now.
//!
//! Always holds: only calls of tools are counted, each at most once per limit. When a later limit refuses, what an
//! earlier one took is not given back in this release.

use super::approve::Demanded;
use super::discover::Subject;
use super::inspect::Inspected;
use super::{Caller, Received};
use crate::limiter::Usage;
use crate::rejection::Rejection;

/// Proof that the budgets allow the call. Only this stage builds it.
pub(super) struct Admitted {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) demanded: Option<Demanded>,
    _private: (),
}

/// A call that another node counted when it received it.
pub(super) fn counted(inspected: Inspected) -> Admitted {
    let Inspected { caller, received, subject, demanded, .. } = inspected;
    Admitted { caller, received, subject, demanded, _private: () }
}

pub(super) fn limit(inspected: Inspected) -> Result<Admitted, Rejection> {
    let Inspected { caller, received, subject, demanded, .. } = inspected;
    if let Subject::Tool(access) = &subject {
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
    Ok(Admitted { caller, received, subject, demanded, _private: () })
}
