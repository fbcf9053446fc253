//! Receiving: the body of an authenticated request, bounded in size and time, read as one message.
//!
//! Always holds: nothing larger than [`REQUEST_BODY_MAX`] is kept, and nothing slower than [`BODY_DEADLINE`] waited
//! for; of a body that is not wanted, at most [`DISCARDED_MAX`] bytes are read and none kept; the era is a fact of the client's hop and is decided here, once.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, EXPECT, HeaderMap};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use super::authenticate::Authenticated;
use super::{Answering, Caller, ClientSession, Received, now_seconds};
use crate::bridge::handoff::Handoff;
use crate::mcp::headers::{self, PROTOCOL_VERSION, SESSION_ID};
use crate::mcp::message::{Kind, Message, MessageError, Method};
use crate::mcp::session::Session;
use crate::mcp::{Era, VERSIONS_LEGACY};
use crate::node::Node;
use crate::rejection::Rejection;

/// Most bytes of a request: arguments are written by a model and rarely reach a hundredth of it.
pub(crate) const REQUEST_BODY_MAX: usize = 4 * 1024 * 1024;
/// How long a body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(30);
/// Most bytes of a refused body that are read and thrown away: a few times what is taken, for clients that do not know
/// the bound. Beyond, the connection is closed on them.
const DISCARDED_MAX: usize = 4 * REQUEST_BODY_MAX;
/// How long that may take. The request has been answered and recorded; only its connection waits.
const DISCARD_DEADLINE: Duration = Duration::from_secs(10);

/// The body of a request, as far as it has not been read.
pub(crate) struct Inbound {
    body: Source,
    /// Whether its client sends it, or waits to be asked for it, or takes too long.
    comes: bool,
    /// What reading it came to, when it was read before its stage.
    gathered: Option<Result<Bytes, Rejection>>,
}

/// How a message came in. A front that is no HTTP puts it among the extensions of the head that it makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Front {
    /// As a request of its own.
    #[default]
    Http,
    /// Over a connection that carries messages without heads: what a head would repeat is taken from the message.
    Message,
}

pub(super) async fn receive(
    node: &Node,
    authenticated: &Authenticated,
    head: Parts,
    inbound: &mut Inbound,
    answering: &mut Answering,
) -> Result<Received, Rejection> {
    let Parts { method, mut headers, extensions, .. } = head;
    let front = extensions.get::<Front>().copied().unwrap_or_default();
    let caller = &authenticated.caller;
    match method {
        http::Method::POST => {}
        http::Method::GET | http::Method::DELETE => {
            let era =
                headers.get(PROTOCOL_VERSION).and_then(|value| value.to_str().ok()).map(Era::of_version);
            // The modern era has neither streams nor sessions of their own.
            return match era {
                Some(Era::Modern) => Err(Rejection::HttpMethod),
                _ => {
                    let session = open_session(node, caller, &headers)?;
                    Ok(Received { era: Era::Legacy, headers, session, message: None, method, front })
                }
            };
        }
        _ => return Err(Rejection::HttpMethod),
    }
    if !is_json(&headers) {
        return Err(Rejection::MediaType);
    }
    let body = inbound.collect().await?;
    let message = Message::parse(body).map_err(|error| match error {
        MessageError::Malformed(error) => Rejection::Malformed(error.to_string()),
        MessageError::Invalid { id, message } => {
            answering.id = id;
            Rejection::Invalid(message)
        }
    })?;
    answering.id = message.kind.id().cloned();
    if front == Front::Message {
        headers::repeat(&mut headers, &message.kind);
    }
    answering.era = headers::era_of(&headers, &message.kind);
    check_version(&headers, answering.era, &message.kind)?;
    let session = match answering.era {
        Era::Legacy => open_session(node, caller, &headers)?,
        // This era has none; a header that says one has no meaning.
        Era::Modern => None,
    };
    Ok(Received { era: answering.era, headers, session, message: Some(message), method, front })
}

/// A message that another node received, and handed over.
pub(super) fn handed(
    node: &Node,
    authenticated: &Authenticated,
    handoff: &Handoff,
    answering: &mut Answering,
) -> Result<Received, Rejection> {
    let broken = || Rejection::Invalid("the request cannot be read".to_owned());
    let (method, mut headers) = handoff.head().ok_or_else(broken)?;
    let message =
        handoff.message.as_ref().map(|text| Message::parse(Bytes::copy_from_slice(text.as_bytes())));
    let message = message.transpose().map_err(|_| broken())?;
    let kind = message.as_ref().map(|message| &message.kind);
    if let Some(kind) = kind {
        headers::repeat(&mut headers, kind);
        answering.id = kind.id().cloned();
        answering.era = headers::era_of(&headers, kind);
    }
    let session = open_session(node, &authenticated.caller, &headers)?;
    Ok(Received { era: answering.era, headers, session, message, method, front: Front::Message })
}

/// The session that a request says.
fn open_session(
    node: &Node,
    caller: &Caller,
    headers: &HeaderMap,
) -> Result<Option<ClientSession>, Rejection> {
    let Some(token) = headers.get(SESSION_ID) else { return Ok(None) };
    let token = token.to_str().map_err(|_| Rejection::SessionGone)?;
    if node.ended.contains(token) {
        return Err(Rejection::SessionGone);
    }
    let keys = caller.config.keys.as_ref().ok_or(Rejection::SessionGone)?;
    let session = Session::open(&keys.seal, caller.owner(), token, now_seconds());
    let session = session.map_err(|_| Rejection::SessionGone)?;
    Ok(Some(ClientSession { token: token.into(), session }))
}

/// Whether a body is said to be JSON.
pub(crate) fn is_json(headers: &HeaderMap) -> bool {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    text.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case("application/json"))
}

enum Source {
    Http(Incoming),
    Message(Bytes),
}

impl Inbound {
    /// The body of a request that comes over HTTP.
    pub(crate) fn of_http(headers: &HeaderMap, body: Incoming) -> Inbound {
        Inbound { body: Source::Http(body), comes: !headers.contains_key(EXPECT), gathered: None }
    }

    /// A message that another front received as a whole.
    pub(crate) fn of_message(message: Bytes) -> Inbound {
        Inbound { body: Source::Message(message), comes: false, gathered: None }
    }

    /// Reads the body before its stage, for a front that looks into it. What comes of it is the stage's to tell.
    pub(crate) async fn gather(&mut self) -> Option<Bytes> {
        let gathered = self.collect().await;
        let body = gathered.as_ref().ok().cloned();
        self.gathered = Some(gathered);
        body
    }

    /// Reads the body, within bounds.
    pub(crate) async fn collect(&mut self) -> Result<Bytes, Rejection> {
        if let Some(gathered) = self.gathered.take() {
            return gathered;
        }
        let body = match &mut self.body {
            Source::Http(body) => body,
            Source::Message(message) if message.len() > REQUEST_BODY_MAX => {
                return Err(Rejection::BodyTooLarge(REQUEST_BODY_MAX));
            }
            Source::Message(message) => return Ok(message.clone()),
        };
        self.comes = true;
        let limited = Limited::new(body, REQUEST_BODY_MAX).collect();
        match tokio::time::timeout(BODY_DEADLINE, limited).await {
            Ok(Ok(collected)) => Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                Err(Rejection::BodyTooLarge(REQUEST_BODY_MAX))
            }
            Err(_) | Ok(Err(_)) => {
                self.comes = false;
                Err(Rejection::BodyBroken)
            }
        }
    }

    /// Reads what a refusal left unread, within bounds, and throws it away. A client that writes all of its body
    /// before it reads would otherwise meet a closed connection instead of the refusal.
    pub(crate) async fn discard(mut self) {
        let Source::Http(body) = &mut self.body else { return };
        if !self.comes || body.is_end_stream() {
            return;
        }
        let read = async {
            let mut room = DISCARDED_MAX;
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len);
                match room.checked_sub(length) {
                    Some(left) => room = left,
                    None => return,
                }
            }
        };
        // Whether all of it came makes no difference to the answer.
        let _ = tokio::time::timeout(DISCARD_DEADLINE, read).await;
    }
}

fn check_version(headers: &http::HeaderMap, era: Era, kind: &Kind) -> Result<(), Rejection> {
    match (era, kind) {
        // Removed with the legacy era; an `initialize` that carries modern metadata is no method.
        (Era::Modern, Kind::Request { method: Method::Initialize, .. }) => {
            Err(Rejection::Method("initialize".to_owned()))
        }
        (Era::Modern, Kind::Request { method, params, .. }) => {
            headers::check_modern(headers, method, params).map_err(Rejection::Headers)
        }
        (Era::Modern, Kind::Notification { .. } | Kind::Response { .. }) => Ok(()),
        (Era::Legacy, _) => {
            let Some(value) = headers.get(PROTOCOL_VERSION) else { return Ok(()) };
            let version = value.to_str().unwrap_or_default();
            if VERSIONS_LEGACY.contains(&version) {
                return Ok(());
            }
            Err(Rejection::Invalid(format!("protocol version {version:?} is not known")))
        }
    }
}
