//! What an endpoint is: servers behind one URL, and under which names their tools and prompts are offered.
//!
//! Always holds after [`EndpointSpec::check`]: `bare` has one server and no aliases; an alias belongs to one of the
//! endpoint's servers, and its name needs no rewriting for any client.
//!
//! Which names a catalog gets under a naming is [`crate::exposed`]'s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::check::error;
use super::{Authentication, SpecError};
use crate::exposed::is_exposable;
use crate::name::{ServerName, TOOL_NAME_BYTES_MAX};

/// Most servers of an endpoint: a model that is offered the tools of more finds none of them.
pub const ENDPOINT_SERVERS_MAX: usize = 64;
/// Most aliases of an endpoint: sixteen for each of its servers at most.
pub const ALIASES_MAX: usize = 1_024;
/// Longest name of an alias in bytes: what every client and model takes.
pub const ALIAS_NAME_BYTES_MAX: usize = crate::exposed::EXPOSED_NAME_BYTES_MAX;

/// A URL handed to agents: `/{tenant}/{endpoint}/mcp`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointSpec {
    /// The servers behind it: 1 to [`ENDPOINT_SERVERS_MAX`], each once; exactly one when `naming` is bare.
    pub servers: Vec<ServerName>,
    /// How their tools and prompts are called.
    #[serde(default, skip_serializing_if = "is_default")]
    pub naming: Naming,
    /// Names that replace those of single tools and prompts, or are the only ones, by `naming`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub aliases: BTreeMap<String, Alias>,
    /// Whether callers without a key are served, as the agent `anonymous`. Loopback listeners only.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// By what callers are known, and what their tokens have to be for.
    #[serde(default, skip_serializing_if = "Authentication::is_default")]
    pub authentication: Authentication,
}

/// How the tools and prompts of an endpoint's servers are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Naming {
    /// As the one server calls them.
    #[default]
    Bare,
    /// `server__name`; what aliases name is called by its aliases instead.
    Prefixed,
    /// Only what aliases name is offered, by its aliases.
    Aliased,
}

/// What stands behind an alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "AliasDocument", into = "AliasDocument")]
pub struct Alias {
    /// One of the endpoint's servers.
    pub server: ServerName,
    /// What of it.
    pub target: AliasTarget,
}

/// A tool or prompt by the name that its server gives it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AliasTarget {
    /// A tool.
    Tool(String),
    /// A prompt.
    Prompt(String),
}

impl AliasTarget {
    /// The name that the server gives it.
    pub fn name(&self) -> &str {
        match self {
            AliasTarget::Tool(name) | AliasTarget::Prompt(name) => name,
        }
    }
}

impl EndpointSpec {
    /// An endpoint of one server whose names stand unchanged, for agents with a key.
    pub fn bare(server: ServerName) -> EndpointSpec {
        EndpointSpec {
            servers: vec![server],
            naming: Naming::Bare,
            aliases: BTreeMap::new(),
            anonymous: false,
            authentication: Authentication::default(),
        }
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.servers.is_empty() {
            return Err(error("servers", "is empty; an endpoint has at least one server"));
        }
        if self.servers.len() > ENDPOINT_SERVERS_MAX {
            return Err(error("servers", format!("has more than {ENDPOINT_SERVERS_MAX} servers")));
        }
        let mut seen = BTreeSet::new();
        if let Some((index, twice)) =
            self.servers.iter().enumerate().find(|(_, server)| !seen.insert(server.as_str()))
        {
            return Err(error(format!("servers[{index}]"), format!("names {twice} a second time")));
        }
        if self.naming == Naming::Bare && self.servers.len() > 1 {
            let count = self.servers.len();
            return Err(error(
                "servers",
                format!("has {count} servers, and `naming: bare` takes one; say `naming: prefixed`"),
            ));
        }
        self.authentication.check()?;
        self.check_aliases()
    }

    fn check_aliases(&self) -> Result<(), SpecError> {
        if self.naming == Naming::Bare && !self.aliases.is_empty() {
            return Err(error("aliases", "has no meaning under `naming: bare`; say `prefixed` or `aliased`"));
        }
        if self.aliases.len() > ALIASES_MAX {
            return Err(error("aliases", format!("has more than {ALIASES_MAX} elements")));
        }
        for (name, alias) in &self.aliases {
            let at = |field: &str| format!("aliases.{name}{field}");
            if !is_exposable(name) {
                return Err(error(
                    at(""),
                    format!("an alias is 1 to {ALIAS_NAME_BYTES_MAX} characters of `A-Z a-z 0-9 _ . -`"),
                ));
            }
            if !self.servers.contains(&alias.server) {
                let servers = self.servers.iter().map(ServerName::as_str);
                let near = crate::nearest::nearest(alias.server.as_str(), servers);
                let near = near.map(|near| format!("; nearest: {near}")).unwrap_or_default();
                let message = format!("{} is none of the endpoint's servers{near}", alias.server);
                return Err(error(at(".server"), message));
            }
            let (field, target) = match &alias.target {
                AliasTarget::Tool(target) => (".tool", target),
                AliasTarget::Prompt(target) => (".prompt", target),
            };
            if target.is_empty() || target.len() > TOOL_NAME_BYTES_MAX {
                return Err(error(at(field), format!("must have 1 to {TOOL_NAME_BYTES_MAX} bytes")));
            }
        }
        Ok(())
    }
}

fn is_default(naming: &Naming) -> bool {
    *naming == Naming::default()
}

/// The document form of an [`Alias`].
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct AliasDocument {
    server: ServerName,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tool: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
}

impl TryFrom<AliasDocument> for Alias {
    type Error = &'static str;

    fn try_from(document: AliasDocument) -> Result<Alias, &'static str> {
        let target = match (document.tool, document.prompt) {
            (Some(tool), None) => AliasTarget::Tool(tool),
            (None, Some(prompt)) => AliasTarget::Prompt(prompt),
            (Some(_), Some(_)) => return Err("names a `tool` and a `prompt`; an alias has one of them"),
            (None, None) => return Err("names neither a `tool` nor a `prompt`"),
        };
        Ok(Alias { server: document.server, target })
    }
}

impl From<Alias> for AliasDocument {
    fn from(alias: Alias) -> AliasDocument {
        let (tool, prompt) = match alias.target {
            AliasTarget::Tool(tool) => (Some(tool), None),
            AliasTarget::Prompt(prompt) => (None, Some(prompt)),
        };
        AliasDocument { server: alias.server, tool, prompt }
    }
}
