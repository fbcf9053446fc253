//! `gantry connect` as a child process: lines in, lines out, whatever becomes of the endpoint.

use std::process::Stdio;
use std::time::Duration;

use gantry_tests::agent::{LEGACY, MODERN};
use gantry_tests::dev;
use gantry_tests::governed::Governed;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// How long one line may take.
const LINE_TIME_MAX: Duration = Duration::from_secs(20);

struct Connect {
    child: Child,
    input: Option<ChildStdin>,
    output: Lines<BufReader<ChildStdout>>,
}

impl Connect {
    fn start(governed: &Governed, url: &str, more: &[&str]) -> Self {
        let program = dev::sibling("gantry-under-test").expect("the program");
        let mut command = dev::command(&program, governed.dev().data_dir());
        command.args(["connect", url]).args(more).env("GANTRY_KEY", governed.key());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().expect("it starts");
        let output = BufReader::new(child.stdout.take().expect("its output")).lines();
        Self { input: child.stdin.take(), output, child }
    }

    async fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open");
        input.write_all(format!("{line}\n").as_bytes()).await.expect("it reads");
    }

    async fn next(&mut self) -> Value {
        let line = timeout(LINE_TIME_MAX, self.output.next_line()).await.expect("a line in time");
        serde_json::from_str(&line.expect("it holds").expect("a line")).expect("a line is JSON")
    }

    /// Ends its input; returns what it still says, and what it told the person.
    async fn end(mut self) -> (Vec<Value>, String) {
        drop(self.input.take());
        let mut lines = Vec::new();
        while let Some(line) =
            timeout(LINE_TIME_MAX, self.output.next_line()).await.expect("its end in time").expect("it holds")
        {
            lines.push(serde_json::from_str(&line).expect("a line is JSON"));
        }
        let mut told = String::new();
        let mut errors = self.child.stderr.take().expect("its errors");
        errors.read_to_string(&mut told).await.expect("text");
        let status = timeout(LINE_TIME_MAX, self.child.wait()).await.expect("it ends").expect("a status");
        assert!(status.success(), "{told}");
        (lines, told)
    }
}

fn modern(id: u32, method: &str, mut params: Value) -> String {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

fn legacy(id: u64, method: &str, params: &Value) -> String {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_modern_agent_calls_cancels_and_is_answered_before_the_end() {
    let governed = Governed::start().await;
    let mut connect = Connect::start(&governed, &governed.dev().ready().endpoint, &["--header", "X-Team=a"]);
    connect.say(&modern(1, "tools/list", json!({}))).await;
    assert_eq!(connect.next().await["id"], 1);
    // The list said that a header repeats this argument.
    let call = json!({"name": "test_custom_header", "arguments": {"value": " é"}});
    connect.say(&modern(2, "tools/call", call)).await;
    assert_eq!(connect.next().await["result"]["content"], json!([{"type": "text", "text": "value:  é"}]));

    let listen = json!({"notifications": {"toolsListChanged": true}});
    connect.say(&modern(3, "subscriptions/listen", listen)).await;
    assert_eq!(connect.next().await["method"], "notifications/subscriptions/acknowledged");
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 3}});
    connect.say(&cancel.to_string()).await;
    let is_cancelled =
        |record: &Value| record["method"] == "subscriptions/listen" && record["outcome"] == "cancelled";
    governed.trail().until("the cancelled request", is_cancelled).await;

    connect.say("").await;
    connect.say("{").await;
    let answer = connect.next().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&Value::Null, &json!(-32700)));
    let call = json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    connect.say(&modern(4, "tools/call", call)).await;
    let (lines, told) = connect.end().await;
    let methods: Vec<_> = lines.iter().map(|line| json!([line["method"], line["id"]])).collect();
    let progress = json!(["notifications/progress", null]);
    assert_eq!(methods, [progress.clone(), progress.clone(), progress, json!([null, 4])], "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_legacy_agent_has_one_session_and_is_asked_through_it() {
    let governed = Governed::start().await;
    let mut connect = Connect::start(&governed, &governed.dev().ready().endpoint, &[]);
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {"sampling": {}}, "clientInfo": client});
    connect.say(&legacy(0, "initialize", &params)).await;
    assert_eq!(connect.next().await["result"]["protocolVersion"], LEGACY);
    connect.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let call = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
    connect.say(&legacy(1, "tools/call", &call)).await;
    let request = connect.next().await;
    assert_eq!(request["method"], "sampling/createMessage", "{request}");
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "It"}});
    connect.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()).await;
    let answer = connect.next().await;
    assert_eq!(answer["result"]["content"], json!([{"type": "text", "text": "LLM response: It"}]));
    let (lines, told) = connect.end().await;
    assert_eq!((lines, told.as_str()), (Vec::new(), ""));
    let is_end = |record: &Value| record["method"] == "DELETE stream";
    governed.trail().until("the end of the session", is_end).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_the_server_forgot_is_begun_anew_and_the_agent_does_not_notice() {
    let mut governed = Governed::start().await;
    let mut connect = Connect::start(&governed, &governed.dev().ready().endpoint, &[]);
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {"sampling": {}}, "clientInfo": client});
    connect.say(&legacy(0, "initialize", &params)).await;
    assert_eq!(connect.next().await["id"], 0);
    connect.say(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    let add = json!({"name": "add", "arguments": {"a": 2, "b": 3}});
    connect.say(&legacy(1, "tools/call", &add)).await;
    assert_eq!(connect.next().await["result"]["structuredContent"], json!({"sum": 5}));

    governed.restart_server().await;
    // Two at once, of which one begins the session.
    connect.say(&legacy(2, "tools/call", &add)).await;
    connect.say(&legacy(3, "tools/call", &add)).await;
    let mut answers = Vec::new();
    while answers.len() < 2 {
        let answer = connect.next().await;
        match answer["id"].as_u64() {
            // It went out on a connection that the server's end had just closed: nobody knows whether it was heard, so
            // it is the agent who decides to send it again.
            Some(id) if answer["error"]["code"] == -31502 => {
                connect.say(&legacy(id, "tools/call", &add)).await;
            }
            _ => answers.push(answer),
        }
    }
    answers.sort_by_key(|answer| answer["id"].as_u64());
    for (answer, id) in answers.iter().zip([2, 3]) {
        assert_eq!(
            (&answer["id"], &answer["result"]["structuredContent"]["sum"]),
            (&json!(id), &json!(5)),
            "{answer}"
        );
    }
    // The new session knows what the agent can do.
    let call = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
    connect.say(&legacy(4, "tools/call", &call)).await;
    let request = connect.next().await;
    assert_eq!(request["method"], "sampling/createMessage", "{request}");
    let result = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "It"}});
    connect.say(&json!({"jsonrpc": "2.0", "id": request["id"], "result": result}).to_string()).await;
    assert_eq!(connect.next().await["id"], 4);
    let (lines, told) = connect.end().await;
    assert_eq!((lines, told.as_str()), (Vec::new(), ""));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_refuses_or_is_gone_is_told_to_agent_and_person() {
    let governed = Governed::start().await;
    let url = governed.dev().ready().endpoint.clone();
    let bad = governed.dev().data_dir().join("bad-key");
    std::fs::write(&bad, "gk_none").expect("a key is written");
    let mut connect = Connect::start(&governed, &url, &["--key-file", &bad.to_string_lossy()]);
    connect.say(&modern(1, "tools/list", json!({}))).await;
    let answer = connect.next().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(1), &json!(-31401)), "{answer}");
    connect.end().await;

    let mut connect = Connect::start(&governed, "http://127.0.0.1:9/dev/fixture/mcp", &[]);
    connect.say(&modern(7, "tools/list", json!({}))).await;
    let answer = connect.next().await;
    assert_eq!((&answer["id"], &answer["error"]["code"]), (&json!(7), &json!(-31502)), "{answer}");
    let (_, told) = connect.end().await;
    assert!(told.contains("next: check that http://127.0.0.1:9/dev/fixture/mcp"), "{told}");
}
