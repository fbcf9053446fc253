//! Admins: who they are, what each may do, and the record of every call.

use gantry_wire::admin_v1::*;
use serde_json::{Value, json};
use tonic::Code;

use crate::harness::{ADMIN_TOKEN, Admin, Harness, Result, acme, admin, agent, resources};
use crate::node::Process;

/// Makes an admin; answers with a client of his, and his token.
pub(crate) async fn make(harness: &mut Harness, name: &str, roles: &[&str]) -> Result<(Admin, String)> {
    let request = CreateAdminRequest {
        name: name.to_owned(),
        roles: roles.iter().map(|role| (*role).to_owned()).collect(),
        ..Default::default()
    };
    let made = harness.admin.create_admin(request).await?.into_inner();
    Ok((admin(harness.address(), Some(&made.token)).await?, made.token))
}

fn tenant(name: &str) -> Value {
    json!({"kind": "Tenant", "name": name})
}

fn code<T>(answer: std::result::Result<T, tonic::Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// The records that an admin may read.
async fn records(admin: &mut Admin) -> Result<Vec<Value>> {
    let request = TailRecordsRequest { last: 1_000, admin: true, ..Default::default() };
    let mut stream = admin.tail_records(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(answer) = stream.message().await? {
        let record: Value = serde_json::from_slice(&answer.record)?;
        // This call itself may have its record by now, or not yet.
        if record["method"] != "TailRecords" {
            records.push(record);
        }
    }
    Ok(records)
}

#[tokio::test]
async fn each_role_may_do_what_it_names_and_nothing_else() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut codes = Vec::new();
    for role in
        ["cluster-admin", "tenant-admin:acme", "read-only", "read-only:acme", "auditor", "auditor:acme"]
    {
        let (mut admin, _) = make(&mut harness, &role.replace(':', "-"), &[role]).await?;
        let apply = ApplyRequest { resources: resources(&[agent("bot")])?, ..Default::default() };
        let tail = TailRecordsRequest { last: 1, ..Default::default() };
        codes.push((
            role,
            [
                code(admin.get(GetRequest::default()).await),
                code(admin.apply(apply).await),
                code(admin.tail_records(tail).await),
                code(admin.list_members(ListMembersRequest {}).await),
                code(admin.rotate_node_keys(RotateNodeKeysRequest { force: true }).await),
                code(admin.list_admins(ListAdminsRequest::default()).await),
                code(admin.who_am_i(WhoAmIRequest {}).await),
            ],
        ));
    }
    let (ok, no) = (Code::Ok, Code::PermissionDenied);
    let expected = vec![
        ("cluster-admin", [ok, ok, ok, ok, ok, ok, ok]),
        ("tenant-admin:acme", [ok, ok, ok, no, no, no, ok]),
        ("read-only", [ok, no, no, ok, no, no, ok]),
        ("read-only:acme", [ok, no, no, no, no, no, ok]),
        ("auditor", [no, no, ok, no, no, no, ok]),
        ("auditor:acme", [no, no, ok, no, no, no, ok]),
    ];
    assert_eq!(codes, expected);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_token_counts_until_it_is_rotated_out_or_its_admin_is_gone() -> Result {
    let mut harness = Harness::start().await?;
    let (mut alice, first) = make(&mut harness, "alice", &["auditor"]).await?;
    let whoami = alice.who_am_i(WhoAmIRequest {}).await?.into_inner();
    let id = whoami.tokens[0].id.clone();
    assert_eq!(
        (&*whoami.name, &*whoami.roles, whoami.proof),
        ("alice", &["auditor".to_owned()][..], format!("token {id}"))
    );

    // With grace both count, without the older one is gone.
    let rotate = |name: &str, grace_seconds| RotateAdminTokenRequest {
        name: name.into(),
        grace_seconds,
        ..Default::default()
    };
    let second = alice.rotate_admin_token(rotate("", 60)).await?.into_inner();
    let mut with_second = admin(harness.address(), Some(&second.token)).await?;
    assert_eq!(code(alice.who_am_i(WhoAmIRequest {}).await), Code::Ok);
    assert_eq!(code(with_second.who_am_i(WhoAmIRequest {}).await), Code::Ok);
    assert_eq!(code(with_second.rotate_admin_token(rotate("bob", 0)).await), Code::PermissionDenied);
    harness.admin.rotate_admin_token(rotate("alice", 0)).await?;
    for token in [&first, &second.token] {
        let mut gone = admin(harness.address(), Some(token)).await?;
        assert_eq!(code(gone.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);
    }

    let (mut bob, _) = make(&mut harness, "bob", &["auditor"]).await?;
    assert_eq!(code(bob.who_am_i(WhoAmIRequest {}).await), Code::Ok);
    harness.admin.delete_admin(DeleteAdminRequest { name: "bob".into(), ..Default::default() }).await?;
    assert_eq!(code(bob.who_am_i(WhoAmIRequest {}).await), Code::Unauthenticated);

    // They outlive a restart, and no token lies on the disk.
    let directory = harness.stop().await?;
    let mut harness = Harness::start_in(directory).await?;
    let listed = harness.admin.list_admins(ListAdminsRequest::default()).await?.into_inner();
    let names: Vec<&str> = listed.admins.iter().map(|admin| &*admin.name).collect();
    assert_eq!(names, ["alice"]);
    let root = harness.admin.who_am_i(WhoAmIRequest {}).await?.into_inner();
    assert_eq!((&*root.name, &*root.proof), ("root", "start token"));
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn whoever_holds_a_token_cannot_make_another_that_lasts_longer() -> Result {
    let mut harness = Harness::start().await?;
    let made = CreateAdminRequest {
        name: "alice".into(),
        roles: vec!["auditor".into()],
        expires_in_seconds: 3_600,
        ..Default::default()
    };
    let first = harness.admin.create_admin(made).await?.into_inner();
    let mut alice = admin(harness.address(), Some(&first.token)).await?;
    let rotate = |expires_in_seconds| RotateAdminTokenRequest {
        grace_seconds: 600,
        expires_in_seconds,
        ..Default::default()
    };
    let second = alice.rotate_admin_token(rotate(0)).await?.into_inner();
    assert_eq!(second.expires_at_ms, first.expires_at_ms, "for ever is not to be had");
    let whoami = alice.who_am_i(WhoAmIRequest {}).await?.into_inner();
    let ends: Vec<u64> = whoami.tokens.iter().map(|token| token.expires_at_ms).collect();
    assert!(ends[0] < first.expires_at_ms && ends[1] == first.expires_at_ms, "{ends:?}");
    // The first one counts still, and gives no other.
    let refused = alice.rotate_admin_token(rotate(60)).await.expect_err("it is rotated out");
    let told = "the token that asks was rotated out; ask with the newest one of alice";
    assert_eq!((refused.code(), refused.message()), (Code::FailedPrecondition, told));
    let mut alice = admin(harness.address(), Some(&second.token)).await?;
    let third = alice.rotate_admin_token(rotate(60)).await?.into_inner();
    assert!(third.expires_at_ms < first.expires_at_ms, "a shorter one is");

    // Whoever may make admins may as well make himself another.
    let of_root = RotateAdminTokenRequest { name: "alice".into(), ..rotate(0) };
    assert_eq!(harness.admin.rotate_admin_token(of_root).await?.into_inner().expires_at_ms, 0);
    let made = CreateAdminRequest {
        name: "carol".into(),
        roles: vec!["cluster-admin".into()],
        expires_in_seconds: 60,
        ..Default::default()
    };
    let carols = harness.admin.create_admin(made).await?.into_inner().token;
    let mut carol = admin(harness.address(), Some(&carols)).await?;
    assert_eq!(carol.rotate_admin_token(rotate(0)).await?.into_inner().expires_at_ms, 0);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn every_call_has_a_record_the_refused_ones_too_and_none_has_a_secret() -> Result {
    let mut harness = Harness::start().await?;
    let revision = harness.apply(&acme()).await?;
    harness.put_secret("token", "hunter2-hunter2").await?;
    let (mut alice, token) = make(&mut harness, "alice", &["read-only:acme"]).await?;
    let key = "gantry_0102030405060708_ab";
    let revoke = RevokeKeyRequest { tenant: "acme".into(), id: key.into(), ..Default::default() };
    assert_eq!(code(harness.admin.revoke_key(revoke).await), Code::InvalidArgument);
    let delete = DeleteAdminRequest { name: "alice".into(), ..Default::default() };
    assert_eq!(code(alice.delete_admin(delete).await), Code::PermissionDenied);
    let get = GetRequest { tenant: "hunter2".into(), name: "Hunter 2".into(), ..Default::default() };
    assert_eq!(code(alice.get(get).await), Code::InvalidArgument);
    let mut nobody = admin(harness.address(), Some("hunter2-hunter2")).await?;
    assert_eq!(code(nobody.status(StatusRequest {}).await), Code::Unauthenticated);
    let bad = harness
        .try_apply(&[json!({"kind": "Endpoint", "tenant": "acme", "name": "x", "spec": {"servers": ["y"]}})])
        .await?;
    assert_eq!(bad.problems.len(), 1);

    let of = |record: &Value| {
        let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
        (text("admin"), text("method"), text("tenant"), text("outcome"), record["resources"].to_string())
    };
    let kept = records(&mut harness.admin).await?;
    let told: Vec<_> = kept.iter().map(of).collect();
    let row = |admin: &str, method: &str, tenant: &str, outcome: &str, resources: &str| {
        (admin.to_owned(), method.to_owned(), tenant.to_owned(), outcome.to_owned(), resources.to_owned())
    };
    let all = r#"["Tenant acme","Agent bot","Credential token","Server files","Endpoint main"]"#;
    let expected = vec![
        row("root", "Apply", "acme", "ok", all),
        row("root", "PutCredential", "acme", "ok", r#"["Credential token"]"#),
        row("root", "CreateAdmin", "-", "ok", r#"["admin alice"]"#),
        row("root", "RevokeKey", "acme", "refused", "[]"),
        row("alice", "DeleteAdmin", "-", "denied", "[]"),
        row("alice", "Get", "acme", "refused", r#"["any (no name)"]"#),
        row("-", "Status", "-", "unauthenticated", "[]"),
        row("root", "Apply", "acme", "refused", r#"["Endpoint x"]"#),
    ];
    assert_eq!(told, expected);
    assert_eq!(kept[0]["revision"], revision);
    assert!(kept[0]["address"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
    let id = kept[4]["decision_id"].as_str().ok_or("an id")?.to_owned();
    let explained = harness.admin.explain(ExplainRequest { decision_id: id }).await?.into_inner();
    assert_eq!(serde_json::from_slice::<Value>(&explained.record)?, kept[4]);

    let directory = harness.stop().await?;
    let file = std::fs::read_to_string(directory.path().join("admin-audit.jsonl"))?;
    let lines: Vec<Value> = file.lines().map(serde_json::from_str).collect::<std::result::Result<_, _>>()?;
    assert_eq!(lines[..kept.len()], kept[..]);
    let secret = token.rsplit('_').next().ok_or("a secret")?;
    for hidden in [ADMIN_TOKEN, "hunter2-hunter2", "Hunter 2", key, secret] {
        assert!(!file.contains(hidden), "{hidden}");
    }
    Ok(())
}

#[tokio::test]
async fn an_admin_of_a_tenant_makes_and_ends_no_tenant_and_does_not_learn_of_others() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[tenant("globex")]).await?;
    let (mut alice, _) = make(&mut harness, "alice", &["tenant-admin:acme"]).await?;
    let mut told = Vec::new();
    for name in ["globex", "nobody"] {
        let of = json!({"kind": "Agent", "tenant": name, "name": "x"});
        let make = ApplyRequest { resources: resources(&[tenant(name), of.clone()])?, ..Default::default() };
        let put = ApplyRequest { resources: resources(&[of])?, ..Default::default() };
        let id = gantry_wire::resource_v1::ResourceId {
            kind: "Tenant".into(),
            tenant: name.into(),
            name: name.into(),
        };
        let end = DeleteRequest { ids: vec![id], ..Default::default() };
        let text = format!(
            "{:?} {:?} {:?}",
            alice.apply(make).await.map_err(|status| (status.code(), status.message().to_owned())).err(),
            alice.apply(put).await?.into_inner(),
            alice.delete(end).await.map_err(|status| (status.code(), status.message().to_owned())).err(),
        );
        told.push(text.replace(name, "THAT"));
    }
    assert_eq!(told[0], told[1]);
    assert!(
        told[0].contains("may not make Tenant THAT") && told[0].contains("may not delete Tenant THAT"),
        "{}",
        told[0]
    );
    let own = ApplyRequest { resources: resources(&acme())?, ..Default::default() };
    assert_eq!(alice.apply(own).await?.into_inner().problems, []);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_tenant_reads_the_records_of_its_own_calls_and_of_nobody_elses() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[tenant("globex")]).await?;
    let (mut alice, _) = make(&mut harness, "alice", &["auditor:acme", "read-only:acme"]).await?;
    let (mut greta, _) = make(&mut harness, "greta", &["read-only:globex"]).await?;
    // Greta asks for what is not hers.
    let listing = ListKeysRequest { tenant: "acme".into(), agent: String::new() };
    assert_eq!(code(greta.list_keys(listing.clone()).await), Code::NotFound);
    alice.list_keys(listing).await?;
    let own = records(&mut alice).await?;
    let told: Vec<_> = own.iter().map(|record| (&record["admin"], &record["method"])).collect();
    assert_eq!(told, [(&json!("root"), &json!("Apply")), (&json!("alice"), &json!("ListKeys")),]);
    // Calls of agents likewise.
    let process = Process::new("node")?;
    let connection = process.connect(harness.address()).await?;
    let record = |id: &str, tenant: &str| json!({"decision_id": id, "tenant": tenant, "verdict": "deny"});
    let report = gantry_wire::sync_v1::RecordReport {
        records: [record("d1", "acme"), record("d2", "globex")]
            .map(|record| record.to_string().into_bytes())
            .to_vec(),
        dropped: 0,
    };
    let request = TailRecordsRequest { follow: true, ..Default::default() };
    let mut all = harness.admin.tail_records(request.clone()).await?.into_inner();
    let mut acmes = alice.tail_records(request).await?.into_inner();
    connection.send(gantry_wire::sync_v1::node_message::Message::Records(report)).await?;
    let first = acmes.message().await?.ok_or("a record")?;
    assert_eq!(serde_json::from_slice::<Value>(&first.record)?, record("d1", "acme"));
    for _ in 0..2 {
        all.message().await?.ok_or("a record")?;
    }
    let explain = async |admin: &mut Admin, id: &str| {
        let asked = admin.explain(ExplainRequest { decision_id: id.into() }).await;
        asked.map(|answer| answer.into_inner().record).map_err(|status| status.message().replace(id, "ID"))
    };
    assert_eq!(explain(&mut alice, "d2").await, explain(&mut alice, "d9").await, "as if it were not there");
    assert!(explain(&mut alice, "d1").await.is_ok());
    let last = explain(&mut alice, "last").await?;
    assert_eq!(serde_json::from_slice::<Value>(&last)?, record("d1", "acme"), "the newest is globex's");
    // Who follows is cut off with the next record after he is gone.
    harness.admin.delete_admin(DeleteAdminRequest { name: "alice".into(), ..Default::default() }).await?;
    let report = gantry_wire::sync_v1::RecordReport {
        records: vec![record("d3", "acme").to_string().into_bytes()],
        dropped: 0,
    };
    connection.send(gantry_wire::sync_v1::node_message::Message::Records(report)).await?;
    let cut = acmes.message().await.map(|_| ()).map_err(|status| status.code());
    assert_eq!(cut, Err(Code::Unauthenticated));
    harness.stop().await?;
    Ok(())
}
