//! Watching resources at their servers, for clients of either era.
//!
//! Always holds: a watch lasts as long as its handle, and is begun again when its server drops it; what it tells has
//! the URI that the agent uses. It never asks for lists.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;

use crate::bans::Who;
use crate::bridge::call::no_capabilities;
use crate::bridge::stream::updated;
use crate::config::endpoint::{Endpoint, Named};
use crate::config::server::Server;
use crate::identity::Principal;
use crate::mcp::message::Method;
use crate::mcp::object::Object;
use crate::mcp::{Era, VERSION_MODERN};
use crate::node::Node;
use crate::pipeline::Caller;
use crate::rejection::{Rejection, Upstream};
use crate::reply::event;
use crate::upstream::exchange::{Ask, Event};
use crate::upstream::modern;
use crate::upstream::pool::SessionKey;
use crate::upstream::session::{AskFailure, Opening};

/// First pause before a watch that ended is begun again; doubles up to [`RETRY_MAX`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Longest pause.
const RETRY_MAX: Duration = Duration::from_secs(60);

/// One server's resources, watched for one principal.
struct Watch {
    node: Arc<Node>,
    endpoint: Arc<Endpoint>,
    principal: Principal,
    server: Arc<Server>,
    uris: Vec<String>,
    credential: Option<(HeaderName, HeaderValue)>,
    told: Told,
}

/// Where updates go.
enum Told {
    /// A listen of the modern era, by its id as raw JSON.
    Listen { id: String, events: mpsc::Sender<Bytes> },
    /// The own stream of a legacy session.
    Session(std::sync::Weak<crate::bridge::home::Home>),
}

/// Watches the resources of a listen.
pub(crate) fn all(
    node: &Arc<Node>,
    caller: &Caller,
    resources: Vec<Named>,
    id: &str,
    events: &mpsc::Sender<Bytes>,
) -> Result<Vec<AbortOnDropHandle<()>>, Rejection> {
    let mut by_server: BTreeMap<String, (Arc<Server>, Vec<String>)> = BTreeMap::new();
    for Named { server, name } in resources {
        by_server.entry(server.name.to_string()).or_insert_with(|| (server, Vec::new())).1.push(name);
    }
    let watches = by_server.into_values().map(|(server, uris)| {
        let told = Told::Listen { id: id.to_owned(), events: events.clone() };
        start(node, caller, server, uris, told)
    });
    watches.collect()
}

/// Watches one resource of a modern server for a legacy session.
pub(crate) fn one(
    node: &Arc<Node>,
    caller: &Caller,
    home: &Arc<crate::bridge::home::Home>,
    resource: Named,
) -> Result<AbortOnDropHandle<()>, Rejection> {
    let Named { server, name } = resource;
    start(node, caller, server, vec![name], Told::Session(Arc::downgrade(home)))
}

fn start(
    node: &Arc<Node>,
    caller: &Caller,
    server: Arc<Server>,
    uris: Vec<String>,
    told: Told,
) -> Result<AbortOnDropHandle<()>, Rejection> {
    let credential = server.credential_header()?;
    let watch = Watch {
        node: node.clone(),
        endpoint: caller.endpoint.clone(),
        principal: caller.principal(),
        server,
        uris,
        credential,
        told,
    };
    Ok(AbortOnDropHandle::new(node.tasks.spawn(watch.run())))
}

impl Watch {
    async fn run(self) {
        let mut pause = RETRY_FIRST;
        loop {
            let began = tokio::time::Instant::now();
            let (bans, server) = (&self.node.bans, &self.server);
            bans.until_free(&server.tenant, &server.name).await;
            let banned = bans.leash(Who::server(&server.tenant, &server.name));
            let watching = async {
                match self.server.era_for(Era::Modern) {
                    Some(Era::Modern) => self.modern().await,
                    Some(Era::Legacy) => self.legacy().await,
                    None => Err(Upstream::Unreachable),
                }
            };
            let ended = tokio::select! {
                biased;
                _ = banned => continue,
                ended = watching => ended,
            };
            if let Err(failure) = ended {
                tracing::debug!(server = %self.server.name, ?failure, "a watch of resources ended");
            }
            if began.elapsed() > RETRY_MAX {
                pause = RETRY_FIRST;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(u64::from(self.server.spec.timeout_ms))
    }

    async fn modern(&self) -> Result<(), Upstream> {
        let id = self.node.upstreams.next_id();
        let params = json!({
            "notifications": {"resourceSubscriptions": &self.uris},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": VERSION_MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
            },
        });
        let body = json!({"jsonrpc": "2.0", "id": id, "method": "subscriptions/listen", "params": params});
        let headers: HeaderMap = self.credential.clone().into_iter().collect();
        let ask = Ask { id, method: Method::Listen, headers, body: body.to_string().into() };
        let mut exchange = modern::ask(&self.node.upstreams, &self.server, &ask, self.timeout()).await?;
        while let Some(event) = exchange.next().await {
            if let Event::Notification(note) = event? {
                self.tell(&note).await;
            }
        }
        Ok(())
    }

    async fn legacy(&self) -> Result<(), Upstream> {
        let opening = Opening {
            capabilities: no_capabilities(),
            credential: self.credential.clone(),
            listens: true,
            timeout: self.timeout(),
        };
        let upstreams = &self.node.upstreams;
        let key = SessionKey::new(&self.server, &self.principal, &opening, None);
        let pooled = upstreams.pool.get(upstreams, &self.server, &key, &opening).await?;
        let mut events = pooled.listen();
        for uri in &self.uris {
            let id = pooled.session.next_id();
            let body =
                json!({"jsonrpc": "2.0", "id": id, "method": "resources/subscribe", "params": {"uri": uri}});
            let (method, headers) = (Method::ResourcesSubscribe, HeaderMap::new());
            let ask = Ask { id, method, headers, body: body.to_string().into() };
            match pooled.session.ask(&ask, self.timeout()).await {
                Ok(exchange) => drop(exchange.answer().await?),
                Err(AskFailure::Failed(failure)) => return Err(failure),
                Err(AskFailure::Expired) => return Err(Upstream::Unreachable),
            }
        }
        loop {
            match events.recv().await {
                Ok(Event::Notification(note)) => self.tell(&note).await,
                Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => return Ok(()),
            }
        }
    }

    /// Tells of an update; of anything else, nothing.
    async fn tell(&self, note: &Bytes) {
        let text = std::str::from_utf8(note).unwrap_or("{}");
        let message = Object::parse(text).unwrap_or_default();
        if message.text("method").as_deref() != Some("notifications/resources/updated") {
            return;
        }
        let Some(uri) = message.object("params").text("uri") else { return };
        let exposed = self.endpoint.expose_uri(&self.server, &uri);
        match &self.told {
            // Others may have subscribed to more in the same session.
            _ if !self.uris.contains(&uri) => {}
            Told::Listen { id, events } => {
                // A client that left ends the watch itself.
                let _ = events.send(event(updated(&exposed, Some(id)).as_bytes())).await;
            }
            Told::Session(home) => {
                home.upgrade().map(|home| home.tell(updated(&exposed, None).as_bytes()));
            }
        }
    }
}
