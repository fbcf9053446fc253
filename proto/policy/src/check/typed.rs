//! Statements that read arguments, each with the tools that it is about.
//!
//! Always holds: such a statement is validated against the arguments of every tool that its scope covers, and passes
//! only where it passes for each. What a condition says of the tool narrows nothing: Cedar's types do not follow it.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::ffi::DetailedError;
use cedar_policy::{EntityUid, Policy, PolicySet, ResourceConstraint, ValidationMode};

use crate::arguments::Shape;
use crate::known::Known;
use crate::problem::Problem;
use crate::reads::{Path, Reads};
use crate::schema::{EntityKind, validator_of};
use crate::statement::{PROBLEMS_MAX, Parsed};

/// Most different arguments that the statements of one text may be about: a validator is made for each, in about a
/// millisecond.
const SHAPES_MAX: usize = 256;

/// Why what a schema has may have no type here.
const WITHOUT_TYPE: &str =
    "a union, a map and a number that need not be whole have no type; or is it misspelt?";

/// The statements of a text.
pub(super) struct Typed {
    /// Those that read no arguments, or are about no tool that is known.
    pub(super) plain: PolicySet,
    /// By arguments: a tool that takes these, and the statements that are about it.
    by_shape: BTreeMap<Shape, (String, PolicySet)>,
    too_many: bool,
    /// Arguments of which it is asked whether they are there, and that no tool in scope has; with where in the text.
    never: BTreeMap<Path, usize>,
    /// Servers of whose tools nothing is known yet.
    unknown: BTreeSet<String>,
}

impl Typed {
    pub(super) fn of(parsed: &Parsed<'_>, known: &Known<'_>) -> Typed {
        let mut typed = Typed {
            plain: PolicySet::new(),
            by_shape: BTreeMap::new(),
            too_many: false,
            never: BTreeMap::new(),
            unknown: BTreeSet::new(),
        };
        // INVARIANT: the ids within a text differ, so adding never fails.
        let mut shapes = BTreeMap::new();
        for policy in parsed.statements.iter().map(|statement| &statement.policy) {
            let reads = reads(policy);
            if reads.arguments.is_empty() || !typed.add(policy, reads, known, &mut shapes) {
                let _ = typed.plain.add(policy.clone());
            }
        }
        typed
    }

    /// Adds a statement to the shapes of its tools; whether there is anything to say of its tools.
    fn add(
        &mut self,
        policy: &Policy,
        reads: Reads,
        known: &Known<'_>,
        shapes: &mut BTreeMap<String, Shape>,
    ) -> bool {
        let (server, tool) = match policy.resource_constraint() {
            ResourceConstraint::Any | ResourceConstraint::Is(_) => (None, None),
            ResourceConstraint::Eq(uid) | ResourceConstraint::In(uid) | ResourceConstraint::IsIn(_, uid) => {
                match covered(&uid) {
                    Some(covered) => covered,
                    None => return false,
                }
            }
        };
        let (mut found, mut never) = (false, reads.tested);
        for (server, definition) in known.tools(server.as_deref()) {
            let Some(definition) = definition else {
                found = true;
                never.clear();
                self.unknown.insert(server.to_owned());
                continue;
            };
            if tool.as_deref().is_some_and(|tool| tool != &*definition.name) {
                continue;
            }
            found = true;
            let id = format!("{server}/{}", definition.name);
            let shape =
                shapes.entry(id.clone()).or_insert_with(|| Shape::from_definition(&definition.json)).clone();
            never.retain(|path, _| !shape.has(path));
            if self.by_shape.len() >= SHAPES_MAX && !self.by_shape.contains_key(&shape) {
                self.too_many = true;
                break;
            }
            let (_, policies) = self.by_shape.entry(shape).or_insert_with(|| (id, PolicySet::new()));
            if policies.policy(policy.id()).is_none() {
                let _ = policies.add(policy.clone());
            }
        }
        if found {
            self.never.extend(never);
        }
        found
    }

    /// What is wrong with them, with a tool for which it is.
    pub(super) fn problems(&self, cedar: &str) -> Vec<Problem> {
        let never = |(path, offset): (&Path, &usize)| {
            let message =
                format!("no tool in scope has an argument `{}` that policies can read", path.join("."));
            Problem::at(cedar, *offset, message, WITHOUT_TYPE.to_owned())
        };
        let mut problems = BTreeMap::new();
        if self.too_many {
            let message = format!("the text reads arguments of tools of more than {SHAPES_MAX} kinds");
            let help = Some("name a server or a tool in the scope: `resource == Tool::\"server/tool\"`");
            return vec![Problem::of_text(message, help)];
        }
        for (shape, (tool, policies)) in &self.by_shape {
            let Some(validator) = validator_of(shape) else {
                let message = format!("the arguments of Tool::{tool:?} have names that Cedar cannot say");
                return vec![Problem::of_text(message, None)];
            };
            let validated = validator.validate(policies, ValidationMode::Strict);
            for error in validated.validation_errors() {
                let problem = Problem::from_cedar(cedar, &DetailedError::from(error));
                let place = (problem.line, problem.column, problem.message.clone());
                // One tool is told of each problem; the others have the same.
                problems.entry(place).or_insert_with(|| Problem {
                    message: format!("for Tool::{tool:?}: {}", problem.message),
                    ..problem
                });
            }
            if problems.len() > PROBLEMS_MAX {
                break;
            }
        }
        self.never.iter().map(never).chain(problems.into_values()).collect()
    }

    pub(super) fn warnings(&self) -> impl Iterator<Item = String> {
        self.unknown.iter().map(|server| {
            format!(
                "server `{server}` has no recorded catalog yet, so what is read of its tools' arguments is not checked"
            )
        })
    }
}

/// The server, and the tool where it is one, that a scope names; `None` where it names neither.
fn covered(uid: &EntityUid) -> Option<(Option<String>, Option<String>)> {
    let id = uid.id().unescaped();
    match EntityKind::from_name(&uid.type_name().to_string())? {
        EntityKind::Server => Some((Some(id.to_owned()), None)),
        EntityKind::Tool => {
            let (server, tool) = id.split_once('/')?;
            Some((Some(server.to_owned()), Some(tool.to_owned())))
        }
        _ => None,
    }
}

fn reads(policy: &Policy) -> Reads {
    let policy: &cedar_policy_core::ast::Policy = policy.as_ref();
    policy.non_scope_constraints().map(Reads::of).unwrap_or_default()
}
