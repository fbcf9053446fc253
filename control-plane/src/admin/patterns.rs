//! Patterns in a change by which answers are to be redacted: whether nodes will be able to search by them.
//!
//! Always holds: a pattern that is new or in a document that changed, and that nodes could not use, is refused before it is
//! proposed, with its line and column. It is not judged in the state machine: readers of two builds may differ.

use gantry_control_state::ChangeKind;
use gantry_inspect::Patterns;
use gantry_model::Spec;
use gantry_model::resource::Inspection;
use gantry_wire::admin_v1::Problem;

use super::policy::Applied;
use super::rejection::index;

/// What is wrong with the patterns of these documents.
pub(super) fn problems(documents: &[Applied]) -> Vec<Problem> {
    let mut problems = Vec::new();
    for (at, (document, change)) in documents.iter().enumerate() {
        let inspection = match &document.spec {
            Spec::Tenant(spec) if *change != ChangeKind::Unchanged => &spec.inspection,
            Spec::Server(spec) if *change != ChangeKind::Unchanged => &spec.inspection,
            _ => continue,
        };
        check(inspection, "spec.inspection", at, &mut problems);
        for (tool, inspection) in &inspection.tools {
            check(inspection, &format!("spec.inspection.tools.{tool}"), at, &mut problems);
        }
    }
    problems
}

fn check(inspection: &Inspection, path: &str, at: usize, problems: &mut Vec<Problem>) {
    for (name, pattern) in &inspection.redact_patterns {
        if let Err(error) = Patterns::default().with(name, pattern) {
            let path = format!("{path}.redact_patterns.{name}");
            problems.push(Problem {
                index: index(at),
                path,
                message: error.to_string(),
                nearest: String::new(),
            });
        }
    }
}
