//! The questions: which era a server speaks, over what, and what it offers.
//!
//! Always holds: a server is asked in one order, whatever a client speaks: `server/discover`, then `initialize` over
//! POST, then, where a POST is not served, HTTP+SSE. A failure to answer is not taken for an answer: a server that
//! was found modern stays so while it cannot be asked.

use std::sync::Arc;

use gantry_model::resource::Transport;
use gantry_model::{Catalog, Definition, SessionCarrier};
use http::StatusCode;
use serde_json::{Value, json};

use super::QUESTION_TIMEOUT;
use super::link::Link;
use crate::config::server::Server;
use crate::mcp::VERSION_MODERN;
use crate::mcp::message::Method;
use crate::node::Node;
use crate::rejection::Upstream;
use crate::upstream::client::{AskError, Conversation, failed, own_opening};
use crate::upstream::session::{LegacySession, Opening};
use crate::upstream::stdio::probe::Probed;

/// Most pages of one list.
const PAGES_MAX: usize = 64;
/// Error codes that only the modern era has: of a header, of a capability, of a version.
const MODERN_CODES: [i64; 3] = [-32020, -32021, -32022];

/// Asks for everything, in both eras where the server speaks both; definitions come from the newer one.
pub(super) async fn ask_all(link: &mut Link) -> Result<Catalog, AskError> {
    let server = link.server.clone();
    let mut catalog = Catalog::empty(server.tenant.clone(), server.name.clone());
    match server.spec.transport {
        Transport::Http { .. } => ask_http(link, &mut catalog).await?,
        Transport::Stdio { .. } => ask_process(link, &mut catalog).await?,
    }
    catalog.check().map_err(|error| failed(error.to_string()))?;
    Ok(catalog)
}

async fn ask_http(link: &mut Link, catalog: &mut Catalog) -> Result<(), AskError> {
    let refusal = ask_modern(link, catalog).await?;
    if !catalog.revisions.is_empty() {
        link.end_session().await;
        // A server of both eras; one that refuses this one is of the modern era only.
        let _ = greet(link, catalog).await;
        return Ok(());
    }
    link.end_stream();
    match (ask_legacy(link, catalog, refusal.is_none()).await, refusal) {
        // What a server of the modern era says of it is nearer the truth than that it knows no `initialize`.
        (Err(_), Some(refusal)) => Err(refusal),
        (asked, _) => asked,
    }
}

/// Asks a server of the modern era; any other leaves the catalog as it is. Returns the error of one that is of this
/// era and does not speak with us.
async fn ask_modern(link: &mut Link, catalog: &mut Catalog) -> Result<Option<AskError>, AskError> {
    let (node, server) = (link.node.clone(), link.server.clone());
    let conversation = Conversation::modern(&node.upstreams, &server, QUESTION_TIMEOUT);
    let discovered = match conversation.ask(Method::Discover, json!({})).await {
        Ok(discovered) => discovered,
        Err(refusal @ AskError::Refused { code, .. }) if MODERN_CODES.contains(&code) => {
            return Ok(Some(refusal));
        }
        Err(error) if is_silence(&error, was_modern(&node, &server)) => return Err(error),
        // Whatever else a server answers, it is not one of this era.
        Err(_) => return Ok(None),
    };
    let versions = discovered["supportedVersions"].as_array();
    if !versions.is_some_and(|versions| versions.iter().any(|version| version == VERSION_MODERN)) {
        return Ok(None);
    }
    // Before the lists, so that no change falls between the two.
    link.listen(&discovered["capabilities"]).await;
    ask_lists(&conversation, &discovered["capabilities"], catalog).await?;
    catalog.revisions.push(VERSION_MODERN.to_owned());
    catalog.discover_result = Some(discovered.to_string().into());
    Ok(None)
}

/// Whether a failure says nothing of the server's era: no other question would fare better, or the server was found
/// to be modern and is only out of order.
fn is_silence(error: &AskError, was_modern: bool) -> bool {
    match error {
        AskError::Failed(_) => true,
        AskError::Refused { .. } => false,
        AskError::Server(Upstream::Unreachable | Upstream::Refused(_)) => true,
        AskError::Server(Upstream::Status(status)) if status.is_client_error() => false,
        AskError::Server(Upstream::Protocol) => false,
        AskError::Server(_) => was_modern,
    }
}

/// What the catalog says, which is where the era of a server is kept.
fn was_modern(node: &Node, server: &Server) -> bool {
    let config = node.config();
    let tenant = config.tenants.get(&server.tenant);
    let offer = tenant.and_then(|tenant| tenant.servers.get(&server.name)?.offer.as_ref());
    offer.is_some_and(|offer| offer.catalog.revisions.iter().any(|revision| revision == VERSION_MODERN))
}

/// Records what a server of both eras says in the legacy one.
async fn greet(link: &Link, catalog: &mut Catalog) -> Result<(), AskError> {
    let opening = Opening { listens: false, ..own_opening(&link.server, QUESTION_TIMEOUT)? };
    let opened = LegacySession::open_over(
        &link.node.upstreams,
        &link.server,
        SessionCarrier::StreamableHttp,
        &opening,
    );
    let session = opened.await.map_err(AskError::Server)?;
    session.close().await;
    record(catalog, &initialized(&session)?, SessionCarrier::StreamableHttp)
}

/// Asks within the session that is open, and opens one where there is none or where it failed.
async fn ask_legacy(link: &mut Link, catalog: &mut Catalog, may_be_sse: bool) -> Result<(), AskError> {
    if let Some((session, carrier)) = link.session()
        && ask_within(&session, carrier, catalog).await.is_ok()
    {
        return Ok(());
    }
    link.end_session().await;
    let (session, carrier) = open(link, may_be_sse).await?;
    let session = link.hold(session, carrier).await;
    let asked = ask_within(&session, carrier, catalog).await;
    if asked.is_err() {
        link.end_session().await;
    }
    asked
}

async fn ask_within(
    session: &Arc<LegacySession>,
    carrier: SessionCarrier,
    catalog: &mut Catalog,
) -> Result<(), AskError> {
    let initialized = initialized(session)?;
    let conversation = Conversation::within(session.clone(), QUESTION_TIMEOUT);
    ask_lists(&conversation, &initialized["capabilities"], catalog).await?;
    record(catalog, &initialized, carrier)
}

/// Opens a session over POST, or else over HTTP+SSE.
async fn open(link: &Link, may_be_sse: bool) -> Result<(LegacySession, SessionCarrier), AskError> {
    let opening = own_opening(&link.server, QUESTION_TIMEOUT)?;
    let over = |carrier| LegacySession::open_over(&link.node.upstreams, &link.server, carrier, &opening);
    let refusal = match over(SessionCarrier::StreamableHttp).await {
        Ok(session) => return Ok((session, SessionCarrier::StreamableHttp)),
        Err(Upstream::Status(status)) if may_be_sse && is_not_served(status) => Upstream::Status(status),
        Err(failure) => return Err(AskError::Server(failure)),
    };
    match over(SessionCarrier::HttpSse).await {
        Ok(session) => Ok((session, SessionCarrier::HttpSse)),
        // There is no stream either: the server is not where it is said to be.
        Err(Upstream::Status(_)) => Err(AskError::Server(refusal)),
        Err(failure) => Err(AskError::Server(failure)),
    }
}

/// How servers of 2024-11-05 answer a POST to the URL of their stream.
fn is_not_served(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED)
}

fn initialized(session: &LegacySession) -> Result<Value, AskError> {
    serde_json::from_slice(&session.initialized).map_err(|_| AskError::Server(Upstream::Protocol))
}

fn record(catalog: &mut Catalog, initialized: &Value, carrier: SessionCarrier) -> Result<(), AskError> {
    let Some(version) = initialized["protocolVersion"].as_str() else {
        return Err(failed("the server's answer to initialize has no protocolVersion"));
    };
    catalog.revisions.push(version.to_owned());
    catalog.carrier = carrier;
    catalog.initialize_result = Some(initialized.to_string().into());
    Ok(())
}

async fn ask_process(link: &mut Link, catalog: &mut Catalog) -> Result<(), AskError> {
    let (node, server) = (link.node.clone(), link.server.clone());
    // A program that was replaced by another is found out by the probe.
    if was_modern(&node, &server) && ask_modern(link, catalog).await.is_ok() && !catalog.revisions.is_empty()
    {
        return Ok(());
    }
    if let Some((session, carrier)) = link.session()
        && ask_within(&session, carrier, catalog).await.is_ok()
    {
        return Ok(());
    }
    link.end_session().await;
    let opening = own_opening(&server, QUESTION_TIMEOUT)?;
    match node.upstreams.stdio.probe(&server, &opening).await.map_err(AskError::Server)? {
        Probed::Modern { process, discovered } => {
            tracing::debug!(server = %server.name, discovers = discovered.is_some(), "the process is modern");
            let asked = ask_modern(link, catalog).await?;
            // It was to live at least as long as it was asked.
            drop(process);
            match asked {
                Some(refusal) => Err(refusal),
                None if catalog.revisions.is_empty() => Err(AskError::Server(Upstream::Protocol)),
                None => Ok(()),
            }
        }
        Probed::Legacy(session) => {
            // What carries a process's session is not told; this is what is told of any that has no URL.
            let carrier = SessionCarrier::StreamableHttp;
            let session = link.hold(*session, carrier).await;
            ask_within(&session, carrier, catalog).await
        }
    }
}

async fn ask_lists(
    conversation: &Conversation<'_>,
    capabilities: &Value,
    catalog: &mut Catalog,
) -> Result<(), AskError> {
    let has = |capability: &str| capabilities.get(capability).is_some_and(|value| !value.is_null());
    if has("tools") {
        catalog.tools = ask_list(conversation, Method::ToolsList, "tools", "name").await?;
    }
    if has("prompts") {
        catalog.prompts = ask_list(conversation, Method::PromptsList, "prompts", "name").await?;
    }
    if has("resources") {
        catalog.resources = ask_list(conversation, Method::ResourcesList, "resources", "uri").await?;
        let templates =
            ask_list(conversation, Method::ResourceTemplatesList, "resourceTemplates", "uriTemplate").await;
        // Many servers have resources and do not know the method.
        catalog.resource_templates = match templates {
            Err(AskError::Refused { .. }) => Vec::new(),
            other => other?,
        };
    }
    Ok(())
}

async fn ask_list(
    conversation: &Conversation<'_>,
    method: Method,
    field: &'static str,
    name: &'static str,
) -> Result<Vec<Definition>, AskError> {
    let mut definitions = Vec::new();
    let mut params = json!({});
    for _ in 0..PAGES_MAX {
        let mut page = conversation.ask(method.clone(), params).await?;
        let Value::Array(elements) = page[field].take() else {
            return Err(failed(format!("the server's answer to {} has no {field}", method.as_str())));
        };
        for element in elements {
            match element[name].as_str() {
                Some(text) => definitions.push(Definition::new(text, element.to_string())),
                None => return Err(failed(format!("an element of {} has no {name}", method.as_str()))),
            }
        }
        match page["nextCursor"].take() {
            Value::String(cursor) => params = json!({"cursor": cursor}),
            _ => return Ok(definitions),
        }
    }
    Err(failed(format!("{} has more than {PAGES_MAX} pages", method.as_str())))
}
