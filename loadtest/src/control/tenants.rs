//! Part `tenants`: what 10,000 tenants cost, and that one change costs the same with few and with many.
//!
//! Always holds: each tenant has 5 servers, 10 agents and a policy; sizes are measured one after the other, each with a new
//! voter, in the same order of steps; what one change costs a voter is measured with one light node subscribed, what it
//! costs a node is what that node says of its own work.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gantry_wire::resource_v1::{NodeLabels, Resource};
use serde_json::json;

use super::{
    ControlError, Options,
    admin::{Admin, SERVER_COUNT, of_tenant, organisation},
    cluster::Cluster,
    fleet::Fleet,
    node::{Node, Site},
};
use crate::{
    bars::{Bar, Bound, Weight},
    latency::Latencies,
    process::Meter,
    report::{Report, Row},
};

/// Tenants.
const SIZES: [usize; 3] = [100, 1_000, 10_000];
const SIZES_QUICK: [usize; 2] = [100, 1_000];
/// Tenants in one request: some 8,500 documents.
const TENANTS_PER_SET: usize = 500;
/// Changes of one policy: enough for processor time, which is counted in hundredths of a second.
const CHANGE_COUNT: u32 = 300;
/// Changes that a node of the product is followed at.
const NODE_CHANGE_COUNT: u32 = 30;
const PATIENCE: Duration = Duration::from_secs(120);
/// What is not given back at once is.
const REST: Duration = Duration::from_secs(2);

pub(super) const ROWS: &[Row] = &[
    Row { figure: "tenants_10000_resource_count", words: "tenants: 10,000: resources" },
    Row { figure: "tenants_10000_load_s", words: "tenants: 10,000: applied in, s" },
    Row { figure: "tenants_10000_voter_rss_mib", words: "tenants: 10,000: memory of a voter, MiB" },
    Row {
        figure: "tenants_10000_node_rss_mib",
        words: "tenants: 10,000: memory of a node that serves all, MiB",
    },
    Row {
        figure: "tenants_10000_one_tenant_node_rss_mib",
        words: "tenants: 10,000: memory of a node that serves one of them, MiB",
    },
    Row { figure: "tenants_10000_node_start_s", words: "tenants: 10,000: such a node: start to serving, s" },
    Row { figure: "tenants_10000_snapshot_s", words: "tenants: 10,000: full snapshot to a light node, s" },
    Row { figure: "tenants_10000_snapshot_mib", words: "tenants: 10,000: its size, MiB" },
    Row {
        figure: "tenants_10000_delta_p50_ms",
        words: "tenants: 10,000: one changed policy on a light node, ms",
    },
    Row { figure: "tenants_10000_delta_bytes", words: "tenants: 10,000: bytes of that update" },
    Row { figure: "tenants_100_change_us", words: "tenants: 100: processor time of a voter per change, us" },
    Row { figure: "tenants_1000_change_us", words: "tenants: 1,000: the same" },
    Row { figure: "tenants_10000_change_us", words: "tenants: 10,000: the same" },
    Row { figure: "tenants_change_ratio", words: "tenants: that, with the most / with the fewest tenants" },
    Row { figure: "tenants_100_node_apply_us", words: "tenants: 100: a node applies a change, us" },
    Row { figure: "tenants_1000_node_apply_us", words: "tenants: 1,000: the same" },
    Row { figure: "tenants_10000_node_apply_us", words: "tenants: 10,000: the same" },
    Row {
        figure: "tenants_node_apply_ratio",
        words: "tenants: that, with the most / with the fewest tenants",
    },
];

pub(super) const BARS: &[Bar] = &[
    Bar {
        figure: "tenants_change_ratio",
        bound: Bound::AtMost(1.5),
        weight: Weight::Required,
        reason: "one change costs a voter the same with 100 times the tenants",
    },
    Bar {
        figure: "tenants_node_apply_ratio",
        bound: Bound::AtMost(1.5),
        weight: Weight::Required,
        reason: "one change costs a node the same with 100 times the tenants",
    },
];

/// Runs the part.
pub(super) async fn run(options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
    let sizes = if options.is_quick { SIZES_QUICK.as_slice() } else { SIZES.as_slice() };
    report.notes.push("tenants: one voter, nothing listens at the servers, no keys, no catalogs".to_owned());
    for size in sizes {
        let folder = folder.join(size.to_string());
        let cluster = Cluster::start(&options.gantry, &folder, 1).await?;
        let measured = measure(&cluster, *size, options, &folder, report).await;
        cluster.stop().await?;
        measured?;
        std::fs::remove_dir_all(&folder)?;
    }
    let (few, many) = (sizes[0], sizes[sizes.len() - 1]);
    for what in ["change", "node_apply"] {
        let [few, many] = [few, many].map(|size| format!("tenants_{size}_{what}_us"));
        report.figures.combine(&format!("tenants_{what}_ratio"), &many, &few, |many, few| many / few);
    }
    Ok(())
}

async fn measure(
    cluster: &Cluster,
    size: usize,
    options: &Options,
    folder: &Path,
    report: &mut Report,
) -> Result<(), ControlError> {
    let figures = &mut report.figures;
    let mut add = |name: &str, value: f64| figures.add(format!("tenants_{size}_{name}"), 0, value);
    let meter = Meter::of_this_machine();
    let mut admin = Admin::connect(&cluster.accesses()[0]).await?;
    let began = Instant::now();
    for from in (0..size).step_by(TENANTS_PER_SET) {
        admin.apply(set(from..(from + TENANTS_PER_SET).min(size))?).await?;
    }
    add("load_s", began.elapsed().as_secs_f64());
    let status = admin.status().await?;
    add("resource_count", f64::from(status.resource_count));
    tokio::time::sleep(REST).await;
    add("voter_rss_mib", cluster.usage(&meter)?.resident_kib as f64 / 1_024.0);

    let joined = Fleet::join(1, cluster, folder).await?;
    let status = admin.status().await?;
    let began = Instant::now();
    let mut fleet = Fleet::start(joined, &cluster.addresses()).await?;
    fleet.reach(status.revision, PATIENCE, "a snapshot of all tenants").await?;
    add("snapshot_s", began.elapsed().as_secs_f64());
    let snapshot = fleet.applied().flatten().next().map_or(0, |applied| applied.update_bytes);
    add("snapshot_mib", snapshot as f64 / 1_048_576.0);

    fleet.forget();
    let (mut delta, before) = (Latencies::new(), cluster.usage(&meter)?.processor);
    for number in 0..CHANGE_COUNT {
        let began = Instant::now();
        let revision = admin.apply(vec![policy(size / 2, number + 1)?]).await?;
        fleet.reach(revision, PATIENCE, "a changed policy").await?;
        fleet.moments(revision).for_each(|at| delta.record(at.saturating_duration_since(began)));
    }
    let used = cluster.usage(&meter)?.processor - before;
    add("change_us", used.as_secs_f64() * 1e6 / f64::from(CHANGE_COUNT));
    add("delta_p50_ms", delta.ms_at(0.5));
    let bytes: usize = fleet.applied().flatten().map(|applied| applied.update_bytes).sum();
    add("delta_bytes", bytes as f64 / f64::from(CHANGE_COUNT));
    drop(fleet);
    measure_node(cluster, size, (options, folder), admin, report).await
}

/// What a node of the product takes that serves all tenants, and one that serves one of them.
async fn measure_node(
    cluster: &Cluster,
    size: usize,
    (options, folder): (&Options, &Path),
    mut admin: Admin,
    report: &mut Report,
) -> Result<(), ControlError> {
    let figures = &mut report.figures;
    let mut add = |name: &str, value: f64| figures.add(format!("tenants_{size}_{name}"), 0, value);
    let meter = Meter::of_this_machine();
    let site = Site::of(&options.gantry, folder, cluster);
    let began = Instant::now();
    let mut node = Node::start(&site, &mut admin, "all").await?;
    add("node_start_s", began.elapsed().as_secs_f64());
    tokio::time::sleep(REST).await;
    if let Some(id) = node.id() {
        add("node_rss_mib", meter.usage(id)?.resident_kib as f64 / 1_024.0);
    }
    let mut applies = Vec::new();
    for number in 0..NODE_CHANGE_COUNT {
        let revision = admin.apply(vec![policy(size / 2, CHANGE_COUNT + number + 1)?]).await?;
        admin.wait_applied(revision, PATIENCE).await?;
        let status = admin.status().await?;
        applies.extend(status.nodes.iter().filter(|node| node.connected).map(|node| node.apply_us));
    }
    applies.sort_unstable();
    if let Some(median) = applies.get(applies.len() / 2) {
        add("node_apply_us", *median as f64);
    }
    node.kill().await?;
    let labels = NodeLabels { tenants: vec![name(size / 2)], ..NodeLabels::default() };
    let mut node = Node::start_for(&site, &mut admin, "one", Some(labels)).await?;
    tokio::time::sleep(REST).await;
    if let Some(id) = node.id() {
        add("one_tenant_node_rss_mib", meter.usage(id)?.resident_kib as f64 / 1_024.0);
    }
    node.kill().await
}

/// Tenants with all that belongs to them.
fn set(numbers: std::ops::Range<usize>) -> Result<Vec<Resource>, ControlError> {
    let sets = numbers.map(|number| organisation(&name(number), policy(number, 0)?));
    Ok(sets.collect::<Result<Vec<_>, _>>()?.concat())
}

fn name(number: usize) -> String {
    format!("tenant-{number}")
}

/// The policy of a tenant, another one with each number.
fn policy(tenant: usize, number: u32) -> Result<Resource, ControlError> {
    let cedar = format!(
        "// Change {number}.\npermit(principal in Group::\"staff\", action == Action::\"tools/call\", resource in \
         Server::\"server-{}\");\n",
        number as usize % SERVER_COUNT
    );
    of_tenant(&name(tenant), "Policy", "staff", json!({"cedar": cedar}))
}
