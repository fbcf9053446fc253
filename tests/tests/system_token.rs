//! Agents by the tokens of a provider that others wrote: what of a token is believed and what is refused, what policies, the
//! record and revocations make of it, and a stock client that is given the URL of an endpoint and nothing else.

use std::time::Duration;

use gantry_tests::agent::{Agent, Answer, Events, LEGACY, Message, Protocol};
use gantry_tests::governed::Governed;
use gantry_tests::peers::{Issuer, Node, or_skip};
use gantry_tests::process::run;
use gantry_tests::refusal::{Refusal, check};
use http::Method;
use serde_json::{Value, json};

/// The time that a stock client has for its walk; it takes 3 s.
const WALK_TIME_MAX: Duration = Duration::from_secs(120);
/// The time in which a stream ends that has some seconds left.
const STREAM_TIME_MAX: Duration = Duration::from_secs(60);
/// Unknown keys that strangers invent at once.
const STORM: usize = 300;

struct Scene {
    governed: Governed,
    issuer: Issuer,
}

impl Scene {
    /// The tenant believes the issuer: `bot` is an agent of its own, all other clients are `desktop`. `None`: there is no
    /// npm here.
    async fn start() -> Option<Scene> {
        let issuer = or_skip(Issuer::start().await)?;
        let scene = Scene { governed: Governed::start().await, issuer };
        let documents = format!(
            "{}\n---\n{}\n---\n{}\n",
            json!({"kind": "Provider", "tenant": "dev", "name": "corp", "spec": {
                "issuer": scene.issuer.url(),
                "claims": {"tags": {"department": "/org/department"}},
            }}),
            json!({"kind": "Agent", "tenant": "dev", "name": "bot", "spec":
                {"identities": [{"provider": "corp", "client": "bot-client"}]}}),
            json!({"kind": "Agent", "tenant": "dev", "name": "desktop", "spec":
                {"identities": [{"provider": "corp"}]}}),
        );
        scene.governed.apply(&documents).await;
        Some(scene)
    }

    fn url(&self) -> &str {
        &self.governed.dev().ready().endpoint
    }

    /// Where strangers learn of tokens.
    fn metadata_url(&self) -> String {
        let (origin, path) = self.url().split_at(self.url().find("/dev/").expect("a path"));
        format!("{origin}/.well-known/oauth-protected-resource{path}")
    }

    fn challenge(&self, error: &str) -> String {
        format!(r#"Bearer realm="gantry", error="{error}", resource_metadata="{}""#, self.metadata_url())
    }

    /// Claims that are believed, but for what is changed; `null` takes one away.
    fn claims(&self, changes: &Value) -> Value {
        let mut claims = json!({
            "aud": self.url(), "sub": "ann", "client_id": "laptop", "scope": "mcp", "exp": 300, "iat": 0,
        });
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        claims
    }

    async fn signed(&self, by: &str, header: Value, claims: Value) -> String {
        let question = format!("signed?by={by}&header={header}&claims={claims}");
        // A plus in a query is a space.
        self.issuer.ask(&question.replace('+', "%2B")).await.expect("a token")
    }

    /// A token as the issuer signs it.
    async fn token(&self, changes: Value) -> String {
        self.signed("own", json!({"alg": "RS256", "kid": "one", "typ": "at+jwt"}), self.claims(&changes))
            .await
    }

    async fn agent(&self) -> Agent {
        self.governed.connect(Protocol::Http1).await
    }

    /// The answer to a call by a token.
    async fn call(&self, token: &str, tool: &str, arguments: Value) -> Answer {
        let call = Message::call(tool, arguments).with_key(token);
        self.agent().await.ask(&call).await.expect("an answer")
    }

    async fn asked(&self) -> usize {
        self.issuer.ask("asked").await.expect("a count").parse().expect("a number")
    }
}

/// The message of an answer, be it a body or the last event of a stream.
fn message(answer: &Answer) -> Value {
    let is_stream = answer.header("content-type").is_some_and(|form| form.starts_with("text/event-stream"));
    if is_stream { answer.messages().pop().unwrap_or_default() } else { answer.json() }
}

fn add() -> (&'static str, Value) {
    ("add", json!({"a": 2, "b": 3}))
}

/// What an attack shows: a token, and by which headers.
async fn attacks(scene: &Scene) -> Vec<Refusal> {
    let (tool, arguments) = add();
    let call = Message::call(tool, arguments);
    let refused = |what, token: &str, message: &str| {
        Refusal::new(what, call.clone().with_key(token), "unauthenticated")
            .without_id()
            .error(401, -31401, message)
            .header("www-authenticate", &scene.challenge("invalid_token"))
    };
    let own = |algorithm: &str| json!({"alg": algorithm, "kid": "one"});
    let good = scene.claims(&json!({}));
    let algorithm = "the token is not signed with an algorithm of the provider (`alg`)";
    let mut refusals = vec![
        refused("alg none", &scene.signed("nobody", own("none"), good.clone()).await, algorithm),
        refused(
            "HS256 by the public key",
            &scene.signed("secret", own("HS256"), good.clone()).await,
            algorithm,
        ),
        refused(
            "somebody else's key",
            &scene.signed("stranger", own("RS256"), good.clone()).await,
            "the signature of the token is not good",
        ),
        refused(
            "an unknown key",
            &scene.signed("stranger", json!({"alg": "RS256", "kid": "two"}), good).await,
            "the provider has no such key as the token names (`kid`)",
        ),
    ];
    for (what, changes, message) in [
        (
            "another's audience",
            json!({"aud": "https://other.example.com"}),
            "the token is for another audience (`aud`)",
        ),
        ("no audience", json!({"aud": null}), "the token is for another audience (`aud`)"),
        ("expired", json!({"exp": -61}), "the token has expired (`exp`)"),
        ("no end", json!({"exp": null}), "the token does not say when it ends (`exp`)"),
        ("not yet valid", json!({"nbf": 120}), "the token does not count yet (`nbf`)"),
        ("issued in the future", json!({"iat": 120}), "the token was issued in the future (`iat`)"),
        (
            "another issuer",
            json!({"iss": "https://id.example.com"}),
            "the token is of no provider whose tokens are taken here (`iss`)",
        ),
        (
            "no client",
            json!({"client_id": null}),
            "the token does not say which client has it, in at most 255 bytes",
        ),
    ] {
        refusals.push(refused(what, &scene.token(changes).await, message));
    }
    let kind = scene.signed(
        "own",
        json!({"alg": "RS256", "kid": "one", "typ": "dpop+jwt"}),
        scene.claims(&json!({})),
    );
    refusals.push(refused("another kind of token", &kind.await, "the token is of another kind (`typ`)"));
    refusals
}

/// What says who calls stands twice, or in two ways.
async fn twice(scene: &Scene) -> Vec<Refusal> {
    let (tool, arguments) = add();
    let (call, key) = (Message::call(tool, arguments), scene.governed.key());
    let good = scene.token(json!({})).await;
    let twice = |what, message: Message| {
        let told = "what says who calls stands twice (Authorization, X-API-Key); it has to stand once";
        Refusal::new(what, message, "unauthenticated")
            .without_id()
            .error(400, -31401, told)
            .header("www-authenticate", &scene.challenge("invalid_request"))
    };
    vec![
        twice("two Authorization headers", call.clone().with_key(&good).with_key(key)),
        twice("two that are the same", call.clone().with_key(&good).with_key(&good)),
        twice("a key and a token", call.clone().with_key(&good).with("x-api-key", key)),
        twice("two keys", call.with_key(key).with("x-api-key", &key.replace('0', "1"))),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_token_that_should_not_count_is_refused_and_told_why() {
    let Some(scene) = Scene::start().await else { return };
    let (tool, arguments) = add();
    let good = scene.token(json!({})).await;
    let answer = scene.call(&good, tool, arguments.clone()).await;
    assert_eq!((answer.status, &message(&answer)["result"]["isError"]), (200, &json!(false)));
    check(&scene.governed, Protocol::Http1, &attacks(&scene).await).await;
    check(&scene.governed, Protocol::Http2, &twice(&scene).await).await;
    for name in ["access_token", "ACCESS_TOKEN", "api_key"] {
        token_in_the_query_is_refused_and_not_written_down(&scene, name, &good).await;
    }
    let same =
        Message::call(tool, arguments).with_key(scene.governed.key()).with("x-api-key", scene.governed.key());
    assert_eq!(
        scene.agent().await.ask(&same).await.expect("an answer").status,
        200,
        "the same twice says one thing"
    );
    what_is_another_tenants_is_nothing_here(&scene, &good).await;
}

async fn token_in_the_query_is_refused_and_not_written_down(scene: &Scene, name: &str, token: &str) {
    let path = format!("/dev/fixture/mcp?{name}={token}");
    let (tool, arguments) = add();
    for message in [Message::call(tool, arguments.clone()), scene.governed.call(tool, arguments)] {
        let answer = scene.agent().await.at(&path).ask(&message).await.expect("an answer");
        let challenge = scene.challenge("invalid_request");
        assert_eq!((answer.status, answer.header("www-authenticate")), (400, Some(challenge.as_str())));
    }
    let records = scene.governed.trail().until("its record", |record| record["status"] == 400).await;
    let signature = token.rsplit('.').next().expect("a signature");
    assert!(!records.iter().any(|record| record.to_string().contains(signature)));
    assert!(!scene.governed.dev().output().contains(signature));
}

async fn what_is_another_tenants_is_nothing_here(scene: &Scene, token: &str) {
    let url = scene.governed.server().url();
    let documents = format!(
        "{}\n---\n{}\n---\n{}\n---\n{}\n",
        json!({"kind": "Tenant", "name": "other"}),
        json!({"kind": "Server", "tenant": "other", "name": "fixture", "spec": {"url": url}}),
        json!({"kind": "Endpoint", "tenant": "other", "name": "fixture", "spec": {"servers": ["fixture"]}}),
        json!({"kind": "Agent", "tenant": "other", "name": "bot"}),
    );
    scene.governed.apply(&documents).await;
    let key = scene.governed.admin(&["key", "create", "--agent", "bot", "--tenant", "other"], "").await;
    let key = key.trim();
    let (tool, arguments) = add();
    let call = Message::call(tool, arguments);
    let ask = async |path: &str, shown: &str| {
        let answer =
            scene.agent().await.at(path).ask(&call.clone().with_key(shown)).await.expect("an answer");
        (answer.status, answer.header("www-authenticate").unwrap_or_default().to_owned())
    };
    let bare = r#"Bearer realm="gantry", error="invalid_token""#.to_owned();
    assert_eq!(
        ask("/other/fixture/mcp", token).await,
        (401, bare.clone()),
        "a token of another tenant's provider"
    );
    assert_eq!(
        ask("/other/fixture/mcp", scene.governed.key()).await,
        (401, bare.clone()),
        "another tenant's key"
    );
    assert_eq!(
        ask("/dev/fixture/mcp", key).await,
        (401, scene.challenge("invalid_token")),
        "the other way round"
    );
    assert_eq!(ask("/dev/nothing/mcp", token).await, (401, bare), "what it would be for is not there");
    // The other tenant believes the same issuer: what is for the one is not for the other.
    let before = scene.asked().await;
    let spec = json!({"issuer": scene.issuer.url()});
    let provider = json!({"kind": "Provider", "tenant": "other", "name": "corp", "spec": spec});
    scene.governed.apply(&provider.to_string()).await;
    let theirs = scene.token(json!({"aud": scene.url().replace("/dev/", "/other/")})).await;
    assert_eq!(ask("/other/fixture/mcp", &theirs).await, (403, String::new()), "no agent is its client");
    let spec = json!({"identities": [{"provider": "corp"}]});
    let bot = json!({"kind": "Agent", "tenant": "other", "name": "bot", "spec": spec});
    scene.governed.apply(&bot.to_string()).await;
    // No policy of that tenant permits anything, which is told to whoever is known.
    assert_eq!(ask("/other/fixture/mcp", &theirs).await, (200, String::new()));
    assert_eq!(ask("/other/fixture/mcp", token).await.0, 401, "a token for another tenant's endpoint");
    assert_eq!(scene.asked().await, before, "keys of one issuer are fetched once for both");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_unknown_keys_is_no_storm_at_the_issuer_and_keeps_nobody_waiting_who_is_known() {
    let Some(scene) = Scene::start().await else { return };
    let good = scene.token(json!({})).await;
    let (tool, arguments) = add();
    assert_eq!(scene.call(&good, tool, arguments.clone()).await.status, 200);
    let (before, began) = (scene.asked().await, std::time::Instant::now());
    let mut strangers = tokio::task::JoinSet::new();
    for number in 0..STORM {
        let header = json!({"alg": "RS256", "kid": format!("invented-{number}")});
        let token = scene.signed("stranger", header, scene.claims(&json!({}))).await;
        let mut agent = scene.agent().await;
        let call = Message::call(tool, arguments.clone()).with_key(&token);
        strangers.spawn(async move { agent.ask(&call).await.expect("an answer").status });
    }
    let known = scene.token(json!({"sub": "bob"})).await;
    assert_eq!(scene.call(&known, tool, arguments).await.status, 200);
    let statuses = strangers.join_all().await;
    assert!(statuses.iter().all(|status| [401, 503].contains(status)), "{statuses:?}");
    // One in 30 s, whoever asks.
    let allowed = 1 + usize::try_from(began.elapsed().as_secs() / 30).expect("a small number");
    let fetched = scene.asked().await - before;
    assert!(fetched <= allowed, "{STORM} unknown keys made {fetched} fetches, and {allowed} are allowed");
}

/// Lets agents call for users of a group, and one user nothing.
const POLICY: &str = r#"kind: Policy
tenant: dev
name: use-fixture
spec:
  cedar: |
    @id("keys")
    permit(principal == Agent::"demo-agent", action, resource);
    @id("staff")
    permit(principal == Agent::"desktop", action, resource)
    when { principal has user && principal.user in Group::"staff" };
    @id("department")
    permit(principal, action == Action::"tools/call", resource == Tool::"fixture/add")
    when { principal.hasTag("department") && principal.getTag("department").contains("it") };
    @id("not-mallory")
    forbid(principal, action, resource)
    when { principal has user && principal.user == User::"corp/mallory" };
"#;

#[tokio::test(flavor = "multi_thread")]
async fn policies_lists_and_records_know_the_agent_and_for_whom_it_acts() {
    let Some(scene) = Scene::start().await else { return };
    scene.governed.apply(POLICY).await;
    let (tool, arguments) = add();
    let listed = async |token: &str| {
        let list = Message::modern("tools/list", json!({})).with_key(token);
        let list = scene.agent().await.ask(&list).await.expect("an answer").json();
        list["result"]["tools"].as_array().expect("a list").len()
    };
    let staff = scene.token(json!({"groups": ["staff", "others"]})).await;
    let other = scene.token(json!({"groups": ["others"], "sub": "bob"})).await;
    let it = scene.token(json!({"sub": "eve", "org": {"department": "it"}})).await;
    let mallory = scene.token(json!({"sub": "mallory", "groups": ["staff"]})).await;
    // By itself: the client is whom the token is about.
    let bot = scene.token(json!({"sub": "bot-client", "client_id": "bot-client", "groups": ["staff"]})).await;
    for (token, tools, code) in [
        (&staff, listed(scene.governed.key()).await, Value::Null),
        (&other, 0, json!(-31403)),
        (&it, 1, Value::Null),
        (&mallory, 0, json!(-31403)),
        (&bot, 0, json!(-31403)),
    ] {
        let answer = message(&scene.call(token, tool, arguments.clone()).await);
        assert_eq!((listed(token).await, &answer["error"]["code"]), (tools, &code), "{answer}");
    }
    let exchanged = scene.token(json!({
        "groups": ["staff"], "act": {"sub": "assistant", "act": {"sub": "portal"}},
    }));
    scene.call(&exchanged.await, tool, arguments).await;
    let records = scene.governed.trail().until("the last record", |record| record["actors"].is_array()).await;
    let who =
        |record: &Value| ["agent", "provider", "client", "user", "actors"].map(|name| record[name].clone());
    let last = records.iter().rev().find(|record| record["actors"].is_array()).expect("a record");
    let expected =
        [json!("desktop"), json!("corp"), json!("laptop"), json!("corp/ann"), json!(["assistant", "portal"])];
    assert_eq!(who(last), expected);
    let by_itself = records.iter().find(|record| record["client"] == "bot-client").expect("a record");
    assert_eq!(who(by_itself)[..4], [json!("bot"), json!("corp"), json!("bot-client"), Value::Null]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_user_began_is_not_anothers_and_a_revoked_user_is_out_with_every_agent() {
    let Some(scene) = Scene::start().await else { return };
    let (ann, bob) = (scene.token(json!({})).await, scene.token(json!({"sub": "bob"})).await);
    let client =
        json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client});
    let begun =
        scene.agent().await.ask(&Message::legacy(&initialize).with_key(&ann)).await.expect("an answer");
    let session = begun.header("mcp-session-id").expect("a session").to_owned();
    let ping = Message::legacy(&json!({"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {}}));
    let by = async |token: &str| {
        let ping = ping.clone().with("mcp-session-id", &session).with_key(token);
        scene.agent().await.ask(&ping).await.expect("an answer").status
    };
    assert_eq!((by(&ann).await, by(&bob).await, by(scene.governed.key()).await), (200, 404, 404));
    // A newer token of the same user goes on.
    assert_eq!(by(&scene.token(json!({"exp": 200})).await).await, 200);
    let end = ping.clone().by(Method::DELETE).with_body("").with("mcp-session-id", &session).with_key(&bob);
    assert_eq!(scene.agent().await.ask(&end).await.expect("an answer").status, 404, "nor can he end it");
    assert_eq!(by(&ann).await, 200);

    scene.governed.admin(&["revoke", "user", "corp/bob", "--tenant", "dev", "--wait"], "").await;
    let (tool, arguments) = add();
    let as_bot = scene.token(json!({"sub": "bob", "client_id": "bot-client"})).await;
    for token in [&bob, &as_bot] {
        let answer = scene.call(token, tool, arguments.clone()).await;
        assert_eq!((answer.status, &answer.json()["error"]["message"]), (403, &json!("the user is revoked")));
    }
    assert_eq!(scene.call(&ann, tool, arguments.clone()).await.status, 200);
    scene.governed.admin(&["revoke", "lift", "user", "corp/bob", "--tenant", "dev", "--wait"], "").await;
    assert_eq!(scene.call(&bob, tool, arguments).await.status, 200);
}

/// What a stock client of the TypeScript SDK did with the URL of an endpoint.
async fn walked(scene: &Scene, login: &str, calls: &[Value]) -> Value {
    let node = Node::install().await.expect("the peers are installed");
    let mut command = node.command("typescript-oauth.mjs");
    command.env("MCP_URL", scene.url());
    command.env("MCP_PERSON", format!("{}/test/authorize?login={login}&url=", scene.issuer.url()));
    command.args(calls.iter().map(Value::to_string));
    let finished = run(command, WALK_TIME_MAX).await.expect("it ends");
    assert!(finished.status.success(), "{}{}", finished.stdout, finished.stderr);
    serde_json::from_str(&finished.stdout).expect("one object")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stock_client_that_is_given_the_url_alone_gets_a_token_and_steps_up_where_a_tool_demands_it() {
    let Some(scene) = Scene::start().await else { return };
    let endpoint = json!({"kind": "Endpoint", "tenant": "dev", "name": "fixture", "spec": {
        "servers": ["fixture"],
        "authentication": {"required_scopes": ["mcp"], "tool_scopes": {"show_request_headers": ["admin"]}},
    }});
    scene.governed.apply(&endpoint.to_string()).await;

    let mut stranger = scene.agent().await;
    let asked = stranger.ask(&Message::modern("tools/list", json!({}))).await.expect("an answer");
    let challenge =
        format!(r#"Bearer realm="gantry", resource_metadata="{}", scope="mcp""#, scene.metadata_url());
    assert_eq!((asked.status, asked.header("www-authenticate")), (401, Some(challenge.as_str())));
    let metadata = Message::new("").by(Method::GET);
    let metadata = stranger.at("/.well-known/oauth-protected-resource/dev/fixture/mcp").ask(&metadata).await;
    let expected = json!({
        "resource": scene.url(),
        "authorization_servers": [scene.issuer.url()],
        "bearer_methods_supported": ["header"],
        "scopes_supported": ["admin", "mcp"],
    });
    assert_eq!(metadata.expect("an answer").json(), expected);

    let calls = [
        json!({"name": "add", "arguments": {"a": 2, "b": 3}}),
        json!({"name": "show_request_headers", "arguments": {}}),
    ];
    let seen = walked(&scene, "alice", &calls).await;
    assert_eq!(seen["resource"], scene.url());
    assert_eq!(seen["calls"][0]["structuredContent"], json!({"sum": 5}), "{seen}");
    assert_eq!(seen["calls"][1]["isError"], json!(false), "{seen}");
    let consents: Vec<Vec<&str>> = seen["consents"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|scopes| scopes.as_str().expect("scopes").split(' ').collect())
        .collect();
    assert_eq!(consents.len(), 2, "one to come in and one to step up: {seen}");
    assert!(!consents[0].contains(&"admin") && consents[1].contains(&"admin"), "{seen}");
    let is_last = |record: &Value| record["tool"] == "show_request_headers" && record["outcome"] == "ok";
    let records = scene.governed.trail().until("the call", is_last).await;
    let of_alice =
        records.iter().filter(|record| record["user"] == "corp/alice" && record["outcome"] == "ok");
    assert!(of_alice.count() >= 3, "the list and both calls");
    let stepped = records.iter().find(|record| record["status"] == 403).expect("the call before the step");
    assert_eq!((&stepped["outcome"], &stepped["agent"]), (&json!("denied"), &json!("desktop")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_with_the_token_by_which_it_was_opened() {
    let Some(scene) = Scene::start().await else { return };
    // A minute is allowed for clocks, of which some seconds are left.
    let token = scene.token(json!({"exp": -55})).await;
    let listen =
        Message::modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let mut agent = scene.agent().await;
    let opened = agent.send(&listen.with_key(&token)).await.expect("the head of a stream");
    assert_eq!(opened.status(), 200);
    let mut events = Events::of(opened);
    let ended = async { while let Ok(Some(_)) = events.next().await {} };
    tokio::time::timeout(STREAM_TIME_MAX, ended).await.expect("it ends");
    let is_listen = |record: &Value| record["method"] == "subscriptions/listen";
    let records = scene.governed.trail().until("its record", is_listen).await;
    let record = records.iter().find(|record| is_listen(record)).expect("a record");
    assert_eq!(record["reason"], "what the caller showed has expired");
    let (tool, arguments) = add();
    assert_eq!(scene.call(&token, tool, arguments).await.status, 401);
}
