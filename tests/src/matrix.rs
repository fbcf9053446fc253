//! Every client with every server: what works, as a table.
//!
//! Always holds: what stands in a cell was done by the client in the row with the server in the column, and its
//! result was looked at; what a server does not offer is not tried. The table says nothing of times.

mod rust_client;
mod servers;
mod table;
mod visit;

pub use servers::{Server, Servers};
pub use table::{Table, committed, replace};
pub use visit::{Seen, visit_all};

use serde::Serialize;
use serde_json::Value;

/// One thing that a client does with a server; all but [`Step::List`] come from the plan of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Lists the tools.
    List,
    /// Calls a tool.
    Call,
    /// Calls a tool and hears of its progress.
    Progress,
    /// Gets a prompt.
    Prompt,
    /// Reads a resource.
    Resource,
    /// Calls a tool that asks the user.
    Elicit,
    /// Calls a tool that asks the client's model.
    Sample,
}

/// What a client is to do with one server.
#[derive(Debug, Clone, Serialize)]
pub struct Plan {
    /// The name of the server.
    pub name: &'static str,
    /// Where it is reached.
    pub url: String,
    /// What the client presents.
    pub key: Option<String>,
    /// For each step its parameters.
    pub steps: serde_json::Map<String, Value>,
    /// What the client answers to every form.
    pub content: Value,
}

impl Step {
    /// All of them, in the order of a cell.
    pub const ALL: [Self; 7] =
        [Self::List, Self::Call, Self::Progress, Self::Prompt, Self::Resource, Self::Elicit, Self::Sample];

    /// Its word in plans and cells.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Call => "call",
            Self::Progress => "progress",
            Self::Prompt => "prompt",
            Self::Resource => "resource",
            Self::Elicit => "elicit",
            Self::Sample => "sample",
        }
    }
}
