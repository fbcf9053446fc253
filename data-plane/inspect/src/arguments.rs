//! The one pass over the arguments of a call.
//!
//! Always holds: every text and every name of a field is read by the filters that make sense for any text; what is
//! declared, by its own as well; each text gives at most one finding per filter. The walk goes no deeper than
//! [`DEPTH_MAX`], which is as deep as a message may be that the pipeline takes at all.

use gantry_model::inspection::{Filter, Form, Mode};
use serde_json::Value;

use crate::declared::{Declared, Node};
use crate::finding::{Finding, Findings, Place};
use crate::{path, secrets, shell, sql, target, unicode};

/// How deep arguments are looked into, whatever the limits say: as deep as a message may be that is taken at all.
const DEPTH_MAX: usize = 100;

/// What becomes of what each filter finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Modes([Mode; Filter::COUNT]);

impl Modes {
    /// The same for all.
    pub const fn all(mode: Mode) -> Modes {
        Modes([mode; Filter::COUNT])
    }

    /// With another mode for one.
    #[must_use]
    pub fn with(mut self, filter: Filter, mode: Mode) -> Modes {
        self.0[filter as usize] = mode;
        self
    }

    /// Of one.
    pub fn of(&self, filter: Filter) -> Mode {
        self.0[filter as usize]
    }

    /// Whether nothing is looked for at all.
    pub fn is_off(&self) -> bool {
        *self == Modes::all(Mode::Off)
    }
}

/// How large and how deep arguments may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one text.
    pub text_bytes: usize,
    /// Bytes of all texts and names together.
    pub bytes: usize,
    /// Values of all kinds.
    pub values: usize,
    /// Levels of lists and objects.
    pub depth: usize,
}

impl Default for Limits {
    /// What a model writes stays far below; what carries files in arguments may not.
    fn default() -> Limits {
        Limits { text_bytes: 256 * 1024, bytes: 1024 * 1024, values: 10_000, depth: 32 }
    }
}

/// All that is looked for in the calls of one tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// By filter.
    pub modes: Modes,
    /// Which argument is what.
    pub declared: Declared,
    /// For [`Filter::Limits`].
    pub limits: Limits,
}

impl Inspection {
    /// Looks at the arguments of a call. Finding nothing costs no allocation, except where a text has escapes
    /// (`%2e`) that have to be undone.
    pub fn inspect(&self, arguments: &Value) -> Findings {
        if self.modes.is_off() {
            return Findings::default();
        }
        let mut pass = Pass { inspection: self, findings: Findings::default(), bytes: 0, values: 0 };
        let context = Context { place: Place::ROOT, node: Some(self.declared.root()), form: None, depth: 1 };
        pass.value(arguments, &context);
        pass.totals();
        pass.findings
    }
}

struct Pass<'i> {
    inspection: &'i Inspection,
    findings: Findings,
    bytes: usize,
    values: usize,
}

/// Where the walk is.
struct Context<'a> {
    place: Place<'a>,
    node: Option<&'a Node>,
    /// What is declared of this place, or above it.
    form: Option<Form>,
    depth: usize,
}

impl<'a> Context<'a> {
    fn below(&'a self, place: Place<'a>, step: &str) -> Context<'a> {
        let node = self.node.and_then(|node| node.below(step));
        let form = node.and_then(Node::form).or(self.form);
        Context { place, node, form, depth: self.depth + 1 }
    }
}

impl Pass<'_> {
    fn value(&mut self, value: &Value, context: &Context<'_>) {
        self.values += 1;
        match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
            Value::String(text) => self.text(text, context.form, &context.place),
            Value::Array(_) | Value::Object(_) if self.is_too_deep(context) => {}
            Value::Array(elements) => {
                for (index, element) in elements.iter().enumerate() {
                    self.value(element, &context.below(context.place.element(index), "*"));
                }
            }
            Value::Object(fields) => {
                for (name, value) in fields {
                    // What is found in a name is told of the object that has it.
                    self.text(name, None, &context.place);
                    self.value(value, &context.below(context.place.field(name), name));
                }
            }
        }
    }

    fn is_too_deep(&mut self, context: &Context<'_>) -> bool {
        if context.depth == self.inspection.limits.depth + 1 {
            self.found(Filter::Limits, "depth", &context.place);
        }
        // Only what stops the call spares looking deeper.
        let is_stopped = self.mode(Filter::Limits) == Mode::Block;
        context.depth > DEPTH_MAX || (is_stopped && context.depth > self.inspection.limits.depth)
    }

    fn text(&mut self, text: &str, form: Option<Form>, place: &Place<'_>) {
        self.bytes += text.len();
        if text.len() > self.inspection.limits.text_bytes {
            self.found(Filter::Limits, "text", place);
        }
        self.look(Filter::Unicode, place, || unicode::hidden(text));
        self.look(Filter::Secrets, place, || secrets::first(text));
        match form {
            Some(Form::Sql) => self.look(Filter::Sql, place, || sql::stacked(text)),
            Some(Form::Shell) => self.look(Filter::Shell, place, || shell::metacharacter(text)),
            Some(Form::Path) => self.look(Filter::Traversal, place, || path::traversal(text)),
            Some(Form::Url) => self.look(Filter::Ssrf, place, || target::forbidden(text)),
            None => {}
        }
        // What is looked for in any text, where its form has it not looked for already.
        if form != Some(Form::Path) {
            self.look(Filter::Traversal, place, || path::hidden_traversal(text));
        }
        if form != Some(Form::Url) {
            self.look(Filter::Ssrf, place, || target::forbidden_in_any(text));
        }
    }

    fn totals(&mut self) {
        let limits = self.inspection.limits;
        if self.bytes > limits.bytes {
            self.found(Filter::Limits, "bytes", &Place::ROOT);
        }
        if self.values > limits.values {
            self.found(Filter::Limits, "values", &Place::ROOT);
        }
    }

    fn look(&mut self, filter: Filter, place: &Place<'_>, look: impl FnOnce() -> Option<&'static str>) {
        if self.mode(filter) == Mode::Off {
            return;
        }
        if let Some(what) = look() {
            self.found(filter, what, place);
        }
    }

    fn found(&mut self, filter: Filter, what: &'static str, place: &Place<'_>) {
        let mode = self.mode(filter);
        if mode != Mode::Off {
            self.findings.add(Finding { filter, mode, what, place: place.pointer() });
        }
    }

    fn mode(&self, filter: Filter) -> Mode {
        self.inspection.modes.of(filter)
    }
}

#[cfg(test)]
mod tests;
