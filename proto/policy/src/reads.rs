//! What a condition reads of a call: the parts of Cedar's `context` that it names.
//!
//! Always holds: whatever a condition may read is among them; what it does with the context as a whole counts as reading
//! all but arguments, which it cannot name so.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy_core::ast::{Expr, ExprKind, Var};

/// The names by which a part of the arguments is reached.
pub(crate) type Path = Vec<String>;

/// What is read.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    /// Anything.
    pub(crate) is_any: bool,
    /// What time it is.
    pub(crate) time: bool,
    /// Facts of the arguments.
    pub(crate) facts: bool,
    /// Arguments; the empty path for all of them.
    pub(crate) arguments: BTreeSet<Path>,
    /// Arguments of which it is asked whether they are there, with where in the text. Of one that there never is, Cedar says
    /// so without looking at what follows.
    pub(crate) tested: BTreeMap<Path, usize>,
    /// All of the context of which it takes the value, as narrow as it says: `context.facts.sql.kinds` is not all facts.
    pub(crate) values: BTreeSet<Path>,
    /// All of the context of which it asks whether it is there.
    pub(crate) presences: BTreeSet<Path>,
}

impl Reads {
    /// What a condition reads.
    pub(crate) fn of(condition: &Expr) -> Reads {
        let (mut reads, mut uses, mut named) = (Reads::default(), 0, 0);
        // Of each place, how often it is written less how often that only leads to a place within it.
        let mut whole: BTreeMap<Path, isize> = BTreeMap::new();
        for part in condition.subexpressions() {
            if let Some(path) = path_of(part) {
                *whole.entry(path).or_default() += 1;
            }
            let (of, attributes, is_test) = match part.expr_kind() {
                ExprKind::Var(Var::Context) => {
                    uses += 1;
                    continue;
                }
                ExprKind::GetAttr { expr, attr } => (expr, vec![attr.to_string()], false),
                ExprKind::HasAttr { expr, attr } => (expr, vec![attr.to_string()], true),
                ExprKind::ExtHasAttr { expr, attrs } => {
                    (expr, attrs.iter().map(ToString::to_string).collect(), true)
                }
                _ => continue,
            };
            let Some(mut path) = path_of(of) else { continue };
            named += usize::from(path.is_empty());
            *whole.entry(path.clone()).or_default() -= 1;
            path.extend(attributes);
            if is_test {
                reads.presences.insert(path.clone());
            }
            reads.note(&path, is_test.then(|| part.source_loc().map_or(0, |place| place.start())));
        }
        reads.is_any = uses > 0;
        let reads_whole = uses > named;
        (reads.time, reads.facts) = (reads.time || reads_whole, reads.facts || reads_whole);
        reads.values.extend(whole.into_iter().filter(|(_, count)| *count > 0).map(|(path, _)| path));
        reads
    }

    fn note(&mut self, path: &[String], tested_at: Option<usize>) {
        let Some((first, rest)) = path.split_first() else { return };
        match first.as_str() {
            "time" => self.time = true,
            "facts" => self.facts = true,
            "arguments" => {
                self.arguments.insert(rest.to_vec());
                if let Some(offset) = tested_at {
                    self.tested.entry(rest.to_vec()).or_insert(offset);
                }
            }
            _ => {}
        }
    }
}

/// The names from the context to what an expression is, where it is a part of it.
fn path_of(expression: &Expr) -> Option<Path> {
    match expression.expr_kind() {
        ExprKind::Var(Var::Context) => Some(Path::new()),
        ExprKind::GetAttr { expr, attr } => {
            let mut path = path_of(expr)?;
            path.push(attr.to_string());
            Some(path)
        }
        _ => None,
    }
}
