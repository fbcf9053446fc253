//! `gantry diff`: what `apply` would change, as a unified diff of the YAML forms. Writes nothing.

use std::collections::HashMap;

use gantry_model::document;
use gantry_model::resource::Resource;
use gantry_wire::admin_v1::{AppliedResource, Change};
use similar::TextDiff;

use crate::admin::Admin;
use crate::change::{self, Purpose, title};
use crate::context::Access;
use crate::documents::{Document, DocumentSet, FileFlag};
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint};

/// Lines shown around a difference: enough to see the whole of most documents.
const CONTEXT_LINES: usize = 3;

/// Show what apply would change, without changing anything; exit code 3 when something differs.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    #[command(flatten)]
    file: FileFlag,
    /// Refuse when what this would change was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    #[command(flatten)]
    access: Access,
}

impl Diff {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let set = DocumentSet::read(&self.file)?;
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let answer = change::submit(&admin, &set, Purpose::Compare, self.expect).await?;
        let documents: HashMap<String, &Document> =
            set.documents().iter().map(|document| (document.resource.id().to_string(), document)).collect();
        let mut text = String::new();
        for result in &answer.results {
            let title = title(&result.kind, &result.tenant, &result.name);
            if let Some(document) = documents.get(&title) {
                text.push_str(&difference(&title, document, result)?);
            }
        }
        if text.is_empty() {
            return Ok(Exit::Done);
        }
        output::print(&text)?;
        output::say(&format!(
            "against revision {0} of what is stored; apply just this with `gantry apply --expect {0} {1}`",
            answer.against,
            set.flags()
        ));
        Ok(Exit::Differs)
    }
}

fn difference(title: &str, document: &Document, result: &AppliedResource) -> Result<String, Failure> {
    let before = match (result.change(), &result.before) {
        (Change::Unchanged, _) => return Ok(String::new()),
        (_, None) => None,
        (_, Some(before)) => Some(Resource::try_from(before).map_err(|error| {
            Failure::error(
                format!("the stored {title} cannot be read: {error}"),
                "compare `gantry --version` with the build that `gantry status` shows",
            )
        })?),
    };
    let stored = before.as_ref().map(form).unwrap_or_default();
    let stored_label = if before.is_some() { format!("{title} (stored)") } else { "/dev/null".to_owned() };
    let wanted_label = format!("{title} ({})", document.place);
    Ok(unified(&stored, &form(&document.resource), &stored_label, &wanted_label, Paint::stdout()))
}

fn form(resource: &Resource) -> String {
    output::yaml(&document::Document::from(resource))
}

/// A unified diff; empty when the texts are equal.
pub(crate) fn unified(old: &str, new: &str, old_label: &str, new_label: &str, paint: Paint) -> String {
    let plain = TextDiff::from_lines(old, new)
        .unified_diff()
        .context_radius(CONTEXT_LINES)
        .header(old_label, new_label)
        .to_string();
    let line = |line: &str| match line.as_bytes().first() {
        Some(b'+') => paint.green(line),
        Some(b'-') => paint.red(line),
        Some(b'@') => paint.cyan(line),
        _ => line.to_owned(),
    };
    plain.lines().map(|text| line(&output::visible(text)) + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_field_is_a_line_less_and_a_line_more() {
        let text = unified("a: 1\nb: 2\n", "a: 1\nb: 3\n", "x (stored)", "x (f:document 1)", Paint::PLAIN);
        assert_eq!(text, "--- x (stored)\n+++ x (f:document 1)\n@@ -1,2 +1,2 @@\n a: 1\n-b: 2\n+b: 3\n");
    }

    #[test]
    fn equal_texts_have_no_diff() {
        assert_eq!(unified("a: 1\n", "a: 1\n", "x", "y", Paint::PLAIN), "");
    }
}
