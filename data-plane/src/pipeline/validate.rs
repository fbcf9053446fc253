//! Validate: whether a call's arguments fit the tool's schema, and its headers the arguments.
//!
//! Always holds: what is checked is what is forwarded, byte for byte. A violation is answered as the tool's own
//! error, with the failing path, so that a model can correct itself.

use serde_json::Value;

use super::approve::Demanded;
use super::authorise::Authorised;
use super::discover::Subject;
use super::{Caller, Front, Received};
use crate::config::tool::{Mirrored, Tool};
use crate::mcp::Era;
use crate::mcp::headers::{self, HeaderError};
use crate::mcp::message::Kind;
use crate::rejection::Rejection;

/// Violations told at once: enough to correct a call in one go, few enough for a model to read.
const PROBLEMS_MAX: usize = 5;
/// Longest description of one violation in characters; it may quote the argument.
const PROBLEM_CHARS_MAX: usize = 300;

/// Proof that the arguments fit. Only this stage builds it.
pub(super) struct Validated {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) demanded: Option<Demanded>,
    _private: (),
}

pub(super) fn validate(authorised: Authorised) -> Result<Validated, Rejection> {
    let Authorised { caller, mut received, subject, demanded, .. } = authorised;
    if let Subject::Tool(access) = &subject {
        let empty = Value::Object(serde_json::Map::new());
        let arguments = match received.message.as_ref().map(|message| &message.kind) {
            Some(Kind::Request { params, .. }) => params.arguments.as_ref().unwrap_or(&empty),
            _ => &empty,
        };
        match (received.era, received.front) {
            (Era::Modern, Front::Http) => check_mirrored(&access.tool, arguments, &received.headers)?,
            // What a legacy client cannot say, its server may want to hear.
            (Era::Modern, Front::Message) | (Era::Legacy, _) => {
                mirror(&access.tool, arguments, &mut received.headers)
            }
        }
        check_arguments(&access.tool, arguments)?;
    }
    Ok(Validated { caller, received, subject, demanded, _private: () })
}

fn check_arguments(tool: &Tool, arguments: &Value) -> Result<(), Rejection> {
    let Ok(schema) = &tool.schema else { return Err(Rejection::Schema { tool: tool.name.to_string() }) };
    if schema.is_valid(arguments) {
        return Ok(());
    }
    let problems = schema
        .iter_errors(arguments)
        .take(PROBLEMS_MAX)
        .map(|error| {
            let path = error.instance_path().to_string();
            let path = if path.is_empty() { "/".to_owned() } else { path };
            let message: String = error.to_string().chars().take(PROBLEM_CHARS_MAX).collect();
            format!("at {path}: {message}")
        })
        .collect();
    Err(Rejection::Arguments { tool: tool.name.to_string(), problems })
}

/// Specification: 2026-07-28, "Custom headers from tool parameters": each annotated argument that is there must be
/// repeated by its header, and a header must not tell of one that is not.
fn check_mirrored(tool: &Tool, arguments: &Value, headers: &http::HeaderMap) -> Result<(), Rejection> {
    for mirrored in &tool.mirrored {
        let expected = expected(mirrored, arguments);
        let sent = headers::single(headers, &mirrored.header).map_err(Rejection::Headers)?;
        let mismatch = |message: String| Err(Rejection::Headers(HeaderError::Mismatch(message)));
        match (expected, sent) {
            (None, None) => {}
            (Some(_), None) => return mismatch(format!("header {} is missing", mirrored.header)),
            (None, Some(_)) => {
                return mismatch(format!(
                    "header {} is there, but argument {} is not",
                    mirrored.header,
                    mirrored.path.join(".")
                ));
            }
            (Some(expected), Some(sent)) => {
                let sent = headers::decode(&mirrored.header, sent).map_err(Rejection::Headers)?;
                if !headers::repeats(&sent, expected) {
                    return mismatch(format!(
                        "header {} is {sent:?}, but the argument is {expected}",
                        mirrored.header
                    ));
                }
            }
        }
    }
    Ok(())
}

/// Makes the headers that a message without a head, or of a client that does not know them, cannot bring.
pub(super) fn mirror(tool: &Tool, arguments: &Value, headers: &mut http::HeaderMap) {
    for mirrored in &tool.mirrored {
        headers.remove(&mirrored.header);
        let text = expected(mirrored, arguments).map(|value| match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        });
        if let Some(value) = text.and_then(|text| headers::encode(&text)) {
            headers.insert(mirrored.header.clone(), value);
        }
    }
}

/// What the header of an annotated argument repeats; `None` where the argument is not there.
fn expected<'a>(mirrored: &Mirrored, arguments: &'a Value) -> Option<&'a Value> {
    let value = mirrored.path.iter().try_fold(arguments, |value, field| value.get(field))?;
    matches!(value, Value::String(_) | Value::Bool(_) | Value::Number(_)).then_some(value)
}
