//! What a relay reads of a message, and what HTTP has to repeat of it (2026-07-28).
//!
//! Always holds: a message is passed on as it came; what is read of it is read to send it, and decides nothing else.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::header_text;

/// Where `_meta` says which version a modern message is of.
const META_VERSION: &str = "/params/_meta/io.modelcontextprotocol~1protocolVersion";
/// Most tools whose annotations are remembered; a list has a few dozen.
const TOOLS_MAX: usize = 10_000;
/// Deepest argument that a header may repeat.
const DEPTH_MAX: usize = 16;

/// A message of the agent.
#[derive(Debug)]
pub(super) struct Envelope {
    /// Its id, where it is a request.
    pub(super) id: Option<Value>,
    /// Empty, where it is an answer or a batch.
    pub(super) method: String,
    /// The version that it says it is of, where it is modern.
    pub(super) modern: Option<String>,
    message: Value,
}

/// Which arguments of which tools are repeated by headers, as lists of tools said.
#[derive(Debug, Default)]
pub(super) struct Mirrors(HashMap<String, Vec<Mirror>>);

#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    header: String,
    path: Vec<String>,
}

impl Envelope {
    /// Reads a message.
    pub(super) fn read(text: &[u8]) -> Result<Envelope, serde_json::Error> {
        let message: Value = serde_json::from_slice(text)?;
        let method = message.get("method").and_then(Value::as_str).unwrap_or_default().to_owned();
        let id = message.get("id").filter(|_| !method.is_empty()).cloned();
        let modern = message.pointer(META_VERSION).and_then(Value::as_str).map(str::to_owned);
        Ok(Envelope { id, method, modern, message })
    }

    /// Which request it cancels.
    pub(super) fn cancels(&self) -> Option<&Value> {
        (self.method == "notifications/cancelled").then(|| self.message.pointer("/params/requestId"))?
    }

    /// What HTTP repeats of it, where it is modern.
    pub(super) fn headers(&self, version: &str, mirrors: &Mirrors) -> Vec<(String, String)> {
        let mut headers = vec![
            ("mcp-protocol-version".to_owned(), version.to_owned()),
            ("mcp-method".to_owned(), self.method.clone()),
        ];
        let field = match self.method.as_str() {
            "tools/call" | "prompts/get" => "/params/name",
            "resources/read" => "/params/uri",
            "tasks/get" | "tasks/update" | "tasks/cancel" => "/params/taskId",
            _ => return headers,
        };
        let Some(name) = self.message.pointer(field).and_then(Value::as_str) else { return headers };
        headers.push(("mcp-name".to_owned(), header_text(name)));
        if self.method == "tools/call" {
            let empty = Value::Null;
            let arguments = self.message.pointer("/params/arguments").unwrap_or(&empty);
            headers.extend(mirrors.of(name, arguments));
        }
        headers
    }
}

impl Mirrors {
    /// Learns from the answer to a list of tools.
    pub(super) fn learn(&mut self, answer: &Value) {
        let tools = answer.pointer("/result/tools").and_then(Value::as_array);
        for tool in tools.into_iter().flatten() {
            let Some(name) = tool.get("name").and_then(Value::as_str) else { continue };
            let mut found = Vec::new();
            find(tool.get("inputSchema").unwrap_or(&Value::Null), &mut Vec::new(), &mut found);
            if found.is_empty() {
                self.0.remove(name);
            } else if self.0.len() < TOOLS_MAX {
                self.0.insert(name.to_owned(), found);
            }
        }
    }

    fn of(&self, tool: &str, arguments: &Value) -> Vec<(String, String)> {
        let mirrors = self.0.get(tool).map(Vec::as_slice).unwrap_or_default();
        let header = |mirror: &Mirror| {
            let value = mirror.path.iter().try_fold(arguments, |value, field| value.get(field))?;
            let text = match value {
                Value::String(text) => text.clone(),
                Value::Bool(_) | Value::Number(_) => value.to_string(),
                Value::Null | Value::Array(_) | Value::Object(_) => return None,
            };
            Some((format!("mcp-param-{}", mirror.header.to_ascii_lowercase()), header_text(&text)))
        };
        mirrors.iter().filter_map(header).collect()
    }
}

fn find(schema: &Value, path: &mut Vec<String>, found: &mut Vec<Mirror>) {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else { return };
    if path.len() >= DEPTH_MAX {
        return;
    }
    for (name, property) in properties {
        path.push(name.clone());
        if let Some(header) = property.get("x-mcp-header").and_then(Value::as_str) {
            found.push(Mirror { header: header.to_owned(), path: path.clone() });
        }
        find(property, path, found);
        path.pop();
    }
}

/// An error of the relay's own, as the answer to a request; the code is outside the range that JSON-RPC reserves.
pub(super) fn failure(id: &Value, code: i64, message: &str) -> Vec<u8> {
    json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}}).to_string().into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(message: &Value) -> Envelope {
        Envelope::read(message.to_string().as_bytes()).expect("JSON")
    }

    #[test]
    fn a_modern_call_has_the_headers_that_repeat_it() {
        let mut mirrors = Mirrors::default();
        let region = json!({"type": "string", "x-mcp-header": "Region"});
        let at =
            json!({"type": "object", "properties": {"zone": {"type": "integer", "x-mcp-header": "Zone"}}});
        let schema = json!({"type": "object", "properties": {"region": region, "at": at, "x": {}}});
        mirrors.learn(
            &json!({"result": {"tools": [{"name": "run", "inputSchema": schema}, {"name": "other"}]}}),
        );
        let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
        let params = json!({"name": "run", "arguments": {"region": "é", "at": {"zone": 3}}, "_meta": meta});
        let call = read(&json!({"jsonrpc": "2.0", "id": "a", "method": "tools/call", "params": params}));
        assert_eq!((call.id.clone(), call.modern.as_deref()), (Some(json!("a")), Some("2026-07-28")));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            call.headers("2026-07-28", &mirrors),
            [
                pair("mcp-protocol-version", "2026-07-28"),
                pair("mcp-method", "tools/call"),
                pair("mcp-name", "run"),
                pair("mcp-param-region", "=?base64?w6k=?="),
                pair("mcp-param-zone", "3"),
            ]
        );
    }

    #[test]
    fn an_answer_and_a_batch_are_no_requests() {
        assert_eq!(read(&json!({"jsonrpc": "2.0", "id": 1, "result": {}})).id, None);
        assert_eq!(read(&json!([{"id": 1, "method": "ping"}])).id, None);
        let cancelled = read(&json!({"method": "notifications/cancelled", "params": {"requestId": 7}}));
        assert_eq!(cancelled.cancels(), Some(&json!(7)));
    }
}
