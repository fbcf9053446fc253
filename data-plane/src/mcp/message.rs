//! One JSON-RPC message: its envelope, and the fields of its parameters that route it.
//!
//! Always holds: the body is kept as it came; every slice in a [`Message`] points into it. A request's id is a
//! string or a number, as raw JSON.

mod method;

pub(crate) use method::Method;

use bytes::Bytes;
use serde_json::Value;
use serde_json::value::RawValue;

use super::batch::{self, BatchError};
use super::json::{self, JsonError};

/// A message as it came.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    /// The whole body, byte for byte.
    pub(crate) body: Bytes,
    /// What it is.
    pub(crate) kind: Kind,
}

/// What a message is.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// Wants an answer.
    Request { id: Id, method: Method, params: Params },
    /// Wants none.
    Notification { method: Method, params: Params },
    /// The client's answer to a request that it was sent (legacy era); the id as raw JSON.
    Response { id: Bytes },
}

/// A request's id as raw JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) Bytes);

/// The fields of `params` that route or govern a request; raw, and absent where the message has none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params {
    /// Of a tool or prompt.
    pub(crate) name: Option<String>,
    /// Of a resource.
    pub(crate) uri: Option<String>,
    /// Of a task.
    pub(crate) task_id: Option<String>,
    /// Of a tool or prompt: an object that says nothing twice.
    pub(crate) arguments: Option<Value>,
    /// What a completion is for, as raw JSON.
    pub(crate) reference: Option<Bytes>,
    /// Where a list goes on.
    pub(crate) cursor: Option<String>,
    /// Of `logging/setLevel`.
    pub(crate) level: Option<String>,
    /// What the answer to the request before had the client give back (2026-07-28).
    pub(crate) request_state: Option<String>,
    /// The client's answers to what it was asked, as raw JSON (2026-07-28).
    pub(crate) input_responses: Option<Bytes>,
    /// Of `initialize`, as raw JSON.
    pub(crate) capabilities: Option<Bytes>,
    /// Of `initialize`.
    pub(crate) protocol_version: Option<String>,
    /// Of `notifications/cancelled`, as raw JSON.
    pub(crate) request_id: Option<Bytes>,
    /// What a listen asks for, as raw JSON.
    pub(crate) notifications: Option<Bytes>,
    /// `_meta` of the modern era.
    pub(crate) meta: Meta,
}

/// The fields of `params._meta` that a gateway reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Meta {
    /// `io.modelcontextprotocol/protocolVersion`.
    pub(crate) protocol_version: Option<String>,
    /// `io.modelcontextprotocol/clientCapabilities` as raw JSON, when it is an object.
    pub(crate) capabilities: Option<Bytes>,
    /// `io.modelcontextprotocol/logLevel`.
    pub(crate) log_level: Option<String>,
    /// Of the progress notifications that the client wants, as raw JSON.
    pub(crate) progress_token: Option<Bytes>,
}

/// Why a body is no message.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MessageError {
    /// No JSON (JSON-RPC -32700).
    #[error("{0}")]
    Malformed(#[from] JsonError),
    /// JSON, but no JSON-RPC message (JSON-RPC -32600).
    #[error("{message}")]
    Invalid { id: Option<Id>, message: String },
}

impl Message {
    /// Reads a body.
    pub(crate) fn parse(body: Bytes) -> Result<Message, MessageError> {
        let text = json::check_text(&body)?;
        if text.trim_ascii_start().starts_with('[') {
            json::strict_value(text).map_err(JsonError::Syntax)?;
            // Whoever serves batches takes them apart before.
            let reason = batch::split(&body).err().unwrap_or(BatchError::Version);
            return Err(invalid(None, reason.to_string()));
        }
        let kind = parse_kind(&body, text)?;
        Ok(Message { kind, body })
    }
}

impl Kind {
    /// The request's id, when it is one.
    pub(crate) fn id(&self) -> Option<&Id> {
        match self {
            Kind::Request { id, .. } => Some(id),
            Kind::Notification { .. } | Kind::Response { .. } => None,
        }
    }
}

/// What the methods of notifications begin with.
const NOTIFICATION: &str = "notifications/";

const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

fn parse_kind(body: &Bytes, text: &str) -> Result<Kind, MessageError> {
    let [version, id, method, params, result, error] = match json::fields(text, &ENVELOPE) {
        Ok(fields) => fields,
        Err(problem) if problem.is_data() => return Err(invalid(None, problem.to_string())),
        Err(problem) => return Err(JsonError::Syntax(problem).into()),
    };
    let id = id.map(|raw| parse_id(body, raw)).transpose()?;
    if version.is_none_or(|raw| raw.get() != "\"2.0\"") {
        return Err(invalid(id, "field `jsonrpc` must be \"2.0\""));
    }
    let Some(method) = method else {
        return match (id, result.is_some() != error.is_some()) {
            (Some(id), true) => Ok(Kind::Response { id: id.0 }),
            (id, _) => Err(invalid(id, "neither a request nor a notification nor a response")),
        };
    };
    let Ok(method) = serde_json::from_str::<String>(method.get()) else {
        return Err(invalid(id, "field `method` must be a string"));
    };
    let params = match params {
        None => Params::default(),
        Some(raw) => parse_params(body, raw).map_err(|message| invalid(id.clone(), message))?,
    };
    if result.is_some() || error.is_some() {
        return Err(invalid(id, "both a request and a response"));
    }
    let is_notification = method.starts_with(NOTIFICATION);
    let method = Method::parse(method);
    match (id, is_notification) {
        (Some(id), false) => Ok(Kind::Request { id, method, params }),
        (None, true) => Ok(Kind::Notification { method, params }),
        (Some(id), true) => Err(invalid(Some(id), "a notification has no id")),
        // Some servers carry out a request that has no id; it would pass as a notification, which nobody authorises.
        (None, false) => Err(invalid(None, "a request has an id; only `notifications/...` go without")),
    }
}

fn parse_id(body: &Bytes, raw: &RawValue) -> Result<Id, MessageError> {
    match raw.get().as_bytes().first() {
        Some(b'"' | b'-' | b'0'..=b'9') => Ok(Id(slice(body, raw))),
        _ => Err(invalid(None, "field `id` must be a string or a number")),
    }
}

const PARAMS: [&str; 14] = [
    "name",
    "uri",
    "taskId",
    "arguments",
    "ref",
    "cursor",
    "level",
    "requestState",
    "inputResponses",
    "capabilities",
    "protocolVersion",
    "requestId",
    "notifications",
    "_meta",
];

const META: [&str; 4] = [
    "io.modelcontextprotocol/protocolVersion",
    "io.modelcontextprotocol/clientCapabilities",
    "io.modelcontextprotocol/logLevel",
    "progressToken",
];

fn parse_params(body: &Bytes, raw: &RawValue) -> Result<Params, String> {
    let in_params = |problem: serde_json::Error| format!("params: {problem}");
    let [
        name,
        uri,
        task_id,
        arguments,
        reference,
        cursor,
        level,
        request_state,
        input_responses,
        capabilities,
        protocol_version,
        request_id,
        notifications,
        meta,
    ] = json::fields(raw.get(), &PARAMS).map_err(in_params)?;
    let cursor = cursor.filter(|raw| raw.get() != "null");
    let meta = meta.map(|raw| parse_meta(body, raw)).transpose()?.unwrap_or_default();
    Ok(Params {
        name: text("params.name", name)?,
        uri: text("params.uri", uri)?,
        task_id: text("params.taskId", task_id)?,
        arguments: arguments.map(parse_arguments).transpose()?,
        reference: reference.map(|raw| slice(body, raw)),
        cursor: text("params.cursor", cursor)?,
        // Other methods have members of these names too, of other forms.
        level: level.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        request_state: text("params.requestState", request_state)?,
        input_responses: object(body, input_responses),
        capabilities: object(body, capabilities),
        protocol_version: protocol_version.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        request_id: request_id.map(|raw| slice(body, raw)),
        notifications: notifications.map(|raw| slice(body, raw)),
        meta,
    })
}

fn parse_meta(body: &Bytes, raw: &RawValue) -> Result<Meta, String> {
    let in_meta = |problem: serde_json::Error| format!("params._meta: {problem}");
    let [version, capabilities, log_level, progress_token] =
        json::fields(raw.get(), &META).map_err(in_meta)?;
    Ok(Meta {
        protocol_version: text("params._meta.protocolVersion", version)?,
        capabilities: object(body, capabilities),
        log_level: log_level.and_then(|raw| serde_json::from_str(raw.get()).ok()),
        progress_token: progress_token.map(|raw| slice(body, raw)),
    })
}

fn object(body: &Bytes, raw: Option<&RawValue>) -> Option<Bytes> {
    raw.filter(|raw| raw.get().starts_with('{')).map(|raw| slice(body, raw))
}

fn parse_arguments(raw: &RawValue) -> Result<Value, String> {
    match json::strict_value(raw.get()) {
        Ok(arguments @ Value::Object(_)) => Ok(arguments),
        Ok(_) => Err("params.arguments must be an object".to_owned()),
        Err(problem) => Err(format!("params.arguments: {problem}")),
    }
}

fn text(path: &str, raw: Option<&RawValue>) -> Result<Option<String>, String> {
    raw.map(|raw| serde_json::from_str(raw.get()).map_err(|_| format!("{path} must be a string"))).transpose()
}

fn slice(body: &Bytes, raw: &RawValue) -> Bytes {
    body.slice_ref(raw.get().as_bytes())
}

fn invalid(id: Option<Id>, message: impl Into<String>) -> MessageError {
    MessageError::Invalid { id, message: message.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Kind, String> {
        Message::parse(Bytes::copy_from_slice(text.as_bytes()))
            .map(|message| message.kind)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn a_call_is_read_with_what_routes_it() {
        let kind = parse(
            r#"{"jsonrpc":"2.0","id":"a","method":"tools/call","params":{"name":"echo","arguments":{"x": 1},
            "_meta":{"progressToken":7,"io.modelcontextprotocol/protocolVersion":"2026-07-28",
            "io.modelcontextprotocol/clientCapabilities":{}}}}"#,
        );
        let Ok(Kind::Request { id, method, params }) = kind else { panic!("{kind:?}") };
        assert_eq!((id.0.as_ref(), method), (&b"\"a\""[..], Method::ToolsCall));
        assert_eq!(params.name.as_deref(), Some("echo"));
        assert_eq!(params.arguments, Some(serde_json::json!({"x": 1})));
        assert_eq!(params.meta.protocol_version.as_deref(), Some("2026-07-28"));
        assert_eq!(params.meta.capabilities.as_deref(), Some(&b"{}"[..]));
        assert_eq!(params.meta.progress_token.as_deref(), Some(&b"7"[..]));
    }

    #[test]
    fn what_is_no_message_is_refused_with_the_reason() {
        for (text, reason) in [
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("[]", "a batch has at least one message"),
            ("[1]", "a batch belongs to version 2025-03-26 alone; send each message by itself"),
            ("1", "invalid type: integer `1`, expected an object at line 1 column 1"),
            (r#"{"id":1,"method":"ping"}"#, "field `jsonrpc` must be \"2.0\""),
            (r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "field `id` must be a string or a number"),
            (r#"{"jsonrpc":"2.0","id":1}"#, "neither a request nor a notification nor a response"),
            (
                r#"{"jsonrpc":"2.0","method":"tools/call","params":{"name":"x"}}"#,
                "a request has an id; only `notifications/...` go without",
            ),
            (r#"{"jsonrpc":"2.0","id":1,"method":"notifications/x"}"#, "a notification has no id"),
            (r#"{"jsonrpc":"2.0","id":1,"method":"ping","result":{}}"#, "both a request and a response"),
            (r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "field `method` must be a string"),
            (
                r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":1}}"#,
                "params.name must be a string",
            ),
        ] {
            assert_eq!(parse(text).err().as_deref(), Some(reason), "{text}");
        }
    }
}
