//! Part `push`: how soon 1,000 nodes have a change, how they bear ten a second, and what becomes of them when the leader
//! is killed.
//!
//! Always holds: a time runs from the moment at which an admin sent, or was due to send, the change, to the moment at
//! which a node had applied it; the time of a change is that of its slowest node, and a change that a node never had is
//! counted. The leader dies (SIGKILL) while changes go on.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use gantry_wire::resource_v1::Resource;
use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use super::{
    ControlError, Options,
    admin::{Access, Admin, SERVER_COUNT, of_tenant, organisation},
    cluster::Cluster,
    fleet::Fleet,
};
use crate::{
    bars::{Bar, Bound, Weight},
    latency::Latencies,
    process::Meter,
    report::{Report, Row},
};

/// Changes that are made one after the other, each once all nodes have the one before.
const SINGLE_COUNT: u64 = 100;
const SINGLE_COUNT_QUICK: u64 = 20;
/// Changes a second that are held.
const HELD_PER_S: u32 = 10;
/// How long nodes may take to be there, or to have a change.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long a change may take to be heard of everywhere before it counts as lost.
const LATE: Duration = Duration::from_secs(10);
/// How long changes go on before the leader is killed, and after another leads.
const BEFORE_KILL: Duration = Duration::from_secs(1);
const TENANT: &str = "pushed";

pub(super) const ROWS: &[Row] = &[
    Row { figure: "push_join_s", words: "push: all nodes get their certificates, s" },
    Row { figure: "push_start_s", words: "push: all nodes connect and have their snapshot, s" },
    Row { figure: "push_p50_ms", words: "push: one change on all nodes: p50, ms" },
    Row { figure: "push_p99_ms", words: "push: one change on all nodes: p99, ms" },
    Row { figure: "push_node_p50_ms", words: "push: one change on a node: p50, ms" },
    Row { figure: "push_held_p50_ms", words: "push: 10 changes/s: on all nodes: p50, ms" },
    Row { figure: "push_held_p99_ms", words: "push: 10 changes/s: on all nodes: p99, ms" },
    Row { figure: "push_held_cores", words: "push: 10 changes/s: cores that all members use" },
    Row { figure: "push_held_late_count", words: "push: 10 changes/s: changes that not all nodes had" },
    Row { figure: "push_update_bytes", words: "push: bytes of an update, per change and node" },
    Row { figure: "push_answer_bytes", words: "push: bytes of its answer" },
    Row { figure: "push_back_s", words: "push: leader killed: all nodes are back, s" },
    Row { figure: "push_back_missing_count", words: "push: leader killed: nodes that did not come back" },
    Row { figure: "push_back_delta_percent", words: "push: leader killed: back by delta, %" },
    Row { figure: "push_write_gap_s", words: "push: leader killed: until the next change is committed, s" },
    Row { figure: "push_rss_mib_per_member", words: "push: memory of a member, MiB" },
];

pub(super) const BARS: &[Bar] = &[
    Bar {
        figure: "push_p50_ms",
        bound: Bound::AtMost(50.0),
        weight: Weight::Required,
        reason: "a change on all nodes",
    },
    Bar {
        figure: "push_p99_ms",
        bound: Bound::AtMost(150.0),
        weight: Weight::Required,
        reason: "a change on all nodes",
    },
    Bar {
        figure: "push_held_p99_ms",
        bound: Bound::AtMost(150.0),
        weight: Weight::Required,
        reason: "10 changes a second are held, each as soon on all nodes",
    },
    Bar {
        figure: "push_held_late_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "every change comes to every node",
    },
    Bar {
        figure: "push_back_s",
        bound: Bound::AtMost(5.0),
        weight: Weight::Required,
        reason: "all nodes are back after the leader was killed",
    },
    Bar {
        figure: "push_back_missing_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "no node is left behind",
    },
    Bar {
        figure: "push_back_delta_percent",
        bound: Bound::AtLeast(99.0),
        weight: Weight::Required,
        reason: "they go on from where they were",
    },
];

/// Runs the part.
pub(super) async fn run(options: &Options, folder: &Path, report: &mut Report) -> Result<(), ControlError> {
    let mut cluster = Cluster::start(&options.gantry, folder, 3).await?;
    let measured = measure(&mut cluster, options, folder, report).await;
    cluster.stop().await?;
    measured
}

async fn measure(
    cluster: &mut Cluster,
    options: &Options,
    folder: &Path,
    report: &mut Report,
) -> Result<(), ControlError> {
    let began = Instant::now();
    let joined = Fleet::join(options.node_count, cluster, folder).await?;
    report.figures.add("push_join_s", 0, began.elapsed().as_secs_f64());
    let leader = cluster.accesses()[cluster.leader().await?].clone();
    let mut admin = Admin::connect(&leader).await?;
    let revision = admin.apply(organisation(TENANT, change(0)?)?).await?;
    let began = Instant::now();
    let mut fleet = Fleet::start(joined, &cluster.addresses()).await?;
    fleet.reach(revision, PATIENCE, "all nodes to connect").await?;
    report.figures.add("push_start_s", 0, began.elapsed().as_secs_f64());
    // What nodes are told of each other is over by then.
    fleet.watch(Duration::from_secs(2)).await;
    for round in 0..options.round_count {
        single(&mut admin, &mut fleet, options, round, report).await?;
    }
    held(cluster, &leader, &mut fleet, options, report).await?;
    let resident = cluster.usage(&Meter::of_this_machine())?.resident_kib as f64 / 1_024.0;
    report.figures.add("push_rss_mib_per_member", 0, resident / cluster.accesses().len() as f64);
    for round in 0..options.round_count {
        failover(cluster, &mut fleet, round, report).await?;
    }
    Ok(())
}

/// One change after the other.
async fn single(
    admin: &mut Admin,
    fleet: &mut Fleet,
    options: &Options,
    round: u32,
    report: &mut Report,
) -> Result<(), ControlError> {
    fleet.forget();
    let (mut all, mut each) = (Latencies::new(), Latencies::new());
    let count = if options.is_quick { SINGLE_COUNT_QUICK } else { SINGLE_COUNT };
    for number in 0..count {
        let began = Instant::now();
        let revision = admin.apply(vec![change(u64::from(round) * count + number)?]).await?;
        fleet.reach(revision, PATIENCE, "a change on all nodes").await?;
        let moments: Vec<Instant> = fleet.moments(revision).collect();
        moments.iter().for_each(|at| each.record(at.saturating_duration_since(began)));
        if let Some(last) = moments.iter().max() {
            all.record(last.saturating_duration_since(began));
        }
    }
    let figures = &mut report.figures;
    figures.add("push_p50_ms", round, all.ms_at(0.5));
    figures.add("push_p99_ms", round, all.ms_at(0.99));
    figures.add("push_node_p50_ms", round, each.ms_at(0.5));
    let (mut updates, mut answers, mut taken) = (0, 0, 0);
    for applied in fleet.applied().flatten() {
        (updates, answers, taken) =
            (updates + applied.update_bytes, answers + applied.answer_bytes, taken + 1);
    }
    figures.add("push_update_bytes", round, updates as f64 / f64::from(taken.max(1)));
    figures.add("push_answer_bytes", round, answers as f64 / f64::from(taken.max(1)));
    Ok(())
}

/// Changes at a fixed rate, whether or not the nodes keep up.
async fn held(
    cluster: &Cluster,
    leader: &Access,
    fleet: &mut Fleet,
    options: &Options,
    report: &mut Report,
) -> Result<(), ControlError> {
    fleet.forget();
    let meter = Meter::of_this_machine();
    let before = cluster.usage(&meter)?.processor;
    let began = Instant::now();
    let changes = tokio::spawn(change_at_rate(leader.clone(), began, options.held));
    fleet.watch(options.held).await;
    let used = cluster.usage(&meter)?.processor - before;
    let changes = changes.await.map_err(|_| ControlError::Interrupted)??;
    report.figures.add("push_held_cores", 0, used.as_secs_f64() / began.elapsed().as_secs_f64());
    if let Some((_, newest)) = changes.last() {
        fleet.missing(*newest, LATE).await;
    }
    let (mut all, mut late_count) = (Latencies::new(), 0);
    for (due, revision) in changes {
        let moments: Vec<Instant> = fleet.moments(revision).collect();
        match moments.iter().max() {
            Some(last) if moments.len() == fleet.len() => all.record(last.saturating_duration_since(due)),
            _ => late_count += 1,
        }
    }
    report.figures.add("push_held_p50_ms", 0, all.ms_at(0.5));
    report.figures.add("push_held_p99_ms", 0, all.ms_at(0.99));
    report.figures.add("push_held_late_count", 0, f64::from(late_count));
    Ok(())
}

/// Makes changes through one member, each when it is due; when they were due, and their revisions.
async fn change_at_rate(
    access: Access,
    began: Instant,
    during: Duration,
) -> Result<Vec<(Instant, u64)>, ControlError> {
    let admin = Admin::connect(&access).await?;
    let mut under_way = JoinSet::new();
    let count = (during.as_secs_f64() * f64::from(HELD_PER_S)) as u32;
    for number in 0..count {
        let due = began + Duration::from_secs(1) * number / HELD_PER_S;
        tokio::time::sleep_until(due.into()).await;
        let (mut admin, change) = (admin.clone(), change(1_000_000 + u64::from(number))?);
        under_way.spawn(async move { Ok::<_, ControlError>((due, admin.apply(vec![change]).await?)) });
    }
    let done = under_way.join_all().await;
    let mut done = done.into_iter().collect::<Result<Vec<_>, _>>()?;
    done.sort_by_key(|(due, _)| *due);
    Ok(done)
}

/// Kills the leader while changes go on, and starts it again once all nodes are back.
async fn failover(
    cluster: &mut Cluster,
    fleet: &mut Fleet,
    round: u32,
    report: &mut Report,
) -> Result<(), ControlError> {
    let leader = cluster.leader().await?;
    let mut others = cluster.accesses();
    others.remove(leader);
    let (told, mut commits) = mpsc::unbounded_channel();
    let writing = tokio::spawn(change_until_ended(others.swap_remove(0), told));
    fleet.watch(BEFORE_KILL).await;
    fleet.forget();
    let killed = Instant::now();
    cluster.kill(leader).await?;
    fleet.lose(leader);
    let missing = fleet.come_back(PATIENCE).await;
    let mut came_back: Vec<(Duration, bool)> = Vec::new();
    for applied in fleet.applied() {
        let mut first = applied.iter().filter(|applied| applied.is_first && applied.at > killed);
        // Of several streams the last is the one that it stayed on.
        came_back.extend(first.next_back().map(|first| (first.at - killed, first.from > 0)));
    }
    cluster.leader().await?;
    fleet.watch(BEFORE_KILL).await;
    writing.abort();
    let mut committed = Vec::new();
    while let Ok(at) = commits.try_recv() {
        committed.push(at);
    }
    let figures = &mut report.figures;
    figures.add("push_back_missing_count", round, missing as f64);
    if let Some((last, _)) = came_back.iter().max() {
        figures.add("push_back_s", round, last.as_secs_f64());
        let by_delta = came_back.iter().filter(|(_, by_delta)| *by_delta).count();
        figures.add("push_back_delta_percent", round, by_delta as f64 * 100.0 / came_back.len() as f64);
    }
    let gaps = committed.windows(2).map(|pair: &[Instant]| pair[1] - pair[0]);
    if let Some(gap) = gaps.max() {
        figures.add("push_write_gap_s", round, gap.as_secs_f64());
    }
    cluster.restart(leader).await?;
    Ok(())
}

/// Makes one change after the other through a member, and tells of each that was committed.
async fn change_until_ended(
    access: Access,
    told: mpsc::UnboundedSender<Instant>,
) -> Result<(), ControlError> {
    let mut admin = Admin::connect(&access).await?;
    for number in 2_000_000_u64.. {
        // What was not committed while nobody led is not asked for again.
        if admin.apply(vec![change(number)?]).await.is_ok() {
            let _ = told.send(Instant::now());
        }
        tokio::time::sleep(Duration::from_secs(1) / HELD_PER_S).await;
    }
    Ok(())
}

/// A policy of some lines, another one with each number.
fn change(number: u64) -> Result<Resource, ControlError> {
    let cedar = format!(
        "// Change {number}.\npermit(principal in Group::\"staff\", action == Action::\"tools/call\", resource) \
         when {{ resource in Server::\"server-{}\" }};\n",
        number % SERVER_COUNT as u64
    );
    of_tenant(TENANT, "Policy", "changing", json!({"cedar": cedar}))
}
