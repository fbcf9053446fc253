//! From a policy's text to its statements, in Cedar's form.
//!
//! Always holds: a text that parses here is within its bounds, has no template, and its statements are in the order
//! of the text, each with a usable `@id` or none. Checking and compiling both begin here, so what one accepts the
//! other does not refuse for its form. It knows neither schema nor catalog.

use std::collections::HashSet;

use cedar_policy::ffi::DetailedError;
use gantry_model::resource::{POLICY_BYTES_MAX, PolicySpec};

use crate::problem::{Problem, shorten};
use crate::source::{Excess, NESTING_MAX, OPERATORS_MAX, Source};

/// Most problems that are told of one text: a reader mends the first and asks again.
pub(crate) const PROBLEMS_MAX: usize = 32;
/// The action of calling a tool.
const TOOLS_CALL: &str = "tools/call";
/// Longest `@id`, in bytes: it goes into every audit record that the statement decides.
pub const STATEMENT_ID_BYTES_MAX: usize = 64;

/// The text of a policy, and what it is to be read as. A text alone is enforced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyText<'a> {
    /// The text.
    pub cedar: &'a str,
    /// Whether what it forbids may be approved.
    pub is_approvable: bool,
}

impl<'a> From<&'a str> for PolicyText<'a> {
    fn from(cedar: &'a str) -> PolicyText<'a> {
        PolicyText { cedar, is_approvable: false }
    }
}

impl<'a> From<&'a String> for PolicyText<'a> {
    fn from(cedar: &'a String) -> PolicyText<'a> {
        cedar.as_str().into()
    }
}

impl<'a> From<&'a PolicySpec> for PolicyText<'a> {
    fn from(spec: &'a PolicySpec) -> PolicyText<'a> {
        PolicyText { cedar: &spec.cedar, is_approvable: spec.approval.is_some() }
    }
}

/// One `permit` or `forbid`.
#[derive(Debug)]
pub(crate) struct Statement {
    pub(crate) policy: cedar_policy::Policy,
    pub(crate) index: u32,
}

/// A parsed text.
pub(crate) struct Parsed<'a> {
    pub(crate) source: Source<'a>,
    pub(crate) statements: Vec<Statement>,
}

/// Parses a text, or tells what is wrong with its form.
pub(crate) fn parse(text: PolicyText<'_>) -> Result<Parsed<'_>, Vec<Problem>> {
    let parsed = parse_cedar(text.cedar)?;
    let problems = if text.is_approvable { approval_problems(text.cedar, &parsed) } else { Vec::new() };
    if problems.is_empty() { Ok(parsed) } else { Err(problems) }
}

fn parse_cedar(text: &str) -> Result<Parsed<'_>, Vec<Problem>> {
    if text.len() > POLICY_BYTES_MAX {
        let message = format!("the text has {} bytes, more than {POLICY_BYTES_MAX}", text.len());
        return Err(vec![Problem::of_text(message, Some("put some of it into another policy"))]);
    }
    let source = Source::scan(text);
    if let Some(excess) = source.excess {
        return Err(vec![excess_problem(text, excess)]);
    }
    let set: cedar_policy::PolicySet = match text.parse() {
        Ok(set) => set,
        Err(errors) => {
            let errors = &errors as &cedar_policy::ParseErrors;
            let told = errors.iter().take(PROBLEMS_MAX);
            return Err(told.map(|error| Problem::from_cedar(text, &DetailedError::from(error))).collect());
        }
    };
    if set.num_of_templates() > 0 {
        return Err(template_problems(text, &source));
    }
    let mut statements: Vec<Statement> = (0..).zip(set.policies()).map(statement).collect();
    statements.sort_by_key(|statement| statement.index);
    let problems = id_problems(text, &source, &statements);
    if problems.is_empty() { Ok(Parsed { source, statements }) } else { Err(problems) }
}

/// Cedar names the statements of a text `policy0`, `policy1`, and so on.
fn statement((position, policy): (u32, &cedar_policy::Policy)) -> Statement {
    let id: &str = policy.id().as_ref();
    let index = id.strip_prefix("policy").and_then(|digits| digits.parse().ok()).unwrap_or(position);
    Statement { policy: policy.clone(), index }
}

fn excess_problem(text: &str, excess: Excess) -> Problem {
    match excess {
        Excess::Nesting { offset } => Problem::at(
            text,
            offset,
            format!("brackets and `if` nest deeper than {NESTING_MAX}"),
            "write several statements: a request is permitted when one of them permits it".to_owned(),
        ),
        Excess::Operators { offset } => Problem::at(
            text,
            offset,
            format!("the statement has more than {OPERATORS_MAX} operators"),
            "write several statements, or a set: `[...].contains(resource.name)`".to_owned(),
        ),
    }
}

fn template_problems(text: &str, source: &Source<'_>) -> Vec<Problem> {
    let message = "a template is not a policy: nothing here fills its slot";
    let help = "name an entity, such as Agent::\"name\"";
    if source.slots.is_empty() {
        return vec![Problem::of_text(message, Some(help))];
    }
    let slots = source.slots.iter().take(PROBLEMS_MAX);
    slots.map(|offset| Problem::at(text, *offset, message, help.to_owned())).collect()
}

/// What may be approved is forbidden until then, and is a call of a tool: its arguments are what an approval is bound to.
fn approval_problems(text: &str, parsed: &Parsed<'_>) -> Vec<Problem> {
    let problem = |(at, statement): (usize, &Statement)| {
        let (message, help) = if statement.policy.effect() == cedar_policy::Effect::Permit {
            let message =
                "a policy with `approval` says what is forbidden until it is approved, and this permits";
            (message, "write `forbid`, and put what permits into another policy")
        } else if !calls_tools_only(&statement.policy) {
            let message =
                "only calls of tools can be approved, and this statement concerns other requests too";
            (message, "write `action == Action::\"tools/call\"` in its scope")
        } else {
            return None;
        };
        Some(match parsed.source.effects.get(at) {
            Some(offset) => Problem::at(text, *offset, message, help.to_owned()),
            None => Problem::of_text(message, Some(help)),
        })
    };
    parsed.statements.iter().enumerate().filter_map(problem).take(PROBLEMS_MAX).collect()
}

fn calls_tools_only(policy: &cedar_policy::Policy) -> bool {
    match policy.action_constraint() {
        cedar_policy::ActionConstraint::Eq(action) => action.id().unescaped() == TOOLS_CALL,
        cedar_policy::ActionConstraint::Any | cedar_policy::ActionConstraint::In(_) => false,
    }
}

fn id_problems(text: &str, source: &Source<'_>, statements: &[Statement]) -> Vec<Problem> {
    // Cedar refuses two `@id` on one statement, so those of the text and those of the statements run in step.
    let ids = statements.iter().filter_map(|statement| statement.policy.annotation("id"));
    let mut seen = HashSet::new();
    let problem = |(id, offset): (&str, &usize)| {
        let message = if id.is_empty() || id.len() > STATEMENT_ID_BYTES_MAX || id.contains(char::is_control) {
            format!("an @id has 1 to {STATEMENT_ID_BYTES_MAX} bytes and no control characters")
        } else if seen.insert(id.to_owned()) {
            return None;
        } else {
            format!("the @id {:?} stands on two statements", shorten(id))
        };
        Some(Problem::at(text, *offset, message, None))
    };
    ids.zip(&source.ids).filter_map(problem).take(PROBLEMS_MAX).collect()
}
