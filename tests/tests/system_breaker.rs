//! Agents that are stopped for a while because of what they do, as they see it and as it is recorded.

use std::time::Duration;

use gantry_tests::agent::{Agent, Answer, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use serde_json::{Value, json};

/// How long it may take until calls are let through again: a second, and what a busy machine adds.
const CLOSED_TIME_MAX: Duration = Duration::from_secs(20);

/// Somebody else who may do the same.
const SECOND: &str = "{kind: Agent, tenant: dev, name: second}\n---\n";

async fn with(spec: &str) -> (Governed, String) {
    let governed = Governed::start().await;
    governed.apply(&format!("{SECOND}{{kind: Tenant, name: dev, spec: {{breaker: {spec}}}}}\n")).await;
    let second = governed.admin(&["key", "create", "--agent", "second"], "").await;
    (governed, second.trim_end().to_owned())
}

async fn ask(agent: &mut Agent, message: &Message) -> Answer {
    agent.ask(message).await.expect("an answer")
}

/// A call of `add`; with one argument only it is refused as such.
fn add(key: &str, arguments: Value) -> Message {
    Message::call("add", arguments).with_key(key)
}

/// What is told: status, seconds to wait, and the error without its id.
fn told(answer: &Answer) -> (u16, Option<String>, Value) {
    let mut error = answer.json()["error"].clone();
    error["data"]["decisionId"].take();
    (answer.status, answer.header("retry-after").map(str::to_owned), error)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_makes_the_same_call_again_and_again_is_stopped_and_told_why() {
    let (governed, second) = with("{repeats: {calls: 3, window_seconds: 600}, open_seconds: 600}").await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let call = |key: &str| add(key, json!({"a": 2, "b": 3}));
    for _ in 0..3 {
        assert_eq!(ask(&mut agent, &call(governed.key())).await.status, 200);
    }
    // By another connection, with its arguments in another order.
    let mut other = governed.connect(Protocol::Http2).await;
    let expected = json!({
        "code": -31429,
        "message": "the same call was made more than 3 times within 600 s; do something else; no call is let through for 600 s",
        "data": {"rejection": "limited", "decisionId": null, "retryAfterSeconds": 600, "breaker": "repeats"},
    });
    let stopped = ask(&mut other, &add(governed.key(), json!({"b": 3, "a": 2}))).await;
    assert_eq!(told(&stopped), (429, Some("600".to_owned()), expected));
    // Nor may it call anything else, but lists are no calls; and nobody else is stopped.
    assert_eq!(ask(&mut agent, &add(governed.key(), json!({"a": 1, "b": 1}))).await.status, 429);
    let list = Message::modern("tools/list", json!({})).with_key(governed.key());
    assert_eq!(ask(&mut agent, &list).await.status, 200);
    assert_eq!(ask(&mut agent, &call(&second)).await.status, 200);

    let records = governed.trail().at_least(7).await;
    let outcomes: Vec<Value> =
        records.iter().map(|record| json!([record["outcome"], record["status"]])).collect();
    let (ok, limited) = (json!(["ok", 200]), json!(["limited", 429]));
    assert_eq!(outcomes, [&ok, &ok, &ok, &limited, &limited, &ok, &ok].map(Clone::clone));
    let reason = records[3]["reason"].as_str().expect("a reason");
    assert!(reason.starts_with("the same call was made more than 3 times"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_whose_calls_fail_is_stopped_for_a_while_and_then_let_through() {
    let (governed, second) =
        with("{failures: {percent: 60, calls: 5, window_seconds: 600}, open_seconds: 1}").await;
    let mut agent = governed.connect(Protocol::Http1).await;
    // Arguments that do not fit, a tool that says that it failed, and one that there is not.
    let failing = [
        add(governed.key(), json!({"a": 2})),
        governed.call("test_error_handling", json!({})),
        governed.call("nothing_of_the_kind", json!({})),
    ];
    let good = add(governed.key(), json!({"a": 2, "b": 3}));
    let [unfit, failed, unknown] = failing;
    for message in [&good, &unfit, &good, &failed, &unknown] {
        assert_eq!(ask(&mut agent, message).await.status, 200);
    }
    // What ended is counted with its record.
    governed.trail().at_least(5).await;
    let stopped = ask(&mut agent, &add(governed.key(), json!({"a": 2, "b": 3}))).await;
    let expected = json!({
        "code": -31429,
        "message": "3 of the last 5 calls failed; no call is let through for 1 s",
        "data": {"rejection": "limited", "decisionId": null, "retryAfterSeconds": 1, "breaker": "failures"},
    });
    assert_eq!(told(&stopped), (429, Some("1".to_owned()), expected));
    assert_eq!(ask(&mut agent, &add(&second, json!({"a": 2, "b": 3}))).await.status, 200);
    eventually("calls to be let through", CLOSED_TIME_MAX, async || {
        (ask(&mut agent, &add(governed.key(), json!({"a": 2, "b": 3}))).await.status == 200).then_some(())
    })
    .await;
}
