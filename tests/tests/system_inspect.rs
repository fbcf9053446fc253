//! What is looked for in the arguments of calls and taken out of answers: what the agent sees of it, and what is recorded.

use gantry_tests::agent::{Answer, LEGACY, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::refusal::{Refusal, check};
use serde_json::{Value, json};

const TOOL: &str = "test_custom_header";

/// The server as it was, with something to look for.
async fn inspect(governed: &Governed, inspection: &str) {
    let url = governed.server().url();
    let document = format!(
        "{{kind: Server, tenant: dev, name: fixture, spec: {{url: \"{url}\", inspection: {inspection}}}}}"
    );
    governed.apply(&document).await;
}

/// A call of a tool that answers what it is given.
fn echo(governed: &Governed, value: &str) -> Message {
    governed.call(TOOL, json!({"value": value})).with("mcp-param-value", value)
}

/// The message that has the result.
fn result(answer: &Answer) -> Value {
    let found = answer.messages().into_iter().find(|message| message.get("result").is_some());
    found.unwrap_or_else(|| panic!("{} {:?}", answer.status, answer.body))
}

fn prompt(arguments: Value) -> Value {
    json!({"name": "test_prompt_with_arguments", "arguments": arguments})
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_filter_finds_is_refused_where_it_blocks_and_recorded_where_it_reports() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    inspect(
        &governed,
        &format!(
            "{{filters: {{sql: block, unicode: off}}, tools: {{{TOOL}: {{arguments: {{value: sql}}}}}}}}"
        ),
    )
    .await;

    let stacked = Refusal::new("a second statement", echo(&governed, "SELECT 1; DROP TABLE t"), "denied")
        .error(
            200,
            -31422,
            r#"the arguments of "test_custom_header" do not pass: sql: stacked statement at /value"#,
        );
    check(&governed, Protocol::Http1, std::slice::from_ref(&stacked)).await;
    let records = governed.trail().until("the refusal", |record| record["outcome"] == "denied").await;
    let refused = records.iter().find(|record| record["outcome"] == "denied").expect("a record");
    let told = json!([refused["findings"], refused["verdict"], refused["tool"]]);
    assert_eq!(told, json!([["sql: stacked statement at /value"], "allow", TOOL]));

    // What nobody said to block passes, and is told.
    let leaving = result(&agent.ask(&echo(&governed, "AKIAIOSFODNN7EXAMPLE")).await.expect("an answer"));
    assert_eq!(leaving["result"]["content"][0]["text"], "value: AKIAIOSFODNN7EXAMPLE");
    let is_reported = |record: &Value| record["findings"] == json!(["secrets: key of AWS at /value"]);
    let records = governed.trail().until("the report", is_reported).await;
    let outcomes: Vec<_> =
        records.iter().filter(|record| is_reported(record)).map(|record| &record["outcome"]).collect();
    assert_eq!(outcomes, ["ok"]);

    // The tenant's word counts where the server has none.
    governed
        .apply("{kind: Tenant, name: dev, spec: {inspection: {filters: {secrets: block, sql: off}}}}")
        .await;
    let leaves = Refusal::new("a key", echo(&governed, "AKIAIOSFODNN7EXAMPLE"), "denied").error(
        200,
        -31422,
        r#"the arguments of "test_custom_header" do not pass: secrets: key of AWS at /value"#,
    );
    check(&governed, Protocol::Http1, &[stacked, leaves]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_to_be_taken_out_of_answers_is_gone_in_every_form_of_them() {
    let governed = Governed::start().await;
    let key = governed.key();
    let mut agent = governed.connect(Protocol::Http1).await;
    let arguments = json!({"arg1": "ann@example.com", "arg2": "4111 1111 1111 1111"});
    let modern = Message::modern("prompts/get", prompt(arguments.clone())).with_key(key);
    let before = result(&agent.ask(&modern).await.expect("an answer"));
    let text = |answer: &Value| answer["result"]["messages"][0]["content"]["text"].clone();
    let whole = "Prompt with arguments: arg1='ann@example.com', arg2='4111 1111 1111 1111'";
    assert_eq!(text(&before), whole);

    inspect(&governed, "{redact: [emails, cards]}").await;
    let without = "Prompt with arguments: arg1='[redacted: e-mail]', arg2='[redacted: card]'";
    assert_eq!(text(&result(&agent.ask(&modern).await.expect("an answer"))), without);

    // A legacy server answers by a stream of events.
    let params =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = agent.ask(&Message::legacy(&initialize).with_key(key)).await.expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let get = json!({"jsonrpc": "2.0", "id": "ann@example.com", "method": "prompts/get", "params": prompt(arguments)});
    let get = Message::legacy(&get).with_key(key).with("mcp-session-id", &session);
    let answered = result(&agent.ask(&get).await.expect("an answer"));
    // What the client said stays what it said.
    assert_eq!((text(&answered), &answered["id"]), (json!(without), &json!("ann@example.com")));

    let taken = |record: &Value| record["method"] == "prompts/get" && record["era"] == "legacy";
    let records = governed.trail().until("its record", taken).await;
    let counts: Vec<&Value> = records
        .iter()
        .filter(|record| record["method"] == "prompts/get")
        .map(|record| &record["redacted"])
        .collect();
    assert_eq!(counts, [&Value::Null, &json!(2), &json!(2)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn patterns_and_limits_of_ones_own_hold_and_a_pattern_that_is_none_is_refused_with_its_place() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let spec = "{limits: {max_text_bytes: 20}, filters: {limits: block}, redact_patterns: {employee: 'EMP-[0-9]{6}', whole: '^value: top secret$'}}";
    inspect(&governed, spec).await;
    let text = async |agent: &mut gantry_tests::agent::Agent, value: &str| {
        let answer = result(&agent.ask(&echo(&governed, value)).await.expect("an answer"));
        answer["result"]["content"][0]["text"].as_str().expect("a text").to_owned()
    };
    assert_eq!(text(&mut agent, "of EMP-123456").await, "value: of [redacted: employee]");
    assert_eq!(text(&mut agent, "top secret").await, "[redacted: whole]");
    assert_eq!(text(&mut agent, "no top secret").await, "value: no top secret");
    let long = Refusal::new("a long text", echo(&governed, &"x".repeat(21)), "denied").error(
        200,
        -31422,
        r#"the arguments of "test_custom_header" do not pass: limits: text at /value"#,
    );
    check(&governed, Protocol::Http1, &[long]).await;

    for (pattern, refused) in [
        ("a(b", "spec.inspection.redact_patterns.x: line 1, column 2: unclosed group"),
        ("a*", "spec.inspection.redact_patterns.x: it matches the empty text, and so everywhere"),
    ] {
        let url = governed.server().url();
        let document = format!(
            "{{kind: Server, tenant: dev, name: fixture, spec: {{url: \"{url}\", inspection: {{redact_patterns: {{x: '{pattern}'}}}}}}}}"
        );
        let applied = governed.dev().admin_with_input(&["apply", "-f", "-"], document.as_bytes()).await;
        let applied = applied.expect("an answer");
        assert!(!applied.status.success() && applied.stderr.contains(refused), "{}", applied.stderr);
    }
}
