//! Killed (SIGKILL) in the middle of approvals: the control plane, and nodes that use them.
//!
//! Always holds: what was asked for and what was approved, as far as it was acknowledged, is there after every kill; of one
//! approval at most one call goes through, whoever dies; and one goes through when the approval was not used up.
//!
//! The long form: `GANTRY_APPROVAL_ROUNDS=100 cargo test -p gantry-tests --test system_approval_kill -- --nocapture`;
//! `GANTRY_APPROVAL_SEED` repeats a run's choices (not its timing).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_tests::agent::{Agent, Answer, Message, Protocol};
use gantry_tests::cluster::{Cluster, Nodes};
use gantry_tests::dev::{Dev, Options};
use gantry_tests::eventually::eventually;
use gantry_tests::fixture;
use serde_json::{Value, json};
use tokio::process::Command;

/// Rounds of the short form: each place is killed once or twice.
const ROUNDS: u64 = 5;
/// How long a node may take to find its control plane again, with an answer of its own before.
const PATIENCE: Duration = Duration::from_secs(60);
/// What the fixture answers who reads a file.
const READ: &str = "what stands there";

/// What is killed in a round, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kill {
    /// The control plane, when it has said that a call waits.
    ControlPlaneAfterAsking,
    /// The control plane, when it has said that it is approved.
    ControlPlaneAfterApproving,
    /// The control plane, while calls use it.
    ControlPlaneWhileTaken,
    /// One of the nodes that use it.
    NodeWhileTaken,
}

struct Run {
    nodes: Nodes,
    server: fixture::Server,
    key: String,
    random: u64,
}

async fn admin(dev: &Dev, arguments: &[&str], input: &str) -> String {
    let finished = dev.admin_with_input(arguments, input.as_bytes()).await.expect("it runs");
    assert!(finished.status.success(), "{arguments:?}\n{}{}", finished.stdout, finished.stderr);
    finished.stdout
}

async fn state(dev: &Dev, id: &str) -> String {
    let shown = admin(dev, &["approval", "show", id, "-o", "json"], "").await;
    let shown: Value = serde_json::from_str(&shown).expect("JSON");
    shown[0]["state"].as_str().expect("a state").to_owned()
}

/// Kills a process at a moment in the middle of what happens meanwhile.
async fn kill_after(moment: Duration, process: u32) {
    tokio::time::sleep(moment).await;
    let kill = Command::new("kill").args(["-9", &process.to_string()]).status();
    assert!(kill.await.expect("kill runs").success());
}

fn message(answer: &Answer) -> Value {
    answer.messages().pop().expect("a message")
}

/// What a call waits for, where it waits.
fn waits(answer: &Answer) -> Option<String> {
    Some(message(answer)["error"]["data"]["approval"].as_str()?.to_owned())
}

impl Run {
    fn next(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random
    }

    /// Calls at a node; `None`: it broke off, and what became of it is unknown.
    async fn call(&self, node: usize, path: &str) -> Option<Answer> {
        let endpoint = self.nodes.endpoint().splitn(4, '/').nth(3).expect("a path").to_owned();
        let url = format!("http://{}/{endpoint}", self.nodes.addresses()[node]);
        let mut agent = Agent::connect(&url, Protocol::Http1).await.ok()?;
        agent.ask(&Message::call("read_file", json!({"path": path})).with_key(&self.key)).await.ok()
    }

    /// Asks for an approval; a node whose control plane was away finds it again.
    async fn ask(&self, path: &str) -> String {
        eventually("a call that waits", PATIENCE, async || waits(&self.call(1, path).await?)).await
    }

    /// Kills and starts again.
    async fn restart(&mut self, node: usize) {
        self.nodes.kill(node).await;
        self.nodes.restart(node).await;
    }

    /// One approval with a kill in the middle. Returns how many calls went through that answered.
    async fn round(&mut self, number: u64, kill: Kill) {
        let path = format!("/data/{number}");
        let id = self.ask(&path).await;
        if kill == Kill::ControlPlaneAfterAsking {
            self.restart(0).await;
            assert_eq!(self.ask(&path).await, id, "the same call waits for the same approval");
        }
        assert_eq!(state(self.nodes.dev(), &id).await, "pending", "{kill:?}");
        admin(self.nodes.dev(), &["approval", "approve", &id], "").await;
        if kill == Kill::ControlPlaneAfterApproving {
            self.restart(0).await;
        }
        assert_eq!(state(self.nodes.dev(), &id).await, "approved", "{kill:?}");

        let moment = Duration::from_micros(self.next() % 40_000);
        let victim = match kill {
            Kill::ControlPlaneWhileTaken => Some(0),
            Kill::NodeWhileTaken => Some(1),
            Kill::ControlPlaneAfterAsking | Kill::ControlPlaneAfterApproving => None,
        };
        let calling = {
            let (one, two, again) = (self.call(1, &path), self.call(2, &path), self.call(1, &path));
            let killing = async {
                let process = match victim? {
                    0 => self.nodes.dev().id(),
                    node => self.nodes.id(node),
                };
                kill_after(moment, process?).await;
                victim
            };
            tokio::join!(one, two, again, killing)
        };
        let (one, two, again, killed) = calling;
        if let Some(killed) = killed {
            self.restart(killed).await;
        }
        let went =
            [one, two, again].into_iter().flatten().filter(|answer| message(answer)["result"].is_object());
        let mut went = went.count();
        // Whoever heard nothing calls again.
        let state = state(self.nodes.dev(), &id).await;
        let last = eventually("an answer", PATIENCE, async || {
            let answer = self.call(2, &path).await?;
            (message(&answer)["result"].is_object() || waits(&answer).is_some()).then_some(answer)
        })
        .await;
        match state.as_str() {
            "approved" => {
                assert_eq!(last.said(), READ, "{kill:?}: it was approved, and nobody used it");
                went += 1;
            }
            "used" => {
                let next = waits(&last);
                assert!(next.is_some_and(|next| next != id), "{kill:?}: it is used, and the next waits");
            }
            other => panic!("{kill:?}: {other}"),
        }
        assert!(went <= 1, "{kill:?}: {went} calls went through");
        // Also of those whose answers were lost.
        let calls = self.server.calls("read_file", &json!({"path": path}));
        assert!(went <= calls && calls <= 1, "{kill:?}: the server was called {calls} times");
        assert!(went == 1 || victim.is_some(), "{kill:?}: nobody died, and none went through");
        println!("round {number}: {kill:?} after {moment:?}: it was {state}, {went} went through");
    }
}

/// Three nodes, and a policy that has every reading of a file approved; calls are not held.
async fn start(seed: u64) -> Run {
    let server = fixture::Server::start(0).await.expect("a fixture server");
    let servers = vec![("fixture".to_owned(), server.url())];
    let (nodes, _balancer) = Cluster::start(Options { servers, ..Options::default() }).await.into_parts();
    let key = nodes.key();
    let cedar =
        r#"forbid(principal, action == Action::"tools/call", resource == Tool::"fixture/read_file");"#;
    let policy =
        json!({"kind": "Policy", "tenant": "dev", "name": "ask", "spec": {"cedar": cedar, "approval": {}}});
    let tenant = json!({"kind": "Tenant", "name": "dev", "spec": {"approval_hold_seconds": 0}});
    admin(nodes.dev(), &["apply", "-f", "-", "--wait"], &format!("{tenant}\n---\n{policy}")).await;
    Run { nodes, server, key, random: seed | 1 }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_approval_is_neither_lost_nor_granted_twice() {
    let variable = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seed = variable("GANTRY_APPROVAL_SEED").unwrap_or(since.as_secs());
    let rounds = variable("GANTRY_APPROVAL_ROUNDS").unwrap_or(ROUNDS);
    println!("GANTRY_APPROVAL_SEED={seed} GANTRY_APPROVAL_ROUNDS={rounds}");
    let mut run = start(seed).await;
    let kinds = [
        Kill::ControlPlaneWhileTaken,
        Kill::NodeWhileTaken,
        Kill::ControlPlaneAfterAsking,
        Kill::ControlPlaneAfterApproving,
    ];
    for (number, kill) in (0..rounds).zip(kinds.into_iter().cycle()) {
        run.round(number, kill).await;
    }
}

/// A call that needs an approval is refused while nobody can grant it, and what waited before waits after.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_control_plane_nothing_is_approved_and_nothing_forgotten() {
    let mut run = start(1).await;
    let id = run.ask("/data/a").await;
    admin(run.nodes.dev(), &["approval", "approve", &id], "").await;
    run.nodes.kill(0).await;
    let refused = run.call(1, "/data/a").await.expect("the node answers");
    let refused = message(&refused)["error"].clone();
    assert_eq!((&refused["code"], &refused["data"]["rejection"]), (&json!(-31503), &json!("not_ready")));
    assert_eq!(refused["data"]["retryAfterSeconds"], 5);
    run.nodes.restart(0).await;
    let answer = eventually("the call to go through", PATIENCE, async || {
        let answer = run.call(1, "/data/a").await?;
        message(&answer)["result"].is_object().then_some(answer)
    });
    assert_eq!(answer.await.said(), READ);
}
