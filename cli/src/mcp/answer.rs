//! What an endpoint answered: a result, a refusal, or nothing that is MCP.

use serde_json::Value;

/// A JSON-RPC answer with what its transport said.
#[derive(Debug)]
pub(super) struct Answer {
    /// HTTP status.
    pub(super) status: u16,
    /// `Retry-After`, in the words of the server.
    pub(super) retry_after: Option<String>,
    /// `Mcp-Session-Id`.
    pub(super) session: Option<String>,
    /// The JSON-RPC message.
    pub(super) message: Value,
}

/// A JSON-RPC error.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// JSON-RPC code.
    pub(crate) code: i64,
    /// What the endpoint says.
    pub(crate) message: String,
    /// More of it.
    pub(crate) data: Value,
    /// `Retry-After`, in the words of the server.
    pub(crate) retry_after: Option<String>,
}

/// Why a call has no result.
#[derive(Debug, thiserror::Error)]
pub(crate) enum McpError {
    /// The client cannot be made: a certificate, a key or a URL that cannot be used.
    #[error("{0}")]
    Setup(String),
    /// No connection.
    #[error("the endpoint does not answer")]
    Unreachable {
        /// Why.
        #[source]
        source: hyper_util::client::legacy::Error,
    },
    /// The connection broke within an answer.
    #[error("the answer broke off")]
    Broken(#[source] hyper::Error),
    /// The answer is too large.
    #[error("the answer is larger than {} bytes", super::ANSWER_BYTES_MAX)]
    TooLarge,
    /// The stream ended without an answer.
    #[error("the endpoint closed the stream without an answer")]
    NoAnswer,
    /// The answer is not MCP.
    #[error("the endpoint answered HTTP {status}, not MCP: {text}")]
    NotMcp {
        /// HTTP status.
        status: u16,
        /// The beginning of what it said.
        text: String,
    },
    /// A JSON-RPC error.
    #[error(transparent)]
    Refused(Box<Refusal>),
    /// The legacy era could not be opened.
    #[error("initialize failed")]
    Handshake(#[source] Box<McpError>),
}

impl Answer {
    /// The result, or the refusal.
    pub(super) fn into_result(mut self) -> Result<Value, McpError> {
        if let Some(result) = self.message.get_mut("result") {
            return Ok(result.take());
        }
        let Some(error) = self.message.get("error") else {
            return Err(McpError::NotMcp {
                status: self.status,
                text: "neither result nor error".to_owned(),
            });
        };
        let text = error.get("message").and_then(Value::as_str).unwrap_or("no message");
        Err(McpError::Refused(Box::new(Refusal {
            status: self.status,
            code: error.get("code").and_then(Value::as_i64).unwrap_or_default(),
            message: text.to_owned(),
            data: error.get("data").cloned().unwrap_or_default(),
            retry_after: self.retry_after,
        })))
    }
}

impl Refusal {
    /// The id of the decision, when a gateway made one.
    pub(crate) fn decision_id(&self) -> Option<&str> {
        self.data.get("decisionId").and_then(Value::as_str)
    }

    /// Which way of stopping it was, when a gateway says so.
    pub(crate) fn rejection(&self) -> Option<&str> {
        self.data.get("rejection").and_then(Value::as_str)
    }
}
