//! Tenants that set a bound to how long they are served by what a node last heard.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::Revision;
use gantry_model::resource::{
    AgentSpec, EndpointSpec, Resource, ServerSpec, Spec, Staleness, TenantSpec, Transport,
};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::control_plane::{Cluster, Member};
use super::follower::{DEADLINE, Following};
use crate::front::{Hold, sse};
use crate::pipeline::{self, Inbound};
use crate::reply::{Body, BodyError};
use crate::route::EndpointPath;
use crate::sync::last_known_good::LastKnownGood;

type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

const MODERN: &str = "2026-07-28";
/// Nobody listens there.
const NOWHERE: &str = "http://127.0.0.1:1";
const HOW: LastKnownGood = LastKnownGood::KeyInDataDir;

fn tenant(name: &str, fail_closed_after_seconds: Option<u32>) -> Resource {
    let staleness = Staleness { fail_closed_after_seconds };
    let spec = Spec::Tenant(TenantSpec { description: String::new(), staleness });
    resource(name, name, spec)
}

fn resource(tenant: &str, name: &str, spec: Spec) -> Resource {
    Resource { tenant: tenant.parse().expect("a name"), name: name.parse().expect("a name"), spec }
}

/// Two tenants with an endpoint for anybody: `strict` sets a bound of a minute, `lenient` none.
fn cluster() -> (Cluster, Revision) {
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
async fn ask(node: &Following, tenant: &str, method: &str, mut params: Value) -> http::Response<Body> {
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

async fn status(node: &Following, tenant: &str) -> u16 {
    ask(node, tenant, "tools/list", json!({})).await.status().as_u16()
}

async fn listen(node: &Following, tenant: &str) -> Body {
    let wanted = json!({"notifications": {"toolsListChanged": true}});
    let response = ask(node, tenant, "subscriptions/listen", wanted).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream", "{}", response.status());
    response.into_body()
}

/// A stream of HTTP+SSE, whose messages come by other requests.
async fn open_stream(node: &Following, tenant: &str) -> Body {
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
async fn end_of(stream: Body) -> Option<BodyError> {
    let mut stream = pin!(stream);
    loop {
        match stream.frame().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Some(error),
            None => return None,
        }
    }
}

#[tokio::test]
async fn a_tenant_is_refused_once_the_silence_is_longer_than_it_allows_and_until_it_ends() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let mut member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    member.kill();

    let node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    let silence = node.node.contact.silence();
    assert!(silence < Duration::from_secs(30), "the time before the start counts: {silence:?}");
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (200, 200));
    let (strict, lenient) = (listen(&node, "strict").await, listen(&node, "lenient").await);
    let conversation = open_stream(&node, "strict").await;
    // The bound is reached half a second from now, without anything else that happens.
    let now_ms = crate::sync::last_known_good::now_ms();
    node.node.contact.begin(now_ms - 59_500, now_ms);
    assert_eq!(status(&node, "strict").await, 200);
    let ended = timeout(DEADLINE, end_of(strict)).await?;
    assert!(matches!(ended, Some(BodyError::Cut)), "{ended:?}");
    let ended = timeout(DEADLINE, end_of(conversation)).await?;
    assert!(ended.is_none(), "{ended:?}");

    let refused = ask(&node, "strict", "tools/list", json!({})).await;
    assert_eq!(refused.status(), 503);
    let body = refused.into_body().collect().await.map_err(|error| error.to_string())?.to_bytes();
    let mut body: Value = serde_json::from_slice(&body)?;
    assert!(body["error"]["data"]["decisionId"].take().is_string(), "{body}");
    let message = "this node has heard from no control plane for longer than the tenant allows; try again later, \
                   or at another node";
    let data = json!({"rejection": "stale", "decisionId": null});
    let error = json!({"code": -31504, "message": message, "data": data});
    // Refused before the body was read, so without the request's id.
    assert_eq!(body, json!({"jsonrpc": "2.0", "id": null, "error": error}));

    // A tenant without a bound is served for ever.
    assert_eq!(status(&node, "lenient").await, 200);
    node.node.contact.begin(now_ms - 10 * 24 * 3_600_000, now_ms);
    assert_eq!((status(&node, "strict").await, status(&node, "lenient").await), (503, 200));
    let mut lenient = pin!(lenient);
    let first = lenient.frame().await.ok_or("a frame")?;
    assert!(first.is_ok(), "{first:?}");

    // Any control plane will do, and what begins then is not cut.
    node.node.contact.hears();
    assert_eq!(status(&node, "strict").await, 200);
    let mut strict = pin!(listen(&node, "strict").await);
    assert!(matches!(strict.frame().await, Some(Ok(_))));
    node.kill().await;
    Ok(())
}

#[tokio::test]
async fn a_node_that_starts_long_after_it_heard_refuses_at_once() -> Result {
    let directory = tempfile::tempdir()?;
    let (cluster, revision) = cluster();
    let member = Member::start(&cluster);
    let mut node = Following::start(directory.path(), &HOW, &member.url()).await?;
    node.reaches(revision).await;
    node.end().await;
    drop(member);

    let node = Following::start(directory.path(), &HOW, NOWHERE).await?;
    let now_ms = crate::sync::last_known_good::now_ms();
    for (heard_at_ms, expected) in [
        (now_ms - 50_000, 200),
        (now_ms - 60_000, 503),
        // The clock went back since.
        (now_ms + 60_000, 503),
        (0, 503),
    ] {
        node.node.contact.begin(heard_at_ms, now_ms);
        assert_eq!(status(&node, "strict").await, expected, "heard at {heard_at_ms}, started at {now_ms}");
        assert_eq!(status(&node, "lenient").await, 200);
    }
    node.end().await;
    Ok(())
}
