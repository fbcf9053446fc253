//! A server for tests: answers each request by a function, on loopback, until it is dropped.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Frame;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

pub(crate) struct Peer {
    /// Without a path.
    pub(crate) origin: String,
    _serving: AbortOnDropHandle<()>,
}

/// A request that came; `body` is null when it had none.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Value,
}

pub(crate) type Answer = Response<BoxBody<Bytes, Infallible>>;

impl Peer {
    pub(crate) async fn start(answer: impl Fn(Asked) -> Answer + Clone + Send + Sync + 'static) -> Peer {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let origin = format!("http://{}", listener.local_addr().expect("an address"));
        let serving = tokio::spawn(async move {
            // Dropped with this task, and with them their connections.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let answer = answer.clone();
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let answer = answer.clone();
                    async move {
                        let (head, body) = request.into_parts();
                        let body = body.collect().await?.to_bytes();
                        let answer = answer(Asked {
                            method: head.method,
                            target: head.uri.to_string(),
                            headers: head.headers,
                            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
                        });
                        if let Some(Held(until)) = answer.extensions().get() {
                            until.cancelled().await;
                        }
                        Ok::<_, hyper::Error>(answer)
                    }
                });
                let connection = hyper::server::conn::http1::Builder::new();
                connections.spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        Peer { origin, _serving: AbortOnDropHandle::new(serving) }
    }

    pub(crate) fn uri(&self, path: &str) -> Uri {
        format!("{}{path}", self.origin).parse().expect("a uri")
    }
}

/// An answer of JSON; null is no body.
pub(crate) fn json(status: StatusCode, body: &Value) -> Answer {
    let bytes = if body.is_null() { Bytes::new() } else { body.to_string().into() };
    let mut response = Response::new(Full::new(bytes).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// An answer that does not begin until the token is cancelled.
pub(crate) fn held(until: CancellationToken, mut answer: Answer) -> Answer {
    answer.extensions_mut().insert(Held(until));
    answer
}

#[derive(Clone)]
struct Held(CancellationToken);

/// An answer that is a stream of events, as they are sent; it ends when the sender is dropped.
pub(crate) fn stream() -> (mpsc::UnboundedSender<String>, Answer) {
    let (sender, receiver) = mpsc::unbounded_channel::<String>();
    let frames = UnboundedReceiverStream::new(receiver).map(|text| Ok(Frame::data(Bytes::from(text))));
    let mut response = Response::new(BoxBody::new(StreamBody::new(frames)));
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("text/event-stream"));
    (sender, response)
}
