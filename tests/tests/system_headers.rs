//! The headers of 2026-07-28: whoever says one thing in a header and another in the body is refused, because two
//! readers of the request would each believe another half of it.

use gantry_tests::agent::{MODERN, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};

/// A revision that nobody speaks.
const UNKNOWN: &str = "2031-01-01";

/// A call whose argument travels in a header as well.
fn repeat(value: Option<&str>) -> Message {
    let arguments = value.map_or_else(|| json!({}), |value| json!({"value": value}));
    Message::call("test_custom_header", arguments)
}

fn add() -> Message {
    Message::call("add", json!({"a": 2, "b": 3}))
}

/// The same request with another value of a header.
fn replaced(message: Message, name: &str, value: &str) -> Message {
    message.without(name).with(name, value)
}

/// A request whose body is the same but for its `_meta`.
fn with_meta(meta: Value) -> Message {
    let mut body: Value = serde_json::from_slice(add().body()).expect("a body is JSON");
    body["params"]["_meta"] = meta;
    add().with_body(body.to_string())
}

fn mismatch(what: &'static str, message: Message, reason: &str) -> Refusal {
    Refusal::new(what, message, "invalid").error(400, -32020, reason)
}

fn standard_headers() -> Vec<Refusal> {
    let read = Message::modern("resources/read", json!({"uri": "test://static-text"}));
    vec![
        mismatch("no method", add().without("mcp-method"), "header mcp-method is missing"),
        mismatch(
            "another method",
            replaced(add(), "mcp-method", "tools/list"),
            r#"header mcp-method is "tools/list", but the body says "tools/call""#,
        ),
        mismatch(
            "a method in another case",
            replaced(add(), "mcp-method", "Tools/Call"),
            r#"header mcp-method is "Tools/Call", but the body says "tools/call""#,
        ),
        mismatch("two methods", add().with("mcp-method", "tools/call"), "header mcp-method stands twice"),
        mismatch("no name", add().without("mcp-name"), "header mcp-name is missing"),
        mismatch(
            "another name",
            replaced(add(), "mcp-name", "show_request_headers"),
            r#"header mcp-name is "show_request_headers", but the body says "add""#,
        ),
        mismatch("two names", add().with("mcp-name", "add"), "header mcp-name stands twice"),
        mismatch(
            "a name in broken base64",
            replaced(add(), "mcp-name", "=?base64?YWRk!?="),
            "header mcp-name is not valid base64",
        ),
        mismatch(
            "another name in base64",
            replaced(add(), "mcp-name", "=?base64?c3Vi?="),
            r#"header mcp-name is "=?base64?c3Vi?=", but the body says "add""#,
        ),
        mismatch(
            "a name that is no UTF-8",
            replaced(add(), "mcp-name", "=?base64?/w==?="),
            "header mcp-name is not UTF-8",
        ),
        mismatch(
            "another resource",
            replaced(read, "mcp-name", "test://static-binary"),
            r#"header mcp-name is "test://static-binary", but the body says "test://static-text""#,
        ),
    ]
}

fn versions() -> Vec<Refusal> {
    let capabilities = "io.modelcontextprotocol/clientCapabilities";
    let version = "io.modelcontextprotocol/protocolVersion";
    let unknown = with_meta(json!({version: UNKNOWN, capabilities: {}}));
    let lacks = |what, meta, field: &str| {
        Refusal::new(what, with_meta(meta), "invalid").error(
            400,
            -32602,
            &format!("params._meta must hold {field}"),
        )
    };
    vec![
        mismatch(
            "no version",
            add().without("mcp-protocol-version"),
            "header mcp-protocol-version is missing",
        ),
        mismatch(
            "two versions",
            add().with("mcp-protocol-version", MODERN),
            "header mcp-protocol-version stands twice",
        ),
        mismatch(
            "another version",
            replaced(add(), "mcp-protocol-version", "2025-11-25"),
            r#"header mcp-protocol-version is "2025-11-25", but the body says "2026-07-28""#,
        ),
        mismatch(
            "an unknown version in the header only",
            replaced(add(), "mcp-protocol-version", UNKNOWN),
            r#"header mcp-protocol-version is "2031-01-01", but the body says "2026-07-28""#,
        ),
        Refusal::new("an unknown version", replaced(unknown, "mcp-protocol-version", UNKNOWN), "invalid")
            .error(400, -32022, r#"protocol version "2031-01-01" is not supported"#)
            .data("requested", json!(UNKNOWN))
            .data("supported", json!([MODERN])),
        Refusal::new(
            "an unknown version of the other era",
            replaced(with_meta(json!({})), "mcp-protocol-version", "2020-01-01"),
            "invalid",
        )
        .error(400, -32600, r#"protocol version "2020-01-01" is not known"#),
        lacks("no version in the body", json!({capabilities: {}}), version),
        lacks("no capabilities", json!({version: MODERN}), capabilities),
    ]
}

fn mirrored_arguments() -> Vec<Refusal> {
    let name = "mcp-param-value";
    vec![
        mismatch("no header", repeat(Some("x")), "header mcp-param-value is missing"),
        mismatch(
            "another value",
            repeat(Some("x")).with(name, "y"),
            r#"header mcp-param-value is "y", but the argument is "x""#,
        ),
        mismatch(
            "a value in another case",
            repeat(Some("x")).with(name, "X"),
            r#"header mcp-param-value is "X", but the argument is "x""#,
        ),
        mismatch(
            "two values",
            repeat(Some("x")).with(name, "x").with(name, "x"),
            "header mcp-param-value stands twice",
        ),
        mismatch(
            "a value without an argument",
            repeat(None).with(name, "x"),
            "header mcp-param-value is there, but argument value is not",
        ),
        mismatch(
            "a value in broken base64",
            repeat(Some("x")).with(name, "=?base64?e?="),
            "header mcp-param-value is not valid base64",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_whose_headers_and_body_disagree_is_refused() {
    let governed = Governed::start().await;
    let with_key = |mut refusal: Refusal| {
        refusal.message = refusal.message.with_key(governed.key());
        refusal
    };
    let all = [standard_headers(), versions(), mirrored_arguments()].concat();
    let all: Vec<_> = all.into_iter().map(with_key).collect();
    for protocol in [Protocol::Http1, Protocol::Http2] {
        check(&governed, protocol, &all).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_may_be_encoded_and_its_name_may_stand_in_any_case() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    for message in [
        replaced(repeat(Some("x")), "mcp-name", "=?base64?dGVzdF9jdXN0b21faGVhZGVy?=")
            .with("mcp-param-value", "x"),
        repeat(Some("x")).with("MCP-PARAM-VALUE", "  =?base64?eA==?=  "),
        repeat(Some("é\n")).with("mcp-param-value", "=?base64?w6kK?="),
    ] {
        let answer = agent.ask(&message.clone().with_key(governed.key())).await.expect("an answer");
        assert_eq!((answer.status, answer.header("www-authenticate")), (200, None), "{message:?}");
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        assert!(body.contains(r#""text":"value: "#) && !body.contains("error"), "{body}");
    }
}
