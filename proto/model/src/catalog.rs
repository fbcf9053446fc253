//! A server's catalog: what it offers, as recorded, each definition with its hash.
//!
//! Always holds: a definition's `hash` is that of the meaning of its `json` (`catalog/hash.rs` has the form);
//! definitions of a kind are in the server's order and have unique names, those in quarantine included; the bounds
//! below are kept. What stands in `tools`, `prompts`, `resources` and `resource_templates` is in force; what is in
//! quarantine is not.

mod hash;
mod pin;

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use crate::name::{ServerName, TenantName};

pub use pin::{Approval, ApproveError};

/// Most definitions of one kind: an agent's model cannot use more, and it bounds the list answers that a node keeps.
pub const DEFINITIONS_MAX: usize = 2_048;
/// Most bytes of all definitions that a server offers, so that a catalog stays one Raft command. A recorded one may
/// have as much again of approved definitions that the quarantined ones are compared with.
pub const CATALOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One tool, prompt, resource or template as the server described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// A tool's or prompt's name, a resource's URI, a template's URI template.
    pub name: Arc<str>,
    /// The definition as JSON, as the server sent it.
    pub json: Arc<str>,
    /// Of the meaning of `json`: the same for definitions that say the same.
    pub hash: [u8; 32],
}

/// What sort of thing a definition defines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "the names say it")]
pub enum DefinitionKind {
    Tool,
    Prompt,
    Resource,
    ResourceTemplate,
}

/// A definition that is withheld until an admin approves it: neither listed nor callable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// What sort of thing it defines.
    pub kind: DefinitionKind,
    /// What the server now says.
    pub definition: Definition,
    /// Why it is withheld.
    pub reason: QuarantineReason,
}

/// Why a definition is in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QuarantineReason {
    /// It differs from the one that was in force, which is withheld too: the server no longer does what it says.
    Changed {
        /// The one that was in force.
        approved: Definition,
    },
    /// There was none of that name.
    New,
}

/// What one server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalog {
    /// The tenant of the server.
    pub tenant: TenantName,
    /// The server.
    pub server: ServerName,
    /// Its tools.
    pub tools: Vec<Definition>,
    /// Its prompts.
    pub prompts: Vec<Definition>,
    /// Its resources, by URI.
    pub resources: Vec<Definition>,
    /// Its resource templates, by URI template.
    pub resource_templates: Vec<Definition>,
    /// The protocol revisions that it answered, such as `2025-11-25`.
    pub revisions: Vec<String>,
    /// How it carries the legacy era, where it speaks that and has a URL.
    pub carrier: SessionCarrier,
    /// Its answer to `initialize` as JSON, when it speaks the legacy era.
    pub initialize_result: Option<Arc<str>>,
    /// Its answer to `server/discover` as JSON, when it speaks the modern era.
    pub discover_result: Option<Arc<str>>,
    /// What is withheld until an admin approves it, in the order of kinds and of the server. Always empty in what a
    /// node reports.
    pub quarantined: Vec<Quarantined>,
}

/// What carries the sessions of a server with a URL. No revision tells it: a server may answer `2024-11-05` over
/// either, and `2025-11-25` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SessionCarrier {
    /// Streamable HTTP, from 2025-03-26.
    #[default]
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05: one stream, and a URL that is named there.
    HttpSse,
}

/// A catalog that cannot be recorded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CatalogError {
    /// Too many definitions of one kind.
    #[error("{count} {what} are more than {DEFINITIONS_MAX}")]
    TooMany {
        /// `tools`, `prompts`, ...
        what: &'static str,
        /// How many there are.
        count: usize,
    },
    /// All definitions together are too large.
    #[error("the definitions have {bytes} bytes, more than {CATALOG_BYTES_MAX}")]
    TooLarge {
        /// Their size.
        bytes: usize,
    },
    /// Two definitions of a kind have one name.
    #[error("{what} has {name:?} twice")]
    Duplicate {
        /// `tools`, `prompts`, ...
        what: &'static str,
        /// The name.
        name: Arc<str>,
    },
}

impl Definition {
    /// Records a definition with its hash. Takes time by the length of `json`, which it reads.
    pub fn new(name: impl Into<Arc<str>>, json: impl Into<Arc<str>>) -> Definition {
        let json = json.into();
        Definition { name: name.into(), hash: hash::of_definition(&json), json }
    }

    fn bytes(&self) -> usize {
        self.name.len() + self.json.len()
    }
}

impl DefinitionKind {
    /// Every kind, in the order of a catalog.
    pub const ALL: [DefinitionKind; 4] = [
        DefinitionKind::Tool,
        DefinitionKind::Prompt,
        DefinitionKind::Resource,
        DefinitionKind::ResourceTemplate,
    ];

    /// The kind as people read and write it.
    pub fn as_str(self) -> &'static str {
        match self {
            DefinitionKind::Tool => "tool",
            DefinitionKind::Prompt => "prompt",
            DefinitionKind::Resource => "resource",
            DefinitionKind::ResourceTemplate => "resource-template",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            DefinitionKind::Tool => "tools",
            DefinitionKind::Prompt => "prompts",
            DefinitionKind::Resource => "resources",
            DefinitionKind::ResourceTemplate => "resource templates",
        }
    }
}

impl fmt::Display for DefinitionKind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl Quarantined {
    /// What was in force under that name before.
    pub fn approved(&self) -> Option<&Definition> {
        match &self.reason {
            QuarantineReason::Changed { approved } => Some(approved),
            QuarantineReason::New => None,
        }
    }
}

impl Catalog {
    /// A catalog that offers nothing.
    pub fn empty(tenant: TenantName, server: ServerName) -> Catalog {
        Catalog {
            tenant,
            server,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            resource_templates: Vec::new(),
            revisions: Vec::new(),
            carrier: SessionCarrier::StreamableHttp,
            initialize_result: None,
            discover_result: None,
            quarantined: Vec::new(),
        }
    }

    /// The definitions of a kind that are in force.
    pub fn definitions(&self, kind: DefinitionKind) -> &[Definition] {
        match kind {
            DefinitionKind::Tool => &self.tools,
            DefinitionKind::Prompt => &self.prompts,
            DefinitionKind::Resource => &self.resources,
            DefinitionKind::ResourceTemplate => &self.resource_templates,
        }
    }

    /// What is withheld under a name; `None` when nothing is.
    pub fn quarantined(&self, kind: DefinitionKind, name: &str) -> Option<&Quarantined> {
        self.quarantined.iter().find(|held| held.kind == kind && &*held.definition.name == name)
    }

    fn definitions_mut(&mut self, kind: DefinitionKind) -> &mut Vec<Definition> {
        match kind {
            DefinitionKind::Tool => &mut self.tools,
            DefinitionKind::Prompt => &mut self.prompts,
            DefinitionKind::Resource => &mut self.resources,
            DefinitionKind::ResourceTemplate => &mut self.resource_templates,
        }
    }

    /// Checks the bounds and the uniqueness of names.
    pub fn check(&self) -> Result<(), CatalogError> {
        let mut offered = 0;
        for kind in DefinitionKind::ALL {
            let what = kind.plural();
            let held = self.quarantined.iter().filter(|held| held.kind == kind);
            let mut names = HashSet::new();
            for definition in self.definitions(kind).iter().chain(held.map(|held| &held.definition)) {
                offered += definition.bytes();
                if !names.insert(&definition.name) {
                    return Err(CatalogError::Duplicate { what, name: definition.name.clone() });
                }
            }
            if names.len() > DEFINITIONS_MAX {
                return Err(CatalogError::TooMany { what, count: names.len() });
            }
        }
        let approved = self.quarantined.iter().filter_map(Quarantined::approved).map(Definition::bytes).sum();
        let bytes = offered.max(approved);
        if bytes > CATALOG_BYTES_MAX {
            return Err(CatalogError::TooLarge { bytes });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_tools_of_one_name_are_refused() -> Result<(), crate::name::NameError> {
        let mut catalog = Catalog::empty("acme".parse()?, "files".parse()?);
        catalog.tools = vec![Definition::new("read", "{}"), Definition::new("read", "{}")];
        assert_eq!(catalog.check(), Err(CatalogError::Duplicate { what: "tools", name: Arc::from("read") }));
        Ok(())
    }
}
