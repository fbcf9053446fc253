//! Calls that admins approve: held and not, once, for exactly what was asked, and refused where anything of it is another.

use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_tests::agent::{Agent, Answer, LEGACY, Message, Protocol};
use gantry_tests::dev::Dev;
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use gantry_tests::peers::{Call, Client, Target, or_skip};
use serde_json::{Value, json};

/// How long an admin and a node may take; a busy machine takes seconds.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the fixture answers who reads a file.
const READ: &str = "what stands there";
/// Reading a file needs these approvals.
fn ask(approval: &Value) -> String {
    let cedar =
        r#"forbid(principal, action == Action::"tools/call", resource == Tool::"fixture/read_file");"#;
    let spec = json!({"cedar": cedar, "approval": approval});
    json!({"kind": "Policy", "tenant": "dev", "name": "ask-first", "spec": spec}).to_string()
}

/// Calls are held for so long.
fn hold(seconds: u32) -> String {
    json!({"kind": "Tenant", "name": "dev", "spec": {"approval_hold_seconds": seconds}}).to_string()
}

/// With calls that are not held.
async fn start(approval: Value) -> Governed {
    let governed = Governed::start().await;
    governed.apply(&format!("{}\n---\n{}", hold(0), ask(&approval))).await;
    governed
}

fn read(governed: &Governed, path: &str) -> Message {
    governed.call("read_file", json!({"path": path}))
}

async fn said(governed: &Governed, message: &Message) -> Answer {
    let mut agent = governed.connect(Protocol::Http1).await;
    agent.ask(message).await.expect("an answer")
}

/// The id of the approval that a call waits for.
fn waits(answer: &Answer) -> String {
    let error = answer.json()["error"].clone();
    assert_eq!((answer.status, &error["code"]), (200, &json!(-31428)), "{error}");
    let data = &error["data"];
    assert_eq!((&data["rejection"], &data["retryAfterSeconds"]), (&json!("awaiting_approval"), &json!(15)));
    data["approval"].as_str().expect("an id").to_owned()
}

async fn listed(governed: &Governed, flags: &[&str]) -> Vec<Value> {
    let out = governed.admin(&[&["approval", "ls", "-o", "json"], flags].concat(), "").await;
    serde_json::from_str(&out).expect("JSON")
}

/// An admin of a role, by the file with the token.
async fn admin(governed: &Governed, folder: &tempfile::TempDir, name: &str, role: &str) -> PathBuf {
    let token = governed.admin(&["admin", "create", name, "--role", role], "").await;
    let file = folder.path().join(name);
    let options =
        std::os::unix::fs::OpenOptionsExt::mode(std::fs::OpenOptions::new().write(true).create(true), 0o600)
            .open(&file);
    std::io::Write::write_all(&mut options.expect("a file"), token.trim().as_bytes()).expect("written");
    file
}

/// What an admin's command came to: its exit code and what it said.
async fn by(dev: &Dev, token: &Path, arguments: &[&str]) -> (i32, String) {
    let flags = ["--token-file", token.to_str().expect("text")];
    let finished = dev.admin(&[arguments, &flags].concat()).await.expect("it runs");
    let code = finished.status.code().expect("a code");
    (code, format!("{}{}", finished.stdout, finished.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_waits_until_it_is_approved_and_goes_through_once() {
    let governed = start(json!({})).await;
    let list = Message::modern("tools/list", json!({})).with_key(governed.key());
    assert!(said(&governed, &list).await.tools().contains(&"read_file".to_owned()));
    let call = governed.call("read_file", json!({"path": "/data/a", "limit": 3}));
    let id = waits(&said(&governed, &call).await);
    assert_eq!(waits(&said(&governed, &call).await), id, "the same call waits for the same approval");
    // Written otherwise it is the same call; with anything else it is another.
    let again = governed.call("read_file", json!({"limit": 3, "path": "/data/a"}));
    assert_eq!(waits(&said(&governed, &again).await), id);
    let other = waits(&said(&governed, &read(&governed, "/data/b")).await);
    assert_ne!(other, id);

    let waiting = listed(&governed, &[]).await;
    let shown = |listed: &Value| json!([listed["id"], listed["state"], listed["tool"], listed["arguments"]]);
    let expected = [
        json!([id, "pending", "read_file", {"path": "/data/a", "limit": 3}]),
        json!([other, "pending", "read_file", {"path": "/data/b"}]),
    ];
    assert_eq!(waiting.iter().map(shown).collect::<Vec<_>>(), expected);
    governed.admin(&["approval", "approve", &id, "--reason", "looked at it"], "").await;

    // Another agent has nothing of it.
    let agent = r#"{"kind": "Agent", "tenant": "dev", "name": "other", "spec": {}}"#;
    let permit = json!({"kind": "Policy", "tenant": "dev", "name": "others",
        "spec": {"cedar": "permit(principal == Agent::\"other\", action, resource);"}});
    governed.apply(&format!("{agent}\n---\n{permit}")).await;
    let key = governed.admin(&["key", "create", "--agent", "other", "--tenant", "dev"], "").await;
    let theirs = Message::call("read_file", json!({"path": "/data/a", "limit": 3})).with_key(key.trim());
    let of_other = eventually("the key of the other agent", PATIENCE, async || {
        let answer = said(&governed, &theirs).await;
        (answer.status == 200).then(|| waits(&answer))
    })
    .await;
    assert!(of_other != id && of_other != other);

    assert_eq!(said(&governed, &again).await.said(), READ);
    let next = waits(&said(&governed, &call).await);
    assert_ne!(next, id, "it was used, and the next call needs one of its own");

    // Both are recorded with it, and explained.
    let used = |record: &Value| record["approval"]["state"] == "used";
    let records = governed.trail().until("the call that went through", used).await;
    let record = records.iter().find(|record| used(record)).expect("it is there");
    let told =
        json!([record["verdict"], record["outcome"], record["approval"], record["policies"][0]["policy"]]);
    let approval = json!({"id": id, "state": "used", "approvers": ["root"]});
    assert_eq!(told, json!(["require_approval", "ok", approval, "ask-first"]));
    let decision = record["decision_id"].as_str().expect("an id");
    let explained = governed.admin(&["policy", "explain", decision], "").await;
    assert!(explained.contains(&format!("approval   {id} was used, approved by root")), "{explained}");
    assert!(explained.contains("verdict    require approval, because of ask-first"), "{explained}");
    let voted = governed.admin(&["audit", "tail", "--admins"], "").await;
    assert!(voted.lines().any(|line| line.contains("VoteOnApproval") && line.contains(&id)), "{voted}");

    governed.admin(&["approval", "deny", &next], "").await;
    let denied = said(&governed, &call).await.json()["error"].clone();
    assert_eq!((&denied["code"], &denied["data"]["approval"]), (&json!(-31403), &json!(next)), "{denied}");
    let tools = governed.admin(&["tool", "ls", "--agent", "demo-agent", "-o", "json"], "").await;
    let tools: Vec<Value> = serde_json::from_str(&tools).expect("JSON");
    let tool = tools.iter().find(|tool| tool["name"] == "read_file").expect("the tool");
    assert_eq!(tool["verdict"], "approval");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_held_until_somebody_decides() {
    let governed = Governed::start().await;
    governed.apply(&format!("{}\n---\n{}", hold(60), ask(&json!({})))).await;
    let waiting = async || {
        let listed = listed(&governed, &[]).await;
        Some(listed.first()?["id"].as_str()?.to_owned())
    };
    for (verb, expected) in [
        ("approve", READ.to_owned()),
        ("deny", "\"read_file\" with these arguments was not approved (ID); do not call it again".to_owned()),
    ] {
        let call = read(&governed, verb);
        let (answer, id) = tokio::join!(said(&governed, &call), async {
            let id = eventually("a call that waits", PATIENCE, waiting).await;
            governed.admin(&["approval", verb, &id], "").await;
            id
        });
        assert_eq!(answer.said(), expected.replace("ID", &id));
    }
    // A client that leaves ends the hold and not the request.
    let call = read(&governed, "left");
    let mut agent = governed.connect(Protocol::Http1).await;
    let id = tokio::select! {
        answer = agent.ask(&call) => panic!("it is held: {:?}", answer.map(|answer| answer.body)),
        id = eventually("a call that waits", PATIENCE, waiting) => id,
    };
    drop(agent);
    governed.admin(&["approval", "approve", &id], "").await;
    assert_eq!(said(&governed, &call).await.said(), READ);
    // What changes while a call is held has it decided anew.
    let call = read(&governed, "forbidden");
    let forbid = json!({"kind": "Policy", "tenant": "dev", "name": "never", "spec": {"cedar":
        "forbid(principal, action == Action::\"tools/call\", resource == Tool::\"fixture/read_file\");"}});
    let (answer, ()) = tokio::join!(said(&governed, &call), async {
        let id = eventually("a call that waits", PATIENCE, waiting).await;
        governed.apply(&forbid.to_string()).await;
        governed.admin(&["approval", "approve", &id], "").await;
    });
    assert_eq!(answer.json()["error"]["data"]["rejection"], "awaiting_approval");
    let denied = "tools/call of \"read_file\" is denied: a policy forbids it";
    assert_eq!(said(&governed, &call).await.said(), denied);
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_approve_as_the_policy_names_each_once_and_no_stranger() {
    let governed = start(json!({"approvals": 2, "approvers": ["ann", "bob", "cid"]})).await;
    let folder = tempfile::tempdir().expect("a folder");
    governed.apply(r#"{"kind": "Tenant", "name": "acme", "spec": {}}"#).await;
    let ann = admin(&governed, &folder, "ann", "approver:dev").await;
    let bob = admin(&governed, &folder, "bob", "tenant-admin:dev").await;
    let eve = admin(&governed, &folder, "eve", "approver:dev").await;
    let cid = admin(&governed, &folder, "cid", "tenant-admin:acme").await;
    let reader = admin(&governed, &folder, "reader", "read-only:dev").await;
    let call = read(&governed, "/data/a");
    let id = waits(&said(&governed, &call).await);
    let dev = governed.dev();
    let approve = ["approval", "approve", id.as_str()];
    // To an admin of another tenant it does not exist, and a reader may not even look.
    for verb in [&approve[..], &["approval", "show", &id], &["approval", "deny", &id]] {
        let (code, text) = by(dev, &cid, verb).await;
        assert_eq!((code, text.contains(&format!("there is no approval {id}"))), (1, true), "{text}");
        assert_eq!(by(dev, &reader, verb).await.0, 4);
    }
    let (_, text) = by(dev, &cid, &["approval", "ls", "-o", "json"]).await;
    assert!(text.starts_with("[]"), "{text}");
    let (code, text) = by(dev, &eve, &approve).await;
    assert!(code == 1 && text.contains("eve is none of the approvers"), "{text}");
    let (code, text) = by(dev, &ann, &approve).await;
    assert!(code == 0 && text.contains("another approver is needed"), "{text}");
    assert_eq!(waits(&said(&governed, &call).await), id, "one is not enough");
    let (code, text) = by(dev, &ann, &approve).await;
    assert!(code == 1 && text.contains("ann has approved"), "{text}");
    let (code, text) = by(dev, &bob, &approve).await;
    assert!(code == 0 && text.contains("approved by bob") | text.contains("goes through, once"), "{text}");
    // An approver decides, and does nothing else.
    assert_eq!(by(dev, &ann, &["get", "policies", "--tenant", "dev"]).await.0, 4);
    assert_eq!(said(&governed, &call).await.said(), READ);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_policy_or_time_makes_an_approval_void() {
    let governed = start(json!({})).await;
    let call = read(&governed, "/data/a");
    let id = waits(&said(&governed, &call).await);
    governed.admin(&["approval", "approve", &id], "").await;
    governed.apply(&ask(&json!({"expires_seconds": 10}))).await;
    let next = waits(&said(&governed, &call).await);
    assert_ne!(next, id);
    let state = |listed: &[Value], id: &str| {
        let found = listed.iter().find(|listed| listed["id"] == id);
        found.map(|found| found["state"].as_str().unwrap_or_default().to_owned())
    };
    let all = listed(&governed, &["--all"]).await;
    assert_eq!((state(&all, &id), state(&all, &next)), (Some("void".into()), Some("pending".into())));
    governed.admin(&["approval", "approve", &next], "").await;
    eventually("the approval to expire", PATIENCE, async || {
        let all = listed(&governed, &["--all"]).await;
        (state(&all, &next)? == "expired").then_some(())
    })
    .await;
    let last = waits(&said(&governed, &call).await);
    assert!(last != next && last != id);
    // The tool is another by its definition: what was approved of it before is not approved.
    governed.apply(&ask(&json!({}))).await;
    let last = waits(&said(&governed, &call).await);
    governed.admin(&["approval", "approve", &last], "").await;
    governed.server().describe("read_file", "Reads a file, and more.");
    // Another deadline has the node ask the server again at once.
    let spec = json!({"url": governed.server().url(), "timeout_ms": 20_001});
    let server = json!({"kind": "Server", "tenant": "dev", "name": "fixture", "spec": spec});
    governed.apply(&server.to_string()).await;
    eventually("the new definition", PATIENCE, async || {
        let all = listed(&governed, &["--all"]).await;
        (state(&all, &last)? == "void").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_that_could_not_be_approved_is_refused_with_its_place() {
    let governed = Governed::start().await;
    let permit = "// first\nforbid(principal, action == Action::\"tools/call\", resource);\npermit(principal, action, resource);";
    for (cedar, place) in [
        (permit, "line 3, column 1"),
        ("forbid(principal, action, resource);", "line 1, column 1"),
        ("@id(\"a\") forbid(principal, action in [Action::\"tools/call\"], resource);", "line 1, column 10"),
    ] {
        let spec = json!({"cedar": cedar, "approval": {}});
        let document = json!({"kind": "Policy", "tenant": "dev", "name": "ask", "spec": spec}).to_string();
        let refused = governed.dev().admin_with_input(&["apply", "-f", "-"], document.as_bytes()).await;
        let refused = refused.expect("it runs");
        assert!(refused.stderr.contains(place) && refused.status.code() == Some(1), "{}", refused.stderr);
    }
}

/// Clients as they are, which know nothing of approvals: a call is held, and answered once somebody approved.
#[tokio::test(flavor = "multi_thread")]
async fn clients_of_both_eras_wait_for_an_approval() {
    for client in [Client::RustDiscover, Client::RustInitialize, Client::TypeScriptV1, Client::PythonAuto] {
        let governed = Governed::start().await;
        let cedar = r#"forbid(principal, action == Action::"tools/call", resource == Tool::"fixture/add");"#;
        let spec = json!({"cedar": cedar, "approval": {}});
        let policy = json!({"kind": "Policy", "tenant": "dev", "name": "ask", "spec": spec}).to_string();
        governed.apply(&format!("{}\n---\n{policy}", hold(50))).await;
        let target = Target::with_key(&governed.dev().ready().endpoint, governed.key());
        let add = Call::new("add", json!({"a": 2, "b": 3}));
        let approving = async {
            let waiting = async || Some(listed(&governed, &[]).await.first()?["id"].as_str()?.to_owned());
            let id = eventually("a call that waits", PATIENCE, waiting).await;
            governed.admin(&["approval", "approve", &id], "").await;
            std::future::pending::<()>().await;
        };
        let observed = tokio::select! {
            observed = client.observe(&target, &add, None) => observed,
            () = approving => unreachable!("it never ends"),
        };
        let Some(outcome) = or_skip(observed) else { continue };
        assert_eq!(outcome.call["structuredContent"]["sum"], 5, "{client:?} {}", outcome.call);
    }
}

/// A legacy client with a session of its own.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_of_a_revision_before_gets_the_typed_error_and_then_the_answer() {
    let governed = start(json!({})).await;
    let mut agent: Agent = governed.connect(Protocol::Http2).await;
    let client = json!({"name": "test", "version": "1"});
    let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": client});
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let initialize = Message::new(initialize.to_string()).with_key(governed.key());
    let answer = agent.ask(&initialize).await.expect("an answer");
    let session = answer.header("mcp-session-id").expect("a session").to_owned();
    let call = |id: u32| {
        let params = json!({"name": "read_file", "arguments": {"path": "/data/a"}});
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params});
        Message::legacy(&body).with_key(governed.key()).with("mcp-session-id", &session)
    };
    let id = waits(&agent.ask(&call(1)).await.expect("an answer"));
    governed.admin(&["approval", "approve", &id], "").await;
    assert_eq!(agent.ask(&call(2)).await.expect("an answer").said(), READ);
    waits(&agent.ask(&call(3)).await.expect("an answer"));
}
