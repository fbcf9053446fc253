//! What policies and limits forbid: what the agent sees of it, and what its owner is told.

use gantry_tests::agent::{Agent, Answer, LEGACY, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};

/// Forbids one tool of the fixture.
const FORBID: &str = r#"kind: Policy
tenant: dev
name: careful
spec:
  cedar: |
    @id("no-headers")
    forbid(
      principal,
      action == Action::"tools/call",
      resource == Tool::"fixture/show_request_headers"
    );
"#;

/// One call a minute of one tool, for each agent.
const LIMIT: &str = "
kind: Limit
tenant: dev
name: one-a-minute
spec: {per: [agent], calls: 1, window_seconds: 60, tool: add}
";

/// Lets only what stands below `/data/` be read.
const BELOW_DATA: &str = r#"kind: Policy
tenant: dev
name: below-data
spec:
  cedar: |
    @id("data-only")
    forbid(
      principal,
      action == Action::"tools/call",
      resource == Tool::"fixture/read_file"
    )
    unless { context.arguments.path like "/data/*" };
"#;

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];
/// What the fixture answers who reads a file.
const READ: &str = "what stands there";
const FORBIDDEN: &str = r#"tools/call of "read_file" is denied: a policy forbids it"#;
const NOT_PERMITTED: &str = r#"tools/call of "read_file" is denied: no policy permits it"#;
const FAILED: &str = r#"tools/call of "read_file" is denied: a policy could not be evaluated"#;

/// A policy of one statement.
fn policy(name: &str, statement: &str) -> String {
    let spec = json!({"cedar": statement});
    json!({"kind": "Policy", "tenant": "dev", "name": name, "spec": spec}).to_string()
}

/// One about reading files.
fn reading(effect: &str, condition: &str) -> String {
    let scope = r#"principal, action == Action::"tools/call", resource == Tool::"fixture/read_file""#;
    policy("reading", &format!("{effect}({scope})\n  {condition};"))
}

/// What a call came to: the text of its result, or the message of its error.
async fn said(agent: &mut Agent, message: &Message) -> String {
    let answer = agent.ask(message).await.expect("an answer");
    let message = answer.messages().pop().expect("a message");
    let said = message.pointer("/error/message").or_else(|| message.pointer("/result/content/0/text"));
    said.and_then(Value::as_str).unwrap_or_else(|| panic!("{message}")).to_owned()
}

/// A call within a session of 2025-11-25.
async fn legacy_call(agent: &mut Agent, key: &str, tool: &str, arguments: Value) -> Message {
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let answer = agent.ask(&Message::new(initialize.to_string()).with_key(key)).await.expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let message = |body: &Value| Message::legacy(body).with_key(key).with("mcp-session-id", &session);
    let initialized = message(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    agent.ask(&initialized).await.expect("an answer");
    let params = json!({"name": tool, "arguments": arguments});
    message(&json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}))
}

fn names(list: &Answer) -> Vec<String> {
    let list = list.json();
    let tools = list["result"]["tools"].as_array().expect("a list of tools");
    tools.iter().map(|tool| tool["name"].as_str().expect("a name").to_owned()).collect()
}

/// An explanation without what differs from run to run.
fn steady(explanation: &str) -> String {
    let steady = |line: &str| match line.split_whitespace().next() {
        Some(name @ ("when" | "took")) => format!("  {name}\n"),
        _ => format!("{line}\n"),
    };
    explanation.lines().map(steady).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_tool_is_not_listed_and_a_call_of_it_is_refused_with_an_id_that_explains_it() {
    let governed = Governed::start().await;
    let key = governed.key();
    let mut agent = governed.connect(Protocol::Http1).await;
    let list = Message::modern("tools/list", json!({})).with_key(key);
    let mut expected = names(&agent.ask(&list).await.expect("an answer"));
    assert!(expected.contains(&"show_request_headers".to_owned()), "{expected:?}");
    governed.apply(FORBID).await;

    expected.retain(|name| name != "show_request_headers");
    assert_eq!(names(&agent.ask(&list).await.expect("an answer")), expected);
    let call = Message::call("show_request_headers", json!({})).with_key(key);
    let denied = Refusal::new("a forbidden tool", call.clone(), "denied").error(
        200,
        -31403,
        r#"tools/call of "show_request_headers" is denied: a policy forbids it"#,
    );
    for protocol in BOTH {
        check(&governed, protocol, std::slice::from_ref(&denied)).await;
    }

    let answer = agent.ask(&call).await.expect("an answer").json();
    let id = answer["error"]["data"]["decisionId"].as_str().expect("an id");
    let explained = governed.admin(&["policy", "explain", id], "").await;
    let key_id = &key["gantry_".len()..][..16];
    let records = governed.trail().until("its record", |record| record["decision_id"] == id).await;
    let revision = &records.last().expect("a record")["revision"];
    let expected = format!(
        r#"denied {id}
  who        agent demo-agent of tenant dev, with key {key_id}
  what       tools/call show_request_headers of server fixture, through endpoint fixture
  arguments  {{}}
  when
  where      node dev, at revision {revision}
  took
  verdict    deny, because of careful (no-headers)
  reason     tools/call of "show_request_headers" is denied: a policy forbids it

policy careful, as of revision {revision}
  @id("no-headers")
  forbid(
    principal,
    action == Action::"tools/call",
    resource == Tool::"fixture/show_request_headers"
  );

next: if the call should be allowed, change the policy that forbids it:
  gantry get policy careful --tenant dev -o yaml > careful.yaml
  then edit careful.yaml, `gantry diff -f careful.yaml`, `gantry apply -f careful.yaml`
"#
    );
    assert_eq!(steady(&explained), expected);
    assert_eq!(governed.admin(&["policy", "explain", "last"], "").await, explained);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_no_policy_permits_is_denied() {
    let governed = Governed::start().await;
    let key = governed.key();
    governed.admin(&["delete", "policy", "use-fixture", "--wait"], "").await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let list = Message::modern("tools/list", json!({})).with_key(key);
    assert_eq!(names(&agent.ask(&list).await.expect("an answer")), Vec::<String>::new());
    for message in [
        Message::call("add", json!({"a": 2, "b": 3})),
        Message::call("add", json!({"a": "not even valid"})),
        Message::modern("prompts/get", json!({"name": "test_simple_prompt"})),
        Message::modern("resources/read", json!({"uri": "test://static-text"})),
        Message::modern("tasks/list", json!({})),
    ] {
        let answer = agent.ask(&message.with_key(key)).await.expect("an answer");
        let error = &answer.json()["error"];
        assert_eq!(
            (answer.status, &error["code"], &error["data"]["rejection"]),
            (200, &json!(-31403), &json!("denied"))
        );
    }
    let outcomes: Vec<Value> = governed
        .trail()
        .at_least(6)
        .await
        .iter()
        .map(|record| json!([record["outcome"], record["verdict"]]))
        .collect();
    let mut expected = vec![json!(["denied", "deny"]); 6];
    expected[0] = json!(["ok", null]);
    assert_eq!(outcomes, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_reads_arguments_decides_each_call_and_lists_show_the_tool() {
    let governed = Governed::start().await;
    let key = governed.key();
    governed.apply(BELOW_DATA).await;
    let read = |path: &str| governed.call("read_file", json!({"path": path}));
    for protocol in BOTH {
        let mut agent = governed.connect(protocol).await;
        let list = agent.ask(&Message::modern("tools/list", json!({})).with_key(key)).await;
        assert!(names(&list.expect("an answer")).contains(&"read_file".to_owned()));
        assert_eq!(said(&mut agent, &read("/data/a")).await, READ);
        for path in ["/etc/passwd", "/data", "/DATA/a", ""] {
            assert_eq!(said(&mut agent, &read(path)).await, FORBIDDEN, "{path}");
        }
        let call = legacy_call(&mut agent, key, "read_file", json!({"path": "/data/a"})).await;
        assert_eq!(said(&mut agent, &call).await, READ);
        let call = legacy_call(&mut agent, key, "read_file", json!({"path": "/etc/passwd"})).await;
        assert_eq!(said(&mut agent, &call).await, FORBIDDEN);
    }
    let refusal = Refusal::new("another path", read("/etc/passwd"), "denied").error(200, -31403, FORBIDDEN);
    check(&governed, Protocol::Http1, &[refusal]).await;

    // Both are recorded with what decided, and the list of an admin says that it depends.
    let records = governed.trail().records();
    let of_path = |path: &str| {
        let found = records.iter().find(|record| record["arguments"]["path"] == path).expect("a record");
        json!([found["verdict"], found["policies"]])
    };
    let permit = json!([{"policy": "use-fixture", "id": null, "index": 0}]);
    assert_eq!(of_path("/data/a"), json!(["allow", permit]));
    let forbid = json!([{"policy": "below-data", "id": "data-only", "index": 0}]);
    assert_eq!(of_path("/etc/passwd"), json!(["deny", forbid]));
    let listed = governed.admin(&["tool", "ls", "--agent", "demo-agent", "-o", "json"], "").await;
    let listed: Value = serde_json::from_str(&listed).expect("JSON");
    let verdict = |name: &str| {
        let tools = listed.as_array().expect("a list");
        let tool = tools.iter().find(|tool| tool["name"] == name).expect("the tool");
        json!([tool["verdict"], tool["policies"]])
    };
    assert_eq!(verdict("read_file"), json!(["by call", ["below-data/data-only"]]));
    assert_eq!(verdict("add"), json!(["allow", ["use-fixture[0]"]]));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_permitted_for_some_calls_alone_is_listed_and_other_calls_are_denied() {
    let governed = Governed::start().await;
    let key = governed.key();
    governed.admin(&["delete", "policy", "use-fixture", "--wait"], "").await;
    let condition = r#"when { context.arguments.path like "/data/*" && context.era == "modern" && context.revision == "2026-07-28" && context.time.date > 20260101 }"#;
    let past = r#"permit(principal, action, resource == Tool::"fixture/greet") when { context.time.date < 20260101 };"#;
    governed.apply(&format!("{}\n---\n{}", reading("permit", condition), policy("past", past))).await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let list = agent.ask(&Message::modern("tools/list", json!({})).with_key(key)).await;
    assert_eq!(names(&list.expect("an answer")), ["greet", "read_file"]);

    let call = governed.call("read_file", json!({"path": "/data/a"}));
    assert_eq!(said(&mut agent, &call).await, READ);
    let call = governed.call("read_file", json!({"path": "/etc/passwd"}));
    assert_eq!(said(&mut agent, &call).await, NOT_PERMITTED);
    let call = legacy_call(&mut agent, key, "read_file", json!({"path": "/data/a"})).await;
    assert_eq!(said(&mut agent, &call).await, NOT_PERMITTED);
    let call = governed.call("greet", json!({"name": "Ada"}));
    assert_eq!(said(&mut agent, &call).await, NOT_PERMITTED.replace("read_file", "greet"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_cannot_be_evaluated_denies_the_call_and_no_other() {
    let governed = Governed::start().await;
    let condition =
        "when { context.arguments has limit && context.arguments.limit + 9223372036854775807 < 0 }";
    governed.apply(&reading("forbid", condition)).await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let cases = [
        (json!({"path": "/a"}), READ),
        (json!({"path": "/a", "limit": 0}), READ),
        (json!({"path": "/a", "limit": null}), "the schema's"),
        (json!({"path": "/a", "limit": 1}), FAILED),
        // Policies read whole numbers; whatever else the tool would take, they cannot tell.
        (json!({"path": "/a", "limit": 1.5}), FAILED),
        (json!({"path": "/a", "limit": [0]}), FAILED),
        (json!({"path": 1}), FAILED),
        (json!({}), "the schema's"),
    ];
    for (arguments, expected) in cases {
        let said = said(&mut agent, &governed.call("read_file", arguments.clone())).await;
        let said = if said.starts_with("Invalid arguments for tool") { "the schema's" } else { &said };
        assert_eq!(said, expected, "{arguments}");
    }
    let refusal =
        Refusal::new("one too many", governed.call("read_file", json!({"path": "/", "limit": 1})), "denied");
    check(&governed, Protocol::Http1, &[refusal.error(200, -31403, FAILED)]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_reads_what_no_call_has_is_refused_on_apply_at_its_place() {
    let governed = Governed::start().await;
    for (condition, expected) in [
        (
            r#"when { context.arguments.pth == "/" }"#,
            r#"for Tool::"fixture/read_file": attribute `arguments.pth` in context for Action::"tools/call" not found (did you mean `path`?)"#,
        ),
        (
            "when { context.arguments.path > 1 }",
            r#"for Tool::"fixture/read_file": unexpected type: expected Long but saw String"#,
        ),
        (
            "when { context.arguments.limit > 1 }",
            r#"for Tool::"fixture/read_file": unable to guarantee safety of access to optional attribute `arguments.limit` in context for Action::"tools/call" (try testing for the attribute's presence with `context.arguments has limit && ..`)"#,
        ),
        (
            r#"when { context.tme.hour == 1 }"#,
            r#"attribute `tme` in context for Action::"tools/call" not found (did you mean `time`?)"#,
        ),
        (
            r#"when { context.time.hour == "1" }"#,
            "the types Long and String are not compatible (both operands to a `==` expression must have compatible types. Types must be exactly equal to be compatible)",
        ),
    ] {
        let document = reading("forbid", condition);
        let refused = governed.dev().admin_with_input(&["apply", "-f", "-"], document.as_bytes()).await;
        let refused = refused.expect("an end");
        assert_eq!((refused.status.code(), refused.stdout.as_str()), (Some(1), ""), "{refused:?}");
        let expected = format!(
            "error: the documents have a problem; nothing was applied\n  \
             stdin:document 1 (Policy dev/reading): spec.cedar: line 2, column 10: {expected}\n\
             next: correct the documents, then `gantry diff -f -`\n"
        );
        assert_eq!(refused.stderr, expected);
    }
    let call = governed.call("read_file", json!({"path": "/"}));
    assert_eq!(said(&mut governed.connect(Protocol::Http1).await, &call).await, READ);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spent_limit_is_told_with_the_time_to_wait_and_concerns_nothing_else() {
    let governed = Governed::start().await;
    governed.apply(&format!("{{kind: Agent, tenant: dev, name: second}}\n---{LIMIT}")).await;
    let second = governed.admin(&["key", "create", "--agent", "second"], "").await;
    let add = Message::call("add", json!({"a": 2, "b": 3}));
    let mut asked = 0;
    for protocol in BOTH {
        let mut agent = governed.connect(protocol).await;
        // Each protocol has an agent of its own, so that both find a fresh budget.
        let key = if protocol == Protocol::Http1 { governed.key() } else { second.trim_end() };
        let add = add.clone().with_key(key);
        assert_eq!(agent.ask(&add).await.expect("an answer").status, 200);

        let answer = agent.ask(&add).await.expect("an answer");
        let seconds: u64 = answer.header("retry-after").expect("a time to wait").parse().expect("seconds");
        assert!((1..=60).contains(&seconds), "{seconds}");
        asked += 2;
        let record = governed.trail().at_least(asked).await[asked - 1].clone();
        let expected = json!({"jsonrpc": "2.0", "id": 1, "error": {
            "code": -31429,
            "message": format!("limit \"one-a-minute\" is spent; try again in {seconds} s"),
            "data": {
                "rejection": "limited", "decisionId": record["decision_id"], "retryAfterSeconds": seconds,
                "limit": "one-a-minute",
            },
        }});
        assert_eq!((answer.status, answer.json()), (429, expected));
        assert_eq!((&record["outcome"], &record["status"]), (&json!("limited"), &json!(429)));

        let other = Message::call("test_simple_text", json!({})).with_key(key);
        assert_eq!(agent.ask(&other).await.expect("an answer").status, 200);
        asked += 1;
    }
    let outcomes: Vec<Value> =
        governed.trail().at_least(6).await.iter().map(|record| record["outcome"].clone()).collect();
    assert_eq!(outcomes, ["ok", "limited", "ok", "ok", "limited", "ok"]);
}
