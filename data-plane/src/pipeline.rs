//! The order of a request: authenticate, discover, guard, authorise, validate, inspect, check, approve, limit, credential,
//! redeem, forward, redact, audit.
//!
//! Always holds: the order stands here and nowhere else. Each stage returns a value that only it can build and that
//! the next demands; skipping or reordering a stage does not compile. The audit wraps them all: the entry is open
//! before the first stage and is closed after the last, with the answer's body or with the rejection.

mod approve;
mod authenticate;
mod authorise;
mod check;
mod credential;
mod discover;
mod forward;
mod guard;
mod inspect;
mod leash;
mod limit;
mod receive;
mod redact;
mod validate;

pub(crate) use approve::Granted;
pub(crate) use authenticate::Standing;
pub(crate) use discover::Subject;
pub(crate) use forward::Outgoing;
use forward::Place;
use leash::{Answering, leashed, on_leash};
pub(crate) use receive::{Front, Inbound, REQUEST_BODY_MAX, is_json};

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_model::key::KeyId;
use gantry_model::{SessionId, UserId};
use http::Response;
use http::request::Parts;

use crate::audit::entry::{Entry, Facts, Outcome};
use crate::bans::Who;
use crate::bridge::handoff::Handoff;
use crate::config::Config;
use crate::config::caller::Agent;
use crate::config::endpoint::Endpoint;
use crate::config::tenant::Tenant;
use crate::front::Credentials;
use crate::identity::certificate::ClientCertificate;
use crate::identity::{Identity, Principal};
use crate::mcp::Era;
use crate::mcp::message::{Id, Kind, Message, Method};
use crate::mcp::seal::Owner;
use crate::mcp::session::Session;
use crate::node::Node;
use crate::rejection::{Context, Rejection};
use crate::reply::Body;
use crate::route::EndpointPath;

/// Who calls where, under which configuration. Everything in it belongs to one revision.
pub(crate) struct Caller {
    pub(crate) config: Arc<Config>,
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) endpoint: Arc<Endpoint>,
    pub(crate) agent: Arc<Agent>,
    /// The key that it showed.
    pub(crate) key: Option<KeyId>,
    /// What the token said that it showed.
    pub(crate) identity: Option<Arc<Identity>>,
    /// The agent, and for whom it acts, as one text.
    principal: Arc<str>,
    /// When what it showed ends, in seconds since 1970.
    ends_at: Option<u64>,
}

/// What of a request says who calls.
#[derive(Clone, Copy)]
pub(crate) struct Shown<'a> {
    pub(crate) headers: &'a http::HeaderMap,
    pub(crate) query: Option<&'a str>,
    /// That of the connection, where it began with one.
    pub(crate) certificate: Option<&'a Arc<ClientCertificate>>,
}

/// A message as it was received, on a hop of an era.
pub(crate) struct Received {
    pub(crate) era: Era,
    pub(crate) headers: http::HeaderMap,
    /// The session that it belongs to, when it says one.
    pub(crate) session: Option<ClientSession>,
    /// `None`: the client opens (GET) or ends (DELETE) a legacy stream or session.
    pub(crate) message: Option<Message>,
    pub(crate) method: http::Method,
    pub(crate) front: Front,
}

/// A session as its client holds it.
#[derive(Clone)]
pub(crate) struct ClientSession {
    pub(crate) token: Arc<str>,
    pub(crate) session: Session,
}

impl Caller {
    /// Whom a ban would stop.
    pub(crate) fn who(&self) -> Who {
        Who::agent(&self.tenant.name, &self.principal(), self.key)
    }

    /// The agent, and for whom it acts.
    pub(crate) fn principal(&self) -> Principal {
        Principal { agent: self.agent.name.clone(), user: self.user().cloned() }
    }

    /// For whom it acts.
    pub(crate) fn user(&self) -> Option<&UserId> {
        self.identity.as_ref().and_then(|identity| identity.user.as_ref())
    }

    /// The same as one text, which it shares.
    pub(crate) fn principal_id(&self) -> &Arc<str> {
        &self.principal
    }

    /// When what it showed ends, in seconds since 1970.
    fn expires_at(&self) -> Option<u64> {
        self.ends_at
    }

    /// Whom a token belongs to.
    pub(crate) fn owner(&self) -> Owner<'_> {
        Owner {
            tenant: self.tenant.name.as_str(),
            endpoint: self.endpoint.name.as_str(),
            principal: &self.principal,
        }
    }
}

impl<'a> Shown<'a> {
    /// By a request.
    pub(crate) fn of(head: &'a Parts) -> Shown<'a> {
        let certificate = head.extensions.get();
        Shown { headers: &head.headers, query: head.uri.query(), certificate }
    }
}

impl ClientSession {
    /// Whether it is with the gateway, not with a server.
    fn is_bridged(&self) -> bool {
        matches!(self.session, Session::Bridged(_))
    }
}

impl Received {
    /// The request's id, when it is a request.
    pub(crate) fn id(&self) -> Option<&Id> {
        self.message.as_ref().and_then(|message| message.kind.id())
    }

    /// The tool that it calls, as agents name it.
    fn called(&self) -> Option<&str> {
        match self.message.as_ref().map(|message| &message.kind) {
            Some(Kind::Request { method: Method::ToolsCall, params, .. }) => params.name.as_deref(),
            _ => None,
        }
    }

    /// What names its session in records.
    fn session_id(&self, caller: &Caller) -> Option<SessionId> {
        self.session.as_ref().map(|known| known.session.id(caller.owner()))
    }

    /// Whether it asks for a list that is answered from the catalog.
    fn asks_for_list(&self) -> bool {
        let kind = self.message.as_ref().map(|message| &message.kind);
        matches!(kind, Some(Kind::Request { method, .. }) if method.is_list())
    }
}

/// Serves one request of an agent: as it came over HTTP, or as another front made it of a message.
pub(crate) async fn serve(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: Parts,
    mut inbound: Inbound,
) -> Response<Body> {
    let Ok(mut entry) = node.audit.open().await else {
        // The node is going down; there is no record because nothing was done.
        return unavailable();
    };
    let mut answering = Answering::unknown();
    match run(node, path, head, &mut inbound, &mut entry, &mut answering).await {
        Ok(redacted) => leashed(node, answering, redacted.respond(node, entry)),
        Err(rejection) => {
            let response = reject(entry, &rejection, &answering);
            inbound.discard().await;
            response
        }
    }
}

/// Who calls, for a front that asks before it takes messages. Nothing is recorded: every message is, in [`serve`].
pub(crate) async fn identify(
    node: &Node,
    path: EndpointPath<'_>,
    shown: Shown<'_>,
) -> Result<Caller, Rejection> {
    let authenticated = authenticate::authenticate(node, path, shown, &mut Facts::default()).await?;
    Ok(authenticated.caller)
}

/// Lets a caller in whose messages come later, by a connection that stays. The record says by which.
pub(crate) async fn admit(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    shown: Shown<'_>,
    opened: (&str, http::StatusCode),
) -> Result<Caller, Response<Body>> {
    let Ok(mut entry) = node.audit.open().await else { return Err(unavailable()) };
    let facts = &mut entry.facts;
    facts.method = Some(opened.0.to_owned());
    match authenticate::authenticate(node, path, shown, facts).await {
        Ok(authenticated) => {
            facts.status = Some(opened.1.as_u16());
            entry.close(Outcome::Ok);
            Ok(authenticated.caller)
        }
        Err(rejection) => Err(reject(entry, &rejection, &Answering::unknown())),
    }
}

/// Refuses a request for an endpoint before the first stage.
pub(crate) async fn refuse(node: &Arc<Node>, rejection: &Rejection) -> Response<Body> {
    let Ok(mut entry) = node.audit.open().await else {
        return unavailable();
    };
    entry.facts.revision = node.config().revision;
    reject(entry, rejection, &Answering::unknown())
}

fn reject(entry: Entry, rejection: &Rejection, answering: &Answering) -> Response<Body> {
    let context =
        Context { id: answering.id.as_ref(), era: answering.era, decision_id: &entry.facts.decision_id };
    let response = rejection.respond(context);
    entry.reject(rejection, response.status().as_u16());
    response
}

async fn run(
    node: &Arc<Node>,
    path: EndpointPath<'_>,
    head: Parts,
    inbound: &mut Inbound,
    entry: &mut Entry,
    answering: &mut Answering,
) -> Result<redact::Redacted, Rejection> {
    let credentials = Credentials::of(&head.headers, &head.extensions);
    let certificate = credentials.certificate().cloned();
    let authenticated = authenticate::authenticate(node, path, Shown::of(&head), &mut entry.facts).await?;
    answering.knows(node, &authenticated.caller, credentials);
    let received = receive::receive(node, &authenticated, head, inbound, answering).await?;
    let authenticated = if received.asks_for_list() && settle(node, &authenticated.caller).await {
        // The answer is to be of the configuration that came meanwhile.
        let shown = Shown { headers: &received.headers, query: None, certificate: certificate.as_ref() };
        authenticate::authenticate(node, path, shown, &mut entry.facts).await?
    } else {
        authenticated
    };
    let discovered = discover::discover(node, authenticated, received, &mut entry.facts)?;
    let leash = node.bans.leash(discovered.who());
    let served = async {
        let guarded = guard::guard(discovered, &entry.facts)?;
        let authorised = authorise::authorise(guarded, &mut entry.facts)?;
        let inspected = inspect::inspect(validate::validate(authorised)?, &mut entry.facts)?;
        let checked = match check::check(inspected, &mut entry.facts).await? {
            check::Passed::AsItIs(checked) => checked,
            check::Passed::Changed(changed) => {
                let authorised = authorise::authorise(guard::again(changed), &mut entry.facts)?;
                check::asked(inspect::inspect(validate::validate(authorised)?, &mut entry.facts)?)
            }
        };
        let approved = approve::approve(node, checked, &mut entry.facts).await?;
        let credentialed = credential::credential(limit::limit(node, approved).await?)?;
        let redeemed = approve::redeem(node, credentialed, &mut entry.facts).await?;
        let about = (&*entry.facts.decision_id, &entry.facts.checks);
        let forwarded = forward::forward(node, redeemed, Place::Anywhere, about).await?;
        Ok(redact::redact(forwarded))
    };
    on_leash(leash, served, answering).await
}

/// Serves a request that another node received, authenticated, counted and records.
pub(crate) async fn serve_handed(node: &Arc<Node>, handoff: &Handoff) -> Response<Body> {
    let mut answering = Answering::unknown();
    match run_handed(node, handoff, &mut answering).await {
        Ok(redacted) => leashed(node, answering, redacted.hand_back()),
        Err(rejection) => {
            let Answering { id, era, .. } = &answering;
            rejection.respond(Context { id: id.as_ref(), era: *era, decision_id: &handoff.decision_id })
        }
    }
}

async fn run_handed(
    node: &Arc<Node>,
    handoff: &Handoff,
    answering: &mut Answering,
) -> Result<redact::Redacted, Rejection> {
    let mut facts = Facts::default();
    let authenticated = authenticate::vouched(node, handoff)?;
    answering.vouched(&authenticated.caller);
    let received = receive::handed(node, &authenticated, handoff, answering)?;
    let discovered = discover::discover(node, authenticated, received, &mut facts)?;
    let leash = node.bans.leash(discovered.who());
    let served = async {
        let authorised = authorise::authorise(guard::guard(discovered, &facts)?, &mut facts)?;
        let inspected = inspect::inspect(validate::validate(authorised)?, &mut facts)?;
        let approved = approve::vouched(check::asked(inspected), handoff.granted.as_ref())?;
        let credentialed = credential::credential(limit::counted(approved))?;
        let redeemed = approve::redeem(node, credentialed, &mut facts).await?;
        let about = (&*handoff.decision_id, &facts.checks);
        let forwarded = forward::forward(node, redeemed, Place::Here, about).await?;
        Ok(redact::redact(forwarded))
    };
    on_leash(leash, served, answering).await
}

async fn settle(node: &Node, caller: &Caller) -> bool {
    let mut waited = false;
    for server in &caller.endpoint.servers {
        waited |= node.discovery.settle(&server.tenant, &server.name).await;
    }
    waited
}

/// Seconds since 1970.
pub(crate) fn now_seconds() -> u64 {
    now_ms() / 1_000
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn unavailable() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response
}

/// Closes an entry whose answer is already whole.
fn close(mut entry: Entry, response: &Response<Body>, outcome: Outcome) {
    entry.facts.status = Some(response.status().as_u16());
    entry.close(outcome);
}
