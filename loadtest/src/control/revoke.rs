//! Part `revoke`: how soon a revocation is in force on every live node.
//!
//! Always holds: a time runs from the moment at which the admin sent the revocation. At a node of the product it ends when
//! that node refused a call with the revoked key which it had answered until then; at a light node when that had taken the
//! revision. What is revoked is a key of an agent.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use hyper::StatusCode;
use tokio::task::JoinSet;

use super::{
    ControlError, Options,
    admin::Admin,
    cluster::Cluster,
    fleet::Fleet,
    node::{self, Node, Site, small_call},
};
use crate::{
    bars::{Bar, Bound, Weight},
    driver::{
        call::Era,
        connection::{CallError, Connection},
    },
    latency::Latencies,
    pinning::Pinning,
    report::{Report, Row},
    upstream::child::{ANYWHERE, Child, Wanted},
};

/// Nodes of the product: as many as the machine has room for beside the light ones.
const NODE_COUNT: usize = 3;
/// Revocations in a round: with three nodes, a p99 has one above it.
const REVOKED_COUNT: u32 = 34;
const REVOKED_COUNT_QUICK: u32 = 5;
const TOOL_COUNT: usize = 10;
/// Between two calls with the key, and how long they go on after a revocation.
const CALL_PAUSE: Duration = Duration::from_millis(2);
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const ROWS: &[Row] = &[
    Row { figure: "revoke_node_p50_ms", words: "revoke: refused by a node: p50, ms" },
    Row { figure: "revoke_node_p99_ms", words: "revoke: refused by a node: p99, ms" },
    Row { figure: "revoke_all_p50_ms", words: "revoke: on all subscribed nodes: p50, ms" },
    Row { figure: "revoke_all_p99_ms", words: "revoke: on all subscribed nodes: p99, ms" },
];

pub(super) const BARS: &[Bar] = &[
    Bar {
        figure: "revoke_node_p99_ms",
        bound: Bound::AtMost(250.0),
        weight: Weight::Required,
        reason: "a revoked key is refused",
    },
    Bar {
        figure: "revoke_all_p99_ms",
        bound: Bound::AtMost(250.0),
        weight: Weight::Required,
        reason: "a revocation is in force on every live node",
    },
];

/// Runs the part.
pub(super) async fn run(options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
    report.notes.push("revoke: of keys; whatever else can be revoked is not measured".to_owned());
    let wanted = Wanted { name: "upstream", listen: ANYWHERE, tool_count: TOOL_COUNT, delay: Duration::ZERO };
    let upstream = Child::start(folder, &Pinning::none(), wanted).await?;
    let cluster = Cluster::start(&options.gantry, folder, 3).await?;
    let measured = measure(&cluster, &upstream.url, options, folder, report).await;
    cluster.stop().await?;
    upstream.stop().await?;
    measured
}

async fn measure(
    cluster: &Cluster,
    url: &str,
    options: &Options,
    folder: &Path,
    report: &mut Report,
) -> Result<(), ControlError> {
    let mut admin = Admin::connect(&cluster.accesses()[cluster.leader().await?]).await?;
    admin.apply(node::tenant(url)?).await?;
    let site = Site::of(&options.gantry, folder, cluster);
    let mut nodes = Vec::new();
    for number in 0..NODE_COUNT {
        nodes.push(Node::start(&site, &mut admin, &format!("node-{number}")).await?);
    }
    let joined = Fleet::join(options.node_count, cluster, folder).await?;
    let mut fleet = Fleet::start(joined, &cluster.addresses()).await?;
    let count = if options.is_quick { REVOKED_COUNT_QUICK } else { REVOKED_COUNT };
    for round in 0..options.round_count {
        let (mut at_nodes, mut on_all) = (Latencies::new(), Latencies::new());
        for _ in 0..count {
            let (id, key) = admin.create_key(node::TENANT, node::AGENT).await?;
            for node in &nodes {
                node.answer(&key).await?;
            }
            let mut refusing = JoinSet::new();
            for node in &nodes {
                let endpoint = node.endpoint(&key)?;
                let mut connection = Connection::open(&endpoint, Era::Modern).await?;
                let call = small_call(&endpoint);
                connection.call(&call).await?;
                refusing.spawn(async move { refused(connection, call).await });
            }
            fleet.forget();
            let began = Instant::now();
            let revision = admin.revoke_key(node::TENANT, &id).await?;
            fleet.reach(revision, PATIENCE, "a revocation on all nodes").await?;
            if let Some(last) = fleet.moments(revision).max() {
                on_all.record(last.saturating_duration_since(began));
            }
            while let Some(refused) = refusing.join_next().await {
                let at = refused.map_err(|_| ControlError::Interrupted)??;
                at_nodes.record(at.saturating_duration_since(began));
            }
        }
        for (name, latencies, at) in [
            ("revoke_node_p50_ms", &at_nodes, 0.5),
            ("revoke_node_p99_ms", &at_nodes, 0.99),
            ("revoke_all_p50_ms", &on_all, 0.5),
            ("revoke_all_p99_ms", &on_all, 0.99),
        ] {
            report.figures.add(name, round, latencies.ms_at(at));
        }
    }
    for node in &mut nodes {
        node.kill().await?;
    }
    Ok(())
}

/// Calls again and again; when the key was refused.
async fn refused(
    mut connection: Connection,
    call: crate::driver::call::Call,
) -> Result<Instant, ControlError> {
    let began = Instant::now();
    loop {
        match connection.call(&call).await {
            Ok(()) if began.elapsed() > PATIENCE => {
                return Err(ControlError::Waited { what: "the refusal of a revoked key" });
            }
            Ok(()) => tokio::time::sleep(CALL_PAUSE).await,
            // A node that knows of the revocation says so; one that has forgotten the key does not know it.
            Err(CallError::Status { status: StatusCode::FORBIDDEN | StatusCode::UNAUTHORIZED, .. }) => {
                return Ok(Instant::now());
            }
            Err(failure) => return Err(failure.into()),
        }
    }
}
