//! Answers that take their time: events pass one by one, a client that leaves is recorded, and a server that does not
//! answer is told of.

use std::time::Duration;

use gantry_tests::agent::{Agent, Events, LEGACY, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long one event may take.
const EVENT_TIME_MAX: Duration = Duration::from_secs(20);

/// A session of 2025-11-25.
struct Session {
    key: String,
    id: String,
}

impl Session {
    /// Initialises a session whose client answers requests for completions.
    async fn open(governed: &Governed, agent: &mut Agent) -> Self {
        let key = governed.key().to_owned();
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": {
            "protocolVersion": LEGACY,
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "test", "version": "1"},
        }});
        let answer =
            agent.ask(&Message::new(initialize.to_string()).with_key(&key)).await.expect("an answer");
        let id = answer.header("mcp-session-id").expect("a session").to_owned();
        let session = Self { key, id };
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        let answer = agent.ask(&session.message(&initialized)).await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (202, 0));
        session
    }

    fn message(&self, body: &Value) -> Message {
        Message::legacy(body).with_key(&self.key).with("mcp-session-id", &self.id)
    }

    /// A call that waits for a completion by the client.
    fn sample(&self) -> Message {
        let params = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
        self.message(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
    }
}

async fn next(events: &mut Events) -> Option<Value> {
    timeout(EVENT_TIME_MAX, events.next()).await.expect("an event in time").expect("the connection holds")
}

/// Method or tool, and outcome of a record.
fn brief(record: &Value) -> Value {
    let what = if record["tool"].is_null() { &record["method"] } else { &record["tool"] };
    json!([what, record["outcome"], record["status"]])
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_reaches_the_client_before_the_server_has_the_next_one() {
    let governed = Governed::start().await;
    for (number, protocol) in [Protocol::Http1, Protocol::Http2].into_iter().enumerate() {
        let (mut agent, mut second) = (governed.connect(protocol).await, governed.connect(protocol).await);
        let session = Session::open(&governed, &mut agent).await;
        let response = agent.send(&session.sample()).await.expect("an answer begins");
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut events = Events::of(response);

        // The server sends the result only once this request has been answered.
        let request = next(&mut events).await.expect("a request of the server");
        assert_eq!(request["method"], "sampling/createMessage", "{request}");
        let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "It"}});
        let reply = session.message(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}));
        assert_eq!(second.ask(&reply).await.expect("an answer").status, 202);
        let result = next(&mut events).await.expect("a result");
        let content = json!([{"type": "text", "text": "LLM response: It"}]);
        assert_eq!(result["result"]["content"], content, "{result}");
        assert_eq!(next(&mut events).await, None);

        let records = governed.trail().at_least(4 * (number + 1)).await;
        let mut records: Vec<_> = records[4 * number..].iter().map(brief).collect();
        // The call and the answer within it end at the same time, in either order.
        records[2..].sort_by_key(ToString::to_string);
        let expected = [
            json!(["initialize", "ok", 200]),
            json!(["notifications/initialized", "ok", 202]),
            json!(["response", "ok", 202]),
            json!(["test_sampling", "ok", 200]),
        ];
        assert_eq!(records, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_and_changes_pass_as_the_server_sends_them() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let params = json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    let call = Message::modern("tools/call", params).with_key(governed.key());
    let mut events = Events::of(agent.send(&call).await.expect("an answer begins"));
    for done in [0.0, 50.0, 100.0] {
        let event = next(&mut events).await.expect("progress");
        let params = &event["params"];
        assert_eq!(
            (&event["method"], &params["progressToken"]),
            (&json!("notifications/progress"), &json!("p"))
        );
        assert_eq!((params["progress"].as_f64(), params["total"].as_f64()), (Some(done), Some(100.0)));
    }
    let result = next(&mut events).await.expect("a result");
    assert_eq!(
        result["result"]["content"],
        json!([{"type": "text", "text": "Tool with progress executed successfully"}])
    );
    assert_eq!(next(&mut events).await, None);

    // A stream without an end: what happens elsewhere comes at once.
    let listen =
        Message::modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut events = Events::of(agent.send(&listen.with_key(governed.key())).await.expect("it begins"));
    let acknowledged = next(&mut events).await.expect("an acknowledgement");
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    let trigger = governed.call("test_trigger_tool_change", json!({}));
    assert_eq!(agent.ask(&trigger).await.expect("an answer").status, 200);
    let changed = next(&mut events).await.expect("a notification");
    assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_in_the_middle_is_recorded() {
    let governed = Governed::start().await;
    let mut silent = Silent::start().await;
    governed.apply(&behind("silent", &silent.url, 60_000)).await;
    for (number, protocol) in [Protocol::Http1, Protocol::Http2].into_iter().enumerate() {
        // While events pass.
        let mut agent = governed.connect(protocol).await;
        let session = Session::open(&governed, &mut agent).await;
        let mut events = Events::of(agent.send(&session.sample()).await.expect("an answer begins"));
        next(&mut events).await.expect("a request of the server");
        drop((events, agent));
        let records = governed.trail().at_least(4 * number + 3).await;
        assert_eq!(brief(&records[4 * number + 2]), json!(["test_sampling", "cancelled", 200]));

        // While the server has not answered at all.
        let mut agent = governed.connect(protocol).await.at("/dev/silent/mcp");
        let prompt = Message::modern("prompts/get", json!({"name": "p"})).with_key(governed.key());
        let asked = tokio::spawn(async move { agent.ask(&prompt).await.map(|answer| answer.status) });
        let forwarded = timeout(EVENT_TIME_MAX, silent.prompts.recv()).await;
        assert_eq!(forwarded, Ok(Some(())), "the server has the request");
        asked.abort();
        let records = governed.trail().at_least(4 * number + 4).await;
        assert_eq!(brief(&records[4 * number + 3]), json!(["p", "cancelled", null]));
    }
}

/// An endpoint with a server of the same name.
fn behind(name: &str, url: &str, timeout_ms: u32) -> String {
    format!(
        "kind: Server\ntenant: dev\nname: {name}\nspec: {{url: '{url}', timeout_ms: {timeout_ms}}}\n---\n\
         kind: Endpoint\ntenant: dev\nname: {name}\nspec: {{servers: [{name}]}}\n---\n\
         kind: Policy\ntenant: dev\nname: use-{name}\nspec:\n  cedar: permit(principal, action, resource in \
         Server::\"{name}\");\n"
    )
}

/// A server that reads requests and never answers; its connections stay open until it is dropped.
struct Silent {
    url: String,
    /// Gets a word for every request for a prompt.
    prompts: mpsc::Receiver<()>,
    // Dropped with this, the tasks end.
    _tasks: JoinSet<()>,
}

impl Silent {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let (sender, prompts) = mpsc::channel(1);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(swallow(stream, sender.clone()));
            }
        });
        Self { url, prompts, _tasks: tasks }
    }
}

async fn swallow(mut stream: TcpStream, prompts: mpsc::Sender<()>) {
    let mut read = Vec::new();
    // Discovery asks as well; only the request that the test makes is told of.
    while stream.read_buf(&mut read).await.is_ok_and(|count| count > 0) {
        if String::from_utf8_lossy(&read).contains("mcp-method: prompts/get") {
            read.clear();
            prompts.send(()).await.expect("the test waits");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_down_late_or_no_server_is_told_of_in_our_words() {
    let governed = Governed::start().await;
    let late = Silent::start().await;
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let closed_url = format!("http://{}/mcp", closed.local_addr().expect("an address"));
    drop(closed);
    governed.apply(&behind("late", &late.url, 200)).await;
    governed.apply(&behind("down", &closed_url, 60_000)).await;
    let prompt = Message::modern("prompts/get", json!({"name": "p"})).with_key(governed.key());
    for (name, message) in
        [("late", "the server did not answer within 200 ms"), ("down", "the server cannot be reached")]
    {
        let mut agent = governed.connect(Protocol::Http1).await.at(&format!("/dev/{name}/mcp"));
        let answer = agent.ask(&prompt).await.expect("an answer");
        let mut error = answer.json()["error"].clone();
        error["data"]["decisionId"].take();
        let data = json!({"rejection": "upstream_failed", "decisionId": null});
        assert_eq!(error, json!({"code": -31502, "message": message, "data": data}));
        let mut list = agent
            .ask(&Message::modern("tools/list", json!({})).with_key(governed.key()))
            .await
            .expect("an answer")
            .json();
        list["error"]["data"].take();
        let message = "what the server offers is not known yet; try again in a moment";
        assert_eq!(list["error"], json!({"code": -31503, "message": message, "data": null}));
    }
    // The other server is as well as before.
    check(
        &governed,
        Protocol::Http1,
        &[Refusal::new("no tool", governed.call("zebra", json!({})), "invalid").error(
            200,
            -32602,
            "unknown tool \"zebra\"",
        )],
    )
    .await;
}
