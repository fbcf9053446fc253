//! What a decision costs: `cargo run --release -p gantry-policy --example decide`.
//!
//! Prints the time of one decision at 10, 100 and 1,000 statements in the set, of which one applies to the request.
//! It measures this machine at this moment; compare columns of one run, not runs.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use gantry_model::{GroupName, PolicyName, ServerName};
use gantry_policy::{Hints, Known, PolicySet, Principal, Target, check};

const SIZES: [usize; 4] = [0, 10, 100, 1_000];
/// Enough for a 99th percentile; the largest set takes about a millisecond per decision.
const DECISIONS: usize = 2_000;

fn main() -> Result<(), Box<dyn Error>> {
    let (server, policy): (ServerName, PolicyName) = ("server-0".parse()?, "measured".parse()?);
    let groups = ["group-0", "staff", "all"]
        .map(str::parse::<GroupName>)
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;
    let agent = Principal::new(&"agent-0".parse()?, &groups);
    let target = Target::Tool { server: &server, name: "read_file", hints: Hints::default() };
    println!("| statements | check ms | compile ms | decide us, median | p99 |\n|---|---|---|---|---|");
    for size in SIZES {
        let text = policies(size);
        let started = Instant::now();
        black_box(check(&text, &Known::new()));
        let checked = started.elapsed();
        let started = Instant::now();
        let set = PolicySet::compile([(&policy, text.as_str())])?;
        let compiled = started.elapsed();
        let mut times: Vec<Duration> = (0..DECISIONS).map(|_| time(&set, &agent, &target)).collect();
        times.sort();
        let (median, p99) = (times[DECISIONS / 2], times[DECISIONS * 99 / 100]);
        println!(
            "| {size} | {:.1} | {:.1} | {:.1} | {:.1} |",
            milliseconds(checked),
            milliseconds(compiled),
            1_000.0 * milliseconds(median),
            1_000.0 * milliseconds(p99),
        );
    }
    Ok(())
}

/// Statements as tenants write them: a group and a server each, every tenth a condition on a hint.
fn policies(count: usize) -> String {
    let statement = |index: usize| match index % 10 {
        9 => format!(
            "forbid(principal in Group::\"group-{index}\", action == Action::\"tools/call\", resource) \
             when {{ resource.destructive }};\n"
        ),
        _ => format!(
            "permit(principal in Group::\"group-{index}\", action, resource in Server::\"server-{}\");\n",
            index % 20
        ),
    };
    (0..count).map(statement).collect()
}

fn time(set: &PolicySet, agent: &Principal, target: &Target<'_>) -> Duration {
    let started = Instant::now();
    black_box(set.decide(black_box(agent), black_box(target)));
    started.elapsed()
}

fn milliseconds(duration: Duration) -> f64 {
    1_000.0 * duration.as_secs_f64()
}
