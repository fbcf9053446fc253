//! Approvals by a URL: clients of 2026-07-28 that open one are sent there, come back, and get what was approved and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_tests::agent::{Agent, Answer, MODERN, Message, Protocol};
use gantry_tests::governed::Governed;
use http::Method;
use rmcp::model::{
    CallToolRequestParams, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
    ElicitationAction, ElicitationCapability, Implementation, ProtocolVersion, UrlElicitationCapability,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, RequestContext, RoleClient};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use rmcp::{ClientHandler, ErrorData};
use serde_json::{Value, json};

const READ: &str = "what stands there";

/// Reading a file needs an approval; who waits for one is held for so long.
async fn start(hold_seconds: u32) -> Governed {
    let governed = Governed::start().await;
    let cedar =
        r#"forbid(principal, action == Action::"tools/call", resource == Tool::"fixture/read_file");"#;
    let policy = json!({"kind": "Policy", "tenant": "dev", "name": "ask-first", "spec": {"cedar": cedar, "approval": {}}});
    let tenant = json!({"kind": "Tenant", "name": "dev", "spec": {"approval_hold_seconds": hold_seconds}});
    governed.apply(&format!("{tenant}\n---\n{policy}")).await;
    governed
}

/// A call of a client that opens URLs; with what it brings back.
fn call(governed: &Governed, path: &str, more: &Value) -> Message {
    let mut params = json!({"name": "read_file", "arguments": {"path": path}});
    params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"url": {}}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    Message::modern("tools/call", json!({"name": "read_file"}))
        .with_body(body.to_string())
        .with_key(governed.key())
}

async fn said(governed: &Governed, message: &Message) -> Answer {
    governed.connect(Protocol::Http1).await.ask(message).await.expect("an answer")
}

/// Where a client is sent, and what it is to bring back.
fn sent(answer: &Answer) -> (String, Value) {
    let result = answer.json()["result"].clone();
    assert_eq!(result["resultType"], "input_required", "{result}");
    let question = &result["inputRequests"]["approval"];
    assert_eq!(
        (&question["method"], &question["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url"))
    );
    (question["params"]["url"].as_str().expect("a URL").to_owned(), result["requestState"].clone())
}

fn back(state: &Value, action: &str) -> Value {
    json!({"requestState": state, "inputResponses": {"approval": {"action": action}}})
}

/// The id that a URL ends in.
fn id(url: &str) -> &str {
    url.rsplit('/').next().expect("a last part")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_is_sent_and_comes_back_for_the_call_that_it_made() {
    let governed = start(1).await;
    let first = call(&governed, "/data/a", &json!({}));
    let (url, state) = sent(&said(&governed, &first).await);
    let origin = governed.dev().ready().endpoint.trim_end_matches("/dev/fixture/mcp").to_owned();
    assert_eq!(url, format!("{origin}/dev/approvals/{}", id(&url)));

    // Whoever opens it reads what to do, and nothing that the address does not say.
    let mut browser = Agent::connect(&url, Protocol::Http1).await.expect("it is reached");
    let page = browser.ask(&Message::new("").by(Method::GET)).await.expect("a page");
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(
        page.header("content-security-policy").is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    let text = String::from_utf8(page.body.to_vec()).expect("text");
    assert!(text.contains(&format!("gantry approval approve {} --tenant dev", id(&url))), "{text}");

    // Not approved yet: the same again, after a while. Whoever does not want to open it does not want the call.
    let early = said(&governed, &call(&governed, "/data/a", &back(&state, "accept"))).await;
    assert_eq!(sent(&early).0, url);
    let declined =
        said(&governed, &call(&governed, "/data/a", &back(&state, "decline"))).await.json()["error"].clone();
    assert_eq!((&declined["code"], &declined["data"]["rejection"]), (&json!(-31428), &json!("cancelled")));

    governed.admin(&["approval", "approve", id(&url)], "").await;
    let declined =
        said(&governed, &call(&governed, "/data/a", &back(&state, "cancel"))).await.json()["error"].clone();
    assert_eq!(declined["data"]["rejection"], "cancelled", "approved or not");
    // What it brings lets no other call through, and the same only once.
    let other = said(&governed, &call(&governed, "/data/b", &back(&state, "accept"))).await;
    assert_ne!(sent(&other).0, url);
    let come = call(&governed, "/data/a", &back(&state, "accept"));
    assert_eq!(said(&governed, &come).await.said(), READ);
    assert_ne!(sent(&said(&governed, &come).await).0, url);
    let server = governed.server();
    let calls = |path: &str| server.calls("read_file", &json!({"path": path}));
    assert_eq!((calls("/data/a"), calls("/data/b")), (1, 0));

    // Of another tool it is refused before anything else.
    let mut params = json!({"name": "test_simple_text", "arguments": {}});
    params
        .as_object_mut()
        .expect("an object")
        .extend(back(&state, "accept").as_object().expect("one").clone());
    let of_other = Message::modern("tools/call", params).with_key(governed.key());
    let refused = said(&governed, &of_other).await.json()["error"].clone();
    let why = json!("requestState is that of another request");
    assert_eq!((&refused["code"], &refused["message"]), (&json!(-32602), &why));
    assert_eq!(server.calls("test_simple_text", &json!({})), 0);
}

/// Where clients are not held, one that comes back too early is told when to come again, and not sent around for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_cannot_be_held_is_sent_once_and_one_with_a_foreign_state_uses_nothing_up() {
    let governed = start(0).await;
    let (url, state) = sent(&said(&governed, &call(&governed, "/data/a", &json!({}))).await);
    let early =
        said(&governed, &call(&governed, "/data/a", &back(&state, "accept"))).await.json()["error"].clone();
    assert_eq!((&early["code"], &early["data"]["retryAfterSeconds"]), (&json!(-31428), &json!(15)));
    governed.admin(&["approval", "approve", id(&url)], "").await;
    let foreign =
        said(&governed, &call(&governed, "/data/a", &back(&json!("no such"), "accept"))).await.json();
    assert_eq!(foreign["error"]["code"], -32602, "{foreign}");
    assert_eq!(said(&governed, &call(&governed, "/data/a", &back(&state, "accept"))).await.said(), READ);
}

/// A person who opens what she is sent to, and approves there and then.
#[derive(Clone)]
struct Person {
    governed: Arc<Governed>,
    asked: Arc<AtomicUsize>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut elicitation = ElicitationCapability::default();
        elicitation.url = Some(UrlElicitationCapability::default());
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = Some(elicitation);
        ClientConfig::new(capabilities, Implementation::new("person", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _context: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, ErrorData> {
        let ElicitRequestParams::UrlElicitationParams { url, .. } = request else {
            return Ok(ElicitResult::new(ElicitationAction::Decline));
        };
        self.asked.fetch_add(1, Ordering::SeqCst);
        self.governed.admin(&["approval", "approve", id(&url)], "").await;
        Ok(ElicitResult::new(ElicitationAction::Accept))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_client_gets_its_answer_after_its_person_was_at_the_url() {
    let governed = Arc::new(start(50).await);
    let person = Person { governed: governed.clone(), asked: Arc::default() };
    let mut config = StreamableHttpClientTransportConfig::with_uri(governed.dev().ready().endpoint.clone());
    config.auth_header = Some(governed.key().to_owned());
    let transport = StreamableHttpClientTransport::from_config(config);
    let asked = person.asked.clone();
    let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    let client = person.serve_with_lifecycle(transport, mode).await.expect("it connects");
    let arguments = json!({"path": "/data/a"}).as_object().cloned().expect("an object");
    let result = client.call_tool(CallToolRequestParams::new("read_file").with_arguments(arguments)).await;
    let result = serde_json::to_value(result.expect("a result")).expect("JSON");
    assert_eq!(result["content"][0]["text"], READ);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    client.cancel().await.expect("it ends");
}
