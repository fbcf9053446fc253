//! `gantry dev` killed (SIGKILL) in the middle of applies, again and again on one data directory.
//!
//! Always holds: a change counts as acknowledged when `gantry apply` exits with 0; every one of them must be there
//! after every later start. A change that was not acknowledged may be there or not.
//!
//! The long form: `GANTRY_CRASH_ROUNDS=200 cargo test -p gantry-tests --test system_crash -- --nocapture`;
//! `GANTRY_CRASH_SEED` repeats a run's choices (not its timing).

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_tests::dev::{Dev, Options};
use gantry_tests::governed;
use tempfile::TempDir;
use tokio::process::Command;
use tokio::sync::watch;

/// Rounds of the short form.
const ROUNDS: u64 = 20;
/// A round ends after one to this many acknowledged changes, with others under way.
const CHANGES_MAX: u64 = 8;

/// What was acknowledged so far, over all rounds.
#[derive(Default)]
struct Acknowledged {
    names: Mutex<BTreeSet<String>>,
    count: watch::Sender<usize>,
}

impl Acknowledged {
    fn add(&self, name: String) {
        let mut names = self.names.lock().expect("no test thread panicked");
        names.insert(name);
        self.count.send_replace(names.len());
    }

    fn names(&self) -> BTreeSet<String> {
        self.names.lock().expect("no test thread panicked").clone()
    }
}

#[tokio::test]
async fn every_acknowledged_change_outlives_a_kill() {
    let rounds = number("GANTRY_CRASH_ROUNDS").unwrap_or(ROUNDS);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let mut random = number("GANTRY_CRASH_SEED").unwrap_or(since.as_secs()) | 1;
    println!("GANTRY_CRASH_SEED={random} GANTRY_CRASH_ROUNDS={rounds}");
    let folder = TempDir::new().expect("a temporary folder");
    let options = Options { data_dir: Some(folder.path().join("data")), ..Options::default() };
    let acknowledged = Acknowledged::default();
    for round in 0..rounds {
        let dev = governed::start(&options).await;
        expect_all(&dev, &acknowledged, round).await;
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        let before = acknowledged.names().len();
        let target = before + 1 + usize::try_from(random % CHANGES_MAX).expect("a small number");
        tokio::join!(
            kill_at(&dev, &acknowledged, target),
            apply_until_killed(&dev, &acknowledged, format!("r{round}-a")),
            apply_until_killed(&dev, &acknowledged, format!("r{round}-b")),
            apply_until_killed(&dev, &acknowledged, format!("r{round}-c")),
        );
    }
    let dev = governed::start(&options).await;
    expect_all(&dev, &acknowledged, rounds).await;
    // The first start's key is as good as ever.
    let called = dev.admin(&["tool", "call", "echo", "--arg", "message=still here"]).await.expect("a call");
    assert_eq!(
        (called.status.code(), called.stdout.as_str()),
        (Some(0), "still here\n"),
        "{}",
        called.stderr
    );
    println!("{} acknowledged changes in {rounds} rounds, none lost", acknowledged.names().len());
}

async fn expect_all(dev: &Dev, acknowledged: &Acknowledged, round: u64) {
    let got = dev.admin(&["get", "agents", "--tenant", "demo", "-o", "yaml"]).await.expect("an answer");
    assert!(got.status.success(), "{}", got.stderr);
    let there: BTreeSet<String> =
        got.stdout.lines().filter_map(|line| line.strip_prefix("name: ")).map(str::to_owned).collect();
    let lost: Vec<_> = acknowledged.names().difference(&there).cloned().collect();
    assert_eq!(lost, Vec::<String>::new(), "acknowledged before start {round}, and not there after it");
}

/// Kills the process once so many changes are acknowledged, while others are under way.
async fn kill_at(dev: &Dev, acknowledged: &Acknowledged, target: usize) {
    let mut count = acknowledged.count.subscribe();
    count.wait_for(|count| *count >= target).await.expect("the sender lives");
    let id = dev.id().expect("it runs").to_string();
    let killed = Command::new("kill").args(["-9", &id]).status().await.expect("kill runs");
    assert!(killed.success());
}

async fn apply_until_killed(dev: &Dev, acknowledged: &Acknowledged, prefix: String) {
    for number in 0.. {
        let name = format!("{prefix}{number}");
        let document = format!("kind: Agent\ntenant: demo\nname: {name}\n");
        let applied =
            dev.admin_with_input(&["apply", "-f", "-"], document.as_bytes()).await.expect("it ends");
        if !applied.status.success() {
            return;
        }
        acknowledged.add(name);
    }
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}
