//! What the policies say about one request, and which of them said it.
//!
//! Always holds: a verdict is not [`Verdict::Deny`] only where something permits and nothing failed. [`Verdict::RequireApproval`]
//! is no permission: whoever knows no approvals denies.

use std::fmt;
use std::sync::Arc;

use gantry_model::PolicyName;

/// Most reasons, and most failures, that a decision carries: it goes into an audit record, and those beyond say no more.
pub const REASONS_MAX: usize = 16;

/// Allowed or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// A `permit` applies and no `forbid` does.
    Allow,
    /// A `permit` applies, and what forbids it are only policies that an approval satisfies.
    RequireApproval,
    /// Anything else.
    Deny,
}

/// One statement of one policy. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reason {
    /// The policy resource.
    pub policy: PolicyName,
    /// The statement's place in the policy's text, from 0.
    pub index: u32,
    /// The statement's `@id`.
    pub id: Option<Arc<str>>,
}

/// A statement that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Failure {
    /// The statement; `None` when the request itself could not be put to the policies.
    pub statement: Option<Reason>,
    /// What went wrong, for the policy's author.
    pub message: String,
}

/// A verdict with what it follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Allowed or not.
    pub verdict: Verdict,
    /// The statements that decided, in order: the permits of an `Allow`, the forbids of the others. Empty when nothing
    /// permits, and when only failures deny. At most [`REASONS_MAX`].
    pub reasons: Vec<Reason>,
    /// The statements that failed, in order; any of them denies. At most [`REASONS_MAX`].
    pub failures: Vec<Failure>,
}

/// What can be said of an agent and a target before there is a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Every call gets this decision.
    Settled(Decision),
    /// Every call is denied; which statements say so is known when there is one.
    Refused,
    /// It depends on the call.
    Open,
}

impl Standing {
    /// Whether a list shows the target: not where every call of it is denied.
    pub fn is_shown(&self) -> bool {
        match self {
            Standing::Settled(decision) => decision.verdict != Verdict::Deny,
            Standing::Refused => false,
            Standing::Open => true,
        }
    }
}

impl Decision {
    /// Whether nobody's approval would let it through.
    pub fn is_deny(&self) -> bool {
        self.verdict == Verdict::Deny
    }

    /// Whether the verdict is [`Verdict::Allow`].
    pub fn is_allow(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// What two sets of policies allow that both have to allow, neither of which denies; approvals are needed for what either
    /// wants approved.
    pub fn and(self, other: Decision) -> Decision {
        match (self.verdict, other.verdict) {
            (Verdict::Deny, _) | (Verdict::RequireApproval, Verdict::Allow) => self,
            (_, Verdict::Deny) | (Verdict::Allow, _) => other,
            (Verdict::RequireApproval, Verdict::RequireApproval) => {
                let reasons = self.reasons.into_iter().chain(other.reasons).collect();
                Decision::of_approvals(reasons, Vec::new())
            }
        }
    }

    /// What needs the approvals that these statements ask for. None of their policies may be left out, so more of them than
    /// can be told deny.
    pub(crate) fn of_approvals(mut reasons: Vec<Reason>, mut failures: Vec<Failure>) -> Decision {
        reasons.sort();
        reasons.dedup();
        if reasons.len() > REASONS_MAX {
            reasons.dedup_by(|next, kept| next.policy == kept.policy);
        }
        if reasons.len() > REASONS_MAX {
            let message = format!("more than {REASONS_MAX} policies want approvals of one call");
            failures.push(Failure { statement: None, message });
        }
        Decision::new(Verdict::RequireApproval, reasons, failures)
    }

    /// Puts what was found in order. Any failure makes it a denial, and `reasons` then are what decided only where they
    /// denied by themselves.
    pub(crate) fn new(said: Verdict, mut reasons: Vec<Reason>, mut failures: Vec<Failure>) -> Decision {
        let is_denied = !failures.is_empty() || reasons.is_empty();
        let verdict = if is_denied { Verdict::Deny } else { said };
        if verdict != said {
            reasons.clear();
        }
        reasons.sort();
        reasons.truncate(REASONS_MAX);
        failures.sort();
        failures.truncate(REASONS_MAX);
        Decision { verdict, reasons, failures }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Verdict::Allow => "allow",
            Verdict::RequireApproval => "require approval",
            Verdict::Deny => "deny",
        })
    }
}

impl fmt::Display for Reason {
    /// `policy/id`, or `policy[index]` for a statement without an `@id`.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.id {
            Some(id) => write!(formatter, "{}/{id}", self.policy),
            None => write!(formatter, "{}[{}]", self.policy, self.index),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.statement {
            Some(statement) => write!(formatter, "{statement}: {}", self.message),
            None => formatter.write_str(&self.message),
        }
    }
}
