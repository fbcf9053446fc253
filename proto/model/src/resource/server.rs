//! What an upstream server is, and its document form.
//!
//! Always holds: a server has exactly one transport; what belongs to a `command` only is refused beside a `url`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::Url;

use super::check::error;
use super::{ExternalCheck, Inspection, SpecError};
use crate::name::CredentialName;

/// How long a call may take when the server's specification is silent, in milliseconds.
pub const TIMEOUT_MS_DEFAULT: u32 = 60_000;
/// Longest deadline of a call, in milliseconds: an hour, beyond which a task is the right form.
pub const TIMEOUT_MS_MAX: u32 = 3_600_000;
/// Requests at once from one node when the specification is silent: far more than a healthy server needs, and few
/// enough that a stuck one cannot take a node's memory.
pub const CONCURRENCY_DEFAULT: u32 = 256;
/// Most requests at once that a specification may allow: each may hold a connection, and a node has a few tens of
/// thousands of those for all servers together.
pub const CONCURRENCY_MAX: u32 = 4_096;
/// Processes of a `command` at once on one node when the specification is silent: one per session that needs its own.
pub const PROCESSES_DEFAULT: u32 = 16;
/// Most processes that a specification may allow.
pub const PROCESSES_MAX: u32 = 256;
/// Least address space of a process in MiB: below it no common runtime starts.
pub const MEMORY_MB_MIN: u32 = 16;
/// Most address space of a process in MiB: 1 TiB, beyond which a limit is none.
pub const MEMORY_MB_MAX: u32 = 1024 * 1024;

/// An upstream MCP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSpec {
    /// How it is reached.
    pub transport: Transport,
    /// The credential that is used towards it.
    pub credential: Option<CredentialName>,
    /// How long a call may take, in milliseconds.
    pub timeout_ms: u32,
    /// What becomes of a definition that is not as it was recorded.
    pub pin: Pin,
    /// Requests at once from one node: 1 to [`CONCURRENCY_MAX`].
    pub concurrency: u32,
    /// Processes at once on one node: 1 to [`PROCESSES_MAX`]. Of a `command`; [`PROCESSES_DEFAULT`] for a `url`.
    pub processes: u32,
    /// Address space of each process in MiB, where it is limited. Of a `command`; `None` for a `url`.
    pub memory_mb: Option<u32>,
    /// What is looked for in its calls, and taken out of its answers.
    pub inspection: Inspection,
    /// A service that is asked about its calls, after that of its tenant; `None`: nobody else is.
    pub check: Option<ExternalCheck>,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    /// Streamable HTTP.
    Http {
        /// The MCP endpoint of the server: `http` or `https`, with a host.
        url: Url,
    },
    /// A child process of the node.
    Stdio {
        /// Program and arguments; not empty. No shell reads it.
        command: Vec<String>,
        /// Set besides the few variables that a child inherits.
        environment: BTreeMap<String, String>,
    },
}

/// What becomes of a definition that is not as it was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pin {
    /// It is in force as soon as a node reports it.
    #[default]
    Auto,
    /// It is in quarantine until an admin approves it. The first catalog of a server is taken as it is.
    Review,
}

impl ServerSpec {
    /// A server with the defaults of everything but its transport.
    pub fn new(transport: Transport) -> ServerSpec {
        ServerSpec {
            transport,
            credential: None,
            timeout_ms: TIMEOUT_MS_DEFAULT,
            pin: Pin::Auto,
            concurrency: CONCURRENCY_DEFAULT,
            processes: PROCESSES_DEFAULT,
            memory_mb: None,
            inspection: Inspection::default(),
            check: None,
        }
    }

    pub(super) fn check(&self) -> Result<(), SpecError> {
        in_range("timeout_ms", self.timeout_ms, 1, TIMEOUT_MS_MAX)?;
        in_range("concurrency", self.concurrency, 1, CONCURRENCY_MAX)?;
        in_range("processes", self.processes, 1, PROCESSES_MAX)?;
        if let Some(memory_mb) = self.memory_mb {
            in_range("memory_mb", memory_mb, MEMORY_MB_MIN, MEMORY_MB_MAX)?;
        }
        self.inspection.check_of_server()?;
        self.check.as_ref().map_or(Ok(()), |check| check.check("check"))?;
        match &self.transport {
            Transport::Http { url } => self.check_http(url),
            Transport::Stdio { command, environment } => self.check_stdio(command, environment),
        }
    }

    fn check_http(&self, url: &Url) -> Result<(), SpecError> {
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(error("url", "must be http or https, with a host"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(error(
                "url",
                "holds a secret; put it with `gantry credential put` and name the credential",
            ));
        }
        if self.memory_mb.is_some() {
            return Err(error("memory_mb", OF_COMMAND));
        }
        if self.processes != PROCESSES_DEFAULT {
            return Err(error("processes", OF_COMMAND));
        }
        Ok(())
    }

    fn check_stdio(
        &self,
        command: &[String],
        environment: &BTreeMap<String, String>,
    ) -> Result<(), SpecError> {
        if command.first().is_none_or(String::is_empty) {
            return Err(error("command", "is empty"));
        }
        if command.len() > super::LIST_MAX || environment.len() > super::LIST_MAX {
            return Err(error("command", format!("has more than {} elements", super::LIST_MAX)));
        }
        if self.credential.is_some() {
            return Err(error("credential", "is sent as a header, which a `command` has not"));
        }
        Ok(())
    }
}

const OF_COMMAND: &str = "belongs to a `command`, not to a `url`";

fn in_range(field: &'static str, value: u32, min: u32, max: u32) -> Result<(), SpecError> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(error(field, format!("must be from {min} to {max}")))
}

/// The document form of a [`ServerSpec`].
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ServerDocument {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<Url>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    env: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    credential: Option<CredentialName>,
    #[serde(default = "default_timeout")]
    timeout_ms: u32,
    #[serde(default, skip_serializing_if = "is_default")]
    pin: Pin,
    #[serde(default = "default_concurrency", skip_serializing_if = "is_default_concurrency")]
    concurrency: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    processes: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    memory_mb: Option<u32>,
    #[serde(default, skip_serializing_if = "Inspection::is_default")]
    inspection: Inspection,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<ExternalCheck>,
}

fn default_timeout() -> u32 {
    TIMEOUT_MS_DEFAULT
}

fn default_concurrency() -> u32 {
    CONCURRENCY_DEFAULT
}

fn is_default_concurrency(concurrency: &u32) -> bool {
    *concurrency == CONCURRENCY_DEFAULT
}

fn is_default(pin: &Pin) -> bool {
    *pin == Pin::default()
}

impl TryFrom<ServerDocument> for ServerSpec {
    type Error = SpecError;

    fn try_from(document: ServerDocument) -> Result<ServerSpec, SpecError> {
        let transport = match (document.url, document.command) {
            (Some(_), None) if !document.env.is_empty() => return Err(error("env", OF_COMMAND)),
            (Some(_), None) if document.processes.is_some() => return Err(error("processes", OF_COMMAND)),
            (Some(url), None) => Transport::Http { url },
            (None, Some(command)) => Transport::Stdio { command, environment: document.env },
            (Some(_), Some(_)) => {
                return Err(error("url", "stands beside `command`; a server has one of them"));
            }
            (None, None) => return Err(error("url", "is missing; a server has a `url` or a `command`")),
        };
        Ok(ServerSpec {
            transport,
            credential: document.credential,
            timeout_ms: document.timeout_ms,
            pin: document.pin,
            concurrency: document.concurrency,
            processes: document.processes.unwrap_or(PROCESSES_DEFAULT),
            memory_mb: document.memory_mb,
            inspection: document.inspection,
            check: document.check,
        })
    }
}

impl From<&ServerSpec> for ServerDocument {
    fn from(spec: &ServerSpec) -> ServerDocument {
        let (url, command, env) = match &spec.transport {
            Transport::Http { url } => (Some(url.clone()), None, BTreeMap::new()),
            Transport::Stdio { command, environment } => (None, Some(command.clone()), environment.clone()),
        };
        ServerDocument {
            url,
            command,
            env,
            credential: spec.credential.clone(),
            timeout_ms: spec.timeout_ms,
            pin: spec.pin,
            concurrency: spec.concurrency,
            processes: (spec.processes != PROCESSES_DEFAULT).then_some(spec.processes),
            memory_mb: spec.memory_mb,
            inspection: spec.inspection.clone(),
            check: spec.check.clone(),
        }
    }
}
