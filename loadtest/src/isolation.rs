//! Scenario `isolation`: what calls of healthy servers feel of sick ones behind the same endpoint.
//!
//! What always holds: all servers were well when Gantry came to know them, and the sick ones fell ill after that, as
//! they do; healthy servers are called at the same fixed rate all the time. A round has three turns, whose order moves
//! on: one with calls to the sick servers, and two controls in which as many calls go to stand-ins that are well. So all
//! turns offer the same load at the same moments, and the two controls beside each other say what the machine alone makes
//! of it. A call to a sick server may end as it likes; one to a healthy server that fails is a failed call.

mod sick;

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;

use self::sick::{Blackhole, Ended, Traffic};
use crate::{
    bars::{Bar, Bound, Weight},
    driver::{
        Outcome,
        call::{Endpoint, Era, Proof},
        connection::Connection,
        open_loop,
        schedule::Rate,
    },
    figures::Figures,
    latency::Latencies,
    pinning::Pinning,
    process::Meter,
    report::{Report, Row},
    scenario::{Options, ScenarioError},
    target::gantry::{Gateway, TENANT},
    upstream::{
        catalog::{SMALL_TEXT_BYTES, SMALL_TOOL, text},
        child::{ANYWHERE, Child, Wanted},
    },
};

/// Healthy servers.
const HEALTHY_COUNT: usize = 8;
/// Calls a second of each healthy server: well below what a node carries, so that a wait is not its own.
const HEALTHY_RATE: u64 = 60;
/// Connections to each healthy server.
const HEALTHY_CONNECTIONS: usize = 6;
/// Calls a second of each sick server, or stand-in: at [`SLOW`] as many as a server may have under way at once.
const SICK_RATE: u64 = 50;
/// How long the slow server takes.
const SLOW: Duration = Duration::from_secs(5);
/// Tools of each server.
const TOOL_COUNT: usize = 10;
/// How long calls run before they are measured, so that the sick servers have their effect.
const WARM: Duration = Duration::from_secs(1);
/// The deadline of calls of the blackhole, so that it is found out within a round.
const BLACKHOLE_TIMEOUT_MS: u64 = 500;
/// Between opening the connections of a turn and its first call.
const LEAD: Duration = Duration::from_millis(300);
/// Until the endpoint offers the tools of all servers.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The one endpoint.
const ENDPOINT: &str = "all";
/// The sick servers.
const SICK: [&str; 3] = ["slow", "refused", "blackhole"];
/// Those that are called in their place.
const STAND_INS: [&str; SICK.len()] = ["stand1", "stand2", "stand3"];
const FAILURE_SHOWN_MAX: usize = 6;

const CONTROLS_P50: [&str; 2] = ["healthy_first_control_p50_us", "healthy_second_control_p50_us"];
const CONTROLS_P99: [&str; 2] = ["healthy_first_control_p99_us", "healthy_second_control_p99_us"];

const ROWS: &[Row] = &[
    Row { figure: "healthy_without_p50_us", words: "all servers well: p50, us" },
    Row { figure: "healthy_with_p50_us", words: "with calls to sick ones: p50, us" },
    Row { figure: "healthy_without_p99_us", words: "all servers well: p99, us" },
    Row { figure: "healthy_with_p99_us", words: "with calls to sick ones: p99, us" },
    Row { figure: "healthy_p50_ratio", words: "p50 with / without, within a round" },
    Row { figure: "healthy_p99_ratio", words: "p99 with / without, within a round" },
    Row { figure: "control_p99_ratio", words: "p99 of one control / the other (noise of the machine)" },
    Row { figure: "node_busy_percent", words: "Gantry's core in use, %" },
    Row { figure: "healthy_completed_count", words: "healthy calls measured in a turn" },
    Row { figure: "stand_in_answered_count", words: "stand-ins: calls answered" },
    Row { figure: "stand_in_refused_count", words: "stand-ins: calls refused" },
    Row { figure: "slow_answered_count", words: "slow server: calls answered" },
    Row { figure: "slow_refused_count", words: "slow server: calls refused" },
    Row { figure: "refused_refused_count", words: "server that refuses connections: calls refused" },
    Row { figure: "blackhole_refused_count", words: "server that never answers: calls refused" },
];

const BARS: &[Bar] = &[
    Bar {
        figure: "failed_calls_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "no call to a healthy server may fail",
    },
    Bar {
        figure: "sick_calls_count",
        bound: Bound::AtLeast(1.0),
        weight: Weight::Required,
        reason: "a check without calls to sick servers checks nothing",
    },
    Bar {
        figure: "healthy_p99_ratio",
        bound: Bound::AtMost(1.10),
        weight: Weight::Required,
        reason: "a sick server touches no other",
    },
];

/// A part of a round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    Sick,
    FirstControl,
    SecondControl,
}

/// What runs.
struct Ward {
    gateway: Gateway,
    endpoint: Arc<Endpoint>,
    healthy: Child,
    slow: Child,
    _blackhole: Blackhole,
}

/// Runs the scenario and ends every process that it started.
///
/// # Errors
/// When Gantry or an upstream does not work, or `interrupted` comes true.
pub async fn run(
    options: &Options,
    pinning: &Pinning,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, ScenarioError> {
    let folder = tempfile::tempdir().map_err(ScenarioError::Files)?;
    let ward = Ward::open(folder.path(), options, pinning).await?;
    let mut report = Report::new("isolation", pinning.is_on(), ROWS);
    let measured = tokio::select! {
        measured = measure(&ward, options, &mut report) => measured,
        () = interrupted => Err(ScenarioError::Interrupted),
    };
    report.facts = vec![
        ("gantry_version", json!(ward.gateway.version().await)),
        ("round_count", json!(options.round_count)),
        ("slot_seconds", json!(options.measured.as_secs_f64())),
        ("healthy_server_count", json!(HEALTHY_COUNT)),
        ("healthy_calls_per_s", json!(HEALTHY_RATE * HEALTHY_COUNT as u64)),
        ("sick_calls_per_s", json!(SICK_RATE * SICK.len() as u64)),
    ];
    report.run = format!(
        "{} rounds, in each {:.1} s with calls to the sick servers and twice as long with as many to stand-ins; \
         {HEALTHY_COUNT} healthy servers at {HEALTHY_RATE} calls/s each, open loop; one slow ({} s), one that refuses \
         connections and one that never answers, or three stand-ins, at {SICK_RATE} calls/s each; one endpoint",
        options.round_count,
        options.measured.as_secs_f64(),
        SLOW.as_secs(),
    );
    ward.close().await?;
    measured?;
    for [ratio, without, with, first, second] in [
        [
            "healthy_p50_ratio",
            "healthy_without_p50_us",
            "healthy_with_p50_us",
            CONTROLS_P50[0],
            CONTROLS_P50[1],
        ],
        [
            "healthy_p99_ratio",
            "healthy_without_p99_us",
            "healthy_with_p99_us",
            CONTROLS_P99[0],
            CONTROLS_P99[1],
        ],
    ] {
        report.figures.combine(without, first, second, f64::midpoint);
        report.figures.combine(ratio, with, without, |with, without| with / without);
    }
    report
        .figures
        .combine("control_p99_ratio", CONTROLS_P99[0], CONTROLS_P99[1], |first, second| first / second);
    report.judge(BARS);
    Ok(report)
}

fn healthy_name(number: usize) -> String {
    format!("well{number}")
}

impl Ward {
    /// Starts everything, waits until Gantry offers all of it, and has the sick servers fall ill.
    async fn open(folder: &Path, options: &Options, pinning: &Pinning) -> Result<Self, ScenarioError> {
        let wanted = |name, delay| Wanted { name, listen: ANYWHERE, tool_count: TOOL_COUNT, delay };
        // One process, but an address for each server, so that Gantry takes them for different ones.
        let everywhere = std::net::SocketAddr::from((std::net::Ipv4Addr::UNSPECIFIED, 0));
        let healthy = Wanted { listen: everywhere, ..wanted("healthy", Duration::ZERO) };
        let healthy = Child::start(folder, pinning, healthy).await?;
        let slow = Child::start(folder, pinning, wanted("slow", SLOW)).await?;
        let refused = Child::start(folder, pinning, wanted("refused", Duration::ZERO)).await?;
        let blackhole = Child::start(folder, pinning, wanted("blackhole", Duration::ZERO)).await?;
        let mut servers: Vec<(String, String)> = (1..=HEALTHY_COUNT)
            .map(|number| {
                (healthy_name(number), healthy.url.replace("0.0.0.0", &format!("127.0.0.{number}")))
            })
            .collect();
        for (name, number) in STAND_INS.into_iter().zip(HEALTHY_COUNT + 1..) {
            servers.push((name.to_owned(), healthy.url.replace("0.0.0.0", &format!("127.0.0.{number}"))));
        }
        for (name, child) in SICK.into_iter().zip([&slow, &refused, &blackhole]) {
            servers.push((name.to_owned(), child.url.clone()));
        }
        let gateway = Gateway::start(folder, pinning, &options.gantry, &servers).await?;
        gateway.apply(&documents(&servers, &blackhole.url)).await?;
        let endpoint = Arc::new(gateway.endpoint(ENDPOINT)?);
        until_offered(&endpoint, servers.len() * TOOL_COUNT).await?;
        refused.stop().await.map_err(ScenarioError::Files)?;
        let address = blackhole.authority().to_owned();
        blackhole.stop().await.map_err(ScenarioError::Files)?;
        let blackhole = Blackhole::open(&address).await.map_err(ScenarioError::Files)?;
        Ok(Self { gateway, endpoint, healthy, slow, _blackhole: blackhole })
    }

    /// Processor time of Gantry so far.
    fn used(&self, meter: &Meter) -> Result<Duration, ScenarioError> {
        let usage = meter.usage(self.gateway.process.id()).map_err(ScenarioError::Usage)?;
        Ok(usage.processor)
    }

    async fn close(self) -> Result<(), ScenarioError> {
        for stopped in [self.gateway.process.stop().await, self.healthy.stop().await, self.slow.stop().await]
        {
            stopped.map_err(ScenarioError::Files)?;
        }
        Ok(())
    }
}

fn documents(servers: &[(String, String)], blackhole_url: &str) -> String {
    let names: Vec<&str> = servers.iter().map(|(name, _)| name.as_str()).collect();
    format!(
        "kind: Endpoint\ntenant: {TENANT}\nname: {ENDPOINT}\nspec: {{servers: [{}], naming: prefixed}}\n---\n\
         kind: Server\ntenant: {TENANT}\nname: blackhole\n\
         spec: {{url: \"{blackhole_url}\", timeout_ms: {BLACKHOLE_TIMEOUT_MS}}}\n",
        names.join(", ")
    )
}

async fn until_offered(endpoint: &Endpoint, tool_count: usize) -> Result<(), ScenarioError> {
    let started = Instant::now();
    while started.elapsed() < READY_TIMEOUT {
        if let Ok(mut connection) = Connection::open(endpoint, Era::Modern).await
            && connection.tool_names(endpoint, Era::Modern).await.is_ok_and(|names| names.len() == tool_count)
        {
            connection.close().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(ScenarioError::Waited { what: "the tools of all servers" })
}

async fn measure(ward: &Ward, options: &Options, report: &mut Report) -> Result<(), ScenarioError> {
    let (mut failed_count, mut sick, mut stand_in) = (0, [Ended::default(); SICK.len()], Ended::default());
    let meter = Meter::of_this_machine();
    for round in 0..options.round_count {
        eprintln!("round {} of {}", round + 1, options.round_count);
        let mut turns = [Turn::FirstControl, Turn::Sick, Turn::SecondControl];
        let first = round as usize % turns.len();
        turns.rotate_left(first);
        for turn in turns {
            let start = Instant::now() + LEAD;
            let called = if turn == Turn::Sick { &SICK } else { &STAND_INS };
            let (began, used) = (Instant::now(), ward.used(&meter)?);
            let traffic = Traffic::start(&ward.endpoint, called, SICK_RATE, start);
            let outcomes = call_healthy(ward, options.measured, start).await?;
            let used = ward.used(&meter)?.saturating_sub(used);
            let busy = 100.0 * used.as_secs_f64() / began.elapsed().as_secs_f64();
            report.figures.add("node_busy_percent", round * 3 + turn as u32, busy);
            let ended = traffic.stop().await;
            match turn {
                Turn::Sick => sick.iter_mut().zip(ended).for_each(|(total, ended)| total.add(ended)),
                Turn::FirstControl | Turn::SecondControl => {
                    ended.into_iter().for_each(|ended| stand_in.add(ended));
                }
            }
            failed_count += record(&mut report.figures, turn, round, &outcomes);
            let failures = outcomes.into_iter().flat_map(|outcome| outcome.failures);
            let room = FAILURE_SHOWN_MAX.saturating_sub(report.failures.len());
            report.failures.extend(failures.take(room));
        }
    }
    report.figures.add("failed_calls_count", 0, failed_count as f64);
    let sick_count: u64 = sick.iter().map(|ended| ended.answered_count + ended.refused_count).sum();
    report.figures.add("sick_calls_count", 0, sick_count as f64);
    for (name, ended) in SICK.into_iter().zip(sick).chain([("stand_in", stand_in)]) {
        report.figures.add(format!("{name}_answered_count"), 0, ended.answered_count as f64);
        report.figures.add(format!("{name}_refused_count"), 0, ended.refused_count as f64);
    }
    Ok(())
}

/// Calls all healthy servers side by side.
async fn call_healthy(
    ward: &Ward,
    measured: Duration,
    start: Instant,
) -> Result<Vec<Outcome>, ScenarioError> {
    let mut loops = tokio::task::JoinSet::new();
    // Calls keep the same distance in all turns: whether they happen to come together would be what is measured.
    let distance = Duration::from_secs(1) / (HEALTHY_RATE * HEALTHY_COUNT as u64) as u32;
    for (number, position) in (1..=HEALTHY_COUNT).zip(0_u32..) {
        let tool = format!("{}__{SMALL_TOOL}", healthy_name(number));
        let proof = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 };
        let plan = open_loop::Plan {
            endpoint: Arc::clone(&ward.endpoint),
            call: Arc::new(ward.endpoint.call_tool(Era::Modern, &tool, proof)),
            rate: Rate::per_second(HEALTHY_RATE).expect("the constant rate is valid"),
            connection_count: HEALTHY_CONNECTIONS,
            warm: WARM,
            measured,
            start: Some(start + distance * position),
        };
        loops.spawn(async move { open_loop::run(&plan).await });
    }
    let mut outcomes = Vec::with_capacity(HEALTHY_COUNT);
    while let Some(ended) = loops.join_next().await {
        let outcome = ended.map_err(|_| ScenarioError::Waited { what: "the calls of a server" })?;
        outcomes.push(outcome?);
    }
    Ok(outcomes)
}

/// Adds the figures of a turn; returns how many calls failed.
fn record(figures: &mut Figures, turn: Turn, round: u32, outcomes: &[Outcome]) -> u64 {
    let mut latencies = Latencies::new();
    for outcome in outcomes {
        latencies.merge(&outcome.latencies);
    }
    let prefix = match turn {
        Turn::Sick => "healthy_with",
        Turn::FirstControl => "healthy_first_control",
        Turn::SecondControl => "healthy_second_control",
    };
    for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let latency = latencies.us_at(quantile);
        figures.add(format!("{prefix}_{label}_us"), round, latency);
    }
    figures.add("healthy_completed_count", round, latencies.count() as f64);
    outcomes.iter().map(|outcome| outcome.failed_count).sum()
}
