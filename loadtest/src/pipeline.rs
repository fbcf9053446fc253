//! Scenario `pipeline`: what a call costs with everything on, beside one with an agent key and a single policy.
//!
//! What always holds: all variants are tenants of one process, each with a server, an endpoint and an agent of its own
//! that lead to one upstream; in each round every variant is measured, one right after the other, and the order moves on by
//! one. Schema, audit and the redaction of records are on in all of them: no tenant can turn them off. Between the first
//! variant and the last stand others that turn on one thing each, to show where the cost is.

mod issuer;
mod variant;

use std::{sync::Arc, time::Duration};

use serde_json::json;

use self::{
    issuer::Issuer,
    variant::{AGENT, SERVER, VARIANTS, Variant},
};
use crate::{
    bars::{Bar, Bound, Weight},
    compare::slots::CONNECTION_COUNT,
    driver::{
        Edge,
        call::{Call, Endpoint, Era, Proof},
        closed_loop,
        connection::Connection,
    },
    pinning::Pinning,
    process::{Meter, Usage},
    report::{Report, Row},
    scenario::{Options, ScenarioError},
    target::gantry::Gateway,
    upstream::{
        catalog::{SMALL_TEXT_BYTES, SMALL_TOOL, text},
        child::{ANYWHERE, Child, Wanted},
    },
};

/// Tools of the server.
const TOOL_COUNT: usize = 50;
/// Until a variant's endpoint answers a call.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
const READY_PAUSE: Duration = Duration::from_millis(20);
/// How long a variant is called before it is measured.
const WARM: Duration = Duration::from_millis(200);
const FAILURE_SHOWN_MAX: usize = 6;

const ROWS: &[Row] = &[
    Row { figure: "key_cpu_us_per_call", words: "agent key, one policy: processor time per call, us" },
    Row { figure: "token_cpu_us_per_call", words: "a token (JWT) in place of the key, us" },
    Row { figure: "policies_cpu_us_per_call", words: "1,000 policies in place of one, us" },
    Row {
        figure: "inspection_cpu_us_per_call",
        words: "filters, redaction of answers, breaker and limit, us",
    },
    Row { figure: "all_cpu_us_per_call", words: "all of these, us" },
    Row { figure: "token_to_key_cpu_ratio", words: "token / key" },
    Row { figure: "policies_to_key_cpu_ratio", words: "1,000 policies / key" },
    Row { figure: "inspection_to_key_cpu_ratio", words: "filters, redaction, breaker, limit / key" },
    Row { figure: "all_to_key_cpu_ratio", words: "all / key" },
    Row { figure: "key_calls_per_s", words: "agent key, one policy: calls/s" },
    Row { figure: "all_calls_per_s", words: "all: calls/s" },
];

const BARS: &[Bar] = &[
    Bar {
        figure: "failed_calls_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "no call may fail or be answered wrongly",
    },
    Bar {
        figure: "all_to_key_cpu_ratio",
        bound: Bound::AtMost(1.25),
        weight: Weight::Required,
        reason: "everything on costs at most a quarter more than an agent key and one policy",
    },
];

/// Runs the scenario and ends every process that it started.
///
/// # Errors
/// When Gantry or the upstream does not work, or `interrupted` comes true.
pub async fn run(
    options: &Options,
    pinning: &Pinning,
    interrupted: impl Future<Output = ()>,
) -> Result<Report, ScenarioError> {
    let folder = tempfile::tempdir().map_err(ScenarioError::Files)?;
    let wanted = Wanted { name: "upstream", listen: ANYWHERE, tool_count: TOOL_COUNT, delay: Duration::ZERO };
    let upstream = Child::start(folder.path(), pinning, wanted).await?;
    let issuer = Issuer::start().await.map_err(ScenarioError::Files)?;
    let servers = [(SERVER.to_owned(), upstream.url.clone())];
    let gateway = Gateway::start(folder.path(), pinning, &options.gantry, &servers).await?;
    let mut report = Report::new("pipeline", pinning.is_on(), ROWS);
    report.run = format!(
        "{} rounds, in each {:.1} s of calls of every variant, closed loops of {CONNECTION_COUNT} connections",
        options.round_count,
        options.measured.as_secs_f64(),
    );
    report.facts = vec![
        ("gantry_version", json!(gateway.version().await)),
        ("round_count", json!(options.round_count)),
        ("slot_seconds", json!(options.measured.as_secs_f64())),
        ("policy_count", json!(variant::POLICY_COUNT)),
    ];
    let measured = tokio::select! {
        measured = measure(&gateway, &issuer, &upstream, options, &mut report) => measured,
        () = interrupted => Err(ScenarioError::Interrupted),
    };
    gateway.process.stop().await.map_err(ScenarioError::Files)?;
    upstream.stop().await.map_err(ScenarioError::Files)?;
    measured?;
    for variant in VARIANTS.iter().skip(1).map(|variant| variant.name) {
        let (dear, base) = (format!("{variant}_cpu_us_per_call"), "key_cpu_us_per_call");
        report.figures.combine(&format!("{variant}_to_key_cpu_ratio"), &dear, base, |dear, base| dear / base);
    }
    report.judge(BARS);
    Ok(report)
}

/// A variant that answers.
struct Ready {
    variant: &'static Variant,
    endpoint: Arc<Endpoint>,
    call: Arc<Call>,
}

async fn measure(
    gateway: &Gateway,
    issuer: &Issuer,
    upstream: &Child,
    options: &Options,
    report: &mut Report,
) -> Result<(), ScenarioError> {
    let mut ready = Vec::with_capacity(VARIANTS.len());
    for variant in VARIANTS {
        ready.push(make(variant, gateway, issuer, upstream).await?);
    }
    let (mut failed_count, mut failures) = (0, Vec::new());
    for round in 0..options.round_count {
        eprintln!("round {} of {}", round + 1, options.round_count);
        for position in 0..ready.len() {
            let variant = &ready[(position + round as usize) % ready.len()];
            let outcome = load(variant, gateway, options, round, report).await?;
            failed_count += outcome.failed_count;
            let named = outcome.failures.iter().map(|failure| format!("{}: {failure}", variant.variant.name));
            failures.extend(named.take(FAILURE_SHOWN_MAX.saturating_sub(failures.len())));
        }
    }
    report.figures.add("failed_calls_count", 0, failed_count as f64);
    report.failures = failures;
    Ok(())
}

/// Applies the documents of a variant, and waits until a call of it is answered.
async fn make(
    variant: &'static Variant,
    gateway: &Gateway,
    issuer: &Issuer,
    upstream: &Child,
) -> Result<Ready, ScenarioError> {
    gateway.apply(&variant.documents(&upstream.url, &issuer.url)).await?;
    let proof = match variant.has_token {
        true => issuer.token(),
        false => gateway.create_key(variant.name, AGENT).await?,
    };
    let endpoint = Arc::new(gateway.endpoint_of(variant.name, SERVER, &proof)?);
    let answer = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 };
    let call = Arc::new(endpoint.call_tool_anew(Era::Legacy, SMALL_TOOL, answer));
    let deadline = tokio::time::Instant::now() + READY_TIMEOUT;
    loop {
        // Nodes come to know of a tenant, its server's tools, and its provider's keys one after the other.
        let failure = match Connection::open(&endpoint, Era::Legacy).await {
            Ok(mut connection) => match connection.call(&call).await {
                Ok(()) => {
                    connection.close().await;
                    return Ok(Ready { variant, endpoint, call });
                }
                Err(failure) => failure,
            },
            Err(failure) => failure,
        };
        if tokio::time::Instant::now() > deadline {
            return Err(ScenarioError::Call(failure));
        }
        tokio::time::sleep(READY_PAUSE).await;
    }
}

/// Measures a variant once.
async fn load(
    ready: &Ready,
    gateway: &Gateway,
    options: &Options,
    round: u32,
    report: &mut Report,
) -> Result<crate::driver::Outcome, ScenarioError> {
    let plan = closed_loop::Plan {
        endpoint: Arc::clone(&ready.endpoint),
        call: Arc::clone(&ready.call),
        connection_count: CONNECTION_COUNT,
        warm: WARM.min(options.measured),
        measured: options.measured,
    };
    let meter = Meter::of_this_machine();
    let mut readings = [Ok(Usage::default()), Ok(Usage::default())];
    let outcome = closed_loop::run(&plan, |edge| {
        let place = usize::from(matches!(edge, Edge::End));
        readings[place] = meter.usage(gateway.process.id());
    })
    .await?;
    let [start, end] = readings;
    let (start, end) = (start.map_err(ScenarioError::Usage)?, end.map_err(ScenarioError::Usage)?);
    let used = end.processor.saturating_sub(start.processor).as_secs_f64() * 1e6;
    let name = ready.variant.name;
    if outcome.completed_count > 0 {
        let per_call = used / outcome.completed_count as f64;
        report.figures.add(format!("{name}_cpu_us_per_call"), round, per_call);
    }
    let rate = outcome.completed_count as f64 / outcome.measured.as_secs_f64();
    report.figures.add(format!("{name}_calls_per_s"), round, rate);
    Ok(outcome)
}
