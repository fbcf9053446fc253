//! Forward: the request to its server, and the answer to its client, by one of three ways.
//!
//! Always holds: what the node knows itself is answered here; a message between hops of one era passes as bytes
//! ([`relay`]) where nothing in it has to be changed; everything else is carried across by [`crate::bridge`].

mod relay;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_TYPE, HeaderValue, VARY};
use http::{HeaderName, Response};

use super::approve::{Granted, Redeemed};
use super::discover::{Made, Subject};
use super::{Caller, Front, Received, check};
use crate::bridge;
use crate::check::{AnswerChecks, Notes};
use crate::config::inspection::Rules;
use crate::config::server::Server;
use crate::gzip;
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
    /// By which rules the answer is redacted.
    pub(super) rules: Option<Arc<Rules>>,
    /// Who is asked of the answer.
    pub(super) checks: Option<AnswerChecks>,
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
    /// What it was approved as.
    pub(crate) granted: Option<Granted>,
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
    redeemed: Redeemed,
    place: Place,
    (decision_id, notes): (&str, &Notes),
) -> Result<Forwarded, Rejection> {
    let sent = Instant::now();
    let Redeemed { caller, received, subject, header: credential, granted, budget, .. } = redeemed;
    note_cancelled(node, &caller, &received, place).await;
    if let Subject::Here(made) = subject {
        let response = answer_here(&received, made);
        let source = Source::Here;
        return Ok(Forwarded {
            response,
            sent,
            deadline: None,
            source,
            rules: None,
            checks: None,
            _private: (),
        });
    }
    let decision_id = decision_id.to_owned();
    let outgoing = Outgoing { caller, received, subject, credential, granted, decision_id };
    let rules = outgoing.rules();
    let checks = outgoing.checks(notes);
    let Some(Relayed { server, session }) = relayed(&outgoing)? else {
        budget.spend();
        let response = match place {
            Place::Anywhere => Box::pin(bridge::serve(node, outgoing)).await?,
            Place::Here => Box::pin(bridge::serve_here(node, outgoing)).await?,
        };
        let source = Source::Bridged;
        return Ok(Forwarded { response, sent, deadline: None, source, rules, checks, _private: () });
    };
    let timeout = Duration::from_millis(u64::from(server.spec.timeout_ms));
    let deadline = (!is_stream(&outgoing.received)).then(|| sent + timeout);
    let pass = server.health.admit().await?;
    budget.spend();
    let (response, permit) = pass.judge(relay::relay(node, &server, session, &outgoing).await)?;
    // A stream that lives as long as its client listens keeps no call from the server.
    let response = if deadline.is_some() { response.map(|body| body.holding(permit)) } else { response };
    Ok(Forwarded { response, sent, deadline, source: Source::Relayed(server), rules, checks, _private: () })
}

/// A call that is held was not forwarded; whoever cancels it is heard here.
async fn note_cancelled(node: &Node, caller: &Caller, received: &Received, place: Place) {
    if let (Place::Anywhere, Some(session)) = (place, &received.session)
        && let Some(Kind::Notification { method, params }) =
            received.message.as_ref().map(|message| &message.kind)
        && let ("notifications/cancelled", Some(id)) = (method.as_str(), &params.request_id)
    {
        node.cancel_held(&caller.tenant, &session.token, id).await;
    }
}

impl Outgoing {
    /// Who is asked of the answer.
    fn checks(&self, notes: &Notes) -> Option<AnswerChecks> {
        let Outgoing { caller, received, subject, decision_id, .. } = self;
        let about = || check::subject(caller, received, subject, decision_id);
        let checkers = check::checkers(caller, subject);
        AnswerChecks::of(checkers, about, (received.id(), received.era), notes)
    }

    /// The rules of the tool that is called, or of the server that is asked.
    fn rules(&self) -> Option<Arc<Rules>> {
        let (server, tool) = match &self.subject {
            Subject::Tool(access) => (Some(&access.server), Some(&*access.tool.name)),
            // A stream of an endpoint's one server may repeat the answers of its tools.
            Subject::Protocol => (self.caller.endpoint.only(), None),
            subject => (subject.server(), None),
        };
        server.map(|server| server.inspections.of(tool).clone())
    }
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

fn answer_here(received: &Received, made: Made) -> Response<Body> {
    let id = received.id().map_or(b"null".as_slice(), |id| id.0.as_ref());
    let head = [br#"{"jsonrpc":"2.0","id":"#.as_slice(), id, br#","result":"#].concat();
    let (page, tail) = match made {
        Made::Whole(result) => return answer_of(vec![head.into(), result, Bytes::from_static(b"}")]),
        Made::Page(page, tail) => (page, tail + "}"),
    };
    // A message of another front has no head of its own that could say how to read it.
    let takes_gzip = received.front == Front::Http && gzip::is_accepted(&received.headers);
    let packed = takes_gzip.then(|| page.packed()).flatten();
    let mut response = answer_of(match packed {
        Some(packed) => packed.between(&head, tail.as_bytes()),
        // The page is shared by all answers and may be large.
        None => vec![head.into(), page.text.clone(), tail.into()],
    });
    response.headers_mut().insert(VARY, HeaderValue::from_name(ACCEPT_ENCODING));
    if packed.is_some() {
        response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn answer_of(pieces: Vec<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::pieces(pieces));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use http::header::HeaderMap;
    use http_body_util::BodyExt;

    use super::*;
    use crate::config::view::Page;
    use crate::mcp::message::Message;

    fn received(front: Front, accepted: Option<&'static str>) -> Received {
        let message = Bytes::from_static(br#"{"jsonrpc":"2.0","id":"a\"7","method":"tools/list"}"#);
        let accepted = accepted.map(|value| (ACCEPT_ENCODING, HeaderValue::from_static(value)));
        Received {
            era: Era::Legacy,
            headers: accepted.into_iter().collect::<HeaderMap>(),
            session: None,
            message: Some(Message::parse(message).expect("a message")),
            method: http::Method::POST,
            front,
        }
    }

    async fn answered(received: &Received, made: Made) -> (HeaderMap, String) {
        let (head, body) = answer_here(received, made).into_parts();
        let bytes = body.collect().await.expect("it is whole").to_bytes();
        let mut text = String::new();
        match head.headers.get(CONTENT_ENCODING) {
            None => text = String::from_utf8(bytes.to_vec()).expect("text"),
            Some(coding) => {
                assert_eq!(coding, "gzip");
                flate2::bufread::GzDecoder::new(&*bytes).read_to_string(&mut text).expect("gzip");
            }
        }
        (head.headers, text)
    }

    #[tokio::test]
    async fn a_page_is_in_gzip_for_a_client_that_takes_it_and_can_be_told() {
        let elements = vec![r#"{"name":"tool"}"#; 50].join(",");
        let page = Arc::new(Page::of(format!(r#"{{"tools":[{elements}]"#)));
        let expected = format!(r#"{{"jsonrpc":"2.0","id":"a\"7","result":{{"tools":[{elements}],"x":1}}}}"#);
        for (front, accepted, is_packed) in [
            (Front::Http, Some("gzip, deflate"), true),
            (Front::Http, Some("gzip;q=0"), false),
            (Front::Http, Some("identity"), false),
            (Front::Http, None, false),
            (Front::Message, Some("gzip, deflate"), false),
        ] {
            let made = Made::Page(page.clone(), r#","x":1}"#.to_owned());
            let (headers, text) = answered(&received(front, accepted), made).await;
            let says = (headers.contains_key(CONTENT_ENCODING), headers.get(VARY).is_some());
            assert_eq!(
                (text.as_str(), says),
                (expected.as_str(), (is_packed, true)),
                "{front:?} {accepted:?}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_page_is_never_in_gzip() {
        let made = Made::Whole(Bytes::from_static(b"{}"));
        let (headers, text) = answered(&received(Front::Http, Some("gzip")), made).await;
        assert_eq!(text, r#"{"jsonrpc":"2.0","id":"a\"7","result":{}}"#);
        assert_eq!((headers.get(CONTENT_ENCODING), headers.get(VARY)), (None, None));
    }
}
