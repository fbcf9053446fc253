//! `gantry tool call`: a call as an agent makes it, through the whole pipeline of an endpoint.
//!
//! Always holds: a key from the context goes to an endpoint of that context only; a key is never an argument.

use std::io::{self, Read};
use std::path::PathBuf;
use std::time::Duration;

use gantry_model::nearest::nearest;
use serde_json::{Map, Value};
use url::Url;

use crate::context::{ContextFile, ContextFlag, SecretText, read_secret};
use crate::duration::Span;
use crate::failure::{Exit, Failure, chain};
use crate::mcp::{Client, McpError, Refusal, Revision, Target};
use crate::output::{self, TextFormat, visible};

/// Variable with an agent key.
const KEY_VARIABLE: &str = "GANTRY_AGENT_KEY";
/// Most bytes of arguments from standard input: what an endpoint accepts.
const ARGUMENTS_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// `gantry tool call`.
#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    /// The tool's name, as the endpoint lists it.
    tool: String,
    /// An argument; the value is JSON where it is JSON, else text. Repeatable.
    #[arg(long = "arg", value_name = "NAME=VALUE", value_parser = parse_argument)]
    arguments: Vec<(String, Value)>,
    /// All arguments as one JSON object, or - for standard input.
    #[arg(long, value_name = "JSON|-", conflicts_with = "arguments")]
    json_args: Option<String>,
    /// URL of the endpoint, or its name in the context; the context's first when absent.
    #[arg(long, value_name = "URL|NAME")]
    endpoint: Option<String>,
    /// File with the agent's key; also GANTRY_AGENT_KEY; the context's key when absent.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// PEM file with a certificate to trust, for an endpoint with one of its own.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Protocol revision to speak; 2026-07-28, and 2025-11-25 where the endpoint knows no other, when absent.
    #[arg(long, value_name = "REVISION")]
    revision: Option<Revision>,
    /// How long to wait for the answer.
    #[arg(long, value_name = "SPAN", default_value = "120s")]
    timeout: Span,
    /// The content for people, or the whole result as JSON.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    context: ContextFlag,
}

/// Reads `NAME=VALUE`.
pub(crate) fn parse_argument(text: &str) -> Result<(String, Value), String> {
    let (name, value) =
        text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("an argument is NAME=VALUE")?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
    Ok((name.to_owned(), value))
}

impl Call {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let arguments = self.arguments()?;
        let target = self.target()?;
        let url = target.url.clone();
        if url.scheme() == "http" && target.key.is_some() && !is_loopback(&url) {
            output::warn(&format!("the agent key goes to {url} unencrypted"));
        }
        let client = Client::new(target).map_err(|error| failed(&error, &url, &self.tool))?;
        let call = client.call_tool(&self.tool, &arguments, self.revision);
        let result = tokio::time::timeout(Duration::from_secs(self.timeout.seconds), call).await;
        match result {
            Ok(Ok(result)) => self.show(&result),
            Ok(Err(error)) => Err(failed(&error, &url, &self.tool)),
            Err(_) => Err(Failure::new(
                Exit::Unavailable,
                format!("no answer from {url} within {} s", self.timeout.seconds),
                "`gantry status`, or wait longer with `--timeout 10m`",
            )),
        }
    }

    fn arguments(&self) -> Result<Map<String, Value>, Failure> {
        let Some(json_args) = &self.json_args else {
            let mut map = Map::new();
            for (name, value) in &self.arguments {
                if map.insert(name.clone(), value.clone()).is_some() {
                    return Err(Failure::usage(
                        format!("the argument {name:?} is given twice"),
                        "give it once",
                    ));
                }
            }
            return Ok(map);
        };
        let refused = |reason: String| {
            Failure::usage(
                format!("--json-args is no JSON object: {reason}"),
                "write one, such as `--json-args '{\"id\": 1}'`",
            )
        };
        let text = match json_args.as_str() {
            "-" => {
                let mut text = String::new();
                let mut stdin = io::stdin().lock().take(ARGUMENTS_BYTES_MAX);
                stdin.read_to_string(&mut text).map_err(|error| refused(error.to_string()))?;
                text
            }
            text => text.to_owned(),
        };
        serde_json::from_str(&text).map_err(|error| refused(error.to_string()))
    }

    fn target(&self) -> Result<Target, Failure> {
        let context = self.context.find()?;
        let (url, own_context) = match (&self.endpoint, context) {
            (Some(text), context) if text.contains("://") => {
                let url = parse_url(text)?;
                let own = context.filter(|context| context.endpoints.values().any(|known| known == text));
                (url, own)
            }
            (named, Some(context)) => {
                let name = named.as_deref().unwrap_or(&context.endpoint);
                (parse_url(known_endpoint(&context, name)?)?, Some(context))
            }
            (_, None) => {
                return Err(Failure::error(
                    "no endpoint is known",
                    "start `gantry dev`, or name one with `--endpoint URL`",
                ));
            }
        };
        let key = match (&self.key_file, std::env::var(KEY_VARIABLE)) {
            (Some(path), _) => Some(read_secret(path)?),
            (None, Ok(key)) if !key.is_empty() => Some(SecretText::new(key)),
            (None, _) => own_context.as_ref().and_then(|context| context.agent_key().cloned()),
        };
        let certificate =
            self.ca_file.clone().or_else(|| own_context.and_then(|context| context.certificate));
        Ok(Target { url, key, certificate })
    }

    fn show(&self, result: &Value) -> Result<Exit, Failure> {
        match self.output {
            TextFormat::Json => output::print(&output::json(result))?,
            TextFormat::Text => output::print(&content_text(result))?,
        }
        if result.get("resultType").and_then(Value::as_str) == Some("input_required") {
            return Err(Failure::error(
                format!("{} asks for input, which `gantry tool call` cannot give", self.tool),
                "call it from a client that supports elicitation",
            ));
        }
        match result.get("isError") {
            Some(Value::Bool(true)) => Err(Failure::error(
                format!("{} reports an error", self.tool),
                "correct the arguments; `gantry audit tail` shows the call",
            )),
            Some(_) | None => Ok(Exit::Done),
        }
    }
}

/// Reads the URL of an endpoint.
pub(super) fn parse_url(text: &str) -> Result<Url, Failure> {
    let next = "name it as `--endpoint http://HOST:PORT/TENANT/ENDPOINT/mcp`";
    let url = Url::parse(text)
        .map_err(|error| Failure::usage(format!("endpoint {text:?} is no URL: {error}"), next))?;
    match url.scheme() {
        "http" | "https" => Ok(url),
        _ => Err(Failure::usage(format!("endpoint {text:?} is neither http nor https"), next)),
    }
}

fn known_endpoint<'a>(context: &'a ContextFile, name: &str) -> Result<&'a str, Failure> {
    context.endpoints.get(name).map(String::as_str).ok_or_else(|| {
        let known = || context.endpoints.keys().map(String::as_str);
        let near =
            nearest(name, known()).map(|near| format!("; nearest known name: {near}")).unwrap_or_default();
        Failure::usage(
            format!("the context has no endpoint {name:?}{near}"),
            format!("name a URL, or one of {}", known().collect::<Vec<_>>().join(", ")),
        )
    })
}

/// Whether a URL is of this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

/// The content of a result for people; its structured content when there is no other.
fn content_text(result: &Value) -> String {
    let Some(blocks) = result.get("content").and_then(Value::as_array).filter(|blocks| !blocks.is_empty())
    else {
        return result.get("structuredContent").map(output::json).unwrap_or_default();
    };
    blocks.iter().map(|block| visible(&block_text(block)) + "\n").collect()
}

fn block_text(block: &Value) -> String {
    let text = |field: &str| block.get(field).and_then(Value::as_str).unwrap_or_default();
    match text("type") {
        "text" => text("text").trim_end_matches('\n').to_owned(),
        kind @ ("image" | "audio") => {
            format!("[{kind}: {}, {} characters of base64]", text("mimeType"), text("data").len())
        }
        "resource_link" => format!("[resource: {}]", text("uri")),
        "resource" => match block.pointer("/resource/text").and_then(Value::as_str) {
            Some(text) => text.to_owned(),
            None => {
                let uri = block.pointer("/resource/uri").and_then(Value::as_str).unwrap_or_default();
                format!("[resource: {uri}]")
            }
        },
        _ => block.to_string(),
    }
}

fn failed(error: &McpError, url: &Url, tool: &str) -> Failure {
    match error {
        McpError::Refused(refusal) => refused(refusal, tool),
        McpError::Unreachable { .. } if chain(error).contains("invalid peer certificate") => Failure::error(
            format!("{url}: {}", chain(error)),
            "name its authority's certificate with `--ca-file FILE`; a self-signed one must say CA:FALSE",
        ),
        McpError::Unreachable { .. } => Failure::new(
            Exit::Unavailable,
            format!("{url}: {}", chain(error)),
            "start it with `gantry dev`, or name another with `--endpoint URL`",
        ),
        McpError::Setup(_) => Failure::error(error.to_string(), "`gantry tool call --help`"),
        McpError::NotMcp { status: 401, .. } => unauthenticated(&error.to_string()),
        McpError::NotMcp { status: 502..=504, .. } => {
            Failure::new(Exit::Unavailable, error.to_string(), "`gantry status` shows what each server said")
        }
        McpError::NotMcp { .. }
        | McpError::Broken(_)
        | McpError::TooLarge
        | McpError::NoAnswer
        | McpError::Handshake(_) => Failure::error(
            format!("{url}: {}", chain(error)),
            "check the URL (`gantry get endpoints`); `gantry audit tail` shows the call",
        ),
    }
}

fn unauthenticated(message: &str) -> Failure {
    Failure::error(
        message.to_owned(),
        format!(
            "name a valid key with `--key-file FILE` or {KEY_VARIABLE}; `gantry key create --agent NAME` makes one"
        ),
    )
}

fn refused(refusal: &Refusal, tool: &str) -> Failure {
    let message = visible(&refusal.message);
    match (refusal.rejection(), refusal.decision_id(), refusal.status) {
        (Some("denied" | "revoked"), Some(id), _) => {
            let id = visible(id);
            Failure::new(Exit::Denied, message, format!("`gantry policy explain {id}`"))
                .with_details(vec![format!("decision {id}")])
        }
        (_, _, 401) => unauthenticated(&message),
        (_, _, 429) => {
            let when = match refusal.retry_after.as_deref() {
                Some(seconds) => format!("in {} s", visible(seconds)),
                None => "later".to_owned(),
            };
            Failure::error(message, format!("try again {when}; `gantry get limits` shows the limits"))
        }
        (Some("upstream_failed"), _, _) | (_, _, 502..=504) => {
            Failure::new(Exit::Unavailable, message, "`gantry status` shows what each server said")
        }
        (_, _, _) => Failure::error(
            format!("{tool}: {message} (JSON-RPC {})", refusal.code),
            "`gantry tool ls` lists the tools, `gantry get endpoints` the endpoints",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_argument_is_json_where_it_is_json_and_text_otherwise() {
        let read = |text: &str| parse_argument(text).map(|(name, value)| json!({name: value}));
        assert_eq!(read("a=1"), Ok(json!({"a": 1})));
        assert_eq!(read("a=true"), Ok(json!({"a": true})));
        assert_eq!(read("a={\"b\":[1]}"), Ok(json!({"a": {"b": [1]}})));
        assert_eq!(read("a=x=y"), Ok(json!({"a": "x=y"})));
        assert_eq!(read("a=\"1\""), Ok(json!({"a": "1"})));
        assert_eq!(read("a="), Ok(json!({"a": ""})));
        assert_eq!(read("a"), Err("an argument is NAME=VALUE".to_owned()));
        assert_eq!(read("=1"), Err("an argument is NAME=VALUE".to_owned()));
    }

    #[test]
    fn content_is_shown_block_by_block() {
        let result = json!({"content": [
            {"type": "text", "text": "one\n"},
            {"type": "image", "mimeType": "image/png", "data": "AAAA"},
            {"type": "resource_link", "uri": "file:///x"},
            {"type": "resource", "resource": {"uri": "file:///y", "text": "inside"}},
        ]});
        assert_eq!(
            content_text(&result),
            "one\n[image: image/png, 4 characters of base64]\n[resource: file:///x]\ninside\n"
        );
        assert_eq!(content_text(&json!({"structuredContent": {"sum": 3}})), "{\n  \"sum\": 3\n}\n");
    }

    #[test]
    fn a_denial_ends_with_its_own_exit_code_and_the_command_that_explains_it() {
        let refusal = Refusal {
            status: 403,
            code: -31_001,
            message: "denied by policy".to_owned(),
            data: json!({"rejection": "denied", "decisionId": "d1"}),
            retry_after: None,
        };
        let expected = Failure::new(Exit::Denied, "denied by policy", "`gantry policy explain d1`")
            .with_details(vec!["decision d1".to_owned()]);
        assert_eq!(refused(&refusal, "delete_note"), expected);
    }
}
