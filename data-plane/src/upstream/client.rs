//! Gantry's own questions to a server, as an MCP client: one request, one answer. Used to learn what a server
//! offers; agents' calls do not come this way.
//!
//! Always holds: each answer is bounded in time and bytes. The client declares what clients can be asked for, because
//! some servers offer the tools that need it only then; a server that does ask is refused.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HeaderMap;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::config::server::Server;
use crate::mcp::VERSION_MODERN;
use crate::mcp::message::Method;
use crate::rejection::Upstream;
use crate::upstream::exchange::{Ask, Event, Exchange};
use crate::upstream::session::{AskFailure, LegacySession, Opening};
use crate::upstream::{Upstreams, modern};

/// Longest message of a server's error that is shown to admins, in characters.
const MESSAGE_CHARS_MAX: usize = 300;

/// What agents' clients may be able to do. Nobody stands behind this client to do it.
const CAPABILITIES: &str = r#"{"elicitation":{"form":{},"url":{}},"roots":{},"sampling":{}}"#;

/// A conversation with one server.
pub(crate) struct Conversation<'a> {
    way: Way<'a>,
    timeout: Duration,
}

enum Way<'a> {
    Modern { upstreams: &'a Upstreams, server: &'a Server },
    Session(Arc<LegacySession>),
}

/// Why a server gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It could not be asked; the message is for admins.
    #[error("{0}")]
    Failed(String),
    /// It failed.
    #[error("{}", .0.message())]
    Server(Upstream),
    /// It answered with a JSON-RPC error.
    #[error("the server answered with error {code}: {message}")]
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// The server's words.
        message: String,
    },
}

impl From<AskFailure> for AskError {
    fn from(failure: AskFailure) -> AskError {
        match failure {
            AskFailure::Expired => failed("the server ended the session"),
            AskFailure::Failed(failure) => AskError::Server(failure),
        }
    }
}

impl<'a> Conversation<'a> {
    /// With 2026-07-28, without a session.
    pub(crate) fn modern(upstreams: &'a Upstreams, server: &'a Server, timeout: Duration) -> Self {
        Conversation { way: Way::Modern { upstreams, server }, timeout }
    }

    /// Within a session of the legacy era.
    pub(crate) fn within(session: Arc<LegacySession>, timeout: Duration) -> Self {
        Conversation { way: Way::Session(session), timeout }
    }

    /// Asks for a method's result.
    pub(crate) async fn ask(&self, method: Method, params: Value) -> Result<Value, AskError> {
        let asking = async {
            match &self.way {
                Way::Modern { upstreams, server } => {
                    let id = upstreams.next_id();
                    let exchange = ask_modern(upstreams, server, id, method, params, self.timeout).await?;
                    read(&exchange.answer().await.map_err(AskError::Server)?)
                }
                Way::Session(session) => {
                    let id = session.next_id();
                    let body = request(id, &method, &params);
                    let ask = Ask { id, method, headers: HeaderMap::new(), body };
                    let mut exchange = session.ask(&ask, self.timeout).await?;
                    while let Some(event) = exchange.next().await {
                        match event.map_err(AskError::Server)? {
                            Event::Answer(answer) => return read(&answer),
                            Event::Request { id, message } => respond(session, &id, &message).await,
                            Event::Notification(_) => {}
                        }
                    }
                    Err(AskError::Server(Upstream::Unreachable))
                }
            }
        };
        let late = |_| AskError::Server(Upstream::Timeout(self.timeout));
        tokio::time::timeout(self.timeout, asking).await.map_err(late)?
    }
}

/// Sends a request of the gateway's own to a server of the modern era.
pub(crate) async fn ask_modern(
    upstreams: &Upstreams,
    server: &Server,
    id: u64,
    method: Method,
    mut params: Value,
    timeout: Duration,
) -> Result<Exchange, AskError> {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION_MODERN,
        "io.modelcontextprotocol/clientCapabilities": capabilities()?,
        "io.modelcontextprotocol/clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
    });
    let mut headers = HeaderMap::new();
    let credential = server.credential_header().map_err(|rejection| failed(rejection.message()))?;
    headers.extend(credential.map(|(name, value)| (Some(name), value)));
    let body = request(id, &method, &params);
    let ask = Ask { id, method, headers, body };
    modern::ask(upstreams, server, &ask, timeout).await.map_err(AskError::Server)
}

/// What the gateway's own session with a server is opened with: it belongs to no agent.
pub(crate) fn own_opening(server: &Server, timeout: Duration) -> Result<Opening, AskError> {
    let credential = server.credential_header().map_err(|rejection| failed(rejection.message()))?;
    Ok(Opening { capabilities: capabilities()?, credential, listens: true, timeout })
}

/// Answers what a server asks the gateway itself: it is there, and can do nothing else.
pub(crate) async fn respond(session: &LegacySession, id: &Bytes, request: &Bytes) {
    let Ok(Value::Object(request)) = serde_json::from_slice(request) else { return };
    let Ok(id) = serde_json::from_slice::<Value>(id) else { return };
    let answer = match request.get("method").and_then(Value::as_str) {
        Some("ping") => json!({"jsonrpc": "2.0", "id": id, "result": {}}),
        _ => {
            let error = json!({"code": -32601, "message": "nobody is there to be asked"});
            json!({"jsonrpc": "2.0", "id": id, "error": error})
        }
    };
    // A session that does not take it is found to be over by the next question.
    let _ = session.tell(answer.to_string().into()).await;
}

fn capabilities() -> Result<Box<RawValue>, AskError> {
    RawValue::from_string(CAPABILITIES.to_owned()).map_err(|error| failed(error.to_string()))
}

pub(crate) fn failed(message: impl Into<String>) -> AskError {
    AskError::Failed(message.into())
}

fn request(id: u64, method: &Method, params: &Value) -> Bytes {
    json!({"jsonrpc": "2.0", "id": id, "method": method.as_str(), "params": params}).to_string().into()
}

fn read(answer: &Bytes) -> Result<Value, AskError> {
    result_of(serde_json::from_slice(answer).map_err(|_| AskError::Server(Upstream::Protocol))?)
}

fn result_of(mut answer: Value) -> Result<Value, AskError> {
    if let Some(error) = answer.get("error") {
        return Err(AskError::Refused {
            code: error["code"].as_i64().unwrap_or(0),
            message: error["message"].as_str().unwrap_or_default().chars().take(MESSAGE_CHARS_MAX).collect(),
        });
    }
    match answer.get_mut("result") {
        Some(result) => Ok(result.take()),
        None => Err(AskError::Server(Upstream::Protocol)),
    }
}
