//! What agents ask of a node that follows a control plane of the tests' own.

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use gantry_model::Revision;
use gantry_model::resource::{
    AgentSpec, EndpointSpec, Resource, ServerSpec, Spec, Staleness, TenantSpec, Transport,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control_plane::Cluster;
use super::follower::Following;
use crate::front::{Hold, sse};
use crate::pipeline::{self, Inbound};
use crate::reply::{Body, BodyError};
use crate::route::EndpointPath;

const MODERN: &str = "2026-07-28";

pub(super) fn tenant(name: &str, fail_closed_after_seconds: Option<u32>) -> Resource {
    let staleness = Staleness { fail_closed_after_seconds };
    let spec = Spec::Tenant(TenantSpec { staleness, ..TenantSpec::default() });
    resource(name, name, spec)
}

pub(super) fn resource(tenant: &str, name: &str, spec: Spec) -> Resource {
    Resource { tenant: tenant.parse().expect("a name"), name: name.parse().expect("a name"), spec }
}

/// Two tenants with an endpoint for anybody: `strict` sets a bound of a minute, `lenient` none.
pub(super) fn cluster() -> (Cluster, Revision) {
    let cluster = Cluster::new("one");
    let mut revision = Revision::NONE;
    for (name, bound) in [("strict", Some(60)), ("lenient", None)] {
        cluster.apply(tenant(name, bound));
        let url = "http://127.0.0.1:1/mcp".parse().expect("a URL");
        cluster.apply(resource(name, "server", Spec::Server(ServerSpec::new(Transport::Http { url }))));
        cluster.apply(resource(name, "anonymous", Spec::Agent(AgentSpec::default())));
        let mut endpoint = EndpointSpec::bare("server".parse().expect("a name"));
        endpoint.anonymous = true;
        revision = cluster.apply(resource(name, "tools", Spec::Endpoint(endpoint)));
    }
    (cluster, revision)
}

/// The answer to a request of an agent.
pub(super) async fn ask(
    node: &Following,
    tenant: &str,
    method: &str,
    mut params: Value,
) -> http::Response<Body> {
    params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
    params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let request = http::Request::post("/")
        .header("content-type", "application/json")
        .header("accept", "application/json, text/event-stream")
        .header("mcp-protocol-version", MODERN)
        .header("mcp-method", method);
    let (head, ()) = request.body(()).expect("a request").into_parts();
    let path = EndpointPath { tenant, endpoint: "tools" };
    pipeline::serve(&node.node, path, head, Inbound::of_message(Bytes::from(body.to_string()))).await
}

pub(super) async fn status(node: &Following, tenant: &str) -> u16 {
    ask(node, tenant, "tools/list", json!({})).await.status().as_u16()
}

pub(super) async fn listen(node: &Following, tenant: &str) -> Body {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let response = ask(node, tenant, "subscriptions/listen", wanted).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream", "{}", response.status());
    response.into_body()
}

/// A stream of HTTP+SSE, whose messages come by other requests.
pub(super) async fn open_stream(node: &Following, tenant: &str) -> Body {
    let places = Arc::new(Semaphore::new(1));
    let hold = Hold {
        connection: Arc::new(places.acquire_owned().await.expect("a place")),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let (head, ()) = http::Request::get("/").body(()).expect("a request").into_parts();
    let path = EndpointPath { tenant, endpoint: "tools" };
    let response = sse::open(&node.node, path, &head, hold).await;
    assert_eq!(response.status(), 200);
    response.into_body()
}

/// How a stream ends.
pub(super) async fn end_of(stream: Body) -> Option<BodyError> {
    let mut stream = pin!(stream);
    loop {
        match stream.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(error),
            None => return None,
        }
    }
}
