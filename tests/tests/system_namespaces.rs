//! A cluster of real processes in network namespaces loses nothing and never stops its nodes, whatever happens to the
//! processes and to the links between them: see [`gantry_tests::faults`].
//!
//! The test makes the namespaces and runs itself again in the hub; so they go whatever becomes of that process.
//! `GANTRY_FAULT_SEED` repeats the rounds of a run, `GANTRY_FAULT_ROUNDS` says how many, `GANTRY_FAULT_KIND` makes all of
//! them of one kind ([`Kind`]), `GANTRY_FAULT_BIN` runs another
//! build than the one beside this test, and `GANTRY_PREVIOUS_BIN` is the build with which the processes start.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_tests::dev::sibling;
use gantry_tests::faults::fleet::Builds;
use gantry_tests::faults::namespaces::{Names, Namespaces};
use gantry_tests::faults::plan::Kind;
use gantry_tests::faults::{NODES, Run, VOTERS};
use gantry_tests::members::{Error, done};
use gantry_tests::peers::or_skip;
use gantry_tests::process::run;
use tokio::process::Command;

/// The id of the process that made the namespaces, for the one in the hub.
const INSIDE: &str = "GANTRY_FAULT_INSIDE";
const SEED: &str = "GANTRY_FAULT_SEED";
const ROUNDS: &str = "GANTRY_FAULT_ROUNDS";
const KIND: &str = "GANTRY_FAULT_KIND";
const BUILD: &str = "GANTRY_FAULT_BIN";
const PREVIOUS: &str = "GANTRY_PREVIOUS_BIN";

/// Every kind once.
const ROUNDS_SHORT: usize = Kind::ALL.len();
/// How long a start of all may take, and each round; a tenth of that is usual.
const START_TIME_MAX: Duration = Duration::from_secs(300);
const ROUND_TIME_MAX: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_and_no_node_stops_whatever_happens_to_processes_and_links() -> Result<(), Error> {
    let (seed, rounds) = (number(SEED)?, number(ROUNDS)?);
    if let Some(process) = number(INSIDE)? {
        let run = Run {
            seed: seed.ok_or("a seed")?,
            rounds: usize::try_from(rounds.ok_or("rounds")?)?,
            only: std::env::var(KIND).ok().map(|kind| kind.parse()).transpose()?,
            builds: builds(rounds)?,
        };
        return run.play(Names::of(u32::try_from(process)?)).await;
    }
    let Some(namespaces) = or_skip(Namespaces::make(VOTERS + NODES)) else { return Ok(()) };
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64 >> 20);
    let (seed, is_long) = (seed.unwrap_or_else(now), rounds.is_some());
    let rounds = rounds.unwrap_or(ROUNDS_SHORT as u64);
    println!("{SEED}={seed} {ROUNDS}={rounds}");
    if std::env::var_os(PREVIOUS).is_none() {
        println!(
            "the upgrade from the build before is not tried: {PREVIOUS} does not name it; processes roll to their own build"
        );
    }
    let mut inside = Command::new("ip");
    inside.args(["netns", "exec", &namespaces.names().hub()]).arg(std::env::current_exe()?);
    let name = "nothing_is_lost_and_no_node_stops_whatever_happens_to_processes_and_links";
    inside.args(["--exact", name, "--nocapture"]);
    inside.env(INSIDE, std::process::id().to_string());
    inside.env(SEED, seed.to_string()).env(ROUNDS, rounds.to_string());
    let time_max = START_TIME_MAX + ROUND_TIME_MAX * u32::try_from(rounds)?;
    if is_long {
        // Somebody watches.
        let mut running = inside.stdin(Stdio::null()).kill_on_drop(true).spawn()?;
        let status = tokio::time::timeout(time_max, running.wait()).await??;
        return if status.success() { Ok(()) } else { Err(format!("the run ended with {status}").into()) };
    }
    println!("{}", done(run(inside, time_max).await?)?.stdout);
    Ok(())
}

/// Short certificates are one node's in the short form, so that nobody else is late where the machine is; everybody's
/// in the long one, so that they are renewed while there are faults.
fn builds(rounds: Option<u64>) -> Result<Builds, Error> {
    let is_long = rounds.is_some_and(|rounds| rounds > ROUNDS_SHORT as u64);
    let named = |name| std::env::var_os(name).map(PathBuf::from);
    Ok(Builds {
        current: named(BUILD).map_or_else(|| sibling("gantry-under-test"), Ok)?,
        previous: named(PREVIOUS),
        certificate_life: Duration::from_secs(if is_long { 120 } else { 30 }),
        all_short: is_long,
    })
}

fn number(name: &str) -> Result<Option<u64>, Error> {
    Ok(std::env::var(name).ok().map(|text| text.parse()).transpose()?)
}
