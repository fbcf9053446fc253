//! The MCP server that load tests put behind every target: stateless, both eras, and much faster
//! than any proxy in front of it, because its answers are made before the first call.
//!
//! What always holds: one process, one thread, at most `CONNECTION_COUNT_MAX` connections, no
//! state but a count of tool calls (`GET /calls`), which shows that a proxy passed calls on.
//! It is strict about what a gateway must get right on its own hop: in the modern era, headers
//! and body have to agree. It does no authentication, and is not a server for any other use.

mod body;
pub mod catalog;
pub mod child;
mod protocol;

use std::{
    convert::Infallible,
    io::{self, Write},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Limited};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};

use self::{body::Pieces, catalog::Catalog, protocol::Reply};

/// Where MCP is served.
pub const MCP_PATH: &str = "/mcp";
/// Where the count of tool calls is served, as a decimal number.
pub const CALLS_PATH: &str = "/calls";
/// Many times the connections of any scenario; more is a leak in what is tested.
const CONNECTION_COUNT_MAX: usize = 4_096;
/// Far above any request of the driver, far below what would hurt.
const REQUEST_BYTES_MAX: usize = 1 << 20;

/// A bound upstream that does not serve yet.
pub struct Upstream {
    listener: TcpListener,
    shared: Arc<Shared>,
}

struct Shared {
    catalog: Catalog,
    call_count: AtomicU64,
    /// How long a call of a tool takes.
    delay: Duration,
}

impl Upstream {
    /// Binds `listen` (port 0 for any) and prepares every answer.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn bind(listen: SocketAddr, catalog: Catalog) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let shared = Arc::new(Shared { catalog, call_count: AtomicU64::new(0), delay: Duration::ZERO });
        Ok(Self { listener, shared })
    }

    /// Takes this long for every call of a tool.
    ///
    /// # Errors
    /// When it serves already.
    pub fn delayed(self, delay: Duration) -> io::Result<Self> {
        let shared = Arc::into_inner(self.shared).ok_or_else(|| io::Error::other("it serves already"))?;
        Ok(Self { shared: Arc::new(Shared { delay, ..shared }), ..self })
    }

    /// The address that was bound.
    ///
    /// # Errors
    /// When the system does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until the future is dropped, which also drops the listener.
    ///
    /// # Errors
    /// When the listener breaks.
    pub async fn serve(self) -> io::Result<()> {
        let slots = Arc::new(Semaphore::new(CONNECTION_COUNT_MAX));
        let mut connections = tokio::task::JoinSet::new();
        loop {
            tokio::select! {
                accepted = self.listener.accept() => {
                    let (stream, _) = accepted?;
                    // Beyond the limit the connection is closed, which the driver reports.
                    if let Ok(slot) = Arc::clone(&slots).try_acquire_owned() {
                        let shared = Arc::clone(&self.shared);
                        connections.spawn(async move {
                            serve_connection(stream, shared).await;
                            drop(slot);
                        });
                    }
                }
                Some(_) = connections.join_next() => {}
            }
        }
    }
}

/// Serves as a process of its own: prints `{"url":..}` as one line, and with `ends_with_input` ends
/// when standard input does, so that it cannot outlive the process that started it.
///
/// # Errors
/// When the address cannot be bound or the listener breaks.
pub async fn run_as_process(
    listen: SocketAddr,
    catalog: Catalog,
    delay: Duration,
    ends_with_input: bool,
) -> io::Result<()> {
    let upstream = Upstream::bind(listen, catalog).await?.delayed(delay)?;
    let url = format!("http://{}{MCP_PATH}", upstream.address()?);
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", serde_json::json!({ "url": url }))?;
    stdout.flush()?;
    let input = tokio::task::spawn_blocking(move || match ends_with_input {
        true => io::copy(&mut io::stdin().lock(), &mut io::sink()),
        false => Ok(0),
    });
    tokio::select! {
        served = upstream.serve() => served,
        // Whether it ended or broke, there is nobody left to serve.
        _ = input, if ends_with_input => Ok(()),
    }
}

async fn serve_connection(stream: TcpStream, shared: Arc<Shared>) {
    // Without this, small answers wait for the peer's delayed acknowledgement.
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let service = service_fn(|request| answer(&shared, request));
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // A broken connection shows at the client, which counts it as a failed call.
    let _ = connection.await;
}

async fn answer(shared: &Shared, request: Request<Incoming>) -> Result<Response<Pieces>, Infallible> {
    if request.method() != Method::POST || request.uri().path() != MCP_PATH {
        return Ok(answer_aside(shared, &request));
    }
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, REQUEST_BYTES_MAX).collect().await else {
        return Ok(respond(StatusCode::BAD_REQUEST, "text/plain", Pieces::empty()));
    };
    let body = body.to_bytes();
    let reply = protocol::reply(&shared.catalog, &parts.headers, &body);
    if !shared.delay.is_zero() && matches!(reply, Reply::ToolResult(_) | Reply::ToolEvents(_)) {
        tokio::time::sleep(shared.delay).await;
    }
    Ok(match reply {
        Reply::Result(pieces) => respond(StatusCode::OK, "application/json", pieces),
        Reply::ToolResult(pieces) => {
            shared.call_count.fetch_add(1, Ordering::Relaxed);
            respond(StatusCode::OK, "application/json", pieces)
        }
        Reply::ToolEvents(pieces) => {
            shared.call_count.fetch_add(1, Ordering::Relaxed);
            respond(StatusCode::OK, "text/event-stream", pieces)
        }
        Reply::Accepted => respond(StatusCode::ACCEPTED, "application/json", Pieces::empty()),
        Reply::Error { status, pieces } => respond(status, "application/json", pieces),
    })
}

/// Everything that is not an MCP message: the count of calls, wrong paths and methods.
fn answer_aside(shared: &Shared, request: &Request<Incoming>) -> Response<Pieces> {
    if request.method() == Method::GET && request.uri().path() == CALLS_PATH {
        let count = shared.call_count.load(Ordering::Relaxed).to_string();
        return respond(StatusCode::OK, "text/plain", Pieces::one(count.into()));
    }
    let status =
        if request.uri().path() == MCP_PATH { StatusCode::METHOD_NOT_ALLOWED } else { StatusCode::NOT_FOUND };
    respond(status, "text/plain", Pieces::empty())
}

fn respond(status: StatusCode, content_type: &'static str, pieces: Pieces) -> Response<Pieces> {
    let mut response = Response::new(pieces);
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(hyper::header::CONTENT_TYPE, content_type);
    response
}
