//! Expected revisions, from the outside.

use gantry_wire::admin_v1::*;
use serde_json::json;
use tonic::Code;

use crate::harness::{Harness, Result, acme, agent, resources};

#[tokio::test]
async fn an_apply_does_what_its_diff_has_shown_or_is_refused_with_what_changed() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let changed = json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {"groups": ["dev"]}});
    let request = |dry_run, expected_revision| -> Result<ApplyRequest> {
        Ok(ApplyRequest {
            resources: resources(&[changed.clone(), agent("new")])?,
            dry_run,
            expected_revision,
        })
    };
    let against = harness.admin.apply(request(true, None)?).await?.into_inner().against;
    assert_eq!(against, harness.status().await?.revision);

    let other = json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {"groups": ["sec"]}});
    let revision = harness.apply(&[other]).await?;
    for dry_run in [true, false] {
        let refused = harness.admin.apply(request(dry_run, Some(against))?).await?.into_inner();
        let message = format!(
            "Agent acme/bot was changed at revision {revision}, after the expected revision {against}"
        );
        let problem = Problem { message, ..Problem::default() };
        assert_eq!(refused, ApplyResponse { problems: vec![problem], ..ApplyResponse::default() });
    }
    let done = harness.admin.apply(request(false, Some(revision))?).await?.into_inner();
    assert!(done.problems.is_empty() && done.revision > revision, "{done:?}");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_set_that_changes_nothing_makes_no_revision() -> Result {
    let mut harness = Harness::start().await?;
    let revision = harness.apply(&acme()).await?;
    let log = harness.status().await?.log_last;
    let again = harness.try_apply(&acme()).await?;
    assert_eq!(again.revision, revision);
    assert!(again.results.iter().all(|result| result.change() == Change::Unchanged));
    assert_eq!(harness.status().await?.log_last, log, "nothing was written");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn keys_and_secrets_and_admins_are_guarded_too() -> Result {
    let mut harness = Harness::start().await?;
    let old = harness.apply(&acme()).await?;
    let first = harness.create_key("bot").await?;
    let now = harness.put_secret("token", "hunter2").await?.revision;
    let told = |refused: std::result::Result<(), tonic::Status>| {
        refused.map_err(|status| (status.code(), status.message().to_owned()))
    };
    let put = |expected| PutCredentialRequest {
        tenant: "acme".into(),
        name: "token".into(),
        secret: b"hunter3".to_vec(),
        expected_revision: Some(expected),
    };
    let refused = told(harness.admin.put_credential(put(old)).await.map(drop));
    let words = format!(
        "the secret of Credential acme/token was changed at revision {now}, after the expected revision {old}"
    );
    assert_eq!(refused, Err((Code::FailedPrecondition, words)));
    harness.admin.put_credential(put(now)).await?;

    let revoke = |expected_revision| RevokeKeyRequest {
        tenant: "acme".into(),
        id: first.id.clone(),
        expected_revision: Some(expected_revision),
    };
    let refused = told(harness.admin.revoke_key(revoke(old)).await.map(drop));
    let words = format!(
        "key acme/{} was changed at revision {}, after the expected revision {old}",
        first.id, first.revision
    );
    assert_eq!(refused, Err((Code::FailedPrecondition, words)));
    harness.admin.revoke_key(revoke(now)).await?;

    let create = |expected_revision| CreateAdminRequest {
        name: "alice".into(),
        roles: vec!["auditor".into()],
        expires_in_seconds: 0,
        expected_revision,
        certificate_request: Vec::new(),
    };
    let made = harness.admin.create_admin(create(None)).await?.into_inner().revision;
    let end = |expected| DeleteAdminRequest { name: "alice".into(), expected_revision: Some(expected) };
    let refused = told(harness.admin.delete_admin(end(now)).await.map(drop));
    let words = format!("admin alice was changed at revision {made}, after the expected revision {now}");
    assert_eq!(refused, Err((Code::FailedPrecondition, words)));
    let ended = harness.admin.delete_admin(end(made)).await?.into_inner().revision;
    let refused = told(harness.admin.create_admin(create(Some(made))).await.map(drop));
    let words = format!("admin alice was deleted at revision {ended}, after the expected revision {made}");
    assert_eq!(refused, Err((Code::FailedPrecondition, words)));
    harness.stop().await?;
    Ok(())
}
