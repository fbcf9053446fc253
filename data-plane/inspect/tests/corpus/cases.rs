//! The labelled corpus: attacks, and what is innocent and looks like one, made anew from a seed.
//!
//! Always holds: a seed makes the same cases on every machine; every attack is labelled with the filter that is to find
//! it. What is measured with it says how well filters do on what their authors thought of, no more.

#[path = "answers.rs"]
pub(crate) mod answers;
#[path = "attacks.rs"]
pub(crate) mod attacks;
#[path = "definitions.rs"]
pub(crate) mod definitions;
#[path = "innocent.rs"]
pub(crate) mod innocent;
#[path = "rates.rs"]
pub(crate) mod rates;
#[path = "rng.rs"]
pub(crate) mod rng;

use gantry_inspect::{Declared, Inspection, Limits, Modes};
use gantry_model::inspection::{Filter, Form, Mode};
use serde_json::{Value, json};

/// A text of an argument, what is declared of it, and what it is.
pub(crate) struct Case {
    pub(crate) label: Label,
    pub(crate) form: Option<Form>,
    pub(crate) text: String,
}

/// What a case is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Label {
    /// For one filter to find.
    Attack(Filter),
    /// For none.
    Innocent,
}

/// The name of the argument of a form.
pub(crate) fn argument(form: Option<Form>) -> &'static str {
    match form {
        None => "text",
        Some(Form::Sql) => "query",
        Some(Form::Path) => "path",
        Some(Form::Url) => "url",
        Some(Form::Shell) => "command",
    }
}

/// Everything on, and one argument of each form.
pub(crate) fn inspection() -> Inspection {
    let mut declared = Declared::default();
    for form in [Form::Sql, Form::Path, Form::Url, Form::Shell] {
        declared.add(argument(Some(form)), form).expect("it can be declared");
    }
    Inspection { modes: Modes::all(Mode::Block), declared, limits: Limits::default() }
}

impl Case {
    /// The arguments of the call.
    pub(crate) fn arguments(&self) -> Value {
        json!({ argument(self.form): self.text, "limit": 10 })
    }
}
