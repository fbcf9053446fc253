//! The second start, and starts that must not be.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use gantry_control_plane::{KeyFileError, StartError, UnsealError};
use gantry_wire::admin_v1::ListKeysRequest;

use crate::harness::{Harness, Result, acme, options, policy};
use crate::node::Process;

#[tokio::test]
async fn a_second_start_finds_everything() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[policy("all", "permit(principal, action, resource);")]).await?;
    harness.put_secret("token", "hunter2").await?;
    let created = harness.create_key("bot").await?;
    let mut before = Process::new("before")?;
    before.join(harness.address()).await?;
    let (stored, status) = (harness.stored().await?, harness.status().await?);

    let mut harness = Harness::start_in(harness.stop().await?).await?;
    assert_eq!(harness.stored().await?, stored);
    let again = harness.status().await?;
    assert_eq!((&again.cluster_id, again.resource_count), (&status.cluster_id, status.resource_count));
    assert!(again.leader && again.revision >= status.revision);
    let listing = ListKeysRequest { tenant: "acme".into(), agent: "bot".into() };
    let keys = harness.admin.list_keys(listing).await?.into_inner().keys;
    assert_eq!(keys.iter().map(|key| key.id.as_str()).collect::<Vec<_>>(), [created.id.as_str()]);
    let mut after = Process::new("after")?;
    after.join(harness.address()).await?;
    assert_eq!((&after.entries, &after.secrets), (&before.entries, &before.secrets));
    assert_eq!(after.node_keys, before.node_keys);
    // The vault still seals for it.
    assert_eq!(harness.put_secret("token", "hunter3").await?.version, 2);
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_directory_is_one_process_at_a_time() -> Result {
    let harness = Harness::start().await?;
    let second = gantry_control_plane::start(options(harness.directory.path())).await.err();
    assert!(matches!(&second, Some(StartError::Consensus(_))), "{second:?}");
    harness.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_vault_without_its_key_does_not_open_and_opens_when_it_is_put_back() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.put_secret("token", "hunter2").await?;
    let directory = harness.stop().await?;
    let (key, aside) = (directory.path().join("kek"), directory.path().join("aside"));

    fs::rename(&key, &aside)?;
    let missing = gantry_control_plane::start(options(directory.path())).await.err().ok_or("refused")?;
    let expected = matches!(
        &missing,
        StartError::Unseal(UnsealError::KeyFile(KeyFileError::Missing { path })) if *path == key
    );
    assert!(expected, "{missing:?}");
    assert!(!key.exists(), "no other key was made");

    fs::rename(&aside, &key)?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    let open = gantry_control_plane::start(options(directory.path())).await.err().ok_or("refused")?;
    let cause = open.source().and_then(Error::source).map(ToString::to_string);
    let told =
        format!("the vault's key file {0} is open to others (mode 0644); run `chmod 600 {0}`", key.display());
    assert_eq!(cause, Some(told));

    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    let harness = Harness::start_in(directory).await?;
    let mut process = Process::new("node")?;
    process.join(harness.address()).await?;
    assert_eq!(process.secrets["token"], b"hunter2");
    harness.stop().await?;
    Ok(())
}
