//! The health of a server as this node sees it: how many requests it has under way, and whether it is worth asking.
//!
//! Always holds: a server has at most `concurrency` requests under way, and one that is sick costs its callers at
//! most [`WAIT_MAX`] before they are told so; no other server is touched. Only failures of the transport count
//! (unreachable, late, 502, 503, 504): what a server says in MCP or with a 4xx shows that it is there.

pub(crate) mod breaker;

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::ServerName;
use gantry_model::resource::{ServerSpec, Transport};
use http::StatusCode;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::rejection::{Rejection, Upstream};
use crate::upstream::health::breaker::{Breaker, Entry};

/// How long a request waits for one of those to end: longer than a full server's next answers take when it is well,
/// and too short to heap up requests when it is not.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What this node knows of one server's health. Outlives changes of configuration that leave the server where it is,
/// and as many places.
pub(crate) struct Health {
    name: ServerName,
    transport: Transport,
    concurrency: u32,
    places: Arc<Semaphore>,
    breaker: Breaker,
}

/// That one request may be sent. Dropped without an outcome, it counts as cancelled.
#[must_use]
pub(crate) struct Pass {
    call: Call,
    permit: Permit,
}

/// A call whose outcome is not told yet.
struct Call {
    health: Arc<Health>,
    entry: Option<Entry>,
}

/// A place among the server's requests under way; it is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    _place: OwnedSemaphorePermit,
}

/// Why a request may not be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Away {
    /// The server failed, and is left alone for a while.
    #[error("the server is away")]
    Failing {
        /// When it may be asked again.
        retry_after: Duration,
    },
    /// The server has as many requests under way as it may have.
    #[error("the server has too many requests under way")]
    Busy,
}

impl From<Away> for Rejection {
    fn from(away: Away) -> Rejection {
        Rejection::Upstream(match away {
            Away::Failing { retry_after } => Upstream::Away { retry_after },
            Away::Busy => Upstream::Busy,
        })
    }
}

impl Health {
    /// Of a server that nothing is known of yet.
    pub(crate) fn new(name: &ServerName, spec: &ServerSpec) -> Health {
        Health {
            name: name.clone(),
            transport: spec.transport.clone(),
            concurrency: spec.concurrency,
            places: Arc::new(Semaphore::new(spec.concurrency as usize)),
            breaker: Breaker::new(Instant::now()),
        }
    }

    /// Whether it is the health of the server that a specification means.
    pub(crate) fn is_of(&self, spec: &ServerSpec) -> bool {
        self.transport == spec.transport && self.concurrency == spec.concurrency
    }

    /// Whether the server failed and is left alone. Cheap.
    pub(crate) fn is_away(&self) -> bool {
        self.breaker.is_away()
    }

    /// Waits, for a short bounded time, until a request may be sent. Dropping the future is safe.
    pub(crate) async fn admit(self: &Arc<Self>) -> Result<Pass, Away> {
        self.admit_within(WAIT_MAX).await
    }

    async fn admit_within(self: &Arc<Self>, wait: Duration) -> Result<Pass, Away> {
        // Nobody waits for a place that would not be given.
        if let Some(retry_after) = self.breaker.refusal(Instant::now()) {
            return Err(Away::Failing { retry_after });
        }
        let place = match self.places.clone().try_acquire_owned() {
            Ok(place) => place,
            Err(_) => match tokio::time::timeout(wait, self.places.clone().acquire_owned()).await {
                Ok(Ok(place)) => place,
                Ok(Err(_)) | Err(_) => return Err(Away::Busy),
            },
        };
        let entry =
            self.breaker.enter(Instant::now()).map_err(|retry_after| Away::Failing { retry_after })?;
        let call = Call { health: self.clone(), entry: Some(entry) };
        Ok(Pass { call, permit: Permit { _place: place } })
    }

    /// The server answered the gateway itself, which asks also while it is away: it is no longer.
    pub(crate) fn answered(&self) {
        self.watched(Breaker::answered);
    }

    /// The server failed the gateway itself.
    pub(crate) fn unanswered(&self) {
        self.watched(|breaker| breaker.unanswered(Instant::now(), chance()));
    }

    /// Has the breaker told something, and logs when it changes.
    fn watched(&self, tell: impl FnOnce(&Breaker)) {
        let was_away = self.is_away();
        tell(&self.breaker);
        match (was_away, self.is_away()) {
            (false, true) => tracing::warn!(server = %self.name, "server is away and left alone for a while"),
            (true, false) => tracing::info!(server = %self.name, "server is back"),
            (false, false) | (true, true) => {}
        }
    }
}

impl Pass {
    /// The server is there. The place may be kept as long as its answer is under way.
    pub(crate) fn succeeded(mut self) -> Permit {
        if let Some(entry) = self.call.entry.take() {
            self.call.health.watched(|breaker| breaker.succeeded(entry, Instant::now()));
        }
        self.permit
    }

    /// The server could not be reached, was late, or is out of order.
    pub(crate) fn failed(mut self) {
        if let Some(entry) = self.call.entry.take() {
            self.call.health.watched(|breaker| breaker.failed(entry, Instant::now(), chance()));
        }
    }

    /// Tells the outcome of a request, once the head of its answer is there.
    pub(crate) fn judge<T>(self, outcome: Result<T, Rejection>) -> Result<(T, Permit), Rejection> {
        match outcome {
            Ok(answer) => Ok((answer, self.succeeded())),
            Err(rejection) => {
                match &rejection {
                    Rejection::Upstream(failure) if is_of_transport(failure) => self.failed(),
                    Rejection::Upstream(_) => drop(self.succeeded()),
                    // The request did not come as far as the server.
                    _ => {}
                }
                Err(rejection)
            }
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.health.breaker.cancelled(entry);
        }
    }
}

/// Whether a failure is of the transport, and so of the server's health.
pub(crate) fn is_of_transport(failure: &Upstream) -> bool {
    match failure {
        Upstream::Unreachable | Upstream::Timeout(_) => true,
        Upstream::Status(status) => is_out_of_order(*status),
        Upstream::Refused(_) | Upstream::Protocol | Upstream::Away { .. } | Upstream::Busy => false,
    }
}

/// What a proxy before the server, or a server that is overwhelmed, answers in place of the server.
pub(crate) fn is_out_of_order(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT)
}

/// Without randomness the pauses of nodes are merely equal.
fn chance() -> u8 {
    let mut byte = [0];
    let _ = aws_lc_rs::rand::fill(&mut byte);
    byte[0]
}

#[cfg(test)]
mod tests;
