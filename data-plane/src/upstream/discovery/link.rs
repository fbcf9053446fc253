//! What discovery keeps open to one server, by which it hears that the server's lists changed.
//!
//! Always holds: it is the gateway's own, with the server's credential, and belongs to no agent; there is at most one
//! session and one stream. What comes by them is a hint to ask; the lists themselves are asked for by the probe.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::SessionCarrier;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use super::{INTERVAL, QUESTION_TIMEOUT, RETRY_FIRST};
use crate::config::server::Server;
use crate::mcp::json;
use crate::mcp::message::Method;
use crate::node::Node;
use crate::rejection::Upstream;
use crate::upstream::client::{AskError, ask_modern, respond};
use crate::upstream::exchange::Event;
use crate::upstream::session::LegacySession;

/// A session is opened anew after this time, because what a server says of itself is said only then.
const SESSION_AGE_MAX: Duration = Duration::from_secs(600);
/// What lived so long was sound: after it, the pause before the next try is the first again.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// How long a stream may take to open before the lists are asked for anyway.
const OPEN_TIMEOUT: Duration = Duration::from_secs(2);

/// A server, and what is open to it.
pub(super) struct Link {
    pub(super) node: Arc<Node>,
    pub(super) server: Arc<Server>,
    session: Option<Held>,
    stream: Option<Stream>,
    /// Before a session that ended soon after it began is opened again.
    pause: Duration,
}

struct Held {
    session: Arc<LegacySession>,
    carrier: SessionCarrier,
    opened: Instant,
    hearing: Option<AbortOnDropHandle<()>>,
}

struct Stream {
    wanted: Value,
    _hearing: AbortOnDropHandle<()>,
}

impl Link {
    pub(super) fn new(node: Arc<Node>, server: Arc<Server>) -> Link {
        Link { node, server, session: None, stream: None, pause: RETRY_FIRST }
    }

    /// The session that is open, while it is good.
    pub(super) fn session(&self) -> Option<(Arc<LegacySession>, SessionCarrier)> {
        let held = self.session.as_ref()?;
        let is_good = !held.session.is_over() && held.opened.elapsed() < SESSION_AGE_MAX;
        is_good.then(|| (held.session.clone(), held.carrier))
    }

    /// Keeps a session open and listens to what it says.
    pub(super) async fn hold(
        &mut self,
        session: LegacySession,
        carrier: SessionCarrier,
    ) -> Arc<LegacySession> {
        self.end_session().await;
        let session = Arc::new(session);
        let hearing = session.take_unbound().map(|unbound| {
            let (node, server) = (self.node.clone(), self.server.clone());
            AbortOnDropHandle::new(tokio::spawn(hear(node, server, session.clone(), unbound, self.pause)))
        });
        self.session = Some(Held { session: session.clone(), carrier, opened: Instant::now(), hearing });
        session
    }

    /// Ends the session, if there is one.
    pub(super) async fn end_session(&mut self) {
        let Some(held) = self.session.take() else { return };
        let was_sound = held.opened.elapsed() >= SOUND_AFTER;
        self.pause = if was_sound { RETRY_FIRST } else { (self.pause * 2).min(INTERVAL) };
        // What ends on purpose is no reason to ask anew.
        drop(held.hearing);
        held.session.close().await;
    }

    /// Keeps a stream of changes open to a server of the modern era, of the lists that it says it tells of. Returns
    /// when the server opened it, or did not in time.
    pub(super) async fn listen(&mut self, capabilities: &Value) {
        let wanted = wanted(capabilities);
        if self.stream.as_ref().is_some_and(|stream| stream.wanted == wanted) {
            return;
        }
        self.stream = None;
        if wanted.as_object().is_none_or(serde_json::Map::is_empty) {
            return;
        }
        let opened = CancellationToken::new();
        let guard = opened.clone().drop_guard();
        let listening = keep_listening(self.node.clone(), self.server.clone(), wanted.clone(), guard);
        let hearing = AbortOnDropHandle::new(tokio::spawn(listening));
        self.stream = Some(Stream { wanted, _hearing: hearing });
        let _ = tokio::time::timeout(OPEN_TIMEOUT, opened.cancelled()).await;
    }

    /// Closes the stream, if there is one.
    pub(super) fn end_stream(&mut self) {
        self.stream = None;
    }
}

/// What a listen asks for: only what the server says it tells of.
fn wanted(capabilities: &Value) -> Value {
    let tells = |list: &str| capabilities[list]["listChanged"] == json!(true);
    let fields = [
        ("tools", "toolsListChanged"),
        ("prompts", "promptsListChanged"),
        ("resources", "resourcesListChanged"),
    ];
    let wanted = fields.into_iter().filter(|(list, _)| tells(list));
    Value::Object(wanted.map(|(_, field)| (field.to_owned(), json!(true))).collect())
}

/// Hears what a session says outside of requests, until it is over; then the server is asked anew, which opens another.
async fn hear(
    node: Arc<Node>,
    server: Arc<Server>,
    session: Arc<LegacySession>,
    mut unbound: tokio::sync::mpsc::Receiver<Event>,
    pause: Duration,
) {
    loop {
        let event = tokio::select! {
            event = unbound.recv() => event,
            () = session.ended() => None,
        };
        match event {
            Some(Event::Notification(note)) => node.notice(&server, &note),
            Some(Event::Request { id, message }) => respond(&session, &id, &message).await,
            Some(Event::Answer(_)) => {}
            None => break,
        }
    }
    tokio::time::sleep(pause).await;
    node.discovery.nudge(&server.tenant, &server.name);
}

/// How a stream of changes ended.
enum Ended {
    /// It can be opened again.
    Broken,
    /// The server has none.
    Absent,
}

async fn keep_listening(node: Arc<Node>, server: Arc<Server>, wanted: Value, first: DropGuard) {
    let mut first = Some(first);
    let mut pause = RETRY_FIRST;
    for id in 1.. {
        let began = Instant::now();
        match listen_once(&node, &server, &wanted, id, &mut first).await {
            Ok(Ended::Absent) => return,
            Ok(Ended::Broken) => {}
            Err(error) => {
                tracing::debug!(server = %server.name, %error, "the stream of changes does not open")
            }
        }
        first = None;
        if began.elapsed() >= SOUND_AFTER {
            pause = RETRY_FIRST;
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(INTERVAL);
    }
}

async fn listen_once(
    node: &Node,
    server: &Server,
    wanted: &Value,
    id: u64,
    first: &mut Option<DropGuard>,
) -> Result<Ended, AskError> {
    let params = json!({"notifications": wanted});
    let asked = ask_modern(&node.upstreams, server, id, Method::Listen, params, QUESTION_TIMEOUT).await;
    let mut exchange = match asked {
        Err(AskError::Server(Upstream::Status(status))) if status.is_client_error() => {
            return Ok(Ended::Absent);
        }
        asked => asked?,
    };
    while let Some(event) = exchange.next().await {
        match event.map_err(AskError::Server)? {
            Event::Notification(note) if is_acknowledgement(&note) => {
                if first.take().is_none() {
                    // What changed while there was no stream was told to nobody.
                    node.discovery.wake(&server.tenant, &server.name);
                }
            }
            Event::Notification(note) => node.notice(server, &note),
            Event::Request { .. } => {}
            // An error at once: the server does not know the method, or does not serve it.
            Event::Answer(answer) if is_error(&answer) => return Ok(Ended::Absent),
            Event::Answer(_) => return Ok(Ended::Broken),
        }
    }
    Ok(Ended::Broken)
}

fn is_acknowledgement(note: &Bytes) -> bool {
    let [method] = text(note).and_then(|text| json::fields(text, &["method"]).ok()).unwrap_or_default();
    method.is_some_and(|method| method.get() == r#""notifications/subscriptions/acknowledged""#)
}

fn is_error(answer: &Bytes) -> bool {
    let [error] = text(answer).and_then(|text| json::fields(text, &["error"]).ok()).unwrap_or_default();
    error.is_some()
}

fn text(message: &Bytes) -> Option<&str> {
    std::str::from_utf8(message).ok()
}
