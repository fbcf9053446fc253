//! What an approval is bound to, and what ends a call that waits for one: nothing goes through that nobody looked at, or that
//! nobody wants any more, and no budget is spent by waiting.

use std::time::Duration;

use gantry_tests::agent::{Agent, Answer, LEGACY, Message, Protocol};
use gantry_tests::cluster::Cluster;
use gantry_tests::dev::{Dev, Options};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture::{self, Era};
use gantry_tests::governed::Governed;
use http::Method;
use serde_json::{Value, json};

/// How long an admin and a node may take; a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the fixture answers who reads a file.
const READ: &str = "what stands there";

/// Calls of a tool need an approval, and are held for so long.
fn documents(tool: &str, hold_seconds: u32) -> String {
    let cedar =
        format!(r#"forbid(principal, action == Action::"tools/call", resource == Tool::"fixture/{tool}");"#);
    let policy =
        json!({"kind": "Policy", "tenant": "dev", "name": "ask", "spec": {"cedar": cedar, "approval": {}}});
    let spec = json!({"approval_hold_seconds": hold_seconds});
    format!("{}\n---\n{policy}", json!({"kind": "Tenant", "name": "dev", "spec": spec}))
}

async fn admin(dev: &Dev, arguments: &[&str], input: &str) -> String {
    let finished = dev.admin_with_input(arguments, input.as_bytes()).await.expect("it runs");
    assert!(finished.status.success(), "{arguments:?}\n{}{}", finished.stdout, finished.stderr);
    finished.stdout
}

/// The id of the first call that waits.
async fn first_waiting(dev: &Dev) -> String {
    let waiting = async || {
        let listed = admin(dev, &["approval", "ls", "-o", "json"], "").await;
        let listed: Vec<Value> = serde_json::from_str(&listed).expect("JSON");
        let pending = listed.iter().find(|listed| listed["state"] == "pending")?;
        Some(pending["id"].as_str()?.to_owned())
    };
    eventually("a call that waits", PATIENCE, waiting).await
}

async fn said(governed: &Governed, message: &Message) -> Answer {
    governed.connect(Protocol::Http1).await.ask(message).await.expect("an answer")
}

fn message(answer: &Answer) -> Value {
    answer.messages().pop().expect("a message")
}

fn waits(answer: &Answer) -> String {
    let message = message(answer);
    message["error"]["data"]["approval"].as_str().unwrap_or_else(|| panic!("{message}")).to_owned()
}

/// A session of a revision that has some, and what is sent in it.
struct Session {
    id: String,
    key: String,
}

impl Session {
    async fn begin(agent: &mut Agent, key: &str) -> Session {
        let client = json!({"name": "test", "version": "1"});
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let answer = agent.ask(&Message::new(initialize.to_string()).with_key(key)).await.expect("an answer");
        let id = answer.header("mcp-session-id").expect("a session").to_owned();
        Session { id, key: key.to_owned() }
    }

    fn message(&self, body: &Value) -> Message {
        Message::legacy(body).with_key(&self.key).with("mcp-session-id", &self.id)
    }

    fn read(&self, id: u32, path: &str) -> Message {
        let params = json!({"name": "read_file", "arguments": {"path": path}});
        self.message(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_a_call_says_is_approved_with_it_and_shown() {
    let governed = Governed::start().await;
    governed.apply(&documents("read_file", 0)).await;
    let arguments = json!({"path": "/data/a"});
    let bare = governed.call("read_file", arguments.clone());
    let id = waits(&said(&governed, &bare).await);
    governed.admin(&["approval", "approve", &id], "").await;
    let answers = json!({"confirm": {"action": "accept", "content": {"ok": true}}});
    for besides in [json!({"inputResponses": answers}), json!({"task": {"ttl": 1}}), json!({"unheard": [1]})]
    {
        let mut params = json!({"name": "read_file", "arguments": arguments});
        params.as_object_mut().expect("an object").extend(besides.as_object().expect("an object").clone());
        let other = Message::modern("tools/call", params).with_key(governed.key());
        let answer = said(&governed, &other).await;
        let other = waits(&answer);
        assert_ne!(other, id, "{besides}");
        let shown = governed.admin(&["approval", "show", &other, "-o", "json"], "").await;
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        assert_eq!((&shown[0]["arguments"], &shown[0]["besides"]), (&arguments, &besides));
    }
    assert_eq!(governed.server().calls("read_file", &arguments), 0);
    assert_eq!(said(&governed, &bare).await.said(), READ);
    assert_eq!(governed.server().calls("read_file", &arguments), 1);
    // What nobody could read is not asked about.
    let long = governed.call("read_file", json!({"path": "x".repeat(9_000)}));
    let refused = message(&said(&governed, &long).await)["error"].clone();
    assert_eq!(refused["code"], -32602, "{refused}");
    let text = refused["message"].as_str().expect("text");
    assert!(text.contains("at most 8192 bytes are shown"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cancelled_while_it_is_held_is_never_made() {
    let governed = Governed::start().await;
    governed.apply(&documents("read_file", 60)).await;
    let mut other = governed.connect(Protocol::Http1).await;
    for (number, how) in [(7, "cancelled"), (8, "deleted")] {
        let session = Session::begin(&mut other, governed.key()).await;
        let ending = match how {
            "cancelled" => session.message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled",
                "params": {"requestId": number, "reason": "no more wanted"}})),
            _ => session.message(&json!({})).with_body("").by(Method::DELETE),
        };
        let call = session.read(number, how);
        let (answer, id) = tokio::join!(said(&governed, &call), async {
            let id = first_waiting(governed.dev()).await;
            let ended = other.ask(&ending).await.expect("an answer");
            assert!(matches!(ended.status, 200..300), "{how}: {} {:?}", ended.status, ended.body);
            id
        });
        // The hold ends with it, long before its time; the request stays, as when a client leaves.
        let told = message(&answer)["error"]["message"].clone();
        assert_eq!(told, "the call was cancelled while it waited for an approval", "{how}");
        governed.admin(&["approval", "approve", &id], "").await;
        assert_eq!(governed.server().calls("read_file", &json!({"path": how})), 0, "{how}");
    }
    let cancelled = |record: &Value| {
        (&record["verdict"], &record["outcome"]) == (&json!("require_approval"), &json!("cancelled"))
    };
    governed.trail().until("the record of it", cancelled).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn waiting_spends_no_budget_and_a_spent_budget_no_approval() {
    let governed = Governed::start().await;
    let limit = json!({"kind": "Limit", "tenant": "dev", "name": "one",
        "spec": {"per": ["agent"], "calls": 1, "window_seconds": 3600}});
    governed.apply(&format!("{}\n---\n{limit}", documents("read_file", 0))).await;
    let call = governed.call("read_file", json!({"path": "/data/a"}));
    let id = waits(&said(&governed, &call).await);
    for _ in 0..3 {
        assert_eq!(waits(&said(&governed, &call).await), id);
    }
    governed.admin(&["approval", "approve", &id], "").await;
    assert_eq!(said(&governed, &call).await.said(), READ);
    let next = waits(&said(&governed, &call).await);
    governed.admin(&["approval", "approve", &next], "").await;
    assert_eq!(said(&governed, &call).await.status, 429);
    let shown = governed.admin(&["approval", "show", &next, "-o", "json"], "").await;
    assert_eq!(serde_json::from_str::<Value>(&shown).expect("JSON")[0]["state"], "approved");
}

/// A session that is at home on one node, and its calls received by another: both ask for the approval, one uses it.
#[tokio::test(flavor = "multi_thread")]
async fn an_approval_holds_on_the_node_that_the_call_is_handed_to() {
    let server = fixture::Server::start_as(Era::Modern, 0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let (nodes, _balancer) = Cluster::start(Options { servers, ..Options::default() }).await.into_parts();
    admin(nodes.dev(), &["apply", "-f", "-", "--wait"], &documents("read_file", 60)).await;
    let path = nodes.endpoint().splitn(4, '/').nth(3).expect("a path").to_owned();
    let at = async |node: usize| {
        let url = format!("http://{}/{path}", nodes.addresses()[node]);
        Agent::connect(&url, Protocol::Http1).await.expect("it is reached")
    };
    let session = Session::begin(&mut at(1).await, &nodes.key()).await;
    let call = session.read(1, "/data/a");
    let mut caller = at(2).await;
    let (answer, ()) = tokio::join!(caller.ask(&call), async {
        let id = first_waiting(nodes.dev()).await;
        admin(nodes.dev(), &["approval", "approve", &id], "").await;
    });
    assert_eq!(answer.expect("an answer").said(), READ);
    assert_eq!(server.calls("read_file", &json!({"path": "/data/a"})), 1);
    // It is cancelled at the home of the session, and held elsewhere.
    let call = session.read(2, "/data/b");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 2}});
    let (answer, id) = tokio::join!(caller.ask(&call), async {
        let id = first_waiting(nodes.dev()).await;
        at(1).await.ask(&session.message(&cancel)).await.expect("an answer");
        id
    });
    let told = message(&answer.expect("an answer"))["error"]["message"].clone();
    assert_eq!(told, "the call was cancelled while it waited for an approval");
    admin(nodes.dev(), &["approval", "approve", &id], "").await;
    assert_eq!(server.calls("read_file", &json!({"path": "/data/b"})), 0);
}

/// A legacy server asks in the middle of a call: what goes on is the call that was approved.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_goes_on_needs_no_second_approval_and_lets_no_other_through() {
    let server = fixture::Server::start_as(Era::Legacy, 0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let dev = gantry_tests::governed::start(&Options { servers, ..Options::default() }).await;
    admin(&dev, &["apply", "-f", "-", "--wait"], &documents("test_elicitation", 0)).await;
    let key = dev.ready().agent_key.clone().expect("a key");
    let arguments = json!({"message": "really?"});
    let call = |more: Value| {
        let mut params = json!({"name": "test_elicitation", "arguments": arguments});
        params.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(gantry_tests::agent::MODERN);
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({"elicitation": {"form": {}}});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
        Message::modern("tools/call", json!({"name": "test_elicitation"}))
            .with_body(body.to_string())
            .with_key(&key)
    };
    let ask = async |message: &Message| {
        let mut agent = Agent::connect(&dev.ready().endpoint, Protocol::Http1).await.expect("it is reached");
        agent.ask(message).await.expect("an answer")
    };
    let id = waits(&ask(&call(json!({}))).await);
    admin(&dev, &["approval", "approve", &id], "").await;
    let asked = message(&ask(&call(json!({}))).await)["result"].clone();
    let (state, requests) = (&asked["requestState"], asked["inputRequests"].as_object());
    let question = requests.and_then(|requests| requests.keys().next()).unwrap_or_else(|| panic!("{asked}"));
    let content = json!({"username": "ann", "email": "ann@example.org"});
    let responses = json!({question.as_str(): {"action": "accept", "content": content}});
    let on = call(json!({"requestState": state, "inputResponses": responses}));
    let done = ask(&on).await;
    assert!(done.said().starts_with("User response: "), "{}", done.said());
    // It goes on once; the same again, and a new call, are not made.
    let again = message(&ask(&on).await);
    assert!(again["error"].is_object(), "{again}");
    assert_ne!(waits(&ask(&call(json!({}))).await), id);
    assert_eq!(server.calls("test_elicitation", &arguments), 1);
}
