//! Endpoints of several servers: every name and URI is the endpoint's own, wherever it stands, and one server's
//! failure is its own.

use std::time::Duration;

use gantry_tests::agent::{Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture::{Era, Server};
use gantry_tests::governed::Governed;
use serde_json::{Value, json};

/// How long it may take until a server is known.
const DISCOVERY_TIME_MAX: Duration = Duration::from_secs(20);

/// The fixture behind `one`, a legacy-only one behind `two`, nobody behind `gone`, and three endpoints of them.
struct Several {
    governed: Governed,
    _legacy: Server,
}

impl Several {
    async fn start() -> Self {
        let governed = Governed::start().await;
        let legacy = Server::start_as(Era::Legacy, 0).await.expect("a fixture server");
        let documents = format!(
            "
kind: Server
tenant: dev
name: one
spec: {{url: '{one}'}}
---
kind: Server
tenant: dev
name: two
spec: {{url: '{two}'}}
---
kind: Server
tenant: dev
name: gone
spec: {{url: 'http://127.0.0.1:9/mcp', timeout_ms: 2000}}
---
kind: Endpoint
tenant: dev
name: both
spec: {{servers: [one, two, gone], naming: prefixed}}
---
kind: Endpoint
tenant: dev
name: chosen
spec:
  servers: [one, two]
  naming: aliased
  aliases:
    hello: {{server: two, tool: test_simple_text}}
    ask: {{server: one, prompt: test_simple_prompt}}
---
kind: Policy
tenant: dev
name: use-both
spec:
  cedar: 'permit(principal, action, resource) when {{ resource in Server::\"one\" || resource in Server::\"two\" }};'
",
            one = governed.server().url(),
            two = legacy.url(),
        );
        governed.apply(&documents).await;
        let several = Self { governed, _legacy: legacy };
        for endpoint in ["both", "chosen"] {
            several.until_offered(endpoint).await;
        }
        several
    }

    /// Waits until both servers were discovered.
    async fn until_offered(&self, endpoint: &str) {
        let expected = if endpoint == "both" { 2 } else { 1 };
        eventually("both servers to be discovered", DISCOVERY_TIME_MAX, async || {
            let listed = self.ask(endpoint, "tools/list", json!({})).await;
            let names = names(&listed["result"]["tools"], "name");
            let offered = names.iter().filter(|name| name.ends_with("test_simple_text") || *name == "hello");
            (offered.count() == expected).then_some(())
        })
        .await;
    }

    async fn ask(&self, endpoint: &str, method: &str, params: Value) -> Value {
        let message = Message::modern(method, params).with_key(self.governed.key());
        let mut agent = self.governed.connect(Protocol::Http1).await.at(&format!("/dev/{endpoint}/mcp"));
        let answer = agent.ask(&message).await.expect("an answer");
        answer.messages().pop().expect("a response")
    }
}

fn names(list: &Value, member: &str) -> Vec<String> {
    let elements = list.as_array().map(Vec::as_slice).unwrap_or_default();
    elements.iter().filter_map(|element| Some(element[member].as_str()?.to_owned())).collect()
}

#[tokio::test]
async fn every_name_of_a_prefixed_endpoint_says_whose_it_is_and_works() {
    let several = Several::start().await;
    let tools = several.ask("both", "tools/list", json!({})).await;
    assert_eq!(tools["result"]["_meta"], json!({"dev.gantry/unavailable": ["gone"]}));
    let tools = names(&tools["result"]["tools"], "name");
    assert!(tools.iter().all(|name| name.starts_with("one__") || name.starts_with("two__")), "{tools:?}");
    for tool in ["one__test_simple_text", "two__test_simple_text"] {
        let called = several.ask("both", "tools/call", json!({"name": tool, "arguments": {}})).await;
        let text = json!([{"type": "text", "text": "This is a simple text response for testing."}]);
        assert_eq!(called["result"]["content"], text, "{called}");
    }
    let refused =
        several.ask("both", "tools/call", json!({"name": "test_simple_text", "arguments": {}})).await;
    assert_eq!(refused["error"]["code"], -32602);
}

#[tokio::test]
async fn uris_are_the_endpoint_s_own_wherever_they_stand() {
    let several = Several::start().await;
    let resources = several.ask("both", "resources/list", json!({})).await;
    let uris = names(&resources["result"]["resources"], "uri");
    assert!(
        uris.iter().all(|uri| uri.starts_with("one+test://") || uri.starts_with("two+test://")),
        "{uris:?}"
    );
    for uri in ["one+test://static-text", "two+test://static-text"] {
        let read = several.ask("both", "resources/read", json!({"uri": uri})).await;
        assert_eq!(names(&read["result"]["contents"], "uri"), [uri], "{read}");
        let legacy_shape = &read["result"];
        assert_eq!(legacy_shape["resultType"], "complete", "{read}");
    }
    let params = json!({"name": "two__test_embedded_resource", "arguments": {}});
    let called = several.ask("both", "tools/call", params).await;
    let embedded = &called["result"]["content"][0]["resource"]["uri"];
    assert_eq!(embedded, "two+test://embedded-resource", "{called}");
    let templates = several.ask("both", "resources/templates/list", json!({})).await;
    let templates = names(&templates["result"]["resourceTemplates"], "uriTemplate");
    assert!(templates.iter().all(|uri| uri.contains("+test://")), "{templates:?}");
    let missing = several.ask("both", "resources/read", json!({"uri": "three+test://static-text"})).await;
    assert_eq!(missing["error"]["code"], -32602);
    let reference = json!({"type": "ref/prompt", "name": "two__test_prompt_with_arguments"});
    let params = json!({"ref": reference, "argument": {"name": "arg1", "value": "par"}});
    let completed = several.ask("both", "completion/complete", params).await;
    assert!(completed["result"]["completion"]["values"].is_array(), "{completed}");
}

#[tokio::test]
async fn an_aliased_endpoint_offers_what_it_names_and_nothing_else() {
    let several = Several::start().await;
    let tools = several.ask("chosen", "tools/list", json!({})).await;
    assert_eq!(names(&tools["result"]["tools"], "name"), ["hello"]);
    let prompts = several.ask("chosen", "prompts/list", json!({})).await;
    assert_eq!(names(&prompts["result"]["prompts"], "name"), ["ask"]);
    let called = several.ask("chosen", "tools/call", json!({"name": "hello", "arguments": {}})).await;
    assert_eq!(called["result"]["content"][0]["type"], "text", "{called}");
    let asked = several.ask("chosen", "prompts/get", json!({"name": "ask"})).await;
    assert!(asked["result"]["messages"].is_array(), "{asked}");
}
