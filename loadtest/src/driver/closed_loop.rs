//! Closed loop: each connection makes its next call when the last one is answered. It shows the
//! highest rate and what a call costs then; its latencies say nothing about a fixed rate.
//!
//! What always holds: a call counts if its answer came between the two edges, and the edges are
//! reported at the very moments at which counting begins and ends, with all connections open.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use super::{
    Edge, GRACE, Outcome,
    call::{Call, Endpoint},
    connection::{CallError, Connection},
    tally::Tally,
};

/// What a closed loop does.
#[derive(Debug)]
pub struct Plan {
    /// Where calls go.
    pub endpoint: Arc<Endpoint>,
    /// What is called.
    pub call: Arc<Call>,
    /// Connections, each with one call in flight.
    pub connection_count: usize,
    /// How long to call before measuring.
    pub warm: Duration,
    /// How long to measure.
    pub measured: Duration,
}

/// Where in a slot the workers are; one writer.
#[derive(Debug)]
struct Phase(AtomicU8);

const WARMING: u8 = 0;
const MEASURING: u8 = 1;
const ENDED: u8 = 2;

/// Runs one slot; `at_edge` is called once at each end of the measured time.
///
/// Dropping the future stops all calls.
///
/// # Errors
/// When a connection cannot be opened at the beginning. Later failures are counted.
pub async fn run(plan: &Plan, mut at_edge: impl FnMut(Edge)) -> Result<Outcome, CallError> {
    let mut connections = Vec::with_capacity(plan.connection_count);
    for _ in 0..plan.connection_count {
        connections.push(Connection::open(&plan.endpoint, plan.call.era).await?);
    }
    let phase = Arc::new(Phase(AtomicU8::new(WARMING)));
    let mut workers = JoinSet::new();
    for connection in connections {
        let (endpoint, call) = (Arc::clone(&plan.endpoint), Arc::clone(&plan.call));
        workers.spawn(work(connection, endpoint, call, Arc::clone(&phase)));
    }
    tokio::time::sleep(plan.warm).await;
    at_edge(Edge::Start);
    let start = Instant::now();
    phase.0.store(MEASURING, Ordering::Relaxed);
    tokio::time::sleep(plan.measured).await;
    phase.0.store(ENDED, Ordering::Relaxed);
    let measured = start.elapsed();
    at_edge(Edge::End);
    Ok(gather(workers).await.into_outcome(measured))
}

/// Waits for the last answers; workers still waiting after the grace have one failed call each.
async fn gather(mut workers: JoinSet<(Tally, Option<Connection>)>) -> Tally {
    let deadline = tokio::time::Instant::now() + GRACE;
    let mut total = Tally::default();
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, workers.join_next()).await {
        match ended {
            Ok((tally, connection)) => {
                total.merge(tally);
                if let Some(connection) = connection {
                    connection.close().await;
                }
            }
            Err(failure) => total.fail(1, || failure.to_string()),
        }
    }
    total.fail(workers.len() as u64, || format!("no answer within {} s after the end", GRACE.as_secs()));
    workers.shutdown().await;
    total
}

async fn work(
    mut connection: Connection,
    endpoint: Arc<Endpoint>,
    call: Arc<Call>,
    phase: Arc<Phase>,
) -> (Tally, Option<Connection>) {
    let mut tally = Tally::default();
    while phase.0.load(Ordering::Relaxed) != ENDED {
        let sent = Instant::now();
        match connection.call(&call).await {
            Ok(()) => {
                let is_measured = phase.0.load(Ordering::Relaxed) == MEASURING;
                tally.succeed(is_measured.then(|| sent.elapsed()));
            }
            Err(failure) => match tally.recover(&failure, connection, &endpoint, call.era).await {
                Some(next) => connection = next,
                None => return (tally, None),
            },
        }
    }
    (tally, Some(connection))
}
