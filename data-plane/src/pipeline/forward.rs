//! Forward: the request to its server, and the server's answer as it comes.
//!
//! Always holds: the body is forwarded byte for byte; headers are taken from a list, never copied as a whole; a
//! session id that reaches the client is sealed. A list is answered without a server.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Response, StatusCode};

use super::credential::Credentialed;
use super::discover::Subject;
use super::{Caller, Received};
use crate::mcp::Era;
use crate::mcp::headers::{LAST_EVENT_ID, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, SESSION_ID, named};
use crate::mcp::message::{Kind, Method};
use crate::mcp::session::Session;
use crate::node::Node;
use crate::rejection::{Rejection, Upstream};
use crate::reply::Body;
use crate::upstream::http::Outbound;

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const ACCEPTED: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// Headers of the server's answer that mean the same to the client.
const RESPONSE_HEADERS: [HeaderName; 3] = [CONTENT_TYPE, CACHE_CONTROL, X_ACCEL_BUFFERING];

/// Proof that the server answered. Only this stage builds it.
pub(super) struct Forwarded {
    pub(super) caller: Caller,
    pub(super) response: Response<Body>,
    pub(super) sent: Instant,
    /// `None`: the answer stays open as long as both sides want.
    pub(super) deadline: Option<Instant>,
    /// Whether a server answered, or the catalog.
    pub(super) from_server: bool,
    _private: (),
}

pub(super) async fn forward(node: &Arc<Node>, credentialed: Credentialed) -> Result<Forwarded, Rejection> {
    let sent = Instant::now();
    let Credentialed { caller, received, subject, header, .. } = credentialed;
    let timeout = Duration::from_millis(u64::from(caller.endpoint.server.spec.timeout_ms));
    let session = open_session(node, &caller, &received)?;
    if let Subject::List(result) = &subject {
        let response = answer_list(&received, result);
        return Ok(Forwarded { caller, response, sent, deadline: None, from_server: false, _private: () });
    }
    let deadline = (!is_endless(&received)).then(|| sent + timeout);
    let pass = node.upstreams.health(&caller.endpoint.server).admit().await?;
    let answered = match &caller.endpoint.server.uri {
        None => node.upstreams.stdio(&caller.endpoint.server)?.serve(&received, timeout).await,
        Some(uri) => {
            let outbound = Outbound {
                uri,
                method: received.method.clone(),
                headers: request_headers(&received, session, header)?,
                body: received.message.as_ref().map_or_else(Bytes::new, |message| message.body.clone()),
                timeout,
            };
            let sent = node.upstreams.http.send(outbound).await.map_err(Rejection::Upstream);
            sent.and_then(|response| pass_on(node, &caller, &received, response))
        }
    };
    let (response, permit) = pass.judge(answered)?;
    // A stream that lives as long as its client listens keeps no call from the server.
    let response = if deadline.is_some() { response.map(|body| body.holding(permit)) } else { response };
    Ok(Forwarded { caller, response, sent, deadline, from_server: true, _private: () })
}

/// Streams that live as long as a client listens have no deadline.
fn is_endless(received: &Received) -> bool {
    match received.message.as_ref().map(|message| &message.kind) {
        None => received.method == http::Method::GET,
        Some(Kind::Request { method, .. }) => *method == Method::Listen,
        Some(Kind::Notification { .. } | Kind::Response) => false,
    }
}

/// The server's session id behind the one that the client sent.
fn open_session(node: &Node, caller: &Caller, received: &Received) -> Result<Option<String>, Rejection> {
    let (Era::Legacy, Some(session)) = (received.era, received.headers.get(SESSION_ID)) else {
        return Ok(None);
    };
    let session = session.to_str().map_err(|_| Rejection::SessionGone)?;
    if node.ended.contains(session) {
        return Err(Rejection::SessionGone);
    }
    let keys = caller.config.keys.as_ref().ok_or(Rejection::SessionGone)?;
    match Session::open(&keys.seal, caller.owner(), session, now_seconds()) {
        Ok(Session::Relayed(upstream)) => Ok(Some(upstream)),
        Ok(Session::Bridged(_)) | Err(_) => Err(Rejection::SessionGone),
    }
}

/// A session is over when its client ended it, or when the server no longer knows it.
fn note_end(node: &Node, received: &Received, status: StatusCode) {
    let over = match received.method {
        http::Method::DELETE => status.is_success() || status == StatusCode::NOT_FOUND,
        _ => status == StatusCode::NOT_FOUND,
    };
    let session = received.headers.get(SESSION_ID).and_then(|value| value.to_str().ok());
    if let (true, Era::Legacy, Some(session)) = (over, received.era, session) {
        node.ended.insert(session);
    }
}

fn request_headers(
    received: &Received,
    session: Option<String>,
    credential: Option<(HeaderName, HeaderValue)>,
) -> Result<HeaderMap, Rejection> {
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
        (Era::Legacy, _) => pass(LAST_EVENT_ID),
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
        (Era::Modern, Some(Kind::Response) | None) => {}
    }
    if let Some(session) = session {
        headers.insert(SESSION_ID, session.try_into().map_err(|_| Rejection::SessionGone)?);
    }
    if let Some((name, value)) = credential {
        headers.insert(name, value);
    }
    Ok(headers)
}

/// Turns the server's answer into the client's: chosen headers, the sealed session id, the body as it comes.
fn pass_on(
    node: &Node,
    caller: &Caller,
    received: &Received,
    response: Response<hyper::body::Incoming>,
) -> Result<Response<Body>, Rejection> {
    note_end(node, received, response.status());
    let (head, body) = response.into_parts();
    check_status(head.status)?;
    let mut answer = Response::new(Body::upstream(body));
    *answer.status_mut() = head.status;
    for name in RESPONSE_HEADERS {
        if let Some(value) = head.headers.get(&name) {
            answer.headers_mut().insert(name, value.clone());
        }
    }
    if let (Era::Legacy, Some(session)) = (received.era, head.headers.get(SESSION_ID)) {
        let protocol = |_| Rejection::Upstream(Upstream::Protocol);
        let session = session.to_str().map_err(|_| Rejection::Upstream(Upstream::Protocol))?;
        let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
        let session = Session::Relayed(session.to_owned());
        let sealed = session.seal(&keys.seal, caller.owner(), now_seconds()).map_err(protocol)?;
        let value = sealed.try_into().map_err(|_| Rejection::Upstream(Upstream::Protocol))?;
        answer.headers_mut().insert(SESSION_ID, value);
    }
    Ok(answer)
}

/// Statuses that are part of the protocol are passed on; a server's refusal or failure is told in our words, because
/// its challenge and its page are not meant for the agent.
fn check_status(status: StatusCode) -> Result<(), Rejection> {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
            Err(Rejection::Upstream(Upstream::Refused(status)))
        }
        _ if status.is_server_error() || status.is_redirection() || status.is_informational() => {
            Err(Rejection::Upstream(Upstream::Status(status)))
        }
        _ => Ok(()),
    }
}

fn answer_list(received: &Received, result: &Bytes) -> Response<Body> {
    let id = received.id().map_or_else(|| Bytes::from_static(b"null"), |id| id.0.clone());
    // The list itself is shared by all answers and may be large.
    let mut response = Response::new(Body::pieces(vec![
        Bytes::from_static(br#"{"jsonrpc":"2.0","id":"#),
        id,
        Bytes::from_static(br#","result":"#),
        result.clone(),
        Bytes::from_static(b"}"),
    ]));
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    response
}

fn now_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
