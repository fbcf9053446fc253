//! The tools that the upstream offers, and every answer that it can give, made beforehand.
//!
//! What always holds: an answer depends on the tool alone, never on the arguments, so the driver
//! knows every byte of content to expect. An answer here lacks only what depends on the request:
//! it starts after the id.

use std::collections::HashMap;

use hyper::body::Bytes;
use serde_json::{Value, json};

/// A tool that answers 200 bytes of text.
pub const SMALL_TOOL: &str = "answer_200b";
/// A tool that answers 10 KiB of text.
pub const LARGE_TOOL: &str = "answer_10kib";
/// A tool that answers 200 bytes of text as the last of a few events.
pub const EVENTS_TOOL: &str = "events_200b";
/// Progress notifications that [`EVENTS_TOOL`] sends before its answer, given a progress token.
pub const PROGRESS_COUNT: usize = 3;

/// Bytes of text that small answers carry.
pub const SMALL_TEXT_BYTES: usize = 200;
/// Bytes of text that large answers carry.
pub const LARGE_TEXT_BYTES: usize = 10 * 1_024;

/// As many as lists are measured with anywhere in this crate, times ten.
pub const TOOL_COUNT_MAX: usize = 10_000;
/// The three tools above.
const TOOL_COUNT_MIN: usize = 3;

/// How a tool answers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    Json,
    Events,
}

/// An answer without its id, in both eras.
pub(super) struct Answer {
    pub(super) shape: Shape,
    pub(super) legacy: Bytes,
    pub(super) modern: Bytes,
}

/// Every prepared answer.
pub struct Catalog {
    pub(super) tools: HashMap<String, Answer>,
    pub(super) list: Answer,
    pub(super) discovery: Bytes,
}

impl Catalog {
    /// The three tools that the driver calls, and others up to `tool_count` in all (bounded by
    /// [`TOOL_COUNT_MAX`]); they make lists long, and answer like [`SMALL_TOOL`].
    #[must_use]
    pub fn with_tools(tool_count: usize) -> Self {
        let names = tool_names(tool_count);
        let tools = names.iter().map(|name| (name.clone(), tool_answer(name))).collect();
        let definitions: Vec<Value> = names.iter().map(|name| definition(name)).collect();
        let list = Answer {
            shape: Shape::Json,
            legacy: result_tail(&json!({ "tools": definitions })),
            modern: result_tail(&json!({
                "tools": definitions, "resultType": "complete",
                "ttlMs": 60_000, "cacheScope": "public",
            })),
        };
        let discovery = result_tail(&json!({
            "supportedVersions": [super::protocol::MODERN_VERSION],
            "capabilities": { "tools": {} }, "resultType": "complete",
            "ttlMs": 60_000, "cacheScope": "public",
            "_meta": { "io.modelcontextprotocol/serverInfo": server_info() },
        }));
        Self { tools, list, discovery }
    }
}

/// The names of the first `tool_count` tools, in the order of the list.
#[must_use]
pub fn tool_names(tool_count: usize) -> Vec<String> {
    let tool_count = tool_count.clamp(TOOL_COUNT_MIN, TOOL_COUNT_MAX);
    let called = [SMALL_TOOL, LARGE_TOOL, EVENTS_TOOL].map(str::to_owned);
    let others = (TOOL_COUNT_MIN..tool_count).map(|number| format!("tool_{number:04}"));
    called.into_iter().chain(others).collect()
}

/// The text that answers carry: printable, without anything that JSON escapes.
#[must_use]
pub fn text(bytes: usize) -> String {
    "The crane lifts what it is told to lift. ".chars().cycle().take(bytes).collect()
}

pub(super) fn server_info() -> Value {
    json!({ "name": "gantry-loadtest-upstream", "version": env!("CARGO_PKG_VERSION") })
}

/// What follows the id in a successful answer.
pub(super) fn result_tail(result: &Value) -> Bytes {
    Bytes::from(format!(",\"result\":{result}}}"))
}

fn tool_answer(name: &str) -> Answer {
    let text = text(if name == LARGE_TOOL { LARGE_TEXT_BYTES } else { SMALL_TEXT_BYTES });
    let content = json!([{ "type": "text", "text": text }]);
    Answer {
        shape: if name == EVENTS_TOOL { Shape::Events } else { Shape::Json },
        legacy: result_tail(&json!({ "content": content, "isError": false })),
        modern: result_tail(&json!({
            "content": content, "isError": false, "resultType": "complete",
            "_meta": { "io.modelcontextprotocol/serverInfo": server_info() },
        })),
    }
}

/// A definition of the usual size, with a schema that gives argument checks something to do.
fn definition(name: &str) -> Value {
    json!({
        "name": name,
        "title": format!("Answer by {name}"),
        "description": "Answers a text of fixed size, whatever the arguments are, so that a load \
                        test can tell the cost of the way from the cost of the work.",
        "inputSchema": {
            "type": "object",
            "properties": {
                "text": { "type": "string", "maxLength": 4_096, "description": "Any text" },
                "count": { "type": "integer", "minimum": 0, "maximum": 1_000 },
                "unit": { "enum": ["metric", "imperial"] },
            },
            "required": ["text"],
            "additionalProperties": false,
        },
        "annotations": { "readOnlyHint": true, "openWorldHint": false },
    })
}
