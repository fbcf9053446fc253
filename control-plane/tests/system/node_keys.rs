//! The keys that nodes share, and their rotation.

use gantry_wire::admin_v1::{RotateNodeKeysRequest, RotateNodeKeysResponse};
use gantry_wire::sync_v1::SealKey;

use crate::harness::{Harness, Result, acme};
use crate::node::Process;

#[tokio::test]
async fn a_rotation_reaches_connected_nodes_and_those_that_come_later() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let first = process.node_keys.clone().ok_or("node keys")?;
    assert_eq!(first.seal_keys, [SealKey { generation: 1, key: first.session_key.clone() }]);

    let request = |force| RotateNodeKeysRequest { force };
    let RotateNodeKeysResponse { revision, generation } =
        harness.admin.rotate_node_keys(request(false)).await?.into_inner();
    assert_eq!(generation, 2);
    let update = process.follow(&mut connection).await?;
    assert_eq!((update.revision, update.upserts.len(), update.secrets.len()), (revision, 0, 0));
    let second = process.node_keys.clone().ok_or("node keys")?;
    let generations: Vec<u32> = second.seal_keys.iter().map(|key| key.generation).collect();
    assert_eq!(generations, [2, 1]);
    assert_eq!(second.seal_keys[1..], first.seal_keys);
    assert_eq!(second.key_hash_key, first.key_hash_key);

    // Another so soon would end sessions.
    let refused = harness.admin.rotate_node_keys(request(false)).await.err().ok_or("it is refused")?;
    assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
    assert!(refused.message().ends_with("wait 24 h 00 min, or add --force"), "{}", refused.message());
    let third = harness.admin.rotate_node_keys(request(true)).await?.into_inner();
    assert_eq!((third.revision, third.generation), (revision + 1, 3));
    process.follow(&mut connection).await?;
    let keys = process.node_keys.clone().ok_or("node keys")?;
    assert_eq!(keys.seal_keys[1..], second.seal_keys[..1]);

    // A change of something else does not send them again.
    harness.apply(&[crate::harness::agent("new")]).await?;
    assert_eq!(process.follow(&mut connection).await?.node_keys, None);

    // After a restart the vault opens, and a new process gets the same.
    let directory = harness.stop().await?;
    let harness = Harness::start_in(directory).await?;
    let mut later = Process::new("later")?;
    later.join(harness.address()).await?;
    assert_eq!(later.node_keys, Some(keys));
    harness.stop().await?;
    Ok(())
}
