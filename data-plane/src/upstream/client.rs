//! Gantry's own questions to a server, as an MCP client: one request, one answer, as JSON or as the last event of a
//! stream. Used to learn what a server offers; agents' calls do not come this way.

use std::time::Duration;

use bytes::Bytes;
use gantry_model::resource::Transport;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use serde_json::{Value, json};

use crate::config::tenant::Server;
use crate::mcp::headers::{METHOD, PROTOCOL_VERSION, SESSION_ID};
use crate::mcp::sse::EventScanner;
use crate::mcp::{Era, VERSION_LEGACY, VERSION_MODERN};
use crate::upstream::Upstreams;
use crate::upstream::health::is_out_of_order;
use crate::upstream::http::Outbound;

/// Most bytes of one answer: a page of definitions.
const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A conversation with one server.
pub(crate) struct Conversation<'a> {
    upstreams: &'a Upstreams,
    server: &'a Server,
    era: Era,
    session: Option<HeaderValue>,
    timeout: Duration,
    next_id: u64,
}

/// Why a server gave no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    /// It could not be asked; the message is for admins.
    #[error("{0}")]
    Failed(String),
    /// It answered with a JSON-RPC error.
    #[error("the server answered with error {code}: {message}")]
    Refused {
        /// JSON-RPC's code.
        code: i64,
        /// The server's words.
        message: String,
    },
}

impl<'a> Conversation<'a> {
    pub(crate) fn new(upstreams: &'a Upstreams, server: &'a Server, era: Era, timeout: Duration) -> Self {
        Conversation { upstreams, server, era, session: None, timeout, next_id: 1 }
    }

    /// Asks for a method's result.
    pub(crate) async fn ask(&mut self, method: &'static str, mut params: Value) -> Result<Value, AskError> {
        let id = self.next_id;
        self.next_id += 1;
        if self.era == Era::Modern {
            params["_meta"] = json!({
                "io.modelcontextprotocol/protocolVersion": VERSION_MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
            });
        }
        let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let answer =
            self.exchange(method, message).await?.ok_or_else(|| failed("the server gave no answer"))?;
        if let Some(error) = answer.get("error") {
            return Err(AskError::Refused {
                code: error["code"].as_i64().unwrap_or(0),
                message: error["message"].as_str().unwrap_or_default().chars().take(300).collect(),
            });
        }
        answer.get("result").cloned().ok_or_else(|| failed("the server's answer has no result"))
    }

    /// Tells the server something that it does not answer.
    pub(crate) async fn tell(&mut self, method: &'static str) -> Result<(), AskError> {
        let message = json!({"jsonrpc": "2.0", "method": method});
        self.exchange(method, message).await.map(|_| ())
    }

    /// Ends the session, if there is one; a server that does not care is fine.
    pub(crate) async fn end(mut self) {
        if self.session.is_some() {
            let _ = self.send(Method::DELETE, None, Bytes::new()).await;
            self.session = None;
        }
    }

    async fn exchange(&mut self, method: &'static str, message: Value) -> Result<Option<Value>, AskError> {
        if let Transport::Stdio { .. } = self.server.spec.transport {
            let process =
                self.upstreams.stdio(self.server).map_err(|_| failed("this node does not run processes"))?;
            let asked = process.ask(message, self.timeout).await;
            self.tell_health(asked.is_ok());
            return asked;
        }
        let body = Bytes::from(message.to_string());
        let response = self.send(Method::POST, Some(method), body).await?;
        let (head, body) = response.into_parts();
        if let Some(session) = head.headers.get(SESSION_ID) {
            self.session = Some(session.clone());
        }
        if head.status == StatusCode::ACCEPTED || head.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let collected =
            tokio::time::timeout(self.timeout, Limited::new(body, ANSWER_BYTES_MAX).collect()).await;
        let bytes = match collected {
            Ok(Ok(collected)) => collected.to_bytes(),
            Ok(Err(_)) => return Err(failed("the server's answer broke off or is too large")),
            Err(_) => return Err(failed("the server's answer was late")),
        };
        let is_stream = head
            .headers
            .get(CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .is_some_and(|value| value.starts_with("text/event-stream"));
        let answer = if is_stream { answer_in_stream(&bytes) } else { serde_json::from_slice(&bytes).ok() };
        match answer {
            Some(answer) => Ok(Some(answer)),
            None => Err(failed(format!("the server answered with HTTP status {}", head.status.as_u16()))),
        }
    }

    async fn send(
        &self,
        http_method: Method,
        method: Option<&'static str>,
        body: Bytes,
    ) -> Result<http::Response<hyper::body::Incoming>, AskError> {
        let Some(uri) = &self.server.uri else {
            return Err(failed("the server is not reached over HTTP"));
        };
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match (self.era, method) {
            (Era::Modern, Some(method)) => {
                headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(VERSION_MODERN));
                headers.insert(METHOD, HeaderValue::from_static(method));
            }
            (Era::Legacy, Some("initialize")) => {}
            _ => {
                headers.insert(PROTOCOL_VERSION, HeaderValue::from_static(VERSION_LEGACY));
            }
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, session.clone());
        }
        let credential = self.server.credential_header().map_err(|rejection| failed(rejection.message()))?;
        headers.extend(credential.map(|(name, value)| (Some(name), value)));
        let outbound = Outbound { uri, method: http_method, headers, body, timeout: self.timeout };
        let sent = self.upstreams.http.send(outbound).await;
        self.tell_health(sent.as_ref().is_ok_and(|response| !is_out_of_order(response.status())));
        sent.map_err(|failure| failed(failure.message()))
    }

    /// Agents' calls may go to a server again as soon as it answers the gateway.
    fn tell_health(&self, answered: bool) {
        let health = self.upstreams.health(self.server);
        if answered { health.answered() } else { health.unanswered() }
    }
}

fn answer_in_stream(bytes: &[u8]) -> Option<Value> {
    let mut answer = None;
    EventScanner::with_limit(ANSWER_BYTES_MAX).scan(bytes, |data| {
        if let Ok(message) = serde_json::from_slice::<Value>(data)
            && (message.get("result").is_some() || message.get("error").is_some())
        {
            answer = Some(message);
        }
    });
    answer
}

pub(crate) fn failed(message: impl Into<String>) -> AskError {
    AskError::Failed(message.into())
}
