//! Messages from one hop to the other: what each era says differently, and the names of an endpoint.
//!
//! Always holds: what is not named here passes as it came. Nothing is asked or sent here.
//! Specification: 2026-07-28 changelog; `basic/versioning`.

use std::sync::Arc;

use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::config::endpoint::Endpoint;
use crate::config::server::Server;
use crate::mcp::message::Method;
use crate::mcp::object::{Object, quote};
use crate::mcp::{Era, VERSION_MODERN};

/// What the members of `_meta` that belong to the modern era begin with.
const META_MODERN: &str = "io.modelcontextprotocol/";
/// A legacy server's word for a resource that it has not; the modern era forbids the code.
const RESOURCE_NOT_FOUND: &str = "-32002";
const INVALID_PARAMS: &str = "-32602";

/// How a request stands on the hop to the server.
pub(crate) struct Hop<'a> {
    pub(crate) client: Era,
    pub(crate) server: Era,
    /// The id and, where progress is wanted, the token.
    pub(crate) id: u64,
    /// What the server calls the tool, prompt, resource or task.
    pub(crate) inner: Option<&'a str>,
    /// For a modern server: what the client can do.
    pub(crate) capabilities: &'a RawValue,
    /// For a modern server: which log messages are wanted.
    pub(crate) level: Option<&'a str>,
    /// For a modern server that asked: the client's answers and the state that goes with them.
    pub(crate) input: Option<Input<'a>>,
}

/// The answers to what a modern server asked.
pub(crate) struct Input<'a> {
    pub(crate) responses: Option<&'a str>,
    pub(crate) state: Option<&'a str>,
}

/// The request for the server: `params` is the client's, as raw JSON.
pub(crate) fn request(method: &Method, params: Option<&str>, hop: &Hop<'_>) -> Bytes {
    let mut params = params.and_then(|raw| Object::parse(raw).ok()).unwrap_or_default();
    let own_params = params.clone();
    if let Some(inner) = hop.inner {
        match method {
            Method::ToolsCall | Method::PromptsGet => params.set_text("name", inner),
            Method::ResourcesRead | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
                params.set_text("uri", inner)
            }
            Method::TasksGet | Method::TasksUpdate | Method::TasksCancel => params.set_text("taskId", inner),
            Method::CompletionComplete => {
                let mut reference = own_params.object("ref");
                let member = if reference.get("uri").is_some() { "uri" } else { "name" };
                reference.set_text(member, inner);
                let reference = reference.to_string();
                params.set("ref", reference);
            }
            _ => {}
        }
    }
    let is_task = matches!(method, Method::TasksUpdate);
    params.remove(|name| match name {
        "requestState" => true,
        // An update of a task has its answers by this name, too.
        "inputResponses" => !is_task,
        // Tasks of the legacy era are not those of the extension.
        "task" => hop.client != hop.server,
        _ => false,
    });
    if let Some(input) = &hop.input {
        if let Some(responses) = input.responses {
            params.set("inputResponses", responses);
        }
        if let Some(state) = input.state {
            params.set_text("requestState", state);
        }
    }
    let meta = meta(own_params.object("_meta"), hop);
    if meta.is_empty() {
        params.remove(|name| name == "_meta");
    } else {
        params.set("_meta", meta.to_string());
    }
    let method = quote(method.as_str());
    format!(r#"{{"jsonrpc":"2.0","id":{},"method":{method},"params":{params}}}"#, hop.id).into()
}

fn meta<'a>(mut meta: Object<'a>, hop: &Hop<'a>) -> Object<'a> {
    if meta.get("progressToken").is_some() {
        meta.set("progressToken", hop.id.to_string());
    }
    match (hop.client, hop.server) {
        (_, Era::Legacy) => meta.remove(|name| name.starts_with(META_MODERN)),
        (Era::Modern, Era::Modern) => {}
        (Era::Legacy, Era::Modern) => {
            meta.set_text("io.modelcontextprotocol/protocolVersion", VERSION_MODERN);
            meta.set("io.modelcontextprotocol/clientCapabilities", hop.capabilities.get());
            let info = concat!(r#"{"name":"gantry","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);
            meta.set("io.modelcontextprotocol/clientInfo", info);
            if let Some(level) = hop.level {
                meta.set_text("io.modelcontextprotocol/logLevel", level);
            }
        }
    }
    meta
}

/// How an answer stands on the hop to the client.
pub(crate) struct Back<'a> {
    pub(crate) client: Era,
    pub(crate) server: Era,
    /// The client's id as raw JSON.
    pub(crate) id: &'a [u8],
    pub(crate) method: &'a Method,
}

/// The response for the client, of the server's answer. `None` when the answer is none.
pub(crate) fn response(answer: &[u8], back: &Back<'_>) -> Option<Bytes> {
    let text = std::str::from_utf8(answer).ok()?;
    let mut message = Object::parse(text).ok()?;
    let id = std::str::from_utf8(back.id).ok()?;
    message.set("id", id);
    if let Some(error) = message.get("error") {
        let error = translate_error(error, back);
        message.set("error", error);
    } else if let Some(result) = message.get("result")
        && back.client != back.server
    {
        let result = translate_result(Object::parse(result).ok()?, back);
        message.set("result", result);
    }
    Some(message.to_string().into())
}

fn translate_result(mut result: Object<'_>, back: &Back<'_>) -> String {
    match back.client {
        Era::Modern => {
            result.set_text("resultType", "complete");
            if *back.method == Method::ResourcesRead {
                // What a server without such words says of caching: nothing may be kept.
                result.set("ttlMs", "0");
                result.set_text("cacheScope", "private");
            }
        }
        Era::Legacy => {
            let is_object = |raw: &str| raw.trim_start().starts_with('{');
            let other = result.get("structuredContent").is_some_and(|content| !is_object(content));
            // Before 2026-07-28 structured content is an object.
            result.remove(|name| {
                matches!(name, "resultType" | "ttlMs" | "cacheScope") || name == "structuredContent" && other
            });
        }
    }
    result.to_string()
}

/// Each era has its own word for a resource that is not there, and must not use the other's.
fn translate_error(error: &str, back: &Back<'_>) -> String {
    let Ok(mut object) = Object::parse(error) else { return error.to_owned() };
    let is = |code| object.get("code") == Some(code);
    let code = match back.client {
        Era::Modern if is(RESOURCE_NOT_FOUND) => INVALID_PARAMS,
        Era::Legacy
            if back.server == Era::Modern && *back.method == Method::ResourcesRead && is(INVALID_PARAMS) =>
        {
            RESOURCE_NOT_FOUND
        }
        _ => return error.to_owned(),
    };
    object.set("code", code);
    object.to_string()
}

/// A notification in the middle of a request, for its client; `None` when it means nothing there.
pub(crate) fn notification(
    note: &Bytes,
    client: Era,
    token: Option<&Bytes>,
    level: Option<&str>,
) -> Option<Bytes> {
    let mut message = Object::parse(std::str::from_utf8(note).ok()?).ok()?;
    let method = message.text("method")?;
    match method.as_str() {
        "notifications/progress" => {
            let token = std::str::from_utf8(token?).ok()?;
            let mut params = message.object("params");
            params.set("progressToken", token);
            let params = params.to_string();
            message.set("params", params);
            Some(message.to_string().into())
        }
        // This era sends log messages only to who asked for them in the request.
        "notifications/message" if client == Era::Modern && level.is_none() => None,
        "notifications/message" => Some(note.clone()),
        // Of the hop, or told by the gateway itself.
        "notifications/cancelled" => None,
        name if name.ends_with("/list_changed") => None,
        _ if client == Era::Modern => None,
        _ => Some(note.clone()),
    }
}

/// A message with the URIs of a server as agents see them. `None`: it may pass as it is.
pub(crate) fn expose_uris(message: &[u8], endpoint: &Endpoint, server: &Arc<Server>) -> Option<Bytes> {
    let has = |word: &[u8]| memmem::find(message, word).is_some();
    if endpoint.is_bare() || !(has(b"\"uri\"") || has(b"\"resourceUri\"")) {
        return None;
    }
    let mut parsed: Value = serde_json::from_slice(message).ok()?;
    let expose = |holder: &mut Value, member: &str| {
        if let Some(Value::String(uri)) = holder.get(member) {
            holder[member] = endpoint.expose_uri(server, uri).into();
        }
    };
    for part in ["result", "params"] {
        let Some(part) = parsed.get_mut(part) else { continue };
        // Of `notifications/resources/updated`.
        expose(part, "uri");
        if let Some(Value::Array(contents)) = part.get_mut("contents") {
            contents.iter_mut().for_each(|content| expose(content, "uri"));
        }
        if let Some(Value::Array(contents)) = part.get_mut("content") {
            contents.iter_mut().for_each(|content| expose_content(content, &expose));
        }
        if let Some(Value::Array(messages)) = part.get_mut("messages") {
            for message in messages {
                if let Some(content) = message.get_mut("content") {
                    expose_content(content, &expose);
                }
            }
        }
        if let Some(ui) = part.get_mut("_meta").and_then(|meta| meta.get_mut("ui")) {
            expose(ui, "resourceUri");
        }
    }
    Some(parsed.to_string().into())
}

/// A content that is a link to a resource, or has one in it.
fn expose_content(content: &mut Value, expose: &impl Fn(&mut Value, &str)) {
    if content.get("type").is_some_and(|kind| kind == "resource_link") {
        expose(content, "uri");
    }
    if let Some(resource) = content.get_mut("resource") {
        expose(resource, "uri");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hop(client: Era, server: Era, capabilities: &RawValue) -> Hop<'_> {
        Hop { client, server, id: 7, inner: Some("read"), capabilities, level: Some("info"), input: None }
    }

    fn text(bytes: &Bytes) -> &str {
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    #[test]
    fn a_legacy_client_s_call_says_to_a_modern_server_what_each_request_must() -> Result<(), serde_json::Error>
    {
        let capabilities = RawValue::from_string(r#"{"roots":{}}"#.to_owned())?;
        let params = r#"{"name":"files__read","arguments":{"a": 1},"task":{},"_meta":{"progressToken":"t"}}"#;
        let request =
            request(&Method::ToolsCall, Some(params), &hop(Era::Legacy, Era::Modern, &capabilities));
        let info = format!(r#"{{"name":"gantry","version":"{}"}}"#, env!("CARGO_PKG_VERSION"));
        let meta = [
            r#""progressToken":7"#.to_owned(),
            r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#.to_owned(),
            r#""io.modelcontextprotocol/clientCapabilities":{"roots":{}}"#.to_owned(),
            format!(r#""io.modelcontextprotocol/clientInfo":{info}"#),
            r#""io.modelcontextprotocol/logLevel":"info""#.to_owned(),
        ];
        let params = format!(r#"{{"name":"read","arguments":{{"a": 1}},"_meta":{{{}}}}}"#, meta.join(","));
        let expected = format!(r#"{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}"#);
        assert_eq!(text(&request), expected);
        Ok(())
    }

    #[test]
    fn a_modern_client_s_call_keeps_nothing_of_its_era_for_a_legacy_server() -> Result<(), serde_json::Error>
    {
        let capabilities = RawValue::from_string("{}".to_owned())?;
        let params = r#"{"name":"x","requestState":"s","inputResponses":{},"_meta":{
            "io.modelcontextprotocol/protocolVersion":"2026-07-28","own":1}}"#;
        let request =
            request(&Method::ToolsCall, Some(params), &hop(Era::Modern, Era::Legacy, &capabilities));
        assert_eq!(
            text(&request),
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"read","_meta":{"own":1}}}"#
        );
        Ok(())
    }

    #[test]
    fn a_completion_s_reference_is_renamed_and_nothing_else_of_it() -> Result<(), serde_json::Error> {
        let capabilities = RawValue::from_string("{}".to_owned())?;
        let params = r#"{"ref":{"type":"ref/resource","uri":"files+a://{x}"},"argument":{"name":"x"}}"#;
        let hop = hop(Era::Legacy, Era::Legacy, &capabilities);
        assert_eq!(
            text(&request(&Method::CompletionComplete, Some(params), &hop)),
            r#"{"jsonrpc":"2.0","id":7,"method":"completion/complete","params":{"ref":{"type":"ref/resource","uri":"read"},"argument":{"name":"x"}}}"#
        );
        Ok(())
    }

    #[test]
    fn a_result_has_what_its_client_s_era_wants() {
        let translated = |client, method: &Method, answer: &str| {
            let server = if client == Era::Legacy { Era::Modern } else { Era::Legacy };
            let back = Back { client, server, id: b"\"a\"", method };
            response(answer.as_bytes(), &back).map(|bytes| text(&bytes).to_owned()).unwrap_or_default()
        };
        assert_eq!(
            translated(
                Era::Modern,
                &Method::ResourcesRead,
                r#"{"jsonrpc":"2.0","id":7,"result":{"contents":[]}}"#
            ),
            r#"{"jsonrpc":"2.0","id":"a","result":{"contents":[],"resultType":"complete","ttlMs":0,"cacheScope":"private"}}"#
        );
        assert_eq!(
            translated(
                Era::Legacy,
                &Method::ToolsCall,
                r#"{"jsonrpc":"2.0","id":7,"result":{"content":[],"structuredContent":[1],"resultType":"complete"}}"#
            ),
            r#"{"jsonrpc":"2.0","id":"a","result":{"content":[]}}"#
        );
        let not_found =
            |code: i32| format!(r#"{{"jsonrpc":"2.0","id":"a","error":{{"code":{code},"message":"x"}}}}"#);
        let method = &Method::ResourcesRead;
        assert_eq!(translated(Era::Modern, method, &not_found(-32002)), not_found(-32602));
        assert_eq!(translated(Era::Legacy, method, &not_found(-32602)), not_found(-32002));
        assert_eq!(translated(Era::Legacy, &Method::ToolsCall, &not_found(-32602)), not_found(-32602));
    }

    #[test]
    fn only_notifications_that_mean_something_there_are_passed_on() {
        let note = |method: &str| {
            Bytes::from(format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{{"progressToken":7}}}}"#))
        };
        let token = Bytes::from_static(b"\"mine\"");
        let progress = notification(&note("notifications/progress"), Era::Modern, Some(&token), None);
        assert_eq!(
            progress.as_ref().map(text),
            Some(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"mine"}}"#)
        );
        assert_eq!(notification(&note("notifications/progress"), Era::Modern, None, None), None);
        let log = note("notifications/message");
        assert_eq!(notification(&log, Era::Modern, None, None), None);
        assert_eq!(notification(&log, Era::Modern, None, Some("info")), Some(log.clone()));
        assert_eq!(notification(&log, Era::Legacy, None, None), Some(log));
        assert_eq!(notification(&note("notifications/tools/list_changed"), Era::Legacy, None, None), None);
    }
}
