//! One message in, one reply out, in the era that the message belongs to.
//!
//! Always holds: a modern request whose headers disagree with its body is refused; an answer has the id of its
//! request.

use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::notes::Notes;
use super::tools;

/// The revision without sessions.
const MODERN: &str = "2026-07-28";
/// The revisions with `initialize`, the newest first.
const LEGACY: [&str; 3] = ["2025-11-25", "2025-06-18", "2025-03-26"];
/// How long a list may be kept, in milliseconds: it never changes while the server runs.
const TTL_MS: u64 = 60_000;

const PARSE_ERROR: i64 = -32700;
const INVALID_REQUEST: i64 = -32600;
const METHOD_NOT_FOUND: i64 = -32601;
const INVALID_PARAMS: i64 = -32602;
const HEADER_MISMATCH: i64 = -32020;
const UNSUPPORTED_VERSION: i64 = -32022;

/// What is sent back.
#[derive(Debug, PartialEq)]
pub(super) enum Reply {
    /// A notification was taken.
    Accepted,
    /// A result or an error.
    Message {
        /// HTTP status.
        status: StatusCode,
        /// JSON-RPC message.
        message: Value,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Era {
    Legacy,
    Modern,
}

struct Refusal {
    status: StatusCode,
    code: i64,
    message: String,
    data: Option<Value>,
}

/// The reply to one message.
pub(super) fn reply(headers: &HeaderMap, body: &[u8], notes: &Notes) -> Reply {
    let Ok(message) = serde_json::from_slice::<Value>(body) else {
        return refuse(
            Value::Null,
            Refusal::new(StatusCode::BAD_REQUEST, PARSE_ERROR, "the body is not JSON"),
        );
    };
    let Some(method) = message.get("method").and_then(Value::as_str) else {
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "the body is not a request");
        return refuse(Value::Null, refusal);
    };
    let Some(id) = message.get("id").cloned() else {
        return Reply::Accepted;
    };
    let params = message.get("params").cloned().unwrap_or_default();
    match era(headers, method, &params).and_then(|era| answer(era, method, &params, notes)) {
        Ok(result) => {
            let message = json!({"jsonrpc": "2.0", "id": id, "result": result});
            Reply::Message { status: StatusCode::OK, message }
        }
        Err(refusal) => refuse(id, refusal),
    }
}

fn answer(era: Era, method: &str, params: &Value, notes: &Notes) -> Result<Value, Refusal> {
    match (method, era) {
        ("initialize", Era::Legacy) => Ok(initialize(params)),
        ("ping", Era::Legacy) => Ok(json!({})),
        ("server/discover", Era::Modern) => Ok(cacheable(json!({
            "supportedVersions": supported(),
            "capabilities": {"tools": {}},
            "instructions": INSTRUCTIONS,
        }))),
        ("tools/list", Era::Legacy) => Ok(json!({"tools": tools::definitions()})),
        ("tools/list", Era::Modern) => Ok(cacheable(json!({"tools": tools::definitions()}))),
        ("tools/call", era) => call(era, params, notes),
        (_, Era::Legacy) => Err(Refusal::unknown_method(StatusCode::OK, method)),
        (_, Era::Modern) => Err(Refusal::unknown_method(StatusCode::NOT_FOUND, method)),
    }
}

const INSTRUCTIONS: &str = "Demo tools of `gantry dev`: arithmetic, greetings and a few notes.";

fn initialize(params: &Value) -> Value {
    let wanted = params.get("protocolVersion").and_then(Value::as_str).unwrap_or_default();
    let version = LEGACY.into_iter().find(|known| *known == wanted).unwrap_or(LEGACY[0]);
    json!({
        "protocolVersion": version,
        "capabilities": {"tools": {}},
        "serverInfo": server_info(),
        "instructions": INSTRUCTIONS,
    })
}

fn call(era: Era, params: &Value, notes: &Notes) -> Result<Value, Refusal> {
    let invalid = |message: &str| Refusal::new(StatusCode::OK, INVALID_PARAMS, message);
    let name = params.get("name").and_then(Value::as_str).ok_or_else(|| invalid("a call needs a name"))?;
    let none = json!({});
    let outcome = tools::call(name, params.get("arguments").unwrap_or(&none), notes)
        .ok_or_else(|| invalid(&format!("Unknown tool: {name}")))?;
    let mut result =
        json!({"content": [{"type": "text", "text": outcome.text}], "isError": outcome.is_error});
    if let Some(structured) = outcome.structured {
        result["structuredContent"] = structured;
    }
    Ok(match era {
        Era::Legacy => result,
        Era::Modern => complete(result),
    })
}

fn complete(mut result: Value) -> Value {
    result["resultType"] = json!("complete");
    result["_meta"] = json!({"io.modelcontextprotocol/serverInfo": server_info()});
    result
}

fn cacheable(mut result: Value) -> Value {
    result["ttlMs"] = json!(TTL_MS);
    result["cacheScope"] = json!("public");
    complete(result)
}

fn supported() -> Vec<&'static str> {
    [&[MODERN], LEGACY.as_slice()].concat()
}

fn server_info() -> Value {
    json!({"name": "gantry-demo", "version": env!("CARGO_PKG_VERSION")})
}

/// The era of a request. What a modern request's headers repeat from its body must be equal there.
fn era(headers: &HeaderMap, method: &str, params: &Value) -> Result<Era, Refusal> {
    let meta = |name: &str| params.pointer("/_meta").and_then(|meta| meta.get(name));
    let declared = meta("io.modelcontextprotocol/protocolVersion").and_then(Value::as_str);
    let version = header(headers, "mcp-protocol-version")?;
    if version.is_some_and(|version| LEGACY.contains(&version)) || (version.is_none() && declared.is_none()) {
        return Ok(Era::Legacy);
    }
    let Some(version) = version else {
        return Err(Refusal::mismatch("MCP-Protocol-Version is missing"));
    };
    if version != MODERN {
        let data = json!({"requested": version, "supported": supported()});
        let message = "the protocol version is not supported";
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, UNSUPPORTED_VERSION, message);
        return Err(Refusal { data: Some(data), ..refusal });
    }
    if meta("io.modelcontextprotocol/clientCapabilities").is_none() {
        let message = "_meta lacks what this revision requires";
        return Err(Refusal::new(StatusCode::BAD_REQUEST, INVALID_PARAMS, message));
    }
    if declared != Some(version) {
        return Err(Refusal::mismatch("MCP-Protocol-Version differs from _meta"));
    }
    if header(headers, "mcp-method")? != Some(method) {
        return Err(Refusal::mismatch("Mcp-Method differs from the method"));
    }
    let name = params.get("name").and_then(Value::as_str);
    if method == "tools/call" && header(headers, "mcp-name")? != name {
        return Err(Refusal::mismatch("Mcp-Name differs from the name"));
    }
    Ok(Era::Modern)
}

/// The value of a header that may stand once.
fn header<'h>(headers: &'h HeaderMap, name: &str) -> Result<Option<&'h str>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value
            .to_str()
            .map(|text| Some(text.trim()))
            .map_err(|_| Refusal::mismatch("a header is not text")),
        (Some(_), Some(_)) => Err(Refusal::mismatch("a header stands twice")),
    }
}

fn refuse(id: Value, refusal: Refusal) -> Reply {
    let mut error = json!({"code": refusal.code, "message": refusal.message});
    if let Some(data) = refusal.data {
        error["data"] = data;
    }
    Reply::Message { status: refusal.status, message: json!({"jsonrpc": "2.0", "id": id, "error": error}) }
}

impl Refusal {
    fn new(status: StatusCode, code: i64, message: &str) -> Refusal {
        Refusal { status, code, message: message.to_owned(), data: None }
    }

    fn mismatch(message: &str) -> Refusal {
        Refusal::new(StatusCode::BAD_REQUEST, HEADER_MISMATCH, message)
    }

    fn unknown_method(status: StatusCode, method: &str) -> Refusal {
        Refusal::new(status, METHOD_NOT_FOUND, &format!("Method not found: {method}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn modern(method: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert("mcp-protocol-version", HeaderValue::from_static(MODERN));
        headers.insert("mcp-method", HeaderValue::from_static(method));
        headers
    }

    fn request(method: &str) -> Value {
        json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": {"_meta": {
            "io.modelcontextprotocol/protocolVersion": MODERN,
            "io.modelcontextprotocol/clientCapabilities": {},
        }}})
    }

    fn code(reply: &Reply) -> (u16, i64) {
        match reply {
            Reply::Accepted => (202, 0),
            Reply::Message { status, message } => {
                (status.as_u16(), message.pointer("/error/code").and_then(Value::as_i64).unwrap_or(0))
            }
        }
    }

    #[test]
    fn a_modern_request_must_agree_with_its_headers() {
        let notes = Notes::default();
        let body = request("tools/list").to_string();
        assert_eq!(code(&reply(&modern("tools/list"), body.as_bytes(), &notes)), (200, 0));
        assert_eq!(code(&reply(&modern("tools/call"), body.as_bytes(), &notes)), (400, HEADER_MISMATCH));
        assert_eq!(code(&reply(&HeaderMap::new(), body.as_bytes(), &notes)), (400, HEADER_MISMATCH));
        let ping = request("ping").to_string();
        assert_eq!(code(&reply(&modern("ping"), ping.as_bytes(), &notes)), (404, METHOD_NOT_FOUND));
    }

    #[test]
    fn a_legacy_request_needs_no_header() {
        let notes = Notes::default();
        let body =
            br#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}"#;
        let Reply::Message { status, message } = reply(&HeaderMap::new(), body, &notes) else {
            panic!("no message");
        };
        assert_eq!((status, &message["result"]["protocolVersion"]), (StatusCode::OK, &json!("2025-06-18")));
        let note = br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#;
        assert_eq!(reply(&HeaderMap::new(), note, &notes), Reply::Accepted);
    }

    #[test]
    fn an_unknown_revision_is_refused_with_those_that_are_known() {
        let mut headers = modern("tools/list");
        headers.insert("mcp-protocol-version", HeaderValue::from_static("2099-01-01"));
        let body = request("tools/list").to_string();
        let Reply::Message { status, message } = reply(&headers, body.as_bytes(), &Notes::default()) else {
            panic!("no message");
        };
        assert_eq!(status, StatusCode::BAD_REQUEST);
        assert_eq!(
            message["error"]["data"],
            json!({"requested": "2099-01-01", "supported": [MODERN, "2025-11-25", "2025-06-18", "2025-03-26"]})
        );
    }
}
