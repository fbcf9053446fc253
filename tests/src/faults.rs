//! A cluster of real processes in network namespaces, with clients, while processes die and links are cut.
//!
//! Five voters and six nodes, each a `gantry` process in a namespace of its own with one link to a bridge. The bridge
//! has its own namespace, the *hub*, where this process runs with its clients: admins that write and read at any voter,
//! agents that call through any node, and the server behind the nodes. Faults are between the places around the hub, so
//! that clients see what processes do, and not what the network does to clients. A node whose link is down, or that is
//! stopped or dead, is the exception: nothing is expected of it ([`oracle::State`]).
//!
//! Always holds: a round's faults follow from the seed; how long things take does not. What was violated ends the run,
//! with all that the processes printed.

pub mod admin;
pub mod callers;
pub mod check;
pub mod fleet;
pub mod ledger;
pub mod namespaces;
pub mod nemesis;
pub mod oracle;
pub mod plan;
pub mod random;
pub mod writers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::task::JoinSet;

use crate::fixture::{self, Era};
use crate::members::Error;
use check::Recovery;
use fleet::{Builds, Fleet};
use ledger::Ledger;
use namespaces::Names;
use nemesis::Nemesis;
use plan::Kind;

/// Voters; two of them may have a fault.
pub const VOTERS: usize = 5;
/// Data-plane nodes.
pub const NODES: usize = 6;
/// Admins that write.
const WRITERS: usize = 3;
/// Agents that call.
const CALLERS: usize = 3;
/// The tenant of all that is written.
const TENANT: &str = "faults";
/// The endpoint that agents call.
const ENDPOINT: &str = "server";

/// What is run.
#[derive(Debug, Clone)]
pub struct Run {
    /// Of the rounds and of the clients.
    pub seed: u64,
    /// How many.
    pub rounds: usize,
    /// All of this kind; `None`: of all kinds in turn.
    pub only: Option<Kind>,
    /// What the processes are made of.
    pub builds: Builds,
}

/// The cluster with its clients.
struct Scene {
    ledger: Arc<Ledger>,
    nemesis: Nemesis,
    clients: JoinSet<()>,
    leader: usize,
    // They end, and go, after the processes.
    _server: fixture::Server,
    folder: TempDir,
}

/// What was seen of the rounds of one kind.
#[derive(Debug, Default)]
struct Seen {
    rounds: u32,
    accepted: Duration,
    converged: Duration,
}

impl Run {
    /// Runs it, in the hub of `names`, and prints what it sees.
    ///
    /// # Errors
    /// When a process does not do what it is told, or something was violated.
    pub async fn play(self, names: Names) -> Result<(), Error> {
        let began = Instant::now();
        let mut scene = Scene::set(&self, names).await?;
        println!("{VOTERS} voters and {NODES} nodes serve after {:?}", began.elapsed());
        let played = scene.play(&self).await;
        scene.ledger.stop.cancel();
        while let Some(ended) = scene.clients.join_next().await {
            ended?;
        }
        let (counts, terms, made) =
            scene.ledger.with(|told| (told.counts, told.leaders.terms(), told.made.count()));
        println!("{counts}; {made} things that stay; leaders of {terms} terms; {:?} in all", began.elapsed());
        let violations = scene.ledger.violations();
        if played.is_ok() && violations.is_empty() {
            return Ok(());
        }
        for violation in &violations {
            println!("VIOLATION: {violation}");
        }
        let logs = scene.nemesis.fleet.keep_outputs()?;
        let _ = scene.folder.keep();
        println!("what the processes printed is in {}", logs.display());
        played?;
        Err(format!("{} violations; GANTRY_FAULT_SEED={}", violations.len(), self.seed).into())
    }
}

impl Scene {
    /// Starts everything, and waits until everybody has the same.
    async fn set(run: &Run, names: Names) -> Result<Scene, Error> {
        let folder = tempfile::tempdir()?;
        let ledger = Arc::new(Ledger::new(VOTERS, NODES));
        let at = SocketAddr::from((Names::hub_address(), 0));
        let server = fixture::Server::start_at(Era::Dual, at).await?;
        let path = PathBuf::from(folder.path());
        let mut fleet = Fleet::new(names.clone(), path, run.builds.clone(), ledger.clone());
        fleet.found().await?;
        let mut admin = fleet.accesses()[0].connect().await?;
        admin.apply(documents(&server.url()), None).await?;
        let key = admin.create_key(TENANT, "caller").await?;
        fleet.join_nodes().await?;
        let nemesis = Nemesis::new(fleet, names, ledger.clone(), key.clone());
        nemesis.become_live(&Vec::from_iter(0..NODES)).await;
        let mut clients = JoinSet::new();
        let accesses = nemesis.fleet.accesses().to_vec();
        for number in 0..WRITERS {
            clients.spawn(writers::write(ledger.clone(), accesses.clone(), number, run.seed));
        }
        clients.spawn(writers::mark(ledger.clone(), accesses.clone(), run.seed));
        for (voter, access) in accesses.iter().enumerate() {
            clients.spawn(writers::watch(ledger.clone(), access.clone(), voter));
        }
        for number in 0..CALLERS {
            clients.spawn(callers::call(ledger.clone(), key.clone(), number, run.seed));
        }
        let mut scene = Scene { ledger, nemesis, clients, leader: 0, _server: server, folder };
        scene.check().await;
        Ok(scene)
    }

    async fn play(&mut self, run: &Run) -> Result<(), Error> {
        let mut seen: BTreeMap<Kind, Seen> = BTreeMap::new();
        for (number, round) in plan::rounds(run.seed, run.rounds, run.only).iter().enumerate() {
            if self.ledger.stop.is_cancelled() {
                break;
            }
            let began = Instant::now();
            self.nemesis.play(round, self.leader).await?;
            let came_back = self.nemesis.bring_back(false).await?;
            let Some(recovery) = self.check().await else { break };
            println!(
                "round {number}: {round:?}: writes after {:?}, the same everywhere after {:?}, {:?} in all{}",
                recovery.accepted,
                recovery.converged,
                began.elapsed(),
                if came_back { "; the node with the ended certificate joined anew" } else { "" }
            );
            let of_kind = seen.entry(round.kind).or_default();
            of_kind.rounds += 1;
            of_kind.accepted = of_kind.accepted.max(recovery.accepted);
            of_kind.converged = of_kind.converged.max(recovery.converged);
        }
        if !self.ledger.stop.is_cancelled() {
            let rolled = self.nemesis.roll_rest().await?;
            let came_back = self.nemesis.bring_back(true).await?;
            self.check().await;
            println!(
                "at the end: {rolled} processes of the build before replaced, ended certificate: {came_back}"
            );
        }
        for (kind, seen) in seen {
            println!(
                "{kind:?}: {} rounds, writes after {:?} at most, the same everywhere after {:?} at most",
                seen.rounds, seen.accepted, seen.converged
            );
        }
        Ok(())
    }

    async fn check(&mut self) -> Option<Recovery> {
        let away = self.nemesis.exile().map(|exile| exile.node);
        let recovery = check::check(&self.ledger, self.nemesis.fleet.accesses(), away).await?;
        self.leader = recovery.leader;
        Some(recovery)
    }
}

/// What is governed.
fn documents(url: &str) -> Vec<Value> {
    let of = |kind: &str, name: &str, spec: Value| json!({"kind": kind, "tenant": TENANT, "name": name, "spec": spec});
    vec![
        json!({"kind": "Tenant", "name": TENANT}),
        of("Server", "server", json!({"url": url})),
        of("Endpoint", ENDPOINT, json!({"servers": ["server"]})),
        writers::marker(1),
        of("Agent", "caller", json!({})),
        of("Policy", "all", json!({"cedar": "permit (principal, action, resource);"})),
    ]
}
