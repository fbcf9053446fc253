//! Telling nodes of each other.

use std::time::{Duration, Instant};

use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{Member, Members, Mesh};
use tonic::Code;

use crate::harness::{Harness, Result, acme};
use crate::node::{Connection, Process};

/// A process that takes part in the mesh; `number` tells places apart.
fn meshed(node_id: &str, number: u8) -> Result<Process> {
    let certificate_fingerprint = vec![number; 32];
    let mesh = Mesh { address: format!("127.0.0.1:{}", 7_000 + u16::from(number)), certificate_fingerprint };
    Ok(Process { mesh: Some(mesh), ..Process::new(node_id)? })
}

/// What is to be told of processes; a control plane that has just started does not know yet whether it is all.
fn told(processes: &[&Process]) -> Members {
    let member = |process: &&Process| Member {
        node_id: process.node_id.clone(),
        incarnation: "one".to_owned(),
        mesh: process.mesh.clone(),
    };
    Members { members: processes.iter().map(member).collect(), complete: false }
}

/// The next message that tells of as many.
async fn members(connection: &mut Connection, count: usize) -> Result<Members> {
    loop {
        let mut members = connection.members().await?;
        if members.members.len() == count {
            members.members.sort_by(|left, right| left.node_id.cmp(&right.node_id));
            return Ok(members);
        }
    }
}

#[tokio::test]
async fn members_are_told_at_once_when_one_joins_and_when_its_stream_breaks() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let (a, b, bystander) = (meshed("a", 1)?, meshed("b", 2)?, Process::new("c")?);
    // Nobody acknowledges an update: what is told of members does not wait for that.
    let mut to_a = a.connect(harness.address()).await?;
    assert_eq!(members(&mut to_a, 1).await?, told(&[&a]));

    let start = Instant::now();
    let mut to_b = b.connect(harness.address()).await?;
    assert_eq!(members(&mut to_a, 2).await?, told(&[&a, &b]));
    assert_eq!(members(&mut to_b, 2).await?, told(&[&a, &b]));
    // A node that takes no part is nobody's peer.
    let mut to_bystander = bystander.connect(harness.address()).await?;

    drop(to_b);
    assert_eq!(members(&mut to_a, 1).await?, told(&[&a]));

    // The same node as another process is told as what it is now, without having been away.
    let mut to_b = b.connect(harness.address()).await?;
    assert_eq!(members(&mut to_a, 2).await?, told(&[&a, &b]));
    let again = meshed("b", 3)?;
    let _to_again = again.connect(harness.address()).await?;
    assert_eq!(to_b.end().await?.code(), Code::Aborted);
    assert_eq!(members(&mut to_a, 2).await?, told(&[&a, &again]));
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());

    drop(to_a);
    harness.plane.shutdown().await?;
    // All that it was ever sent are updates.
    assert_eq!(to_bystander.end().await?.code(), Code::Unavailable);
    assert_eq!(to_bystander.members_seen(), 0);
    Ok(())
}

#[tokio::test]
async fn a_node_that_nobody_could_find_is_sent_away() -> Result {
    let harness = Harness::start().await?;
    let mut process = meshed("a", 1)?;
    process.mesh = Some(Mesh { address: "0.0.0.0:7000".to_owned(), certificate_fingerprint: vec![1; 32] });
    let mut connection = Connection::open(harness.address(), Some(crate::harness::NODE_TOKEN)).await??;
    connection.send(Message::Hello(process.hello())).await?;
    let status = connection.end().await?;
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "a node's mesh address is an IP address and a port")
    );
    harness.stop().await?;
    Ok(())
}
