//! The kill switch as people use it: what is under way is cut, what is new is refused, and both are explained.

use std::process::Stdio;
use std::time::{Duration, Instant};

use gantry_tests::agent::{Agent, Events, LEGACY, MODERN, Message, Protocol};
use gantry_tests::dev;
use gantry_tests::governed::Governed;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::time::timeout;

/// How long anything may take before a test gives up on it.
const DEADLINE: Duration = Duration::from_secs(20);
/// The bar for a revocation to be in force on a node, measured where the control plane hears of it.
const IN_FORCE_MS_MAX: u64 = 250;
/// Policies of a large change, which nodes compile before they say that they have it.
const POLICIES: usize = 1_000;

/// The node of `gantry dev` says that it has it in force.
async fn revoke(governed: &Governed, arguments: &[&str]) -> String {
    governed.admin(&[&["revoke"], arguments, &["--wait"]].concat(), "").await
}

async fn next(events: &mut Events) -> Value {
    timeout(DEADLINE, events.next()).await.expect("an event in time").expect("it holds").expect("an event")
}

/// Whether a stream breaks off, and is not ended in order.
async fn breaks(events: &mut Events) -> bool {
    let end = async {
        loop {
            match events.next().await {
                Ok(Some(_)) => {}
                Ok(None) => return false,
                Err(_) => return true,
            }
        }
    };
    timeout(DEADLINE, end).await.expect("its end in time")
}

async fn listen(governed: &Governed, agent: &mut Agent) -> Events {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let listen = Message::modern("subscriptions/listen", wanted).with_key(governed.key());
    let mut events = Events::of(agent.send(&listen).await.expect("it begins"));
    let acknowledged = next(&mut events).await;
    assert_eq!(acknowledged["method"], "notifications/subscriptions/acknowledged", "{acknowledged}");
    events
}

/// Status, and code and message of the error.
async fn refusal(agent: &mut Agent, message: &Message) -> (u16, Value, Value, Value) {
    let answer = agent.ask(message).await.expect("an answer");
    let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
    let error = &body["error"];
    let id = error["data"]["decisionId"].clone();
    (answer.status, error["code"].clone(), error["message"].clone(), id)
}

/// A session of 2025-11-25.
struct Session(String, String);

impl Session {
    async fn open(governed: &Governed, agent: &mut Agent) -> Session {
        let client = json!({
            "protocolVersion": LEGACY,
            "capabilities": {"sampling": {}},
            "clientInfo": {"name": "test", "version": "1"},
        });
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client});
        let message = Message::new(initialize.to_string()).with_key(governed.key());
        let answer = agent.ask(&message).await.expect("an answer");
        let id = answer.header("mcp-session-id").expect("a session").to_owned();
        let session = Session(governed.key().to_owned(), id);
        let initialized = json!({"jsonrpc": "2.0", "method": "notifications/initialized"});
        assert_eq!(agent.ask(&session.message(&initialized)).await.expect("an answer").status, 202);
        session
    }

    fn message(&self, body: &Value) -> Message {
        Message::legacy(body).with_key(&self.0).with("mcp-session-id", &self.1)
    }

    fn call(&self, name: &str, arguments: Value) -> Message {
        let params = json!({"name": name, "arguments": arguments});
        self.message(&json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_agent_has_under_way_is_cut_and_what_it_asks_then_is_explained() {
    let governed = Governed::start().await;
    let (mut agent, mut second) =
        (governed.connect(Protocol::Http2).await, governed.connect(Protocol::Http2).await);
    let mut stream = listen(&governed, &mut agent).await;
    // A call that waits for its client.
    let session = Session::open(&governed, &mut second).await;
    let call = session.call("test_sampling", json!({"prompt": "Say it"}));
    let mut calling = Events::of(second.send(&call).await.expect("an answer begins"));
    assert_eq!(next(&mut calling).await["method"], "sampling/createMessage");

    let told = revoke(&governed, &["agent", "demo-agent", "--reason", "its key leaked"]).await;
    let lines: Vec<&str> = told.lines().collect();
    assert_eq!(lines[0], "revoked    Agent dev/demo-agent", "{told}");
    assert!(lines[2].starts_with("in force   dev, "), "{told}");
    assert!(lines[3].starts_with("in force on 1 of 1 nodes; slowest dev, "), "{told}");
    assert!(breaks(&mut stream).await && breaks(&mut calling).await);
    let mut agent = governed.connect(Protocol::Http1).await;
    let add = governed.call("add", json!({"a": 1, "b": 2}));
    let (status, code, message, id) = refusal(&mut agent, &add).await;
    let expected = (403, json!(-31410), json!("agent \"demo-agent\" is revoked"));
    assert_eq!((status, code, message), expected);

    let id = id.as_str().expect("a decision").to_owned();
    let explained = governed.admin(&["policy", "explain", &id], "").await;
    assert!(explained.contains("  revoked    agent demo-agent, by root at "), "{explained}");
    assert!(explained.contains(": its key leaked\n"), "{explained}");
    assert!(explained.contains("gantry revoke lift agent demo-agent --tenant dev"), "{explained}");
    let is_cut = |record: &Value| {
        record["method"] == "subscriptions/listen"
            && record["outcome"] == "revoked"
            && record["reason"] == "agent \"demo-agent\" is revoked"
    };
    governed.trail().until("the record of the stream that was cut", is_cut).await;

    let listed = governed.admin(&["revoke", "ls", "-o", "json"], "").await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let told = (&listed[0]["kind"], &listed[0]["name"], &listed[0]["by"], &listed[0]["reason"]);
    assert_eq!(told, (&json!("agent"), &json!("demo-agent"), &json!("root"), &json!("its key leaked")));
    governed.admin(&["revoke", "lift", "agent", "demo-agent", "--wait"], "").await;
    assert_eq!(agent.ask(&add).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_server_is_in_no_list_and_gets_no_call_until_it_is_lifted() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let list = Message::modern("tools/list", json!({})).with_key(governed.key());
    let count = async |agent: &mut Agent| {
        let answer = agent.ask(&list).await.expect("an answer");
        let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
        body["result"]["tools"].as_array().expect("a list").len()
    };
    let all = count(&mut agent).await;
    assert!(all > 0);
    let mut second = governed.connect(Protocol::Http2).await;
    let mut stream = listen(&governed, &mut second).await;

    revoke(&governed, &["server", "fixture"]).await;
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
    assert_eq!(count(&mut agent).await, 0);
    let add = governed.call("add", json!({"a": 1, "b": 2}));
    let (status, code, message, _) = refusal(&mut agent, &add).await;
    let expected = (200, json!(-31410), json!("server \"fixture\" is revoked: nothing is sent to it"));
    assert_eq!((status, code, message), expected);

    governed.admin(&["revoke", "lift", "server", "fixture", "--wait"], "").await;
    assert_eq!(next(&mut stream).await["method"], "notifications/tools/list_changed");
    assert_eq!(count(&mut agent).await, all);
    assert_eq!(agent.ask(&add).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_session_is_cut_by_the_id_that_the_audit_shows_and_the_other_goes_on() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let cut = Session::open(&governed, &mut agent).await;
    let records = governed.trail().at_least(2).await;
    let id = records[1]["session"].as_str().expect("a session's id").to_owned();
    assert_eq!(id.len(), 24, "{id}");
    assert!(!cut.1.contains(&id), "it is no part of what the client holds");
    let other = Session::open(&governed, &mut agent).await;
    let call = cut.call("test_sampling", json!({"prompt": "Say it"}));
    let mut second = governed.connect(Protocol::Http2).await;
    let mut calling = Events::of(second.send(&call).await.expect("an answer begins"));
    assert_eq!(next(&mut calling).await["method"], "sampling/createMessage");

    revoke(&governed, &["session", &id]).await;
    assert!(breaks(&mut calling).await);
    let add = json!({"a": 1, "b": 2});
    let (status, code, message, _) = refusal(&mut agent, &cut.call("add", add.clone())).await;
    let expected = (404, json!(-31410), json!("the session is revoked; another may be begun"));
    assert_eq!((status, code, message), expected);
    assert_eq!(agent.ask(&other.call("add", add)).await.expect("an answer").status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn connect_says_that_its_agent_is_revoked_and_ends() {
    let governed = Governed::start().await;
    let program = dev::sibling("gantry-under-test").expect("the program");
    let mut command = dev::command(&program, governed.dev().data_dir());
    command.args(["connect", &governed.dev().ready().endpoint]).env("GANTRY_KEY", governed.key());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("it starts");
    let mut input = child.stdin.take().expect("its input");
    let mut output = BufReader::new(child.stdout.take().expect("its output")).lines();
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"_meta": meta}});
    let line = format!("{list}\n");
    input.write_all(line.as_bytes()).await.expect("it reads");
    let answer = timeout(DEADLINE, output.next_line()).await.expect("a line in time").expect("it holds");
    let answer: Value = serde_json::from_str(&answer.expect("a line")).expect("JSON");
    assert!(answer["result"].is_object(), "{answer}");

    revoke(&governed, &["agent", "demo-agent"]).await;
    input.write_all(line.as_bytes()).await.expect("it reads");
    let answer = timeout(DEADLINE, output.next_line()).await.expect("a line in time").expect("it holds");
    let answer: Value = serde_json::from_str(&answer.expect("a line")).expect("JSON");
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-31410)), "{answer}");
    let mut told = String::new();
    let mut errors = child.stderr.take().expect("its errors");
    timeout(DEADLINE, errors.read_to_string(&mut told)).await.expect("its end in time").expect("text");
    let status = timeout(DEADLINE, child.wait()).await.expect("it ends").expect("a status");
    assert_eq!(status.code(), Some(4), "{told}");
    assert!(told.contains("the endpoint refuses this agent: agent \"demo-agent\" is revoked"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_does_not_wait_for_a_large_change_before_it() {
    let governed = Governed::start().await;
    let mut documents = String::new();
    for index in 0..POLICIES {
        let cedar = r#"permit(principal == Agent::"demo-agent", action, resource);"#;
        let head = format!("---\nkind: Policy\ntenant: dev\nname: policy-{index}\n");
        documents.push_str(&format!("{head}spec:\n  cedar: '{cedar}'\n"));
    }
    let began = Instant::now();
    governed.admin(&["apply", "-f", "-"], &documents).await;
    let applied = began.elapsed();
    let told = revoke(&governed, &["agent", "demo-agent", "-o", "json"]).await;
    let told: Value = serde_json::from_str(&told).expect("JSON");
    let took = told["wait"]["in_force"][0]["ms"].as_u64().expect("milliseconds");
    println!(
        "{POLICIES} policies were stored after {applied:?}; the revocation behind them was in force in {took} ms"
    );
    assert!(took <= IN_FORCE_MS_MAX, "{told}");
    let mut agent = governed.connect(Protocol::Http1).await;
    let add = governed.call("add", json!({"a": 1, "b": 2}));
    assert_eq!(agent.ask(&add).await.expect("an answer").status, 403);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forbid_does_not_wait_for_a_large_change_before_it() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let add = governed.call("add", json!({"a": 1, "b": 2}));
    let is_denied = |body: &[u8]| String::from_utf8_lossy(body).contains("\"code\":-31403");
    assert!(!is_denied(&agent.ask(&add).await.expect("an answer").body));
    let other = "---\nkind: Tenant\nname: other\n".to_owned();
    let documents = (0..POLICIES).fold(other, |documents, index| {
        let cedar = r#"permit(principal, action, resource) when { resource has name };"#;
        let head = format!("---\nkind: Policy\ntenant: other\nname: policy-{index}\n");
        format!("{documents}{head}spec:\n  cedar: '{cedar}'\n")
    });
    governed.admin(&["apply", "-f", "-"], &documents).await;
    let forbid =
        "kind: Policy\ntenant: dev\nname: halt\nspec: {cedar: 'forbid(principal, action, resource);'}\n";
    governed.admin(&["apply", "-f", "-"], forbid).await;
    let began = Instant::now();
    let denied = loop {
        if is_denied(&agent.ask(&add).await.expect("an answer").body) {
            break began.elapsed();
        }
        assert!(began.elapsed() < DEADLINE, "it is in force nowhere");
    };
    println!("the forbid behind {POLICIES} policies refused a call {denied:?} after it was stored");
    assert!(denied <= Duration::from_millis(IN_FORCE_MS_MAX), "{denied:?}");
}
