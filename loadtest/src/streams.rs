//! Scenario `streams`: what many open `subscriptions/listen` streams cost a node, and how soon all hear of a change.
//!
//! What always holds: every stream was acknowledged before memory is read, and memory is read when it no longer
//! changes; a change is one of policy, applied as an admin would, and each stream has to tell of it.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::json;
use tokio::{sync::mpsc, task::JoinSet};

use crate::{
    bars::{Bar, Bound, Weight},
    causes::on_one_line,
    driver::{
        call::{Endpoint, Era, Proof},
        closed_loop,
        connection::{CallError, Connection},
        listener::Listener,
    },
    pinning::{Pinning, find_program},
    process::Meter,
    report::{Report, Row},
    scenario::{Options, ScenarioError},
    target::gantry::{Gateway, TENANT},
    upstream::{
        catalog::{SMALL_TEXT_BYTES, SMALL_TOOL, text},
        child::{ANYWHERE, Child, Wanted},
    },
};

/// Tools of the server.
const TOOL_COUNT: usize = 300;
/// Streams that are being opened at once.
const OPENING_MAX: usize = 64;
/// Until all streams heard of a change.
const HEARD_TIMEOUT: Duration = Duration::from_secs(30);
/// Until Gantry offers the tools.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// Memory is settled when so many readings, a pause apart, are within [`SETTLED_KIB`].
const SETTLED_READINGS: usize = 8;
const SETTLED_PAUSE: Duration = Duration::from_millis(250);
const SETTLED_KIB: u64 = 256;
/// After which it is taken as it is.
const SETTLED_TIMEOUT: Duration = Duration::from_secs(15);
/// Open files of each process beyond one for each stream.
const FILES_SPARE: usize = 4_096;
const SERVER: &str = "bench";
const FAILURE_SHOWN_MAX: usize = 6;

const ROWS: &[Row] = &[
    Row { figure: "streams_open_count", words: "streams open" },
    Row { figure: "opened_per_s", words: "opened a second" },
    Row { figure: "rss_before_mib", words: "memory of the node before, MiB" },
    Row { figure: "rss_open_mib", words: "memory with all open, MiB" },
    Row { figure: "rss_kib_per_stream", words: "memory per stream, KiB" },
    Row { figure: "rss_kib_per_stream_after_changes", words: "memory per stream after all changes, KiB" },
    Row { figure: "apply_to_first_ms", words: "from `gantry apply` to the first notification, ms" },
    Row { figure: "apply_to_last_ms", words: "from `gantry apply` to the last, ms" },
    Row { figure: "first_to_last_ms", words: "from the first to the last, ms" },
    Row { figure: "unheard_count", words: "streams that did not hear of it" },
];

const BARS: &[Bar] = &[
    Bar {
        figure: "failed_streams_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "every stream is opened and stays open",
    },
    Bar {
        figure: "unheard_count",
        bound: Bound::AtMost(0.0),
        weight: Weight::Required,
        reason: "every stream hears of every change",
    },
    Bar {
        figure: "rss_kib_per_stream",
        bound: Bound::AtMost(20.0),
        weight: Weight::Required,
        reason: "an idle stream is small",
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
    raise_file_limit(options.stream_count + FILES_SPARE).await;
    let folder = tempfile::tempdir().map_err(ScenarioError::Files)?;
    let wanted = Wanted { name: "upstream", listen: ANYWHERE, tool_count: TOOL_COUNT, delay: Duration::ZERO };
    let upstream = Child::start(folder.path(), pinning, wanted).await?;
    let servers = [(SERVER.to_owned(), upstream.url.clone())];
    let gateway = Gateway::start(folder.path(), pinning, &options.gantry, &servers).await?;
    let mut report = Report::new("streams", pinning.is_on(), ROWS);
    report.run = format!(
        "{} streams of one agent on one node, {} changes of policy",
        options.stream_count, options.round_count
    );
    report.facts = vec![
        ("gantry_version", json!(gateway.version().await)),
        ("round_count", json!(options.round_count)),
        ("stream_count", json!(options.stream_count)),
        ("tool_count", json!(TOOL_COUNT)),
    ];
    let measured = tokio::select! {
        measured = measure(&gateway, options, &mut report) => measured,
        () = interrupted => Err(ScenarioError::Interrupted),
    };
    gateway.process.stop().await.map_err(ScenarioError::Files)?;
    upstream.stop().await.map_err(ScenarioError::Files)?;
    measured?;
    report.judge(BARS);
    Ok(report)
}

/// Raises the limit of open files for this process and those that it starts. By a program, because doing it here
/// would need unsafe code; where it is refused, streams fail and the report says so.
async fn raise_file_limit(count: usize) {
    let Some(program) = find_program("prlimit") else { return };
    let limit = format!("--nofile={count}:{count}");
    let own = std::process::id().to_string();
    let _ = tokio::process::Command::new(program).args(["--pid", &own, &limit]).status().await;
}

async fn measure(gateway: &Gateway, options: &Options, report: &mut Report) -> Result<(), ScenarioError> {
    let endpoint = Arc::new(gateway.endpoint(SERVER)?);
    until_offered(&endpoint).await?;
    warm_up(&endpoint).await?;
    let figures = &mut report.figures;
    let before = settled_kib(gateway.process.id()).await?;
    figures.add("rss_before_mib", 0, before as f64 / 1_024.0);
    let began = Instant::now();
    let (mut opening, mut streams, mut failures) = (Opening::new(&endpoint), Vec::new(), Vec::new());
    opening.all(options.stream_count, &mut streams, &mut failures).await;
    figures.add("opened_per_s", 0, streams.len() as f64 / began.elapsed().as_secs_f64());
    figures.add("streams_open_count", 0, streams.len() as f64);
    let per_stream = |now: u64| now.saturating_sub(before) as f64 / streams.len().max(1) as f64;
    let open = settled_kib(gateway.process.id()).await?;
    figures.add("rss_open_mib", 0, open as f64 / 1_024.0);
    figures.add("rss_kib_per_stream", 0, per_stream(open));
    let stream_count = streams.len();
    let (heard, mut hearing) = mpsc::unbounded_channel();
    let mut listening = JoinSet::new();
    for stream in streams.drain(..) {
        listening.spawn(listen(stream, heard.clone()));
    }
    drop(heard);
    for round in 0..options.round_count {
        let began = Instant::now();
        gateway.apply(&change(round)).await?;
        let moments = hear(&mut hearing, stream_count).await;
        let since = |moment: &Instant| moment.saturating_duration_since(began).as_secs_f64() * 1e3;
        figures.add("unheard_count", round, (stream_count - moments.len()) as f64);
        if let (Some(first), Some(last)) = (moments.iter().min(), moments.iter().max()) {
            figures.add("apply_to_first_ms", round, since(first));
            figures.add("apply_to_last_ms", round, since(last));
            figures.add("first_to_last_ms", round, since(last) - since(first));
        }
    }
    let after = settled_kib(gateway.process.id()).await?;
    let per_stream = after.saturating_sub(before) as f64 / stream_count.max(1) as f64;
    figures.add("rss_kib_per_stream_after_changes", 0, per_stream);
    while let Some(Ok(failure)) = listening.try_join_next() {
        failures.push(on_one_line(&failure));
    }
    figures.add("failed_streams_count", 0, failures.len() as f64);
    report.failures = failures.into_iter().take(FAILURE_SHOWN_MAX).collect();
    Ok(())
}

async fn until_offered(endpoint: &Endpoint) -> Result<(), ScenarioError> {
    let started = Instant::now();
    while started.elapsed() < READY_TIMEOUT {
        if let Ok(mut connection) = Connection::open(endpoint, Era::Modern).await
            && connection.tool_names(endpoint, Era::Modern).await.is_ok_and(|names| names.len() == TOOL_COUNT)
        {
            connection.close().await;
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Err(ScenarioError::Waited { what: "the tools of the server" })
}

/// Calls for a moment, so that what a node takes once is not charged to the streams.
async fn warm_up(endpoint: &Arc<Endpoint>) -> Result<(), ScenarioError> {
    let proof = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 };
    let plan = closed_loop::Plan {
        endpoint: Arc::clone(endpoint),
        call: Arc::new(endpoint.call_tool(Era::Modern, SMALL_TOOL, proof)),
        connection_count: OPENING_MAX,
        warm: Duration::ZERO,
        measured: Duration::from_millis(500),
    };
    closed_loop::run(&plan, |_| {}).await?;
    Ok(())
}

/// Memory of a process once it stays what it is, or after [`SETTLED_TIMEOUT`].
async fn settled_kib(id: u32) -> Result<u64, ScenarioError> {
    let meter = Meter::of_this_machine();
    let started = Instant::now();
    let mut readings: VecDeque<u64> = VecDeque::with_capacity(SETTLED_READINGS);
    loop {
        let reading = meter.usage(id).map_err(ScenarioError::Usage)?.resident_kib;
        if readings.len() == SETTLED_READINGS {
            readings.pop_front();
        }
        readings.push_back(reading);
        let span = readings.iter().max().zip(readings.iter().min()).map(|(max, min)| max - min);
        let is_settled = readings.len() == SETTLED_READINGS && span.is_some_and(|span| span <= SETTLED_KIB);
        if is_settled || started.elapsed() > SETTLED_TIMEOUT {
            return Ok(reading);
        }
        tokio::time::sleep(SETTLED_PAUSE).await;
    }
}

/// Opens streams, some at a time.
struct Opening {
    endpoint: Arc<Endpoint>,
    tasks: JoinSet<Result<Listener, CallError>>,
}

impl Opening {
    fn new(endpoint: &Arc<Endpoint>) -> Self {
        Self { endpoint: Arc::clone(endpoint), tasks: JoinSet::new() }
    }

    async fn all(&mut self, count: usize, streams: &mut Vec<Listener>, failures: &mut Vec<String>) {
        let call = Arc::new(self.endpoint.listen());
        let mut begun_count = 0;
        loop {
            while begun_count < count && self.tasks.len() < OPENING_MAX {
                let (endpoint, call) = (Arc::clone(&self.endpoint), Arc::clone(&call));
                self.tasks.spawn(async move { Listener::open(&endpoint, &call).await });
                begun_count += 1;
            }
            match self.tasks.join_next().await {
                None => return,
                Some(Ok(Ok(stream))) => streams.push(stream),
                Some(Ok(Err(failure))) => failures.push(on_one_line(&failure)),
                Some(Err(failure)) => failures.push(failure.to_string()),
            }
        }
    }
}

/// Tells of every change until the stream ends; returns why it did.
async fn listen(mut stream: Listener, heard: mpsc::UnboundedSender<Instant>) -> CallError {
    loop {
        match stream.changed().await {
            Ok(moment) => drop(heard.send(moment)),
            Err(failure) => return failure,
        }
    }
}

/// Waits until `count` streams told of a change, for a bounded time.
async fn hear(hearing: &mut mpsc::UnboundedReceiver<Instant>, count: usize) -> Vec<Instant> {
    let deadline = tokio::time::Instant::now() + HEARD_TIMEOUT;
    let mut moments = Vec::with_capacity(count);
    while moments.len() < count {
        match tokio::time::timeout_at(deadline, hearing.recv()).await {
            Ok(Some(moment)) => moments.push(moment),
            Ok(None) | Err(_) => break,
        }
    }
    moments
}

/// A policy that takes another tool away in each round.
fn change(round: u32) -> String {
    let number = 3 + round;
    format!(
        "kind: Policy\ntenant: {TENANT}\nname: changing\nspec:\n  cedar: |\n    forbid(principal, action == \
         Action::\"tools/call\", resource == Tool::\"{SERVER}/tool_{number:04}\");\n"
    )
}
