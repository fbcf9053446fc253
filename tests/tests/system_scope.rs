//! Nodes that hold what they serve: which tenants, their join tokens and the tenants' regions say, and a tenant that may
//! not stay takes its streams, and what is kept of it on disk, along.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use gantry_tests::agent::{Agent, Events, LEGACY, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::members::node::{Node, add, tenant};
use gantry_tests::members::{DEADLINE, Error, Member, Members, done};
use serde_json::{Value, json};
use tokio::time::timeout;

/// Until what a tenant that moved has under way is cut; a call would end by itself after a minute.
const CUT_TIME_MAX: Duration = Duration::from_secs(20);

async fn apply(members: &Members, member: &Member, name: &str, text: &str) -> Result<(), Error> {
    let file = members.path(&format!("{name}.yaml"));
    fs::write(&file, text)?;
    done(member.admin(members, &["apply", "-f", &file.to_string_lossy()]).await?).map(|_| ())
}

async fn key(members: &Members, member: &Member, tenant: &str) -> Result<String, Error> {
    let made = ["key", "create", "--agent", "bot", "--tenant", tenant];
    Ok(done(member.admin(members, &made).await?)?.stdout.trim().to_owned())
}

/// Waits until a node serves a tenant, or answers for it as for one that never was.
async fn served(node: SocketAddr, tenant: &str, key: &str, is_served: bool) {
    let unknown = add(node, "nobody", key).await.expect("an answer");
    let expected = if is_served { (200, json!(5), Value::Null) } else { unknown };
    let what = format!("{tenant} at {node} to be answered {expected:?}");
    let fits = async || (add(node, tenant, key).await? == expected).then_some(());
    eventually(&what, DEADLINE, fits).await;
}

/// An answer that goes on until its client is heard: a call of a legacy session, whose server asks back.
async fn calling(url: &str, key: &str) -> Result<Events, Error> {
    let mut agent = Agent::connect(url, Protocol::Http2).await?;
    let client = json!({
        "protocolVersion": LEGACY,
        "capabilities": {"sampling": {}},
        "clientInfo": {"name": "test", "version": "1"},
    });
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": client});
    let answer = agent.ask(&Message::new(initialize.to_string()).with_key(key)).await?;
    let session = answer.header("mcp-session-id").ok_or("a session")?.to_owned();
    let message = |body: &Value| Message::legacy(body).with_key(key).with("mcp-session-id", &session);
    agent.ask(&message(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))).await?;
    let params = json!({"name": "test_sampling", "arguments": {"prompt": "Say it"}});
    let call = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params});
    let mut events = Events::of(agent.send(&message(&call)).await?);
    let asked = events.next().await?.ok_or("a question")?;
    assert_eq!(asked["method"], "sampling/createMessage", "{asked}");
    Ok(events)
}

/// What a node is shown to hold.
async fn scope(members: &Members, member: &Member, node: &str) -> Result<Value, Error> {
    let shown = done(member.admin(members, &["node", "show", node, "-o", "json"]).await?)?;
    Ok(serde_json::from_str::<Value>(&shown.stdout)?["scope"].clone())
}

/// Whether a stream ends.
async fn ends(events: &mut Events) -> bool {
    let end = async { while let Ok(Some(_)) = events.next().await {} };
    timeout(CUT_TIME_MAX, end).await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_holds_what_its_token_and_the_regions_of_tenants_say() -> Result<(), Error> {
    let server = fixture::Server::start(0).await?;
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.learner("two", &one).await?;
    apply(&members, &one, "acme", &tenant("acme", &server.url(), "eu")).await?;
    apply(&members, &one, "birch", &tenant("birch", &server.url(), "")).await?;
    let (acme, birch) = (key(&members, &one, "acme").await?, key(&members, &one, "birch").await?);

    // Who is for whom is decided by the control plane, and a node of one tenant follows any member.
    let refused = one.admin(&members, &["cluster", "token", "--role", "node", "--tenant", "acmee"]).await?;
    assert!(refused.stderr.contains("there is no Tenant acmee; did you mean acme?"), "{}", refused.stderr);
    let of_acme = Node::new(&members, "of-acme", &[&two]);
    let (eu, at_eu) = of_acme.join(&one, &["--tenant", "acme", "--region", "eu"]).await?;
    let in_us = Node::new(&members, "in-us", &[&one]);
    let (us, at_us) = in_us.join(&one, &["--region", "us"]).await?;
    served(at_eu, "acme", &acme, true).await;
    served(at_eu, "birch", &birch, false).await;
    served(at_us, "acme", &acme, false).await;
    served(at_us, "birch", &birch, true).await;
    let expected = json!({"everything": false, "tenants": ["acme"], "region": "eu"});
    assert_eq!(scope(&members, &one, "of-acme").await?, expected);
    let expected = json!({"everything": false, "tenants": [], "region": "us"});
    assert_eq!(scope(&members, &one, "in-us").await?, expected);

    let kept = members.path("of-acme.data").join("last-known-good");
    let files = || {
        fs::read_dir(&kept).ok().map(|files| {
            let files = files.flatten().map(|file| file.file_name().to_string_lossy().into_owned());
            files.filter(|name| name.ends_with(".bin")).count()
        })
    };
    eventually("a file to start from", DEADLINE, async || (files()? >= 1).then_some(())).await;

    // A change of one tenant is nothing to the other's node, which says all the same that it has it.
    let changed = members.path("birch.yaml").to_string_lossy().into_owned();
    fs::write(&changed, tenant("birch", &server.url(), "").replace("permit(", "permit( "))?;
    let told = done(one.admin(&members, &["apply", "-f", &changed, "--wait"]).await?)?;
    assert!(format!("{}{}", told.stdout, told.stderr).contains("2 of 2 nodes"), "{told:?}");

    eventually("two files to start from", DEADLINE, async || (files()? >= 2).then_some(())).await;

    // A tenant that moves is served where it goes, and dropped where it was, with its streams.
    let url = format!("http://{at_eu}/acme/main/mcp");
    let mut agent = Agent::connect(&url, Protocol::Http2).await?;
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let listen = Message::modern("subscriptions/listen", wanted).with_key(&acme);
    let mut stream = Events::of(agent.send(&listen).await?);
    stream.next().await?.ok_or("an acknowledgement")?;
    let mut call = calling(&url, &acme).await?;
    apply(&members, &one, "acme", &tenant("acme", &server.url(), "us")).await?;
    served(at_us, "acme", &acme, true).await;
    served(at_eu, "acme", &acme, false).await;
    assert!(ends(&mut stream).await, "a stream of a tenant that moved goes on");
    assert!(ends(&mut call).await, "a call of a tenant that moved goes on");

    // Nothing of it is left to start from.
    eventually("one file to start from", DEADLINE, async || (files() == Some(1)).then_some(())).await;
    eu.terminate(Duration::from_secs(20)).await?;
    two.kill().await?;
    one.kill().await?;
    let (eu, at_eu) = of_acme.run().await?;
    served(at_eu, "acme", &acme, false).await;
    served(at_us, "acme", &acme, true).await;
    eu.kill().await?;
    us.kill().await?;
    Ok(())
}
