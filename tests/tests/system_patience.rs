//! Servers that answer with JSON begin their answer when they are done. Until then the deadline is kept, and a client
//! that leaves or cancels ends the work at the server, whichever eras meet.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream;
use gantry_tests::agent::{Agent, Answer, LEGACY, Message, Protocol};
use gantry_tests::eventually::eventually;
use gantry_tests::governed::Governed;
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Legacy,
    Modern,
}

/// What a server keeps back of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holds {
    Everything,
    Body,
}

const KINDS: [(&str, Speaks, Holds); 4] = [
    ("old", Speaks::Legacy, Holds::Everything),
    ("old-begun", Speaks::Legacy, Holds::Body),
    ("new", Speaks::Modern, Holds::Everything),
    ("new-begun", Speaks::Modern, Holds::Body),
];

/// What a server hears of a prompt.
#[derive(Debug, PartialEq)]
enum Heard {
    /// It is asked for, by the id.
    Asked(Value),
    /// `notifications/cancelled`, with the id.
    Cancelled(Value),
    /// Whoever waited for the answer is gone.
    Left,
}

/// A server with one prompt, which it never gives.
struct Slow {
    name: &'static str,
    url: String,
    speaks: Speaks,
    heard: mpsc::UnboundedReceiver<Heard>,
    // Dropped with this, the tasks end.
    _tasks: JoinSet<()>,
}

type Body = BoxBody<Bytes, Infallible>;

/// Tells that the answer is waited for no longer.
struct Waited(mpsc::UnboundedSender<Heard>);

impl Drop for Waited {
    fn drop(&mut self) {
        let _ = self.0.send(Heard::Left);
    }
}

impl Slow {
    async fn start((name, speaks, holds): (&'static str, Speaks, Holds)) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("an address"));
        let (sender, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let sender = sender.clone();
                let service = service_fn(move |request| answer(speaks, holds, sender.clone(), request));
                let connection = hyper::server::conn::http1::Builder::new();
                let serving = connection.serve_connection(TokioIo::new(stream), service);
                connections.spawn(async move { drop(serving.await) });
            }
        });
        Self { name, url, speaks, heard, _tasks: tasks }
    }

    /// The server with an endpoint of its own, where messages are carried as they are never relayed, and one where
    /// they are when eras agree.
    async fn apply(&self, governed: &Governed, timeout_ms: u32) {
        let Self { name, url, .. } = self;
        let documents = format!(
            "kind: Server\ntenant: dev\nname: {name}\nspec: {{url: '{url}', timeout_ms: {timeout_ms}}}\n---\n\
             kind: Endpoint\ntenant: dev\nname: {name}\nspec: {{servers: [{name}], naming: prefixed}}\n---\n\
             kind: Endpoint\ntenant: dev\nname: bare-{name}\nspec: {{servers: [{name}]}}\n---\n\
             kind: Policy\ntenant: dev\nname: use-{name}\nspec:\n  cedar: permit(principal, action, resource in \
             Server::\"{name}\");\n"
        );
        governed.apply(&documents).await;
        let list = Message::modern("prompts/list", json!({})).with_key(governed.key());
        eventually("the server to be known", PATIENCE, async || {
            let answer = self.agent(governed).await.ask(&list).await.expect("an answer").json();
            (answer["result"]["prompts"][0]["name"] == self.prompt()).then_some(())
        })
        .await;
    }

    async fn agent(&self, governed: &Governed) -> Agent {
        governed.connect(Protocol::Http1).await.at(&format!("/dev/{}/mcp", self.name))
    }

    /// What agents call its prompt.
    fn prompt(&self) -> String {
        format!("{}__p", self.name)
    }

    async fn next(&mut self) -> Heard {
        timeout(PATIENCE, self.heard.recv()).await.expect("in time").expect("the server runs")
    }

    /// Waits for a prompt to be asked for; returns the id.
    async fn asked(&mut self) -> Value {
        loop {
            if let Heard::Asked(id) = self.next().await {
                return id;
            }
        }
    }

    /// Waits until the server knows that a request is over, by what its era says it with.
    async fn stopped(&mut self, id: Value) {
        let wanted = match self.speaks {
            Speaks::Legacy => Heard::Cancelled(id),
            Speaks::Modern => Heard::Left,
        };
        while self.next().await != wanted {}
    }
}

async fn answer(
    speaks: Speaks,
    holds: Holds,
    heard: mpsc::UnboundedSender<Heard>,
    request: Request<Incoming>,
) -> Result<Response<Body>, hyper::Error> {
    if request.method() != Method::POST {
        return Ok(response(StatusCode::METHOD_NOT_ALLOWED, Bytes::new()));
    }
    let body = request.into_body().collect().await?.to_bytes();
    let message: Value = serde_json::from_slice(&body).expect("JSON");
    let result = match (speaks, message["method"].as_str().expect("a method")) {
        (Speaks::Modern, "server/discover") => {
            json!({"supportedVersions": ["2026-07-28"], "capabilities": {"prompts": {}}})
        }
        (Speaks::Legacy, "initialize") => {
            json!({"protocolVersion": LEGACY, "capabilities": {"prompts": {}}, "serverInfo": {"name": "slow"}})
        }
        (_, "prompts/list") => json!({"prompts": [{"name": "p"}]}),
        (_, "prompts/get") => {
            // Whether the test listens still is not the server's business.
            let _ = heard.send(Heard::Asked(message["id"].clone()));
            return Ok(hold(holds, Waited(heard)).await);
        }
        (_, "notifications/cancelled") => {
            let _ = heard.send(Heard::Cancelled(message["params"]["requestId"].clone()));
            return Ok(response(StatusCode::ACCEPTED, Bytes::new()));
        }
        _ if message["id"].is_null() => return Ok(response(StatusCode::ACCEPTED, Bytes::new())),
        _ => {
            let error = json!({"code": -32601, "message": "unknown"});
            let error = json!({"jsonrpc": "2.0", "id": message["id"], "error": error});
            return Ok(response(StatusCode::NOT_FOUND, error.to_string().into()));
        }
    };
    let result = json!({"jsonrpc": "2.0", "id": message["id"], "result": result});
    let mut response = response(StatusCode::OK, result.to_string().into());
    if message["method"] == "initialize" {
        response.headers_mut().insert("mcp-session-id", http::HeaderValue::from_static("one"));
    }
    Ok(response)
}

fn response(status: StatusCode, body: Bytes) -> Response<Body> {
    let mut response = Response::new(Full::new(body).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/json"));
    response
}

async fn hold(holds: Holds, waited: Waited) -> Response<Body> {
    match holds {
        Holds::Everything => {
            std::future::pending::<()>().await;
            drop(waited);
            response(StatusCode::OK, Bytes::new())
        }
        Holds::Body => {
            let frames = stream::pending::<Result<Frame<Bytes>, Infallible>>().map(move |frame| {
                let _ = &waited;
                frame
            });
            let mut begun = response(StatusCode::OK, Bytes::new());
            *begun.body_mut() = BoxBody::new(StreamBody::new(frames));
            begun.headers_mut().insert("content-length", http::HeaderValue::from_static("100"));
            begun
        }
    }
}

/// A legacy client's session with an endpoint.
struct Session {
    key: String,
    id: String,
}

impl Session {
    async fn open(governed: &Governed, slow: &Slow) -> Self {
        let params = json!({"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
        let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
        let message = Message::new(initialize.to_string()).with_key(governed.key());
        let answer = slow.agent(governed).await.ask(&message).await.expect("an answer");
        let id = answer.header("mcp-session-id").expect("a session").to_owned();
        Self { key: governed.key().to_owned(), id }
    }

    fn message(&self, body: &Value) -> Message {
        Message::legacy(body).with_key(&self.key).with("mcp-session-id", &self.id)
    }

    fn get(&self, prompt: &str) -> Message {
        self.message(&json!({"jsonrpc": "2.0", "id": 7, "method": "prompts/get", "params": {"name": prompt}}))
    }
}

fn check_late(answer: &Answer) {
    let mut error = answer.json()["error"].clone();
    error["data"].take();
    let message = "the server did not answer within 500 ms";
    assert_eq!(error, json!({"code": -31502, "message": message, "data": null}));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_kept_and_told_to_a_server_that_has_not_answered_to_the_end() {
    let governed = Governed::start().await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut slow = Slow::start(kind).await;
        slow.apply(&governed, 500).await;
        let session = Session::open(&governed, &slow).await;
        let modern = |name| Message::modern("prompts/get", json!({"name": name})).with_key(governed.key());
        for message in [session.get(&slow.prompt()), modern(slow.prompt())] {
            let mut agent = slow.agent(&governed).await;
            let answer = timeout(PATIENCE, agent.ask(&message)).await.expect("in time").expect("an answer");
            check_late(&answer);
            let id = slow.asked().await;
            slow.stopped(id).await;
        }
        if slow.speaks == Speaks::Modern {
            // Relayed, where nothing but the body's end can say that there is nothing to seal in it.
            let mut agent = slow.agent(&governed).await.at(&format!("/dev/bare-{}/mcp", slow.name));
            let message = modern("p".to_owned());
            let answer = timeout(PATIENCE, agent.ask(&message)).await.expect("in time").expect("an answer");
            check_late(&answer);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_or_cancels_ends_the_work_of_a_server_that_has_not_answered() {
    let governed = Governed::start().await;
    for kind in KINDS {
        println!("{kind:?}");
        let mut slow = Slow::start(kind).await;
        slow.apply(&governed, 60_000).await;
        let message = Message::modern("prompts/get", json!({"name": slow.prompt()})).with_key(governed.key());
        let mut agent = slow.agent(&governed).await;
        let asking = tokio::spawn(async move { agent.ask(&message).await.map(|answer| answer.status) });
        let id = slow.asked().await;
        asking.abort();
        slow.stopped(id).await;

        let session = Session::open(&governed, &slow).await;
        let (get, mut agent) = (session.get(&slow.prompt()), slow.agent(&governed).await);
        let asking = tokio::spawn(async move { agent.ask(&get).await.map(|answer| answer.status) });
        let id = slow.asked().await;
        let params = json!({"requestId": 7});
        let cancel = session
            .message(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": params}));
        let cancelled = slow.agent(&governed).await.ask(&cancel).await.expect("an answer");
        assert_eq!(cancelled.status, 202);
        slow.stopped(id).await;
        // The call ends at once, with no result of the server's.
        timeout(PATIENCE, asking).await.expect("in time").expect("no panic").expect("an answer");
    }
}
