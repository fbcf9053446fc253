//! Limits of a tenant: which concern a call, and by what key.
//!
//! Always holds: a key is a hash of the tenant, the limit as it is specified, and what it counts by; so a limit that is
//! specified otherwise counts anew, and nobody's names can be made to meet another's. What is counted, and where, is
//! [`crate::budget`]'s.

use std::time::Duration;

use gantry_limits::Key;
use gantry_limits::limit::{Limit, OnOwnerLoss};
use gantry_model::resource::{LimitKeyPart, LimitSpec};
use gantry_model::{LimitName, TenantName};

use crate::budget::{Budgets, Held};

/// One limit.
pub(crate) struct Limiter {
    pub(crate) name: LimitName,
    spec: LimitSpec,
    limit: Limit,
    /// Of the tenant and the limit.
    hasher: blake3::Hasher,
}

/// What a call counts against.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage<'a> {
    pub(crate) agent: &'a str,
    /// For whom it acts; empty: for nobody.
    pub(crate) user: &'a str,
    pub(crate) server: &'a str,
    pub(crate) tool: &'a str,
}

impl Limiter {
    /// A tenant's limit; `None` when it has a number that the control plane refuses.
    pub(crate) fn new(tenant: &TenantName, name: LimitName, spec: LimitSpec) -> Option<Limiter> {
        let limit = Limit::new(spec.calls, spec.window_seconds, spec.burst_calls(), OnOwnerLoss::Floor)?;
        let mut hasher = blake3::Hasher::new();
        part(&mut hasher, tenant.as_str());
        part(&mut hasher, name.as_str());
        // Which of them it is specified to count by, and whom it concerns.
        part(&mut hasher, &format!("{spec:?}"));
        Some(Limiter { name, spec, limit, hasher })
    }

    /// Takes one call from the budget; nothing when the limit does not concern it. On refusal, how long until one may be
    /// there.
    pub(crate) async fn take(&self, budgets: &Budgets, usage: Usage<'_>) -> Result<Option<Held>, Duration> {
        if !self.concerns(usage) {
            return Ok(None);
        }
        budgets.take(self.key(usage), self.limit).await.map(Some)
    }

    fn concerns(&self, usage: Usage<'_>) -> bool {
        let is = |wanted: Option<&str>, actual: &str| wanted.is_none_or(|wanted| wanted == actual);
        is(self.spec.agent.as_ref().map(AsRef::as_ref), usage.agent)
            && is(self.spec.server.as_ref().map(AsRef::as_ref), usage.server)
            && is(self.spec.tool.as_ref().map(AsRef::as_ref), usage.tool)
    }

    fn key(&self, usage: Usage<'_>) -> Key {
        let mut hasher = self.hasher.clone();
        for counted in &self.spec.per {
            part(
                &mut hasher,
                match counted {
                    LimitKeyPart::Agent => usage.agent,
                    LimitKeyPart::Server => usage.server,
                    LimitKeyPart::Tool => usage.tool,
                    LimitKeyPart::User => usage.user,
                },
            );
        }
        let mut key = [0; 16];
        key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
        Key(key)
    }
}

/// With its length, so that no two lists of parts are the same bytes.
fn part(hasher: &mut blake3::Hasher, part: &str) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part.as_bytes());
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::mesh::Mesh;

    fn limiter(per: Vec<LimitKeyPart>, calls: u32, burst: Option<u32>) -> Limiter {
        let spec = LimitSpec { per, calls, window_seconds: 60, burst, agent: None, server: None, tool: None };
        of(spec)
    }

    fn of(spec: LimitSpec) -> Limiter {
        let (tenant, name) = ("t".parse().expect("a name"), "l".parse().expect("a name"));
        Limiter::new(&tenant, name, spec).expect("a limit")
    }

    fn budgets() -> Budgets {
        Budgets::new(Arc::new(Mesh::alone("n").0))
    }

    const BOT: Usage<'static> = Usage { agent: "bot", user: "", server: "files", tool: "read" };

    async fn spend(limiter: &Limiter, budgets: &Budgets, usage: Usage<'_>) -> Result<(), Duration> {
        if let Some(mut held) = limiter.take(budgets, usage).await? {
            held.spend();
        }
        Ok(())
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_allowed_and_then_the_rate_rules() {
        let (limiter, budgets) = (limiter(vec![LimitKeyPart::Agent], 60, Some(2)), budgets());
        assert_eq!(spend(&limiter, &budgets, BOT).await, Ok(()));
        assert_eq!(spend(&limiter, &budgets, Usage { tool: "write", ..BOT }).await, Ok(()));
        let wait = spend(&limiter, &budgets, BOT).await.expect_err("refused");
        assert_eq!(wait, Duration::from_secs(1));
        assert_eq!(spend(&limiter, &budgets, Usage { agent: "eve", ..BOT }).await, Ok(()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(spend(&limiter, &budgets, BOT).await, Ok(()));
        assert!(spend(&limiter, &budgets, BOT).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_on_one_tool_leaves_the_others_alone() {
        let mut spec = limiter(Vec::new(), 1, None).spec;
        spec.tool = "read".parse().ok();
        let (limiter, budgets) = (of(spec), budgets());
        assert_eq!(spend(&limiter, &budgets, BOT).await, Ok(()));
        assert!(spend(&limiter, &budgets, BOT).await.is_err());
        assert_eq!(spend(&limiter, &budgets, Usage { tool: "write", ..BOT }).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_made_gives_back_what_it_took() {
        let (limiter, budgets) = (limiter(Vec::new(), 1, None), budgets());
        drop(limiter.take(&budgets, BOT).await.expect("a call"));
        assert_eq!(spend(&limiter, &budgets, BOT).await, Ok(()));
        assert!(spend(&limiter, &budgets, BOT).await.is_err());
    }
}
