//! Agents by the certificates of their connections: clients that others wrote, what is refused and told why, what counts beside
//! a certificate, and that authorities change under connections that live.

use std::time::{Duration, SystemTime};

use gantry_tests::agent::{Events, LEGACY, Message, Protocol};
use gantry_tests::certified::{
    Certified as Scene, Client, REPORTER, add, agent, authority, client, provider, sum, told,
};
use gantry_tests::peers::{Issuer, or_skip};
use gantry_tests::process::run;
use gantry_token::Thumbprint;
use http::{Method, Response};
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use serde_json::{Value, json};
use tokio::process::Command;

/// The time that another's client has for one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
/// The time in which a stream ends whose caller counts no more.
const STREAM_TIME_MAX: Duration = Duration::from_secs(20);
const MISSING: &str = "an agent key is required: Authorization: Bearer KEY";
const UNKNOWN: &str = "the client's certificate is of no authority that is believed here";

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_others_wrote_call_by_their_certificates_alone() {
    let scene = Scene::start().await;
    scene.believe().await;
    let good = client(&scene.ours, REPORTER, |_| ());
    let (pem, key) = (scene.write("client.pem", &good.pem), scene.write("client.key", &good.key));
    let server = scene.files.path().join("server.pem");
    let initialize = json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}}});
    let mut clients: Vec<(&str, Command)> = Vec::new();
    for version in ["--http1.1", "--http2"] {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", version, "--data", &initialize.to_string(), "--cert"])
            .arg(&pem);
        curl.arg("--key").arg(&key).arg("--cacert").arg(&server);
        curl.args(["--header", "content-type: application/json"]);
        curl.args(["--header", "accept: application/json, text/event-stream", scene.url()]);
        clients.push(("curl", curl));
    }
    let python = "import ssl,sys,urllib.request as r\n\
        u,ca,c,k,b=sys.argv[1:]\n\
        s=ssl.create_default_context(cafile=ca); s.load_cert_chain(c,k)\n\
        h={'content-type':'application/json','accept':'application/json, text/event-stream'}\n\
        print(r.urlopen(r.Request(u,b.encode(),h),context=s).read().decode())";
    let node = "const [u,ca,c,k,b]=process.argv.slice(1),fs=require('fs');\
        const h={'content-type':'application/json',accept:'application/json, text/event-stream'};\
        require('https').request(u,{method:'POST',headers:h,ca:fs.readFileSync(ca),cert:fs.readFileSync(c),\
        key:fs.readFileSync(k)},r=>r.pipe(process.stdout)).end(b);";
    for (program, flag, script) in [("python3", "-c", python), ("node", "-e", node)] {
        let mut command = Command::new(program);
        command
            .args([flag, script, scene.url()])
            .arg(&server)
            .arg(&pem)
            .arg(&key)
            .arg(initialize.to_string());
        clients.push((program, command));
    }
    let count = clients.len();
    for (program, command) in clients {
        let finished = run(command, CALL_TIME_MAX).await.expect("it runs");
        assert!(
            finished.stdout.contains("\"serverInfo\""),
            "{program}: {}{}",
            finished.stdout,
            finished.stderr
        );
    }
    // And a call, which needs to be allowed, in the era that has no session.
    assert_eq!(told(&scene.ask(Some(&good), &add()).await), sum());
    let records = scene.governed.trail().at_least(count + 1).await;
    for record in &records {
        let seen =
            json!([record["agent"], record["provider"], record["client"], record["user"], record["key_id"]]);
        assert_eq!(seen, json!(["reporter", "mesh", REPORTER, null, null]), "{record}");
    }
}

/// What is shown, and why it does not count.
fn refused(scene: &Scene) -> Vec<(&'static str, Client, u16, &'static str)> {
    let ours = |change: fn(&mut CertificateParams)| client(&scene.ours, REPORTER, change);
    let hours = |hours: u64| Duration::from_secs(3_600 * hours);
    let mut early = client(&scene.ours, REPORTER, |params| {
        params.not_before = (SystemTime::now() + hours(1)).into();
    });
    early.chain.truncate(1);
    let own = authority("its own");
    vec![
        ("another CA of the same name", client(&scene.theirs, REPORTER, |_| ()), 401, UNKNOWN),
        (
            "another CA of the same name, and expired",
            client(&scene.theirs, REPORTER, |params| {
                params.not_after = (SystemTime::now() - hours(1)).into();
            }),
            401,
            UNKNOWN,
        ),
        (
            "a CA that it made and shows",
            {
                let mut shown = client(&own, REPORTER, |_| ());
                shown.chain.push(own.der().clone());
                shown
            },
            401,
            UNKNOWN,
        ),
        (
            "expired",
            client(&scene.ours, REPORTER, |params| {
                params.not_after = (SystemTime::now() - hours(1)).into();
            }),
            401,
            "the client's certificate has expired",
        ),
        ("not yet valid", early, 401, "the client's certificate does not count yet"),
        (
            "for servers only",
            ours(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            401,
            "the client's certificate is not for clients (`clientAuth` is not among its extended key usages)",
        ),
        (
            "another trust domain",
            client(&scene.ours, "spiffe://other.example/agents/reporter", |_| ()),
            401,
            "the client's certificate is not of the trust domain that counts here",
        ),
        (
            "two SPIFFE ids",
            ours(|params| {
                let other = "spiffe://acme.example/agents/other".try_into().expect("a URI");
                params.subject_alt_names.push(SanType::URI(other));
            }),
            401,
            "the client's certificate has not just one name of the kind that counts here (`client_name`), in at \
             most 255 bytes",
        ),
        (
            "no agent's",
            client(&scene.ours, "spiffe://acme.example/agents/nobody", |_| ()),
            403,
            "no agent is the client that the certificate names; an admin names it in an agent's `identities`",
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_should_not_count_is_refused_also_beside_a_good_key() {
    let scene = Scene::start().await;
    scene.believe().await;
    let key = scene.governed.key();
    let nowhere = scene.connect(None, Protocol::Http2).await.0.at("/dev/nothing/mcp").ask(&add()).await;
    let nowhere = told(&nowhere.expect("an answer"));
    assert_eq!(nowhere, (401, MISSING.to_owned()));
    println!("{:<40} | {:<6} | answer", "certificate", "status");
    for (what, client, status, message) in refused(&scene) {
        let answer = scene.ask(Some(&client), &add()).await;
        // Whoever made it himself is told what he is told where there is nothing.
        let bare = if message == UNKNOWN { nowhere.clone() } else { (status, message.to_owned()) };
        assert_eq!(told(&answer), bare, "{what}");
        let challenge = (status == 401).then_some(r#"Bearer realm="gantry""#);
        assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
        // Another key would be of no use.
        let beside = scene.ask(Some(&client), &add().with_key(key)).await;
        assert_eq!(told(&beside), (403, message.to_owned()), "{what}");
        assert_eq!(beside.header("www-authenticate"), None, "{what}");
        println!("{what:<40} | {status:<6} | {message}");
    }
    let is_strange = |record: &Value| record["reason"] == UNKNOWN;
    scene.governed.trail().until("why, for admins", is_strange).await;
    // A header says nothing, whoever wrote it.
    let xfcc = format!("Hash=00;URI={REPORTER};Subject=\"CN=reporter\"");
    let smuggled = add().with("x-forwarded-client-cert", &xfcc).with("x-ssl-client-verify", "SUCCESS");
    assert_eq!(told(&scene.ask(None, &smuggled).await), (401, MISSING.to_owned()));
    assert_eq!(scene.ask(None, &add().with_key(key)).await.status, 200, "a key alone is as good as ever");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_shown_beside_a_certificate_has_to_be_the_same_agents() {
    let scene = Scene::start().await;
    scene.believe().await;
    let good = client(&scene.ours, REPORTER, |_| ());
    let disagree = "the certificate of the connection is another agent's than what the request shows; one of them has to go";
    let beside = add().with_key(scene.governed.key());
    assert_eq!(told(&scene.ask(Some(&good), &beside).await), (400, disagree.to_owned()));
    let own = scene.governed.admin(&["key", "create", "--agent", "reporter", "--tenant", "dev"], "").await;
    // The policy asks for the certificate's provider, which a key does not say.
    let policy = json!({"kind": "Policy", "tenant": "dev", "name": "reporter", "spec": {"cedar":
        "permit(principal == Agent::\"reporter\", action, resource);"}});
    scene.apply(&[policy]).await;
    assert_eq!(told(&scene.ask(Some(&good), &add().with_key(own.trim())).await), sum());
    let bad = scene.ask(Some(&good), &add().with_key("gk_nobody")).await;
    assert_eq!(
        told(&bad),
        (401, "the agent key is not valid here".to_owned()),
        "a good certificate mends no key"
    );
    scene
        .governed
        .admin(&["revoke", "agent", "reporter", "--tenant", "dev", "--reason", "x", "--wait"], "")
        .await;
    let revoked = scene.ask(Some(&good), &add()).await;
    assert_eq!(
        (revoked.status, revoked.json()["error"]["data"]["rejection"].clone()),
        (403, json!("revoked"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_are_asked_for_where_somebody_looks_and_count_in_their_own_tenant() {
    let scene = Scene::start().await;
    let good = client(&scene.ours, REPORTER, |_| ());
    let (mut before, asked) = scene.connect(Some(&good), Protocol::Http2).await;
    assert!(!asked, "no tenant takes certificates");
    let by_key = add().with_key(scene.governed.key());
    assert_eq!(told(&before.ask(&by_key).await.expect("an answer")), sum());
    scene.believe().await;
    assert_eq!(told(&before.ask(&by_key).await.expect("the connection lives")), sum());
    let (mut live, asked) = scene.connect(Some(&good), Protocol::Http2).await;
    assert!(asked);
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), sum());
    // The same names, and another authority: what is ours is nothing there, and the other way round.
    let url = scene.governed.server().url();
    let permit = json!({"cedar": "permit(principal, action, resource);"});
    scene.apply(&[
        json!({"kind": "Tenant", "name": "other"}),
        json!({"kind": "Server", "tenant": "other", "name": "fixture", "spec": {"url": url}}),
        json!({"kind": "Endpoint", "tenant": "other", "name": "fixture", "spec": {"servers": ["fixture"]}}),
        provider("other", &scene.theirs.pem(), json!({})),
        agent("other", "reporter", REPORTER),
        json!({"kind": "Policy", "tenant": "other", "name": "all", "spec": permit}),
    ]).await;
    let theirs = client(&scene.theirs, REPORTER, |_| ());
    let at = async |client: &Client, path: &str| {
        let (agent, _) = scene.connect(Some(client), Protocol::Http1).await;
        told(&agent.at(path).ask(&add()).await.expect("an answer"))
    };
    assert_eq!(at(&good, "/other/fixture/mcp").await, (401, MISSING.to_owned()));
    assert_eq!(at(&theirs, "/dev/fixture/mcp").await, (401, MISSING.to_owned()));
    assert_eq!(at(&good, "/dev/nothing/mcp").await.0, 401, "nothing is told of what is there");
    // Another authority is believed instead, and then both, on a connection that lives.
    let dev = |bundle: &str| provider("dev", bundle, json!({"trust_domain": "acme.example"}));
    scene.apply(&[dev(&scene.theirs.pem())]).await;
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), (401, MISSING.to_owned()));
    scene.apply(&[dev(&format!("{}{}", scene.theirs.pem(), scene.ours.pem()))]).await;
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), sum());
    assert_eq!(at(&theirs, "/dev/fixture/mcp").await, sum());
    // An endpoint that takes none does not look at it.
    scene
        .apply(&[json!({"kind": "Endpoint", "tenant": "dev", "name": "fixture", "spec":
        {"servers": ["fixture"], "authentication": {"providers": []}}})])
        .await;
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), (401, MISSING.to_owned()));
    assert_eq!(told(&live.ask(&by_key).await.expect("an answer")), sum());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bundle_that_nobody_can_be_believed_by_is_refused_with_its_place() {
    let scene = Scene::start().await;
    let leaf = client(&scene.ours, REPORTER, |_| ());
    for (bundle, path, message) in [
        (
            leaf.pem.as_str(),
            "spec.client_authorities",
            "certificate 1 of the bundle is not that of an authority",
        ),
        (leaf.key.as_str(), "spec.client_authorities", "holds a private key"),
        (
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "spec.client_authorities",
            "cannot be read",
        ),
    ] {
        let document = provider("dev", bundle, json!({})).to_string();
        let finished =
            scene.governed.dev().admin_with_input(&["apply", "-f", "-"], document.as_bytes()).await;
        let finished = finished.expect("it runs");
        let said = format!("{}{}", finished.stdout, finished.stderr);
        assert!(!finished.status.success() && said.contains(path) && said.contains(message), "{said}");
    }
}

fn initialize(version: &str) -> Message {
    let client =
        json!({"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "x", "version": "1"}});
    Message::new(json!({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": client}).to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn every_message_of_a_batch_and_of_a_stream_is_the_certificates() {
    let scene = Scene::start().await;
    scene.believe().await;
    let good = client(&scene.ours, REPORTER, |_| ());
    let (mut agent, _) = scene.connect(Some(&good), Protocol::Http1).await;
    let begun = agent.ask(&initialize("2025-03-26")).await.expect("an answer");
    let session = begun.header("mcp-session-id").expect("a session").to_owned();
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params":
        {"name": "add", "arguments": {"a": 2, "b": 3}}});
    let ping = json!({"jsonrpc": "2.0", "id": 2, "method": "ping", "params": {}});
    let batch = Message::new(json!([call, ping]).to_string());
    let batch = batch.with("mcp-session-id", &session).with("mcp-protocol-version", "2025-03-26");
    let answers = agent.ask(&batch).await.expect("an answer").messages();
    let answers = json!(answers).to_string();
    assert!(answers.contains("\"sum\":5") && !answers.contains("\"error\""), "{answers}");

    let (opener, _) = scene.connect(Some(&good), Protocol::Http1).await;
    let mut opener = opener.at("/dev/fixture/sse");
    let mut stream = opener.send(&Message::new("").by(Method::GET)).await.expect("the head of a stream");
    assert_eq!(stream.status(), 200);
    let first = stream.body_mut().frame().await.expect("a frame").expect("the connection holds");
    let first = String::from_utf8(first.into_data().expect("data").to_vec()).expect("text");
    let address = first.strip_prefix("event: endpoint\ndata: ").expect("an address").trim_end();
    let post = async |client: Option<&Client>| {
        let (agent, _) = scene.connect(client, Protocol::Http1).await;
        agent.at(address).ask(&initialize("2024-11-05")).await.expect("an answer").status
    };
    let theirs = client(&scene.theirs, REPORTER, |_| ());
    assert_eq!((post(None).await, post(Some(&theirs)).await, post(Some(&good)).await), (401, 401, 202));
    let answer = Events::of(stream).next().await.expect("the connection holds").expect("an event");
    assert_eq!(answer["result"]["protocolVersion"], "2024-11-05", "{answer}");
}

/// Ends when the stream does.
async fn ended(mut stream: Response<Incoming>) {
    let last = async { while let Some(Ok(_)) = stream.body_mut().frame().await {} };
    tokio::time::timeout(STREAM_TIME_MAX, last).await.expect("the stream ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_end_when_what_opened_them_would_not_open_them_any_more() {
    let scene = Scene::start().await;
    scene.believe().await;
    let all = json!({"cedar": "permit(principal == Agent::\"reporter\", action, resource);"});
    scene.apply(&[json!({"kind": "Policy", "tenant": "dev", "name": "reporter", "spec": all})]).await;
    let key = scene.governed.admin(&["key", "create", "--agent", "reporter", "--tenant", "dev"], "").await;
    let good = client(&scene.ours, REPORTER, |_| ());
    let listen =
        || Message::modern("subscriptions/listen", json!({"notifications": {"toolsListChanged": true}}));
    let open = async |client: Option<&Client>, path: &str, message: Message| {
        let mut agent = scene.connect(client, Protocol::Http1).await.0.at(path);
        let opened = agent.send(&message).await.expect("the head of a stream");
        assert_eq!(opened.status(), 200, "{path}");
        // The connection lives as long as its client does.
        (agent, opened)
    };
    let by_key = listen().with_key(key.trim());
    let stays = open(None, "/dev/fixture/mcp", by_key.clone()).await;
    let cut = [
        open(Some(&good), "/dev/fixture/mcp", listen()).await,
        open(Some(&good), "/dev/fixture/sse", Message::new("").by(Method::GET)).await,
        // A good key does not keep it: the certificate beside it has to count as well.
        open(Some(&good), "/dev/fixture/mcp", by_key).await,
    ];
    // What does not concern it ends nothing.
    scene.apply(&[json!({"kind": "Agent", "tenant": "dev", "name": "somebody"})]).await;
    scene.apply(&[provider("dev", &scene.theirs.pem(), json!({"trust_domain": "acme.example"}))]).await;
    for (agent, stream) in cut {
        ended(stream).await;
        drop(agent);
    }
    let withdrawn = "what the caller showed lets nobody in any more";
    scene.governed.trail().until("their records", |record| record["reason"] == withdrawn).await;
    // The one without a certificate goes on; then its endpoint takes no keys.
    let (agent, stream) = stays;
    assert!(!stream.body().is_end_stream(), "it goes on");
    let spec = json!({"servers": ["fixture"], "authentication": {"keys": false}});
    scene.apply(&[json!({"kind": "Endpoint", "tenant": "dev", "name": "fixture", "spec": spec})]).await;
    ended(stream).await;
    drop(agent);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_authorities_the_one_that_knows_the_agent_by_name_counts() {
    let scene = Scene::start().await;
    scene.believe().await;
    let named = |name: &str, mut document: Value| {
        document["name"] = json!(name);
        document
    };
    let others = json!({"kind": "Agent", "tenant": "dev", "name": "anybody", "spec":
        {"identities": [{"provider": "a-first"}]}});
    // The same authority again, by a name that comes before the other's, for whoever is nobody else.
    scene.apply(&[named("a-first", provider("dev", &scene.ours.pem(), json!({}))), others]).await;
    let good = client(&scene.ours, REPORTER, |_| ());
    assert_eq!(told(&scene.ask(Some(&good), &add()).await), sum());
    let another = json!({"kind": "Agent", "tenant": "dev", "name": "anybody", "spec":
        {"identities": [{"provider": "a-first", "client": REPORTER}]}});
    scene.apply(&[another]).await;
    let several = "the client's certificate is that of several agents by what several authorities say; an admin leaves it to one";
    let answer = scene.ask(Some(&good), &add()).await;
    assert_eq!(told(&answer), (403, several.to_owned()));
    assert_eq!(answer.header("www-authenticate"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_a_tenant_without_authorities_are_not_asked_at_its_own_host() {
    let scene = Scene::start().await;
    scene.believe().await;
    let tenant = |name: &str, host: &str| json!({"kind": "Tenant", "name": name, "spec": {"public_url": format!("https://{host}")}});
    let good = client(&scene.ours, REPORTER, |_| ());
    let asked = async |host: &str| scene.connect_to(host, Some(&good), Protocol::Http2).await.1;
    scene.apply(&[tenant("other", "other.example")]).await;
    let seen = [asked("127.0.0.1").await, asked("mine.example").await, asked("other.example").await];
    assert_eq!(seen, [true, true, false], "a tenant with authorities names no host");
    scene.apply(&[tenant("dev", "mine.example")]).await;
    let seen = [asked("127.0.0.1").await, asked("mine.example").await, asked("other.example").await];
    assert_eq!(seen, [true, true, false]);
    assert!(!asked("third.example").await, "it names another");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_bound_to_a_certificate_is_nothing_to_whoever_has_the_token_alone() {
    let Some(issuer) = or_skip(Issuer::start().await) else { return };
    let scene = Scene::start().await;
    scene.believe().await;
    scene
        .apply(&[
            json!({"kind": "Provider", "tenant": "dev", "name": "corp", "spec": {"issuer": issuer.url()}}),
            json!({"kind": "Agent", "tenant": "dev", "name": "reporter", "spec": {"identities":
            [{"provider": "mesh", "client": REPORTER}, {"provider": "corp", "client": "laptop"}]}}),
            json!({"kind": "Policy", "tenant": "dev", "name": "reporter", "spec": {"cedar":
            "permit(principal == Agent::\"reporter\", action, resource);"}}),
        ])
        .await;
    let (good, renewed) = (client(&scene.ours, REPORTER, |_| ()), client(&scene.ours, REPORTER, |_| ()));
    let thumbprint = Thumbprint::of(&good.chain[0]).to_string();
    let signed = async |confirmation: Option<Value>| {
        let mut claims =
            json!({"aud": scene.url(), "sub": "ann", "client_id": "laptop", "exp": 300, "iat": 0});
        if let Some(confirmation) = confirmation {
            claims["cnf"] = confirmation;
        }
        let header = json!({"alg": "RS256", "kid": "one"});
        // A number sign would end the question.
        let claims = claims.to_string().replace('#', "%23");
        issuer.ask(&format!("signed?by=own&header={header}&claims={claims}")).await.expect("a token")
    };
    let bound = signed(Some(json!({"x5t#S256": thumbprint}))).await;
    let ask = async |client: Option<&Client>, token: &str| {
        let answer = scene.ask(client, &add().with_key(token)).await;
        let challenge =
            answer.header("www-authenticate").map(|text| text.contains("error=\"invalid_token\""));
        (told(&answer), challenge)
    };
    let refused = |message: &str| ((401, message.to_owned()), Some(true));
    let told = "the token counts only on a connection with the client's certificate that it was issued to (`cnf`, RFC 8705)";
    assert_eq!(ask(None, &bound).await, refused(told), "stolen");
    assert_eq!(ask(Some(&good), &bound).await, (sum(), None));
    assert_eq!(ask(None, &bound).await, refused(told), "also when it is remembered");
    assert_eq!(ask(Some(&renewed), &bound).await, refused(told), "another certificate of the same agent");
    let other = "the token counts only together with a key (`cnf`), in a way that is not taken here: it may be bound to a certificate \
         (`x5t#S256`) where certificates are looked at, and to nothing else";
    let dpop = signed(Some(json!({"jkt": thumbprint}))).await;
    assert_eq!(ask(Some(&good), &dpop).await, refused(other), "no bearer token");
    let free = signed(None).await;
    assert_eq!((ask(None, &free).await, ask(Some(&good), &free).await), ((sum(), None), (sum(), None)));
}
