//! Admins that write and read at any member while it dies, each what nobody else writes; and one who looks at how the
//! members are.
//!
//! Always holds: what is written is larger than anything of that name before; a writer has one write under way.

use std::sync::Arc;
use std::time::Duration;

use gantry_model::{Resource, Spec};
use gantry_wire::admin_v1::GetResponse;
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval};

use super::TENANT;
use super::admin::{Access, Admin, CallError};
use super::ledger::Ledger;
use super::oracle::Violation;
use super::random::Random;

/// How often a writer begins; a member that answers takes a tenth of it.
const WRITE_INTERVAL: Duration = Duration::from_millis(60);
/// How often the members are looked at.
const STATUS_INTERVAL: Duration = Duration::from_millis(250);
/// How often the endpoint changes by which nodes show how new their configuration is.
const MARKER_INTERVAL: Duration = Duration::from_millis(250);
/// Names that one writer writes in turn.
const REGISTERS: usize = 4;
/// A writer makes one thing that stays for so many writes.
const MADE_SHARE: u64 = 20;
/// The endpoint whose one tool is called `at-NUMBER`.
pub const MARKER: &str = "marker";
/// How that tool's name begins.
pub const MARKER_TOOL: &str = "at-";

/// Connections to all members, made when they are needed.
struct Connections {
    accesses: Vec<Access>,
    open: Vec<Option<Admin>>,
}

impl Connections {
    fn new(accesses: &[Access]) -> Self {
        Self { accesses: accesses.to_vec(), open: vec![None; accesses.len()] }
    }

    async fn to(&mut self, member: usize) -> Result<&mut Admin, CallError> {
        let admin = match self.open[member].take() {
            Some(admin) => admin,
            None => self.accesses[member].connect().await?,
        };
        Ok(self.open[member].insert(admin))
    }

    /// A call that nobody answered may have left a dead connection behind.
    fn used<T>(&mut self, member: usize, outcome: &Result<T, CallError>) {
        if let Err(CallError::Unknown(_)) = outcome {
            self.open[member] = None;
        }
    }
}

/// Writes and reads until the ledger stops it.
pub async fn write(ledger: Arc<Ledger>, accesses: Vec<Access>, number: usize, seed: u64) {
    let mut writer = Writer {
        members: Connections::new(&accesses),
        random: Random(seed.wrapping_add(number as u64)),
        ledger: ledger.clone(),
        number,
        value: 0,
    };
    let mut ticks = interval(WRITE_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while ledger.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let _turn = ledger.turn.read().await;
        writer.step().await;
    }
}

struct Writer {
    members: Connections,
    random: Random,
    ledger: Arc<Ledger>,
    number: usize,
    value: u64,
}

impl Writer {
    async fn step(&mut self) {
        self.value += 1;
        let value = self.value;
        if value.is_multiple_of(MADE_SHARE) {
            let name = format!("made-{}-{value}", self.number);
            if self.apply(&name, value).await.is_ok() {
                self.ledger.with(|told| told.made.acknowledged(name));
            }
            return;
        }
        let name = format!("written-{}-{}", self.number, self.random.below(REGISTERS));
        self.ledger.with(|told| told.registers.entry(name.clone()).or_default().begin(value));
        let applied = self.apply(&name, value).await;
        self.ledger.with(|told| {
            let register = told.registers.entry(name.clone()).or_default();
            match applied {
                Ok(()) => register.acknowledged(value),
                Err(CallError::Refused(_) | CallError::NotSent(_)) => register.refused(value),
                Err(CallError::Unknown(_)) => {}
            }
        });
        self.read(&name).await;
    }

    async fn apply(&mut self, name: &str, value: u64) -> Result<(), CallError> {
        let member = self.random.below(self.members.accesses.len());
        let before = self.ledger.with(|told| told.newest.known());
        let outcome = async {
            let admin = self.members.to(member).await?;
            admin.apply(vec![agent(name, value)], None).await
        };
        let outcome = outcome.await;
        self.members.used(member, &outcome);
        let judged = self.ledger.with(|told| match &outcome {
            Ok(revision) => {
                told.counts.acknowledged += 1;
                // It changed something after that was known.
                told.newest.observe(&format!("a write at voter {}", member + 1), before + 1, *revision)
            }
            Err(CallError::Refused(why)) => {
                Err(Violation::Refused(format!("voter {}", member + 1), why.clone()))
            }
            Err(CallError::NotSent(_)) => {
                told.counts.not_sent += 1;
                Ok(())
            }
            Err(CallError::Unknown(_)) => {
                told.counts.unknown += 1;
                Ok(())
            }
        });
        self.ledger.judge(judged);
        outcome.map(|_| ())
    }

    async fn read(&mut self, name: &str) {
        let member = self.random.below(self.members.accesses.len());
        let before = self.ledger.with(|told| told.newest.known());
        let outcome = async { self.members.to(member).await?.get("Agent", TENANT, name).await };
        let outcome = outcome.await;
        self.members.used(member, &outcome);
        let Ok(got) = outcome else { return };
        let seen = written(&got).find(|(known, _)| known == name).map(|(_, value)| value);
        let (revision, register) = self.ledger.with(|told| {
            told.counts.reads += 1;
            let what = format!("a read at voter {}", member + 1);
            let revision = told.newest.observe(&what, before, got.revision);
            (revision, told.registers.entry(name.to_owned()).or_default().observe(name, seen))
        });
        self.ledger.judge(revision);
        self.ledger.judge(register);
    }
}

/// A document that is written.
fn agent(name: &str, value: u64) -> Value {
    json!({"kind": "Agent", "tenant": TENANT, "name": name, "spec": {"description": value.to_string()}})
}

/// What was written, of what a member answered: names and values.
pub fn written(got: &GetResponse) -> impl Iterator<Item = (String, u64)> {
    got.resources.iter().filter_map(|stored| {
        let resource = Resource::try_from(stored.resource.as_ref()?).ok()?;
        match &resource.spec {
            Spec::Agent(spec) => Some((resource.name.to_string(), spec.description.parse().ok()?)),
            _ => None,
        }
    })
}

/// The document of the endpoint by which nodes show how new their configuration is.
#[must_use]
pub fn marker(number: u64) -> Value {
    let aliases = json!({format!("{MARKER_TOOL}{number}"): {"server": "server", "tool": "add"}});
    let spec = json!({"servers": ["server"], "naming": "aliased", "aliases": aliases});
    json!({"kind": "Endpoint", "tenant": TENANT, "name": MARKER, "spec": spec})
}

/// Raises the number of the marker until the ledger stops it. Each change is made on top of the one before, so that one
/// without an answer never comes after a later one: what nodes show must not go back at all.
pub async fn mark(ledger: Arc<Ledger>, accesses: Vec<Access>, seed: u64) {
    let (mut random, mut members) = (Random(seed), Connections::new(&accesses));
    let mut ticks = interval(MARKER_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut number, mut on_top_of) = (1, None);
    while ledger.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let _turn = ledger.turn.read().await;
        let member = random.below(accesses.len());
        let outcome = async {
            let admin = members.to(member).await?;
            let known = match on_top_of {
                Some(known) => known,
                None => admin.get("Endpoint", TENANT, MARKER).await?.revision,
            };
            number += 1;
            admin.apply(vec![marker(number)], Some(known)).await
        };
        let outcome = outcome.await;
        members.used(member, &outcome);
        on_top_of = outcome.ok();
    }
}

/// Looks at every member until the ledger stops it: who says that it leads, and whether what it has goes back.
pub async fn watch(ledger: Arc<Ledger>, access: Access, voter: usize) {
    let mut members = Connections::new(&[access]);
    let mut ticks = interval(STATUS_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while ledger.stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let asked = |ledger: &Ledger| {
            ledger.with(|told| {
                let key = (voter, told.voter_starts[voter]);
                (key, told.status.get(&key).copied().unwrap_or_default().known())
            })
        };
        let (key, before) = asked(&ledger);
        let outcome = async { members.to(0).await?.status().await };
        let Some(outcome) = ledger.stop.run_until_cancelled(outcome).await else { return };
        members.used(0, &outcome);
        let Ok(status) = outcome else { continue };
        let (leader, revision) = ledger.with(|told| {
            let number = voter as u64 + 1;
            let leader = if status.leader { told.leaders.observe(status.term, number) } else { Ok(()) };
            // An answer of a process that was started again meanwhile says nothing of the one before.
            let is_same = told.voter_starts[voter] == key.1;
            let newest = told.status.entry(key).or_default();
            let what = format!("the status of voter {number}");
            (leader, if is_same { newest.observe(&what, before, status.revision) } else { Ok(()) })
        });
        ledger.judge(leader);
        ledger.judge(revision);
    }
}
