//! Batches of 2025-03-26: a POST of several messages, each of which goes through the pipeline by itself.
//!
//! Always holds: a batch is taken apart only for a caller that is known, of the one version that has batches; anything
//! else is left to the pipeline, which says what is wrong. Every request in it has one answer; answers come in the
//! order of their completion.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::replies::{self, Asked, Replies};
use super::{Hold, OUT_MAX, Place};
use crate::identity::certificate::ClientCertificate;
use crate::mcp::batch;
use crate::mcp::headers::{self, PROTOCOL_VERSION};
use crate::mcp::message::{Kind, Message};
use crate::node::Node;
use crate::pipeline::{self, Caller, Inbound, Shown};
use crate::reply::{Body, event};
use crate::route::EndpointPath;
use crate::upstream::exchange::MESSAGE_BYTES_MAX;

/// Most bytes of the answers of one batch that are collected; further answers are refused one by one.
const ANSWERS_BYTES_MAX: usize = MESSAGE_BYTES_MAX;

const EVENT_STREAM: &str = "text/event-stream";

/// Serves a request: each message of a batch by itself, and anything else as it is.
pub(crate) async fn serve(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: Parts,
    mut inbound: Inbound,
    hold: &Hold,
) -> Response<Body> {
    match take_apart(node, path, &head, &mut inbound).await {
        None => pipeline::serve(node, path, head, inbound).await,
        Some((caller, messages)) => {
            let place = Place::new(node, path, &caller);
            Box::pin(serve_all(place, &head, messages, hold)).await
        }
    }
}

async fn take_apart(
    node: &Node,
    path: EndpointPath<'_>,
    head: &Parts,
    inbound: &mut Inbound,
) -> Option<(Caller, Vec<Bytes>)> {
    let version = head.headers.get(PROTOCOL_VERSION).map(|value| value.to_str().unwrap_or_default());
    if head.method != Method::POST || !batch::is_of(version) || !pipeline::is_json(&head.headers) {
        return None;
    }
    // The body is read for whoever is known, here as there.
    let caller = pipeline::identify(node, path, Shown::of(head)).await.ok()?;
    let body = inbound.gather().await?;
    let messages = if batch::is_array(&body) { batch::split(&body).ok()? } else { return None };
    Some((caller, messages))
}

async fn serve_all(place: Place, head: &Parts, messages: Vec<Bytes>, hold: &Hold) -> Response<Body> {
    let headers = &head.headers;
    let certificate = head.extensions.get::<Arc<ClientCertificate>>();
    let mut tasks = JoinSet::new();
    for message in messages {
        let (place, mut request) = (place.clone(), Request::new(()));
        *request.headers_mut() = headers.clone();
        certificate.map(|certificate| request.extensions_mut().insert(certificate.clone()));
        tasks.spawn(async move { serve_one(&place, request, message).await });
    }
    // Dropped with the request, when the client leaves.
    let all: Vec<(Replies, bool)> = tasks.join_all().await;
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let accepts_events = accepted.into_iter().any(|text| text.contains(EVENT_STREAM) || text.contains("*/*"));
    let streams = all.iter().any(|(_, streams)| *streams);
    let all: Vec<Replies> = all.into_iter().map(|(replies, _)| replies).collect();
    if streams && accepts_events { as_events(all, hold) } else { as_array(all).await }
}

async fn serve_one(place: &Place, mut request: Request<()>, message: Bytes) -> (Replies, bool) {
    let asked = match Message::parse(message.clone()).map(|message| message.kind) {
        Ok(kind @ Kind::Request { .. }) => {
            Some(Asked { id: kind.id().cloned(), era: headers::era_of(request.headers(), &kind) })
        }
        Ok(Kind::Notification { .. } | Kind::Response { .. }) => None,
        Err(_) => Some(Asked { id: None, era: crate::mcp::Era::Legacy }),
    };
    *request.method_mut() = Method::POST;
    // Its answer is read here.
    request.headers_mut().remove(ACCEPT_ENCODING);
    let (head, ()) = request.into_parts();
    let response = pipeline::serve(&place.node, place.path(), head, Inbound::of_message(message)).await;
    let streams = replies::is_stream(&response);
    (Replies::of(response, asked), streams)
}

/// The answers as one array. What servers say besides is for streams.
async fn as_array(all: Vec<Replies>) -> Response<Body> {
    let mut array = vec![b'['];
    for replies in all {
        let room = ANSWERS_BYTES_MAX.saturating_sub(array.len());
        if let Some(answer) = replies.answer(room).await {
            if array.len() > 1 {
                array.push(b',');
            }
            array.extend_from_slice(&answer);
        }
    }
    if array.len() == 1 {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::ACCEPTED;
        return response;
    }
    array.push(b']');
    let mut response = Response::new(Body::full(array.into()));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// Everything that comes, as it comes.
fn as_events(all: Vec<Replies>, hold: &Hold) -> Response<Body> {
    let (events, body) = mpsc::channel(OUT_MAX);
    for mut replies in all {
        let events = events.clone();
        hold.tasks.spawn(async move {
            let left = events.clone();
            let pass = async {
                while let Some(message) = replies.next().await {
                    if events.send(event(&message)).await.is_err() {
                        return;
                    }
                }
            };
            tokio::select! {
                () = left.closed() => {}
                () = pass => {}
            }
        });
    }
    let mut response = Response::new(Body::events(body));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    response
}
