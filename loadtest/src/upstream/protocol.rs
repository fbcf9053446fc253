//! One MCP message in, one reply out: which prepared answer belongs to a request.
//!
//! What always holds: the id of the answer is the id of the request, byte for byte; a modern
//! request whose headers disagree with its body is refused. It does not touch the network.

use std::borrow::Cow;

use hyper::{HeaderMap, StatusCode, body::Bytes};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    body::{PIECE_COUNT_MAX, Pieces},
    catalog::{Answer, Catalog, PROGRESS_COUNT, Shape, result_tail, server_info},
};

/// The stateless revision.
pub(super) const MODERN_VERSION: &str = "2026-07-28";
/// The revisions with `initialize`, the preferred one first.
const LEGACY_VERSIONS: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// Up to here one copy is cheaper than a second piece.
const COPY_BYTES_MAX: usize = 16 * 1_024;

const PARSE_ERROR: i32 = -32700;
const INVALID_REQUEST: i32 = -32600;
const METHOD_NOT_FOUND: i32 = -32601;
const INVALID_PARAMS: i32 = -32602;
const HEADER_MISMATCH: i32 = -32020;
const UNSUPPORTED_VERSION: i32 = -32022;

/// What is sent back.
pub(super) enum Reply {
    /// An answer that is not a tool's.
    Result(Pieces),
    /// A tool's answer as one JSON document.
    ToolResult(Pieces),
    /// A tool's answer as the last of several events.
    ToolEvents(Pieces),
    /// A notification was taken.
    Accepted,
    /// A JSON-RPC error.
    Error { status: StatusCode, pieces: Pieces },
}

#[derive(Deserialize)]
struct Message<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    params: Option<Params<'a>>,
}

#[derive(Deserialize, Default)]
struct Params<'a> {
    #[serde(borrow)]
    name: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "protocolVersion")]
    protocol_version: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    progress_token: Option<&'a RawValue>,
    #[serde(borrow, rename = "io.modelcontextprotocol/protocolVersion")]
    protocol_version: Option<Cow<'a, str>>,
    #[serde(borrow, rename = "io.modelcontextprotocol/clientCapabilities")]
    client_capabilities: Option<&'a RawValue>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

struct Refusal {
    status: StatusCode,
    code: i32,
    text: &'static str,
}

/// The reply to one message.
pub(super) fn reply(catalog: &Catalog, headers: &HeaderMap, body: &[u8]) -> Reply {
    let Ok(message) = serde_json::from_slice::<Message<'_>>(body) else {
        return error("null", &Refusal::bad(PARSE_ERROR, "the body is not a request"));
    };
    let Some(id) = message.id.map(RawValue::get) else {
        return Reply::Accepted;
    };
    let era = match era_of(headers, &message) {
        Ok(era) => era,
        Err(refusal) => return error(id, &refusal),
    };
    let params = message.params.unwrap_or_default();
    match (message.method.as_ref(), era) {
        ("tools/call", _) => call_tool(catalog, id, era, &params),
        ("tools/list", _) => Reply::Result(with_id(id, catalog.list.of(era))),
        ("server/discover", Era::Modern) => Reply::Result(with_id(id, &catalog.discovery)),
        ("ping", Era::Legacy) => Reply::Result(with_id(id, &result_tail(&json!({})))),
        ("initialize", Era::Legacy) => Reply::Result(with_id(id, &initialize_tail(&params))),
        (_, Era::Legacy) => error(id, &Refusal { status: StatusCode::OK, ..Refusal::unknown_method() }),
        (_, Era::Modern) => error(id, &Refusal::unknown_method()),
    }
}

impl Refusal {
    fn bad(code: i32, text: &'static str) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, text }
    }

    fn unknown_method() -> Self {
        let text = "the method does not exist";
        Self { status: StatusCode::NOT_FOUND, code: METHOD_NOT_FOUND, text }
    }
}

impl Answer {
    fn of(&self, era: Era) -> &Bytes {
        match era {
            Era::Legacy => &self.legacy,
            Era::Modern => &self.modern,
        }
    }
}

/// Classifies a request by its version header, and holds a modern one to the rules of its era.
fn era_of(headers: &HeaderMap, message: &Message<'_>) -> Result<Era, Refusal> {
    let meta = message.params.as_ref().and_then(|params| params.meta.as_ref());
    let declared = meta.and_then(|meta| meta.protocol_version.as_deref());
    let version = match one_header(headers, "mcp-protocol-version")? {
        Some(version) => version,
        None if declared.is_some() => return Err(mismatch("MCP-Protocol-Version is missing")),
        None => return Ok(Era::Legacy),
    };
    if LEGACY_VERSIONS.contains(&version) {
        return Ok(Era::Legacy);
    }
    if version != MODERN_VERSION {
        return Err(Refusal::bad(UNSUPPORTED_VERSION, "the protocol version is not supported"));
    }
    if meta.and_then(|meta| meta.client_capabilities).is_none() {
        return Err(Refusal::bad(INVALID_PARAMS, "_meta lacks what the era requires"));
    }
    if declared != Some(version) {
        return Err(mismatch("MCP-Protocol-Version differs from _meta"));
    }
    if one_header(headers, "mcp-method")? != Some(&message.method) {
        return Err(mismatch("Mcp-Method differs from the method"));
    }
    let name = message.params.as_ref().and_then(|params| params.name.as_deref());
    if message.method == "tools/call" && one_header(headers, "mcp-name")? != name {
        return Err(mismatch("Mcp-Name differs from the name"));
    }
    Ok(Era::Modern)
}

/// The value of a header that may stand at most once.
fn one_header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => {
            value.to_str().map(|value| Some(value.trim())).map_err(|_| mismatch("a header is not readable"))
        }
        (Some(_), Some(_)) => Err(mismatch("a header stands twice")),
    }
}

fn mismatch(text: &'static str) -> Refusal {
    Refusal::bad(HEADER_MISMATCH, text)
}

fn call_tool(catalog: &Catalog, id: &str, era: Era, params: &Params<'_>) -> Reply {
    let Some(name) = params.name.as_deref() else {
        return error(id, &Refusal::bad(INVALID_REQUEST, "a call needs a name"));
    };
    let Some(answer) = catalog.tools.get(name) else {
        let text = "the tool does not exist";
        return error(id, &Refusal { status: StatusCode::OK, code: INVALID_PARAMS, text });
    };
    let token = params.meta.as_ref().and_then(|meta| meta.progress_token);
    match answer.shape {
        Shape::Json => Reply::ToolResult(with_id(id, answer.of(era))),
        Shape::Events => Reply::ToolEvents(events(id, token, answer.of(era))),
    }
}

fn initialize_tail(params: &Params<'_>) -> Bytes {
    let wanted = params.protocol_version.as_deref().unwrap_or_default();
    let version = LEGACY_VERSIONS.into_iter().find(|version| *version == wanted);
    result_tail(&json!({
        "protocolVersion": version.unwrap_or(LEGACY_VERSIONS[0]),
        "capabilities": { "tools": {} },
        "serverInfo": server_info(),
    }))
}

fn head(id: &str, prefix: &str, capacity: usize) -> Vec<u8> {
    let mut head = Vec::with_capacity(capacity);
    head.extend_from_slice(prefix.as_bytes());
    head.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    head.extend_from_slice(id.as_bytes());
    head
}

fn with_id(id: &str, tail: &Bytes) -> Pieces {
    const ROOM: usize = 64;
    if tail.len() > COPY_BYTES_MAX {
        return Pieces::two(head(id, "", ROOM + id.len()).into(), tail.clone());
    }
    let mut whole = head(id, "", ROOM + id.len() + tail.len());
    whole.extend_from_slice(tail);
    Pieces::one(whole.into())
}

/// Progress notifications if a token was given, then the answer; each an event of its own.
fn events(id: &str, token: Option<&RawValue>, tail: &Bytes) -> Pieces {
    let mut events = [const { None }; PIECE_COUNT_MAX];
    if let Some(token) = token {
        for (step, event) in events.iter_mut().take(PROGRESS_COUNT).enumerate() {
            *event = Some(Bytes::from(format!(
                "event: message\ndata: {{\"jsonrpc\":\"2.0\",\"method\":\"notifications/progress\",\
                 \"params\":{{\"progressToken\":{token},\"progress\":{},\"total\":{PROGRESS_COUNT}}}}}\n\n",
                step + 1,
            )));
        }
    }
    const ROOM: usize = 96;
    let mut last = head(id, "event: message\ndata: ", ROOM + id.len() + tail.len());
    last.extend_from_slice(tail);
    last.extend_from_slice(b"\n\n");
    events[PIECE_COUNT_MAX - 1] = Some(last.into());
    Pieces::events(events)
}

fn error(id: &str, refusal: &Refusal) -> Reply {
    let error = json!({ "code": refusal.code, "message": refusal.text });
    let body = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{error}}}");
    Reply::Error { status: refusal.status, pieces: Pieces::one(body.into()) }
}
