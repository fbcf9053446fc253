//! Approvals: calls that wait until admins let them through, each once.
//!
//! Always holds: an approval is of one call, exactly: who makes it, of which tool as it is defined, with which arguments,
//! and which policies demand it as of which of their changes. A denial is final; a vote counts once for an admin; what was
//! used is used. Whether the policies still say so, the holder of the state knows (`control-plane/state`). What puts a
//! definition of a pinned server in force is another thing ([`crate::catalog`]).

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::key::{KeyFormatError, KeyId};
use crate::name::{AgentName, Name, PolicyName, ServerName, TenantName, ToolName};
use crate::resource::{ApprovalSpec, UserId};
use crate::revision::Revision;

/// Longest arguments as they are shown to an approver, in bytes of JSON: what a record of the audit holds of them, and what
/// stands in the place of others.
pub const ARGUMENTS_SHOWN_BYTES_MAX: usize = 9 * 1024;
/// Most policies that may demand approvals of one call: as many as a decision names.
pub const APPROVAL_POLICIES_MAX: usize = 16;
/// Most votes on one request: far more than its policies can ask.
pub const VOTES_MAX: usize = 64;

/// Names an approval, and gives nobody a right to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApprovalId(pub [u8; 8]);

/// The one call of a tool that an approval is of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalCall {
    /// Whose.
    pub tenant: TenantName,
    /// Who calls.
    pub agent: AgentName,
    /// For whom.
    pub user: Option<UserId>,
    /// Whose tool.
    pub server: ServerName,
    /// The tool, as its server names it.
    pub tool: ToolName,
    /// SHA-256 of the arguments in their canonical form.
    pub arguments_hash: [u8; 32],
    /// Of the tool's definition.
    pub definition_hash: [u8; 32],
    /// What demands the approval; by name, each once, at least one.
    pub policies: Vec<ApprovalPolicy>,
}

/// A policy as of its last change.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ApprovalPolicy {
    /// The policy.
    pub name: PolicyName,
    /// The revision of that change.
    pub revision: Revision,
}

/// A call that needs an approval, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalRequest {
    /// What it is found by.
    pub id: ApprovalId,
    /// What it is of.
    pub call: ApprovalCall,
    /// The arguments as JSON, redacted.
    pub arguments: String,
    /// What each policy of the call demands, in their order.
    pub demands: Vec<ApprovalSpec>,
    /// When the call was made first, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// From when on it lets nothing through, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// What admins said, in their order.
    pub votes: Vec<Vote>,
    /// Which call used it.
    pub used: Option<Use>,
}

/// What an admin said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vote {
    /// Who.
    pub by: Name,
    /// Yes or no.
    pub approves: bool,
    /// Why, in his words, at most [`REASON_BYTES_MAX`](crate::ban::REASON_BYTES_MAX); may be empty.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// The one call that used an approval up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Use {
    /// Random; by it the same call is known when it asks again.
    pub taker: [u8; 16],
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApprovalState {
    /// Admins may approve or deny it.
    Pending,
    /// All demands are met, and the call may be made, once.
    Approved,
    /// An admin said no.
    Denied,
    /// The call was made.
    Used,
    /// Nobody decided, or made the call, in time.
    Expired,
}

impl ApprovalRequest {
    /// How far it is at a time.
    pub fn state(&self, now_ms: u64) -> ApprovalState {
        if self.used.is_some() {
            ApprovalState::Used
        } else if self.expires_at_ms <= now_ms {
            ApprovalState::Expired
        } else if self.votes.iter().any(|vote| !vote.approves) {
            ApprovalState::Denied
        } else if self.demands.iter().all(|demand| self.meets(demand)) {
            ApprovalState::Approved
        } else {
            ApprovalState::Pending
        }
    }

    fn meets(&self, demand: &ApprovalSpec) -> bool {
        let approving = self.approvers().into_iter().filter(|by| demand.counts(by)).count();
        // INVARIANT: a demand is of at least one.
        approving >= usize::try_from(demand.approvals.max(1)).unwrap_or(usize::MAX)
    }

    /// Who approved, each once.
    pub fn approvers(&self) -> BTreeSet<&Name> {
        self.votes.iter().filter(|vote| vote.approves).map(|vote| &vote.by).collect()
    }

    /// Whether the word of an admin counts for any of the demands.
    pub fn asks(&self, admin: &Name) -> bool {
        self.demands.iter().any(|demand| demand.counts(admin))
    }
}

impl ApprovalState {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            ApprovalState::Pending => "pending",
            ApprovalState::Approved => "approved",
            ApprovalState::Denied => "denied",
            ApprovalState::Used => "used",
            ApprovalState::Expired => "expired",
        }
    }
}

impl FromStr for ApprovalId {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<ApprovalId, KeyFormatError> {
        text.parse::<KeyId>().map(|id| ApprovalId(id.0))
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        KeyId(self.0).fmt(formatter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(demands: &[(u32, &[&str])], votes: &[(&str, bool)]) -> ApprovalRequest {
        let name = |text: &str| text.parse::<Name>().expect("a name");
        let demand = |(approvals, approvers): &(u32, &[&str])| ApprovalSpec {
            approvals: *approvals,
            approvers: approvers.iter().map(|text| name(text)).collect(),
            expires_seconds: 60,
        };
        let vote = |(by, approves): &(&str, bool)| Vote {
            by: name(by),
            approves: *approves,
            reason: String::new(),
            at_ms: 1,
        };
        ApprovalRequest {
            id: ApprovalId([1; 8]),
            call: ApprovalCall {
                tenant: name("acme").into(),
                agent: name("bot").into(),
                user: None,
                server: name("files").into(),
                tool: "delete".parse().expect("a name"),
                arguments_hash: [0; 32],
                definition_hash: [0; 32],
                policies: Vec::new(),
            },
            arguments: "{}".to_owned(),
            demands: demands.iter().map(demand).collect(),
            created_at_ms: 0,
            expires_at_ms: 100,
            votes: votes.iter().map(vote).collect(),
            used: None,
        }
    }

    #[test]
    fn all_demands_are_met_by_as_many_different_approvers_as_each_asks() {
        use ApprovalState::{Approved, Denied, Pending};
        let (any, two, named): (_, _, (u32, &[&str])) = ((1, &[][..]), (2, &[][..]), (1, &["ann", "bob"]));
        for (demands, votes, expected) in [
            (&[any][..], &[][..], Pending),
            (&[any], &[("ann", true)], Approved),
            (&[two], &[("ann", true)], Pending),
            (&[two], &[("ann", true), ("ann", true)], Pending),
            (&[two], &[("ann", true), ("cid", true)], Approved),
            (&[two, named], &[("cid", true), ("dan", true)], Pending),
            (&[two, named], &[("cid", true), ("bob", true)], Approved),
            (&[any], &[("ann", true), ("bob", false)], Denied),
        ] {
            assert_eq!(request(demands, votes).state(50), expected, "{demands:?} {votes:?}");
        }
    }

    #[test]
    fn what_is_late_or_used_lets_nothing_through() {
        let mut approved = request(&[(1, &[])], &[("ann", true)]);
        assert_eq!(approved.state(99), ApprovalState::Approved);
        assert_eq!(approved.state(100), ApprovalState::Expired);
        approved.used = Some(Use { taker: [7; 16], at_ms: 60 });
        assert_eq!(approved.state(70), ApprovalState::Used);
        assert_eq!(approved.state(700), ApprovalState::Used);
    }
}
