//! Sessions of legacy clients with the gateway, as their home node has them: what a token cannot say.
//!
//! Always holds: everything here belongs to one session, and so to one principal; it can be lost with its node, and
//! the session goes on elsewhere without it. What the client is asked waits here for its answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use gantry_model::ServerName;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::bridge::asked;
use crate::bridge::outlet::Outlet;
use crate::mcp::object::quote;
use crate::mcp::session::Bridged;
use crate::mesh::Peer;
use crate::reply::event;

/// Sessions that a node is the home of at once. Beyond, the one unused for longest is forgotten.
const HOMES_MAX: usize = 16_384;
/// Questions to one client that may wait for its answers.
const ASKS_MAX: usize = 64;
/// How long a client may take to answer: a person may have to be found.
pub(crate) const ASK_MAX: Duration = Duration::from_secs(15 * 60);
/// Messages of a session's own stream that may wait; a client that does not keep up misses the newest.
const STREAM_MESSAGES_MAX: usize = 64;
/// Resources that a session may be subscribed to.
pub(crate) const WATCHES_MAX: usize = 256;

/// The sessions that this node is the home of.
pub(crate) struct Homes {
    me: Peer,
    homes: DashMap<String, Arc<Home>>,
}

/// One session at its home.
pub(crate) struct Home {
    pub(crate) bridged: Bridged,
    /// What stands for this node in the ids of its questions.
    mark: String,
    level: Mutex<Option<String>>,
    stream: Mutex<Option<mpsc::Sender<Bytes>>>,
    asks: Mutex<HashMap<String, oneshot::Sender<Bytes>>>,
    next_ask: AtomicU64,
    /// Calls under way by the client's id.
    calls: Mutex<HashMap<Bytes, CancellationToken>>,
    /// What brings servers' own messages to the stream.
    forwarders: Mutex<HashMap<ServerName, (u64, AbortOnDropHandle<()>)>>,
    watches: Mutex<HashMap<String, AbortOnDropHandle<()>>>,
    used: Mutex<Instant>,
}

/// Why a client gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AskError {
    /// It cannot be reached: it has no stream open.
    #[error("the client does not listen")]
    Unreachable,
    /// Too many questions wait.
    #[error("the client has too many questions to answer")]
    TooMany,
    /// It did not answer in time.
    #[error("the client did not answer in time")]
    Late,
}

impl Homes {
    /// No sessions yet, on the node of this name.
    pub(crate) fn new(me: &Peer) -> Homes {
        Homes { me: me.clone(), homes: DashMap::new() }
    }

    /// The session, made if this node has not seen it.
    pub(crate) fn get(&self, bridged: &Bridged) -> Arc<Home> {
        if self.homes.len() >= HOMES_MAX && !self.homes.contains_key(&bridged.nonce) {
            let oldest =
                self.homes.iter().min_by_key(|entry| *lock(&entry.used)).map(|entry| entry.key().clone());
            oldest.and_then(|oldest| self.homes.remove(&oldest));
        }
        let home = self
            .homes
            .entry(bridged.nonce.clone())
            .or_insert_with(|| Arc::new(Home::new(bridged.clone(), &self.me)));
        *lock(&home.used) = Instant::now();
        home.clone()
    }

    /// Forgets the sessions whose clients were quiet for so long.
    pub(crate) fn sweep(&self, quiet: Duration, now: Instant) {
        self.homes.retain(|_, home| !home.is_quiet(quiet, now));
    }

    /// Whether the client of a session was quiet for so long; of one that is not known here, nothing is heard.
    pub(crate) fn is_quiet(&self, nonce: &str, quiet: Duration, now: Instant) -> bool {
        self.homes.get(nonce).is_none_or(|home| home.is_quiet(quiet, now))
    }

    /// Forgets all sessions.
    pub(crate) fn clear(&self) {
        self.homes.clear();
    }

    /// Forgets a session.
    pub(crate) fn remove(&self, bridged: &Bridged) {
        self.homes.remove(&bridged.nonce);
    }
}

impl Home {
    fn new(bridged: Bridged, me: &str) -> Home {
        Home {
            mark: asked::mark(&bridged.nonce, me),
            bridged,
            level: Mutex::default(),
            stream: Mutex::default(),
            asks: Mutex::default(),
            next_ask: AtomicU64::new(1),
            calls: Mutex::default(),
            forwarders: Mutex::default(),
            watches: Mutex::default(),
            used: Mutex::new(Instant::now()),
        }
    }

    /// Whether the client said nothing for so long. One that listens, waits or is asked is there; its silence is
    /// counted from then on, because a stream that breaks is opened anew soon.
    fn is_quiet(&self, quiet: Duration, now: Instant) -> bool {
        if self.streams_to().is_some() || !lock(&self.calls).is_empty() || !lock(&self.asks).is_empty() {
            *lock(&self.used) = now;
        }
        now.saturating_duration_since(*lock(&self.used)) >= quiet
    }

    /// The log level that the client asked for.
    pub(crate) fn level(&self) -> Option<String> {
        lock(&self.level).clone()
    }

    pub(crate) fn set_level(&self, level: Option<String>) {
        *lock(&self.level) = level;
    }

    /// Opens the session's own stream; one that was open ends.
    pub(crate) fn open_stream(&self) -> mpsc::Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(STREAM_MESSAGES_MAX);
        *lock(&self.stream) = Some(sender);
        receiver
    }

    /// The session's own stream, when it is open.
    pub(crate) fn streams_to(&self) -> Option<mpsc::Sender<Bytes>> {
        lock(&self.stream).clone().filter(|stream| !stream.is_closed())
    }

    /// Whether a stream is still the session's own.
    pub(crate) fn is_stream(&self, stream: &mpsc::Sender<Bytes>) -> bool {
        lock(&self.stream).as_ref().is_some_and(|open| open.same_channel(stream))
    }

    /// Ends the session's own stream, if it is still this one.
    pub(crate) fn close_stream(&self, stream: &mpsc::Sender<Bytes>) {
        lock(&self.stream).take_if(|open| open.same_channel(stream));
    }

    /// Sends a message on the session's own stream, when one is open and keeps up.
    pub(crate) fn tell(&self, message: &[u8]) -> bool {
        self.streams_to().is_some_and(|stream| stream.try_send(event(message)).is_ok())
    }

    /// Asks the client, in the stream of a request or in the session's own, and waits for its response: the message.
    pub(crate) async fn ask(
        &self,
        outlet: Option<&Outlet>,
        method: &str,
        params: Option<&str>,
    ) -> Result<Bytes, AskError> {
        // Its own by the number, and never mistaken for a server's.
        let id = asked::id(&self.mark, self.next_ask.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        {
            let mut asks = lock(&self.asks);
            if asks.len() >= ASKS_MAX {
                return Err(AskError::TooMany);
            }
            asks.insert(id.clone(), sender);
        }
        let asked = Asked { home: self, id: &id };
        let params = params.map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
        let message = format!(r#"{{"jsonrpc":"2.0","id":{id},"method":{}{params}}}"#, quote(method));
        let sent = match outlet {
            Some(outlet) => outlet.send(message.clone().into()).await.is_ok(),
            None => false,
        };
        if !sent && !self.tell(message.as_bytes()) {
            return Err(AskError::Unreachable);
        }
        let answer = tokio::time::timeout(ASK_MAX, receiver).await;
        drop(asked);
        answer.map_err(|_| AskError::Late)?.map_err(|_| AskError::Late)
    }

    /// Takes the client's response; what was not asked is nothing.
    pub(crate) fn answer(&self, id: &[u8], message: Bytes) {
        let id = String::from_utf8_lossy(id);
        let waiting = lock(&self.asks).remove(id.as_ref());
        if let Some(waiting) = waiting {
            let _ = waiting.send(message);
        }
    }

    /// Notes a call by what cancels it, so that its client can.
    pub(crate) fn begin(&self, id: Bytes, token: CancellationToken) {
        lock(&self.calls).insert(id, token);
    }

    /// Forgets a call.
    pub(crate) fn end(&self, id: &Bytes) {
        lock(&self.calls).remove(id);
    }

    /// Cancels a call.
    pub(crate) fn cancel(&self, id: &Bytes) {
        if let Some(token) = lock(&self.calls).remove(id) {
            token.cancel();
        }
    }

    /// Keeps what brings the own messages of a server's session here; started when it is another session's.
    pub(crate) fn forward(
        &self,
        server: &ServerName,
        session: u64,
        start: impl FnOnce() -> AbortOnDropHandle<()>,
    ) {
        let mut forwarders = lock(&self.forwarders);
        if forwarders.get(server).is_none_or(|(running, _)| *running != session) {
            forwarders.insert(server.clone(), (session, start()));
        }
    }

    /// Keeps what watches a resource; `None` where the session has too many.
    pub(crate) fn watch(&self, uri: &str, start: impl FnOnce() -> AbortOnDropHandle<()>) -> Option<()> {
        let mut watches = lock(&self.watches);
        if watches.len() >= WATCHES_MAX && !watches.contains_key(uri) {
            return None;
        }
        watches.insert(uri.to_owned(), start());
        Some(())
    }

    /// Ends the watching of a resource.
    pub(crate) fn unwatch(&self, uri: &str) {
        lock(&self.watches).remove(uri);
    }
}

/// A question that waits; dropped, it is forgotten.
struct Asked<'a> {
    home: &'a Home,
    id: &'a str,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        lock(&self.home.asks).remove(self.id);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
