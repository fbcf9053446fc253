//! A Streamable HTTP server, built on rmcp, that offers everything the official conformance suite calls.
//!
//! One endpoint serves every protocol revision, or those of one [`Era`]: sessions for the revisions up to 2025-11-25,
//! none from 2026-07-28 on. It listens on 127.0.0.1 only,
//! but for [`Server::start_at`], and all its connections end with the [`Server`].
//! It does not authenticate anybody and it keeps nothing on disk.

mod catalog;
mod changes;
mod dialog;
mod era;
mod handler;
mod input;
mod plain;
mod rounds;
mod session;
mod tasks;

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

pub use era::Era;
use handler::{Handler, Shared};

/// The one path that is served.
const PATH: &str = "/mcp";

/// Open connections at once; more wait in the kernel's queue. The conformance suite opens about ten.
const CONNECTIONS_MAX: usize = 512;

/// Largest body of a request; the suite's largest is some KiB.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A running fixture server; dropping it closes the listener and every connection.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: CancellationToken,
    accepting: JoinHandle<()>,
}

/// Why the fixture server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The embedded list of tools, prompts and resources is not what the code expects.
    #[error("the fixture's catalog is not valid")]
    Catalog(#[source] serde_json::Error),
    /// The key that protects the state of a call in several rounds was refused.
    #[error("the fixture's state key is not valid")]
    StateKey(#[source] rmcp::model::RequestStateError),
    /// The address cannot be bound.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

type Service = StreamableHttpService<Handler, LocalSessionManager>;

impl Server {
    /// Starts the server on 127.0.0.1, with every revision; port 0 takes a free one.
    ///
    /// # Errors
    /// When the port cannot be bound, or the embedded catalog is broken.
    pub async fn start(port: u16) -> Result<Self, StartError> {
        Self::start_as(Era::Dual, port).await
    }

    /// As [`Server::start`], with the revisions of one era.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_as(era: Era, port: u16) -> Result<Self, StartError> {
        Self::start_at(era, (Ipv4Addr::LOCALHOST, port).into()).await
    }

    /// As [`Server::start`], with the revisions of one era, at an address of a namespace of the test's own.
    ///
    /// # Errors
    /// As [`Server::start`].
    pub async fn start_at(era: Era, at: SocketAddr) -> Result<Self, StartError> {
        let shared = Arc::new(Shared::new()?);
        let listen_error = |source| StartError::Listen { address: at, source };
        let listener = TcpListener::bind(at).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let stop = CancellationToken::new();
        let mut config = StreamableHttpServerConfig::default();
        config.cancellation_token = stop.clone();
        config.allowed_hosts.push(address.ip().to_string());
        let serving = Arc::clone(&shared);
        let service = StreamableHttpService::new(
            move || Ok(Handler::new(Arc::clone(&serving))),
            Arc::new(LocalSessionManager::default()),
            config,
        );
        let accepting = tokio::spawn(accept(listener, era, service, stop.clone()));
        Ok(Self { address, shared, stop, accepting })
    }

    /// The URL of the MCP endpoint.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}{PATH}", self.address)
    }

    /// Has a tool describe itself otherwise from now on, as a server does that was taken over.
    pub fn describe(&self, tool: &str, description: &str) {
        self.shared.changes().describe(tool, description);
    }

    /// How often a tool was called with these arguments.
    #[must_use]
    pub fn calls(&self, tool: &str, arguments: &Value) -> usize {
        self.shared.changes().calls(tool, arguments)
    }

    /// Stops the server and waits until its connections are closed.
    pub async fn stop(mut self) {
        self.stop.cancel();
        // The task neither panics nor is it aborted before this, so there is no error to report.
        let _ = (&mut self.accepting).await;
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, era: Era, service: Service, stop: CancellationToken) {
    // Dropping the set at the end of this function aborts every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, era, service.clone()));
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, era: Era, service: Service) {
    let respond = service_fn(move |request| {
        let service = service.clone();
        async move { Ok::<_, Infallible>(answer(era, &service, request).await) }
    });
    // An error here says that the client left or spoke no HTTP: its concern, and it has been told.
    let _ = auto::Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), respond).await;
}

async fn answer(
    era: Era,
    service: &Service,
    request: Request<Incoming>,
) -> Response<BoxBody<Bytes, Infallible>> {
    if request.uri().path() != PATH {
        return empty(StatusCode::NOT_FOUND);
    }
    let (head, body) = request.into_parts();
    let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
        return empty(StatusCode::PAYLOAD_TOO_LARGE);
    };
    let request = Request::from_parts(head, body.to_bytes());
    match era.refusal(&request) {
        Some(refusal) => refusal.map(|body| Full::new(body).boxed()),
        None => service.handle(request.map(Full::new)).await,
    }
}

fn empty(status: StatusCode) -> Response<BoxBody<Bytes, Infallible>> {
    let mut response = Response::new(Full::default().boxed());
    *response.status_mut() = status;
    response
}
