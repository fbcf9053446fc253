//! Secrets: put by an admin, opened by a node, found nowhere else.

use std::fs;
use std::path::Path;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use gantry_model::key::PresentedKey;
use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::ResourceId;
use gantry_wire::sync_v1::SecretId;
use tonic::Code;

use crate::harness::{ADMIN_TOKEN, Harness, Result, acme, admin, agent};
use crate::node::Process;

const CANARY: &str = "canary-0123456789-abcdefghij-canary";

/// Every file below a directory that holds any of the texts.
fn files_with(directory: &Path, texts: &[Vec<u8>]) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files_with(&path, texts)?);
            continue;
        }
        let bytes = fs::read(&path)?;
        let holds = |text: &Vec<u8>| bytes.windows(text.len()).any(|window| window == text);
        if texts.iter().any(holds) {
            found.push(path.display().to_string());
        }
    }
    Ok(found)
}

/// A secret in the forms in which it might be written down: the inside of a base64 text depends on its place.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
    let shifted = |by: usize| STANDARD_NO_PAD.encode([vec![0; by], secret.to_vec()].concat());
    let inside = |by: usize| shifted(by).into_bytes()[4..4 + secret.len()].to_vec();
    vec![secret.to_vec(), hex.to_uppercase().into_bytes(), hex.into_bytes(), inside(0), inside(1), inside(2)]
}

#[tokio::test]
async fn a_secret_reaches_the_node_and_no_file() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let put = harness.put_secret("token", CANARY).await?;
    assert_eq!(put.version, 1);
    let update = process.follow(&mut connection).await?;
    assert_eq!((update.revision, update.upserts.len(), update.secrets.len()), (put.revision, 0, 1));
    assert_eq!(process.secrets["token"], CANARY.as_bytes());

    let rotated = harness.put_secret("token", &CANARY.replace("canary", "rotate")).await?;
    assert_eq!(rotated.version, 2);
    process.follow(&mut connection).await?;
    assert_eq!(process.secrets["token"], CANARY.replace("canary", "rotate").as_bytes());
    // A snapshot brings it too, to this process and to another.
    let mut other = Process::new("other")?;
    other.join(harness.address()).await?;
    assert_eq!(other.secrets, process.secrets);

    let keys = process.node_keys.clone().ok_or("node keys")?;
    let created = harness.create_key("bot").await?;
    let presented: PresentedKey = created.key.parse()?;
    let directory = harness.stop().await?;
    let secrets = [
        CANARY.as_bytes().to_vec(),
        CANARY.replace("canary", "rotate").into_bytes(),
        keys.key_hash_key,
        keys.session_key,
        presented.secret.expose().to_vec(),
    ];
    let texts: Vec<Vec<u8>> = secrets.iter().flat_map(|secret| forms(secret)).collect();
    assert_eq!(files_with(directory.path(), &texts)?, [""; 0]);
    // The search finds what is there: resources are stored in the clear.
    assert!(!files_with(directory.path(), &[b"http://127.0.0.1:9/mcp".to_vec()])?.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_node_can_check_a_key_with_what_it_was_sent() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let created = harness.create_key("bot").await?;
    process.follow(&mut connection).await?;

    let presented: PresentedKey = created.key.parse()?;
    let record = gantry_wire::decode_record(&process.entries[&format!("acme/key/{}", presented.id)])?;
    let gantry_model::record::RecordValue::AgentKey(stored) = record.value else {
        return Err("a key".into());
    };
    let keys = process.node_keys.ok_or("node keys")?;
    let hasher = hmac::Key::new(hmac::HMAC_SHA256, &keys.key_hash_key);
    assert_eq!(hmac::sign(&hasher, presented.secret.expose()).as_ref(), stored.hash);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_goes_with_its_credential() -> Result {
    let mut harness = Harness::start().await?;
    let mut documents = acme();
    documents[3] = serde_json::json!({"kind": "Server", "tenant": "acme", "name": "files",
        "spec": {"url": "http://127.0.0.1:9/mcp"}});
    harness.apply(&documents).await?;
    harness.put_secret("token", "hunter2").await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let id = ResourceId { kind: "Credential".into(), tenant: "acme".into(), name: "token".into() };
    harness.admin.delete(DeleteRequest { ids: vec![id], ..Default::default() }).await?;
    let update = process.follow(&mut connection).await?;
    assert_eq!(update.secret_deletes, [SecretId { tenant: "acme".into(), credential: "token".into() }]);
    assert_eq!(process.secrets.len(), 0);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn secrets_that_are_put_at_the_same_time_all_get_versions_of_their_own() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let putting: Vec<_> = (0..5)
        .map(|index| {
            let address = harness.address();
            tokio::spawn(async move {
                let mut admin = admin(address, Some(ADMIN_TOKEN)).await?;
                let (tenant, name) = ("acme".into(), "token".into());
                let secret = format!("secret-{index}").into_bytes();
                let put = admin
                    .put_credential(PutCredentialRequest { tenant, name, secret, ..Default::default() })
                    .await?;
                Result::Ok(put.into_inner().version)
            })
        })
        .collect();
    let mut versions = Vec::new();
    for put in putting {
        versions.push(put.await??);
    }
    versions.sort_unstable();
    assert_eq!(versions, [1, 2, 3, 4, 5]);
    // Also those that did not get through with their first attempt.
    let request = TailRecordsRequest { last: 100, admin: true, ..Default::default() };
    let mut records = harness.admin.tail_records(request).await?.into_inner();
    let mut outcomes = Vec::new();
    while let Some(answer) = records.message().await? {
        let record: serde_json::Value = serde_json::from_slice(&answer.record)?;
        if record["method"] == "PutCredential" {
            assert!(record["problems"].is_null() && record["revision"].is_u64(), "{record}");
            outcomes.push(record["outcome"].clone());
        }
    }
    assert_eq!(outcomes, ["ok"; 5]);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_that_cannot_be_used_is_refused_where_it_is_put() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[agent("other")]).await?;
    let mut put = async |credential: &str, secret: &str| -> Option<Code> {
        let (tenant, name, secret) = ("acme".into(), credential.into(), secret.into());
        let refused = harness
            .admin
            .put_credential(PutCredentialRequest { tenant, name, secret, ..Default::default() })
            .await;
        refused.err().map(|status| status.code())
    };
    assert_eq!(put("tokn", "hunter2").await, Some(Code::NotFound));
    assert_eq!(put("token", "hunter2\n").await, Some(Code::InvalidArgument));
    assert_eq!(put("token", "").await, Some(Code::InvalidArgument));
    assert_eq!(put("token", "hunter2").await, None);
    harness.stop().await?;
    Ok(())
}
