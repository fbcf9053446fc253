//! Clients of a simulated cluster: each asks one thing after the other, of any member, and tells the record what it
//! heard.
//!
//! A register is the timeout of a server: a command sets it, the state shows it. No value is written twice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use gantry_control_state::{Command, Outcome};
use gantry_model::{Resource, Spec, document};
use serde_json::json;
use tokio::sync::oneshot;

use super::cluster::Cluster;
use super::executor;
use super::history::Action;
use super::network::Up;
use super::random::Random;
use crate::raft::{ProposeError, VoterId};

/// Registers. Few, so that clients meet.
pub(crate) const KEYS: u64 = 3;
/// How long a client rests between two operations, in milliseconds, at most.
const REST_MS_MAX: u64 = 600;
/// How long an impatient client waits, in milliseconds, at most.
const PATIENCE_MS_MAX: u64 = 3_000;

/// What the clients of a run share.
pub(crate) struct Clients {
    pub(crate) cluster: Arc<Cluster>,
    values: AtomicU64,
    stop: AtomicBool,
}

/// What a member answered.
enum Answer {
    Done(Action, gantry_model::Revision),
    Never(String),
    Unknown(String),
}

impl Clients {
    pub(crate) fn new(cluster: Arc<Cluster>) -> Arc<Self> {
        Arc::new(Self { cluster, values: AtomicU64::new(1), stop: AtomicBool::new(false) })
    }

    /// Lets the clients end after what they are at.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// One client, until it is stopped.
    pub(crate) async fn run(self: Arc<Self>, mut random: Random) {
        while !self.stop.load(Ordering::Relaxed) {
            executor::wait(Duration::from_millis(random.below(REST_MS_MAX))).await;
            let members: Vec<VoterId> = self.cluster.network.up().into_keys().collect();
            let Some(member) = random.pick(&members).copied() else { continue };
            let (key, writes) = (random.below(KEYS), random.chance(550));
            // Some do not wait for the answer.
            let patience = random.chance(100).then(|| Duration::from_millis(random.below(PATIENCE_MS_MAX)));
            self.ask(member, key, writes, patience).await;
        }
    }

    /// One operation; whether it was answered.
    pub(crate) async fn ask(
        &self,
        member: VoterId,
        key: u64,
        writes: bool,
        patience: Option<Duration>,
    ) -> bool {
        let Some(up) = self.cluster.network.up().remove(&member) else { return false };
        let action = if writes {
            Action::Write(self.values.fetch_add(1, Ordering::Relaxed))
        } else {
            Action::Read(None)
        };
        let record = &self.cluster.record;
        let call = record.call(key, action, format!("at {member}"));
        let (mut sender, answer) = oneshot::channel();
        executor::spawn_for(up.owner, async move {
            tokio::select! {
                biased;
                answer = act(&up, key, action) => {
                    let _ = sender.send(answer);
                }
                // Whoever asked has gone away, and nobody goes on for it.
                () = sender.closed() => {}
            }
        });
        let answer = match patience {
            Some(patience) => tokio::time::timeout(patience, answer).await,
            None => Ok(answer.await),
        };
        match answer {
            Ok(Ok(Answer::Done(action, revision))) => {
                record.answer(call, action, revision);
                return true;
            }
            Ok(Ok(Answer::Never(why))) => record.refuse(call, why),
            Ok(Ok(Answer::Unknown(why))) => record.give_up(call, why),
            Ok(Err(_)) => record.give_up(call, "the member crashed"),
            Err(_) => record.give_up(call, "the client went away"),
        }
        false
    }
}

async fn act(up: &Up, key: u64, action: Action) -> Answer {
    match action {
        Action::Write(value) => match up.consensus.propose(write(key, value)).await {
            Ok(committed) => match committed.outcome {
                Outcome::Done(_) => Answer::Done(action, committed.revision),
                Outcome::Refused(refusals) => panic!("{refusals:?}"),
            },
            Err(ProposeError::Unknown { reason }) => Answer::Unknown(reason),
            Err(error) => Answer::Never(error.to_string()),
        },
        Action::Read(_) => match up.consensus.catch_up().await {
            Ok(()) => {
                let view = up.consensus.feed().latest();
                let stored = view.state.resource(&server(key).id()).map(|(stored, _)| value_of(stored));
                Answer::Done(Action::Read(stored), view.revision)
            }
            Err(error) => Answer::Unknown(error.to_string()),
        },
    }
}

/// What has to be there before a register can be written.
pub(crate) fn tenant() -> Command {
    let tenant = document::parse(json!({"kind": "Tenant", "name": "acme", "spec": {}}));
    Command::Apply(vec![tenant.expect("a valid tenant")])
}

fn server(key: u64) -> Resource {
    let spec = json!({"url": "http://127.0.0.1:1/"});
    let server = json!({"kind": "Server", "tenant": "acme", "name": format!("register-{key}"), "spec": spec});
    document::parse(server).expect("a valid server")
}

fn write(key: u64, value: u64) -> Command {
    let mut server = server(key);
    let Spec::Server(spec) = &mut server.spec else { panic!("it is a server") };
    spec.timeout_ms = u32::try_from(value).expect("few values");
    Command::Apply(vec![server])
}

fn value_of(resource: &Resource) -> u64 {
    let Spec::Server(spec) = &resource.spec else { panic!("it is a server") };
    u64::from(spec.timeout_ms)
}
