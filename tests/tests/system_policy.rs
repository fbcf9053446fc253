//! What policies and limits forbid: what the agent sees of it, and what its owner is told.

use gantry_tests::agent::{Message, Protocol};
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

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

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
    let mut expected = agent.ask(&list).await.expect("an answer").tools();
    assert!(expected.contains(&"show_request_headers".to_owned()), "{expected:?}");
    governed.apply(FORBID).await;

    expected.retain(|name| name != "show_request_headers");
    assert_eq!(agent.ask(&list).await.expect("an answer").tools(), expected);
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
    assert_eq!(agent.ask(&list).await.expect("an answer").tools(), Vec::<String>::new());
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
