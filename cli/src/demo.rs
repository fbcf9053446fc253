//! The demo MCP server of `gantry dev`: a few tools over Streamable HTTP on loopback, in both eras, without state
//! per client.
//!
//! Always holds: it listens on loopback and refuses what comes from a web page; a request has at most
//! [`REQUEST_BYTES_MAX`] bytes. Its notes live in memory and are the same after every start. It has no sessions, no
//! streams and no authentication of its own: it is there to be governed.

mod notes;
mod reply;
mod tools;

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

use notes::Notes;
use reply::Reply;

/// Most bytes of a request: its tools take short texts.
const REQUEST_BYTES_MAX: usize = 256 * 1024;
/// Most connections at once: the one node that calls it pools far fewer.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may take to send its headers.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait when a connection cannot be accepted, such as for want of a descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A running demo server. It ends when this is dropped.
pub(crate) struct DemoServer {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl DemoServer {
    /// Starts the server on a free port of loopback.
    pub(crate) async fn start() -> io::Result<DemoServer> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(DemoServer { address, task: tokio::spawn(accept(listener)) })
    }

    /// The server's MCP endpoint.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

impl Drop for DemoServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener) {
    let notes = Arc::new(Notes::default());
    let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    // Dropped with this task, the set ends every connection.
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(permit) = permits.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let notes = notes.clone();
                connections.spawn(async move {
                    serve(stream, notes).await;
                    drop(permit);
                });
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn serve(stream: TcpStream, notes: Arc<Notes>) {
    let service = service_fn(move |request| {
        let notes = notes.clone();
        async move { Ok::<_, Infallible>(answer(request, &notes).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    // A client that leaves is no event here.
    let _ = connection.await;
}

async fn answer(request: Request<Incoming>, notes: &Notes) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    if head.headers.contains_key(ORIGIN) {
        // Only web pages send an origin, and none has business here.
        return plain(StatusCode::FORBIDDEN);
    }
    if head.uri.path() != "/mcp" {
        return plain(StatusCode::NOT_FOUND);
    }
    if head.method != Method::POST {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED);
        response.headers_mut().insert(ALLOW, http::HeaderValue::from_static("POST"));
        return response;
    }
    match Limited::new(body, REQUEST_BYTES_MAX).collect().await {
        Ok(body) => respond(&head.headers, &body.to_bytes(), notes),
        Err(_) => plain(StatusCode::PAYLOAD_TOO_LARGE),
    }
}

fn respond(headers: &HeaderMap, body: &[u8], notes: &Notes) -> Response<Full<Bytes>> {
    match reply::reply(headers, body, notes) {
        Reply::Accepted => plain(StatusCode::ACCEPTED),
        Reply::Message { status, message } => {
            let mut response = Response::new(Full::new(Bytes::from(message.to_string())));
            *response.status_mut() = status;
            response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
            response
        }
    }
}

fn plain(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::new()));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, Value, json};

    use super::*;
    use crate::mcp::{Client, McpError, Revision, Target};

    fn client(server: &DemoServer) -> Result<Client, Box<dyn std::error::Error>> {
        Ok(Client::new(Target { url: server.url().parse()?, key: None, certificate: None })?)
    }

    fn arguments(value: Value) -> Map<String, Value> {
        value.as_object().cloned().unwrap_or_default()
    }

    #[tokio::test]
    async fn a_tool_answers_alike_in_both_eras() -> Result<(), Box<dyn std::error::Error>> {
        let server = DemoServer::start().await?;
        let client = client(&server)?;
        let sum = arguments(json!({"a": 2, "b": 0.5}));
        for revision in [None, Some(Revision::Modern), Some("2025-06-18".parse()?)] {
            let result = client.call_tool("add", &sum, revision).await?;
            assert_eq!(result["structuredContent"], json!({"sum": 2.5}), "{revision:?}");
            let modern = revision.is_none_or(|revision| revision == Revision::Modern);
            assert_eq!(result.get("resultType").is_some(), modern);
        }
        Ok(())
    }

    #[tokio::test]
    async fn a_deleted_note_is_gone() -> Result<(), Box<dyn std::error::Error>> {
        let server = DemoServer::start().await?;
        let client = client(&server)?;
        let note = arguments(json!({"id": 1}));
        let read = client.call_tool("read_note", &note, None).await?;
        assert_eq!(read["isError"], json!(false));
        let deleted = client.call_tool("delete_note", &note, None).await?;
        assert_eq!(deleted["content"][0]["text"], json!("Deleted note 1."));
        let read = client.call_tool("read_note", &note, None).await?;
        assert_eq!(read["isError"], json!(true));
        assert_eq!(read["content"][0]["text"], json!("There is no note 1; list_notes shows the notes."));
        Ok(())
    }

    #[tokio::test]
    async fn an_unknown_tool_is_a_protocol_error() -> Result<(), Box<dyn std::error::Error>> {
        let server = DemoServer::start().await?;
        let Err(McpError::Refused(refusal)) = client(&server)?.call_tool("ad", &Map::new(), None).await
        else {
            return Err("answered".into());
        };
        assert_eq!((refusal.code, refusal.message.as_str()), (-32602, "Unknown tool: ad"));
        Ok(())
    }
}
