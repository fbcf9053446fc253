//! Policies that read the call: what they let through, what a list shows of it, what is recorded, and what is refused when
//! it is applied.

use gantry_tests::agent::{Agent, LEGACY, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};

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

/// What a call came to.
async fn said(agent: &mut Agent, message: &Message) -> String {
    agent.ask(message).await.expect("an answer").said()
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

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_reads_arguments_decides_each_call_and_lists_show_the_tool() {
    let governed = Governed::start().await;
    let key = governed.key();
    governed.apply(BELOW_DATA).await;
    let read = |path: &str| governed.call("read_file", json!({"path": path}));
    for protocol in BOTH {
        let mut agent = governed.connect(protocol).await;
        let list = agent.ask(&Message::modern("tools/list", json!({})).with_key(key)).await;
        assert!(list.expect("an answer").tools().contains(&"read_file".to_owned()));
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
    assert_eq!(list.expect("an answer").tools(), ["greet", "read_file"]);

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
    let records = governed.trail().records();
    let failures = |limit: Value| {
        let found = records.iter().find(|record| record["arguments"]["limit"] == limit).expect("a record");
        json!([found["verdict"], found["policies"], found["failures"]])
    };
    let statement = json!([{"policy": "reading", "id": null, "index": 0}]);
    assert_eq!(failures(json!(1)), json!(["deny", [], statement]));
    let request = json!([{"message": "argument \"limit\" is not of its type"}]);
    assert_eq!(failures(json!(1.5)), json!(["deny", [], request]));
    assert_eq!(failures(json!(0))[2], Value::Null);
    let explained = governed.admin(&["policy", "explain", "last"], "").await;
    for line in
        ["  verdict    deny, because reading could not be evaluated\n", "\npolicy reading, as of revision "]
    {
        assert!(explained.contains(line), "{explained}");
    }
}

/// The fixture, where the argument `path` of one tool is said to be of a form.
fn declared(governed: &Governed, form: &str) -> String {
    let tools = json!({"read_file": {"arguments": {"path": form}}});
    let spec = json!({"url": governed.server().url(), "inspection": {"tools": tools}});
    json!({"kind": "Server", "tenant": "dev", "name": "fixture", "spec": spec}).to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_reads_what_an_argument_means_where_it_is_declared() {
    let governed = Governed::start().await;
    let of_sql = r#"unless { context.facts.sql.kinds == ["select"] && ["orders"].containsAll(context.facts.sql.tables) }"#;
    governed.apply(&format!("{}\n---\n{}", declared(&governed, "sql"), reading("forbid", of_sql))).await;
    let mut agent = governed.connect(Protocol::Http2).await;
    let mut ask =
        async |path: &str| said(&mut agent, &governed.call("read_file", json!({"path": path}))).await;
    for query in ["SELECT a FROM orders", "select 1; select b from Orders"] {
        assert_eq!(ask(query).await, READ, "{query}");
    }
    for query in [
        "SELECT a FROM users",
        "DROP TABLE orders",
        "SELECT 1; DELETE FROM orders",
        "WITH gone AS (DELETE FROM orders RETURNING a) SELECT a FROM gone",
        "what is in the orders",
        "",
    ] {
        assert_eq!(ask(query).await, FORBIDDEN, "{query}");
    }

    // The same text as a path, and as no form at all.
    let of_path = "unless { !context.facts.path.escapes && !context.facts.path.absolute && context.facts.size.longest < 9 }";
    governed.apply(&format!("{}\n---\n{}", declared(&governed, "path"), reading("forbid", of_path))).await;
    for (path, expected) in
        [("a/../b", READ), ("a/../../b", FORBIDDEN), ("/a", FORBIDDEN), ("123456789", FORBIDDEN)]
    {
        assert_eq!(ask(path).await, expected, "{path}");
    }
    let server = json!({"url": governed.server().url()});
    let server = json!({"kind": "Server", "tenant": "dev", "name": "fixture", "spec": server});
    governed.apply(&format!("{server}\n---\n{}", reading("forbid", of_sql))).await;
    assert_eq!(ask("SELECT a FROM orders").await, FORBIDDEN, "what is not declared has no kind");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_says_that_is_not_enforced_is_recorded_and_changes_no_answer() {
    let governed = Governed::start().await;
    let key = governed.key();
    let mut agent = governed.connect(Protocol::Http2).await;
    let list = Message::modern("tools/list", json!({})).with_key(key);
    let listed = agent.ask(&list).await.expect("an answer").tools();
    let scope = r#"principal, action == Action::"tools/call", resource"#;
    let documents = [
        (
            "strict",
            true,
            format!(
                "forbid({scope} == Tool::\"fixture/read_file\") when {{ context.arguments.path like \"/etc/*\" }};"
            ),
        ),
        ("closed", false, format!("forbid({scope} == Tool::\"fixture/greet\");")),
        ("always", true, format!("forbid({scope} == Tool::\"fixture/test_simple_text\");")),
    ];
    let document = |(name, shadow, cedar): &(&str, bool, String)| json!({"kind": "Policy", "tenant": "dev", "name": name, "spec": {"cedar": cedar, "shadow": shadow}});
    governed
        .apply(&documents.iter().map(|it| document(it).to_string() + "\n---\n").collect::<String>())
        .await;
    let without_greet: Vec<String> = listed.into_iter().filter(|name| name != "greet").collect();
    assert_eq!(agent.ask(&list).await.expect("an answer").tools(), without_greet);

    let read = |path: &str| governed.call("read_file", json!({"path": path}));
    assert_eq!(said(&mut agent, &read("/etc/passwd")).await, READ);
    assert_eq!(said(&mut agent, &read("/data/a")).await, READ);
    let text = said(&mut agent, &governed.call("test_simple_text", json!({}))).await;
    assert_eq!(text, "This is a simple text response for testing.");
    let denied = said(&mut agent, &governed.call("greet", json!({"name": "Ada"}))).await;
    assert_eq!(denied, FORBIDDEN.replace("read_file", "greet"));

    let records = governed.trail().at_least(6).await;
    let told: Vec<Value> =
        records[2..].iter().map(|record| json!([record["verdict"], record["shadow"]])).collect();
    let would =
        |policy: &str| json!({"verdict": "deny", "policies": [{"policy": policy, "id": null, "index": 0}]});
    let expected = [
        json!(["allow", would("strict")]),
        json!(["allow", null]),
        json!(["allow", would("always")]),
        json!(["deny", null]),
    ];
    assert_eq!(told, expected);
    let id = records[2]["decision_id"].as_str().expect("an id");
    let explained = governed.admin(&["policy", "explain", id], "").await;
    assert!(
        explained
            .contains("  verdict    allow, because of use-fixture\n  shadow     deny, because of strict\n"),
        "{explained}"
    );

    // Enforced, it decides.
    governed.apply(&document(&("strict", false, documents[0].2.clone())).to_string()).await;
    assert_eq!(said(&mut agent, &read("/etc/passwd")).await, FORBIDDEN);
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
            "when { context.facts.sql.verbs.isEmpty() }",
            r#"attribute `facts.sql.verbs` in context for Action::"tools/call" not found (did you mean `kinds`?)"#,
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
