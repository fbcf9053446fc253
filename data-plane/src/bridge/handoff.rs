//! Requests that another node received and this one has to serve: of a session whose home it is, or of a call that
//! is parked here. And the same from the other side.
//!
//! Always holds: the node that received a request authenticated it, took its limits and records it; the node that
//! serves it decides and validates again by its own configuration. What comes back is the answer's head, then its
//! body as it is made.

use std::sync::Arc;

use bytes::Bytes;
use gantry_model::{AgentName, EndpointName, TenantName};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::front::{Credentials, Posted, sse};
use crate::identity::Identity;
use crate::mcp::headers::{PARAM_PREFIX, SESSION_ID};
use crate::mesh::{Frames, Peer, Process, Replies, Served, Service};
use crate::node::Node;
use crate::pipeline::{self, Granted, Outgoing};
use crate::rejection::{Rejection, Upstream};
use crate::reply::{Body, BodyError};

/// Parts of an answer that may wait between the mesh and the client.
const PARTS_MAX: usize = 16;

/// A request that is handed over. It holds a session's token, so it cannot be printed.
#[derive(Serialize, Deserialize)]
pub(crate) struct Handoff {
    pub(crate) tenant: TenantName,
    pub(crate) endpoint: EndpointName,
    pub(crate) agent: AgentName,
    /// The id of the key that was shown; absent from nodes of a build before it was told.
    #[serde(default)]
    pub(crate) key: Option<String>,
    /// What the token said that was shown; absent as above.
    #[serde(default)]
    pub(crate) identity: Option<Arc<Identity>>,
    /// The token of a legacy session.
    pub(crate) session: Option<String>,
    /// HTTP's method.
    pub(crate) method: String,
    pub(crate) message: Option<String>,
    /// What of the head the serving node needs.
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) decision_id: String,
    /// What the call was approved as; absent from nodes of a build before there were approvals.
    #[serde(default)]
    pub(crate) granted: Option<Granted>,
}

/// What one node asks of another. It holds what says who calls, so it cannot be printed.
#[derive(Serialize, Deserialize)]
enum Asked {
    /// Serve a request that it received.
    Serve(Handoff),
    /// Take a message for a stream of 2024-11-05 that the other holds.
    Post {
        stream: String,
        /// What says who calls: a secret between nodes, on an encrypted connection.
        credentials: Vec<(String, String)>,
        message: String,
    },
}

/// What all nodes are told. It holds a session's token, so it cannot be printed.
#[derive(Serialize, Deserialize)]
pub(crate) enum Notice {
    /// A session is over, by its token.
    Ended(String),
    /// A request of a session is cancelled, by its id as raw JSON. Nodes of a build before there were approvals hold none.
    Cancelled { session: String, id: String },
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    status: u16,
    content_type: Option<String>,
}

/// Why a request could not be handed over.
pub(crate) enum Unserved {
    /// The node is not there, and got nothing of the request.
    NotThere,
    /// It was there and failed; what it did is not known.
    Failed(Rejection),
}

/// Hands a request to a node and gives its answer.
pub(crate) async fn hand_over(
    node: &Node,
    peer: &str,
    outgoing: &Outgoing,
) -> Result<Response<Body>, Unserved> {
    let failed = || Unserved::Failed(Rejection::Upstream(Upstream::Unreachable));
    let (head, frames) = ask(node, peer, &Asked::Serve(Handoff::of(outgoing))).await?;
    let mut response = Response::new(body_of(frames));
    *response.status_mut() = StatusCode::from_u16(head.status).map_err(|_| failed())?;
    if let Some(content_type) = head.content_type.and_then(|text| HeaderValue::from_str(&text).ok()) {
        response.headers_mut().insert(CONTENT_TYPE, content_type);
    }
    Ok(response)
}

/// Hands a message of 2024-11-05 to the node that holds its stream; gives the status.
pub(crate) async fn post(node: &Node, peer: &str, stream: String, posted: &Posted) -> Result<u16, Unserved> {
    let credentials = posted.credentials.to_pairs();
    let message = String::from_utf8_lossy(&posted.message).into_owned();
    let (head, _) = ask(node, peer, &Asked::Post { stream, credentials, message }).await?;
    Ok(head.status)
}

async fn ask(node: &Node, peer: &str, asked: &Asked) -> Result<(Head, Frames), Unserved> {
    let failed = || Unserved::Failed(Rejection::Upstream(Upstream::Unreachable));
    let opened = node.mesh.open(peer).await.map_err(|_| Unserved::NotThere)?;
    let request = serde_json::to_vec(asked).map_err(|_| failed())?;
    let mut frames = opened.send(request.into()).await.map_err(|_| failed())?;
    let head = frames.next().await.and_then(Result::ok).ok_or_else(failed)?;
    Ok((serde_json::from_slice(&head).map_err(|_| failed())?, frames))
}

fn body_of(mut frames: Frames) -> Body {
    let (sender, receiver) = mpsc::channel(PARTS_MAX);
    tokio::spawn(async move {
        loop {
            let frame = tokio::select! {
                frame = frames.next() => frame,
                // The client left; dropping the frames tells the other node.
                () = sender.closed() => return,
            };
            match frame {
                Some(Ok(part)) => {
                    if sender.send(Ok(part)).await.is_err() {
                        return;
                    }
                }
                Some(Err(error)) => {
                    let _ = sender.send(Err(BodyError::Peer(error))).await;
                    return;
                }
                None => return,
            }
        }
    });
    Body::parts(receiver)
}

impl Handoff {
    fn of(outgoing: &Outgoing) -> Handoff {
        let Outgoing { caller, received, decision_id, granted, .. } = outgoing;
        let wanted =
            |name: &HeaderName| *name == http::header::ACCEPT || name.as_str().starts_with(PARAM_PREFIX);
        let headers = received.headers.iter().filter(|(name, _)| wanted(name));
        let headers =
            headers.filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
        let message = received.message.as_ref();
        Handoff {
            tenant: caller.tenant.name.clone(),
            endpoint: caller.endpoint.name.clone(),
            agent: caller.agent.name.clone(),
            key: caller.key.map(|key| key.to_string()),
            identity: caller.identity.clone(),
            session: received.session.as_ref().map(|session| session.token.to_string()),
            method: received.method.to_string(),
            message: message.map(|message| String::from_utf8_lossy(&message.body).into_owned()),
            headers: headers.collect(),
            decision_id: decision_id.clone(),
            granted: granted.clone(),
        }
    }

    /// The head that the request had, as far as it was handed over.
    pub(crate) fn head(&self) -> Option<(Method, HeaderMap)> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(HeaderName::try_from(name).ok()?, HeaderValue::try_from(value).ok()?);
        }
        if let Some(session) = &self.session {
            headers.insert(SESSION_ID, HeaderValue::try_from(session).ok()?);
        }
        Some((Method::from_bytes(self.method.as_bytes()).ok()?, headers))
    }
}

/// Serves what other nodes hand over.
pub(crate) struct Handed {
    pub(crate) node: Arc<Node>,
}

impl Service for Handed {
    fn exchange(self: Arc<Self>, from: Peer, request: Bytes, replies: Replies) -> Served {
        Box::pin(async move {
            let response = match serde_json::from_slice(&request) {
                Ok(Asked::Serve(handoff)) => pipeline::serve_handed(&self.node, &handoff).await,
                Ok(Asked::Post { stream, credentials, message }) => {
                    let credentials = Credentials::of_pairs(&credentials);
                    let posted = Posted { credentials, message: message.into() };
                    let mut response = Response::new(Body::empty());
                    *response.status_mut() = sse::receive(&self.node, &stream, posted).await;
                    response
                }
                Err(_) => {
                    tracing::warn!(%from, "a request of another node cannot be read");
                    return;
                }
            };
            pass_back(response, replies).await;
        })
    }

    fn notice(&self, from: Peer, process: Process, notice: Bytes) {
        if gantry_limits::message::is_packet(&notice) {
            return self.take_packet(&from, process, &notice);
        }
        match serde_json::from_slice(&notice) {
            Ok(Notice::Ended(token)) => {
                self.node.note_ended(&token);
            }
            Ok(Notice::Cancelled { session, id }) => {
                self.node.held.cancel(&session.into(), &id.into());
            }
            Err(error) => tracing::warn!(%error, "a notice of another node cannot be read"),
        }
    }

    fn datagram(&self, from: Peer, process: Process, bytes: Bytes) {
        self.take_packet(&from, process, &bytes);
    }
}

impl Handed {
    fn take_packet(&self, from: &Peer, process: Process, packet: &[u8]) {
        if !self.node.budgets.receive(from, process, packet) {
            tracing::debug!(%from, "what another node says of limits cannot be read");
        }
    }
}

async fn pass_back(response: Response<Body>, mut replies: Replies) {
    let (head, mut body) = response.into_parts();
    let content_type =
        head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let head = Head { status: head.status.as_u16(), content_type };
    let Ok(head) = serde_json::to_vec(&head) else { return };
    if replies.send(head.into()).await.is_err() {
        return;
    }
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = replies.closed() => return,
        };
        let Some(Ok(frame)) = frame else { return };
        let Ok(part) = frame.into_data() else { continue };
        if replies.send(part).await.is_err() {
            return;
        }
    }
}

impl Notice {
    /// As the mesh carries it.
    pub(crate) fn to_bytes(&self) -> Bytes {
        // Every field has a JSON form.
        serde_json::to_vec(self).unwrap_or_default().into()
    }
}
