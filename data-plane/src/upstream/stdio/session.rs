//! Sessions of the legacy era with a process of their own.
//!
//! Always holds: the process lives as long as its session, and a session that is over has no process. What a request
//! needs from the session's owner is not known here.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::server::Server;
use crate::rejection::Upstream;
use crate::upstream::exchange::{Ask, Event, Exchange};
use crate::upstream::session::{AskFailure, Carrier, INITIALIZED, Opened, Opening};
use crate::upstream::stdio::pipe::Pipe;
use crate::upstream::stdio::{Program, Stdio};

/// How long a process may take to answer `initialize`, whatever a session's steps may take: some fetch their packages
/// first.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(60);
/// The id of `initialize`, as [`Opening::initialize`] has it.
const INITIALIZE_ID: u64 = 0;

/// A session with a process of its own.
pub(crate) struct StdioSession {
    pipe: Arc<Pipe>,
}

impl StdioSession {
    /// Starts a process and opens a session with it. Dropping the future ends the process.
    pub(crate) async fn open(stdio: &Stdio, server: &Server, opening: &Opening) -> Result<Opened, Upstream> {
        StdioSession::open_at(&*stdio.program(server)?, opening).await
    }

    pub(super) async fn open_at(program: &Program, opening: &Opening) -> Result<Opened, Upstream> {
        let (pipe, unbound) = program.start().await?;
        let opened = async { finish(&pipe, unbound, begin(&pipe, opening)?, opening).await }.await;
        match &opened {
            Ok(_) => program.pace().serves(),
            Err(_) => program.pace().failed(Instant::now()),
        }
        opened
    }

    /// Sends a request. A process that has ended was not sent it.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Exchange, AskFailure> {
        self.pipe.ask(ask.id, &ask.body).map_err(|failure| self.failure(failure))
    }

    pub(crate) fn tell(&self, message: &Bytes) -> Result<(), AskFailure> {
        self.pipe.tell(message).map_err(|failure| self.failure(failure))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.pipe.is_over()
    }

    /// Waits until the session is known to be over.
    pub(crate) async fn ended(&self) {
        self.pipe.ended().await;
    }

    /// Ends the process, and returns when it has ended.
    pub(crate) async fn close(&self) {
        self.pipe.close().await;
    }

    fn failure(&self, failure: Upstream) -> AskFailure {
        if self.is_over() { AskFailure::Expired } else { AskFailure::Failed(failure) }
    }
}

/// Sends `initialize`.
pub(super) fn begin(pipe: &Arc<Pipe>, opening: &Opening) -> Result<Exchange, Upstream> {
    pipe.ask(INITIALIZE_ID, &opening.initialize())
}

/// Waits for the answer to `initialize`, and makes a session of it.
pub(super) async fn finish(
    pipe: &Arc<Pipe>,
    unbound: mpsc::Receiver<Event>,
    initialize: Exchange,
    opening: &Opening,
) -> Result<Opened, Upstream> {
    let timeout = opening.timeout.max(START_TIMEOUT);
    let answer = tokio::time::timeout(timeout, initialize.answer()).await;
    let answer = answer.map_err(|_| Upstream::Timeout(timeout))??;
    let initialized = Opening::read_answer(&answer).ok_or(Upstream::Protocol)?;
    pipe.tell(&INITIALIZED)?;
    Ok(Opened { carrier: Carrier::Stdio(StdioSession { pipe: pipe.clone() }), initialized, unbound })
}
