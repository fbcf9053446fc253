//! Checking a policy's text before it is stored: form, types, and whether what it names exists.
//!
//! Always holds: a text without problems compiles ([`crate::PolicySet::compile`]), and no statement of it can fail
//! for a missing attribute or a wrong type, but for an argument that a call gives in another type. It does not hold for
//! ever: servers change what they offer, and a statement that names a tool which went away never matches again, one
//! that reads an argument which went away fails, which denies.

mod typed;

use std::collections::BTreeSet;

use cedar_policy::ffi::DetailedError;
use cedar_policy::{PolicyId, ValidationMode, ValidationResult, ValidationWarning};

use crate::check::typed::Typed;
use crate::known::{Existence, Known};
use crate::problem::{Problem, place, shorten};
use crate::schema::{EntityKind, VALIDATOR};
use crate::source::{Literal, Source};
use crate::statement::{PROBLEMS_MAX, Parsed, PolicyText, parse};

/// Most warnings about one text.
const WARNINGS_MAX: usize = 32;

/// What a check found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checked {
    /// Why the text is refused, in the order of the text; empty when it is not. At most some dozens are told.
    pub problems: Vec<Problem>,
    /// What its author should know.
    pub warnings: Vec<String>,
    /// Statements (`permit` and `forbid`) in the text; 0 when it does not parse.
    pub policy_count: usize,
}

/// Checks a policy's text: its form, its types against [`crate::SCHEMA`], and that the entities it names exist. A
/// statement that reads arguments is checked against those of every tool that its scope covers.
///
/// Resource URIs are not looked up, because templates make more of them than a catalog lists.
pub fn check<'t>(text: impl Into<PolicyText<'t>>, known: &Known<'_>) -> Checked {
    let text = text.into();
    let cedar = text.cedar;
    let parsed = match parse(text) {
        Ok(parsed) => parsed,
        Err(problems) => return Checked { problems, ..Checked::default() },
    };
    let policy_count = parsed.statements.len();
    let (missing, unchecked) = entities(cedar, &parsed, known);
    let typed = Typed::of(&parsed, known);
    let validated = VALIDATOR.validate(&typed.plain, ValidationMode::Strict);
    let mut problems = missing;
    problems.extend(type_problems(cedar, &validated));
    problems.extend(typed.problems(cedar));
    problems.sort();
    problems.dedup();
    let mut warnings = unchecked;
    warnings.extend(typed.warnings());
    if problems.is_empty() {
        warnings.extend(type_warnings(cedar, &validated));
    }
    if policy_count == 0 {
        warnings.push("there is no `permit` and no `forbid` in the text".to_owned());
    }
    if problems.len() > PROBLEMS_MAX {
        problems.truncate(PROBLEMS_MAX);
        problems.push(Problem::of_text("there are more problems", None));
    }
    warnings.truncate(WARNINGS_MAX);
    Checked { problems, warnings, policy_count }
}

/// Problems with entities that do not exist, and warnings about those that cannot be looked up.
fn entities(cedar: &str, parsed: &Parsed<'_>, known: &Known<'_>) -> (Vec<Problem>, Vec<String>) {
    let mut problems = Vec::new();
    let mut warnings = BTreeSet::new();
    let policies = parsed.statements.iter().map(|statement| &statement.policy);
    let uids: BTreeSet<_> = policies.flat_map(cedar_policy::Policy::entity_literals).collect();
    for uid in uids {
        // Bounds the search for nearest names, which is dear; what is left out here is told at the next check.
        if problems.len() > PROBLEMS_MAX {
            break;
        }
        let Some(kind) = EntityKind::from_name(&uid.type_name().to_string()) else { continue };
        let id = uid.id().unescaped();
        match known.existence(kind, id) {
            Existence::Exists => {}
            Existence::Unchecked { because } => {
                warnings.insert(because);
            }
            Existence::Missing { message, help } => {
                problems.extend(at_each_place(cedar, &parsed.source, (kind, id), &message, help.as_ref()));
            }
        }
    }
    (problems, warnings.into_iter().collect())
}

/// The same problem wherever the entity is named.
fn at_each_place(
    cedar: &str,
    source: &Source<'_>,
    (kind, id): (EntityKind, &str),
    message: &str,
    help: Option<&String>,
) -> Vec<Problem> {
    let same = |literal: &&Literal<'_>| literal.type_name == kind.as_str() && literal.id == id;
    let places = source.literals.iter().filter(same).take(PROBLEMS_MAX);
    let mut found: Vec<Problem> =
        places.map(|literal| Problem::at(cedar, literal.offset, message, help.cloned())).collect();
    if found.is_empty() {
        found.push(Problem::of_text(message, help.map(String::as_str)));
    }
    found
}

fn type_problems(cedar: &str, validated: &ValidationResult) -> Vec<Problem> {
    validated
        .validation_errors()
        .map(|error| Problem::from_cedar(cedar, &DetailedError::from(error)))
        .collect()
}

fn type_warnings(cedar: &str, validated: &ValidationResult) -> Vec<String> {
    let mut inapplicable: BTreeSet<&PolicyId> = BTreeSet::new();
    for warning in validated.validation_warnings() {
        if let ValidationWarning::InvalidActionApplication(_) = warning {
            inapplicable.insert(warning.policy_id());
        }
    }
    let mut found = BTreeSet::new();
    for warning in validated.validation_warnings() {
        let detail = DetailedError::from(warning);
        let offset = detail.source_locations.first().map_or(0, |label| label.loc.start);
        let message = match warning {
            ValidationWarning::InvalidActionApplication(_) => {
                let help = detail.help.map(|help| format!("; {help}")).unwrap_or_default();
                format!("never applies: no action has such a principal and such a resource{help}")
            }
            // Cedar says of the same statement that it is impossible, with less help.
            ValidationWarning::ImpossiblePolicy(_) if inapplicable.contains(warning.policy_id()) => continue,
            ValidationWarning::ImpossiblePolicy(_) => {
                "never applies: its condition is false for every request".to_owned()
            }
            // Texts that look like others: mixed scripts, bidirectional controls. Cedar's enum is open.
            _ => Problem::from_cedar(cedar, &detail).message,
        };
        found.insert((place(cedar, offset), message));
    }
    let told = |((line, column), message): ((u32, u32), String)| {
        format!("line {line}, column {column}: {}", shorten(&message))
    };
    found.into_iter().map(told).collect()
}
