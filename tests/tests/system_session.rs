//! Sessions over several nodes: every request goes to another node, and nodes are killed in between.

use std::sync::Arc;
use std::time::Duration;

use gantry_tests::agent::{Agent, Answer, Events, LEGACY, Message, Protocol};
use gantry_tests::cluster::{Cluster, NODES, Nodes};
use gantry_tests::dev::Options;
use gantry_tests::fixture::{self, Era};
use gantry_tests::matrix::{Seen, Server, Servers, Step, visit_all};
use gantry_tests::peers::{Client, or_skip};
use http::Method;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// The time one answer may take; on the way of one a node may have to be found dead.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(20);

/// A legacy session that says every message over a connection of its own.
struct Session {
    url: String,
    key: String,
    id: Option<String>,
}

impl Session {
    /// Says a message; an answer is awaited to its end.
    async fn say(&mut self, message: &Value) -> Answer {
        let mut agent = Agent::connect(&self.url, Protocol::Http1).await.expect("the balancer is reached");
        let answered = timeout(ANSWER_TIME_MAX, agent.ask(&self.message(message))).await;
        let answer = answered.expect("an answer in time").expect("an answer");
        if let Some(id) = answer.header("mcp-session-id") {
            self.id = Some(id.to_owned());
        }
        answer
    }

    fn message(&self, message: &Value) -> Message {
        let message = Message::legacy(message).with_key(&self.key);
        match &self.id {
            Some(id) => message.with("mcp-session-id", id),
            None => message,
        }
    }

    /// Asks, and returns the result.
    async fn ask(&mut self, id: u64, method: &str, params: Value) -> Value {
        let answer = self.say(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})).await;
        let last = answer.messages().pop().unwrap_or_default();
        assert!(last["id"] == id && last["result"].is_object(), "{method}: {} {last}", answer.status);
        last["result"].clone()
    }
}

/// What a session does, one request after the other; `between` runs before each but the first.
async fn converse(session: &mut Session, mut between: impl AsyncFnMut(usize)) {
    let client = json!({
        "protocolVersion": LEGACY,
        "capabilities": {"elicitation": {"form": {}}, "sampling": {}},
        "clientInfo": {"name": "session", "version": "1"},
    });
    session.ask(1, "initialize", client).await;
    between(0).await;
    let initialized = session.say(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await;
    assert_eq!(initialized.status, 202);
    let requests = [
        ("ping", json!({})),
        ("tools/list", json!({})),
        ("tools/call", json!({"name": "add", "arguments": {"a": 2, "b": 3}})),
        ("logging/setLevel", json!({"level": "info"})),
        ("tools/call", json!({"name": "test_tool_with_logging", "arguments": {}})),
        ("prompts/list", json!({})),
        ("prompts/get", json!({"name": "test_simple_prompt"})),
        ("resources/list", json!({})),
        ("resources/read", json!({"uri": "test://static-text"})),
        ("resources/subscribe", json!({"uri": "test://watched-resource"})),
        ("resources/unsubscribe", json!({"uri": "test://watched-resource"})),
        ("tools/call", json!({"name": "add", "arguments": {"a": 2, "b": 3}})),
    ];
    for (number, (method, params)) in requests.into_iter().enumerate() {
        between(number + 1).await;
        session.ask(number as u64 + 2, method, params).await;
    }
    between(13).await;
    elicit(session).await;
}

/// A call that asks in between; the answer goes out as a request of its own while the call is under way. A server with
/// sessions may ask on the session's own stream, so that is open first.
async fn elicit(session: &mut Session) {
    let listen = session.message(&Value::Null).by(Method::GET).with_body("");
    let mut listener = Agent::connect(&session.url, Protocol::Http1).await.expect("the balancer is reached");
    let listening =
        timeout(ANSWER_TIME_MAX, listener.send(&listen)).await.expect("the head of a stream in time");
    let mut unasked = Events::of(listening.expect("the head of a stream"));
    let call = json!({"jsonrpc": "2.0", "id": 90, "method": "tools/call", "params": {
        "name": "test_elicitation", "arguments": {"message": "Who?"},
    }});
    let mut agent = Agent::connect(&session.url, Protocol::Http1).await.expect("the balancer is reached");
    let head = timeout(ANSWER_TIME_MAX, agent.send(&session.message(&call))).await;
    let mut events = Events::of(head.expect("the head of an answer in time").expect("the head of an answer"));
    let asked = async {
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                event = unasked.next() => event,
            };
            let message = event.expect("an event").expect("a question before the end");
            // What earlier calls logged comes here too.
            if message["method"] != "notifications/message" {
                break message;
            }
        }
    };
    let question = timeout(ANSWER_TIME_MAX, asked).await.expect("a question in time");
    assert_eq!(question["method"], "elicitation/create", "{question}");
    let content = json!({"username": "ada", "email": "ada@example.com"});
    let answer =
        json!({"jsonrpc": "2.0", "id": question["id"], "result": {"action": "accept", "content": content}});
    let taken = session.say(&answer).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let result = timeout(ANSWER_TIME_MAX, events.next()).await.expect("a result in time");
    let result = result.expect("a result").expect("a result before the end");
    let text = result.pointer("/result/content/0/text").and_then(Value::as_str).unwrap_or_default();
    assert!(text.starts_with("User response: action=accept"), "{result}");
}

async fn start(era: Era) -> (fixture::Server, Cluster, Session) {
    let server = fixture::Server::start_as(era, 0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let mut cluster = Cluster::start(Options { servers, ..Options::default() }).await;
    let session = Session { url: cluster.url(), key: cluster.nodes().key(), id: None };
    (server, cluster, session)
}

/// Every request to another node, none of which is killed.
async fn check_balanced(era: Era) {
    println!("{era:?}");
    let (_server, cluster, mut session) = start(era).await;
    converse(&mut session, async |_| {}).await;
    let counts = cluster.balancer().counts();
    assert_eq!((counts.untaken, counts.broken), (0, 0));
    assert!(counts.by_node.iter().all(|taken| *taken > 0), "{counts:?}");
}

/// Before every request another node is killed; it is back before the next one is.
async fn check_killed(era: Era, killable: std::ops::Range<usize>) {
    println!("{era:?}");
    let (_server, mut cluster, mut session) = start(era).await;
    let mut dead = None;
    let nodes = cluster.nodes();
    converse(&mut session, async |number| {
        if let Some(dead) = dead.take() {
            nodes.restart(dead).await;
        }
        let next = killable.start + number % killable.len();
        nodes.kill(next).await;
        dead = Some(next);
    })
    .await;
    assert_eq!((cluster.balancer().counts().untaken, cluster.balancer().counts().broken), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_when_every_request_reaches_another_node() {
    for era in Era::ALL {
        check_balanced(era).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_when_a_node_is_killed_between_any_two_requests() {
    for era in Era::ALL {
        check_killed(era, 1..NODES).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_goes_on_when_the_node_that_is_killed_is_the_control_plane_too() {
    check_killed(Era::Modern, 0..NODES).await;
}

/// The same with clients that know nothing of it: before each of their requests a node is killed, and one comes back.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_works_while_nodes_are_killed_between_its_requests() {
    let Some(servers) = or_skip(Servers::start().await) else { return };
    let mut cluster = Cluster::start(servers.options()).await;
    let key = cluster.nodes().key();
    let url = cluster.url();
    let (nodes, balancer) = cluster.into_parts();
    let nodes: Arc<Mutex<(Nodes, Option<usize>)>> = Arc::new(Mutex::new((nodes, None)));
    balancer.between(Box::new(move |number| {
        let nodes = Arc::clone(&nodes);
        Box::pin(async move {
            let mut nodes = nodes.lock().await;
            if let Some(dead) = nodes.1.take() {
                nodes.0.restart(dead).await;
            }
            let next = 1 + number % (NODES - 1);
            nodes.0.kill(next).await;
            nodes.1 = Some(next);
        })
    }));
    let mut plan = servers.plan(Server::Fixture, url, Some(key));
    // A call that asks lives on one node, and may end with it.
    for step in [Step::Elicit, Step::Sample] {
        plan.steps.remove(step.word());
    }
    let plan = (Server::Fixture, plan);
    for client in [Client::TypeScriptV2, Client::TypeScriptV2Pinned] {
        let Some(seen) = or_skip(visit_all(client, std::slice::from_ref(&plan)).await) else { return };
        let is_tried = |step: Step| !matches!(step, Step::Elicit | Step::Sample);
        let failed: Vec<_> =
            seen.iter().filter(|((_, step), seen)| is_tried(*step) && **seen != Seen::Works).collect();
        assert!(failed.is_empty(), "{}: {failed:?}\n{:?}", client.title(), balancer.counts());
    }
}
