//! Policies: refused where they cannot mean what they say, and asked for verdicts.

use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::{Catalog, Definition};
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{CatalogReport, ServerFailure};
use serde_json::json;

use crate::harness::{Harness, Result, acme, eventually, policy};
use crate::node::{Connection, Process};

pub(crate) fn catalog(tools: &[&str]) -> Catalog {
    let definition = |name: &&str| {
        let json =
            json!({"name": name, "description": format!("does {name}"), "inputSchema": {"type": "object"}});
        Definition { name: (*name).to_owned(), json: json.to_string(), hash: Vec::new() }
    };
    Catalog {
        tenant: "acme".into(),
        server: "files".into(),
        tools: tools.iter().map(definition).collect(),
        revisions: vec!["2025-11-25".into()],
        ..Catalog::default()
    }
}

pub(crate) async fn report(connection: &Connection, catalog: Catalog) -> Result {
    connection.send(Message::Catalog(CatalogReport { catalog: Some(catalog), failure: None })).await
}

/// A tenant whose server offers two tools.
async fn with_tools() -> Result<(Harness, Process, Connection)> {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, update) = process.join(harness.address()).await?;
    report(&connection, catalog(&["read_file", "write_file"])).await?;
    let recorded = process.follow(&mut connection).await?;
    let keys: Vec<_> = recorded.upserts.iter().map(|entry| entry.key.as_str()).collect();
    assert_eq!((recorded.from_revision, keys), (update.revision, vec!["acme/catalog/files"]));
    Ok((harness, process, connection))
}

#[tokio::test]
async fn a_policy_with_a_syntax_error_is_refused_with_line_and_column() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let before = harness.status().await?.revision;
    let cedar = "permit(principal, action, resource);\npermit(principal, action resource);";
    let response = harness
        .try_apply(&[policy("good", "permit(principal, action, resource);"), policy("bad", cedar)])
        .await?;
    let problem = response.problems.first().ok_or("a problem")?;
    assert_eq!((problem.index, problem.path.as_str()), (1, "spec.cedar"));
    assert!(problem.message.starts_with("line 2, column 26: "), "{}", problem.message);
    assert_eq!((response.revision, response.results), (0, vec![]));
    assert_eq!(harness.status().await?.revision, before, "nothing was proposed");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_names_an_unknown_tool_is_refused_and_the_nearest_is_named() -> Result {
    let (mut harness, _process, _connection) = with_tools().await?;
    let cedar = "permit(principal, action, resource == Tool::\"files/read_flie\");";
    let response = harness.try_apply(&[policy("readers", cedar)]).await?;
    let message =
        "line 1, column 39: there is no Tool \"files/read_flie\" (nearest: Tool::\"files/read_file\")";
    let problem =
        Problem { index: 0, path: "spec.cedar".into(), message: message.into(), nearest: String::new() };
    assert_eq!(response, ApplyResponse { problems: vec![problem], ..ApplyResponse::default() });

    let request = CheckPolicyRequest { tenant: "acme".into(), name: String::new(), cedar: cedar.into() };
    let checked = harness.admin.check_policy(request).await?.into_inner();
    let problem = PolicyProblem {
        line: 1,
        column: 39,
        message: "there is no Tool \"files/read_flie\"".into(),
        help: "nearest: Tool::\"files/read_file\"".into(),
    };
    assert_eq!(checked, CheckPolicyResponse { problems: vec![problem], warnings: vec![], policy_count: 1 });
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_set_may_bring_a_policy_together_with_what_it_names() -> Result {
    let mut harness = Harness::start().await?;
    let mut documents = acme();
    documents.insert(
        1,
        policy("ops", "permit(principal in Group::\"ops\", action, resource == Tool::\"files/anything\");"),
    );
    let response = harness.try_apply(&documents).await?;
    assert_eq!(response.problems, []);
    let warning =
        "Policy acme/ops: server `files` has no recorded catalog yet, so its tool names are not checked";
    assert_eq!(response.warnings, [warning]);

    let gone = json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {}});
    let response = harness.try_apply(&[gone]).await?;
    assert_eq!(response.problems, []);
    let [warning] = response.warnings.as_slice() else { return Err(format!("{response:?}").into()) };
    assert!(
        warning.starts_with("Policy acme/ops: line 1, column 21: there is no Group \"ops\""),
        "{warning}"
    );
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_fits_no_more_is_warned_of_when_it_is_applied_again_unchanged() -> Result {
    let (mut harness, mut process, mut connection) = with_tools().await?;
    let readers = policy("readers", "permit(principal, action, resource == Tool::\"files/read_file\");");
    harness.apply(std::slice::from_ref(&readers)).await?;
    process.follow(&mut connection).await?;
    report(&connection, catalog(&["write_file"])).await?;
    process.follow(&mut connection).await?;

    let response = harness.try_apply(&[readers]).await?;
    assert_eq!(response.problems, []);
    let [warning] = response.warnings.as_slice() else { return Err(format!("{response:?}").into()) };
    let expected = "Policy acme/readers is stored as it is, but line 1, column 39: there is no Tool";
    assert!(warning.starts_with(expected), "{warning}");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn tools_are_listed_with_the_verdict_for_an_agent() -> Result {
    let (mut harness, _process, _connection) = with_tools().await?;
    let cedar =
        "@id(\"read\") permit(principal in Group::\"ops\", action, resource == Tool::\"files/read_file\");";
    harness.apply(&[policy("readers", cedar)]).await?;
    let request =
        |agent: &str| ListToolsRequest { tenant: "acme".into(), agent: agent.into(), ..Default::default() };
    let listed = harness.admin.list_tools(request("bot")).await?.into_inner();
    let told: Vec<_> = listed
        .tools
        .iter()
        .map(|tool| (tool.name.as_str(), tool.verdict(), tool.policies.join(","), tool.description.as_str()))
        .collect();
    let expected = [
        ("read_file", Verdict::Allow, "readers/read".to_owned(), "does read_file"),
        ("write_file", Verdict::Deny, String::new(), "does write_file"),
    ];
    assert_eq!(told, expected);
    assert_eq!(listed.warnings, [""; 0]);
    let without = harness.admin.list_tools(request("")).await?.into_inner();
    assert!(without.tools.iter().all(|tool| tool.verdict() == Verdict::Unspecified));

    // Whole definitions are told of one server.
    assert!(without.tools.iter().all(|tool| tool.definition.is_empty()));
    let whole = |server: &str| ListToolsRequest { server: server.into(), definitions: true, ..request("") };
    let of_one = harness.admin.list_tools(whole("files")).await?.into_inner();
    assert!(of_one.tools.iter().all(|tool| tool.definition.contains("inputSchema")), "{of_one:?}");
    let refused = harness.admin.list_tools(whole("")).await.err().ok_or("it is refused")?;
    assert_eq!(
        (refused.code(), refused.message()),
        (tonic::Code::InvalidArgument, "definitions are told of one server; name it in `server`")
    );
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_catalog_is_recorded_once_and_a_server_that_cannot_be_asked_shows_in_the_status() -> Result {
    let (mut harness, process, connection) = with_tools().await?;
    let failure = |message: &str| {
        let (tenant, server, message) = ("acme".into(), "files".into(), message.into());
        let failure = Some(ServerFailure { tenant, server, message });
        Message::Catalog(CatalogReport { catalog: None, failure })
    };
    let server = |failure: &str| ServerStatus {
        tenant: "acme".into(),
        name: "files".into(),
        tool_count: 2,
        revisions: vec!["2025-11-25".into()],
        failure: failure.into(),
        quarantined_count: 0,
    };
    assert_eq!(harness.status().await?.servers, [server("")]);
    connection.send(failure("connection refused")).await?;
    let refused = server("connection refused");
    eventually(async || harness.status().await, |status| status.servers == [refused.clone()]).await?;

    // The same catalog again: the failure goes, and nothing is written.
    report(&connection, catalog(&["read_file", "write_file"])).await?;
    let status = eventually(async || harness.status().await, |status| status.servers == [server("")]).await?;
    assert_eq!(status.revision, process.revision);

    // One that cannot be recorded is a failure too.
    report(&connection, catalog(&["twice", "twice"])).await?;
    let status =
        eventually(async || harness.status().await, |status| !status.servers[0].failure.is_empty()).await?;
    let message = "what the server offers cannot be recorded: catalog: tools has \"twice\" twice";
    assert_eq!(status.servers, [server(message)]);
    assert_eq!(status.revision, process.revision);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn more_statements_than_a_tenant_may_have_are_refused_at_the_policy_that_brings_them() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let half = "permit(principal, action, resource);".repeat(gantry_policy::STATEMENTS_MAX / 2);
    harness.apply(&[policy("first", &half), policy("second", &half)]).await?;
    let one = "permit(principal, action, resource);";
    let response = harness.try_apply(&[crate::harness::agent("new"), policy("third", one)]).await?;
    let message = "policy third brings the statements of its tenant over 12288";
    let problem =
        Problem { index: 1, path: "spec.cedar".into(), message: message.into(), nearest: String::new() };
    assert_eq!(response, ApplyResponse { problems: vec![problem], ..ApplyResponse::default() });
    harness.stop().await?;
    Ok(())
}
