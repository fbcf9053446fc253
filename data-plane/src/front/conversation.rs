//! One client's messages over one connection that stays, in both directions.
//!
//! Always holds: at most [`REQUESTS_MAX`] requests of it are in the pipeline, and at most [`TASKS_MAX`] messages are
//! taken before some are done. A client of the legacy era has one session, which is the connection: its id is
//! remembered here, its own stream is open from `notifications/initialized` on, and it ends with the connection. When
//! the client leaves, everything under way for it is dropped. A key that is no longer good ends the conversation with
//! the first message that shows it.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderValue, WWW_AUTHENTICATE};
use http::{Method, Response, StatusCode};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::replies::{Asked, Replies};
use super::{Credentials, Place, Posted};
use crate::mcp::Era;
use crate::mcp::headers::{self, PROTOCOL_VERSION, SESSION_ID};
use crate::mcp::json;
use crate::mcp::message::{Id, Kind, Message, Method as Called};
use crate::pipeline::{self, Front, Inbound, Standing};
use crate::reply::Body;

/// Requests of one connection in the pipeline at once; more wait. An agent has a handful.
const REQUESTS_MAX: usize = 64;
/// Messages taken and not done: twice that, so that answers and cancellations reach requests that wait for them.
const TASKS_MAX: usize = 2 * REQUESTS_MAX;
/// How long the session's own stream may take to open before later messages are served.
const OPENING_TIMEOUT: Duration = Duration::from_secs(2);
/// How often that stream is opened again after it broke.
const REOPENINGS_MAX: u32 = 10;
/// Pause before.
const REOPENING_PAUSE: Duration = Duration::from_millis(500);
/// How long requests under way may go on when the node stops; less than the listener waits.
const DRAIN_DEADLINE: Duration = Duration::from_secs(8);
/// How long the end of the session may take; nobody waits for it.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

const INITIALIZED: &str = "notifications/initialized";
const CANCELLED: &str = "notifications/cancelled";

/// Why a conversation is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The client left.
    Left,
    /// What its client showed is no longer good.
    Refused,
    /// The node goes down.
    Stopped,
}

/// A conversation under way.
pub(super) struct Conversation {
    line: Arc<Line>,
    places: Arc<Semaphore>,
    tasks: JoinSet<bool>,
    under_way: HashMap<tokio::task::Id, UnderWay>,
    /// Reads the session's own stream.
    listening: Option<AbortOnDropHandle<()>>,
    latest: Option<Credentials>,
}

/// A request that is not answered yet.
struct UnderWay {
    id: Id,
    era: Era,
    task: AbortHandle,
}

/// What all tasks of a conversation share.
struct Line {
    place: Place,
    out: mpsc::Sender<Bytes>,
    session: Mutex<Session>,
    /// Its own stream was refused.
    refused: CancellationToken,
}

/// The legacy session, once there is one.
#[derive(Clone, Default)]
struct Session {
    id: Option<HeaderValue>,
    version: Option<HeaderValue>,
}

impl Conversation {
    /// A conversation whose messages to the client go `out`.
    pub(super) fn new(place: Place, out: mpsc::Sender<Bytes>) -> Conversation {
        Conversation {
            line: Arc::new(Line { place, out, session: Mutex::default(), refused: CancellationToken::new() }),
            places: Arc::new(Semaphore::new(REQUESTS_MAX)),
            tasks: JoinSet::new(),
            under_way: HashMap::new(),
            listening: None,
            latest: None,
        }
    }

    /// Serves messages until the client leaves, `incoming` ends or nobody reads what goes out, and no longer than whoever
    /// began it is let in.
    pub(super) async fn run(
        mut self,
        standing: Standing,
        mut incoming: mpsc::Receiver<Posted>,
        stop: &CancellationToken,
    ) -> End {
        let (cut, mut leash) = (self.line.place.cut(), self.line.place.leash());
        let mut lapse = pin!(standing.lapse());
        let end = loop {
            tokio::select! {
                biased;
                () = self.line.out.closed() => break End::Left,
                Some(done) = self.tasks.join_next_with_id() => {
                    if self.note(done) {
                        break End::Refused;
                    }
                }
                () = cut.cancelled() => break End::Refused,
                _ = &mut leash => break End::Refused,
                _ = &mut lapse => break End::Refused,
                () = self.line.refused.cancelled() => break End::Refused,
                () = stop.cancelled() => break End::Stopped,
                posted = incoming.recv(), if self.tasks.len() < TASKS_MAX => match posted {
                    Some(posted) => self.take(posted).await,
                    None => break End::Left,
                },
            }
        };
        if end == End::Stopped {
            let drain = async { while self.tasks.join_next().await.is_some() {} };
            tokio::select! {
                _ = tokio::time::timeout(DRAIN_DEADLINE, drain) => {}
                () = self.line.out.closed() => {}
            }
        }
        self.tasks.shutdown().await;
        self.listening = None;
        if end != End::Refused {
            self.farewell().await;
        }
        end
    }

    /// Forgets a task that is done. Returns whether it was refused its caller.
    fn note(&mut self, done: Result<(tokio::task::Id, bool), tokio::task::JoinError>) -> bool {
        match done {
            Ok((task, refused)) => {
                self.under_way.remove(&task);
                refused
            }
            Err(error) => {
                self.under_way.remove(&error.id());
                if error.is_panic() {
                    tracing::error!("a message's task panicked");
                }
                false
            }
        }
    }

    async fn take(&mut self, posted: Posted) {
        self.latest = Some(posted.credentials.clone());
        let kind = Message::parse(posted.message.clone()).ok().map(|message| message.kind);
        match &kind {
            Some(Kind::Notification { method, .. }) if method.as_str() == INITIALIZED => {
                let credentials = posted.credentials.clone();
                // Later messages may rest on it.
                self.line.pass(posted, None, false).await;
                self.listen(credentials).await;
            }
            Some(Kind::Notification { method, .. })
                if method.as_str() == CANCELLED && self.cancel(&posted.message) => {}
            Some(Kind::Notification { .. } | Kind::Response { .. }) => {
                let line = self.line.clone();
                self.tasks.spawn(async move { line.pass(posted, None, false).await });
            }
            Some(kind @ Kind::Request { id, method, .. }) => {
                let era = headers::era_of(&http::HeaderMap::new(), kind);
                let asked = Asked { id: Some(id.clone()), era };
                let initializes = *method == Called::Initialize;
                let task = self.request(posted, asked, initializes);
                self.under_way.insert(task.id(), UnderWay { id: id.clone(), era, task });
            }
            // The pipeline says, and records, what is wrong with it.
            None => {
                self.request(posted, Asked { id: None, era: Era::Legacy }, false);
            }
        }
    }

    fn request(&mut self, posted: Posted, asked: Asked, initializes: bool) -> AbortHandle {
        let (line, places) = (self.line.clone(), self.places.clone());
        self.tasks.spawn(async move {
            // The semaphore is never closed.
            let _place = places.acquire().await;
            line.pass(posted, Some(asked), initializes).await
        })
    }

    /// Drops the request of the modern era that a notification cancels. What it says of others is for their server.
    fn cancel(&self, message: &Bytes) -> bool {
        let Some(id) = cancelled_id(message) else { return false };
        let mut found = self.under_way.values().filter(|request| request.id == id);
        match found.next() {
            Some(request) if request.era == Era::Modern => {
                request.task.abort();
                true
            }
            Some(_) => false,
            // It was answered meanwhile; without a session nobody else could know it.
            None => self.line.session().id.is_none(),
        }
    }

    /// Opens the session's own stream, and waits a moment until it is open: a server may ask by it within a call.
    async fn listen(&mut self, credentials: Credentials) {
        if self.line.session().id.is_none() {
            return;
        }
        let (opened, opening) = oneshot::channel();
        let line = self.line.clone();
        let task = tokio::spawn(async move { line.listen(credentials, opened).await });
        self.listening = Some(AbortOnDropHandle::new(task));
        let _ = tokio::time::timeout(OPENING_TIMEOUT, opening).await;
    }

    /// Ends the session.
    async fn farewell(&self) {
        let (Some(credentials), Some(_)) = (&self.latest, self.line.session().id) else { return };
        let bye = async {
            let response = self.line.serve(Method::DELETE, credentials, Bytes::new()).await;
            let mut replies = Replies::of(response, None);
            while replies.next().await.is_some() {}
        };
        // Sessions end by themselves, too.
        let _ = tokio::time::timeout(FAREWELL_TIMEOUT, bye).await;
    }
}

impl Line {
    fn session(&self) -> Session {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn remember(&self, change: impl FnOnce(&mut Session)) {
        change(&mut self.session.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn serve(&self, method: Method, credentials: &Credentials, message: Bytes) -> Response<Body> {
        let mut request = credentials.head(method);
        let session = self.session();
        request.headers_mut().extend(session.id.map(|value| (SESSION_ID, value)));
        request.headers_mut().extend(session.version.map(|value| (PROTOCOL_VERSION, value)));
        request.extensions_mut().insert(Front::Message);
        let (head, ()) = request.into_parts();
        pipeline::serve(&self.place.node, self.place.path(), head, Inbound::of_message(message)).await
    }

    /// Passes one message through the pipeline, and what comes of it to the client. Returns whether the caller is no
    /// longer known.
    async fn pass(&self, posted: Posted, asked: Option<Asked>, initializes: bool) -> bool {
        if initializes {
            self.remember(|session| *session = Session::default());
        }
        let response = self.serve(Method::POST, &posted.credentials, posted.message).await;
        let refused = is_refused(&response);
        if initializes {
            let id = response.headers().get(SESSION_ID).cloned();
            self.remember(|session| *session = Session { id, version: None });
        }
        let mut replies = Replies::of(response, asked);
        while let Some(message) = replies.next().await {
            if initializes && let Some(version) = agreed_version(&message) {
                self.remember(|session| session.version = Some(version));
            }
            if self.out.send(message).await.is_err() {
                break;
            }
        }
        refused
    }

    async fn listen(&self, credentials: Credentials, opened: oneshot::Sender<()>) {
        let mut opened = Some(opened);
        for _ in 0..REOPENINGS_MAX {
            let response = self.serve(Method::GET, &credentials, Bytes::new()).await;
            opened.take();
            if is_refused(&response) {
                return self.refused.cancel();
            }
            let has_stream = response.status().is_success();
            let mut replies = Replies::of(response, None);
            while let Some(message) = replies.next().await {
                if self.out.send(message).await.is_err() {
                    return;
                }
            }
            // Many servers have none.
            if !has_stream {
                return;
            }
            tokio::time::sleep(REOPENING_PAUSE).await;
        }
    }
}

/// Whether the caller is not known any more, or was stopped. Who is asked to come back with more scopes is neither: that is a
/// 403 with a challenge.
fn is_refused(response: &Response<Body>) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => !response.headers().contains_key(WWW_AUTHENTICATE),
        _ => false,
    }
}

/// The version that the answer to `initialize` agrees on.
fn agreed_version(message: &Bytes) -> Option<HeaderValue> {
    let [result] = json::fields(std::str::from_utf8(message).ok()?, &["result"]).ok()?;
    let [version] = json::fields(result?.get(), &["protocolVersion"]).ok()?;
    let version: String = serde_json::from_str(version?.get()).ok()?;
    HeaderValue::from_str(&version).ok()
}

/// Which request a notification cancels.
fn cancelled_id(message: &Bytes) -> Option<Id> {
    let [params] = json::fields(std::str::from_utf8(message).ok()?, &["params"]).ok()?;
    let [id] = json::fields(params?.get(), &["requestId"]).ok()?;
    Some(Id(message.slice_ref(id?.get().as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_conversation_looks_for_is_found_and_nothing_else() {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        let answer = bytes(r#"{"id":1,"result":{"protocolVersion":"2025-06-18"}}"#);
        assert_eq!(agreed_version(&answer), Some(HeaderValue::from_static("2025-06-18")));
        assert_eq!(agreed_version(&bytes(r#"{"method":"notifications/x"}"#)), None);
        let cancelled = bytes(r#"{"method":"notifications/cancelled","params":{"requestId":"a"}}"#);
        assert_eq!(cancelled_id(&cancelled), Some(Id(bytes("\"a\""))));
        assert_eq!(cancelled_id(&bytes(r#"{"method":"notifications/cancelled"}"#)), None);
    }
}
