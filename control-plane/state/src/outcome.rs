//! What became of a command.

use std::sync::Arc;

use gantry_model::ResourceId;

/// What applying one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer for whoever proposed it.
    pub outcome: Outcome,
    /// The entries that changed, to be stored and sent on; empty when the command was refused or changed nothing.
    pub changes: Vec<Change>,
}

/// One entry that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record's key as text.
    pub key: String,
    /// The record's bytes; `None`: deleted.
    pub value: Option<Arc<[u8]>>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done. For resources: what happened to each, in the order of the command.
    Done(Vec<(ResourceId, ChangeKind)>),
    /// Nothing was changed, for these reasons.
    Refused(Vec<Refusal>),
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Created,
    /// It was there and said something else.
    Updated,
    /// It was there and said the same; its revision stays.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The document or id in the command, from 0.
    pub index: usize,
    /// The field, such as `spec.servers[0]`, or empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The nearest known name, or none.
    pub nearest: Option<String>,
}

impl Refusal {
    /// A refusal that concerns the command or document as a whole.
    pub(crate) fn of(index: usize, message: impl Into<String>) -> Refusal {
        Refusal { index, path: String::new(), message: message.into(), nearest: None }
    }
}
