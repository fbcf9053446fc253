//! Which argument is SQL, a path, a URL or of a shell, as an admin declares it.
//!
//! Always holds: what is declared of a place is so of every text below it, as far as nothing else is declared there, so
//! that `files` speaks of each element of a list of files.

use gantry_model::inspection::Form;
use gantry_model::resource::{ARGUMENT_PLACES_MAX, Inspection};

/// Declared places of one tool: as many as its tenant, its server and itself may have together.
pub const DECLARED_MAX: usize = 3 * ARGUMENT_PLACES_MAX;
/// Most steps of a place.
const STEPS_MAX: usize = 16;

/// The declared arguments of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Declared {
    root: Node,
    count: usize,
}

/// A place that cannot be declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlaceError {
    /// It is empty, or has an empty step.
    Empty,
    /// It is deeper than is looked for.
    Depth,
    /// There are as many as there may be.
    Full,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Node {
    form: Option<Form>,
    fields: Vec<(String, Node)>,
}

impl Declared {
    /// Adds a place: the name of an argument, or a JSON pointer below the arguments (it begins with `/`), in which `*`
    /// stands for every element of a list and every field. The last word on a place counts.
    pub fn add(&mut self, place: &str, form: Form) -> Result<(), PlaceError> {
        let steps: Vec<String> = match place.strip_prefix('/') {
            Some(pointer) => {
                pointer.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()
            }
            None => vec![place.to_owned()],
        };
        if steps.iter().any(String::is_empty) {
            return Err(PlaceError::Empty);
        }
        if steps.len() > STEPS_MAX {
            return Err(PlaceError::Depth);
        }
        let known = steps.iter().try_fold(&self.root, |node, step| node.named(step));
        if self.count == DECLARED_MAX && known.and_then(Node::form).is_none() {
            return Err(PlaceError::Full);
        }
        let node = steps.into_iter().fold(&mut self.root, Node::below_or_new);
        self.count += usize::from(node.form.is_none());
        node.form = Some(form);
        Ok(())
    }

    /// What several say of one tool's arguments, the last word counting; and the places for which there was no room.
    pub fn of<'a>(layers: impl IntoIterator<Item = &'a Inspection>) -> (Declared, Vec<(String, PlaceError)>) {
        let (mut declared, mut left_out) = (Declared::default(), Vec::new());
        for (place, form) in layers.into_iter().flat_map(|layer| &layer.arguments) {
            if let Err(error) = declared.add(place, *form) {
                left_out.push((place.clone(), error));
            }
        }
        (declared, left_out)
    }

    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

impl Node {
    fn below_or_new(&mut self, step: String) -> &mut Node {
        let index = self.fields.iter().position(|(name, _)| *name == step).unwrap_or_else(|| {
            self.fields.push((step, Node::default()));
            self.fields.len() - 1
        });
        &mut self.fields[index].1
    }

    /// What is declared of the node itself.
    pub(crate) fn form(&self) -> Option<Form> {
        self.form
    }

    /// What is declared of a field, or, with `*`, of elements. Few are declared, so the search is along them.
    pub(crate) fn below(&self, step: &str) -> Option<&Node> {
        self.named(step).or_else(|| self.named("*"))
    }

    fn named(&self, wanted: &str) -> Option<&Node> {
        self.fields.iter().find(|(name, _)| name == wanted).map(|(_, node)| node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_name_or_a_pointer_and_a_star_is_every_step() -> Result<(), PlaceError> {
        let mut declared = Declared::default();
        declared.add("query", Form::Sql)?;
        declared.add("/files/*/path", Form::Path)?;
        declared.add("/a~1b", Form::Url)?;
        let at = |steps: &[&str]| {
            let node = steps.iter().try_fold(declared.root(), |node, step| node.below(step));
            node.and_then(Node::form)
        };
        assert_eq!(at(&["query"]), Some(Form::Sql));
        assert_eq!(at(&["files", "7", "path"]), Some(Form::Path));
        assert_eq!(at(&["files", "7"]), None);
        assert_eq!(at(&["a/b"]), Some(Form::Url));
        assert_eq!(at(&["other"]), None);
        Ok(())
    }

    #[test]
    fn what_cannot_be_declared_is_refused() {
        let mut declared = Declared::default();
        for (place, error) in [
            ("", PlaceError::Empty),
            ("/", PlaceError::Empty),
            ("/a//b", PlaceError::Empty),
            (&*"/a".repeat(STEPS_MAX + 1), PlaceError::Depth),
        ] {
            assert_eq!(declared.add(place, Form::Sql), Err(error), "{place}");
        }
        for index in 0..DECLARED_MAX {
            assert_eq!(declared.add(&format!("a{index}"), Form::Sql), Ok(()));
        }
        assert_eq!(declared.add("more", Form::Sql), Err(PlaceError::Full));
        // The last word on a place counts, full or not.
        assert_eq!(declared.add("a1", Form::Path), Ok(()));
        assert_eq!(declared.root().below("a1").and_then(Node::form), Some(Form::Path));
    }
}
