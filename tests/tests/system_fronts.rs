//! Other ways in than a POST for each message: WebSocket, HTTP+SSE of 2024-11-05, and batches of 2025-03-26.

use gantry_tests::agent::{Agent, Events, LEGACY, MODERN, Message, Protocol};
use gantry_tests::dev::{self, Options};
use gantry_tests::fixture;
use gantry_tests::governed::{self, Governed};
use gantry_tests::peers::{Call, Client, Target, or_skip};
use gantry_tests::socket::{Heard, Socket};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message as Frame;

/// The largest message that is taken.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

async fn socket(governed: &Governed) -> Socket {
    let bearer = format!("Bearer {}", governed.key());
    let headers = [("authorization", bearer.as_str()), ("sec-websocket-protocol", "other, mcp")];
    Socket::open(&governed.dev().ready().endpoint, &headers).await.expect("a socket")
}

/// A request of 2026-07-28.
fn modern(id: u32, method: &str, mut params: Value) -> Value {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn legacy(id: u32, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn add(a: i32, b: i32) -> Value {
    json!({"name": "add", "arguments": {"a": a, "b": b}})
}

fn initialize(version: &str) -> Value {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": version, "capabilities": {"sampling": {}}, "clientInfo": client});
    legacy(0, "initialize", params)
}

fn initialized() -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"})
}

/// Method or tool, and outcome of a record.
fn brief(record: &Value) -> Value {
    let what = if record["tool"].is_null() { &record["method"] } else { &record["tool"] };
    json!([what, record["outcome"], record["status"]])
}

/// The first records in brief. A stream's record is written when its body ends, which is after its answer came.
async fn briefs(governed: &Governed, count: usize) -> Vec<Value> {
    let records = governed.trail().at_least(count).await;
    let mut records: Vec<_> = records.iter().map(brief).collect();
    records.sort_by_key(ToString::to_string);
    records
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_carries_the_modern_era() {
    let governed = Governed::start().await;
    let mut socket = socket(&governed).await;
    assert_eq!(socket.headers()["sec-websocket-protocol"], "mcp");
    assert_eq!(socket.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");

    let (answer, before) = socket.ask(&modern(1, "tools/list", json!({}))).await;
    assert_eq!(before, Vec::<Value>::new());
    assert!(answer["result"]["tools"].as_array().is_some_and(|tools| tools.len() > 30), "{answer}");
    let (answer, _) = socket.ask(&modern(2, "tools/call", add(2, 3))).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"sum": 5}), "{answer}");

    // Progress comes before the answer.
    let call = json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    let (answer, before) = socket.ask(&modern(3, "tools/call", call)).await;
    let progress: Vec<_> = before.iter().map(|message| message["params"]["progress"].as_f64()).collect();
    assert_eq!(progress, [Some(0.0), Some(50.0), Some(100.0)]);
    assert!(answer["result"]["content"].is_array(), "{answer}");

    // What only headers could repeat is repeated for the server: this tool demands a header for its argument.
    let call = json!({"name": "test_custom_header", "arguments": {"value": "é 1"}});
    let (answer, _) = socket.ask(&modern(4, "tools/call", call)).await;
    assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "value: é 1"}]), "{answer}");

    // A name that needs escaping in a header, and a request that is refused.
    let (answer, _) = socket.ask(&modern(5, "tools/call", json!({"name": "né", "arguments": {}}))).await;
    assert_eq!(answer["error"]["code"], -32602, "{answer}");
    assert_eq!(
        briefs(&governed, 6).await,
        [
            json!(["add", "ok", 200]),
            json!(["né", "invalid", 200]),
            json!(["test_custom_header", "ok", 200]),
            json!(["test_tool_with_progress", "ok", 200]),
            json!(["tools/list", "ok", 200]),
            json!(["websocket", "ok", 101]),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_the_session_of_a_legacy_client() {
    let governed = Governed::start().await;
    let mut socket = socket(&governed).await;
    let (answer, _) = socket.ask(&initialize(LEGACY)).await;
    assert_eq!(answer["result"]["protocolVersion"], LEGACY, "{answer}");
    socket.say(&initialized()).await;
    let (answer, _) = socket.ask(&legacy(1, "tools/call", add(2, 3))).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"sum": 5}), "{answer}");

    // The server asks in the middle of a call, and is answered by the socket.
    let call = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
    socket.say(&legacy(2, "tools/call", call)).await;
    let request = socket.message().await;
    assert_eq!(request["method"], "sampling/createMessage", "{request}");
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "It"}});
    socket.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    let answer = socket.message().await;
    assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "LLM response: It"}]));

    // What the server says by itself comes by the session's own stream.
    let (_, before) = socket.ask(&legacy(3, "tools/call", json!({"name": "test_trigger_tool_change"}))).await;
    let changed = match before.into_iter().next() {
        Some(changed) => changed,
        None => socket.message().await,
    };
    assert_eq!(changed["method"], "notifications/tools/list_changed", "{changed}");

    // The session ends with the socket.
    drop(socket);
    let is_end = |record: &Value| record["method"] == "DELETE stream";
    let records = governed.trail().until("the end of the session", is_end).await;
    let end = records.iter().find(|record| is_end(record)).map(brief);
    assert_eq!(end, Some(json!(["DELETE stream", "ok", 202])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_request_on_a_socket_is_cancelled_by_a_notification_and_by_leaving() {
    let governed = Governed::start().await;
    let mut socket = socket(&governed).await;
    let listen = |id| {
        let params = json!({"notifications": {"toolsListChanged": true}});
        modern(id, "subscriptions/listen", params)
    };
    for id in [1, 2] {
        socket.say(&listen(id)).await;
        let acknowledged = socket.message().await;
        assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    }
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    socket.say(&cancel).await;
    let is_cancelled =
        |record: &Value| record["method"] == "subscriptions/listen" && record["outcome"] == "cancelled";
    governed.trail().until("the cancelled request", is_cancelled).await;
    // The socket goes on.
    let (answer, _) = socket.ask(&modern(3, "tools/call", add(1, 1))).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"sum": 2}), "{answer}");
    governed.trail().until("the answered request", |record| record["tool"] == "add").await;
    drop(socket);
    assert_eq!(
        briefs(&governed, 4).await,
        [
            json!(["add", "ok", 200]),
            json!(["subscriptions/listen", "cancelled", 200]),
            json!(["subscriptions/listen", "cancelled", 200]),
            json!(["websocket", "ok", 101]),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn more_requests_than_a_socket_may_have_under_way_wait_and_are_answered() {
    let governed = Governed::start().await;
    let mut socket = socket(&governed).await;
    let count = 300;
    for id in 0..count {
        socket.say(&modern(id, "tools/call", add(1, i32::try_from(id).expect("small")))).await;
    }
    let mut sums = Vec::new();
    for _ in 0..count {
        let answer = socket.message().await;
        assert_eq!(
            answer["result"]["structuredContent"]["sum"].as_u64(),
            answer["id"].as_u64().map(|id| id + 1),
            "{answer}"
        );
        sums.push(answer["id"].as_u64());
    }
    sums.sort_unstable();
    assert_eq!(sums, (0..u64::from(count)).map(Some).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_gets_a_socket_without_a_good_key_or_from_another_site() {
    let governed = Governed::start().await;
    let url = &governed.dev().ready().endpoint;
    let bearer = format!("Bearer {}", governed.key());
    let good = ("authorization", bearer.as_str());
    for (what, headers, status) in [
        ("no key", vec![], 401),
        ("a bad key", vec![("authorization", "Bearer gk_none")], 401),
        ("a page of another site", vec![good, ("origin", "https://evil.example")], 403),
        ("a host of another site", vec![good, ("host", "evil.example")], 403),
    ] {
        let refused = Socket::open(url, &headers).await.expect_err(what);
        assert_eq!(refused.status().as_u16(), status, "{what}");
        assert!(!refused.headers().contains_key("sec-websocket-accept"), "{what}");
        assert_eq!(refused.headers().contains_key("www-authenticate"), status == 401, "{what}");
    }
    let elsewhere = url.replace("/mcp", "x/mcp");
    let refused = Socket::open(&elsewhere, &[good]).await.expect_err("no endpoint");
    assert_eq!(refused.status().as_u16(), 404);
    let records = governed.trail().at_least(5).await;
    let records: Vec<_> = records.iter().map(|record| json!([record["outcome"], record["status"]])).collect();
    let expected = [
        json!(["unauthenticated", 401]),
        json!(["unauthenticated", 401]),
        json!(["invalid", 403]),
        json!(["invalid", 403]),
        json!(["invalid", 404]),
    ];
    assert_eq!(records, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_key_closes_its_sockets_and_opens_no_other() {
    let governed = Governed::start().await;
    let mut socket = socket(&governed).await;
    let (answer, _) = socket.ask(&modern(1, "tools/call", add(1, 1))).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"sum": 2}), "{answer}");
    let records = governed.trail().at_least(2).await;
    let id = records[1]["key_id"].as_str().expect("a key").to_owned();
    governed.admin(&["key", "revoke", &id, "--wait"], "").await;
    assert_eq!(socket.hear().await, Heard::Closed(1008));
    let mut agent = governed.connect(Protocol::Http1).await;
    assert_eq!(agent.ask(&governed.call("add", add(1, 1))).await.expect("an answer").status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_message_is_told_and_what_is_no_text_or_too_large_closes_the_socket() {
    let governed = Governed::start().await;
    let mut open = socket(&governed).await;
    open.send(Frame::text("{")).await.expect("the socket holds");
    let answer = open.message().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)), "{answer}");
    open.send(Frame::text("[]")).await.expect("the socket holds");
    let answer = open.message().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32600)), "{answer}");
    open.send(Frame::binary("{}")).await.expect("the socket holds");
    assert_eq!(open.hear().await, Heard::Closed(1003));

    let mut open = socket(&governed).await;
    // The other side may stop reading in the middle of it.
    let _ = open.send(Frame::text("x".repeat(MESSAGE_BYTES_MAX + 1))).await;
    assert_eq!(open.hear().await, Heard::Closed(1009));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_the_one_version_that_has_them_is_answered_message_by_message() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let version = "2025-03-26";
    let message = |body: &Value| Message::new(body.to_string()).with_key(governed.key());
    let answer = agent.ask(&message(&initialize(version))).await.expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let within = |body: &Value| message(body).with("mcp-session-id", &session);
    let versioned = |body: &Value| within(body).with("mcp-protocol-version", version);
    assert_eq!(agent.ask(&versioned(&initialized())).await.expect("an answer").status, 202);

    let batch = json!([
        legacy(1, "tools/call", add(1, 1)),
        legacy(2, "ping", json!({})),
        legacy(3, "tools/call", json!({"name": "no_such_tool", "arguments": {}})),
        {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}},
        7,
    ]);
    for message in [versioned(&batch), within(&batch)] {
        let answer = agent.ask(&message).await.expect("an answer");
        assert_eq!(answer.status, 200);
        let mut answers: Vec<_> = answer.messages();
        // One JSON array where no server streams.
        if let [Value::Array(array)] = answers.as_slice() {
            answers = array.clone();
        }
        let mut brief: Vec<_> = answers
            .iter()
            .map(|answer| {
                let sum = &answer["result"]["structuredContent"]["sum"];
                json!([answer["id"], sum, answer["error"]["code"]])
            })
            .collect();
        brief.sort_by_key(ToString::to_string);
        let expected = [
            json!([1, 2, null]),
            json!([2, null, null]),
            json!([3, null, -32602]),
            json!([null, null, -32600]),
        ];
        assert_eq!(brief, expected, "{answers:?}");
    }
    let notes = json!([{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}]);
    let answer = agent.ask(&versioned(&notes)).await.expect("an answer");
    assert_eq!((answer.status, answer.body.len()), (202, 0));

    let many: Vec<_> = (0..65).map(|id| legacy(id, "ping", json!({}))).collect();
    for (body, version, reason) in [
        (json!([]), version, "a batch has at least one message"),
        (json!(many), version, "a batch has at most 64 messages"),
        (json!([initialize(version)]), version, "`initialize` stands by itself, not in a batch"),
        (
            json!([legacy(1, "ping", json!({}))]),
            LEGACY,
            "a batch belongs to version 2025-03-26 alone; send each message by itself",
        ),
    ] {
        let answer =
            agent.ask(&within(&body).with("mcp-protocol-version", version)).await.expect("an answer");
        let error = &answer.json()["error"];
        assert_eq!((answer.status, &error["code"], &error["message"]), (400, &json!(-32600), &json!(reason)));
    }
}

/// A stream of HTTP+SSE, and a second connection to POST by.
struct Stream {
    events: Events,
    poster: Agent,
    key: String,
    // The stream lives as long as its connection.
    _opener: Agent,
}

impl Stream {
    async fn open(governed: &Governed) -> Self {
        let url = &governed.dev().ready().endpoint;
        let path = url.splitn(4, '/').nth(3).expect("a path").replace("mcp", "sse");
        let mut opener = governed.connect(Protocol::Http1).await.at(&format!("/{path}"));
        let get = Message::new("").with_key(governed.key()).by(http::Method::GET);
        let mut response = opener.send(&get).await.expect("an answer");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &http::HeaderValue::from_static("text/event-stream"))
        );
        let frame = response.body_mut().frame().await.expect("a frame").expect("the connection holds");
        let first = String::from_utf8(frame.into_data().expect("data").to_vec()).expect("text");
        let address = first.strip_prefix("event: endpoint\ndata: ").expect("an address").trim_end();
        let prefix = format!("/{}", path.replace("sse", "message?sessionId="));
        assert!(address.starts_with(&prefix), "{address}");
        let poster = governed.connect(Protocol::Http1).await.at(address);
        let events = Events::of(response);
        Self { events, poster, key: governed.key().to_owned(), _opener: opener }
    }

    async fn say(&mut self, body: &Value) {
        let message = Message::new(body.to_string()).with_key(&self.key);
        let answer = self.poster.ask(&message).await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (202, 0));
    }

    async fn next(&mut self) -> Value {
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), self.events.next()).await;
        next.expect("an event in time").expect("the connection holds").expect("an event")
    }

    async fn ask(&mut self, request: &Value) -> Value {
        self.say(request).await;
        loop {
            let message = self.next().await;
            if message["id"] == request["id"] && message.get("method").is_none() {
                return message;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_of_the_first_revision_is_answered_by_its_events() {
    let governed = Governed::start().await;
    let mut stream = Stream::open(&governed).await;
    let answer = stream.ask(&initialize("2024-11-05")).await;
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05", "{answer}");
    stream.say(&initialized()).await;
    let answer = stream.ask(&legacy(1, "tools/call", add(2, 3))).await;
    assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "{\"sum\":5}"}]), "{answer}");
    let call = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
    stream.say(&legacy(2, "tools/call", call)).await;
    let request = stream.next().await;
    assert_eq!(request["method"], "sampling/createMessage", "{request}");
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "It"}});
    stream.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).await;
    let answer = stream.next().await;
    assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "LLM response: It"}]));

    drop(stream);
    let is_end = |record: &Value| record["method"] == "DELETE stream";
    governed.trail().until("the end of the session", is_end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_takes_messages_of_its_own_principal_only() {
    let governed = Governed::start().await;
    let mut stream = Stream::open(&governed).await;
    let ping = Message::new(legacy(1, "ping", json!({})).to_string());
    let answer = stream.poster.ask(&ping).await.expect("an answer");
    assert_eq!(answer.status, 401);
    let agent = |name: &str| json!({"kind": "Agent", "tenant": "dev", "name": name, "spec": {}}).to_string();
    governed.apply(&agent("other")).await;
    let other = governed.admin(&["key", "create", "--agent", "other"], "").await;
    // What is applied later is there when the key is.
    governed.apply(&agent("later")).await;
    let answer = stream.poster.ask(&ping.clone().with_key(other.trim())).await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["error"]["code"]), (404, &json!(-32001)));
    let mut nowhere = governed.connect(Protocol::Http1).await.at("/dev/fixture/message?sessionId=x");
    let answer = nowhere.ask(&ping.clone().with_key(governed.key())).await.expect("an answer");
    assert_eq!(answer.status, 404);
    let mut opener = governed.connect(Protocol::Http1).await.at("/dev/fixture/sse");
    let get = Message::new("").by(http::Method::GET);
    assert_eq!(opener.ask(&get).await.expect("an answer").status, 401);
    let answer = opener.ask(&ping.with_key(governed.key())).await.expect("an answer");
    assert_eq!(answer.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_typescript_client_works_by_http_sse() {
    let governed = Governed::start().await;
    let ready = governed.dev().ready();
    let target = Target::with_key(ready.endpoint.replace("/mcp", "/sse"), governed.key()).by_sse();
    observe(&governed, Client::TypeScriptV1, &target, LEGACY).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_standard_input_and_output_work_through_connect() {
    let governed = Governed::start().await;
    let key_file = governed.dev().data_dir().join("agent-key");
    std::fs::write(&key_file, governed.key()).expect("the key is written");
    let program = dev::sibling("gantry-under-test").expect("the program");
    let words = [
        program.display().to_string(),
        "connect".to_owned(),
        governed.dev().ready().endpoint.clone(),
        "--key-file".to_owned(),
        key_file.display().to_string(),
    ];
    let target = Target::by_command(&words);
    observe(&governed, Client::TypeScriptV1, &target, LEGACY).await;
    observe(&governed, Client::PythonAuto, &target, MODERN).await;
}

/// Lets a client list, call, and be refused.
async fn observe(governed: &Governed, client: Client, target: &Target, protocol: &str) {
    let call = Call::new("test_custom_header", json!({"value": "é"}));
    let unknown = Call::new("no_such_tool", json!({}));
    let observed = client.observe(target, &call, Some(&unknown)).await;
    let Some(outcome) = or_skip(observed) else { return };
    assert_eq!(outcome.protocol, protocol, "{}", governed.dev().output());
    assert!(outcome.tools.len() > 30, "{:?}", outcome.tools);
    assert_eq!(outcome.call["content"], json!([{"type": "text", "text": "value: é"}]), "{:?}", outcome.call);
    assert_eq!(outcome.refused.expect("a second call")["error"]["code"], -32602);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_stops_closes_its_sockets_and_streams_properly() {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let dev = governed::start(&Options { servers, ..Options::default() }).await;
    let bearer = format!("Bearer {}", dev.ready().agent_key.as_deref().expect("a key"));
    let url = dev.ready().endpoint.clone();
    let mut socket = Socket::open(&url, &[("authorization", &bearer)]).await.expect("a socket");
    let (answer, _) = socket.ask(&modern(1, "tools/call", add(1, 1))).await;
    assert_eq!(answer["result"]["structuredContent"], json!({"sum": 2}), "{answer}");
    let path = format!("/{}", url.splitn(4, '/').nth(3).expect("a path").replace("mcp", "sse"));
    let mut opener = Agent::connect(&url, Protocol::Http2).await.expect("the endpoint is reached").at(&path);
    let get = Message::new("").with("authorization", &bearer).by(http::Method::GET);
    let response = opener.send(&get).await.expect("an answer");
    let (ended, closed, body) = tokio::join!(dev.terminate(), socket.hear(), response.into_body().collect());
    assert!(ended.expect("it ends in time").success());
    assert_eq!(closed, Heard::Closed(1001));
    let body = body.expect("the stream ends properly").to_bytes();
    assert!(body.starts_with(b"event: endpoint\n"), "{body:?}");
}
