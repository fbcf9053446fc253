//! The way of a request: every way in which one is refused, as an agent sees it and as it is recorded.

use gantry_tests::agent::{MODERN, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// The largest body that is taken, in bytes, as the README of the data plane has it.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A call that succeeds.
fn add() -> Message {
    Message::call("add", json!({"a": 2, "b": 3}))
}

/// A message with 10,000 levels, which is JSON.
fn deep_message() -> String {
    let (open, close) = ("[".repeat(10_000), "]".repeat(10_000));
    format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{open}{close}}}"#)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_without_a_valid_key_is_challenged() {
    let governed = Governed::start().await;
    governed.apply("{kind: Tenant, name: acme}\n---\n{kind: Agent, tenant: acme, name: bot}\n").await;
    let foreign = governed.admin(&["key", "create", "--agent", "bot", "--tenant", "acme"], "").await;
    let key = governed.key();
    let other_secret = if key.ends_with('0') { "1" } else { "0" };
    let wrong = format!("{}{other_secret}", &key[..key.len() - 1]);
    let missing = |what, message: Message| {
        Refusal::new(what, message, "unauthenticated")
            .error(401, -31401, "an agent key is required: Authorization: Bearer KEY")
            .header("www-authenticate", r#"Bearer realm="gantry""#)
            .without_id()
    };
    let invalid = |what, message: Message| {
        Refusal::new(what, message, "unauthenticated")
            .error(401, -31401, "the agent key is not valid here")
            .header("www-authenticate", r#"Bearer realm="gantry", error="invalid_token""#)
            .without_id()
    };
    let refusals = [
        missing("no key", add()),
        missing("no key and no JSON", add().with_body("{")),
        invalid("a wrong secret", add().with_key(&wrong)),
        invalid("an id alone", add().with_key(&key[..23])),
        invalid("no form of a key", add().with_key("secret")),
        invalid("another scheme", add().with("authorization", &format!("Basic {key}"))),
        invalid("a key of another tenant", add().with_key(foreign.trim_end())),
        invalid("a wrong key as X-API-Key", add().with("x-api-key", &wrong)),
        Refusal::new(
            "a good key as X-API-Key beside a wrong one",
            add().with("x-api-key", key).with("authorization", &format!("Bearer {wrong}")),
            "unauthenticated",
        )
        .error(
            400,
            -31401,
            "what says who calls stands twice (Authorization, X-API-Key); it has to stand once",
        )
        .header("www-authenticate", r#"Bearer realm="gantry", error="invalid_request""#)
        .without_id(),
    ];
    for protocol in BOTH {
        check(&governed, protocol, &refusals).await;
    }

    let answer = governed.connect(Protocol::Http1).await.ask(&add().with("x-api-key", key)).await;
    assert_eq!(answer.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_message_is_refused_before_anything_is_done() {
    let governed = Governed::start().await;
    let key = governed.key();
    let malformed = |what, body: Vec<u8>, reason: &str| {
        let message = format!("the body is not JSON that is taken here: {reason}");
        Refusal::new(what, add().with_key(key).with_body(body), "malformed")
            .error(400, -32700, &message)
            .without_id()
    };
    let invalid = |what, body: &str, reason: &str| {
        Refusal::new(what, add().with_key(key).with_body(body.to_owned()), "invalid")
            .error(400, -32600, reason)
    };
    let deep = deep_message();
    let deep_reason = "the body is nested more than 100 levels deep";
    let call =
        |params: &str| format!(r#"{{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}"#);
    let refusals = [
        malformed("no JSON", b"{".to_vec(), "EOF while parsing an object at line 1 column 1"),
        malformed("nothing", Vec::new(), "EOF while parsing a value at line 1 column 0"),
        malformed("no UTF-8", b"{\"jsonrpc\":\"\xff\"}".to_vec(), "the body is not UTF-8"),
        malformed("10,000 levels", deep.into_bytes(), deep_reason),
        malformed("10,000 opening brackets", "[".repeat(10_000).into_bytes(), deep_reason),
        invalid(
            "a method twice",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}"#,
            "field `method` stands twice at line 1 column 48",
        )
        .without_id(),
        invalid(
            "a name twice",
            &call(r#"{"name":"add","name":"show_request_headers"}"#),
            "params: field `name` stands twice at line 1 column 20",
        ),
        invalid(
            "an argument twice",
            &call(r#"{"name":"add","arguments":{"a":1,"a":2,"b":3}}"#),
            "params.arguments: field `a` stands twice at line 1 column 12",
        ),
        invalid(
            "a name in another case",
            &call(r#"{"name":"add","Name":"show_request_headers"}"#),
            "params: field `Name` must be written `name` at line 1 column 20",
        ),
        invalid(
            "a method in another case",
            r#"{"jsonrpc":"2.0","id":1,"method":"ping","Method":"tools/call"}"#,
            "field `Method` must be written `method` at line 1 column 48",
        )
        .without_id(),
        invalid(
            "a batch",
            r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#,
            "a batch belongs to version 2025-03-26 alone; send each message by itself",
        )
        .without_id(),
        invalid("no version", r#"{"id":1,"method":"ping"}"#, r#"field `jsonrpc` must be "2.0""#),
        invalid(
            "arguments that are no object",
            &call(r#"{"name":"add","arguments":[2,3]}"#),
            "params.arguments must be an object",
        ),
    ];
    for protocol in BOTH {
        check(&governed, protocol, &refusals).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_one_of_the_endpoint_is_refused_as_http_has_it() {
    let governed = Governed::start().await;
    let key = governed.key();
    let large = vec![b' '; 5 * 1024 * 1024];
    let too_large = format!("the body is larger than {BODY_BYTES_MAX} bytes");
    let refusals = [
        Refusal::new("a body of 5 MiB", add().with_key(key).with_body(large), "malformed")
            .error(413, -32600, &too_large)
            .without_id(),
        Refusal::new("a body that is no JSON", add().with_key(key).without("content-type"), "invalid")
            .error(415, -32600, "the body must be application/json")
            .without_id(),
        Refusal::new("another method", add().with_key(key).by(http::Method::PUT), "invalid")
            .error(405, -32600, "this HTTP method is not served here")
            .without_id(),
        Refusal::new(
            "a stream of the modern era",
            Message::new("").by(http::Method::GET).with("mcp-protocol-version", MODERN).with_key(key),
            "invalid",
        )
        .error(405, -32600, "this HTTP method is not served here")
        .without_id(),
    ];
    for protocol in BOTH {
        check(&governed, protocol, &refusals).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_no_tool_or_with_arguments_that_do_not_fit_is_told_how_to_be_mended() {
    let governed = Governed::start().await;
    let key = governed.key();
    let call = |tool: &str, arguments: Value| Message::call(tool, arguments).with_key(key);
    let misfit = |what, arguments: Value, problems: &str| {
        Refusal::new(what, call("add", arguments), "invalid").result(json!({
            "content": [{"type": "text", "text": format!("Invalid arguments for tool \"add\":{problems}")}],
            "isError": true,
            "_meta": {"dev.gantry/decisionId": "ID"},
            "resultType": "complete",
        }))
    };
    let refusals = [
        Refusal::new("a name nearly right", call("ad", json!({})), "invalid").error(
            200,
            -32602,
            r#"unknown tool "ad"; the nearest is "add""#,
        ),
        Refusal::new("a name like no other", call("zebra", json!({})), "invalid").error(
            200,
            -32602,
            r#"unknown tool "zebra""#,
        ),
        Refusal::new("no name", Message::modern("tools/call", json!({})).with_key(key), "invalid").error(
            200,
            -32602,
            "params.name is missing",
        ),
        Refusal::new(
            "a method of the other era",
            Message::modern("ping", json!({})).with_key(key),
            "invalid",
        )
        .error(404, -32601, "method \"ping\" is not served here"),
        misfit(
            "a wrong type",
            json!({"a": 2, "b": "three"}),
            "\n- at /b: \"three\" is not of type \"integer\"",
        ),
        misfit("an argument missing", json!({"a": 2}), "\n- at /: \"b\" is a required property"),
        misfit(
            "one too many",
            json!({"a": 2, "b": 3, "c": 4}),
            "\n- at /: Additional properties are not allowed ('c' was unexpected)",
        ),
    ];
    for protocol in BOTH {
        check(&governed, protocol, &refusals).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_is_not_served_whatever_key_it_has() {
    let governed = Governed::start().await;
    let port = governed.dev().ready().endpoint.split([':', '/']).nth(4).expect("a port");
    let refused = |what, message: Message| {
        Refusal::new(what, message.with_key(governed.key()), "invalid")
            .error(403, -32600, "Host or Origin is not allowed here")
            .without_id()
    };
    let refusals = [
        refused("another host", add().with("host", "evil.example")),
        refused("a host that begins well", add().with("host", &format!("127.0.0.1.evil.example:{port}"))),
        refused("another origin", add().with("origin", "http://evil.example")),
        refused("an origin that is hidden", add().with("origin", "null")),
        refused(
            "another origin and host",
            add().with("host", "evil.example").with("origin", "http://evil.example"),
        ),
    ];
    check(&governed, Protocol::Http1, &refusals).await;
    check(&governed, Protocol::Http2, &refusals[2..4]).await;

    let mut agent = governed.connect(Protocol::Http1).await;
    for message in [
        add().with("host", &format!("localhost:{port}")),
        add().with("host", &format!("[::1]:{port}")),
        add().with("origin", &format!("http://localhost:{port}")),
    ] {
        let answer = agent.ask(&message.clone().with_key(governed.key())).await.expect("an answer");
        assert_eq!(answer.status, 200, "{message:?}");
    }
}

/// Writes a whole request before it reads anything, as simple clients do; returns the lines of the answers' heads
/// that tell the status. The second request is `GET /healthz`, on the same connection.
async fn write_then_read(governed: &Governed, headers: &str, body_bytes: usize) -> Vec<String> {
    let (authority, path) =
        governed.dev().ready().endpoint["http://".len()..].split_once('/').expect("a path");
    let mut stream = TcpStream::connect(authority).await.expect("a connection");
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {authority}\r\n{headers}content-length: {body_bytes}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("the head is taken");
    stream.write_all(&vec![b' '; body_bytes]).await.expect("the body is taken");
    let second = format!("GET /healthz HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(second.as_bytes()).await.expect("the second request is taken");
    let mut answers = String::new();
    stream.read_to_string(&mut answers).await.expect("the answers arrive");
    answers
        .split_inclusive("HTTP/1.1 ")
        .skip(1)
        .filter_map(|answer| answer.get(..3))
        .map(str::to_owned)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_writes_all_of_a_large_body_first_still_reads_why_it_is_refused() {
    let governed = Governed::start().await;
    let json = "content-type: application/json\r\n";
    let key = format!("authorization: Bearer {}\r\n", governed.key());
    for body_bytes in [100 * 1024, 1024 * 1024, 5 * 1024 * 1024] {
        for (headers, status) in [
            (json.to_owned(), "401"),
            (key.clone(), "415"),
            (format!("{json}{key}"), if body_bytes > BODY_BYTES_MAX { "413" } else { "400" }),
        ] {
            assert_eq!(
                write_then_read(&governed, &headers, body_bytes).await,
                [status, "200"],
                "{body_bytes} bytes"
            );
        }
    }
}
