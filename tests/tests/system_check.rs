//! Checks by a service of one's own: what the agent sees of them, what the service is shown, and what is recorded, also
//! when the service fails.

use gantry_tests::agent::{Agent, Answer, LEGACY, Message, Protocol};
use gantry_tests::checker::{Checker, Say};
use gantry_tests::governed::Governed;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

const TOOL: &str = "test_custom_header";

/// The server as it was, with somebody who is asked.
async fn ask(governed: &Governed, check: &str) {
    let url = governed.server().url();
    let document =
        format!("{{kind: Server, tenant: dev, name: fixture, spec: {{url: \"{url}\", check: {check}}}}}");
    governed.apply(&document).await;
}

/// A call of a tool that answers what it is given.
fn echo(governed: &Governed, value: &str) -> Message {
    governed.call(TOOL, json!({"value": value})).with("mcp-param-value", value)
}

/// The one message that answers.
async fn answered(agent: &mut Agent, message: &Message) -> Value {
    let answer = agent.ask(message).await.expect("an answer");
    last(&answer)
}

fn last(answer: &Answer) -> Value {
    let is_answer = |message: &Value| message.get("result").is_some() || message.get("error").is_some();
    let found = answer.messages().into_iter().find(is_answer);
    found.unwrap_or_else(|| panic!("{} {:?}", answer.status, answer.body))
}

/// What the record says of checks, without how long they took.
async fn noted(governed: &Governed, what: &str, phase: &str, verdict: &str) -> Value {
    let is_it = |check: &Value| check["phase"] == phase && check["verdict"] == verdict;
    let fits = |record: &Value| record["checks"].as_array().is_some_and(|checks| checks.iter().any(is_it));
    let records = governed.trail().until(what, fits).await;
    let mut found = records.into_iter().rfind(fits).expect("a record");
    for check in found["checks"].as_array_mut().into_iter().flatten() {
        assert!(check["us"].is_u64());
        check.as_object_mut().expect("an object").remove("us");
    }
    json!({"outcome": found["outcome"], "checks": found["checks"], "arguments": found["arguments"]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_passes_is_refused_or_is_changed_as_the_service_says() {
    let (governed, checker) = (Governed::start().await, Checker::start().expect("a service"));
    let mut agent = governed.connect(Protocol::Http1).await;
    ask(&governed, &format!("{{url: '{}', may_replace: true}}", checker.url())).await;

    let passed = answered(&mut agent, &echo(&governed, "a")).await;
    assert_eq!(passed["result"]["content"][0]["text"], "value: a");
    let asked = checker.requests();
    let [asked] = asked.as_slice() else { panic!("{asked:?}") };
    let subject = asked.subject.clone().expect("a subject");
    let told = (&*subject.tenant, &*subject.server, &*subject.method, &*subject.target, &*asked.arguments);
    assert_eq!(told, ("dev", "fixture", "tools/call", TOOL, r#"{"value":"a"}"#));
    assert!(!subject.agent.is_empty() && asked.may_replace && !asked.redacted);

    checker.say(Say::Deny("numbers only\u{1b}[8m".to_owned()));
    let denied = answered(&mut agent, &echo(&governed, "b")).await;
    let expected =
        format!("the call of \"{TOOL}\" does not pass a check of your organisation: numbers only [8m");
    assert_eq!((&denied["error"]["code"], &denied["error"]["message"]), (&json!(-31422), &json!(expected)));
    assert_eq!(governed.server().calls(TOOL, &json!({"value": "b"})), 0);
    let record = noted(&governed, "the refusal", "request", "deny").await;
    let check = json!([{"by": "server", "phase": "request", "verdict": "deny", "reason": "numbers only [8m", "count": 1}]);
    assert_eq!((&record["outcome"], &record["checks"]), (&json!("denied"), &check));

    // What headers repeat of the arguments is made anew.
    checker.say(Say::Replace(r#"{"value":"c"}"#.to_owned()));
    let changed = answered(&mut agent, &echo(&governed, "b")).await;
    assert_eq!(changed["result"]["content"][0]["text"], "value: c", "{changed}");
    let record = noted(&governed, "the change", "request", "replace").await;
    assert_eq!(record["arguments"], json!({"value": "c"}));

    // It is validated and inspected as any call is.
    checker.say(Say::Replace(r#"{"value":5}"#.to_owned()));
    let unfit = answered(&mut agent, &echo(&governed, "b")).await;
    assert_eq!(unfit["result"]["isError"], true, "{unfit}");
    let url = governed.server().url();
    governed
        .apply(&format!(
            "{{kind: Server, tenant: dev, name: fixture, spec: {{url: \"{url}\", inspection: {{filters: {{secrets: block}}}}, \
             check: {{url: '{}', may_replace: true}}}}}}",
            checker.url()
        ))
        .await;
    checker.say(Say::Replace(r#"{"value":"AKIAIOSFODNN7EXAMPLE"}"#.to_owned()));
    let found = answered(&mut agent, &echo(&governed, "b")).await;
    assert_eq!(found["error"]["code"], -31422, "{found}");
    assert_eq!(governed.server().calls(TOOL, &json!({"value": "b"})), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_passes_is_refused_or_is_changed_as_the_service_says() {
    let (governed, checker) = (Governed::start().await, Checker::start().expect("a service"));
    let mut agent = governed.connect(Protocol::Http1).await;
    // The tenant's own, and arguments as records have them.
    let check = |more: &str| {
        format!(
            "{{kind: Tenant, name: dev, spec: {{check: {{url: '{}', phases: [request, answer], arguments: redacted, \
             may_replace: true{more}}}}}}}",
            checker.url()
        )
    };
    governed.apply(&check("")).await;
    let key = governed.key();
    let prompt = |value: &str| json!({"name": "test_prompt_with_arguments", "arguments": {"arg1": value, "arg2": "x"}});
    let modern = |value: &str| Message::modern("prompts/get", prompt(value)).with_key(key);
    let text = |answer: &Value| answer["result"]["messages"][0]["content"]["text"].clone();

    let whole = answered(&mut agent, &modern("AKIAIOSFODNN7EXAMPLE")).await;
    assert_eq!(text(&whole), "Prompt with arguments: arg1='AKIAIOSFODNN7EXAMPLE', arg2='x'");
    let (requests, answers) = (checker.requests(), checker.answers());
    assert!(requests[0].redacted && !requests[0].arguments.contains("AKIA"), "{requests:?}");
    let shown: Value = serde_json::from_str(&answers[0].message).expect("a message");
    assert_eq!((shown, answers[0].index, answers.len()), (whole.clone(), 0, 1));

    let mut other = whole.clone();
    other["result"]["messages"][0]["content"]["text"] = json!("nothing to see");
    checker.say_of_answers(Say::Replace(other.to_string()));
    assert_eq!(text(&answered(&mut agent, &modern("a")).await), "nothing to see");
    // An answer of another id is none to this request.
    other["id"] = json!("another");
    checker.say_of_answers(Say::Replace(other.to_string()));
    assert_eq!(answered(&mut agent, &modern("a")).await["error"]["code"], -31503);

    checker.say_of_answers(Say::Deny("secret".to_owned()));
    let denied = answered(&mut agent, &modern("a")).await;
    let expected =
        "the answer of \"test_prompt_with_arguments\" does not pass a check of your organisation: secret";
    assert_eq!(denied["error"]["message"], expected, "{denied}");
    let record = noted(&governed, "the refusal", "answer", "deny").await;
    let checks = json!([
        {"by": "tenant", "phase": "request", "verdict": "allow", "count": 1},
        {"by": "tenant", "phase": "answer", "verdict": "deny", "reason": "secret", "count": 1},
    ]);
    assert_eq!((&record["outcome"], &record["checks"]), (&json!("error"), &checks));

    // What is larger than anybody is shown is a failure.
    checker.say_of_answers(Say::Allow);
    governed.apply(&check(", max_answer_bytes: 20")).await;
    assert_eq!(answered(&mut agent, &modern("a")).await["error"]["code"], -31503);
    governed.apply(&check(", max_answer_bytes: 20, on_failure: open")).await;
    assert_eq!(text(&answered(&mut agent, &modern("a")).await), "Prompt with arguments: arg1='a', arg2='x'");
    let record = noted(&governed, "what passed", "answer", "passed unchecked").await;
    assert_eq!(record["checks"][1]["reason"], "too large");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_of_a_stream_is_asked_about_and_the_first_that_is_refused_ends_it() {
    let (governed, checker) = (Governed::start().await, Checker::start().expect("a service"));
    let mut agent = governed.connect(Protocol::Http1).await;
    ask(&governed, &format!("{{url: '{}', phases: [answer]}}", checker.url())).await;
    let key = governed.key();
    // A legacy server answers by a stream of events, and reports on its way.
    let params =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "a", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params});
    let answer = agent.ask(&Message::legacy(&initialize).with_key(key)).await.expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let call = |id: u64| {
        let params =
            json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": id}});
        let call = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        Message::legacy(&call).with_key(key).with("mcp-session-id", &session)
    };
    let _ = checker.answers();
    let streamed = agent.ask(&call(7)).await.expect("an answer");
    let asked = checker.answers();
    let shown: Vec<Value> =
        asked.iter().map(|asked| serde_json::from_str(&asked.message).expect("a message")).collect();
    assert_eq!(shown, streamed.messages());
    assert!(asked.len() > 1 && asked.iter().zip(0..).all(|(asked, index)| asked.index == index), "{asked:?}");
    // The first that is refused ends it.
    checker.say_of_answers(Say::Deny(String::new()));
    let refused = agent.ask(&call(8)).await.expect("an answer").messages();
    let [refused] = refused.as_slice() else { panic!("{refused:?}") };
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(8), &json!(-31422)));
    assert_eq!(checker.requests(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_fails_refuses_or_lets_pass_as_it_is_set_and_is_left_alone() {
    let (governed, checker) = (Governed::start().await, Checker::start().expect("a service"));
    let mut agent = governed.connect(Protocol::Http1).await;
    governed.apply("{kind: Credential, tenant: dev, name: guard, spec: {prefix: 'Bearer '}}").await;
    governed.admin(&["credential", "put", "guard", "--tenant", "dev", "--wait"], "opensesame\n").await;
    let set = async |url: &str, on_failure: &str, timeout_ms: u32| {
        let server = governed.server().url();
        governed
            .apply(&format!(
                "{{kind: Server, tenant: dev, name: fixture, spec: {{url: \"{server}\", \
                 check: {{url: '{url}', credential: guard, timeout_ms: {timeout_ms}, on_failure: {on_failure}}}}}}}"
            ))
            .await;
    };
    let expected = json!(format!("the call of \"{TOOL}\" could not be checked; try again in a moment"));
    for (say, reason, timeout_ms) in [
        (Say::Silence, "late", 150),
        (Say::Nothing, "unreadable", 10_000),
        (Say::Fail, "failed", 10_001),
        // Nobody said that it may.
        (Say::Replace("{}".to_owned()), "unreadable", 10_002),
    ] {
        checker.say(say.clone());
        set(&checker.url(), "closed", timeout_ms).await;
        let value = format!("closed {timeout_ms}");
        let refused = answered(&mut agent, &echo(&governed, &value)).await;
        assert_eq!(
            (&refused["error"]["code"], &refused["error"]["message"]),
            (&json!(-31503), &expected),
            "{say:?}"
        );
        let is_it = |record: &Value| {
            let check = &record["checks"][0];
            record["arguments"]["value"] == json!(value)
                && (&check["verdict"], &check["reason"]) == (&json!("refused unchecked"), &json!(reason))
        };
        governed.trail().until("the refusal", is_it).await;
        assert_eq!(governed.server().calls(TOOL, &json!({"value": value})), 0);
        set(&checker.url(), "open", timeout_ms).await;
        let passed = answered(&mut agent, &echo(&governed, "open")).await;
        assert_eq!(passed["result"]["content"][0]["text"], "value: open", "{say:?}");
    }
    assert_eq!(checker.shown().as_deref(), Some("Bearer opensesame"));

    // Somebody else answers there, who speaks no gRPC.
    let garbage = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", garbage.local_addr().expect("an address"));
    let talking = tokio::spawn(async move {
        while let Ok((mut stream, _)) = garbage.accept().await {
            let _ = stream.write_all(b"SSH-2.0-x\r\n").await;
        }
    });
    set(&url, "closed", 5_000).await;
    assert_eq!(answered(&mut agent, &echo(&governed, "closed")).await["error"]["code"], -31503);
    talking.abort();

    // It dies, and is left alone after a few calls; then it is asked no more for a while.
    checker.say(Say::Allow);
    set(&checker.url(), "closed", 5_003).await;
    let passed = answered(&mut agent, &echo(&governed, "there")).await;
    assert_eq!(passed["result"]["content"][0]["text"], "value: there");
    drop(checker);
    for _ in 0..6 {
        assert_eq!(answered(&mut agent, &echo(&governed, "closed")).await["error"]["code"], -31503);
    }
    let is_left_alone = |record: &Value| record["checks"][0]["reason"] == "left alone";
    governed.trail().until("it is left alone", is_left_alone).await;
    assert_eq!(governed.server().calls(TOOL, &json!({"value": "closed"})), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_believed_by_its_own_authority_and_by_no_other() {
    let governed = Governed::start().await;
    let mut agent = governed.connect(Protocol::Http1).await;
    let checker = Checker::start_with_tls().expect("a service");
    let other = Checker::start_with_tls().expect("a service");
    let set = async |authority: Option<&str>| {
        let authorities = authority.map(|pem| format!(", authorities: {}", json!(pem))).unwrap_or_default();
        ask(&governed, &format!("{{url: '{}', timeout_ms: 5000{authorities}}}", checker.url())).await;
    };
    set(Some(checker.authority())).await;
    assert_eq!(answered(&mut agent, &echo(&governed, "a")).await["result"]["content"][0]["text"], "value: a");
    assert_eq!(checker.requests().len(), 1);
    for stranger in [None, Some(other.authority())] {
        set(stranger).await;
        assert_eq!(answered(&mut agent, &echo(&governed, "b")).await["error"]["code"], -31503);
    }
    assert_eq!(checker.requests(), []);

    // What nobody could believe by is refused where it is applied.
    let none = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let document = json!({"kind": "Tenant", "name": "dev", "spec": {"check": {"url": "https://g.example", "authorities": none}}});
    let applied =
        governed.dev().admin_with_input(&["apply", "-f", "-"], document.to_string().as_bytes()).await;
    let applied = applied.expect("an answer");
    assert!(
        !applied.status.success() && applied.stderr.contains("spec.check.authorities"),
        "{}",
        applied.stderr
    );
}
