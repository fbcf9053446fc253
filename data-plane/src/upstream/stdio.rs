//! Servers as child processes: one process for each server, shared by all its callers.
//!
//! Always holds: one task owns the process, its input and output; a message is one line. Ids and progress tokens of
//! callers are replaced by the task's own, so that no two callers can meet; nothing else of a message is changed.
//! The process is told that its client has no capabilities, so it has nobody to ask; it ends when the handle is
//! dropped. Notifications that belong to no request are not passed on in this release.

mod process;
mod splice;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::ServerName;
use gantry_model::resource::Transport;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::mcp::message::{Kind, Message, Method};
use crate::pipeline::Received;
use crate::rejection::{Rejection, Upstream, envelope};
use crate::reply::Body;
use crate::upstream::client::{AskError, failed};
use crate::upstream::stdio::process::{Ends, Process};

/// Calls that may wait for one process to take them.
const QUEUE_MAX: usize = 256;
/// Events of one answer that may wait for its caller; the process's reader does not wait for a slow one.
const EVENTS_MAX: usize = 64;
/// For admins.
const NOT_SERVING: &str = "the server's process does not serve; see the node's log for what it said";
/// Events of a stream, when the caller wants progress.
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A handle to a server's process.
pub(crate) struct StdioServer {
    calls: mpsc::Sender<Call>,
    transport: Transport,
    initialized: watch::Receiver<Option<Bytes>>,
    stop: CancellationToken,
}

/// A line for the process, and where its answer goes.
struct Call {
    message: Message,
    /// `None`: a notification.
    answer: Option<mpsc::Sender<Line>>,
}

/// What comes back for one call: progress, then the answer.
enum Line {
    Progress(Bytes),
    Answer(Bytes),
}

impl StdioServer {
    /// Starts a process and keeps it running.
    pub(crate) fn start(
        server: &ServerName,
        command: &[String],
        environment: &BTreeMap<String, String>,
    ) -> StdioServer {
        let (calls, receiver) = mpsc::channel(QUEUE_MAX);
        let stop = CancellationToken::new();
        let (initialized_sender, initialized) = watch::channel(None);
        let ends = Ends { calls: receiver, stop: stop.clone(), initialized: initialized_sender };
        let process = Process::new(server.clone(), command.to_vec(), environment.clone(), ends);
        tokio::spawn(process.run());
        let transport = Transport::Stdio { command: command.to_vec(), environment: environment.clone() };
        StdioServer { calls, transport, initialized, stop }
    }

    /// Whether it is the process of this transport.
    pub(crate) fn runs(&self, transport: &Transport) -> bool {
        self.transport == *transport
    }

    /// Serves an agent's message.
    pub(crate) async fn serve(
        self: &Arc<Self>,
        received: &Received,
        timeout: Duration,
    ) -> Result<Response<Body>, Rejection> {
        let Some(message) = &received.message else { return Err(Rejection::HttpMethod) };
        match &message.kind {
            // The process was initialised once, for all; what agents say of it, or answer it, concerns nobody.
            Kind::Notification { .. } | Kind::Response => Ok(status(StatusCode::ACCEPTED)),
            Kind::Request { id, method: Method::Initialize, .. } => {
                let result = self.initialize_result(timeout).await;
                let result = result.ok_or(Rejection::Upstream(Upstream::Unreachable))?;
                Ok(json(envelope(Some(id), "result", std::str::from_utf8(&result).unwrap_or("{}"))))
            }
            Kind::Request { id, method: Method::Ping, .. } => Ok(json(envelope(Some(id), "result", "{}"))),
            Kind::Request { method: Method::ResourcesSubscribe | Method::ResourcesUnsubscribe, .. } => {
                Err(Rejection::Method("resources/subscribe".to_owned()))
            }
            Kind::Request { params, .. } => {
                let wants_progress = params.meta.progress_token.is_some();
                let lines = self.send(message.clone()).await?;
                if wants_progress { Ok(stream(lines)) } else { first_answer(lines, timeout).await }
            }
        }
    }

    /// Asks the process on the gateway's own behalf. A notification has no answer.
    pub(crate) async fn ask(&self, message: Value, timeout: Duration) -> Result<Option<Value>, AskError> {
        let message =
            Message::parse(Bytes::from(message.to_string())).map_err(|error| failed(error.to_string()))?;
        match message.kind {
            Kind::Notification { .. } => return Ok(None),
            Kind::Request { method: Method::Initialize, .. } => {
                let result = self.initialize_result(timeout).await;
                let result = result.ok_or_else(|| failed(NOT_SERVING))?;
                let result: Option<Value> = serde_json::from_slice(&result).ok();
                return Ok(result.map(|result| serde_json::json!({"result": result})));
            }
            Kind::Request { .. } | Kind::Response => {}
        }
        let mut lines = self.send(message).await.map_err(|rejection| failed(rejection.message()))?;
        let answer = tokio::time::timeout(timeout, async {
            while let Some(line) = lines.recv().await {
                if let Line::Answer(answer) = line {
                    return serde_json::from_slice(&answer).ok();
                }
            }
            None
        });
        match answer.await {
            Ok(Some(answer)) => Ok(Some(answer)),
            Ok(None) => Err(failed(NOT_SERVING)),
            Err(_) => Err(failed("the server's process did not answer in time")),
        }
    }

    /// What the process answered to the one `initialize` that it was sent; waits for a process that is starting.
    async fn initialize_result(&self, timeout: Duration) -> Option<Bytes> {
        let mut initialized = self.initialized.clone();
        let known = tokio::time::timeout(timeout, initialized.wait_for(Option::is_some)).await;
        known.ok()?.ok()?.clone()
    }

    async fn send(&self, message: Message) -> Result<mpsc::Receiver<Line>, Rejection> {
        let (answer, lines) = mpsc::channel(EVENTS_MAX);
        let call = Call { message, answer: Some(answer) };
        self.calls.send(call).await.map_err(|_| Rejection::Upstream(Upstream::Unreachable))?;
        Ok(lines)
    }
}

impl Drop for StdioServer {
    /// Nobody can call it any more, so its process has no reason to run.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn first_answer(
    mut lines: mpsc::Receiver<Line>,
    timeout: Duration,
) -> Result<Response<Body>, Rejection> {
    let answer = tokio::time::timeout(timeout, async {
        while let Some(line) = lines.recv().await {
            if let Line::Answer(answer) = line {
                return Some(answer);
            }
        }
        None
    });
    match answer.await {
        Ok(Some(answer)) => Ok(json(answer)),
        Ok(None) => Err(Rejection::Upstream(Upstream::Unreachable)),
        Err(_) => Err(Rejection::Upstream(Upstream::Timeout(timeout))),
    }
}

/// An answer with progress, as events. The task ends when the process answers, or when the client leaves.
fn stream(mut lines: mpsc::Receiver<Line>) -> Response<Body> {
    let (events, body) = mpsc::channel(1);
    tokio::spawn(async move {
        while let Some(line) = lines.recv().await {
            let (Line::Progress(bytes) | Line::Answer(bytes)) = &line;
            let mut event = Vec::with_capacity(bytes.len() + 24);
            event.extend_from_slice(b"event: message\ndata: ");
            event.extend_from_slice(bytes);
            event.extend_from_slice(b"\n\n");
            if events.send(event.into()).await.is_err() || matches!(line, Line::Answer(_)) {
                return;
            }
        }
    });
    let mut response = Response::new(Body::events(body));
    response.headers_mut().insert(CONTENT_TYPE, EVENT_STREAM);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}

fn json(body: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}
