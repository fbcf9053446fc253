//! Sessions of the legacy era over Streamable HTTP (2025-03-26 to 2025-11-25).
//!
//! Always holds: the session's own stream (GET), where it is wanted and the server has one, is open before the first
//! request, because what a server asks in the middle of a call may come there. A 404 within a session means that the server forgot
//! it, and that it did nothing.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use hyper::body::Incoming;
use serde_json::value::RawValue;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::mcp::headers::{PROTOCOL_VERSION, SESSION_ID};
use crate::mcp::json;
use crate::rejection::Upstream;
use crate::upstream::exchange::{Ask, BodyEvents, Event, Exchange};
use crate::upstream::http::{HttpUpstream, Outbound};
use crate::upstream::router::Router;
use crate::upstream::session::{AskFailure, Carrier, INITIALIZED, Opened, Opening};

/// How long the session's own stream may take to open before requests are sent anyway.
const STREAM_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a server may hold a response while it asks: a person may have to answer. The call ends sooner.
const HELD_TIMEOUT: Duration = Duration::from_secs(24 * 60 * 60);
/// How long the end of a session may take; nobody waits for it.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a stream that breaks soon is opened again.
const REOPENINGS_MAX: u32 = 10;
/// A stream that lived so long was sound: many servers and proxies cut one that is silent for a minute.
const SOUND_AFTER: Duration = Duration::from_secs(20);
/// Pause before a stream that broke is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const ANY: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A session over Streamable HTTP.
pub(crate) struct HttpSession {
    wire: Arc<Wire>,
    router: Arc<Router>,
    /// Reads the session's own stream; `None` where it is not wanted, or where the server has no session.
    _listening: Option<AbortOnDropHandle<()>>,
}

struct Wire {
    http: HttpUpstream,
    uri: Uri,
    /// The session, its version and the credential.
    headers: HeaderMap,
    timeout: Duration,
    over: CancellationToken,
}

impl HttpSession {
    /// Opens a session: `initialize`, `notifications/initialized`, and the session's own stream.
    pub(crate) async fn open(http: &HttpUpstream, uri: &Uri, opening: &Opening) -> Result<Opened, Upstream> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = &opening.credential {
            headers.insert(name, value.clone());
        }
        let over = CancellationToken::new();
        let mut wire = Wire { http: http.clone(), uri: uri.clone(), headers, timeout: opening.timeout, over };
        let response = wire.post(opening.initialize(), opening.timeout).await?;
        let status = response.status();
        check(status)?;
        let session = response.headers().get(SESSION_ID).cloned();
        let answer = tokio::time::timeout(opening.timeout, async {
            Exchange::of_response(response, None).await?.answer().await
        });
        let answer = answer.await.map_err(|_| Upstream::Timeout(opening.timeout))??;
        let initialized = Opening::read_answer(&answer).ok_or_else(|| refusal(status))?;
        if let Some(version) = version_of(&initialized) {
            wire.headers.insert(PROTOCOL_VERSION, version);
        }
        let listens = opening.listens && session.is_some();
        wire.headers.extend(session.map(|session| (SESSION_ID, session)));
        let (router, unbound) = Router::new();
        let (wire, router) = (Arc::new(wire), Arc::new(router));
        wire.post(INITIALIZED, opening.timeout).await?;
        let listening = match listens {
            true => Some(listen(&wire, &router).await),
            false => None,
        };
        let carrier = Carrier::Http(HttpSession { wire, router, _listening: listening });
        Ok(Opened { carrier, initialized, unbound })
    }

    /// Sends a request. Where the server asks something by the session's own stream before it responds, this returns
    /// then: many servers hold a response of JSON until they were answered.
    pub(crate) async fn ask(&self, ask: &Ask, timeout: Duration) -> Result<Exchange, AskFailure> {
        let mut side = self.router.open(ask.id).map_err(|_| Upstream::Busy)?;
        let mut response = Box::pin(self.wire.clone().respond(ask.body.clone()));
        let began = tokio::time::timeout(timeout, async {
            tokio::select! {
                biased;
                responded = &mut response => Began::Responded(responded),
                Some(event) = side.recv() => Began::Asked(event),
            }
        });
        match began.await {
            Ok(Began::Responded(Ok(responded))) => Ok(Exchange::of_response(responded, Some(side)).await?),
            Ok(Began::Asked(early)) => Ok(Exchange::of_pending(early, side, async move {
                let responded = response.await.map_err(|failure| match failure {
                    // It forgot the session after it had begun to work on the request.
                    AskFailure::Expired => Upstream::Unreachable,
                    AskFailure::Failed(failure) => failure,
                })?;
                Exchange::of_response(responded, None).await
            })),
            failed => {
                self.router.close(ask.id);
                match failed {
                    Ok(Began::Responded(Err(failure))) => Err(failure),
                    _ => Err(Upstream::Timeout(timeout).into()),
                }
            }
        }
    }

    pub(crate) async fn tell(&self, message: Bytes) -> Result<(), AskFailure> {
        let response = self.wire.post(message, self.wire.timeout).await?;
        match response.status() {
            StatusCode::NOT_FOUND if self.has_session() => {
                self.wire.over.cancel();
                Err(AskFailure::Expired)
            }
            status => Ok(check(status)?),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.wire.over.is_cancelled()
    }

    /// Waits until the session is known to be over.
    pub(crate) async fn ended(&self) {
        self.wire.over.cancelled().await;
    }

    pub(crate) async fn close(&self) {
        if self.has_session() && !self.is_over() {
            self.wire.over.cancel();
            let _ = self.wire.send(Method::DELETE, ANY, Bytes::new(), CLOSE_TIMEOUT).await;
        }
    }

    fn has_session(&self) -> bool {
        self.wire.has_session()
    }
}

/// What came first of a request.
enum Began {
    Responded(Result<Response<Incoming>, AskFailure>),
    Asked(Event),
}

impl Wire {
    fn has_session(&self) -> bool {
        self.headers.contains_key(SESSION_ID)
    }

    /// Sends a request and waits for the head of its response, until whoever waits goes away.
    async fn respond(self: Arc<Self>, body: Bytes) -> Result<Response<Incoming>, AskFailure> {
        let response = self.post(body, HELD_TIMEOUT).await?;
        if response.status() == StatusCode::NOT_FOUND && self.has_session() {
            self.over.cancel();
            return Err(AskFailure::Expired);
        }
        check(response.status())?;
        Ok(response)
    }

    async fn post(&self, body: Bytes, timeout: Duration) -> Result<Response<Incoming>, Upstream> {
        self.send(Method::POST, ANY, body, timeout).await
    }

    async fn send(
        &self,
        method: Method,
        accept: HeaderValue,
        body: Bytes,
        timeout: Duration,
    ) -> Result<Response<Incoming>, Upstream> {
        let mut headers = self.headers.clone();
        headers.insert(ACCEPT, accept);
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, JSON);
        }
        self.http.send(Outbound { uri: &self.uri, method, headers, body, timeout }).await
    }
}

/// Opens the session's own stream and keeps it open, within bounds. Returns when the server answered the first time.
async fn listen(wire: &Arc<Wire>, router: &Arc<Router>) -> AbortOnDropHandle<()> {
    let (opened, timeout) = (CancellationToken::new(), wire.timeout);
    let (wire, router, first) = (wire.clone(), router.clone(), opened.clone().drop_guard());
    let task = tokio::spawn(async move {
        let mut first = Some(first);
        let (mut was_open, mut reopenings) = (false, 0);
        while reopenings < REOPENINGS_MAX {
            let asked = Instant::now();
            // The stream stays silent as long as the server has nothing to say; only its head has a deadline.
            let response = wire.send(Method::GET, EVENT_STREAM, Bytes::new(), wire.timeout).await;
            first.take();
            match response {
                Ok(response) if response.status().is_success() => deliver(response, &router).await,
                // The server forgot the session. Where there was no stream yet, it may have none to give.
                Ok(response) if was_open && response.status() == StatusCode::NOT_FOUND => {
                    return wire.over.cancel();
                }
                // 405: the server has no such stream. Anything else is no better.
                _ => return,
            }
            was_open = true;
            reopenings = if asked.elapsed() < SOUND_AFTER { reopenings + 1 } else { 0 };
            tokio::time::sleep(REOPEN_PAUSE).await;
        }
    });
    // Half at most, so that a server that is silent here does not use up the time of the whole opening.
    let wait = STREAM_TIMEOUT.min(timeout / 2);
    let _ = tokio::time::timeout(wait, opened.cancelled()).await;
    AbortOnDropHandle::new(task)
}

async fn deliver(response: Response<Incoming>, router: &Router) {
    let mut events = BodyEvents::new(response.into_body());
    while let Some(Ok(event)) = events.next().await {
        let (Event::Notification(message) | Event::Request { message, .. } | Event::Answer(message)) = event;
        router.deliver(&message);
    }
}

/// What an answer to `initialize` without a result says. With a 4xx, the server may speak another transport.
fn refusal(status: StatusCode) -> Upstream {
    if status.is_success() { Upstream::Protocol } else { Upstream::Status(status) }
}

fn version_of(initialized: &Bytes) -> Option<HeaderValue> {
    let [version] = json::fields(std::str::from_utf8(initialized).ok()?, &["protocolVersion"]).ok()?;
    let version: String = serde_json::from_str(version.map(RawValue::get)?).ok()?;
    HeaderValue::from_str(&version).ok()
}

/// Statuses that a session's messages may be answered with; an error of JSON-RPC may come with 400 or 404.
pub(crate) fn check(status: StatusCode) -> Result<(), Upstream> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(Upstream::Refused(status)),
        _ if status.is_server_error() || status.is_redirection() || status.is_informational() => {
            Err(Upstream::Status(status))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
