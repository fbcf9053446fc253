//! Discover: what a message is about. Lists are made here, from the recorded catalogs; a call finds its tool here.
//!
//! Always holds: a name is found in the endpoint's table, never by asking a server; a list is made of the decisions
//! that calls rest on.

use std::sync::Arc;

use bytes::Bytes;
use gantry_model::nearest::nearest;
use gantry_model::{DefinitionKind, ServerName};
use serde_json::value::RawValue;

use super::authenticate::Authenticated;
use super::{Caller, Received, now_seconds};
use crate::audit::entry::Facts;
use crate::bans::Who;
use crate::config::endpoint::Named;
use crate::config::server::{Server, Withheld};
use crate::config::view::{LIST_TTL_MS, List, Page, ToolAccess, View};
use crate::mcp::Era;
use crate::mcp::json;
use crate::mcp::message::{Kind, Method, Params};
use crate::mcp::object::{Object, quote};
use crate::mcp::seal::Purpose;
use crate::node::Node;
use crate::rejection::Rejection;

/// Most resources that one listen may name.
const LISTEN_RESOURCES_MAX: usize = 256;
/// How long a cursor is good for, in seconds: a client that pages does not sleep in between.
const CURSOR_SECONDS: u64 = 3_600;

/// Proof that the message's subject is known. Only this stage builds it.
pub(super) struct Discovered {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    _private: (),
}

/// What a message is about.
pub(crate) enum Subject {
    /// Housekeeping between client and server, which names nothing: initialize, ping, notifications, answers.
    Protocol,
    /// What the node itself answers.
    Here(Made),
    /// A call of a tool.
    Tool(ToolAccess),
    /// A prompt.
    Prompt(Named),
    /// A resource, by its URI.
    Resource(Named),
    /// A completion for a prompt.
    CompletePrompt(Named),
    /// A completion for a resource or template.
    CompleteResource(Named),
    /// Resources that the client wants to hear of.
    Subscribe(Vec<Named>),
    /// A task, by its server's id.
    Task(Named),
    /// A server as a whole.
    Server(Arc<Server>),
}

/// A result as JSON.
pub(crate) enum Made {
    /// All of it.
    Whole(Bytes),
    /// A page of a list, and what follows it.
    Page(Arc<Page>, String),
}

impl Discovered {
    /// A request that was discovered, with other arguments: it is about the same.
    pub(super) fn again(caller: Caller, received: Received, subject: Subject) -> Discovered {
        Discovered { caller, received, subject, _private: () }
    }

    /// Whom a ban would stop.
    pub(super) fn who(&self) -> Who {
        let session = self.received.session_id(&self.caller);
        Who { session, servers: self.servers(), ..self.caller.who() }
    }

    /// The servers to which something of the message goes.
    fn servers(&self) -> Vec<ServerName> {
        match &self.subject {
            Subject::Subscribe(named) => named.iter().map(|named| named.server.name.clone()).collect(),
            Subject::Protocol => {
                let is_bridged = self.received.session.as_ref().is_some_and(|known| known.is_bridged());
                let relaying = self.caller.endpoint.relays(self.received.era).filter(|_| !is_bridged);
                relaying.map(|server| server.name.clone()).into_iter().collect()
            }
            subject => subject.server().map(|server| server.name.clone()).into_iter().collect(),
        }
    }
}

impl Subject {
    /// The server that it concerns, when it is one.
    pub(crate) fn server(&self) -> Option<&Arc<Server>> {
        match self {
            Subject::Protocol | Subject::Here(_) => None,
            Subject::Tool(access) => Some(&access.server),
            Subject::Prompt(named)
            | Subject::Resource(named)
            | Subject::CompletePrompt(named)
            | Subject::CompleteResource(named)
            | Subject::Task(named) => Some(&named.server),
            Subject::Subscribe(named) => match named.as_slice() {
                [one] => Some(&one.server),
                _ => None,
            },
            Subject::Server(server) => Some(server),
        }
    }
}

pub(super) fn discover(
    node: &Node,
    authenticated: Authenticated,
    received: Received,
    facts: &mut Facts,
) -> Result<Discovered, Rejection> {
    let caller = authenticated.caller;
    facts.era = Some(received.era);
    facts.session = received.session_id(&caller);
    let subject = match &received.message {
        None => {
            facts.method = Some(format!("{} stream", received.method));
            Subject::Protocol
        }
        Some(message) => match &message.kind {
            Kind::Response { .. } => {
                facts.method = Some("response".to_owned());
                Subject::Protocol
            }
            Kind::Notification { method, .. } => {
                facts.method = Some(method.as_str().to_owned());
                Subject::Protocol
            }
            Kind::Request { method, params, .. } => {
                facts.method = Some(method.as_str().to_owned());
                facts.target =
                    params.name.clone().or_else(|| params.uri.clone()).or_else(|| params.task_id.clone());
                facts.arguments = params.arguments.clone();
                find(node, &caller, received.era, method, params)?
            }
        },
    };
    if let Some(server) = subject.server() {
        facts.server = Some(server.name.to_string());
    }
    Ok(Discovered { caller, received, subject, _private: () })
}

fn find(
    node: &Node,
    caller: &Caller,
    era: Era,
    method: &Method,
    params: &Params,
) -> Result<Subject, Rejection> {
    let unknown = || Rejection::Method(method.as_str().to_owned());
    if !method.is_of(era) {
        return Err(unknown());
    }
    Ok(match method {
        Method::Ping => Subject::Protocol,
        Method::Initialize => {
            // What is said of a server that nobody asked yet would be wrong.
            view(node, caller)?;
            Subject::Protocol
        }
        Method::Discover => {
            view(node, caller)?;
            Subject::Here(Made::Whole(caller.endpoint.greeting.discover.clone().into()))
        }
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::ResourceTemplatesList => {
            let view = view(node, caller)?;
            let list = view.list(method).ok_or_else(unknown)?;
            Subject::Here(page(caller, era, list, params)?)
        }
        Method::ToolsCall => {
            let name = required("name", &params.name)?;
            let view = view(node, caller)?;
            let access = view.tool(name).ok_or_else(|| unknown_tool(caller, &view, name))?;
            Subject::Tool(access.clone())
        }
        Method::PromptsGet => Subject::Prompt(prompt(caller, required("name", &params.name)?)?),
        Method::ResourcesRead => Subject::Resource(resource(caller, era, required("uri", &params.uri)?)?),
        Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            Subject::Subscribe(vec![resource(caller, era, required("uri", &params.uri)?)?])
        }
        Method::CompletionComplete => completion(caller, era, params)?,
        Method::Listen => {
            let uris = listened(params)?;
            let named = uris.iter().map(|uri| resource(caller, era, uri));
            Subject::Subscribe(named.collect::<Result<_, _>>()?)
        }
        Method::SetLevel => match caller.endpoint.relays(era) {
            Some(server) => Subject::Server(server.clone()),
            None => Subject::Protocol,
        },
        Method::TasksGet | Method::TasksUpdate | Method::TasksCancel if era == Era::Modern => {
            check_extension(params)?;
            Subject::Task(task(caller, required("taskId", &params.task_id)?)?)
        }
        Method::TasksGet
        | Method::TasksUpdate
        | Method::TasksCancel
        | Method::TasksList
        | Method::TasksResult
        | Method::Other(_) => Subject::Server(whole(caller, era).ok_or_else(unknown)?),
    })
}

/// The one server of an endpoint, for what this gateway does not know: it cannot be brought from one era to the other.
fn whole(caller: &Caller, era: Era) -> Option<Arc<Server>> {
    caller.endpoint.only().filter(|server| server.era_for(era) == Some(era)).cloned()
}

fn view(node: &Node, caller: &Caller) -> Result<Arc<View>, Rejection> {
    let banned = node.bans.servers(&caller.tenant.name);
    caller.tenant.view(&caller.agent, &caller.endpoint, &banned).ok_or(Rejection::NotReady)
}

fn required<'a>(field: &str, value: &'a Option<String>) -> Result<&'a str, Rejection> {
    value.as_deref().ok_or_else(|| Rejection::InvalidParams(format!("params.{field} is missing")))
}

/// The result of a list method: a page, and what follows it.
fn page(caller: &Caller, era: Era, list: &List, params: &Params) -> Result<Made, Rejection> {
    let invalid =
        || Rejection::InvalidParams("the cursor is not one of this list; ask from its start".to_owned());
    let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
    let cursor = |index: usize| format!("{:x}/{index}", list.fingerprint);
    let index = match &params.cursor {
        None => 0,
        Some(token) => {
            let opened = keys.seal.open(Purpose::Cursor, caller.owner(), token, now_seconds());
            let opened = String::from_utf8(opened.map_err(|_| invalid())?).map_err(|_| invalid())?;
            let index = opened.rsplit('/').next().and_then(|index| index.parse().ok()).ok_or_else(invalid)?;
            // The list changed meanwhile: its pages are others.
            if opened == cursor(index) { index } else { return Err(invalid()) }
        }
    };
    let (page, more) = list.page(index).ok_or_else(invalid)?;
    let mut tail = String::new();
    if more {
        let expires = now_seconds() + CURSOR_SECONDS;
        let next = keys.seal.seal(Purpose::Cursor, caller.owner(), expires, cursor(index + 1).as_bytes());
        let next = next.map_err(|_| Rejection::NotReady)?;
        tail.push_str(&format!(r#","nextCursor":"{next}""#));
    }
    if era == Era::Modern {
        // Private: the list depends on who asks.
        tail.push_str(&format!(r#","resultType":"complete","ttlMs":{LIST_TTL_MS},"cacheScope":"private""#));
    }
    let away = |server: &&Arc<Server>| server.offer.is_none() || server.health.is_away();
    let away = caller.endpoint.servers.iter().filter(away).map(|server| quote(server.name.as_str()));
    let away = away.collect::<Vec<_>>().join(",");
    if !away.is_empty() {
        tail.push_str(&format!(r#","_meta":{{"dev.gantry/unavailable":[{away}]}}"#));
    }
    tail.push('}');
    Ok(Made::Page(page, tail))
}

fn unknown_tool(caller: &Caller, view: &View, name: &str) -> Rejection {
    match caller.endpoint.withheld(name) {
        Some((server, why)) => withheld(DefinitionKind::Tool, name, server, why),
        None => Rejection::UnknownTool {
            name: name.to_owned(),
            nearest: nearest(name, view.allowed_tools()).map(str::to_owned),
        },
    }
}

fn withheld(kind: DefinitionKind, name: &str, server: &Server, why: Withheld) -> Rejection {
    Rejection::Withheld { kind, name: name.to_owned(), server: server.name.to_string(), why }
}

/// What its server offers under the name is not withheld.
fn released(named: Named, kind: DefinitionKind, asked: &str) -> Result<Named, Rejection> {
    match named.server.withheld(kind, &named.name) {
        Some(why) => Err(withheld(kind, asked, &named.server, why)),
        None => Ok(named),
    }
}

fn prompt(caller: &Caller, name: &str) -> Result<Named, Rejection> {
    let named = caller.endpoint.prompt(name).ok_or_else(|| unknown_prompt(name))?;
    released(named, DefinitionKind::Prompt, name)
}

fn unknown_prompt(name: &str) -> Rejection {
    Rejection::InvalidParams(format!("unknown prompt {name:?}"))
}

fn resource(caller: &Caller, era: Era, uri: &str) -> Result<Named, Rejection> {
    let unknown = || Rejection::UnknownResource { uri: uri.to_owned(), era };
    released(caller.endpoint.resource(uri).ok_or_else(unknown)?, DefinitionKind::Resource, uri)
}

/// The extension that the methods of tasks belong to.
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// Whoever does not know tasks would not know what to do with the answer.
fn check_extension(params: &Params) -> Result<(), Rejection> {
    let capabilities = params.meta.capabilities.as_ref().and_then(|raw| std::str::from_utf8(raw).ok());
    let capabilities = capabilities.and_then(|raw| Object::parse(raw).ok()).unwrap_or_default();
    match capabilities.object("extensions").get(TASKS) {
        Some(_) => Ok(()),
        None => Err(Rejection::Extension(TASKS)),
    }
}

/// The task behind the id that the agent holds.
fn task(caller: &Caller, token: &str) -> Result<Named, Rejection> {
    let unknown = || Rejection::InvalidParams("there is no such task of this agent".to_owned());
    let keys = caller.config.keys.as_ref().ok_or(Rejection::NotReady)?;
    let opened = keys.seal.open(Purpose::Task, caller.owner(), token, now_seconds());
    let opened = String::from_utf8(opened.map_err(|_| unknown())?).map_err(|_| unknown())?;
    let (server, name) = opened.split_once('/').ok_or_else(unknown)?;
    let server = caller.endpoint.server(server).ok_or_else(unknown)?.clone();
    Ok(Named { server, name: name.to_owned() })
}

fn completion(caller: &Caller, era: Era, params: &Params) -> Result<Subject, Rejection> {
    let invalid =
        || Rejection::InvalidParams("params.ref must be a prompt's name or a resource's uri".to_owned());
    let reference = params.reference.as_ref().ok_or_else(invalid)?;
    let text = std::str::from_utf8(reference).map_err(|_| invalid())?;
    let [kind, name, uri] = json::fields(text, &["type", "name", "uri"]).map_err(|_| invalid())?;
    let string = |raw: Option<&RawValue>| raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok());
    match (string(kind).as_deref(), string(name), string(uri)) {
        (Some("ref/prompt"), Some(name), _) => Ok(Subject::CompletePrompt(prompt(caller, &name)?)),
        (Some("ref/resource"), _, Some(uri)) => Ok(Subject::CompleteResource(resource(caller, era, &uri)?)),
        _ => Err(invalid()),
    }
}

fn listened(params: &Params) -> Result<Vec<String>, Rejection> {
    let invalid = |message: &str| Rejection::InvalidParams(message.to_owned());
    let Some(filter) = &params.notifications else { return Ok(Vec::new()) };
    let text = std::str::from_utf8(filter).map_err(|_| invalid("params.notifications must be an object"))?;
    let [uris] = json::fields(text, &["resourceSubscriptions"])
        .map_err(|_| invalid("params.notifications must be an object"))?;
    let uris: Vec<String> = match uris {
        None => Vec::new(),
        Some(raw) => serde_json::from_str(raw.get())
            .map_err(|_| invalid("params.notifications.resourceSubscriptions must be a list of URIs"))?,
    };
    if uris.len() > LISTEN_RESOURCES_MAX {
        return Err(Rejection::InvalidParams(format!(
            "a listen names at most {LISTEN_RESOURCES_MAX} resources"
        )));
    }
    Ok(uris)
}
