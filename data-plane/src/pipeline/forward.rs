//! Forward: the request to its server, and the answer to its client, by one of three ways.
//!
//! Always holds: what the node knows itself is answered here; a message between hops of one era passes as bytes
//! ([`relay`]) where nothing in it has to be changed; everything else is carried across by [`crate::bridge`].

mod relay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderValue};
use http::{HeaderName, Response};

use super::credential::Credentialed;
use super::discover::Subject;
use super::{Caller, Received};
use crate::bridge;
use crate::config::tenant::Server;
use crate::mcp::Era;
use crate::mcp::message::{Kind, Method};
use crate::mcp::session::Session;
use crate::node::Node;
use crate::rejection::Rejection;
use crate::reply::Body;

/// Proof that the request was answered. Only this stage builds it.
pub(super) struct Forwarded {
    pub(super) response: Response<Body>,
    pub(super) sent: Instant,
    /// `None`: the answer stays open as long as both sides want, or ends by itself.
    pub(super) deadline: Option<Instant>,
    /// Who answers: a server whose bytes pass, others, or nobody but the node.
    pub(super) source: Source,
    _private: (),
}

/// Where an answer comes from.
pub(super) enum Source {
    /// The node.
    Here,
    /// A server, as bytes.
    Relayed(Arc<Server>),
    /// Servers, as messages.
    Bridged,
}

/// What a request is sent on with.
pub(crate) struct Outgoing {
    pub(crate) caller: Caller,
    pub(crate) received: Received,
    pub(crate) subject: Subject,
    /// The server's credential.
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// What the record of the request is found by.
    pub(crate) decision_id: String,
}

/// Where a message passes to as it is.
struct Relayed {
    server: Arc<Server>,
    /// The server's own session.
    session: Option<String>,
}

/// Where a request is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Where it belongs.
    Anywhere,
    /// On this node, to which another handed it.
    Here,
}

pub(super) async fn forward(
    node: &Arc<Node>,
    credentialed: Credentialed,
    place: Place,
    decision_id: &str,
) -> Result<Forwarded, Rejection> {
    let sent = Instant::now();
    let Credentialed { caller, received, subject, header: credential, .. } = credentialed;
    if let Subject::Here(result) = subject {
        let response = answer_here(&received, result);
        return Ok(Forwarded { response, sent, deadline: None, source: Source::Here, _private: () });
    }
    let decision_id = decision_id.to_owned();
    let outgoing = Outgoing { caller, received, subject, credential, decision_id };
    let Some(Relayed { server, session }) = relayed(&outgoing)? else {
        let response = match place {
            Place::Anywhere => Box::pin(bridge::serve(node, outgoing)).await?,
            Place::Here => Box::pin(bridge::serve_here(node, outgoing)).await?,
        };
        return Ok(Forwarded { response, sent, deadline: None, source: Source::Bridged, _private: () });
    };
    let timeout = Duration::from_millis(u64::from(server.spec.timeout_ms));
    let deadline = (!is_stream(&outgoing.received)).then(|| sent + timeout);
    let pass = node.upstreams.health(&server).admit().await?;
    let (response, permit) = pass.judge(relay::relay(node, &server, session, &outgoing).await)?;
    // A stream that lives as long as its client listens keeps no call from the server.
    let response = if deadline.is_some() { response.map(|body| body.holding(permit)) } else { response };
    Ok(Forwarded { response, sent, deadline, source: Source::Relayed(server), _private: () })
}

/// The server to which the message passes as it is, with that server's own session; `None` when it is bridged.
fn relayed(outgoing: &Outgoing) -> Result<Option<Relayed>, Rejection> {
    let Outgoing { caller, received, .. } = outgoing;
    let server = caller.endpoint.relays(received.era);
    match received.session.as_ref().map(|session| &session.session) {
        Some(Session::Bridged(_)) => Ok(None),
        Some(Session::Relayed(upstream)) => {
            // The endpoint is another than it was when the session began.
            let server = server.ok_or(Rejection::SessionGone)?;
            Ok(Some(Relayed { server: server.clone(), session: Some(upstream.clone()) }))
        }
        None if needs_reading(received) => Ok(None),
        None => Ok(server.map(|server| Relayed { server: server.clone(), session: None })),
    }
}

/// Whether a message has something sealed in it, or asks for what the node does itself.
fn needs_reading(received: &Received) -> bool {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { method, params, .. }) if received.era == Era::Modern => {
            params.request_state.is_some()
                || matches!(
                    method,
                    Method::Listen | Method::TasksGet | Method::TasksUpdate | Method::TasksCancel
                )
        }
        _ => false,
    }
}

/// Streams that live as long as a client listens have no deadline.
fn is_stream(received: &Received) -> bool {
    received.message.is_none() && received.method == http::Method::GET
}

fn answer_here(received: &Received, result: Vec<Bytes>) -> Response<Body> {
    let id = received.id().map_or_else(|| Bytes::from_static(b"null"), |id| id.0.clone());
    let mut pieces =
        vec![Bytes::from_static(br#"{"jsonrpc":"2.0","id":"#), id, Bytes::from_static(br#","result":"#)];
    // The list itself is shared by all answers and may be large.
    pieces.extend(result);
    pieces.push(Bytes::from_static(b"}"));
    let mut response = Response::new(Body::pieces(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
