//! Servers that are not well, and those who call them all the same, or others in their place.
//!
//! What always holds: each call has a connection of its own, so that one that hangs keeps no other; at most
//! [`UNDER_WAY_MAX`] of a server's calls are under way. Calls that have no end yet are given up when the traffic ends.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    task::{JoinHandle, JoinSet},
};

use crate::{
    driver::{
        call::{Call, Endpoint, Era, Proof},
        connection::{CallError, Connection},
    },
    upstream::catalog::SMALL_TOOL,
};

/// More than Gantry lets one server have.
const UNDER_WAY_MAX: usize = 400;
/// Connections that the blackhole swallows.
const SWALLOWED_MAX: usize = 4_096;

/// Accepts connections and never says a word.
pub(super) struct Blackhole {
    accepting: JoinHandle<()>,
}

impl Blackhole {
    /// Opens one where a server was.
    pub(super) async fn open(address: &str) -> io::Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let accepting = tokio::spawn(async move {
            let mut swallowed: Vec<TcpStream> = Vec::new();
            while let Ok((stream, _)) = listener.accept().await {
                if swallowed.len() == SWALLOWED_MAX {
                    swallowed.clear();
                }
                swallowed.push(stream);
            }
        });
        Ok(Self { accepting })
    }
}

impl Drop for Blackhole {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// How calls to a sick server ended.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ended {
    pub(super) answered_count: u64,
    pub(super) refused_count: u64,
}

impl Ended {
    pub(super) fn add(&mut self, other: Self) {
        self.answered_count += other.answered_count;
        self.refused_count += other.refused_count;
    }
}

/// Those who call servers without measuring it.
pub(super) struct Traffic {
    callers: Vec<(tokio::sync::oneshot::Sender<()>, JoinHandle<Ended>)>,
}

impl Traffic {
    /// Calls each of `servers` this often a second from `start` on, in turn.
    pub(super) fn start(endpoint: &Arc<Endpoint>, servers: &[&str], rate: u64, start: Instant) -> Self {
        let count = u32::try_from(servers.len()).unwrap_or(u32::MAX).max(1);
        let callers = servers.iter().zip(0_u32..).map(|(server, position)| {
            let tool = format!("{server}__{SMALL_TOOL}");
            let call = Arc::new(endpoint.call_tool(Era::Modern, &tool, Proof::Anything));
            let (stop, stopped) = tokio::sync::oneshot::channel();
            let pause = Duration::from_secs(1) / u32::try_from(rate).unwrap_or(u32::MAX);
            let ticks = tokio::time::interval_at((start + pause * position / count).into(), pause);
            (stop, tokio::spawn(keep_calling(Arc::clone(endpoint), call, ticks, stopped)))
        });
        Self { callers: callers.collect() }
    }

    /// Ends all calls, and says of each server how they ended.
    pub(super) async fn stop(self) -> Vec<Ended> {
        let mut ended = Vec::with_capacity(self.callers.len());
        for (stop, caller) in self.callers {
            drop(stop);
            // The callers cannot panic; one that did called nobody.
            ended.push(caller.await.unwrap_or_default());
        }
        ended
    }
}

async fn keep_calling(
    endpoint: Arc<Endpoint>,
    call: Arc<Call>,
    mut ticks: tokio::time::Interval,
    mut stopped: tokio::sync::oneshot::Receiver<()>,
) -> Ended {
    let (mut calls, mut ended) = (JoinSet::new(), Ended::default());
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            _ = ticks.tick() => if calls.len() < UNDER_WAY_MAX {
                calls.spawn(one_call(Arc::clone(&endpoint), Arc::clone(&call)));
            },
            Some(Ok(is_answered)) = calls.join_next() => match is_answered {
                true => ended.answered_count += 1,
                false => ended.refused_count += 1,
            },
        }
    }
    calls.shutdown().await;
    ended
}

/// Whether the call was answered with a result.
async fn one_call(endpoint: Arc<Endpoint>, call: Arc<Call>) -> bool {
    let called: Result<(), CallError> = async {
        let mut connection = Connection::open(&endpoint, Era::Modern).await?;
        connection.call(&call).await?;
        connection.close().await;
        Ok(())
    }
    .await;
    called.is_ok()
}
