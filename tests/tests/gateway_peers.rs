//! Real clients and servers that others wrote, with Gantry between them.
//!
//! Each test has a gateway of its own, so that none sees what another one applied.

use gantry_tests::dev::{Dev, Options};
use gantry_tests::fixture;
use gantry_tests::peers::{Call, Client, Everything, Outcome, Target, chain, or_skip};
use serde_json::{Value, json};

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

/// The tool that the policy forbids.
const FORBIDDEN: &str = "show_request_headers";

/// Lets agents do everything that another policy permits, but for one tool.
const POLICY: &str = r#"forbid (principal, action == Action::"tools/call", resource)
when { resource.name == "show_request_headers" };"#;

/// Starts `gantry dev` in front of servers that are reached by URL.
async fn start(servers: &[(&str, &str)]) -> Dev {
    let servers = servers.iter().map(|(name, url)| ((*name).to_owned(), (*url).to_owned())).collect();
    let options = Options { servers, ..Options::default() };
    match Dev::start(&options).await {
        Ok(dev) => dev,
        Err(error) => panic!("{}", chain(&error)),
    }
}

/// The endpoint with the key that the first start printed.
fn target(dev: &Dev) -> Target {
    let ready = dev.ready();
    let key = ready.agent_key.as_deref().expect("a first start prints an agent key");
    Target::with_key(&ready.endpoint, key)
}

/// Applies the policy and waits until the node decides by it.
async fn forbid(dev: &Dev) {
    // Agents call http://HOST/TENANT/ENDPOINT/mcp.
    let tenant = dev.ready().endpoint.split('/').nth(3).expect("a tenant in the URL");
    let document = json!({
        "kind": "Policy",
        "tenant": tenant,
        "name": "no-headers",
        "spec": {"cedar": POLICY},
    });
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("policy.json");
    std::fs::write(&file, document.to_string()).expect("the policy is written");
    let file = file.to_string_lossy();
    let applied = dev.admin(&["apply", "-f", &file, "--wait"]).await.expect("apply runs");
    assert!(applied.status.success(), "{}{}", applied.stdout, applied.stderr);
}

/// What the fixture lists when it is reached directly, without the forbidden tool.
async fn permitted_tools(server: &fixture::Server) -> Vec<String> {
    let call = Call::new("test_simple_text", json!({}));
    let outcome = Client::RustDiscover.observe(&Target::open(server.url()), &call, None).await;
    let mut tools = outcome.expect("the fixture answers").tools;
    tools.retain(|tool| tool != FORBIDDEN);
    tools
}

/// The result of adding 2 and 3, as a client shows it that keeps what the protocol revision sends.
fn sum(protocol: &str) -> Value {
    let mut sum = json!({
        "content": [{"type": "text", "text": "{\"sum\":5}"}],
        "structuredContent": {"sum": 5},
        "isError": false,
    });
    if protocol == MODERN {
        sum["resultType"] = json!("complete");
    }
    sum
}

/// Everything that a client must see through the gateway: the tools that it may call, in the server's
/// order, the result as the server gave it, and no trace of a tool that it may not call.
async fn check(client: Client, protocol: &str, call: Value) {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let dev = start(&[("fixture", &server.url())]).await;
    forbid(&dev).await;
    let add = Call::new("add", json!({"a": 2, "b": 3}));
    let forbidden = Call::new(FORBIDDEN, json!({}));
    let observed = client.observe(&target(&dev), &add, Some(&forbidden)).await;
    let Some(mut outcome) = or_skip(observed) else {
        return;
    };
    let refused = outcome.refused.take().expect("a second call was made");
    assert_refused(&refused);
    let tools = permitted_tools(&server).await;
    let expected = Outcome { protocol: protocol.to_owned(), tools, call, refused: None };
    assert_eq!(outcome, expected, "{}", dev.output());
}

/// A denial is an error of the protocol or of the tool; it never carries what the tool would have said.
fn assert_refused(refused: &Value) {
    let is_error = refused.get("error").is_some_and(|error| error["code"].is_i64());
    let is_tool_error = refused.pointer("/result/isError") == Some(&json!(true));
    assert!(is_error || is_tool_error, "{refused}");
    let text = refused.to_string().to_lowercase();
    assert!(!text.contains("accept") && !text.contains("127.0.0.1"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_through_the_gateway() {
    check(Client::PythonAuto, MODERN, sum(MODERN)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_typescript_client_works_through_the_gateway() {
    check(Client::TypeScriptV1, LEGACY, sum(LEGACY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_typescript_client_works_through_the_gateway() {
    check(Client::TypeScriptV2, LEGACY, sum(LEGACY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_typescript_client_works_through_the_gateway_when_pinned() {
    // This client drops the result type once it has looked at it.
    check(Client::TypeScriptV2Pinned, MODERN, sum(LEGACY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_through_the_gateway_when_it_probes() {
    check(Client::RustAuto, MODERN, sum(MODERN)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_through_the_gateway_when_it_initializes() {
    check(Client::RustInitialize, LEGACY, sum(LEGACY)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_through_the_gateway_when_it_discovers() {
    check(Client::RustDiscover, MODERN, sum(MODERN)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_never_sees_the_key_of_the_client() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let dev = start(&[("fixture", &server.url())]).await;
    for client in [Client::RustInitialize, Client::RustDiscover] {
        let show = Call::new(FORBIDDEN, json!({}));
        let observed = client.observe(&target(&dev), &show, None).await;
        let outcome = observed.unwrap_or_else(|error| panic!("{}\n{}", chain(&error), dev.output()));
        let headers = outcome.call["structuredContent"].as_object().expect("headers").clone();
        assert!(headers.contains_key("content-type"), "{headers:?}");
        for secret in ["authorization", "x-api-key", "cookie"] {
            assert!(!headers.contains_key(secret), "{headers:?}");
        }
        let key = dev.ready().agent_key.clone().expect("an agent key");
        assert!(!Value::Object(headers).to_string().contains(&key));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_server_works_through_the_gateway() {
    let Some(server) = or_skip(Everything::start().await) else {
        return;
    };
    let call = Call::new("echo", json!({"message": "hi"}));
    let direct = Client::TypeScriptV1.observe(&Target::open(server.url()), &call, None).await;
    let dev = start(&[("everything", server.url())]).await;
    let through = Client::TypeScriptV1.observe(&target(&dev), &call, None).await;
    let expected = or_skip(direct).expect("the reference server answers");
    let mut through = or_skip(through).expect("the gateway answers");
    // The catalog has also what the server offers only to clients that can be asked something, which this one cannot.
    through.tools.retain(|tool| expected.tools.contains(tool));
    assert_eq!(through, expected, "{}", dev.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_server_works_through_the_gateway_as_a_child() {
    let Some(words) = or_skip(Everything::stdio_command().await) else {
        return;
    };
    let options = Options { stdio: vec![("everything".to_owned(), words.join(" "))], ..Options::default() };
    let dev = Dev::start(&options).await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    let call = Call::new("echo", json!({"message": "hi"}));
    let observed = Client::TypeScriptV1.observe(&target(&dev), &call, None).await;
    let outcome = or_skip(observed).expect("the reference server answers");
    assert_eq!(
        (outcome.protocol.as_str(), outcome.call),
        (LEGACY, json!({"content": [{"type": "text", "text": "Echo: hi"}]})),
        "{}",
        dev.output()
    );
}
