//! Runs the MCP conformance suites against the fixture server, directly and through a gateway.
//!
//! Exits with 1 when the gateway does worse than the server behind it, or the server worse than it is
//! known to do. `tests/conformance/run` builds and calls this.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use gantry_tests::conformance::{self, Setting, Status, Suite, Way};
use gantry_tests::dev::Options;
use gantry_tests::fixture::Era;
use gantry_tests::peers::{chain, folder};

/// Runs the MCP conformance suites, directly and through a gateway, and compares check by check.
#[derive(Debug, Parser)]
struct Arguments {
    /// Only this suite; may be given more than once.
    #[arg(long, value_enum)]
    suite: Vec<SuiteName>,
    /// Only the fixture server, no gateway.
    #[arg(long, conflicts_with_all = ["url", "gateway"])]
    direct: bool,
    /// Only the server at this URL, without a comparison.
    #[arg(long, conflicts_with = "gateway")]
    url: Option<String>,
    /// What the server behind the gateway speaks.
    #[arg(long, value_enum, default_value_t, conflicts_with = "url")]
    upstream: Upstream,
    /// How many nodes stand before the server.
    #[arg(long, value_enum, default_value_t, conflicts_with_all = ["url", "direct"])]
    nodes: Nodes,
    /// The gateway's program, started as `GATEWAY dev --anonymous ...`; gantry from this work tree when absent.
    gateway: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum SuiteName {
    /// 0.1.16, all scenarios.
    Released,
    /// 0.2.0-alpha.12, requirements of revision 2025-11-25.
    #[value(name = "2025-11-25")]
    Requirements20251125,
    /// 0.2.0-alpha.12, requirements of revision 2026-07-28.
    #[value(name = "2026-07-28")]
    Requirements20260728,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Upstream {
    /// Up to 2025-11-25.
    Legacy,
    /// 2026-07-28.
    Modern,
    /// All revisions.
    #[default]
    Dual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Nodes {
    /// One.
    #[default]
    #[value(name = "1")]
    One,
    /// Three behind a balancer that sends every request to another one.
    #[value(name = "3")]
    Three,
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("conformance: {}", chain(error.as_ref()));
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<bool, Box<dyn std::error::Error>> {
    let suites: Vec<Suite> = if arguments.suite.is_empty() {
        Suite::ALL.to_vec()
    } else {
        arguments.suite.iter().map(|name| (*name).into()).collect()
    };
    let results = folder().join("results");
    let mut is_good = true;
    for suite in suites {
        if let Some(url) = &arguments.url {
            is_good &= run_url(suite, url).await?;
            continue;
        }
        let options = Options { program: arguments.gateway.clone(), ..Options::default() };
        let way = match arguments.nodes {
            _ if arguments.direct => Way::Direct,
            Nodes::One => Way::Gateway(options),
            Nodes::Three => Way::Balanced(options),
        };
        let upstream = match arguments.upstream {
            Upstream::Legacy => Era::Legacy,
            Upstream::Modern => Era::Modern,
            Upstream::Dual => Era::Dual,
        };
        let comparison = conformance::run(suite, &results, &Setting { upstream, way }).await?;
        print!("{comparison}");
        is_good &= comparison.is_good();
    }
    println!("{}", if is_good { "good" } else { "not good" });
    Ok(is_good)
}

async fn run_url(suite: Suite, url: &str) -> Result<bool, Box<dyn std::error::Error>> {
    let results = tempfile::tempdir()?;
    let report = suite.run(url, results.path()).await?;
    let passed = report.count(Status::Success);
    let failed = report.count(Status::Failure);
    println!("{}: {passed} passed, {failed} failed", suite.name());
    for (name, check) in report.failures() {
        let message = check.message.as_deref().unwrap_or_default();
        println!("  FAILED {name}: {message}");
    }
    Ok(failed == 0)
}

impl From<SuiteName> for Suite {
    fn from(name: SuiteName) -> Self {
        match name {
            SuiteName::Released => Self::Released,
            SuiteName::Requirements20251125 => Self::Requirements20251125,
            SuiteName::Requirements20260728 => Self::Requirements20260728,
        }
    }
}
