//! The agents' listener: connections, TLS, HTTP/1.1 and HTTP/2, and which hosts are answered.
//!
//! Always holds: at most [`CONNECTIONS_MAX`] connections; a request head must come within [`HEAD_DEADLINE`]; on
//! shutdown connections that clients have made already are taken and answered once, later ones are refused by the
//! system, so that clients go to another node, and requests under way have [`DRAIN_DEADLINE`] to end.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use gantry_node::tls::AgentTls;
use http::header::{CONTENT_TYPE, HOST, HeaderMap, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_rustls::server::TlsStream;
use tokio_rustls::{LazyConfigAcceptor, TlsAcceptor};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::front::{Hold, batch, socket, sse};
use crate::identity::certificate::ClientCertificate;
use crate::mcp::Era;
use crate::node::Node;
use crate::page;
use crate::pipeline::{self, Inbound};
use crate::rejection::{Context, Rejection};
use crate::reply::Body;
use crate::route::{EndpointPath, Route};

/// Connections at once; more wait in the kernel's queue. Each takes a file descriptor and about 20 KiB.
const CONNECTIONS_MAX: usize = 16_384;
/// How long a request's head, or a TLS handshake, may take.
const HEAD_DEADLINE: Duration = Duration::from_secs(15);
/// How long requests under way may take to end at shutdown.
const DRAIN_DEADLINE: Duration = Duration::from_secs(10);
/// How long a connection without a request is kept at shutdown: its client may have sent one that is not here yet.
const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// Largest request head in bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Requests at once on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Pause after the listener failed to accept, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A listener that is bound and not yet served.
pub(crate) struct Listener {
    tcp: TcpListener,
    tls: Option<AgentTls>,
    hosts: Hosts,
}

/// Which `Host` and `Origin` are answered. A page of another site can make a browser send requests here; it cannot
/// make it lie about where they come from (DNS rebinding).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hosts {
    /// On loopback: loopback's names only.
    Loopback,
    /// Elsewhere: any host, and no browser.
    Any,
}

impl Listener {
    /// Binds an address.
    pub(crate) async fn bind(address: SocketAddr, tls: Option<AgentTls>) -> std::io::Result<Listener> {
        let tcp = TcpListener::bind(address).await?;
        let hosts = if tcp.local_addr()?.ip().is_loopback() { Hosts::Loopback } else { Hosts::Any };
        Ok(Listener { tcp, tls, hosts })
    }

    /// The bound address.
    pub(crate) fn address(&self) -> std::io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Serves until `stop`, then lets requests under way end.
    pub(crate) async fn serve(self, node: Arc<Node>, stop: CancellationToken) {
        let Listener { tcp, tls, hosts } = self;
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let serving = Serving {
            node,
            tls,
            hosts,
            stop: stop.clone(),
            builder: connection_builder(),
            connections: TaskTracker::new(),
            lasting: TaskTracker::new(),
        };
        let serving = Arc::new(serving);
        loop {
            let Some(accepted) = stop.run_until_cancelled(accept(&tcp, &places)).await else { break };
            if let Some((stream, place)) = accepted {
                serving.clone().spawn(stream, place);
            }
        }
        for stream in waiting(tcp) {
            let Ok(place) = places.clone().try_acquire_owned() else { break };
            serving.clone().spawn(stream, place);
        }
        serving.connections.close();
        serving.lasting.close();
        let drained = async { tokio::join!(serving.connections.wait(), serving.lasting.wait()) };
        if tokio::time::timeout(DRAIN_DEADLINE, drained).await.is_err() {
            tracing::warn!(deadline = ?DRAIN_DEADLINE, "requests were still under way at shutdown");
        }
    }
}

/// What all connections of a listener share.
struct Serving {
    node: Arc<Node>,
    tls: Option<AgentTls>,
    hosts: Hosts,
    stop: CancellationToken,
    builder: auto::Builder<TokioExecutor>,
    connections: TaskTracker,
    /// What outlives its request.
    lasting: TaskTracker,
}

impl Serving {
    fn spawn(self: Arc<Self>, stream: TcpStream, place: OwnedSemaphorePermit) {
        let connections = self.connections.clone();
        connections.spawn(async move {
            match &self.tls {
                None => self.drive(stream, place, None).await,
                // A connection without TLS should not be as large as one with it.
                Some(tls) => {
                    let secured = async {
                        let accepted = self.accept(tls, stream);
                        if let Ok(Ok(stream)) = tokio::time::timeout(HEAD_DEADLINE, accepted).await {
                            let certificate = ClientCertificate::of(stream.get_ref().1.peer_certificates());
                            self.drive(stream, place, certificate).await;
                        }
                    };
                    Box::pin(secured).await;
                }
            }
        });
    }

    /// Clients are asked for their certificates where somebody may look at them.
    async fn accept(&self, tls: &AgentTls, stream: TcpStream) -> std::io::Result<TlsStream<TcpStream>> {
        if self.node.config().asking.is_nobody() {
            return TlsAcceptor::from(tls.silent.clone()).accept(stream).await;
        }
        let begun = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        let asks = self.node.config().asking.asks(begun.client_hello().server_name());
        begun.into_stream(if asks { tls.asking.clone() } else { tls.silent.clone() }).await
    }

    /// Serves one connection to its end.
    async fn drive<I>(
        &self,
        stream: I,
        place: OwnedSemaphorePermit,
        certificate: Option<Arc<ClientCertificate>>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (node, hosts, stop) = (self.node.clone(), self.hosts, self.stop.clone());
        let hold = Hold { connection: Arc::new(place), tasks: self.lasting.clone(), stop };
        let begun = Arc::new(Notify::new());
        let asked = begun.clone();
        // hyper keeps the place of this future as long as the connection lives; in a box it takes a pointer there, and
        // nothing of it is left while an answer streams.
        let service = service_fn(move |mut request: Request<Incoming>| {
            asked.notify_one();
            if let Some(certificate) = &certificate {
                request.extensions_mut().insert(certificate.clone());
            }
            Box::pin(answer(node.clone(), hosts, hold.clone(), request))
        });
        let mut connection = pin!(connection(&self.builder, stream, service));
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.is_over(&begun) => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            // Clients leave in the middle all the time; the audit has the request, if there was one.
            tracing::debug!(%error, "a connection ended early");
        }
    }

    /// Completes when a connection is to take no further request. hyper would close one that has not had any at once,
    /// with the request that its client has sent already.
    async fn is_over(&self, begun: &Notify) {
        self.stop.cancelled().await;
        let _ = tokio::time::timeout(FIRST_REQUEST_GRACE, begun.notified()).await;
    }
}

async fn accept(tcp: &TcpListener, places: &Arc<Semaphore>) -> Option<(TcpStream, OwnedSemaphorePermit)> {
    let place = places.clone().acquire_owned().await.ok()?;
    match tcp.accept().await {
        Ok((stream, _)) => {
            let _ = stream.set_nodelay(true);
            Some((stream, place))
        }
        Err(error) => {
            tracing::warn!(%error, "a connection cannot be accepted");
            tokio::time::sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

/// The connections that clients have made and nobody has accepted; then the listener is closed. One that is made between
/// the last look and the close is reset: that cannot be seen from here.
fn waiting(tcp: TcpListener) -> Vec<TcpStream> {
    let Ok(tcp) = tcp.into_std() else { return Vec::new() };
    let made = std::iter::from_fn(|| tcp.accept().ok());
    let ready = made.take(CONNECTIONS_MAX).filter_map(|(stream, _)| {
        stream.set_nonblocking(true).ok()?;
        let _ = stream.set_nodelay(true);
        TcpStream::from_std(stream).ok()
    });
    ready.collect()
}

fn connection_builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(HEAD_BYTES_MAX)
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_BYTES_MAX as u32)
        .max_concurrent_streams(STREAMS_MAX)
        .keep_alive_interval(Some(Duration::from_secs(30)));
    builder
}

fn connection<S, F, I>(
    builder: &auto::Builder<TokioExecutor>,
    stream: I,
    service: S,
) -> auto::UpgradeableConnection<'static, TokioIo<I>, S, TokioExecutor>
where
    S: hyper::service::Service<Request<Incoming>, Response = Response<Body>, Error = Infallible, Future = F>,
    S: Send + 'static,
    F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    builder.serve_connection_with_upgrades(TokioIo::new(stream), service).into_owned()
}

async fn answer(
    node: Arc<Node>,
    hosts: Hosts,
    hold: Hold,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = request.uri().path().to_owned();
    let route = Route::of(&path);
    if !hosts.allow(request.uri(), request.headers()) {
        return Ok(match route {
            Route::Endpoint(_) | Route::Stream(_) | Route::Posted(_) => {
                pipeline::refuse(&node, &Rejection::Origin).await
            }
            Route::Metadata(_) | Route::Approval(..) | Route::Health | Route::Ready | Route::Nowhere => {
                plain(&Rejection::Origin)
            }
        });
    }
    // What is rare is in boxes: this future is made and moved for every request, and where its block is as large as a
    // connection's buffers, those get blocks of which it has touched every page.
    Ok(match route {
        Route::Endpoint(path) if socket::is_asked_for(&request) => {
            Box::pin(socket::open(&node, path, request, hold)).await
        }
        Route::Endpoint(path) => {
            let (head, inbound) = parts(request);
            batch::serve(&node, path, head, inbound, &hold).await
        }
        Route::Stream(path) => Box::pin(sse::open(&node, path, &request.into_parts().0, hold)).await,
        Route::Posted(path) => {
            let (head, inbound) = parts(request);
            Box::pin(sse::post(&node, path, &head, inbound)).await
        }
        Route::Metadata(path) => metadata(&node, path, request.method()),
        Route::Approval(tenant, id) if request.method() == Method::GET => page::approval(&tenant, id),
        Route::Approval(..) => plain(&Rejection::HttpMethod),
        Route::Health => status(StatusCode::OK),
        Route::Ready if node.config().keys.is_some() => status(StatusCode::OK),
        Route::Ready => status(StatusCode::SERVICE_UNAVAILABLE),
        Route::Nowhere => plain(&Rejection::NoEndpoint),
    })
}

/// What strangers may know of an endpoint: whose tokens it takes (RFC 9728).
fn metadata(node: &Node, path: EndpointPath<'_>, method: &Method) -> Response<Body> {
    if method != Method::GET {
        return plain(&Rejection::HttpMethod);
    }
    let config = node.config();
    let tenant = config.tenants.get(path.tenant);
    let endpoint = tenant.and_then(|tenant| tenant.endpoints.get(path.endpoint));
    let Some(metadata) = endpoint.and_then(|endpoint| endpoint.access.metadata.clone()) else {
        return plain(&Rejection::NoEndpoint);
    };
    let mut response = Response::new(Body::full(Bytes::copy_from_slice(metadata.as_bytes())));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn parts(request: Request<Incoming>) -> (Parts, Inbound) {
    let (head, body) = request.into_parts();
    let inbound = Inbound::of_http(&head.headers, body);
    (head, inbound)
}

impl Hosts {
    fn allow(self, uri: &Uri, headers: &HeaderMap) -> bool {
        let origin = headers.get(ORIGIN).map(|value| value.to_str().unwrap_or_default());
        match self {
            Hosts::Any => origin.is_none(),
            Hosts::Loopback => {
                let host = headers.get(HOST).and_then(|value| value.to_str().ok());
                let host = host.or_else(|| uri.authority().map(http::uri::Authority::as_str));
                host.is_some_and(is_loopback_authority) && origin.is_none_or(is_loopback_origin)
            }
        }
    }
}

fn is_loopback_authority(authority: &str) -> bool {
    let Ok(authority) = authority.parse::<http::uri::Authority>() else { return false };
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost")
        || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn is_loopback_origin(origin: &str) -> bool {
    origin
        .strip_prefix("http://")
        .or_else(|| origin.strip_prefix("https://"))
        .is_some_and(is_loopback_authority)
}

/// A rejection of what concerns no endpoint, which has no record.
fn plain(rejection: &Rejection) -> Response<Body> {
    rejection.respond(Context { id: None, era: Era::Legacy, decision_id: "" })
}

fn status(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_of_another_site_is_not_answered_on_loopback() {
        for (authority, loopback) in [
            ("localhost:8080", true),
            ("127.0.0.1", true),
            ("[::1]:8080", true),
            ("evil.example", false),
            ("127.0.0.1.evil.example:80", false),
            ("localhost.evil.example", false),
            ("", false),
        ] {
            assert_eq!(is_loopback_authority(authority), loopback, "{authority}");
            assert_eq!(is_loopback_origin(&format!("http://{authority}")), loopback, "{authority}");
        }
        assert!(!is_loopback_origin("null"));
    }
}
