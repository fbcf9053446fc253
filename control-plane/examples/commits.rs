//! Commits a second: `cargo run --release -p gantry-control-plane --example commits`.
//!
//! A small measurement of the durable path alone (proposal, log, sync, apply), without gRPC: for one proposer and for
//! many, and how long a start on what they left takes. In a temporary directory, so mind what disk that is on.

use std::error::Error;
use std::time::{Duration, Instant};

use gantry_control_plane::feed::Feed;
use gantry_control_plane::raft::{Consensus, Options, VoterId};
use gantry_control_state::Command;
use gantry_model::document;
use serde_json::json;

const PROPOSERS: [usize; 3] = [1, 64, 512];
const DURATION: Duration = Duration::from_secs(3);
const LATENCIES_MAX: usize = 1_000_000;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let options = Options::new(directory.path(), VoterId(1));
    println!(
        "{:>9} {:>10} {:>10} {:>10} {:>12}",
        "proposers", "commits/s", "p50 us", "p99 us", "sync p99 us"
    );
    for proposers in PROPOSERS {
        let consensus = Consensus::start(options.clone(), Feed::new()).await?;
        let begun = Instant::now();
        let tasks =
            (0..proposers).map(|at| tokio::spawn(propose(consensus.clone(), format!("p{proposers}-{at}"))));
        let mut latencies = Vec::new();
        for task in tasks.collect::<Vec<_>>() {
            latencies.extend(task.await??);
        }
        let took = begun.elapsed();
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len() * percent / 100).copied().unwrap_or_default();
        let sync = consensus.status().await.sync_p99.unwrap_or_default();
        let rate = latencies.len() as f64 / took.as_secs_f64();
        let (p50, p99) = (at(50).as_micros(), at(99).as_micros());
        println!("{proposers:>9} {rate:>10.0} {p50:>10} {p99:>10} {:>12}", sync.as_micros());
        consensus.shutdown().await?;
    }
    let begun = Instant::now();
    let consensus = Consensus::start(options, Feed::new()).await?;
    let records = consensus.feed().latest().state.len();
    println!("start on {records} records: {} ms", begun.elapsed().as_millis());
    Ok(consensus.shutdown().await?)
}

/// Proposes one small change after the other and tells how long each took.
async fn propose(consensus: Consensus, name: String) -> Result<Vec<Duration>, String> {
    let mut latencies = Vec::new();
    let end = Instant::now() + DURATION;
    while Instant::now() < end && latencies.len() < LATENCIES_MAX {
        let description = format!("change {}", latencies.len());
        let tenant = json!({"kind": "Tenant", "name": name, "spec": {"description": description}});
        let tenant = document::parse(tenant).map_err(|error| error.to_string())?;
        let begun = Instant::now();
        consensus.propose(Command::Apply(vec![tenant])).await.map_err(|error| error.to_string())?;
        latencies.push(begun.elapsed());
    }
    Ok(latencies)
}
