//! A small MCP client over Streamable HTTP: enough to call one tool as an agent does, in either era, and to relay for
//! an agent that speaks standard input and output only ([`Relay`]).
//!
//! Always holds: the agent's key goes to the URL it was given for and nowhere else (redirects are not followed); an
//! answer has at most [`ANSWER_BYTES_MAX`] bytes. A call declares no capability, so a server cannot ask for anything.

mod answer;
mod envelope;
mod events;
mod lines;
mod reader;
mod relay;
mod transport;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::{Map, Value, json};
use url::Url;

use crate::context::SecretText;
use answer::Answer;
pub(crate) use answer::{McpError, Refusal};
pub(crate) use relay::Relay;
use transport::Transport;

/// Most bytes of an answer: far more than a terminal or a model takes.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The revision without sessions.
const MODERN: &str = "2026-07-28";
/// The revisions with `initialize`, the newest first.
const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// Code of a refused protocol version.
const UNSUPPORTED_VERSION: i64 = -32022;
/// Codes that only a server of the modern era uses, besides [`UNSUPPORTED_VERSION`].
const MODERN_CODES: [i64; 2] = [-32020, -32021];

/// A protocol revision to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revision {
    /// Without sessions.
    Modern,
    /// With `initialize`; a text of [`LEGACY`].
    Legacy(&'static str),
}

/// Where to call, and as whom.
#[derive(Debug)]
pub(crate) struct Target {
    /// The endpoint.
    pub(crate) url: Url,
    /// The agent's key; `None` for an anonymous endpoint.
    pub(crate) key: Option<SecretText>,
    /// PEM certificate to trust besides the well-known authorities.
    pub(crate) certificate: Option<PathBuf>,
}

/// A client of one endpoint.
pub(crate) struct Client {
    transport: Transport,
}

impl FromStr for Revision {
    type Err = String;

    fn from_str(text: &str) -> Result<Revision, String> {
        if text == MODERN {
            return Ok(Revision::Modern);
        }
        LEGACY.into_iter().find(|known| *known == text).map(Revision::Legacy).ok_or_else(|| {
            format!("unknown protocol revision {text:?}; one of {MODERN}, {}", LEGACY.join(", "))
        })
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Revision::Modern => formatter.write_str(MODERN),
            Revision::Legacy(text) => formatter.write_str(text),
        }
    }
}

impl Client {
    /// A client of an endpoint. It connects with its first call.
    pub(crate) fn new(target: Target) -> Result<Client, McpError> {
        Ok(Client { transport: Transport::new(target)? })
    }

    /// Calls a tool and returns the `result`. Without a `revision` it speaks the modern era, and the legacy one to
    /// an endpoint that knows no other.
    pub(crate) async fn call_tool(
        &self,
        name: &str,
        arguments: &Map<String, Value>,
        revision: Option<Revision>,
    ) -> Result<Value, McpError> {
        match revision {
            Some(Revision::Modern) => self.call_modern(name, arguments).await,
            Some(Revision::Legacy(version)) => self.call_legacy(name, arguments, version).await,
            None => match self.call_modern(name, arguments).await {
                Err(refused) if may_be_legacy(&refused) => {
                    match self.call_legacy(name, arguments, LEGACY[0]).await {
                        // It does not speak the legacy era either: the first answer says more.
                        Err(McpError::Handshake(_)) => Err(refused),
                        answered => answered,
                    }
                }
                answered => answered,
            },
        }
    }

    async fn call_modern(&self, name: &str, arguments: &Map<String, Value>) -> Result<Value, McpError> {
        let params = json!({
            "name": name,
            "arguments": arguments,
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": client_info(),
            },
        });
        let name = header_text(name);
        let headers =
            [("mcp-protocol-version", MODERN), ("mcp-method", "tools/call"), ("mcp-name", name.as_str())];
        self.transport.request(1, "tools/call", &params, &headers).await.and_then(Answer::into_result)
    }

    async fn call_legacy(
        &self,
        name: &str,
        arguments: &Map<String, Value>,
        version: &str,
    ) -> Result<Value, McpError> {
        let handshake = |error| McpError::Handshake(Box::new(error));
        let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client_info()});
        let answer = self.transport.request(1, "initialize", &params, &[]).await.map_err(handshake)?;
        let session = answer.session.clone();
        let result = answer.into_result().map_err(handshake)?;
        let agreed = result.get("protocolVersion").and_then(Value::as_str).unwrap_or(version).to_owned();
        let mut headers = vec![("mcp-protocol-version", agreed.as_str())];
        if let Some(session) = &session {
            headers.push(("mcp-session-id", session));
        }
        self.transport.notify("notifications/initialized", &headers).await?;
        let params = json!({"name": name, "arguments": arguments});
        let answered = self.transport.request(2, "tools/call", &params, &headers).await;
        if session.is_some() {
            // The session ends by itself when this does not arrive.
            let _ = self.transport.end_session(&headers).await;
        }
        answered.and_then(Answer::into_result)
    }
}

/// Whether a refusal of a modern request may come from an endpoint that speaks the legacy era only.
fn may_be_legacy(error: &McpError) -> bool {
    match error {
        McpError::Refused(refusal) => {
            refusal.code == UNSUPPORTED_VERSION
                || (matches!(refusal.status, 400 | 404)
                    && refusal.decision_id().is_none()
                    && !MODERN_CODES.contains(&refusal.code))
        }
        McpError::NotMcp { status, .. } => matches!(status, 400 | 404),
        McpError::Setup(_)
        | McpError::Unreachable { .. }
        | McpError::Broken(_)
        | McpError::TooLarge
        | McpError::NoAnswer
        | McpError::Handshake(_) => false,
    }
}

fn client_info() -> Value {
    json!({"name": "gantry", "version": env!("CARGO_PKG_VERSION")})
}

/// A value as a header carries it: plain where a header can, else base64 between marks, as the protocol says.
fn header_text(text: &str) -> String {
    use base64::Engine;
    let plain = !text.is_empty()
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && text.trim() == text
        && !text.starts_with("=?base64?");
    if plain {
        return text.to_owned();
    }
    format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_revision_is_read_and_shown_alike() {
        for text in ["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"] {
            assert_eq!(text.parse::<Revision>().map(|revision| revision.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(
            "2024-11-05".parse::<Revision>(),
            Err("unknown protocol revision \"2024-11-05\"; one of 2026-07-28, 2025-11-25, 2025-06-18, 2025-03-26"
                .to_owned())
        );
    }

    #[test]
    fn a_name_that_a_header_cannot_carry_is_encoded() {
        assert_eq!(header_text("read_file"), "read_file");
        assert_eq!(header_text("é"), "=?base64?w6k=?=");
        assert_eq!(header_text(" a"), "=?base64?IGE=?=");
    }
}
