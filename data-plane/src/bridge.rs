//! Carrying messages between hops that do not speak alike: other eras, other transports, several servers at once.
//!
//! Always holds: a legacy session is served at its home, an answer where it is waited for, a parked call where it is
//! parked, everything else where it came; a node that is gone takes only what was under way on it. What policy allows was decided before.

pub(crate) mod asked;
pub(crate) mod call;
pub(crate) mod handoff;
pub(crate) mod home;
pub(crate) mod legacy_call;
pub(crate) mod modern_call;
pub(crate) mod outlet;
pub(crate) mod parked;
pub(crate) mod stream;
pub(crate) mod sweep;
pub(crate) mod tokens;
pub(crate) mod translate;
pub(crate) mod watch;

use std::sync::Arc;

use http::Response;
use http::header::{HeaderMap, HeaderValue};

use crate::bridge::call::{Call, Place, no_capabilities};
use crate::bridge::handoff::{Unserved, hand_over};
use crate::bridge::home::Home;
use crate::bridge::outlet::{Answering, Outlet, accepted, json};
use crate::bridge::parked::Resume;
use crate::bridge::tokens::{State, about, open_state};
use crate::config::endpoint::Named;
use crate::config::server::Server;
use crate::mcp::Era;
use crate::mcp::headers::{PARAM_PREFIX, SESSION_ID};
use crate::mcp::message::{Id, Kind, Message, Method, Params};
use crate::mcp::session::{Bridged, Session, SessionError};
use crate::node::Node;
use crate::pipeline::{Outgoing, Subject, now_seconds};
use crate::rejection::{Rejection, envelope};
use crate::reply::Body;

/// Serves a message, here or where it belongs.
pub(crate) async fn serve(node: &Arc<Node>, outgoing: Outgoing) -> Result<Response<Body>, Rejection> {
    let request = outgoing.received.message.as_ref().map(|message| &message.kind);
    if let Some(Kind::Request { method, params, .. }) = request
        && *method != Method::Listen
        && let Some(token) = &params.request_state
        && let State::Parked { node: holder, id } = open_state(&outgoing.caller, token)?
        && holder != **node.mesh.me()
    {
        tracing::debug!(%holder, id, "a parked call is resumed elsewhere");
        return match hand_over(node, &holder, &outgoing).await {
            Ok(response) => Ok(response),
            // Its node is gone, and the call with it.
            Err(Unserved::NotThere) => Err(Rejection::NothingWaits),
            Err(Unserved::Failed(rejection)) => Err(rejection),
        };
    }
    if let Some(Session::Bridged(bridged)) = outgoing.received.session.as_ref().map(|known| &known.session) {
        let asker = match request {
            Some(Kind::Response { id }) => asked::mark_in(id),
            _ => None,
        };
        let elsewhere = match asker {
            Some(asker) => asked::answer(node, bridged, asker, &outgoing).await?,
            None => serve_at_home(node, bridged, &outgoing).await?,
        };
        if let Some(response) = elsewhere {
            return Ok(response);
        }
    }
    serve_here(node, outgoing).await
}

/// Has a session's request served at its home; `None` when that is here.
async fn serve_at_home(
    node: &Node,
    bridged: &Bridged,
    outgoing: &Outgoing,
) -> Result<Option<Response<Body>>, Rejection> {
    let me: &str = node.mesh.me();
    let mut gone = Vec::new();
    if !node.mesh.is_member(&bridged.home) {
        gone.push(bridged.home.clone());
    }
    // The home, then one other: whoever is chosen when the home is gone.
    for _ in 0..2 {
        let chosen = match gone.is_empty() {
            true => bridged.home.clone(),
            false => rendezvous(node, &bridged.nonce, &gone),
        };
        if chosen == me {
            return Ok(None);
        }
        match hand_over(node, &chosen, outgoing).await {
            Ok(response) => return Ok(Some(response)),
            Err(Unserved::NotThere) => gone.push(chosen),
            Err(Unserved::Failed(rejection)) => return Err(rejection),
        }
    }
    Ok(None)
}

/// The node that a session is at home on when its own is gone: all nodes choose alike.
fn rendezvous(node: &Node, nonce: &str, gone: &[String]) -> String {
    let members = node.mesh.members();
    let living = members.iter().filter(|member| !gone.iter().any(|gone| **gone == ***member));
    let weight =
        |member: &&crate::mesh::Peer| *blake3::hash(format!("{nonce}/{member}").as_bytes()).as_bytes();
    living.max_by_key(weight).unwrap_or(node.mesh.me()).to_string()
}

/// Serves a message on this node.
pub(crate) async fn serve_here(node: &Arc<Node>, outgoing: Outgoing) -> Result<Response<Body>, Rejection> {
    let session = outgoing.received.session.clone();
    let bridged = match session.as_ref().map(|known| &known.session) {
        Some(Session::Bridged(bridged)) => Some(bridged),
        Some(Session::Relayed(_)) => return Err(Rejection::SessionGone),
        None => None,
    };
    let home = bridged.map(|bridged| node.homes.get(bridged));
    let Some(message) = outgoing.received.message.clone() else {
        let (Some(bridged), Some(home), Some(session)) = (bridged, home, &session) else {
            return Err(Rejection::HttpMethod);
        };
        if outgoing.received.method == http::Method::GET {
            return Ok(stream::open(node, &outgoing.caller, &home));
        }
        node.end_session(&session.token).await;
        node.homes.remove(bridged);
        node.upstreams.pool.end_client(&bridged.nonce).await;
        return Ok(Response::new(Body::empty()));
    };
    match &message.kind {
        Kind::Response { id } => {
            if let Some(home) = home {
                home.answer(id, message.body.clone());
            }
            Ok(accepted())
        }
        Kind::Notification { method, params } => {
            if let (Some(home), Some(id)) = (&home, &params.request_id) {
                home.cancel(id);
            }
            if let (Some(home), "notifications/roots/list_changed") = (&home, method.as_str()) {
                // Servers that asked for the roots ask again; one that is gone need not know.
                for pooled in node.upstreams.pool.of_client(&home.bridged.nonce) {
                    let note = message.body.clone();
                    node.tasks.spawn(async move { drop(pooled.session.tell(note).await) });
                }
            }
            Ok(accepted())
        }
        Kind::Request { id, method, params } => match method {
            Method::Initialize => initialize(node, &outgoing, id, params),
            Method::Ping => Ok(result(id, "{}")),
            Method::SetLevel => {
                if let Some(home) = home {
                    home.set_level(params.level.clone());
                }
                Ok(result(id, "{}"))
            }
            Method::Listen => {
                let Subject::Subscribe(resources) = outgoing.subject else { return Err(Rejection::NotReady) };
                stream::listen(node, &outgoing.caller, &id.0, params, resources)
            }
            _ => request(node, outgoing, home, &message).await,
        },
    }
}

/// Begins a session, of which this node is the home.
fn initialize(
    node: &Node,
    outgoing: &Outgoing,
    id: &Id,
    params: &Params,
) -> Result<Response<Body>, Rejection> {
    let caller = &outgoing.caller;
    let (version, greeting) = caller.endpoint.greeting.initialize(params.protocol_version.as_deref());
    let declared = params.capabilities.clone().and_then(|raw| String::from_utf8(raw.into()).ok());
    let declared = declared.and_then(|raw| serde_json::value::RawValue::from_string(raw).ok());
    let mut nonce = [0; 12];
    aws_lc_rs::rand::fill(&mut nonce).map_err(|_| Rejection::NotReady)?;
    let session = Session::Bridged(Box::new(Bridged {
        home: node.mesh.me().to_string(),
        nonce: nonce.iter().map(|byte| format!("{byte:02x}")).collect(),
        version: version.to_owned(),
        capabilities: declared.unwrap_or_else(no_capabilities),
    }));
    let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
    let token = session.seal(&keys.seal, caller.owner(), now_seconds()).map_err(|error| match error {
        SessionError::TooLong => Rejection::InvalidParams("params.capabilities is too large".to_owned()),
        SessionError::Seal(_) => Rejection::NotReady,
    })?;
    let mut response = result(id, &greeting);
    response.headers_mut().insert(SESSION_ID, token.try_into().map_err(|_| Rejection::NotReady)?);
    Ok(response)
}

/// Carries a request to its server, or resumes one that is parked here.
async fn request(
    node: &Arc<Node>,
    outgoing: Outgoing,
    home: Option<Arc<Home>>,
    message: &Message,
) -> Result<Response<Body>, Rejection> {
    let Kind::Request { id, method, params } = &message.kind else { return Ok(accepted()) };
    let answering =
        Answering { id: id.clone(), era: outgoing.received.era, decision_id: outgoing.decision_id.clone() };
    let (outlet, outcome) = Outlet::new(&outgoing.received.headers, answering);
    let mut state = None;
    if let Some(token) = &params.request_state {
        match open_state(&outgoing.caller, token)? {
            State::Parked { id: number, .. } => {
                let resume = Resume {
                    outlet,
                    id: id.clone(),
                    progress_token: params.meta.progress_token.clone(),
                    responses: params.input_responses.clone(),
                };
                let resumed = node.parked.resume(number, &outgoing.caller, &about(message), resume);
                resumed.map_err(|_| Rejection::NothingWaits)?;
                return outcome.respond().await;
            }
            State::Server { server, about: made_for, upstream }
                if made_for == about(message)
                    && outgoing.subject.server().is_some_and(|known| known.name.as_str() == server) =>
            {
                state = upstream;
            }
            // Whoever comes back for an approval has none any more.
            State::Server { .. } | State::Approval { .. } => {
                return Err(Rejection::InvalidParams("requestState is that of another request".to_owned()));
            }
        }
    }
    let (server, inner) = target(&outgoing.subject)?;
    let era = server.era_for(outgoing.received.era).ok_or(Rejection::NotReady)?;
    if let (Some(home), Method::ResourcesSubscribe | Method::ResourcesUnsubscribe, Some(uri)) =
        (&home, method, &params.uri)
        && era == Era::Modern
    {
        return subscribe(node, &outgoing, home, uri, (server, inner), id);
    }
    let pass = server.health.admit().await?;
    let cancelled = node.leaving.child_token();
    if let Some(home) = &home {
        home.begin(id.0.clone(), cancelled.clone());
    }
    let call = Call {
        node: node.clone(),
        server,
        era: outgoing.received.era,
        home,
        method: method.clone(),
        message: message.clone(),
        id: id.clone(),
        progress_token: params.meta.progress_token.clone(),
        inner,
        credential: outgoing.credential,
        mirrored: mirrored(&outgoing.received.headers),
        state,
        outlet,
        cancelled,
        place: Place::Admitted(pass),
        caller: outgoing.caller,
    };
    node.tasks.spawn(call.run(era));
    outcome.respond().await
}

/// Subscribes a legacy session to a resource of a modern server, or ends that.
fn subscribe(
    node: &Arc<Node>,
    outgoing: &Outgoing,
    home: &Arc<Home>,
    uri: &str,
    (server, inner): (Arc<Server>, Option<String>),
    id: &Id,
) -> Result<Response<Body>, Rejection> {
    let is_subscribe = matches!(
        outgoing.received.message.as_ref().map(|message| &message.kind),
        Some(Kind::Request { method: Method::ResourcesSubscribe, .. })
    );
    home.unwatch(uri);
    if is_subscribe {
        let resource = Named { server, name: inner.unwrap_or_default() };
        let watch = watch::one(node, &outgoing.caller, home, resource)?;
        let too_many =
            || Rejection::InvalidParams(format!("a session has at most {} subscriptions", home::WATCHES_MAX));
        home.watch(uri, || watch).ok_or_else(too_many)?;
    }
    Ok(result(id, "{}"))
}

/// The server that a request goes to, and what that calls its subject.
fn target(subject: &Subject) -> Result<(Arc<Server>, Option<String>), Rejection> {
    let server = subject.server().ok_or(Rejection::NotReady)?.clone();
    let inner = match subject {
        Subject::Tool(access) => Some(access.tool.name.to_string()),
        Subject::Prompt(named)
        | Subject::Resource(named)
        | Subject::CompletePrompt(named)
        | Subject::CompleteResource(named)
        | Subject::Task(named) => Some(named.name.clone()),
        Subject::Subscribe(named) => named.first().map(|named| named.name.clone()),
        Subject::Protocol | Subject::Here(_) | Subject::Server(_) => None,
    };
    Ok((server, inner))
}

/// The headers that repeat arguments; they were compared with them, or made of them.
fn mirrored(headers: &HeaderMap) -> HeaderMap<HeaderValue> {
    let wanted = headers.iter().filter(|(name, _)| name.as_str().starts_with(PARAM_PREFIX));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn result(id: &Id, raw: &str) -> Response<Body> {
    json(envelope(Some(id), "result", raw))
}
