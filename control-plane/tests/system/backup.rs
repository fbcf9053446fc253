//! A backup by the admin service, and a control plane that starts on what was made of it.

use std::fs;

use gantry_control_plane::member::Place;
use gantry_control_plane::{BackupKey, Restored, restore};
use gantry_wire::admin_v1::BackupRequest;
use tonic::Code;

use crate::harness::{Harness, Result, acme, policy};
use crate::node::Process;

async fn backup(harness: &mut Harness, recipient: String) -> Result<Vec<u8>> {
    let mut parts = harness.admin.backup(BackupRequest { recipient }).await?.into_inner();
    let mut bytes = Vec::new();
    while let Some(part) = parts.message().await? {
        bytes.extend(part.bytes);
    }
    Ok(bytes)
}

#[tokio::test]
async fn a_control_plane_that_is_made_of_a_backup_serves_nodes_what_the_old_one_did() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[policy("all", "permit(principal, action, resource);")]).await?;
    harness.put_secret("token", "hunter2").await?;
    let created = harness.create_key("bot").await?;
    let mut node = Process::new("node")?;
    node.join(harness.address()).await?;
    let (entries, secrets) = (node.entries.clone(), node.secrets.clone());
    let hash_key = node.node_keys.as_ref().ok_or("node keys")?.key_hash_key.clone();
    let key = BackupKey::generate()?;
    let bytes = backup(&mut harness, key.recipient().to_string()).await?;
    let (status, stored) = (harness.status().await?, harness.stored().await?);
    harness.stop().await?;

    let place = tempfile::tempdir()?;
    let file = place.path().join("backup");
    fs::write(&file, bytes)?;
    let new = tempfile::tempdir()?;
    let any = ([127, 0, 0, 1], 0).into();
    let at = Place { listen: any, peer_listen: any, advertise: any.to_string(), contacts: Vec::new() };
    let Restored { member, revision, backup, .. } = restore(&file, key, new.path(), at).await?;
    let cluster_id = member.membership.cluster().to_string();
    assert_eq!((&backup.cluster, backup.revision), (&status.cluster_id, status.revision));
    let mut harness = Harness::start_in(new).await?;
    let again = harness.status().await?;
    assert_eq!((&again.cluster_id, again.resource_count), (&cluster_id, status.resource_count));
    assert!(cluster_id != status.cluster_id && again.revision >= revision && revision > status.revision);
    assert_eq!(harness.stored().await?, stored);

    // A node of the old cluster that comes to the new one begins anew, and has the same again.
    let (_connection, update) = node.join(harness.address()).await?;
    assert_eq!(update.from_revision, 0, "it is another cluster");
    assert_eq!((&node.entries, &node.secrets), (&entries, &secrets));
    let node_keys = node.node_keys.as_ref().ok_or("node keys")?;
    assert_eq!(node_keys.key_hash_key, hash_key, "the keys of agents are known as before");
    assert_eq!(node_keys.seal_keys.len(), 1, "and nothing that the old nodes sealed opens");
    assert_eq!(harness.put_secret("token", "hunter3").await?.version, 2);
    assert_ne!(harness.create_key("bot").await?.id, created.id);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_for_nobody_is_refused() -> Result {
    let mut harness = Harness::start().await?;
    for recipient in ["", "gantry-backup-1.00", "age1qqqq"] {
        let request = BackupRequest { recipient: recipient.to_owned() };
        let refused = harness.admin.backup(request).await.err().ok_or("refused")?;
        let expected = "this is no recipient of backups; `gantry cluster backup-key` makes one";
        assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, expected));
    }
    harness.stop().await?;
    Ok(())
}
