//! Explaining what a node decided that is gone.

use gantry_tests::agent::{Agent, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use gantry_tests::members::node::{Node, add, tenant};
use gantry_tests::members::{DEADLINE, Error, Member, Members, done};
use serde_json::json;

/// Forbids what reads above `/data`, and lets a secret stand beside it.
const BELOW_DATA: &str = r#"
---
kind: Policy
tenant: acme
name: below-data
spec:
  cedar: |
    @id("data-only")
    forbid (principal, action == Action::"tools/call", resource == Tool::"files/read_file")
    unless { resource.name like "/data/*" };
"#;

/// An explanation without what differs from run to run.
fn steady(explanation: &str, id: &str, key: &str) -> String {
    let steady = |line: &str| match line.split_whitespace().next() {
        Some(name @ ("when" | "took")) => format!("  {name}\n"),
        _ => format!("{line}\n"),
    };
    let text: String = explanation.lines().map(steady).collect();
    text.replace(id, "ID").replace(&key["gantry_".len()..][..16], "KEY")
}

async fn apply(members: &Members, member: &Member, documents: &str) -> Result<(), Error> {
    let apply = ["apply", "-f", "-", "--wait"];
    done(member.admin_with_input(members, &apply, documents).await?).map(|_| ())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_is_explained_by_every_member_after_its_node_was_killed() -> Result<(), Error> {
    let server = fixture::Server::start(0).await?;
    let members = Members::new()?;
    let one = members.found("one").await?;
    let two = members.learner("two", &one).await?;
    let (node, address) = Node::new(&members, "edge", &[&two]).join(&one, &[]).await?;
    apply(&members, &one, &tenant("acme", &server.url(), "")).await?;
    let created = done(one.admin(&members, &["key", "create", "--agent", "bot", "--tenant", "acme"]).await?)?;
    let key = created.stdout.trim_end().to_owned();
    eventually("the node to serve", DEADLINE, async || {
        (add(address, "acme", &key).await?.0 == 200).then_some(())
    })
    .await;
    apply(&members, &two, BELOW_DATA.trim_start_matches("\n---\n")).await?;

    let url = format!("http://{address}/acme/main/mcp");
    let mut agent = Agent::connect(&url, Protocol::Http1).await?;
    let arguments = json!({"path": "/etc/passwd", "token": "hunter2"});
    let denied = agent.ask(&Message::call("read_file", arguments).with_key(&key)).await?.json();
    let id = denied["error"]["data"]["decisionId"].as_str().ok_or("an id")?.to_owned();
    // The record is on its way with the next batch; a node that dies before keeps it in its own file.
    let explain =
        async |member: &Member| done(member.admin(&members, &["policy", "explain", &id]).await.ok()?).ok();
    eventually("the record at the other member", DEADLINE, async || explain(&one).await).await;
    node.kill().await?;

    for member in [&one, &two] {
        let explained = explain(member).await.ok_or("an explanation")?.stdout;
        let revision = explained
            .split("at revision ")
            .nth(1)
            .and_then(|rest| rest.lines().next())
            .ok_or("a revision")?;
        assert_ne!(revision, "0", "{explained}");
        let expected = format!(
            r#"denied ID
  who        agent bot of tenant acme, with key KEY
  what       tools/call read_file of server files, through endpoint main
  arguments  {{"path":"/etc/passwd","token":"[redacted]"}}
  when
  where      node edge, at revision {revision}
  took
  verdict    deny, because of below-data (data-only)
  reason     tools/call of "read_file" is denied: a policy forbids it

policy below-data, as of revision {revision}
  @id("data-only")
  forbid (principal, action == Action::"tools/call", resource == Tool::"files/read_file")
  unless {{ resource.name like "/data/*" }};

next: if the call should be allowed, change the policy that forbids it:
  gantry get policy below-data --tenant acme -o yaml > below-data.yaml
  then edit below-data.yaml, `gantry diff -f below-data.yaml`, `gantry apply -f below-data.yaml`
"#
        );
        assert_eq!(steady(&explained, &id, &key), expected);
    }
    // The node, its file and the member that it told are gone; the other one still has the word of it.
    two.kill().await?;
    assert!(explain(&one).await.is_some(), "what a member heard of others it has by itself");
    Ok(())
}
