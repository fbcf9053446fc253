//! What the policies say about one request, and which of them said it.
//!
//! Always holds: a verdict is [`Verdict::Allow`] only with at least one reason and without any failure.

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
    /// The statements that decided, in order: the permits of an `Allow`, the forbids of a `Deny`. Empty when nothing
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
            Standing::Settled(decision) => decision.is_allow(),
            Standing::Refused => false,
            Standing::Open => true,
        }
    }
}

impl Decision {
    /// Whether the verdict is [`Verdict::Allow`].
    pub fn is_allow(&self) -> bool {
        self.verdict == Verdict::Allow
    }

    /// Puts what was found in order and takes the verdict from it.
    pub(crate) fn new(permitted: bool, mut reasons: Vec<Reason>, mut failures: Vec<Failure>) -> Decision {
        let allowed = permitted && failures.is_empty() && !reasons.is_empty();
        let verdict = if allowed { Verdict::Allow } else { Verdict::Deny };
        if permitted && verdict == Verdict::Deny {
            // These are permits, and they did not decide.
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
