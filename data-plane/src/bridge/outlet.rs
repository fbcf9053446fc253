//! The client's side of a bridged request: messages, the last of which is the response, as JSON or as events.
//!
//! Always holds: what is answered with one message is JSON; a stream begins only when something else comes first,
//! and only for a client that takes one. A stream ends with the response, or when the client leaves.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Response, StatusCode};
use tokio::sync::mpsc;

use crate::mcp::Era;
use crate::mcp::message::Id;
use crate::mcp::object::Object;
use crate::rejection::{Context, Rejection, Upstream};
use crate::reply::{Body, event};

/// Messages that may wait for a slow client; whoever sends waits with them.
const MESSAGES_MAX: usize = 16;

/// How long a client that takes nothing is waited for. It is as one that left then.
const STALL_MAX: Duration = Duration::from_secs(30);

/// What goes to the client.
enum Item {
    Message(Bytes),
    Last(Bytes),
    Failed(Rejection),
}

/// What a rejection in the middle of a stream is told with.
pub(crate) struct Answering {
    pub(crate) id: Id,
    pub(crate) era: Era,
    pub(crate) decision_id: String,
}

/// Where a request's messages go.
#[derive(Clone)]
pub(crate) struct Outlet {
    sender: mpsc::Sender<Item>,
    streams: bool,
}

/// Where they come out.
pub(crate) struct Outcome {
    receiver: mpsc::Receiver<Item>,
    answering: Answering,
}

/// The client left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left;

impl Outlet {
    /// An outlet for the client of a request.
    pub(crate) fn new(headers: &HeaderMap, answering: Answering) -> (Outlet, Outcome) {
        let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let mut accepted = accepted.peekable();
        let streams = accepted.peek().is_none()
            || accepted.any(|value| value.contains("text/event-stream") || value.contains("*/*"));
        let (sender, receiver) = mpsc::channel(MESSAGES_MAX);
        (Outlet { sender, streams }, Outcome { receiver, answering })
    }

    /// Sends a message that is not the response; one that the client does not take is as one that it left before.
    pub(crate) async fn send(&self, message: Bytes) -> Result<(), Left> {
        if !self.streams {
            return Err(Left);
        }
        self.sender.send_timeout(Item::Message(message), STALL_MAX).await.map_err(|_| Left)
    }

    /// Sends the response.
    pub(crate) async fn finish(&self, message: Bytes) -> Result<(), Left> {
        self.sender.send_timeout(Item::Last(message), STALL_MAX).await.map_err(|_| Left)
    }

    /// Says why there is no response.
    pub(crate) async fn fail(&self, rejection: Rejection) {
        // A client that left needs no reason.
        let _ = self.sender.send_timeout(Item::Failed(rejection), STALL_MAX).await;
    }

    /// Resolves when the client left.
    pub(crate) async fn left(&self) {
        self.sender.closed().await;
    }
}

impl Outcome {
    /// The answer, as soon as its form is known.
    pub(crate) async fn respond(mut self) -> Result<Response<Body>, Rejection> {
        match self.receiver.recv().await {
            Some(Item::Last(message)) => {
                let status = status_of(&message, self.answering.era);
                let mut response = json(message);
                *response.status_mut() = status;
                Ok(response)
            }
            Some(Item::Message(message)) => Ok(self.stream(message)),
            Some(Item::Failed(rejection)) => Err(rejection),
            None => Err(Rejection::Upstream(Upstream::Unreachable)),
        }
    }

    fn stream(mut self, first: Bytes) -> Response<Body> {
        let (events, body) = mpsc::channel(MESSAGES_MAX);
        tokio::spawn(async move {
            if events.send(event(&first)).await.is_err() {
                return;
            }
            // The client's leaving is seen by whoever sends into the outlet, because the receiver goes with this.
            while let Some(Some(item)) = or_closed(&events, self.receiver.recv()).await {
                let is_last = !matches!(item, Item::Message(_));
                let message = match item {
                    Item::Message(message) | Item::Last(message) => message,
                    Item::Failed(rejection) => {
                        let Answering { id, era, decision_id } = &self.answering;
                        rejection.message_for(Context { id: Some(id), era: *era, decision_id })
                    }
                };
                if events.send(event(&message)).await.is_err() || is_last {
                    return;
                }
            }
        });
        stream(body)
    }
}

/// Errors of the request itself have a status of HTTP in the modern era (`basic/transports/streamable-http`).
fn status_of(message: &[u8], era: Era) -> StatusCode {
    if era == Era::Legacy || memchr::memmem::find(message, b"\"error\"").is_none() {
        return StatusCode::OK;
    }
    let text = std::str::from_utf8(message).unwrap_or("{}");
    match Object::parse(text).unwrap_or_default().object("error").get("code") {
        Some("-32601") => StatusCode::NOT_FOUND,
        Some("-32700" | "-32600" | "-32020" | "-32021" | "-32022") => StatusCode::BAD_REQUEST,
        _ => StatusCode::OK,
    }
}

async fn or_closed<T>(events: &mpsc::Sender<Bytes>, next: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        item = next => Some(item),
        () = events.closed() => None,
    }
}

/// A response that is whole.
pub(crate) fn json(message: Bytes) -> Response<Body> {
    let mut response = Response::new(Body::full(message));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A response of events, which are made already.
pub(crate) fn stream(events: mpsc::Receiver<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::events(events));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A response without a body.
pub(crate) fn accepted() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::ACCEPTED;
    response
}
