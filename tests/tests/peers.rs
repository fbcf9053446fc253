//! Real clients and servers that others wrote.

use gantry_tests::fixture;
use gantry_tests::peers::{Call, Client, Everything, Outcome, Target, or_skip};
use serde_json::{Value, json};

/// What the fixture offers before anything has changed it, in the order of its list.
const FIXTURE_TOOLS: [&str; 39] = [
    "test_simple_text",
    "test_image_content",
    "test_audio_content",
    "test_embedded_resource",
    "test_multiple_content_types",
    "test_error_handling",
    "test_reconnection",
    "json_schema_2020_12_tool",
    "test_custom_header",
    "add",
    "show_request_headers",
    "test_tool_with_logging",
    "test_tool_with_progress",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_logging_tool",
    "test_missing_capability",
    "test_streaming_elicitation",
    "test_trigger_tool_change",
    "test_trigger_prompt_change",
    "test_trigger_resource_change",
    "test_input_required_result_elicitation",
    "test_input_required_result_sampling",
    "test_input_required_result_list_roots",
    "test_input_required_result_request_state",
    "test_input_required_result_multiple_inputs",
    "test_input_required_result_multi_round",
    "test_input_required_result_tampered_state",
    "test_input_required_result_capabilities",
    "greet",
    "slow_compute",
    "failing_job",
    "protocol_error_job",
    "confirm_delete",
    "multi_input",
    "test_tool_with_task",
    "read_file",
];

/// What the reference server offers a client without capabilities.
const EVERYTHING_TOOLS: [&str; 13] = [
    "echo",
    "get-annotated-message",
    "get-env",
    "get-resource-links",
    "get-resource-reference",
    "get-structured-content",
    "get-sum",
    "get-tiny-image",
    "gzip-file-as-resource",
    "toggle-simulated-logging",
    "toggle-subscriber-updates",
    "trigger-long-running-operation",
    "simulate-research-query",
];

const MODERN: &str = "2026-07-28";
const LEGACY: &str = "2025-11-25";

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

fn unknown_tool(message: &str) -> Option<Value> {
    Some(json!({"error": {"code": -32602, "message": message, "data": null}}))
}

/// Lets a client work on a fixture server of its own, directly.
async fn observe_direct(client: Client) -> Option<Outcome> {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let target = Target::open(server.url());
    let call = Call::new("add", json!({"a": 2, "b": 3}));
    let unknown = Call::new("no_such_tool", json!({}));
    let outcome = or_skip(client.observe(&target, &call, Some(&unknown)).await);
    server.stop().await;
    outcome
}

async fn check_direct(client: Client, protocol: &str, call: Value, unknown: &str) {
    let Some(outcome) = observe_direct(client).await else {
        return;
    };
    let expected = Outcome {
        protocol: protocol.to_owned(),
        tools: FIXTURE_TOOLS.map(str::to_owned).to_vec(),
        call,
        refused: unknown_tool(unknown),
    };
    assert_eq!(outcome, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_python_client_works_on_the_fixture() {
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::PythonAuto, MODERN, sum(MODERN), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_typescript_client_works_on_the_fixture() {
    // This client puts the code into the message as well.
    let unknown = "MCP error -32602: unknown tool: no_such_tool";
    check_direct(Client::TypeScriptV1, LEGACY, sum(LEGACY), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_typescript_client_works_on_the_fixture() {
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::TypeScriptV2, LEGACY, sum(LEGACY), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_typescript_client_works_on_the_fixture_when_pinned() {
    // This client drops the result type once it has looked at it.
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::TypeScriptV2Pinned, MODERN, sum(LEGACY), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_on_the_fixture_when_it_probes() {
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::RustAuto, MODERN, sum(MODERN), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_on_the_fixture_when_it_initializes() {
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::RustInitialize, LEGACY, sum(LEGACY), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rust_client_works_on_the_fixture_when_it_discovers() {
    let unknown = "unknown tool: no_such_tool";
    check_direct(Client::RustDiscover, MODERN, sum(MODERN), unknown).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_reference_server_answers_a_legacy_client() {
    let Some(server) = or_skip(Everything::start().await) else {
        return;
    };
    let target = Target::open(server.url());
    let call = Call::new("echo", json!({"message": "hi"}));
    let outcome = or_skip(Client::TypeScriptV1.observe(&target, &call, None).await);
    server.stop().await.expect("the server stops");
    let expected = Outcome {
        protocol: LEGACY.to_owned(),
        tools: EVERYTHING_TOOLS.map(str::to_owned).to_vec(),
        call: json!({"content": [{"type": "text", "text": "Echo: hi"}]}),
        refused: None,
    };
    assert_eq!(outcome, Some(expected));
}
