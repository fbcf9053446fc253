//! Kills a voter at random moments, again and again on one directory, and looks for every command that it acknowledged.
//!
//! The test starts itself as a child process, which proposes as fast as it can and prints each acknowledgement. A round
//! kills the child after a random number of them, some rounds while it is still starting. The next child prints what
//! it found.
//!
//! `cargo test -p gantry-control-plane --test kill` makes 20 rounds. The long form makes as many as asked for, and a
//! seed repeats the same moments as far as the machine allows:
//!
//! ```text
//! GANTRY_KILL_ROUNDS=1000 GANTRY_KILL_SEED=1 cargo test -p gantry-control-plane --test kill -- --nocapture
//! ```

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command as Process, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_control_plane::feed::Feed;
use gantry_control_plane::raft::{Consensus, Options, VoterId};
use gantry_control_state::{Command, Outcome};
use gantry_model::{Catalog, Definition, Kind, document};
use serde_json::json;

const ROUNDS: u64 = 20;
/// Most acknowledgements before a kill.
const ACKS_MAX: u64 = 150;
const PROPOSERS: u64 = 8;
/// One in this many proposals is a large one, of many values and batches.
const LARGE_EVERY: u64 = 16;
const LARGE_BYTES: usize = 300_000;
/// Low, so that checkpoints and purges are under way when the child is killed.
const CHECKPOINT_ENTRIES: u64 = 40;
const DIRECTORY: &str = "GANTRY_KILL_DIRECTORY";
const ROUND: &str = "GANTRY_KILL_ROUND";

/// The child; does nothing unless the test started it.
#[test]
fn child() {
    let (Ok(directory), Ok(round)) = (std::env::var(DIRECTORY), std::env::var(ROUND)) else {
        return;
    };
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(propose_until_killed(Path::new(&directory), &round));
}

#[test]
fn whatever_was_acknowledged_outlives_a_kill() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let rounds = number("GANTRY_KILL_ROUNDS").unwrap_or(ROUNDS);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_nanos() as u64);
    let seed = number("GANTRY_KILL_SEED").unwrap_or_else(now);
    println!("GANTRY_KILL_SEED={seed} GANTRY_KILL_ROUNDS={rounds}");
    let mut random = Random(seed);
    let directory = tempfile::tempdir().expect("temporary directory");
    let mut acknowledged = BTreeSet::new();
    for round in 0..rounds {
        let mut child = Voter::start(directory.path(), round);
        if random.below(8) == 0 {
            // While it opens the directory.
            child.kill_after(&mut acknowledged, random.below(2));
            continue;
        }
        let found = child.found();
        let lost: Vec<_> = acknowledged.difference(&found).collect();
        assert!(lost.is_empty(), "round {round}: acknowledged and lost: {lost:?}");
        child.kill_after(&mut acknowledged, random.below(ACKS_MAX));
    }
    let found = Voter::start(directory.path(), rounds).found();
    assert!(acknowledged.is_subset(&found), "the last round lost something");
    println!("{} commands acknowledged, none lost", acknowledged.len());
    assert!(acknowledged.len() as u64 > rounds, "the rounds were too short to mean anything");
}

async fn propose_until_killed(directory: &Path, round: &str) {
    say("starting", "");
    let options = Options { checkpoint_entries: CHECKPOINT_ENTRIES, ..Options::new(directory, VoterId(1)) };
    let consensus = Consensus::start(options, Feed::new()).await.expect("start");
    let state = consensus.feed().latest().state;
    for name in state.names(&"any".parse().expect("a name"), Kind::Tenant) {
        say("found", &name);
    }
    say("ready", "");
    let next = Arc::new(AtomicU64::new(0));
    let mut proposers = tokio::task::JoinSet::new();
    for _ in 0..PROPOSERS {
        let (consensus, next, round) = (consensus.clone(), next.clone(), round.to_owned());
        proposers.spawn(async move {
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                let name = format!("r{round}-{at}");
                let last = propose(&consensus, &name, at % LARGE_EVERY == 0).await;
                assert!(matches!(last, Outcome::Done(_)), "{last:?}");
                say("ack", &name);
            }
        });
    }
    let ended = proposers.join_next().await;
    panic!("a proposer has ended: {ended:?}");
}

async fn propose(consensus: &Consensus, name: &str, large: bool) -> Outcome {
    let parse = |value| document::parse(value).expect("a valid document");
    let tenant = parse(json!({"kind": "Tenant", "name": name, "spec": {}}));
    if !large {
        return consensus.propose(Command::Apply(vec![tenant])).await.expect("committed").outcome;
    }
    let server =
        json!({"kind": "Server", "tenant": name, "name": "s", "spec": {"url": "http://127.0.0.1:1/"}});
    consensus.propose(Command::Apply(vec![tenant, parse(server)])).await.expect("committed");
    let json = format!("\"{}\"", "x".repeat(LARGE_BYTES));
    let mut catalog = Catalog::empty(name.parse().expect("a name"), "s".parse().expect("a name"));
    catalog.tools = vec![Definition::new("tool", json)];
    consensus.propose(Command::PutCatalog(catalog)).await.expect("committed").outcome
}

/// One whole line, so that a kill cuts at most the last one short. Fails, and so ends the child, when nobody reads.
fn say(what: &str, name: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("kill: {what} {name}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .expect("stdout");
}

struct Voter {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Voter {
    fn start(directory: &Path, round: u64) -> Self {
        let mut process = Process::new(std::env::current_exe().expect("own path"))
            .args(["--exact", "child", "--nocapture"])
            .env(DIRECTORY, directory)
            .env(ROUND, round.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a child");
        let lines = BufReader::new(process.stdout.take().expect("stdout")).lines();
        let mut voter = Self { process, lines };
        assert_eq!(voter.line(), Some(("starting".into(), String::new())));
        voter
    }

    /// Waits until it is ready.
    fn found(&mut self) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        loop {
            match self.line() {
                Some((what, name)) if what == "found" => found.insert(name),
                Some((what, _)) if what == "ready" => return found,
                other => panic!("the child did not start: {other:?}"),
            };
        }
    }

    /// Kills it after this many acknowledgements; takes those too that it had printed by then.
    fn kill_after(&mut self, acknowledged: &mut BTreeSet<String>, acks: u64) {
        for _ in 0..acks {
            let line = self.line().expect("the child ended by itself");
            acknowledged.extend((line.0 == "ack").then_some(line.1));
        }
        self.process.kill().expect("kill");
        while let Some((what, name)) = self.line() {
            acknowledged.extend((what == "ack").then_some(name));
        }
        self.process.wait().expect("wait");
    }

    /// The next of its own lines; the test harness prints others. `None` at the end, also in the middle of a line.
    fn line(&mut self) -> Option<(String, String)> {
        loop {
            let line = self.lines.next()?.expect("read");
            if let Some(line) = line.split_once("kill: ").map(|(_, line)| line) {
                let (what, name) = line.split_once(' ')?;
                return Some((what.into(), name.into()));
            }
        }
    }
}

impl Drop for Voter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}
