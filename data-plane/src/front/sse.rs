//! HTTP+SSE of 2024-11-05: a stream of events that the client opens, and messages that it POSTs beside it.
//!
//! Always holds: the address to POST to is good for the principal that opened the stream only (sealed), and every POST
//! brings its own credentials. The node that holds the stream serves all messages of it; another one that gets a POST
//! says who calls, and hands the message over. A POST is answered at once (202); what comes of it comes by the stream.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dashmap::DashMap;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::conversation::Conversation;
use super::{Credentials, Hold, KEEP_ALIVE, OUT_MAX, Place, Posted};
use crate::bridge::handoff::{self, Unserved};
use crate::mcp::seal::{Keyring, Owner, Purpose};
use crate::node::Node;
use crate::pipeline::{self, Caller, Inbound, Shown, Standing};
use crate::rejection::Rejection;
use crate::reply::{Body, event};
use crate::route::EndpointPath;

/// Streams that a node holds at once. Each is a connection; more are refused, as the listener has other clients.
const STREAMS_MAX: usize = 8_192;
/// Messages of one stream that wait to be served; more are refused.
const WAITING_MAX: usize = 64;
/// How long a POST waits for a place there.
const WAITING_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an address is good for, in seconds: a day, as a session is.
const ADDRESS_SECONDS_MAX: u64 = 24 * 60 * 60;

/// The streams that this node holds.
#[derive(Default)]
pub(crate) struct Streams(DashMap<String, mpsc::Sender<Posted>>);

/// Where a stream is: what an address has in it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Address {
    /// The node that holds it.
    #[serde(rename = "h")]
    holder: String,
    #[serde(rename = "s")]
    stream: String,
}

/// Opens a stream (`GET /{tenant}/{endpoint}/sse`).
pub(crate) async fn open(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: &Parts,
    hold: Hold,
) -> Response<Body> {
    if head.method != Method::GET {
        return pipeline::refuse(node, &Rejection::HttpMethod).await;
    }
    if node.streams.0.len() >= STREAMS_MAX {
        return pipeline::refuse(node, &Rejection::Busy).await;
    }
    let caller = match pipeline::admit(node, path, Shown::of(head), ("sse", StatusCode::OK)).await {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let Some((stream, token)) = address(node, &caller) else {
        return pipeline::refuse(node, &Rejection::NotReady).await;
    };
    let (posts, incoming) = mpsc::channel(WAITING_MAX);
    node.streams.0.insert(stream.clone(), posts);
    let (events, body) = mpsc::channel(1);
    let endpoint =
        format!("event: endpoint\ndata: /{}/{}/message?sessionId={token}\n\n", path.tenant, path.endpoint);
    // There is room for one.
    let _ = events.try_send(Bytes::from(endpoint));
    let place = Place::new(node, path, &caller);
    let standing = Standing::of(node, &caller, Credentials::of(&head.headers, &head.extensions));
    let tasks = hold.tasks.clone();
    tasks.spawn(async move {
        let node = place.node.clone();
        let (out, outgoing) = mpsc::channel(OUT_MAX);
        let conversation = Conversation::new(place, out).run(standing, incoming, &hold.stop);
        tokio::join!(conversation, pump(outgoing, events));
        node.streams.0.remove(&stream);
    });
    let mut response = Response::new(Body::events(body));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// Takes a message (`POST /{tenant}/{endpoint}/message?sessionId=...`).
pub(crate) async fn post(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: &Parts,
    mut inbound: Inbound,
) -> Response<Body> {
    let rejection = match take(node, path, head, &mut inbound).await {
        Ok(()) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::ACCEPTED;
            return response;
        }
        Err(rejection) => rejection,
    };
    let response = pipeline::refuse(node, &rejection).await;
    inbound.discard().await;
    response
}

async fn take(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: &Parts,
    inbound: &mut Inbound,
) -> Result<(), Rejection> {
    if head.method != Method::POST {
        return Err(Rejection::HttpMethod);
    }
    let caller = pipeline::identify(node, path, Shown::of(head)).await?;
    let address = parse_address(head.uri.query(), &caller).ok_or(Rejection::SessionGone)?;
    if !pipeline::is_json(&head.headers) {
        return Err(Rejection::MediaType);
    }
    let message = inbound.collect().await?;
    let posted = Posted { credentials: Credentials::of(&head.headers, &head.extensions), message };
    let taken = match address.holder == **node.mesh.me() {
        true => Ok(receive(node, &address.stream, posted).await.as_u16()),
        false => handoff::post(node, &address.holder, address.stream, &posted).await,
    };
    match taken {
        Ok(202) => Ok(()),
        Ok(503) => Err(Rejection::Busy),
        Ok(_) | Err(Unserved::NotThere) => Err(Rejection::SessionGone),
        Err(Unserved::Failed(rejection)) => Err(rejection),
    }
}

/// Takes a message for a stream that this node holds. Who calls is known to whoever took the message; the pipeline
/// asks again.
pub(crate) async fn receive(node: &Node, stream: &str, posted: Posted) -> StatusCode {
    // The table is not locked while waiting.
    let posts = node.streams.0.get(stream).map(|posts| posts.clone());
    let Some(posts) = posts else { return StatusCode::NOT_FOUND };
    match tokio::time::timeout(WAITING_TIMEOUT, posts.send(posted)).await {
        Ok(Ok(())) => StatusCode::ACCEPTED,
        Ok(Err(_)) => StatusCode::NOT_FOUND,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Writes messages as events, and comments between them, until there are no more or the client has left.
async fn pump(mut outgoing: mpsc::Receiver<Bytes>, events: mpsc::Sender<Bytes>) {
    let mut alive = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let event = tokio::select! {
            () = events.closed() => return,
            message = outgoing.recv() => match message {
                Some(message) => event(&message),
                None => return,
            },
            _ = alive.tick() => Bytes::from_static(b":\n\n"),
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
}

/// A new stream's id, and the token of its address; `None` while the node has no keys.
fn address(node: &Node, caller: &Caller) -> Option<(String, String)> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random).ok()?;
    let stream: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let address = Address { holder: node.audit.node().to_owned(), stream: stream.clone() };
    let keys = caller.config.keys.as_ref()?;
    let token = seal(&keys.seal, caller.owner(), &address, pipeline::now_seconds())?;
    Some((stream, token))
}

fn seal(keys: &Keyring, owner: Owner<'_>, address: &Address, now: u64) -> Option<String> {
    let plain = serde_json::to_vec(address).ok()?;
    keys.seal(Purpose::Stream, owner, now + ADDRESS_SECONDS_MAX, &plain).ok()
}

fn parse_address(query: Option<&str>, caller: &Caller) -> Option<Address> {
    let token = query?.split('&').find_map(|pair| pair.strip_prefix("sessionId="))?;
    let keys = caller.config.keys.as_ref()?;
    let plain = keys.seal.open(Purpose::Stream, caller.owner(), token, pipeline::now_seconds()).ok()?;
    serde_json::from_slice(&plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_of_several_lines_is_one_event() {
        assert_eq!(event(b"{\"a\":1}"), "event: message\ndata: {\"a\":1}\n\n");
        assert_eq!(event(b"{\r\n \"a\":1\n}\n"), "event: message\ndata: {\ndata:  \"a\":1\ndata: }\n\n");
    }

    #[test]
    fn an_address_comes_back_as_it_was_and_to_its_owner_only() {
        let keys = Keyring::new([(1, &[7; 32][..])]).expect("a key");
        let owner = Owner { tenant: "acme", endpoint: "main", principal: "bot" };
        let address = Address { holder: "node-1".to_owned(), stream: "ab".to_owned() };
        let token = seal(&keys, owner, &address, 1_000).expect("a token");
        let open = |owner, now| {
            let plain = keys.open(Purpose::Stream, owner, &token, now).ok()?;
            serde_json::from_slice::<Address>(&plain).ok()
        };
        assert_eq!(open(owner, 1_000), Some(address));
        assert_eq!(open(Owner { principal: "eve", ..owner }, 1_000), None);
        assert_eq!(open(owner, 1_000 + ADDRESS_SECONDS_MAX), None);
    }
}
