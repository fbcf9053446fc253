//! A cluster of real members in one thread, in virtual time, where things go wrong as a seed says.
//!
//! [`Consensus`](crate::raft::Consensus) is the real one, with all that is below it down to the store; in place of the
//! network, the disks and the scheduler stand [`network`], [`Disk`](crate::store::simulated::Disk) and [`executor`].
//! Clients write and read registers through any member, and after a while everything is mended. Then it has to hold:
//!
//! - The answers on each key are those of one register ([`history`]); no revision is older than one that was known
//!   before it was asked for.
//! - A revision is one state, wherever it is seen; no feed goes back; what leads is a term with a member, and one start of it.
//! - Within [`LIVENESS_DEADLINE`] every member writes and reads again, and all have the same state; after a power cut of
//!   all of them, too.
//!
//! `cargo test -p gantry-control-plane --lib simulation` runs a hundred seeds. The long form:
//!
//! ```text
//! GANTRY_SIM_SEED=1 GANTRY_SIM_SEEDS=10000 cargo test --release -p gantry-control-plane --lib simulation::seeds
//! ```
//!
//! A seed repeats its run to the last event: `GANTRY_SIM_SEED=7 GANTRY_SIM_SEEDS=1` runs seed 7 alone, and prints it
//! when it fails. It does not simulate what is below the store's interface, nor gRPC.

pub(crate) mod executor;
pub(crate) mod random;

mod clients;
mod cluster;
mod faults;
mod history;
mod network;
mod record;
mod seeds;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use clients::{Clients, KEYS};
use cluster::Cluster;
use executor::WORLD;
use history::{STEPS_MAX, Verdict};
use random::Random;
use record::{Record, Recorded};

use crate::raft::{Consensus, Formation};

/// How long things go wrong.
const TROUBLE: Duration = Duration::from_secs(40);
/// How long after that everybody may take to write, to read, and to have the same state. Elections, twice, behind a
/// change of membership that takes its whole time.
const LIVENESS_DEADLINE: Duration = Duration::from_secs(60);
/// How long a whole run may take.
const RUN_DEADLINE: Duration = Duration::from_secs(1_000);
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
const CLIENTS: u64 = 5;

/// What became of a seed.
struct Run {
    recorded: Recorded,
    /// Operations with an answer, and all of them.
    answered: usize,
    operations: usize,
}

/// Runs one seed to its end and checks it.
fn run(seed: u64) -> Run {
    let mut recorded = executor::run(Random::new(seed, 0), async move {
        let record = Arc::new(Record::new());
        if tokio::time::timeout(RUN_DEADLINE, live(seed, record.clone())).await.is_err() {
            record.violate("the run has no end: something waits for ever");
        }
        record.end()
    });
    let (mut answered, mut operations) = (0, 0);
    for (key, history) in &recorded.histories {
        operations += history.len();
        answered += history.iter().filter(|operation| operation.returned.is_some()).count();
        match history::check(history, STEPS_MAX) {
            Verdict::Linearizable => {}
            Verdict::Undecided => recorded.violations.push(format!("key {key}: the check found no end")),
            Verdict::Impossible(operations) => {
                let lines: Vec<_> = operations.iter().map(|operation| format!("    {operation:?}")).collect();
                recorded.violations.push(format!("key {key}: no register does this:\n{}", lines.join("\n")));
            }
        }
    }
    Run { recorded, answered, operations }
}

/// The life of a cluster.
async fn live(seed: u64, record: Arc<Record>) {
    let voters = if seed.is_multiple_of(3) { 5 } else { 3 };
    let cluster = Cluster::form(seed, record.clone(), voters).await;
    let first = cluster.network.up().into_values().next().expect("all are up");
    first.consensus.propose(clients::tenant()).await.expect("nothing is broken yet");
    let clients = Clients::new(cluster.clone());
    let mut asking = Vec::new();
    for client in 0..CLIENTS {
        let (done, ended) = tokio::sync::oneshot::channel();
        let running = clients.clone().run(Random::new(seed, 10 + client));
        executor::spawn_for(WORLD, async move {
            running.await;
            let _ = done.send(());
        });
        asking.push(ended);
    }
    faults::run(cluster.clone(), Random::new(seed, 2), Instant::now() + TROUBLE).await;
    faults::end(&cluster).await;
    clients.stop();
    for ended in asking {
        let _ = ended.await;
    }
    // Whoever was to come back later is back, and what was asked for before has come to its end.
    executor::wait(LIVENESS_DEADLINE / 2).await;
    faults::end(&cluster).await;
    settle(&cluster, &clients, "after the trouble").await;
    for member in cluster.members() {
        cluster.crash(member);
    }
    for member in cluster.members() {
        cluster.start(member, Formation::Join).await;
    }
    settle(&cluster, &clients, "after a power cut").await;
}

/// Waits until every member of the cluster writes and reads, and all have the same state.
async fn settle(cluster: &Arc<Cluster>, clients: &Clients, when: &str) {
    let deadline = Instant::now() + LIVENESS_DEADLINE;
    let Some(members) = agree(cluster, deadline).await else {
        cluster.record.violate(format_args!("{when}: no leader is known to all of its members"));
        return;
    };
    for (member, _) in &members {
        for writes in [true, false] {
            while !clients.ask(*member, 0, writes, None).await {
                if Instant::now() > deadline {
                    cluster.record.violate(format_args!("{when}: member {member} neither writes nor reads"));
                    return;
                }
                executor::wait(RETRY_INTERVAL).await;
            }
        }
    }
    for key in 0..KEYS {
        for (member, _) in &members {
            clients.ask(*member, key, false, None).await;
        }
    }
    loop {
        let views: Vec<_> = members.iter().map(|(_, consensus)| consensus.feed().latest()).collect();
        if views.iter().all(|view| view.state.digest() == views[0].state.digest()) {
            return;
        }
        if Instant::now() > deadline {
            cluster.record.violate(format_args!("{when}: the members do not have the same state"));
            return;
        }
        executor::wait(RETRY_INTERVAL).await;
    }
}

/// The members of the cluster, once one leads, its membership is whole, and the others know that.
async fn agree(cluster: &Arc<Cluster>, deadline: Instant) -> Option<Vec<(crate::raft::VoterId, Consensus)>> {
    while Instant::now() < deadline {
        let up = cluster.network.up();
        if let Some(leader) = up.values().find(|up| up.consensus.leads()) {
            let membership = leader.consensus.membership();
            let members = membership.members.iter().map(|member| member.voter);
            let members: Option<Vec<_>> =
                members.map(|member| Some((member, up.get(&member)?.consensus.clone()))).collect();
            let same = |members: &Vec<(crate::raft::VoterId, Consensus)>| {
                members.iter().all(|(_, consensus)| consensus.membership().version == membership.version)
            };
            if let Some(members) = members.filter(|members| same(members) && !membership.changing) {
                return Some(members);
            }
        }
        executor::wait(RETRY_INTERVAL).await;
    }
    None
}
