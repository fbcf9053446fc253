//! The command line of the yardstick: scenarios, and the upstream as a process.
//!
//! What always holds: the report is on standard output and talk on standard error; exit code 0 is
//! a report, 1 an error or a missed bar under `--check`, 2 a wrong command line.

use std::{fs, io::Write, net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, Parser, Subcommand};
use gantry_loadtest::{
    causes::on_one_line,
    compare::{
        self, Options, Report,
        slots::{SLOTS, Slot},
    },
    pinning::Pinning,
    target::Name,
    upstream::{
        self,
        catalog::{Catalog, TOOL_COUNT_MAX},
    },
};
use tokio::signal::unix::{SignalKind, signal};

/// The scenarios that exist.
const SCENARIOS: [(&str, &str); 1] =
    [("compare", "direct, nginx and Gantry interleaved: rate, latency, processor time, memory")];
const EXIT_USAGE: u8 = 2;

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
    /// The MCP server that scenarios put behind every target.
    Upstream(UpstreamArguments),
    #[command(external_subcommand)]
    Unknown(Vec<String>),
}

#[derive(Args)]
struct CompareArguments {
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
    /// How long each measurement takes [default: 2, quick: 0.5].
    #[arg(long, value_parser = parse_seconds)]
    seconds: Option<Duration>,
    /// Only this target; may be repeated.
    #[arg(long = "target", value_parser = parse_target)]
    targets: Vec<Name>,
    /// Only this measurement, by the name in its figures; may be repeated.
    #[arg(long = "slot", value_parser = parse_slot)]
    slots: Vec<Slot>,
}

#[derive(Args)]
struct UpstreamArguments {
    /// Where to listen; port 0 for any.
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// How many tools to offer.
    #[arg(long, default_value_t = 300, value_parser = parse_tool_count)]
    tools: usize,
    /// End when standard input does.
    #[arg(long)]
    end_with_input: bool,
}

fn main() -> ExitCode {
    let command = CommandLine::parse().command;
    let outcome = match command {
        Command::Compare(arguments) => run_compare(&arguments),
        Command::Upstream(arguments) => run_upstream(&arguments),
        Command::Unknown(words) => Ok(refuse(words.first().map_or("", String::as_str))),
    };
    outcome.unwrap_or_else(|error| {
        eprintln!("error: {}", on_one_line(error.as_ref()));
        ExitCode::FAILURE
    })
}

fn run_compare(arguments: &CompareArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let options = options(arguments)?;
    // Before the runtime, so that all its threads are where they belong.
    let pinning = Pinning::of_this_process();
    let report: Report = runtime()?.block_on(async {
        compare::run(&options, &pinning, interrupted()?).await.map_err(Box::<dyn std::error::Error>::from)
    })?;
    if let Some(file) = &arguments.json {
        fs::write(file, serde_json::to_string_pretty(&report.flat())? + "\n")?;
    }
    write!(std::io::stdout(), "{report}")?;
    let is_missed = arguments.check && report.is_failure();
    Ok(if is_missed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn options(arguments: &CompareArguments) -> Result<Options, std::io::Error> {
    let (round_count, measured, warm) = if arguments.quick {
        (3, Duration::from_millis(500), Duration::from_millis(100))
    } else {
        (5, Duration::from_secs(2), Duration::from_millis(500))
    };
    let measured = arguments.seconds.unwrap_or(measured);
    let gantry = match &arguments.gantry {
        Some(path) => path.clone(),
        None => std::env::current_exe()?.with_file_name("gantry"),
    };
    let targets = Name::ALL.into_iter();
    let slots = SLOTS.into_iter();
    Ok(Options {
        round_count: arguments.rounds.unwrap_or(round_count),
        measured,
        warm: warm.min(measured),
        gantry,
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

fn run_upstream(arguments: &UpstreamArguments) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let catalog = Catalog::with_tools(arguments.tools);
    let runtime = runtime()?;
    runtime.block_on(upstream::run_as_process(arguments.listen, catalog, arguments.end_with_input))?;
    // Reading standard input may hold a thread that nothing can wake.
    runtime.shutdown_background();
    Ok(ExitCode::SUCCESS)
}

/// One thread: both the driver and the upstream have one core at most.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Ends when this process is asked to end, so that it can end its own processes first.
fn interrupted() -> std::io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
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

fn parse_target(text: &str) -> Result<Name, String> {
    let known = Name::ALL.map(Name::key).join(", ");
    let found = Name::ALL.into_iter().find(|name| name.key() == text);
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
