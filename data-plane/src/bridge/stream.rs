//! Streams by which clients hear of changes: `subscriptions/listen` of the modern era, the session's own stream of
//! the legacy one.
//!
//! Always holds: that a list changed is told by comparing what the agent sees before and after a change of
//! configuration, so a change of policy is told as a change of a server is, and a stream needs no server for it. A
//! stream ends properly when its endpoint or agent is gone or the node shuts down.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::{AgentName, EndpointName, TenantName};
use http::Response;
use tokio::sync::{broadcast, mpsc};
use tokio_util::task::AbortOnDropHandle;

use crate::bridge::home::Home;
use crate::bridge::outlet::stream;
use crate::bridge::{translate, watch};
use crate::config::endpoint::{Endpoint, Named};
use crate::config::server::Server;
use crate::config::view::View;
use crate::identity::Identity;
use crate::mcp::message::Params;
use crate::mcp::object::{Object, quote};
use crate::node::Node;
use crate::pipeline::Caller;
use crate::rejection::Rejection;
use crate::reply::{Body, event};
use crate::upstream::exchange::Event;
use crate::upstream::pool::Pooled;

/// How long after a change of configuration lists are compared, so that a burst of changes is told once.
const SETTLE: Duration = Duration::from_millis(20);
/// Events of one stream that may wait for its client; a stream whose client does not keep up waits, and loses none.
const EVENTS_MAX: usize = 8;

/// The lists that a client may hear of: the member of a filter, the notification.
const KINDS: [(&str, &str); 3] = [
    ("toolsListChanged", "notifications/tools/list_changed"),
    ("promptsListChanged", "notifications/prompts/list_changed"),
    ("resourcesListChanged", "notifications/resources/list_changed"),
];

/// Who reads a stream, and so what it is about. It holds no configuration, which it would keep alive.
struct Audience {
    tenant: TenantName,
    endpoint: EndpointName,
    agent: AgentName,
    /// What its token said, where it showed one.
    identity: Option<Arc<Identity>>,
}

impl Audience {
    fn of(caller: &Caller) -> Audience {
        Audience {
            tenant: caller.tenant.name.clone(),
            endpoint: caller.endpoint.name.clone(),
            agent: caller.agent.name.clone(),
            identity: caller.identity.clone(),
        }
    }

    /// What tells whether lists differ; `None` when there is nobody any more to see them.
    fn fingerprints(&self, node: &Node) -> Option<[u64; 3]> {
        let config = node.config();
        let tenant = config.tenants.get(&self.tenant)?;
        let agent = tenant.caller(&self.agent, self.identity.as_deref())?;
        let endpoint = tenant.endpoints.get(&self.endpoint)?;
        let banned = node.bans.servers(&self.tenant);
        Some(
            tenant
                .view(&agent, endpoint, &banned)
                .map(|view: Arc<View>| view.fingerprints())
                .unwrap_or_default(),
        )
    }
}

/// Waits for changes; calls `changed` with the lists that did. Returns when the stream is to end.
async fn follow<F>(node: &Node, audience: &Audience, mut changed: impl FnMut(usize) -> F)
where
    F: Future<Output = bool>,
{
    let mut swaps = node.swaps();
    let Some(mut before) = audience.fingerprints(node) else { return };
    loop {
        tokio::select! {
            swapped = swaps.changed() => if swapped.is_err() { return },
            () = node.stopping.cancelled() => return,
        }
        tokio::time::sleep(SETTLE).await;
        swaps.mark_unchanged();
        let Some(after) = audience.fingerprints(node) else { return };
        for kind in 0..KINDS.len() {
            if before[kind] != after[kind] && !changed(kind).await {
                return;
            }
        }
        before = after;
    }
}

/// Serves `subscriptions/listen`.
pub(crate) fn listen(
    node: &Arc<Node>,
    caller: &Caller,
    id: &Bytes,
    params: &Params,
    resources: Vec<Named>,
) -> Result<Response<Body>, Rejection> {
    let id = String::from_utf8_lossy(id).into_owned();
    let filter = params.notifications.as_ref().and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or("{}");
    let filter = Object::parse(filter).map_err(|error| Rejection::InvalidParams(error.to_string()))?;
    let wanted = KINDS.map(|(member, _)| filter.get(member) == Some("true"));
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    let acknowledged = acknowledgement(&id, wanted, filter.get("resourceSubscriptions"));
    // The channel is new, and has room.
    let _ = sender.try_send(event(acknowledged.as_bytes()));
    let watches = watch::all(node, caller, resources, &id, &sender)?;
    let (node, audience, tasks) = (node.clone(), Audience::of(caller), node.tasks.clone());
    tasks.spawn(async move {
        let _watches = watches;
        let tell = |kind: usize| {
            let meta = format!(r#"{{"_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}"#);
            let note = format!(r#"{{"jsonrpc":"2.0","method":"{}","params":{meta}}}"#, KINDS[kind].1);
            let sender = sender.clone();
            async move { !wanted[kind] || sender.send(event(note.as_bytes())).await.is_ok() }
        };
        tokio::select! {
            () = follow(&node, &audience, tell) => {}
            () = sender.closed() => return,
        }
        let result = format!(
            r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"complete","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}}}}}"#
        );
        let _ = sender.send(event(result.as_bytes())).await;
    });
    Ok(stream(receiver))
}

fn acknowledgement(id: &str, wanted: [bool; 3], resources: Option<&str>) -> String {
    let mut accepted = Object::default();
    for (index, (member, _)) in KINDS.iter().enumerate() {
        if wanted[index] {
            accepted.set(member, "true");
        }
    }
    if let Some(resources) = resources {
        accepted.set("resourceSubscriptions", resources);
    }
    let meta = format!(r#"{{"io.modelcontextprotocol/subscriptionId":{id}}}"#);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/subscriptions/acknowledged","params":{{"_meta":{meta},"notifications":{accepted}}}}}"#
    )
}

/// Serves the own stream of a legacy session. A second one takes the place of the first.
pub(crate) fn open(node: &Arc<Node>, caller: &Caller, home: &Arc<Home>) -> Response<Body> {
    let receiver = home.open_stream();
    let (node, audience, home, tasks) =
        (node.clone(), Audience::of(caller), home.clone(), node.tasks.clone());
    tasks.spawn(async move {
        let Some(sender) = home.streams_to() else { return };
        let tell = |kind: usize| {
            let note = format!(r#"{{"jsonrpc":"2.0","method":"{}"}}"#, KINDS[kind].1);
            let (sender, is_its) = (sender.clone(), home.is_stream(&sender));
            // Another stream took its place, and tells instead.
            async move { is_its && sender.send(event(note.as_bytes())).await.is_ok() }
        };
        tokio::select! {
            () = follow(&node, &audience, tell) => home.close_stream(&sender),
            () = sender.closed() => {}
        }
    });
    stream(receiver)
}

/// Has the own messages of a server's session brought to the client's session, as long as both last. It keeps neither.
pub(crate) fn forward(
    node: &Arc<Node>,
    endpoint: &Arc<Endpoint>,
    home: &Arc<Home>,
    server: &Arc<Server>,
    pooled: &Arc<Pooled>,
) {
    let weak = Arc::downgrade(home);
    home.forward(&server.name, pooled.number, || {
        let (node, endpoint) = (node.clone(), endpoint.clone());
        let (server, mut events, pooled) = (server.clone(), pooled.listen(), Arc::downgrade(pooled));
        let tasks = node.tasks.clone();
        AbortOnDropHandle::new(tasks.spawn(async move {
            loop {
                let event = match events.recv().await {
                    Ok(event) => event,
                    Err(broadcast::error::RecvError::Lagged(_)) => continue,
                    Err(broadcast::error::RecvError::Closed) => return,
                };
                let (Some(home), Some(pooled)) = (weak.upgrade(), pooled.upgrade()) else { return };
                bring(&node, &endpoint, &server, &home, &pooled, event).await;
            }
        }))
    });
}

async fn bring(
    node: &Node,
    endpoint: &Endpoint,
    server: &Arc<Server>,
    home: &Arc<Home>,
    pooled: &Arc<Pooled>,
    event: Event,
) {
    match event {
        Event::Notification(note) => {
            node.notice(server, &note);
            let Some(note) = translate::notification(&note, crate::mcp::Era::Legacy, None, None) else {
                return;
            };
            let note = translate::expose_uris(&note, endpoint, server).unwrap_or(note);
            home.tell(&note);
        }
        Event::Request { id, message } => {
            // Asked outside of any call; other questions may be asked while it waits.
            let (home, pooled) = (home.clone(), pooled.clone());
            tokio::spawn(async move { super::legacy_call::ask_outside(home, pooled, id, message).await });
        }
        Event::Answer(_) => {}
    }
}

/// The notification that a resource changed.
pub(crate) fn updated(uri: &str, subscription: Option<&str>) -> String {
    let meta = subscription
        .map(|id| format!(r#","_meta":{{"io.modelcontextprotocol/subscriptionId":{id}}}"#))
        .unwrap_or_default();
    let uri = quote(uri);
    format!(
        r#"{{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{{"uri":{uri}{meta}}}}}"#
    )
}
