//! Pinned catalogs, servers that flap, and names of endpoints: what nodes report, what admins are told and approve.

use gantry_wire::admin_v1::*;
use gantry_wire::decode_record;
use gantry_wire::resource_v1::{self, Approval, Catalog, DefinitionKind};
use serde_json::{Value, json};

use crate::harness::{Harness, Result, acme, eventually};
use crate::node::{Connection, Process};
use crate::policy::{catalog, report};

fn server(pin: &str) -> Value {
    json!({"kind": "Server", "tenant": "acme", "name": "files",
        "spec": {"url": "http://127.0.0.1:9/mcp", "credential": "token", "pin": pin}})
}

/// What the server offers when one tool says something else.
fn changed(tools: &[&str], tool: &str) -> Catalog {
    let mut catalog = catalog(tools);
    for definition in catalog.tools.iter_mut().filter(|definition| definition.name == tool) {
        definition.json = definition.json.replace("does", "ignores policy and does");
    }
    catalog
}

/// The names in force and those in quarantine, as the node has them.
fn held(process: &Process) -> Result<(Vec<String>, Vec<String>)> {
    let record = process.entries.get("acme/catalog/files").ok_or("no catalog")?;
    let gantry_model::record::RecordValue::Catalog(catalog) = decode_record(record)?.value else {
        return Err("no catalog".into());
    };
    let in_force = catalog.tools.iter().map(|tool| tool.name.to_string()).collect();
    let withheld = catalog.quarantined.iter().map(|held| held.definition.name.to_string()).collect();
    Ok((in_force, withheld))
}

async fn waiting(harness: &mut Harness) -> Result<Vec<resource_v1::Quarantined>> {
    let request = ListQuarantineRequest { tenant: "acme".into(), server: String::new() };
    let answer = harness.admin.list_quarantine(request).await?.into_inner();
    Ok(answer.waiting.into_iter().filter_map(|waiting| waiting.quarantined).collect())
}

fn approval(held: &resource_v1::Quarantined) -> Result<Approval> {
    let definition = held.definition.as_ref().ok_or("a definition")?;
    Ok(Approval { kind: held.kind, name: definition.name.clone(), hash: definition.hash.clone() })
}

fn approve(approvals: Vec<Approval>) -> ApproveCatalogRequest {
    ApproveCatalogRequest { tenant: "acme".into(), server: "files".into(), approvals, ..Default::default() }
}

async fn pinned() -> Result<(Harness, Process, Connection)> {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[server("review")]).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    report(&connection, catalog(&["read", "write"])).await?;
    process.follow(&mut connection).await?;
    Ok((harness, process, connection))
}

#[tokio::test]
async fn a_changed_tool_of_a_pinned_server_waits_for_an_admin_who_saw_it() -> Result {
    let (mut harness, mut process, mut connection) = pinned().await?;
    assert_eq!(held(&process)?, (vec!["read".to_owned(), "write".to_owned()], vec![]));
    assert_eq!(waiting(&mut harness).await?, []);

    report(&connection, changed(&["read", "write", "new"], "read")).await?;
    process.follow(&mut connection).await?;
    assert_eq!(held(&process)?, (vec!["write".to_owned()], vec!["read".to_owned(), "new".to_owned()]));
    let seen = waiting(&mut harness).await?;
    let kinds: Vec<_> = seen.iter().map(|held| (held.kind(), held.approved.is_some())).collect();
    assert_eq!(kinds, [(DefinitionKind::Tool, true), (DefinitionKind::Tool, false)]);
    let status = harness.status().await?;
    assert_eq!((status.servers[0].tool_count, status.servers[0].quarantined_count), (1, 2));
    let request = ListToolsRequest { tenant: "acme".into(), server: "files".into(), ..Default::default() };
    assert_eq!(
        harness.admin.list_tools(request).await?.into_inner().warnings,
        [
            "2 definitions of server acme/files wait for approval; `gantry catalog diff files --tenant acme` shows them"
        ]
    );

    // A policy may name what waits.
    let permit = r#"permit(principal, action, resource == Tool::"files/new");"#;
    harness.apply(&[crate::harness::policy("new", permit)]).await?;

    // It changes again: what the admin saw is not what would be approved, and nothing of the call happens.
    let mut third = changed(&["read", "write", "new"], "read");
    third.tools[0].json = third.tools[0].json.replace("ignores", "forgets");
    report(&connection, third.clone()).await?;
    process.follow_to(&mut connection, status.revision + 2).await?;
    let all = seen.iter().map(approval).collect::<Result<Vec<_>>>()?;
    let refused = harness.admin.approve_catalog(approve(all)).await.err().ok_or("it is refused")?;
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::FailedPrecondition, "tool \"read\" changed again after it was looked at")
    );
    let none = harness.admin.approve_catalog(approve(Vec::new())).await.err().ok_or("it is refused")?;
    assert_eq!(none.code(), tonic::Code::InvalidArgument);

    let seen = waiting(&mut harness).await?;
    let read = seen.iter().take(1).map(approval).collect::<Result<Vec<_>>>()?;
    let approved = harness.admin.approve_catalog(approve(read)).await?.into_inner();
    assert_eq!(approved.waiting_count, 1);
    process.follow_to(&mut connection, approved.revision).await?;
    assert_eq!(held(&process)?, (vec!["write".to_owned(), "read".to_owned()], vec!["new".to_owned()]));

    // The same report again makes no revision; without the pin, one releases the rest.
    report(&connection, third.clone()).await?;
    let auto = harness.apply(&[server("auto")]).await?;
    assert_eq!(auto, approved.revision + 1);
    report(&connection, third).await?;
    process.follow_to(&mut connection, auto + 1).await?;
    assert_eq!(held(&process)?, (["read", "write", "new"].map(str::to_owned).to_vec(), vec![]));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn two_nodes_that_see_two_builds_of_a_server_do_not_make_revisions_for_ever() -> Result {
    let (mut harness, _process, connection) = pinned().await?;
    harness.apply(&[server("auto")]).await?;
    let other = Process::new("other")?.join(harness.address()).await?.0;
    let mut revision = harness.status().await?.revision;
    let mut changes = 0;
    let failure = loop {
        let (node, offered) = match changes % 2 {
            0 => (&connection, changed(&["read", "write"], "read")),
            _ => (&other, catalog(&["read", "write"])),
        };
        report(node, offered).await?;
        let is_settled =
            |status: &StatusResponse| status.revision > revision || !status.servers[0].failure.is_empty();
        let status = eventually(async || harness.status().await, is_settled).await?;
        if status.revision == revision {
            break status.servers[0].failure.clone();
        }
        (revision, changes) = (status.revision, changes + 1);
    };
    // A few in a row are somebody at work; from then on what is recorded stays.
    assert_eq!(changes, 64);
    let told =
        "it offers now this, now that; what it offers is recorded once it stays the same for 5 minutes";
    assert_eq!(failure, told);
    for _ in 0..20 {
        report(&connection, changed(&["read", "write"], "read")).await?;
        report(&other, catalog(&["read", "write"])).await?;
    }
    // Told again until it is seen: what the other node said last may be heard after it, and that is what is recorded.
    let ask = async || {
        report(&connection, changed(&["read", "write"], "write")).await?;
        harness.status().await
    };
    let status = eventually(ask, |status| status.servers[0].failure == told).await?;
    assert_eq!(status.revision, revision);
    Ok(())
}

#[tokio::test]
async fn names_that_an_endpoint_cannot_offer_as_they_are_are_told_when_it_is_applied() -> Result {
    let (mut harness, _process, _connection) = pinned().await?;
    let endpoint = json!({"kind": "Endpoint", "tenant": "acme", "name": "both", "spec": {
        "servers": ["files"], "naming": "prefixed", "aliases": {"raed": {"server": "files", "tool": "raed"}}}});
    let told = ["Endpoint acme/both: alias raed: server files offers no tool \"raed\"; nearest: \"read\""];
    let applied = harness.try_apply(std::slice::from_ref(&endpoint)).await?;
    assert_eq!((applied.warnings.as_slice(), applied.problems), (&told.map(str::to_owned)[..], Vec::new()));
    let request = ApplyRequest {
        resources: crate::harness::resources(&[endpoint])?,
        dry_run: true,
        ..Default::default()
    };
    assert_eq!(harness.admin.apply(request).await?.into_inner().warnings, told);
    harness.stop().await?;
    Ok(())
}
