//! Scenario `isolation`: what calls of healthy servers feel of sick ones behind the same endpoint.
//!
//! What always holds: all servers were well when Gantry came to know them, and the sick ones fell ill after that, as
//! they do; healthy servers are called at the same fixed rate all the time, and in each round once with and once
//! without calls to the sick ones, in turn. A call to a sick server may end as it likes; one to a healthy server that
//! fails is a failed call.

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
/// Calls a second of each sick server: at [`SLOW`] as many as a server may have under way at once.
const SICK_RATE: u64 = 50;
/// How long the slow server takes.
const SLOW: Duration = Duration::from_secs(5);
/// Tools of each server.
const TOOL_COUNT: usize = 10;
/// How long calls run before they are measured, so that the sick servers have their effect.
const WARM: Duration = Duration::from_secs(1);
/// The deadline of calls of the blackhole, so that it is found out within a round.
const BLACKHOLE_TIMEOUT_MS: u64 = 500;
/// Until the endpoint offers the tools of all servers.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// The one endpoint.
const ENDPOINT: &str = "all";
/// The sick servers.
const SICK: [&str; 3] = ["slow", "refused", "blackhole"];
const FAILURE_SHOWN_MAX: usize = 6;

const ROWS: &[Row] = &[
    Row { figure: "healthy_without_p50_us", words: "healthy servers alone: p50, us" },
    Row { figure: "healthy_with_p50_us", words: "with calls to sick ones: p50, us" },
    Row { figure: "healthy_without_p99_us", words: "healthy servers alone: p99, us" },
    Row { figure: "healthy_with_p99_us", words: "with calls to sick ones: p99, us" },
    Row { figure: "healthy_p50_ratio", words: "p50 with / without" },
    Row { figure: "healthy_p99_ratio", words: "p99 with / without" },
    Row { figure: "healthy_completed_count", words: "healthy calls measured, each way" },
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
        "{} rounds, in each {:.1} s with and {:.1} s without calls to the sick servers; {HEALTHY_COUNT} healthy \
         servers at {HEALTHY_RATE} calls/s each, open loop; one slow ({} s), one that refuses connections and one \
         that never answers at {SICK_RATE} calls/s each; one endpoint",
        options.round_count,
        options.measured.as_secs_f64(),
        options.measured.as_secs_f64(),
        SLOW.as_secs(),
    );
    ward.close().await?;
    measured?;
    report.figures.combine("healthy_p50_ratio", "healthy_with_p50_us", "healthy_without_p50_us", ratio);
    report.figures.combine("healthy_p99_ratio", "healthy_with_p99_us", "healthy_without_p99_us", ratio);
    report.judge(BARS);
    Ok(report)
}

fn ratio(with: f64, without: f64) -> f64 {
    with / without
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
    let (mut failed_count, mut sick) = (0, [Ended::default(); SICK.len()]);
    for round in 0..options.round_count {
        eprintln!("round {} of {}", round + 1, options.round_count);
        let order = if round % 2 == 0 { [false, true] } else { [true, false] };
        for is_with in order {
            let traffic = is_with.then(|| Traffic::start(&ward.endpoint, &SICK, SICK_RATE));
            let outcomes = call_healthy(ward, options.measured).await?;
            if let Some(traffic) = traffic {
                let ended = traffic.stop().await;
                for (total, ended) in sick.iter_mut().zip(ended) {
                    total.add(ended);
                }
            }
            failed_count += record(&mut report.figures, is_with, round, &outcomes);
            let failures = outcomes.into_iter().flat_map(|outcome| outcome.failures);
            let room = FAILURE_SHOWN_MAX.saturating_sub(report.failures.len());
            report.failures.extend(failures.take(room));
        }
    }
    report.figures.add("failed_calls_count", 0, failed_count as f64);
    let mut sick_count = 0;
    for (name, ended) in SICK.iter().zip(sick) {
        report.figures.add(format!("{name}_answered_count"), 0, ended.answered_count as f64);
        report.figures.add(format!("{name}_refused_count"), 0, ended.refused_count as f64);
        sick_count += ended.answered_count + ended.refused_count;
    }
    report.figures.add("sick_calls_count", 0, sick_count as f64);
    Ok(())
}

/// Calls all healthy servers side by side.
async fn call_healthy(ward: &Ward, measured: Duration) -> Result<Vec<Outcome>, ScenarioError> {
    let mut loops = tokio::task::JoinSet::new();
    for number in 1..=HEALTHY_COUNT {
        let tool = format!("{}__{SMALL_TOOL}", healthy_name(number));
        let proof = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 };
        let plan = open_loop::Plan {
            endpoint: Arc::clone(&ward.endpoint),
            call: Arc::new(ward.endpoint.call_tool(Era::Modern, &tool, proof)),
            rate: Rate::per_second(HEALTHY_RATE).expect("the constant rate is valid"),
            connection_count: HEALTHY_CONNECTIONS,
            warm: WARM,
            measured,
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

/// Adds the figures of one half of a round; returns how many calls failed.
fn record(figures: &mut Figures, is_with: bool, round: u32, outcomes: &[Outcome]) -> u64 {
    let mut latencies = Latencies::new();
    for outcome in outcomes {
        latencies.merge(&outcome.latencies);
    }
    let prefix = if is_with { "healthy_with" } else { "healthy_without" };
    for (label, quantile) in [("p50", 0.5), ("p99", 0.99)] {
        let latency = latencies.at(quantile).as_secs_f64() * 1e6;
        figures.add(format!("{prefix}_{label}_us"), round, latency);
    }
    figures.add("healthy_completed_count", round, latencies.count() as f64);
    outcomes.iter().map(|outcome| outcome.failed_count).sum()
}
