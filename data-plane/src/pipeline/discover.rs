//! Discover: what a message is about. Lists are answered here, from the recorded catalog; a call finds its tool here.
//!
//! Always holds: a tool is found in the catalog's table, never by asking the server; a list is made of the decisions
//! that calls rest on.

use std::sync::Arc;

use bytes::Bytes;
use gantry_model::nearest::nearest;

use super::authenticate::Authenticated;
use super::{Caller, Received};
use crate::audit::entry::Facts;
use crate::config::view::{ToolAccess, View};
use crate::mcp::Era;
use crate::mcp::json;
use crate::mcp::message::{Kind, Method, Params};
use crate::rejection::Rejection;

/// Most resources that one listen may name.
const LISTEN_RESOURCES_MAX: usize = 256;

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
    /// A list, answered from the catalog: the result as JSON.
    List(Bytes),
    /// A call of a tool.
    Tool(ToolAccess),
    /// A prompt by name.
    Prompt(String),
    /// A resource by URI.
    Resource(String),
    /// A completion for a prompt.
    CompletePrompt(String),
    /// A completion for a resource or template.
    CompleteResource(String),
    /// Resources that the client wants to hear of, and the server as a whole.
    Subscribe { uris: Vec<String>, server: bool },
    /// The server as a whole.
    Server,
}

pub(super) fn discover(
    authenticated: Authenticated,
    received: Received,
    facts: &mut Facts,
) -> Result<Discovered, Rejection> {
    let caller = authenticated.caller;
    facts.era = Some(received.era);
    let subject = match &received.message {
        None => {
            facts.method = Some(format!("{} stream", received.method));
            Subject::Protocol
        }
        Some(message) => match &message.kind {
            Kind::Response => {
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
                check_era(&caller, received.era, method, params)?;
                find(&caller, received.era, method, params)?
            }
        },
    };
    Ok(Discovered { caller, received, subject, _private: () })
}

fn find(caller: &Caller, era: Era, method: &Method, params: &Params) -> Result<Subject, Rejection> {
    Ok(match method {
        Method::Initialize | Method::Discover => Subject::Protocol,
        Method::Ping if era == Era::Legacy => Subject::Protocol,
        Method::Ping | Method::SetLevel | Method::ResourcesSubscribe | Method::ResourcesUnsubscribe
            if era == Era::Modern =>
        {
            return Err(Rejection::Method(method.as_str().to_owned()));
        }
        Method::Listen if era == Era::Legacy => return Err(Rejection::Method(method.as_str().to_owned())),
        Method::ToolsList | Method::PromptsList | Method::ResourcesList | Method::ResourceTemplatesList => {
            if params.cursor {
                return Err(Rejection::InvalidParams("the cursor is not one of this list".to_owned()));
            }
            let view = view(caller)?;
            Subject::List(view.list(method, era).unwrap_or_default())
        }
        Method::ToolsCall => {
            let name = required("name", &params.name)?;
            let view = view(caller)?;
            let access = view.tool(name).ok_or_else(|| Rejection::UnknownTool {
                name: name.to_owned(),
                nearest: nearest(name, view.allowed_tools()).map(str::to_owned),
            })?;
            Subject::Tool(access.clone())
        }
        Method::PromptsGet => Subject::Prompt(required("name", &params.name)?.to_owned()),
        Method::ResourcesRead => Subject::Resource(required("uri", &params.uri)?.to_owned()),
        Method::ResourcesSubscribe | Method::ResourcesUnsubscribe => {
            Subject::Subscribe { uris: vec![required("uri", &params.uri)?.to_owned()], server: false }
        }
        Method::CompletionComplete => completion(params)?,
        Method::Listen => Subject::Subscribe { uris: listened(params)?, server: true },
        Method::SetLevel
        | Method::Ping
        | Method::TasksGet
        | Method::TasksUpdate
        | Method::TasksCancel
        | Method::TasksList
        | Method::TasksResult
        | Method::Other(_) => Subject::Server,
    })
}

/// The era belongs to the hop: this release forwards only to a server that speaks the client's.
fn check_era(caller: &Caller, era: Era, method: &Method, params: &Params) -> Result<(), Rejection> {
    let Some(offer) = &caller.endpoint.server.offer else { return Ok(()) };
    let versions = &offer.catalog.revisions;
    if versions.is_empty() || versions.iter().any(|version| Era::of_version(version) == era) {
        return Ok(());
    }
    match (era, method) {
        // What tells a client that may fall back that it should: a server of that era does not know the method.
        (Era::Modern, Method::Discover) => Err(Rejection::Method(method.as_str().to_owned())),
        (Era::Modern, _) => Err(Rejection::Version {
            requested: params.meta.protocol_version.clone().unwrap_or_default(),
            supported: versions.clone(),
        }),
        (Era::Legacy, _) => Err(Rejection::Version {
            requested: crate::mcp::VERSION_LEGACY.to_owned(),
            supported: versions.clone(),
        }),
    }
}

fn view(caller: &Caller) -> Result<Arc<View>, Rejection> {
    caller.tenant.view(&caller.agent, &caller.endpoint.server).ok_or(Rejection::NotReady)
}

fn required<'a>(field: &str, value: &'a Option<String>) -> Result<&'a str, Rejection> {
    value.as_deref().ok_or_else(|| Rejection::InvalidParams(format!("params.{field} is missing")))
}

fn completion(params: &Params) -> Result<Subject, Rejection> {
    let invalid =
        || Rejection::InvalidParams("params.ref must be a prompt's name or a resource's uri".to_owned());
    let reference = params.reference.as_ref().ok_or_else(invalid)?;
    let text = std::str::from_utf8(reference).map_err(|_| invalid())?;
    let [kind, name, uri] = json::fields(text, &["type", "name", "uri"]).map_err(|_| invalid())?;
    let string = |raw: Option<&serde_json::value::RawValue>| {
        raw.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
    };
    match (string(kind).as_deref(), string(name), string(uri)) {
        (Some("ref/prompt"), Some(name), _) => Ok(Subject::CompletePrompt(name)),
        (Some("ref/resource"), _, Some(uri)) => Ok(Subject::CompleteResource(uri)),
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
