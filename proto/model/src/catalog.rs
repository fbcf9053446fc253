//! A server's catalog: what it offers, as recorded, each definition with its hash.
//!
//! Always holds: a definition's `hash` is the blake3 of its `json`, byte for byte; definitions of a kind are in
//! the server's order and have unique names; the bounds below are kept.

use std::sync::Arc;

use crate::name::{ServerName, TenantName};

/// Most definitions of one kind: an agent's model cannot use more, and it bounds the list answers that a node keeps.
pub const DEFINITIONS_MAX: usize = 2_048;
/// Most bytes of all definitions of a server, so that a catalog stays one Raft command and one stream message.
pub const CATALOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// One tool, prompt, resource or template as the server described it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// A tool's or prompt's name, a resource's URI, a template's URI template.
    pub name: Arc<str>,
    /// The definition as JSON, as the server sent it.
    pub json: Arc<str>,
    /// blake3 of `json`.
    pub hash: [u8; 32],
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
    /// Its answer to `initialize` as JSON, when it speaks the legacy era.
    pub initialize_result: Option<Arc<str>>,
    /// Its answer to `server/discover` as JSON, when it speaks the modern era.
    pub discover_result: Option<Arc<str>>,
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
    /// Records a definition with its hash.
    pub fn new(name: impl Into<Arc<str>>, json: impl Into<Arc<str>>) -> Definition {
        let json = json.into();
        Definition { name: name.into(), hash: *blake3::hash(json.as_bytes()).as_bytes(), json }
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
            initialize_result: None,
            discover_result: None,
        }
    }

    /// Checks the bounds and the uniqueness of names.
    pub fn check(&self) -> Result<(), CatalogError> {
        let mut bytes = 0;
        for (what, definitions) in self.kinds() {
            if definitions.len() > DEFINITIONS_MAX {
                return Err(CatalogError::TooMany { what, count: definitions.len() });
            }
            let mut names = std::collections::HashSet::with_capacity(definitions.len());
            for definition in definitions {
                bytes += definition.json.len() + definition.name.len();
                if !names.insert(&definition.name) {
                    return Err(CatalogError::Duplicate { what, name: definition.name.clone() });
                }
            }
        }
        if bytes > CATALOG_BYTES_MAX {
            return Err(CatalogError::TooLarge { bytes });
        }
        Ok(())
    }

    fn kinds(&self) -> [(&'static str, &[Definition]); 4] {
        [
            ("tools", &self.tools),
            ("prompts", &self.prompts),
            ("resources", &self.resources),
            ("resource templates", &self.resource_templates),
        ]
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
