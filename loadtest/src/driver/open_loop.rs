//! Open loop: calls become due at a fixed rate, whether or not earlier ones are answered, and a
//! latency counts from the moment at which the call was due. It shows what agents see at that rate.
//!
//! What always holds: every ticket of the schedule is a call that is answered or failed, also when
//! all connections are busy and it has to wait for one. A thread of its own keeps the time,
//! because the runtime's timer is no finer than a millisecond.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use tokio::{sync::Semaphore, task::JoinSet};

use super::{
    GRACE, Outcome,
    call::{Call, Endpoint},
    connection::{CallError, Connection},
    schedule::{Rate, Schedule, Ticket},
    tally::Tally,
};

/// Between opening the connections and the first ticket.
const LEAD: Duration = Duration::from_millis(20);

/// What an open loop does.
#[derive(Debug)]
pub struct Plan {
    /// Where calls go.
    pub endpoint: Arc<Endpoint>,
    /// What is called.
    pub call: Arc<Call>,
    /// Calls per second.
    pub rate: Rate,
    /// Connections that share the calls; a ticket waits when all are busy.
    pub connection_count: usize,
    /// How long to call before measuring.
    pub warm: Duration,
    /// How long to measure.
    pub measured: Duration,
    /// When the first call is due, for loops side by side whose calls shall keep their distance; at once without it.
    /// Calls that were due before all connections are open wait for them, and their latencies say so.
    pub start: Option<Instant>,
}

/// What the timekeeper and the workers share.
#[derive(Debug)]
struct Desk {
    schedule: Schedule,
    /// One permit per ticket that is due; closed when the slot is over.
    due: Semaphore,
    taken_count: AtomicU64,
}

/// Runs one slot.
///
/// Dropping the future stops all calls, and the timekeeper at its next ticket.
///
/// # Errors
/// When a connection cannot be opened at the beginning. Later failures are counted.
pub async fn run(plan: &Plan) -> Result<Outcome, CallError> {
    let mut connections = Vec::with_capacity(plan.connection_count);
    for _ in 0..plan.connection_count {
        connections.push(Connection::open(&plan.endpoint, plan.call.era).await?);
    }
    let start = plan.start.unwrap_or_else(|| Instant::now() + LEAD);
    let desk = Arc::new(Desk {
        schedule: Schedule::new(start, plan.rate, plan.warm, plan.measured),
        due: Semaphore::new(0),
        taken_count: AtomicU64::new(0),
    });
    let guard = CloseOnDrop(Arc::clone(&desk));
    if desk.schedule.total_count() == 0 {
        desk.due.close();
    }
    let mut workers = JoinSet::new();
    for connection in connections {
        let (endpoint, call) = (Arc::clone(&plan.endpoint), Arc::clone(&plan.call));
        workers.spawn(work(connection, endpoint, call, Arc::clone(&desk)));
    }
    let timekeeper = {
        let desk = Arc::clone(&desk);
        tokio::task::spawn_blocking(move || keep_time(&desk))
    };
    let tally = gather(workers, &desk).await;
    drop(guard);
    // The timekeeper holds nothing but the desk and cannot panic.
    let _ = timekeeper.await;
    Ok(tally.into_outcome(plan.measured))
}

struct CloseOnDrop(Arc<Desk>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.due.close();
    }
}

/// Hands out permits as tickets become due, until there are no more or the desk is closed.
fn keep_time(desk: &Desk) {
    let mut issued_count = 0;
    while issued_count < desk.schedule.total_count() && !desk.due.is_closed() {
        let due_count = desk.schedule.due_count(Instant::now());
        if due_count > issued_count {
            let permits = usize::try_from(due_count - issued_count).unwrap_or(usize::MAX);
            desk.due.add_permits(permits);
            issued_count = due_count;
        } else {
            let next = desk.schedule.due_at(Ticket(issued_count));
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
    }
}

/// Takes tickets until the schedule is done. The one that takes the last ticket closes the desk.
async fn work(
    mut connection: Connection,
    endpoint: Arc<Endpoint>,
    call: Arc<Call>,
    desk: Arc<Desk>,
) -> Tally {
    let mut tally = Tally::default();
    while let Ok(permit) = desk.due.acquire().await {
        permit.forget();
        let ticket = Ticket(desk.taken_count.fetch_add(1, Ordering::Relaxed));
        if ticket.0 + 1 == desk.schedule.total_count() {
            desk.due.close();
        }
        match connection.call(&call).await {
            Ok(()) => tally.succeed(desk.schedule.latency(ticket, Instant::now())),
            Err(failure) => match tally.recover(&failure, connection, &endpoint, call.era).await {
                Some(next) => connection = next,
                None => return tally,
            },
        }
    }
    connection.close().await;
    tally
}

/// Waits for the whole schedule and the last answers; what is missing after the grace has failed.
async fn gather(mut workers: JoinSet<Tally>, desk: &Desk) -> Tally {
    let schedule = &desk.schedule;
    let last_due = schedule.due_at(Ticket(schedule.total_count()));
    let deadline = tokio::time::Instant::from_std(last_due + GRACE);
    let mut total = Tally::default();
    while let Ok(Some(ended)) = tokio::time::timeout_at(deadline, workers.join_next()).await {
        // The calls of a worker that panicked are missing in the sum below, and so have failed.
        if let Ok(tally) = ended {
            total.merge(tally);
        }
    }
    let missing_count = schedule.total_count().saturating_sub(total.call_count());
    total.fail(missing_count, || {
        format!("no connection or no answer within {} s after the end", GRACE.as_secs())
    });
    workers.shutdown().await;
    total
}
