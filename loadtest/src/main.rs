//! The command line of the yardstick: scenarios, and the upstream as a process.
//!
//! What always holds: the report is on standard output and talk on standard error; exit code 0 is
//! a report, 1 an error or a missed bar under `--check`, 2 a wrong command line.

use std::{fs, io::Write, net::SocketAddr, path::PathBuf, pin::Pin, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use gantry_loadtest::{
    causes::on_one_line,
    compare::{
        self, Options, Report,
        slots::{SLOTS, Slot},
    },
    control::{self, Part},
    isolation, lists,
    pinning::Pinning,
    pipeline, report, scenario, streams,
    target::Name,
    upstream::{
        self,
        catalog::{Catalog, TOOL_COUNT_MAX},
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// The scenarios that exist.
const SCENARIOS: [(&str, &str); 5] = [
    ("compare", "direct, nginx and Gantry interleaved: rate, latency, processor time, memory"),
    ("control", "the control plane: durable writes, changes on 1,000 nodes, a killed leader"),
    (
        "isolation",
        "calls of healthy servers beside calls to sick ones, or to as many well ones, of the same endpoint",
    ),
    ("lists", "processor time of a list of 300 tools, in gzip and as it is, beside that of a call"),
    ("streams", "memory of many open listen streams, and how soon all hear of a change"),
];
const EXIT_USAGE: u8 = 2;

type Failure = Box<dyn std::error::Error>;
type Interrupted = Pin<Box<dyn Future<Output = ()>>>;

/// Measures Gantry beside what it is compared with.
#[derive(Parser)]
#[command(name = "gantry-loadtest", version)]
struct CommandLine {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Scenario: direct, nginx and Gantry interleaved in one run.
    Compare(CompareArguments),
    /// Scenario: the control plane, in parts that can run singly.
    Control(ControlArguments),
    /// Scenario: calls of healthy servers beside calls to sick ones, or to as many well ones, of the same endpoint.
    Isolation(ScenarioArguments),
    /// Scenario: lists of 300 tools, in gzip and as they are, and calls in one run.
    Lists(ScenarioArguments),
    /// Scenario: calls with everything on, and calls with an agent key and one policy.
    Pipeline(ScenarioArguments),
    /// Scenario: many open listen streams.
    Streams(ScenarioArguments),
    /// The MCP server that scenarios put behind every target.
    Upstream(UpstreamArguments),
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

/// What all scenarios take.
#[derive(Args)]
struct ScenarioArguments {
    /// End within a minute: fewer and shorter rounds.
    #[arg(long)]
    quick: bool,
    /// Also write every figure as one flat JSON object.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Exit with 1 if a figure misses a required bar.
    #[arg(long)]
    check: bool,
    /// Gantry's program [default: `gantry` beside this program].
    #[arg(long, value_name = "PATH")]
    gantry: Option<PathBuf>,
    /// How often everything is measured [default: 5, quick: 3].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,
    /// How long each measurement takes [default: by the scenario].
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<Duration>,
    /// Streams to open, of `streams` [default: 10000, quick: 1000].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=15_000))]
    streams: Option<u32>,
}

#[derive(Args)]
struct CompareArguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// Only this target; may be repeated.
    #[arg(long = "target", value_parser = parse_target)]
    targets: Vec<Name>,
    /// Only this measurement, by the name in its figures; may be repeated.
    #[arg(long = "slot", value_parser = parse_slot)]
    slots: Vec<Slot>,
}

#[derive(Args)]
struct ControlArguments {
    #[command(flatten)]
    scenario: ScenarioArguments,
    /// Only this part; may be repeated.
    #[arg(long = "only", value_name = "NAME", value_parser = parse_part)]
    parts: Vec<Part>,
    /// Nodes that subscribe [default: 1000, quick: 200].
    #[arg(long, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    nodes: Option<u32>,
}

#[derive(Args)]
struct UpstreamArguments {
    /// Where to listen; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many tools to offer.
    #[arg(long, default_value_t = 300, value_parser = parse_tool_count)]
    tools: usize,
    /// How long a call of a tool takes.
    #[arg(long, default_value = "0", value_parser = parse_delay)]
    delay_seconds: Duration,
    /// End when standard input does.
    #[arg(long)]
    end_with_input: bool,
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let outcome = match command {
        Command::Compare(arguments) => run_compare(&arguments),
        Command::Control(arguments) => run_control(&arguments),
        Command::Isolation(arguments) => {
            // A turn has some fifty calls beyond its p99, in `--quick` twenty.
            run_scenario(&arguments, [10.0, 4.0], async |options, pinning, interrupted| {
                Ok(isolation::run(&options, &pinning, interrupted).await?)
            })
        }
        Command::Lists(arguments) => {
            run_scenario(&arguments, [2.0, 0.5], async |options, pinning, interrupted| {
                Ok(lists::run(&options, &pinning, interrupted).await?)
            })
        }
        Command::Pipeline(arguments) => {
            run_scenario(&arguments, [2.0, 0.5], async |options, pinning, interrupted| {
                Ok(pipeline::run(&options, &pinning, interrupted).await?)
            })
        }
        Command::Streams(arguments) => {
            run_scenario(&arguments, [1.0, 1.0], async |options, pinning, interrupted| {
                Ok(streams::run(&options, &pinning, interrupted).await?)
            })
        }
        Command::Upstream(arguments) => run_upstream(&arguments),
        Command::Unknown(words) => Ok(refuse(words.first().map_or("", String::as_str))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {}", on_one_line(error.as_ref()));
        ExitCode::FAILURE
    })
}

/// Runs a scenario; `seconds` is how long a measurement takes in full and in `--quick`.
fn run_scenario(
    arguments: &ScenarioArguments,
    [seconds, seconds_quick]: [f64; 2],
    run: impl AsyncFnOnce(scenario::Options, Pinning, Interrupted) -> Result<report::Report, Failure>,
) -> Result<ExitCode, Failure> {
    let measured = Duration::from_secs_f64(if arguments.quick { seconds_quick } else { seconds });
    let streams = arguments.streams.unwrap_or(if arguments.quick { 1_000 } else { 10_000 });
    let options = scenario::Options {
        round_count: arguments.rounds.unwrap_or(if arguments.quick { 3 } else { 5 }),
        measured: arguments.seconds.unwrap_or(measured),
        gantry: gantry(arguments)?,
        stream_count: streams as usize,
    };
    // Before the runtime, so that all its threads are where they belong.
    let pinning = Pinning::of_this_process();
    let report = runtime()?.block_on(async { run(options, pinning, interrupted()?).await })?;
    finish(arguments, &report, report.flat(), report.is_failure())
}

fn run_compare(arguments: &CompareArguments) -> Result<ExitCode, Failure> {
    let options = options(arguments)?;
    // Before the runtime, so that all its threads are where they belong.
    let pinning = Pinning::of_this_process();
    let report: Report = runtime()?
        .block_on(async { compare::run(&options, &pinning, interrupted()?).await.map_err(Failure::from) })?;
    finish(&arguments.scenario, &report, report.flat(), report.is_failure())
}

fn run_control(arguments: &ControlArguments) -> Result<ExitCode, Failure> {
    let ControlArguments { scenario, parts, nodes } = arguments;
    let (rounds, seconds, held_s, nodes_usual) =
        if scenario.quick { (1, 3.0, 5.0, 200) } else { (3, 10.0, 60.0, 1_000) };
    let options = control::Options {
        parts: parts.clone(),
        round_count: scenario.rounds.unwrap_or(rounds),
        measured: scenario.seconds.unwrap_or(Duration::from_secs_f64(seconds)),
        held: Duration::from_secs_f64(held_s),
        node_count: nodes.unwrap_or(nodes_usual) as usize,
        is_quick: scenario.quick,
        gantry: gantry(scenario)?,
    };
    let report = shared_runtime()?
        .block_on(async { control::run(&options, interrupted()?).await.map_err(Failure::from) })?;
    finish(scenario, &report, report.flat(), report.is_failure())
}

/// Writes a report, and says how the program ends.
fn finish(
    arguments: &ScenarioArguments,
    report: &impl std::fmt::Display,
    flat: serde_json::Map<String, serde_json::Value>,
    is_failure: bool,
) -> Result<ExitCode, Failure> {
    if let Some(file) = &arguments.json {
        fs::write(file, serde_json::to_string_pretty(&flat)? + "\n")?;
    }
    write!(std::io::stdout(), "{report}")?;
    let is_missed = arguments.check && is_failure;
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn gantry(arguments: &ScenarioArguments) -> Result<PathBuf, std::io::Error> {
    match &arguments.gantry {
        Some(path) => Ok(path.clone()),
        None => Ok(std::env::current_exe()?.with_file_name("gantry")),
    }
}

fn options(arguments: &CompareArguments) -> Result<Options, std::io::Error> {
    let CompareArguments { scenario, .. } = arguments;
    let (round_count, measured, warm) = if scenario.quick {
        (3, Duration::from_millis(500), Duration::from_millis(100))
    } else {
        (5, Duration::from_secs(2), Duration::from_millis(500))
    };
    let measured = scenario.seconds.unwrap_or(measured);
    let targets = Name::ALL.into_iter();
    let slots = SLOTS.into_iter();
    Ok(Options {
        round_count: scenario.rounds.unwrap_or(round_count),
        measured,
        warm: warm.min(measured),
        gantry: gantry(scenario)?,
        targets: targets
            .filter(|name| arguments.targets.is_empty() || arguments.targets.contains(name))
            .collect(),
        slots: slots
            .filter(|slot| {
                let mut wanted = arguments.slots.iter();
                arguments.slots.is_empty() || wanted.any(|wanted| wanted.name == slot.name)
            })
            .collect(),
    })
}

fn run_upstream(arguments: &UpstreamArguments) -> Result<ExitCode, Failure> {
    let UpstreamArguments { listen, tools, delay_seconds, end_with_input } = *arguments;
    let catalog = Catalog::with_tools(tools);
    let runtime = runtime()?;
    runtime.block_on(upstream::run_as_process(listen, catalog, delay_seconds, end_with_input))?;
    // Reading standard input may hold a thread that nothing can wake.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// One thread: both the driver and the upstream have one core at most.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// A thread for each core.
fn shared_runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()
}

/// Ends when this process is asked to end, so that it can end its own processes first.
fn interrupted() -> std::io::Result<Interrupted> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    }))
}

fn refuse(name: &str) -> ExitCode {
    eprintln!("error: there is no scenario {name:?}; there are:");
    for (name, words) in SCENARIOS {
        eprintln!("  {name:<10} {words}");
    }
    ExitCode::from(EXIT_USAGE)
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(0.01..=600.0).contains(&seconds) {
        return Err("not between 0.01 and 600".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

fn parse_delay(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn parse_target(text: &str) -> Result<Name, String> {
    let known = Name::ALL.map(Name::key).join(", ");
    let found = Name::ALL.into_iter().find(|name| name.key() == text);
    found.ok_or_else(|| format!("not one of {known}"))
}

fn parse_part(text: &str) -> Result<Part, String> {
    let known = Part::ALL.map(Part::key).join(", ");
    let found = Part::ALL.into_iter().find(|part| part.key() == text);
    found.ok_or_else(|| format!("not one of {known}"))
}

fn parse_slot(text: &str) -> Result<Slot, String> {
    let known = SLOTS.map(|slot| slot.name).join(", ");
    Slot::named(text).ok_or_else(|| format!("not one of {known}"))
}

fn parse_tool_count(text: &str) -> Result<usize, String> {
    let count = text.parse().map_err(|_| "not a number".to_owned())?;
    if !(3..=TOOL_COUNT_MAX).contains(&count) {
        return Err(format!("not between 3 and {TOOL_COUNT_MAX}"));
    }
    Ok(count)
}
