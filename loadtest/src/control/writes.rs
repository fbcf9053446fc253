//! Part `writes`: small durable changes through the admin API of three voters, beside the floor of their disk.
//!
//! Always holds: a change is one `Apply` of one document over gRPC, and counts when the answer came that it was
//! committed; every client changes a tenant of its own, by a value that it did not have. The clients are spread over all
//! members, as those behind a balancer are.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::task::JoinSet;

use super::{
    ControlError, Options,
    admin::{Access, Admin, resource},
    cluster::Cluster,
    disk,
};
use crate::{
    bars::{Bar, Bound, Weight},
    latency::Latencies,
    process::Meter,
    report::{Report, Row},
};

/// Clients at one time.
const CLIENT_COUNT: usize = 64;
/// How long clients write before they are measured.
const WARM: Duration = Duration::from_secs(1);
/// Bytes of one change in the log, roughly, for the floor of a single client.
const CHANGE_BYTES: usize = 256;

pub(super) const ROWS: &[Row] = &[
    Row { figure: "writes_floor_one_p50_us", words: "writes: append and fdatasync of one change, p50, us" },
    Row { figure: "writes_floor_batch_p50_us", words: "writes: the same of a batch, p50, us" },
    Row { figure: "writes_one_p50_us", words: "writes: one client at the leader: p50, us" },
    Row { figure: "writes_one_to_floor_ratio", words: "writes: that / the floor of one change" },
    Row { figure: "writes_one_elsewhere_p50_us", words: "writes: one client at another member: p50, us" },
    Row { figure: "writes_per_s", words: "writes: 64 clients over all members: changes/s" },
    Row { figure: "writes_p50_ms", words: "writes: p50, ms" },
    Row { figure: "writes_p99_ms", words: "writes: p99, ms" },
    Row { figure: "writes_p99_over_floor_ms", words: "writes: p99 less the floor of a batch, ms" },
    Row { figure: "writes_per_entry", words: "writes: changes in a log entry" },
    Row {
        figure: "writes_members_us_per_change",
        words: "writes: processor time of all members per change, us",
    },
    Row { figure: "writes_failed_count", words: "writes: failed changes" },
];

pub(super) const BARS: &[Bar] = &[
    Bar {
        figure: "writes_per_s",
        bound: Bound::AtLeast(5_000.0),
        weight: Weight::Required,
        reason: "durable small changes of 64 clients on three voters",
    },
    Bar {
        figure: "writes_p99_over_floor_ms",
        bound: Bound::AtMost(20.0),
        weight: Weight::Required,
        reason: "p99 over what one fdatasync per batch takes",
    },
    Bar {
        figure: "writes_one_to_floor_ratio",
        bound: Bound::AtMost(3.0),
        weight: Weight::Required,
        reason: "p50 of a single client in units of fdatasync",
    },
    Bar {
        figure: "writes_failed_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "every change is answered",
    },
];

/// What clients did.
struct Done {
    latencies: Latencies,
    failures: Vec<String>,
}

/// Runs the part.
pub(super) async fn run(options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
    let cluster = Cluster::start(&options.gantry, folder, 3).await?;
    let measured = measure(&cluster, options, folder, report).await;
    cluster.stop().await?;
    measured
}

async fn measure(
    cluster: &Cluster,
    options: &Options,
    folder: &Path,
    report: &mut Report,
) -> Result<(), ControlError> {
    let leader = cluster.leader().await?;
    let mut members = cluster.accesses();
    // The leader first.
    members.rotate_left(leader);
    let mut admin = Admin::connect(&members[0]).await?;
    let tenants = (0..CLIENT_COUNT)
        .map(|client| resource(json!({"kind": "Tenant", "name": format!("writer-{client}")})));
    admin.apply(tenants.collect::<Result<_, _>>()?).await?;
    let meter = Meter::of_this_machine();
    let mut batch_bytes = CHANGE_BYTES * CLIENT_COUNT / 2;
    for round in 0..options.round_count {
        let one_floor = floor(folder, CHANGE_BYTES).await?.us_at(0.5);
        let batch_floor = floor(folder, batch_bytes).await?.us_at(0.5);
        let one = write(&members[..1], 1, options.measured / 2).await?;
        let elsewhere = write(&members[1..2], 1, options.measured / 2).await?;
        let before = (admin.status().await?.log_last, cluster.usage(&meter)?.processor);
        let all = write(&members, CLIENT_COUNT, options.measured).await?;
        let after = (admin.status().await?.log_last, cluster.usage(&meter)?.processor);
        let figures = &mut report.figures;
        let count = all.latencies.count() as f64;
        figures.add("writes_floor_one_p50_us", round, one_floor);
        figures.add("writes_floor_batch_p50_us", round, batch_floor);
        figures.add("writes_one_p50_us", round, one.latencies.us_at(0.5));
        figures.add("writes_one_elsewhere_p50_us", round, elsewhere.latencies.us_at(0.5));
        figures.add("writes_per_s", round, count / options.measured.as_secs_f64());
        figures.add("writes_p50_ms", round, all.latencies.ms_at(0.5));
        figures.add("writes_p99_ms", round, all.latencies.ms_at(0.99));
        figures.add("writes_p99_over_floor_ms", round, (all.latencies.us_at(0.99) - batch_floor) / 1e3);
        // Those of the time before the measurement are in both.
        let whole = count * (WARM + options.measured).as_secs_f64() / options.measured.as_secs_f64();
        let per_entry = whole / (after.0 - before.0).max(1) as f64;
        figures.add("writes_per_entry", round, per_entry);
        let processor = (after.1 - before.1).as_secs_f64() * 1e6;
        figures.add("writes_members_us_per_change", round, processor / whole);
        let failures: Vec<String> =
            [one, elsewhere, all].into_iter().flat_map(|done| done.failures).collect();
        figures.add("writes_failed_count", round, failures.len() as f64);
        report.failures.extend(failures);
        // The floor of the next round is that of the batches of this one.
        batch_bytes = (per_entry.max(1.0) as usize) * CHANGE_BYTES;
    }
    report.figures.combine(
        "writes_one_to_floor_ratio",
        "writes_one_p50_us",
        "writes_floor_one_p50_us",
        |one, floor| one / floor,
    );
    Ok(())
}

async fn floor(folder: &Path, bytes: usize) -> Result<Latencies, ControlError> {
    let folder = folder.to_owned();
    let measured = tokio::task::spawn_blocking(move || disk::measure(&folder, bytes)).await;
    Ok(measured.map_err(|_| ControlError::Interrupted)??)
}

/// Lets clients write, spread over `members`; each has a connection of its own.
async fn write(members: &[Access], client_count: usize, measured: Duration) -> Result<Done, ControlError> {
    let mut clients = Vec::with_capacity(client_count);
    for client in 0..client_count {
        clients.push(Admin::connect(&members[client % members.len()]).await?);
    }
    let from = Instant::now() + WARM;
    let until = from + measured;
    let mut writing = JoinSet::new();
    for (client, admin) in clients.into_iter().enumerate() {
        writing.spawn(write_until(admin, client, from, until));
    }
    let mut done = Done { latencies: Latencies::new(), failures: Vec::new() };
    while let Some(client) = writing.join_next().await {
        let client = client.map_err(|_| ControlError::Interrupted)??;
        done.latencies.merge(&client.latencies);
        done.failures.extend(client.failures);
    }
    Ok(done)
}

async fn write_until(
    mut admin: Admin,
    client: usize,
    from: Instant,
    until: Instant,
) -> Result<Done, ControlError> {
    let mut done = Done { latencies: Latencies::new(), failures: Vec::new() };
    for number in 0_u64.. {
        let began = Instant::now();
        if began >= until {
            break;
        }
        let change = json!({
            "kind": "Limit", "tenant": format!("writer-{client}"), "name": "changing",
            "spec": {"per": ["agent"], "calls": 1_000 + number % 1_000_000, "window_seconds": 60},
        });
        match admin.apply(vec![resource(change)?]).await {
            Ok(_) if began >= from => done.latencies.record(began.elapsed()),
            Ok(_) => {}
            Err(failure) => done.failures.push(crate::causes::on_one_line(&failure)),
        }
    }
    Ok(done)
}
