//! The admin service: tokens, sets of documents, keys.

use gantry_control_plane::{Options, OptionsError, StartError};
use gantry_wire::admin_v1::*;
use serde_json::json;
use tonic::Code;

use crate::harness::{
    ADMIN_TOKEN, Harness, NODE_TOKEN, Result, acme, admin, agent, options, policy, resources,
};
use crate::node::Connection;

#[tokio::test]
async fn a_call_without_the_right_token_is_refused() -> Result {
    let harness = Harness::start().await?;
    for token in [None, Some("wrong"), Some(NODE_TOKEN)] {
        let mut admin = admin(harness.address(), token).await?;
        let refused = admin.status(StatusRequest {}).await.map_err(|status| status.code());
        assert_eq!(refused.err(), Some(Code::Unauthenticated), "{token:?}");
    }
    for token in [None, Some("wrong"), Some(ADMIN_TOKEN)] {
        let refused = Connection::open(harness.address(), token).await?.map(|_| ());
        assert_eq!(refused.map_err(|status| status.code()), Err(Code::Unauthenticated), "{token:?}");
    }
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn an_address_that_others_can_reach_is_refused() -> Result {
    let directory = tempfile::tempdir()?;
    let everywhere = Options { listen: ([0, 0, 0, 0], 0).into(), ..options(directory.path()) };
    let refused = gantry_control_plane::start(everywhere).await.err();
    let expected = OptionsError::NotLoopback(([0, 0, 0, 0], 0).into());
    assert!(matches!(&refused, Some(StartError::Options(error)) if *error == expected), "{refused:?}");
    assert_eq!(std::fs::read_dir(directory.path())?.count(), 0, "nothing was made");
    Ok(())
}

#[tokio::test]
async fn one_bad_document_among_ten_good_ones_refuses_them_all() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let before = harness.stored().await?;

    let mut documents: Vec<_> = (0..10).map(|index| agent(&format!("agent-{index}"))).collect();
    let bad = json!({"kind": "Endpoint", "tenant": "acme", "name": "other", "spec": {"servers": ["flies"]}});
    documents.insert(4, bad);
    let response = harness.try_apply(&documents).await?;
    let problem = Problem {
        index: 4,
        path: "spec.servers[0]".into(),
        message: "there is no Server acme/flies".into(),
        nearest: "files".into(),
    };
    assert_eq!(response, ApplyResponse { problems: vec![problem], ..ApplyResponse::default() });
    assert_eq!(harness.stored().await?, before);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_document_that_breaks_a_rule_of_its_kind_is_refused_with_its_path() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut request = ApplyRequest {
        resources: resources(&[agent("good"), agent("bad")])?,
        dry_run: false,
        ..Default::default()
    };
    request.resources[1].name = "Bad Name".into();
    request.resources.push(Default::default());
    let response = harness.admin.apply(request).await?.into_inner();
    let told: Vec<_> =
        response.problems.iter().map(|problem| (problem.index, problem.path.as_str())).collect();
    assert_eq!(told, [(1, "name"), (2, "spec")]);
    assert_eq!(response.revision, 0);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_dry_run_tells_what_would_happen_and_changes_nothing() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let before = harness.status().await?.revision;
    let changed = json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {"groups": ["dev"]}});
    let documents = resources(&[acme()[0].clone(), changed, agent("new")])?;
    let request = ApplyRequest { resources: documents, dry_run: true, ..Default::default() };
    let response = harness.admin.apply(request).await?.into_inner();
    let result = |kind: &str, name: &str, change: Change, before| AppliedResource {
        kind: kind.into(),
        tenant: "acme".into(),
        name: name.into(),
        change: change.into(),
        before,
    };
    let stored = resources(&acme()[1..2])?.pop();
    let expected = ApplyResponse {
        revision: 0,
        results: vec![
            result("Tenant", "acme", Change::Unchanged, None),
            result("Agent", "bot", Change::Updated, stored),
            result("Agent", "new", Change::Created, None),
        ],
        problems: vec![],
        warnings: vec![],
        against: before,
    };
    assert_eq!(response, expected);
    assert_eq!(harness.status().await?.revision, before);
    assert!(!harness.stored().await?.contains(&"Agent acme/new".to_owned()));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn what_is_still_named_is_not_deleted_and_a_policy_that_names_it_is_warned_of() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let cedar = "permit(principal == Agent::\"bot\", action, resource);";
    harness.apply(&[policy("for-bot", cedar)]).await?;
    let id = |kind: &str, name: &str| gantry_wire::resource_v1::ResourceId {
        kind: kind.into(),
        tenant: "acme".into(),
        name: name.into(),
    };

    let request =
        DeleteRequest { ids: vec![id("Agent", "bot"), id("Server", "files")], ..Default::default() };
    let refused = harness.admin.delete(request).await?.into_inner();
    let problem = Problem {
        index: 1,
        path: String::new(),
        message: "Server acme/files is still named by Endpoint acme/main".into(),
        nearest: String::new(),
    };
    assert_eq!(refused, DeleteResponse { problems: vec![problem], ..DeleteResponse::default() });

    let deleted = harness
        .admin
        .delete(DeleteRequest { ids: vec![id("Agent", "bot")], ..Default::default() })
        .await?
        .into_inner();
    assert_eq!(deleted.results.len(), 1);
    assert_eq!(deleted.results[0].change(), Change::Deleted);
    assert_eq!(
        deleted.warnings,
        ["Policy acme/for-bot: line 1, column 21: there is no Agent \"bot\""],
        "{deleted:?}"
    );

    let missing = harness
        .admin
        .delete(DeleteRequest { ids: vec![id("Server", "flies")], ..Default::default() })
        .await?
        .into_inner();
    let told: Vec<_> =
        missing.problems.iter().map(|problem| (&*problem.message, &*problem.nearest)).collect();
    assert_eq!(told, [("there is no Server acme/flies", "files")]);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_key_is_shown_once_listed_without_its_secret_and_revoked() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let created = harness.create_key("bot").await?;
    assert!(created.key.starts_with(&format!("gantry_{}_", created.id)), "{}", created.id);
    let listing = ListKeysRequest { tenant: "acme".into(), agent: String::new() };
    let keys = harness.admin.list_keys(listing.clone()).await?.into_inner().keys;
    assert_eq!(keys.len(), 1);
    assert_eq!(
        (keys[0].id.as_str(), keys[0].agent.as_str(), keys[0].expires_at_ms),
        (&*created.id, "bot", 0)
    );
    assert!(keys[0].created_at_ms > 0);

    let request = RevokeKeyRequest { tenant: "acme".into(), id: created.id, ..Default::default() };
    let revoked = harness.admin.revoke_key(request.clone()).await?.into_inner();
    assert!(revoked.revision > created.revision);
    let keys = harness.admin.list_keys(listing).await?.into_inner().keys;
    assert_eq!((keys.len(), keys[0].revoked_at_ms > 0), (1, true));
    let again = harness.admin.revoke_key(request.clone()).await?.into_inner();
    assert_eq!(again.revision, revoked.revision, "it stays as it was");
    let unknown = RevokeKeyRequest { id: "0000000000000000".into(), ..request.clone() };
    let unknown = harness.admin.revoke_key(unknown).await.map_err(|status| status.code());
    assert_eq!(unknown.err(), Some(Code::NotFound));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_call_about_what_is_not_there_names_the_nearest_and_the_next_command() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let request = |tenant: &str, agent: &str| CreateKeyRequest {
        tenant: tenant.into(),
        agent: agent.into(),
        expires_in_seconds: 0,
        ..Default::default()
    };
    let told = |refused: std::result::Result<_, tonic::Status>| {
        refused
            .map(|_: tonic::Response<CreateKeyResponse>| ())
            .map_err(|status| (status.code(), status.message().to_owned()))
    };
    let refused = told(harness.admin.create_key(request("acme", "bott")).await);
    let message = "there is no Agent acme/bott; nearest: bot; `gantry get agent` lists what is there";
    assert_eq!(refused, Err((Code::NotFound, message.into())));
    let refused = told(harness.admin.create_key(request("amce", "bot")).await);
    let message = "there is no Tenant amce; nearest: acme; `gantry get tenant` lists what is there";
    assert_eq!(refused, Err((Code::NotFound, message.into())));
    let refused = told(harness.admin.create_key(request("A", "bot")).await);
    assert_eq!(refused.map_err(|(code, _)| code), Err(Code::InvalidArgument));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn get_answers_by_kind_tenant_and_name() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[json!({"kind": "Tenant", "name": "globex"})]).await?;
    let mut get = async |kind: &str, tenant: &str, name: &str| -> Result<usize> {
        let request = GetRequest { kind: kind.into(), tenant: tenant.into(), name: name.into() };
        Ok(harness.admin.get(request).await?.into_inner().resources.len())
    };
    assert_eq!(get("", "", "").await?, 6);
    assert_eq!(get("tenants", "", "").await?, 2);
    assert_eq!(get("", "acme", "").await?, 5);
    assert_eq!(get("Server", "acme", "files").await?, 1);
    assert_eq!(get("Server", "acme", "flies").await?, 0);
    assert!(get("sever", "", "").await.is_err());
    harness.stop().await?;
    Ok(())
}
