//! A relay for agents that speak standard input and output only: lines in, requests to one endpoint, lines out.
//!
//! Always holds: every request has one answer, an error of the relay's own where the endpoint gives none. A message is
//! passed on as it came, in the era that it is of. A session that the endpoint forgot is begun anew ([`renewal`]). The
//! session ends with the input; what is under way then
//! is answered first, within [`DRAIN_DEADLINE`]. A modern request that is cancelled is dropped, which is how HTTP
//! cancels.

mod renewal;
mod revoked;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

use super::envelope::{Envelope, Mirrors, failure};
use super::lines::{self, LINE_BYTES_MAX, Line};
use super::reader::{Reader, whole};
use super::transport::{Transport, is_event_stream};
use super::{McpError, Target};
use crate::failure::{Failure, chain};
use crate::output;
use crate::signals::Signals;

/// Messages under way at once; more wait to be read.
const TASKS_MAX: usize = 256;
/// How long requests under way may take once the input has ended.
const DRAIN_DEADLINE: Duration = Duration::from_secs(60);
/// How long the session's own stream may take to open before later messages are sent.
const OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the end of the session may take.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a stream that broke is opened again.
const REOPENINGS_MAX: u32 = 100;
/// Pause before.
const REOPENING_PAUSE: Duration = Duration::from_secs(1);

/// No JSON.
const PARSE: i64 = -32700;
/// Too long.
const INVALID: i64 = -32600;
/// The endpoint was not reached, or gave no answer.
const UNREACHABLE: i64 = -31502;

/// A relay that has not begun.
pub(crate) struct Relay {
    wire: Arc<Wire>,
    tasks: JoinSet<()>,
    /// Modern requests that are not answered yet, by their tasks.
    modern: HashMap<tokio::task::Id, (Value, AbortHandle)>,
    listening: Option<JoinHandle<()>>,
}

/// What all messages share.
struct Wire {
    transport: Transport,
    /// Headers that the person asked for.
    headers: Vec<(String, String)>,
    /// What to do when the endpoint is not reached.
    next: String,
    state: Mutex<State>,
    /// Held while a session is begun anew.
    renewing: tokio::sync::Mutex<()>,
    /// What the endpoint said when it refused the agent for good: an admin revoked it.
    revoked: watch::Sender<Option<String>>,
}

/// What is known of the endpoint.
#[derive(Default)]
struct State {
    session: Option<String>,
    /// The agent's `initialize`.
    initialize: Option<Bytes>,
    /// Agreed on with `initialize`.
    version: Option<String>,
    /// What the last modern message said it is of.
    modern: Option<String>,
    mirrors: Mirrors,
}

type Out = mpsc::Sender<Vec<u8>>;

impl Relay {
    /// A relay to an endpoint, with more headers for every request. `next` tells a person what to do when the endpoint
    /// cannot be used.
    pub(crate) fn new(
        target: Target,
        headers: Vec<(String, String)>,
        next: String,
    ) -> Result<Relay, McpError> {
        let (state, renewing) = (Mutex::default(), tokio::sync::Mutex::default());
        let revoked = watch::Sender::new(None);
        let wire = Wire { transport: Transport::new(target)?, headers, next, state, renewing, revoked };
        Ok(Relay { wire: Arc::new(wire), tasks: JoinSet::new(), modern: HashMap::new(), listening: None })
    }

    /// Relays until the input ends, nobody reads the output, or a signal tells to stop.
    pub(crate) async fn run(mut self) -> Result<(), Failure> {
        let mut signals = Signals::new()?;
        let mut input = lines::of_stdin();
        let (out, writer) = lines::to_stdout();
        let mut revoked = self.wire.revoked.subscribe();
        let ended = loop {
            tokio::select! {
                () = signals.next() => break false,
                () = out.closed() => break false,
                _ = revoked.wait_for(Option::is_some) => break true,
                Some(done) = self.tasks.join_next_with_id() => {
                    let task = done.map_or_else(|error| error.id(), |(task, ())| task);
                    self.modern.remove(&task);
                }
                line = input.recv(), if self.tasks.len() < TASKS_MAX => match line {
                    Some(line) => self.take(line, &out).await,
                    None => break true,
                },
            }
        };
        if ended {
            let drain = async { while self.tasks.join_next().await.is_some() {} };
            tokio::select! {
                _ = tokio::time::timeout(DRAIN_DEADLINE, drain) => {}
                () = signals.next() => {}
            }
        }
        self.tasks.shutdown().await;
        if let Some(listening) = self.listening.take() {
            listening.abort();
            let _ = listening.await;
        }
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, self.wire.farewell()).await;
        drop(out);
        // It has nothing left to wait for but its reader.
        if ended {
            let _ = tokio::task::spawn_blocking(move || writer.join()).await;
        }
        revoked::failure(&revoked).map_or(Ok(()), Err)
    }

    async fn take(&mut self, line: Line, out: &Out) {
        let body = match line {
            Line::Whole(body) if body.trim_ascii().is_empty() => return,
            Line::Whole(body) => body,
            Line::TooLong => {
                let message = format!("a message has at most {LINE_BYTES_MAX} bytes");
                return send(out, failure(&Value::Null, INVALID, &message)).await;
            }
        };
        let envelope = match Envelope::read(&body) {
            Ok(envelope) => envelope,
            Err(error) => {
                return send(out, failure(&Value::Null, PARSE, &format!("no JSON: {error}"))).await;
            }
        };
        if envelope.modern.is_some() {
            self.wire.state().modern.clone_from(&envelope.modern);
        }
        if let Some(id) = envelope.cancels()
            && self.cancel(id)
        {
            return;
        }
        let (wire, out) = (self.wire.clone(), out.clone());
        if envelope.method == "notifications/initialized" {
            // Later messages may rest on it.
            wire.pass(body, envelope, &out).await;
            return self.listen(out).await;
        }
        // Nobody waits for the end of these: they have none.
        let (id, is_modern) = (envelope.id.clone(), envelope.modern.is_some());
        let task = self.tasks.spawn(async move { wire.pass(body, envelope, &out).await });
        if let (Some(id), true) = (id, is_modern) {
            self.modern.insert(task.id(), (id, task));
        }
    }

    /// Drops a modern request. Returns whether there is nothing left to be told to the endpoint.
    fn cancel(&self, id: &Value) -> bool {
        let found = self.modern.values().find(|(known, _)| known == id);
        if let Some((_, task)) = found {
            task.abort();
        }
        found.is_some() || self.wire.state().version.is_none()
    }

    /// Opens the session's own stream, and waits a moment until it is open: a server may ask by it within a call.
    async fn listen(&mut self, out: Out) {
        if self.wire.state().session.is_none() {
            return;
        }
        let (opened, opening) = oneshot::channel();
        let wire = self.wire.clone();
        if let Some(earlier) =
            self.listening.replace(tokio::spawn(async move { wire.listen(&out, opened).await }))
        {
            earlier.abort();
        }
        let _ = tokio::time::timeout(OPENING_TIMEOUT, opening).await;
    }
}

impl Wire {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn headers(&self, envelope: Option<&Envelope>) -> Vec<(String, String)> {
        let state = self.state();
        let mut headers = self.headers.clone();
        let modern = envelope.and_then(|envelope| match &envelope.modern {
            Some(version) => Some((envelope, version)),
            // Notifications need not say it, and a client without a session has no other version.
            None if envelope.id.is_none() && !envelope.method.is_empty() && state.version.is_none() => {
                state.modern.as_ref().map(|version| (envelope, version))
            }
            None => None,
        });
        match modern {
            Some((envelope, version)) => headers.extend(envelope.headers(version, &state.mirrors)),
            // It begins another session.
            None if envelope.is_some_and(|envelope| envelope.method == "initialize") => {}
            None => {
                let pair = |name: &str, value: &String| (name.to_owned(), value.clone());
                headers.extend(state.version.as_ref().map(|value| pair("mcp-protocol-version", value)));
                headers.extend(state.session.as_ref().map(|value| pair("mcp-session-id", value)));
            }
        }
        headers
    }

    async fn send(
        &self,
        method: Method,
        body: Option<Bytes>,
        envelope: Option<&Envelope>,
    ) -> Result<Response<Incoming>, McpError> {
        let headers = self.headers(envelope);
        let headers: Vec<(&str, &str)> =
            headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        self.transport.send(method, body, &headers).await
    }

    /// Passes one message to the endpoint, and what comes of it to the agent.
    async fn pass(&self, body: Bytes, envelope: Envelope, out: &Out) {
        if envelope.method == "initialize" && envelope.modern.is_none() {
            let mut state = self.state();
            (state.session, state.version) = (None, None);
            state.initialize = Some(body.clone());
        }
        let passed = async {
            let response = self.send_in_session(body, &envelope).await?;
            self.note_session(&envelope, &response);
            self.answer(&envelope, response, out).await
        };
        if let Err(error) = passed.await {
            let told = chain(&error);
            output::warn(&format!(
                "{}: {}; next: {}",
                output::visible(&envelope.method),
                output::visible(&told),
                self.next
            ));
            if let Some(id) = &envelope.id {
                send(out, failure(id, UNREACHABLE, &told)).await;
            }
        }
    }

    fn note_session(&self, envelope: &Envelope, response: &Response<Incoming>) {
        if envelope.method == "initialize" && envelope.modern.is_none() {
            let session = response.headers().get("mcp-session-id").and_then(|value| value.to_str().ok());
            self.state().session = session.map(str::to_owned);
        }
    }

    /// Reads the answer to a message to its end.
    async fn answer(
        &self,
        envelope: &Envelope,
        response: Response<Incoming>,
        out: &Out,
    ) -> Result<(), McpError> {
        let (status, streams) = (response.status(), is_event_stream(response.headers()));
        let mut answered = envelope.id.is_none();
        if streams {
            let mut reader = Reader::new(response.into_body());
            while let Some(message) = reader.next().await? {
                answered |= self.note(envelope, &message);
                send(out, message).await;
            }
        } else {
            let body = whole(response.into_body()).await?;
            self.end_if_revoked(status, &body);
            let is_message = body.iter().find(|byte| !byte.is_ascii_whitespace());
            let message =
                matches!(is_message, Some(b'{' | b'[')).then(|| under_id(envelope, body.clone())).flatten();
            match message {
                // A refusal of what is no request has nobody to tell but the person.
                Some(message)
                    if envelope.id.is_none() && !envelope.method.is_empty() && !status.is_success() =>
                {
                    let text = String::from_utf8_lossy(&message).into_owned();
                    return Err(McpError::NotMcp { status: status.as_u16(), text });
                }
                Some(message) => {
                    answered |= self.note(envelope, &message);
                    send(out, message).await;
                }
                None if status.is_success() => {}
                None => {
                    let text = output::first_line(String::from_utf8_lossy(&body).trim(), 200);
                    return Err(McpError::NotMcp { status: status.as_u16(), text });
                }
            }
        }
        if answered { Ok(()) } else { Err(McpError::NoAnswer) }
    }

    /// Learns from a message of the endpoint. Returns whether it is the answer.
    fn note(&self, envelope: &Envelope, message: &[u8]) -> bool {
        let Ok(message) = serde_json::from_slice::<Value>(message) else { return false };
        if message.get("method").is_some() || message.get("id") != envelope.id.as_ref() {
            return false;
        }
        match envelope.method.as_str() {
            "initialize" => {
                let version = message.pointer("/result/protocolVersion").and_then(Value::as_str);
                self.state().version = version.map(str::to_owned);
            }
            "tools/list" => self.state().mirrors.learn(&message),
            _ => {}
        }
        true
    }

    async fn listen(&self, out: &Out, opened: oneshot::Sender<()>) {
        let mut opened = Some(opened);
        for _ in 0..REOPENINGS_MAX {
            let session = self.state().session.clone();
            let response = self.send(Method::GET, None, None).await;
            opened.take();
            match response {
                Ok(response) if response.status() == StatusCode::NOT_FOUND => {
                    let Some(lost) = session else { return };
                    if !self.renew(&lost).await {
                        return;
                    }
                }
                // Many endpoints have no such stream.
                Ok(response) if !is_event_stream(response.headers()) => {
                    return self.end_if_revoked_by(response).await;
                }
                Ok(response) => {
                    let mut reader = Reader::new(response.into_body());
                    while let Ok(Some(message)) = reader.next().await {
                        send(out, message).await;
                    }
                }
                Err(_) => {}
            }
            tokio::time::sleep(REOPENING_PAUSE).await;
        }
    }

    async fn farewell(&self) {
        if self.state().session.is_none() || self.revoked.borrow().is_some() {
            return;
        }
        // The session ends by itself when this does not arrive.
        if let Ok(response) = self.send(Method::DELETE, None, None).await {
            let _ = whole(response.into_body()).await;
        }
    }
}

/// Who refuses before the message is read answers without its id, which by HTTP is no loss. `None`: it is no JSON.
fn under_id(envelope: &Envelope, body: Vec<u8>) -> Option<Vec<u8>> {
    let mut message: Value = serde_json::from_slice(&body).ok()?;
    match (&envelope.id, message.get("id")) {
        (Some(id), None | Some(Value::Null)) if message.get("error").is_some() => {
            message["id"] = id.clone();
            Some(message.to_string().into_bytes())
        }
        _ => Some(body),
    }
}

/// Whether the agent still reads shows where the relay waits.
async fn send(out: &Out, message: Vec<u8>) {
    let _ = out.send(message).await;
}
