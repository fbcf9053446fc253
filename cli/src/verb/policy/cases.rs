//! Files of cases: who calls what, and what the policies shall say of it.
//!
//! Always holds: a field that means nothing is refused, and so is a case that says no one thing that is asked for; what
//! a case leaves out is the same on every machine and every day. It decides nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gantry_model::{AgentName, GroupName, ProviderName, ServerName, TenantName, UserId};
use gantry_policy::{Hints, Target};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// When a case is that does not say it: a Monday, 2026-01-05T12:00:00Z. Not now, so that a case does not turn out
/// otherwise tomorrow.
const AT_SECONDS: u64 = 1_767_614_400;
/// Most cases of one run; more are the sign of a mistake.
pub(super) const CASES_MAX: usize = 100_000;

/// A file of cases.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Cases {
    /// Whose policies are asked; the one tenant of the documents when absent.
    pub(super) tenant: Option<TenantName>,
    /// What servers offer, as they answer `tools/list`.
    #[serde(default)]
    pub(super) tools: BTreeMap<ServerName, Tools>,
    pub(super) cases: Vec<Case>,
}

/// The definitions of a server's tools.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Tools {
    /// They stand here.
    Here(Vec<Value>),
    /// They stand in a JSON file, by its path from this one: a list, or the result of `tools/list`.
    File(String),
}

/// One case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    name: Option<String>,
    pub(super) agent: AgentName,
    /// Besides those of the agent's document.
    #[serde(default)]
    pub(super) groups: Vec<GroupName>,
    /// For whom the agent acts.
    pub(super) user: Option<UserId>,
    /// In which groups the token says that user is.
    #[serde(default)]
    pub(super) user_groups: BTreeSet<String>,
    /// Whose token the agent shows; the user's where there is one.
    pub(super) provider: Option<ProviderName>,
    #[serde(default)]
    pub(super) scopes: BTreeSet<String>,
    #[serde(default)]
    pub(super) tags: BTreeMap<String, BTreeSet<String>>,
    tool: Option<String>,
    prompt: Option<String>,
    resource: Option<String>,
    server: Option<String>,
    pub(super) arguments: Option<Value>,
    at: Option<String>,
    #[serde(default)]
    pub(super) era: Era,
    revision: Option<String>,
    pub(super) expect: Expected,
    /// Policies that have to be among those that decide, by name or as `name/id`.
    #[serde(default)]
    pub(super) because: Vec<String>,
}

/// What the policies shall say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Expected {
    Allow,
    /// Permitted once it is approved.
    Approval,
    /// A policy denies it, or none permits it.
    Deny,
    /// Denied, as a node would, only because a policy cannot be evaluated.
    Error,
}

/// The era of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Era {
    #[default]
    Modern,
    Legacy,
}

/// What is asked for: the kind, the server, and what the server calls it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    Tool(ServerName, String),
    Prompt(ServerName, String),
    Resource(ServerName, String),
    Subscribe(ServerName, String),
    CompletePrompt(ServerName, String),
    CompleteResource(ServerName, String),
    Server(ServerName),
}

impl Case {
    /// What it is called in what is printed.
    pub(super) fn title(&self) -> String {
        match (&self.name, self.asked()) {
            (Some(name), _) => name.clone(),
            (None, Ok(asked)) => format!("{} {asked}", self.agent),
            (None, Err(_)) => self.agent.to_string(),
        }
    }

    /// The one thing that it asks for.
    pub(super) fn asked(&self) -> Result<Asked, String> {
        let named = [&self.tool, &self.prompt, &self.resource, &self.server];
        let place = named.iter().position(|named| named.is_some());
        let (Some(place), 1) = (place, named.iter().filter(|named| named.is_some()).count()) else {
            return Err("a case has one of `tool`, `prompt`, `resource` and `server`".to_owned());
        };
        let text = named[place].as_deref().unwrap_or_default();
        let server = |name: &str| name.parse().map_err(|error| format!("server {name:?}: {error}"));
        if place == 3 {
            return Ok(Asked::Server(server(text)?));
        }
        let (of, name) = text.split_once('/').ok_or_else(|| format!("{text:?} is not SERVER/NAME"))?;
        let (of, name) = (server(of)?, name.to_owned());
        Ok(match place {
            0 => Asked::Tool(of, name),
            1 => Asked::Prompt(of, name),
            _ => Asked::Resource(of, name),
        })
    }

    /// When it is, in seconds since 1970.
    pub(super) fn at_seconds(&self) -> Result<u64, String> {
        let Some(at) = &self.at else { return Ok(AT_SECONDS) };
        let moment = OffsetDateTime::parse(at, &Rfc3339).ok();
        moment
            .and_then(|moment| u64::try_from(moment.unix_timestamp()).ok())
            .ok_or_else(|| format!("at: {at:?} is no time since 1970, such as 2026-01-05T12:00:00Z"))
    }

    /// The revision of the protocol.
    pub(super) fn revision(&self) -> &str {
        self.revision.as_deref().unwrap_or(match self.era {
            Era::Modern => "2026-07-28",
            Era::Legacy => "2025-11-25",
        })
    }
}

impl Era {
    /// As policies read it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Era::Modern => "modern",
            Era::Legacy => "legacy",
        }
    }
}

impl Expected {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Expected::Allow => "allow",
            Expected::Approval => "approval",
            Expected::Deny => "deny",
            Expected::Error => "error",
        }
    }
}

impl Asked {
    /// The server that it is of.
    pub(super) fn server(&self) -> &ServerName {
        match self {
            Asked::Tool(server, _)
            | Asked::Prompt(server, _)
            | Asked::Resource(server, _)
            | Asked::Subscribe(server, _)
            | Asked::CompletePrompt(server, _)
            | Asked::CompleteResource(server, _)
            | Asked::Server(server) => server,
        }
    }

    /// What the evaluator is asked; a tool with what its server claims of it.
    pub(super) fn target(&self, hints: Hints) -> Target<'_> {
        match self {
            Asked::Tool(server, name) => Target::Tool { server, name, hints },
            Asked::Prompt(server, name) => Target::Prompt { server, name },
            Asked::Resource(server, uri) => Target::Resource { server, uri },
            Asked::Subscribe(server, uri) => Target::Subscribe { server, uri },
            Asked::CompletePrompt(server, name) => Target::CompletePrompt { server, name },
            Asked::CompleteResource(server, uri) => Target::CompleteResource { server, uri },
            Asked::Server(server) => Target::Server { server },
        }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Asked::Tool(server, name) => write!(formatter, "calls {server}/{name}"),
            Asked::Prompt(server, name) => write!(formatter, "gets prompt {server}/{name}"),
            Asked::Resource(server, uri) => write!(formatter, "reads {server}/{uri}"),
            Asked::Subscribe(server, uri) => write!(formatter, "subscribes to {server}/{uri}"),
            Asked::CompletePrompt(server, name) => write!(formatter, "completes prompt {server}/{name}"),
            Asked::CompleteResource(server, uri) => write!(formatter, "completes {server}/{uri}"),
            Asked::Server(server) => write!(formatter, "uses server {server}"),
        }
    }
}
