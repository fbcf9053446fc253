//! Real clients, all driven the same way: list the tools, call one, and try another that may be refused.

use std::fmt;
use std::time::Duration;

use rmcp::ServiceError;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientInitializeError, ClientLifecycleMode, ClientServiceExt, RunningService};
use rmcp::service::{Peer, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

use super::MayBeMissing;
use super::install::{InstallError, Node, Python};
use crate::process::{ProcessError, run};

/// The time one client has for everything it does. The slowest takes 2 s on a busy machine.
const CLIENT_TIME_MAX: Duration = Duration::from_secs(60);

/// A client, and the way it agrees on a protocol revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Client {
    /// Python SDK, default mode: discovers, else initializes.
    PythonAuto,
    /// TypeScript SDK 1: initializes.
    TypeScriptV1,
    /// TypeScript SDK 2, default mode: initializes.
    TypeScriptV2,
    /// TypeScript SDK 2 pinned to 2026-07-28.
    TypeScriptV2Pinned,
    /// Rust SDK: discovers, else initializes.
    RustAuto,
    /// Rust SDK: initializes.
    RustInitialize,
    /// Rust SDK: discovers.
    RustDiscover,
}

/// Where a client connects to.
#[derive(Clone)]
pub struct Target {
    url: String,
    key: Option<String>,
    /// What tells a script of another way than Streamable HTTP.
    way: Option<(&'static str, String)>,
}

/// One call of a tool.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    name: &'static str,
    arguments: Value,
}

/// What a client saw.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// The protocol revision that was agreed on.
    pub protocol: String,
    /// The names of the tools, in the order of the list.
    pub tools: Vec<String>,
    /// The result of the call, as the client's library shows it.
    pub call: Value,
    /// `{"error": {"code", "message", "data"}}` or `{"result": ...}` of the second call, if there was one.
    pub refused: Option<Value>,
}

/// Why a client did not get to its end.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The client could not be installed.
    #[error("the client is not installed")]
    Install(#[from] InstallError),
    /// The client did not run.
    #[error("the client did not run to its end")]
    Process(#[from] ProcessError),
    /// The client ended with an error.
    #[error("the client failed\n{0}")]
    Failed(String),
    /// The client printed something else than an outcome.
    #[error("the client printed what is not an outcome: {output}")]
    Output {
        /// What it printed.
        output: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The Rust client could not connect.
    #[error("the client did not connect")]
    Connect(#[source] Box<ClientInitializeError>),
    /// The Rust client's list or first call failed.
    #[error("the client's request failed")]
    Request(#[source] Box<ServiceError>),
    /// The Rust client took too long.
    #[error("the client took longer than {} s", CLIENT_TIME_MAX.as_secs())]
    TooLong,
}

impl MayBeMissing for ClientError {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Install(error) => error.missing(),
            _ => None,
        }
    }
}

impl Target {
    /// An endpoint that asks for no key.
    #[must_use]
    pub fn open(url: impl Into<String>) -> Self {
        Self { url: url.into(), key: None, way: None }
    }

    /// An endpoint that wants a bearer key.
    #[must_use]
    pub fn with_key(url: impl Into<String>, key: impl Into<String>) -> Self {
        Self { url: url.into(), key: Some(key.into()), way: None }
    }

    /// The same by HTTP+SSE of 2024-11-05, which only the first TypeScript client speaks here.
    #[must_use]
    pub fn by_sse(self) -> Self {
        Self { way: Some(("MCP_TRANSPORT", "sse".to_owned())), ..self }
    }

    /// A server that the client starts as a child process. The clients written in Rust have no such way here.
    #[must_use]
    pub fn by_command(words: &[String]) -> Self {
        Self { url: String::new(), key: None, way: Some(("MCP_COMMAND", json!(words).to_string())) }
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Target")
            .field("url", &self.url)
            .field("has_key", &self.key.is_some())
            .finish()
    }
}

impl Call {
    /// A call with an object of arguments.
    #[must_use]
    pub fn new(name: &'static str, arguments: Value) -> Self {
        Self { name, arguments }
    }
}

impl Client {
    /// Connects, lists the tools, makes the first call, and tries the second one.
    ///
    /// # Errors
    /// When the client cannot be installed, or anything but the second call fails.
    pub async fn observe(
        self,
        target: &Target,
        call: &Call,
        refused: Option<&Call>,
    ) -> Result<Outcome, ClientError> {
        let command = match self {
            Self::PythonAuto => Python::install().await?.command("python-client.py"),
            Self::TypeScriptV1 => Node::install().await?.command("typescript-v1.mjs"),
            Self::TypeScriptV2 => Node::install().await?.command("typescript-v2.mjs"),
            Self::TypeScriptV2Pinned => {
                let mut command = Node::install().await?.command("typescript-v2.mjs");
                command.env("MCP_PIN", ProtocolVersion::V_2026_07_28.as_str());
                command
            }
            Self::RustAuto | Self::RustInitialize | Self::RustDiscover => {
                let observed = observe_rust(self.lifecycle(), target, call, refused);
                let observed = timeout(CLIENT_TIME_MAX, observed).await;
                return observed.unwrap_or(Err(ClientError::TooLong));
            }
        };
        observe_script(command, target, call, refused).await
    }

    /// All of them, in the order of a table.
    pub const ALL: [Self; 7] = [
        Self::PythonAuto,
        Self::TypeScriptV1,
        Self::TypeScriptV2,
        Self::TypeScriptV2Pinned,
        Self::RustAuto,
        Self::RustInitialize,
        Self::RustDiscover,
    ];

    /// A name for people.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::PythonAuto => "Python, auto",
            Self::TypeScriptV1 => "TS v1",
            Self::TypeScriptV2 => "TS v2, legacy",
            Self::TypeScriptV2Pinned => "TS v2, 2026-07-28",
            Self::RustAuto => "rmcp, discovers or initializes",
            Self::RustInitialize => "rmcp, initializes",
            Self::RustDiscover => "rmcp, discovers",
        }
    }

    /// Whether it speaks 2026-07-28 with a server that speaks everything.
    #[must_use]
    pub fn is_modern(self) -> bool {
        !matches!(self, Self::TypeScriptV1 | Self::TypeScriptV2 | Self::RustInitialize)
    }

    pub(crate) fn lifecycle(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::RustDiscover => ClientLifecycleMode::Discover { preferred_versions },
            Self::RustAuto => ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
            _ => ClientLifecycleMode::Initialize,
        }
    }
}

async fn observe_script(
    mut command: Command,
    target: &Target,
    call: &Call,
    refused: Option<&Call>,
) -> Result<Outcome, ClientError> {
    command.env("MCP_URL", &target.url);
    if let Some(key) = &target.key {
        command.env("MCP_KEY", key);
    }
    if let Some((variable, value)) = &target.way {
        command.env(variable, value);
    }
    for call in [Some(call), refused].into_iter().flatten() {
        command.arg(json!(call).to_string());
    }
    let finished = run(command, CLIENT_TIME_MAX).await?;
    if !finished.status.success() {
        return Err(ClientError::Failed(finished.stdout + &finished.stderr));
    }
    serde_json::from_str(&finished.stdout)
        .map_err(|source| ClientError::Output { output: finished.stdout, source })
}

async fn observe_rust(
    lifecycle: ClientLifecycleMode,
    target: &Target,
    call: &Call,
    refused: Option<&Call>,
) -> Result<Outcome, ClientError> {
    let mut config = StreamableHttpClientTransportConfig::with_uri(target.url.clone());
    config.auth_header = target.key.clone();
    let transport = StreamableHttpClientTransport::from_config(config);
    let client: RunningService<RoleClient, ()> =
        ().serve_with_lifecycle(transport, lifecycle)
            .await
            .map_err(|error| ClientError::Connect(Box::new(error)))?;
    let request_error = |error| ClientError::Request(Box::new(error));
    let protocol = client.peer_info().map(|info| info.protocol_version.to_string()).unwrap_or_default();
    let tools = client.list_all_tools().await.map_err(request_error)?;
    let outcome = Outcome {
        protocol,
        tools: tools.into_iter().map(|tool| tool.name.into()).collect(),
        call: call_rust(&client, call).await.map_err(request_error)?,
        refused: match refused {
            None => None,
            Some(call) => Some(match call_rust(&client, call).await {
                Ok(result) => json!({ "result": result }),
                Err(ServiceError::McpError(error)) => json!({"error": {
                    "code": error.code.0,
                    "message": error.message,
                    "data": error.data,
                }}),
                Err(error) => return Err(request_error(error)),
            }),
        },
    };
    // Everything has been seen; how the connection ends is not what is tested.
    let _ = client.cancel().await;
    Ok(outcome)
}

async fn call_rust(client: &Peer<RoleClient>, call: &Call) -> Result<Value, ServiceError> {
    let mut request = CallToolRequestParams::new(call.name);
    request.arguments = call.arguments.as_object().cloned();
    let result = client.call_tool(request).await?;
    Ok(json!(result))
}
