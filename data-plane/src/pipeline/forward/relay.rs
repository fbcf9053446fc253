//! Relay: a message to a server of the client's own era as the bytes that came, and the answer as the bytes that come.
//!
//! Always holds: headers are taken from a list, never copied as a whole; a session id that reaches the client is
//! sealed; so is what the modern era has clients give back (`requestState`, ids of tasks), because a server that
//! sees one credential for all agents cannot tell whose it is.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName,
    HeaderValue, RETRY_AFTER,
};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::time::Instant;

use super::Outgoing;
use crate::bridge::tokens::{Tokens, may_have_tokens};
use crate::config::server::Server;
use crate::mcp::Era;
use crate::mcp::headers::{LAST_EVENT_ID, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, SESSION_ID, named};
use crate::mcp::message::Kind;
use crate::mcp::session::Session;
use crate::node::Node;
use crate::pipeline::{Received, now_seconds};
use crate::rejection::{Rejection, Upstream};
use crate::reply::Body;
use crate::upstream::http::Outbound;
use crate::upstream::legacy::check;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers of the server's answer that mean the same to the client.
const RESPONSE_HEADERS: [HeaderName; 4] = [CONTENT_TYPE, CACHE_CONTROL, RETRY_AFTER, X_ACCEL_BUFFERING];
/// Largest answer of known length in which a token is looked for, in bytes. In a larger one it passes unsealed, and
/// is refused when it comes back.
const READ_BYTES_MAX: u64 = 256 * 1024;

pub(super) async fn relay(
    node: &Node,
    server: &Arc<Server>,
    session: Option<String>,
    outgoing: &Outgoing,
) -> Result<Response<Body>, Rejection> {
    let Outgoing { received, .. } = outgoing;
    let Some(uri) = &server.uri else { return Err(Rejection::Upstream(Upstream::Unreachable)) };
    let outbound = Outbound {
        uri,
        method: received.method.clone(),
        headers: request_headers(outgoing, session)?,
        body: received.message.as_ref().map_or_else(Bytes::new, |message| message.body.clone()),
        timeout: timeout(server),
    };
    let deadline = Instant::now() + outbound.timeout;
    let response = node.upstreams.http.send(outbound).await.map_err(Rejection::Upstream)?;
    note_end(node, received, response.status()).await;
    pass_on(server, outgoing, response, deadline).await
}

fn timeout(server: &Server) -> Duration {
    Duration::from_millis(u64::from(server.spec.timeout_ms))
}

/// A session is over when its client ended it, or when the server no longer knows it.
async fn note_end(node: &Node, received: &Received, status: StatusCode) {
    let over = match received.method {
        http::Method::DELETE => status.is_success() || status == StatusCode::NOT_FOUND,
        _ => status == StatusCode::NOT_FOUND,
    };
    if let (true, Some(session)) = (over, &received.session) {
        node.end_session(&session.token).await;
    }
}

fn request_headers(outgoing: &Outgoing, session: Option<String>) -> Result<HeaderMap, Rejection> {
    let Outgoing { received, credential, .. } = outgoing;
    let mut headers = HeaderMap::with_capacity(10);
    headers.insert(ACCEPT, ACCEPTED);
    if received.message.is_some() {
        headers.insert(CONTENT_TYPE, JSON);
    }
    let mut pass = |name: HeaderName| {
        if let Some(value) = received.headers.get(&name) {
            headers.insert(name, value.clone());
        }
    };
    pass(PROTOCOL_VERSION);
    match (received.era, received.message.as_ref().map(|message| &message.kind)) {
        // Within a session only: a server that sees one credential for all agents may have one store for their events.
        (Era::Legacy, _) if session.is_some() => pass(LAST_EVENT_ID),
        (Era::Legacy, _) => {}
        // These headers were compared with the body; what was not compared could tell the server another story.
        (Era::Modern, Some(Kind::Request { method, params, .. })) => {
            pass(METHOD);
            if named(method, params).is_some() {
                pass(NAME);
            }
            for (name, value) in &received.headers {
                if name.as_str().starts_with(PARAM_PREFIX) {
                    headers.append(name.clone(), value.clone());
                }
            }
        }
        (Era::Modern, Some(Kind::Notification { method, .. })) => {
            let value = HeaderValue::from_str(method.as_str());
            headers.extend(value.ok().map(|value| (METHOD, value)));
        }
        (Era::Modern, Some(Kind::Response { .. }) | None) => {}
    }
    if let Some(session) = session {
        headers.insert(SESSION_ID, session.try_into().map_err(|_| Rejection::SessionGone)?);
    }
    if let Some((name, value)) = credential {
        headers.insert(name, value.clone());
    }
    Ok(headers)
}

/// Turns the server's answer into the client's: chosen headers, sealed tokens, the body as it comes; one that is read
/// as a whole is there by the deadline.
async fn pass_on(
    server: &Arc<Server>,
    outgoing: &Outgoing,
    response: Response<hyper::body::Incoming>,
    deadline: Instant,
) -> Result<Response<Body>, Rejection> {
    let Outgoing { caller, received, .. } = outgoing;
    let (head, body) = response.into_parts();
    check(head.status).map_err(Rejection::Upstream)?;
    let protocol = || Rejection::Upstream(Upstream::Protocol);
    // Nothing but plain was asked for, and only plain can be looked into.
    if head.headers.get(CONTENT_ENCODING).is_some_and(|value| value != "identity") {
        return Err(protocol());
    }
    let is = |form: &str| {
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        content_type.is_some_and(|value| value.starts_with(form))
    };
    let length: Option<u64> =
        head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let body = match (received.era, &received.message) {
        (Era::Modern, Some(message)) if is("text/event-stream") => {
            let tokens = Tokens::new(caller, server, message)?;
            Body::reframed(body, Box::new(move |event| tokens.seal(event)))
        }
        (Era::Modern, Some(message))
            if is("application/json") && length.is_some_and(|length| length <= READ_BYTES_MAX) =>
        {
            // The length is what the server says; no more than that is read.
            let reading = Limited::new(body, READ_BYTES_MAX as usize).collect();
            let read = tokio::time::timeout_at(deadline, reading).await;
            let limited = read.map_err(|_| Rejection::Upstream(Upstream::Timeout(timeout(server))))?;
            let whole = limited.map_err(|_| Rejection::Upstream(Upstream::Unreachable))?.to_bytes();
            Body::full(match may_have_tokens(&whole) {
                true => Tokens::new(caller, server, message)?.seal(&whole).unwrap_or(whole),
                false => whole,
            })
        }
        _ => Body::upstream(body),
    };
    let mut answer = Response::new(body);
    *answer.status_mut() = head.status;
    for name in RESPONSE_HEADERS {
        if let Some(value) = head.headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    if let (Era::Legacy, Some(session)) = (received.era, head.headers.get(SESSION_ID)) {
        let session = Session::Relayed(session.to_str().map_err(|_| protocol())?.to_owned());
        let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
        let sealed = session.seal(&keys.seal, caller.owner(), now_seconds()).map_err(|_| protocol())?;
        answer.headers_mut().insert(SESSION_ID, sealed.try_into().map_err(|_| protocol())?);
    }
    Ok(answer)
}
