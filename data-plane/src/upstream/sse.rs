//! Sessions of the legacy era over HTTP+SSE (2024-11-05): one stream from the server, and a URL that it names there
//! for what goes to it.
//!
//! Always holds: messages go to the origin of the server's own URL, whatever the stream says, because they carry the
//! server's credential; everything that the server says comes by the stream; the session is over when the stream is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use url::Url;

use crate::mcp::sse::EventScanner;
use crate::rejection::Upstream;
use crate::upstream::exchange::{Ask, Event, Exchange, MESSAGE_BYTES_MAX, read_messages};
use crate::upstream::http::{HttpUpstream, Outbound};
use crate::upstream::legacy::check;
use crate::upstream::router::Router;
use crate::upstream::session::{AskFailure, Carrier, INITIALIZED, Opened, Opening};

/// Bytes of the answer to a POST that are read, so that its connection can be used again: they say `Accepted`.
const RECEIPT_BYTES_MAX: usize = 64 * 1024;
/// How long such an answer may take to end after its head.
const RECEIPT_TIMEOUT: Duration = Duration::from_secs(1);
/// Events that may come before the one that names the endpoint, which the revision demands to be the first.
const PREAMBLE_MAX: usize = 16;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");

/// A session over HTTP+SSE.
pub(crate) struct SseSession {
    http: HttpUpstream,
    /// Where messages go.
    endpoint: Uri,
    /// The credential.
    headers: HeaderMap,
    timeout: Duration,
    router: Arc<Router>,
    over: CancellationToken,
    _listening: AbortOnDropHandle<()>,
}

/// Why messages are not sent where the stream says.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum EndpointError {
    #[error("it is no URL")]
    Malformed,
    #[error("it has a user or password")]
    UserInfo,
    /// Another scheme, host or port.
    #[error("it is of {0}, which is not the origin of the server's URL")]
    Foreign(String),
}

impl SseSession {
    /// Opens a session: the stream, the endpoint that it names, `initialize`, `notifications/initialized`.
    pub(crate) async fn open(http: &HttpUpstream, uri: &Uri, opening: &Opening) -> Result<Opened, Upstream> {
        let mut headers = HeaderMap::new();
        if let Some((name, value)) = &opening.credential {
            headers.insert(name, value.clone());
        }
        let mut events = StreamEvents::open(http, uri, &headers, opening.timeout).await?;
        let named = tokio::time::timeout(opening.timeout, events.endpoint()).await;
        let named = named.map_err(|_| Upstream::Timeout(opening.timeout))??;
        let endpoint = resolve(uri, &named).map_err(|error| {
            tracing::warn!(%uri, %error, "the endpoint that the server names is refused");
            Upstream::Protocol
        })?;
        let (router, unbound) = Router::new();
        let (router, over) = (Arc::new(router), CancellationToken::new());
        let listening = tokio::spawn(listen(events, router.clone(), over.clone()));
        let session = SseSession {
            http: http.clone(),
            endpoint,
            headers,
            timeout: opening.timeout,
            router,
            over,
            _listening: AbortOnDropHandle::new(listening),
        };
        let initialized = session.initialize(opening).await?;
        Ok(Opened { carrier: Carrier::Sse(Box::new(session)), initialized, unbound })
    }

    pub(crate) async fn ask(&self, ask: &Ask, timeout: Duration) -> Result<Exchange, AskFailure> {
        let events = self.router.open(ask.id).map_err(|_| Upstream::Busy)?;
        // Looked at after the queue stands: a stream that ends from now on ends the queue too.
        if self.is_over() {
            self.router.close(ask.id);
            return Err(AskFailure::Expired);
        }
        self.post(ask.body.clone(), timeout).await.inspect_err(|_| self.router.close(ask.id))?;
        Ok(Exchange::of_queue(events))
    }

    pub(crate) async fn tell(&self, message: Bytes) -> Result<(), AskFailure> {
        if self.is_over() {
            return Err(AskFailure::Expired);
        }
        self.post(message, self.timeout).await
    }

    pub(crate) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Waits until the session is over.
    pub(crate) async fn ended(&self) {
        self.over.cancelled().await;
    }

    /// The server learns of it by the stream, which is closed.
    pub(crate) fn close(&self) {
        self.over.cancel();
    }

    async fn initialize(&self, opening: &Opening) -> Result<Bytes, Upstream> {
        let failed = |failure| match failure {
            AskFailure::Expired => Upstream::Unreachable,
            AskFailure::Failed(failure) => failure,
        };
        // 0 is the id of `initialize`.
        let answer = self.router.open(0).map_err(|_| Upstream::Busy)?;
        self.post(opening.initialize(), opening.timeout).await.map_err(failed)?;
        let answer = tokio::time::timeout(opening.timeout, Exchange::of_queue(answer).answer()).await;
        let answer = answer.map_err(|_| Upstream::Timeout(opening.timeout))??;
        let initialized = Opening::read_answer(&answer).ok_or(Upstream::Protocol)?;
        self.tell(INITIALIZED).await.map_err(failed)?;
        Ok(initialized)
    }

    async fn post(&self, body: Bytes, timeout: Duration) -> Result<(), AskFailure> {
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, JSON);
        let outbound = Outbound { uri: &self.endpoint, method: Method::POST, headers, body, timeout };
        let response = self.http.send(outbound).await?;
        let status = response.status();
        let receipt = Limited::new(response.into_body(), RECEIPT_BYTES_MAX).collect();
        // What it says has no meaning; a receipt that is late or too long costs a connection.
        let _ = tokio::time::timeout(RECEIPT_TIMEOUT, receipt).await;
        match status {
            StatusCode::NOT_FOUND => {
                self.over.cancel();
                Err(AskFailure::Expired)
            }
            // The answer itself comes by the stream, so nothing else can be meant.
            _ if status.is_success() => Ok(()),
            _ => Err(check(status).err().unwrap_or(Upstream::Status(status)).into()),
        }
    }
}

/// Brings what the stream says to whom it concerns, until it ends.
async fn listen(mut events: StreamEvents, router: Arc<Router>, over: CancellationToken) {
    let delivering = async {
        while let Ok(message) = events.message().await {
            router.deliver(&message);
        }
    };
    over.run_until_cancelled(delivering).await;
    // In this order: whoever opens a request meanwhile sees that the session is over.
    over.cancel();
    router.end_all();
}

/// What a session's stream says.
struct StreamEvents {
    body: Incoming,
    scanner: EventScanner,
    ready: VecDeque<Said>,
}

enum Said {
    Endpoint(String),
    Message(Bytes),
}

impl StreamEvents {
    async fn open(
        http: &HttpUpstream,
        uri: &Uri,
        credential: &HeaderMap,
        timeout: Duration,
    ) -> Result<StreamEvents, Upstream> {
        let mut headers = credential.clone();
        headers.insert(ACCEPT, EVENT_STREAM);
        let outbound = Outbound { uri, method: Method::GET, headers, body: Bytes::new(), timeout };
        let response = http.send(outbound).await?;
        let status = response.status();
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match content_type.is_some_and(|value| value.starts_with("text/event-stream")) {
            true if status.is_success() => {}
            false if status.is_success() => return Err(Upstream::Protocol),
            true | false => return Err(check(status).err().unwrap_or(Upstream::Status(status))),
        }
        let scanner = EventScanner::with_limit(MESSAGE_BYTES_MAX);
        Ok(StreamEvents { body: response.into_body(), scanner, ready: VecDeque::new() })
    }

    /// The endpoint that the stream names.
    async fn endpoint(&mut self) -> Result<String, Upstream> {
        for _ in 0..PREAMBLE_MAX {
            match self.next().await? {
                Said::Endpoint(endpoint) => return Ok(endpoint),
                Said::Message(_) => {}
            }
        }
        Err(Upstream::Protocol)
    }

    /// The next message. The endpoint stays what it was, also where it is named again.
    async fn message(&mut self) -> Result<Bytes, Upstream> {
        loop {
            if let Said::Message(message) = self.next().await? {
                return Ok(message);
            }
        }
    }

    async fn next(&mut self) -> Result<Said, Upstream> {
        loop {
            if let Some(said) = self.ready.pop_front() {
                return Ok(said);
            }
            let Some(Ok(frame)) = self.body.frame().await else { return Err(Upstream::Unreachable) };
            if let Some(bytes) = frame.data_ref() {
                let ready = &mut self.ready;
                self.scanner.scan_named(bytes, |name, data| match name {
                    b"endpoint" => {
                        ready.push_back(Said::Endpoint(String::from_utf8_lossy(data).into_owned()))
                    }
                    _ => read_said(data, ready),
                });
            }
        }
    }
}

fn read_said(data: &[u8], ready: &mut VecDeque<Said>) {
    let mut events = VecDeque::new();
    read_messages(&Bytes::copy_from_slice(data), &mut events);
    ready.extend(events.into_iter().map(|event| {
        let (Event::Notification(message) | Event::Request { message, .. } | Event::Answer(message)) = event;
        Said::Message(message)
    }));
}

/// Where messages go: the endpoint as the stream names it, seen from the stream's own URL. Scheme, host and port are
/// those of the server's URL by construction, and compared besides, so that a server that names another is refused.
fn resolve(stream: &Uri, named: &str) -> Result<Uri, EndpointError> {
    let base = Url::parse(&stream.to_string()).map_err(|_| EndpointError::Malformed)?;
    let endpoint = base.join(named).map_err(|_| EndpointError::Malformed)?;
    if endpoint.origin() != base.origin() {
        return Err(EndpointError::Foreign(endpoint.origin().ascii_serialization()));
    }
    if !endpoint.username().is_empty() || endpoint.password().is_some() {
        return Err(EndpointError::UserInfo);
    }
    let target = match endpoint.query() {
        Some(query) => format!("{}?{query}", endpoint.path()),
        None => endpoint.path().to_owned(),
    };
    let mut parts = stream.clone().into_parts();
    parts.path_and_query = Some(target.try_into().map_err(|_| EndpointError::Malformed)?);
    Uri::from_parts(parts).map_err(|_| EndpointError::Malformed)
}

#[cfg(test)]
mod tests;
