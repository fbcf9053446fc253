//! Agents by the certificates of their connections: clients that others wrote, what is refused and told why, what counts beside
//! a certificate, and that authorities change under connections that live.

use std::time::{Duration, SystemTime};

use gantry_tests::agent::{Events, LEGACY, Message, Protocol};
use gantry_tests::certified::{
    Certified as Scene, Client, REPORTER, add, agent, authority, client, provider, sum, told,
};
use gantry_tests::process::run;
use http::Method;
use http_body_util::BodyExt;
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, SanType};
use serde_json::json;
use tokio::process::Command;

/// The time that another's client has for one call.
const CALL_TIME_MAX: Duration = Duration::from_secs(60);
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
    println!("{:<30} | {:<6} | answer", "certificate", "status");
    for (what, client, status, message) in refused(&scene) {
        for shown in [add(), add().with_key(key)] {
            let answer = scene.ask(Some(&client), &shown).await;
            assert_eq!(told(&answer), (status, message.to_owned()), "{what}");
            let challenge = (status == 401).then_some(r#"Bearer realm="gantry""#);
            assert_eq!(answer.header("www-authenticate"), challenge, "{what}");
        }
        println!("{what:<30} | {status:<6} | {message}");
    }
    // A header says nothing, whoever wrote it.
    let xfcc = format!("Hash=00;URI={REPORTER};Subject=\"CN=reporter\"");
    let smuggled = add().with("x-forwarded-client-cert", &xfcc).with("x-ssl-client-verify", "SUCCESS");
    let missing = "an agent key is required: Authorization: Bearer KEY";
    assert_eq!(told(&scene.ask(None, &smuggled).await), (401, missing.to_owned()));
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
    assert_eq!(at(&good, "/other/fixture/mcp").await, (401, UNKNOWN.to_owned()));
    assert_eq!(at(&theirs, "/dev/fixture/mcp").await, (401, UNKNOWN.to_owned()));
    assert_eq!(at(&good, "/dev/nothing/mcp").await.0, 401, "nothing is told of what is there");
    // Another authority is believed instead, and then both, on a connection that lives.
    let dev = |bundle: &str| provider("dev", bundle, json!({"trust_domain": "acme.example"}));
    scene.apply(&[dev(&scene.theirs.pem())]).await;
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), (401, UNKNOWN.to_owned()));
    scene.apply(&[dev(&format!("{}{}", scene.theirs.pem(), scene.ours.pem()))]).await;
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), sum());
    assert_eq!(at(&theirs, "/dev/fixture/mcp").await, sum());
    // An endpoint that takes none does not look at it.
    scene
        .apply(&[json!({"kind": "Endpoint", "tenant": "dev", "name": "fixture", "spec":
        {"servers": ["fixture"], "authentication": {"providers": []}}})])
        .await;
    let missing = "an agent key is required: Authorization: Bearer KEY";
    assert_eq!(told(&live.ask(&add()).await.expect("an answer")), (401, missing.to_owned()));
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
