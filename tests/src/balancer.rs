//! A balancer that knows nothing of sessions: it sends every request to another node, the next one in turn, also when
//! the requests come over one connection of the client.
//!
//! Always holds: a request reaches at most one node; one that refuses connections, or says of itself that it is not
//! ready, is passed over before anything of the request was sent. Bodies of answers pass frame by frame, and a client
//! that leaves takes the connection to the node with it. A request is held whole before it is sent on.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use http::header::{CONNECTION, HOST, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio::task::{JoinHandle, JoinSet};

/// Open connections of clients at once; more wait in the kernel's queue. The conformance suite opens about ten.
const CONNECTIONS_MAX: usize = 256;

/// Largest body of a request: what a node takes, and some more.
const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What happens before a request is sent on while no POST is under way, so that nothing is cut off by it; it is given
/// the number of that request, from 0. One at a time.
pub type Interlude = Box<dyn Fn(usize) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// A running balancer; dropping it closes the listener and every connection.
#[derive(Debug)]
pub struct Balancer {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

/// What was sent on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counts {
    /// Requests by node, in the order in which the nodes were named.
    pub by_node: Vec<usize>,
    /// Requests that no node took.
    pub untaken: usize,
    /// Requests whose node broke before the head of its answer.
    pub broken: usize,
}

struct Shared {
    nodes: Vec<Node>,
    arrived: AtomicUsize,
    turn: AtomicUsize,
    untaken: AtomicUsize,
    broken: AtomicUsize,
    /// One for each POST whose answer has not ended, and one for itself.
    under_way: Arc<()>,
    interlude: OnceLock<Interlude>,
    interluding: Mutex<()>,
}

#[derive(Debug)]
struct Node {
    address: SocketAddr,
    taken: AtomicUsize,
}

type Answer = Response<BoxBody<Bytes, hyper::Error>>;

impl Balancer {
    /// Starts a balancer on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(nodes: &[SocketAddr]) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let node = |address: &SocketAddr| Node { address: *address, taken: AtomicUsize::new(0) };
        let shared = Arc::new(Shared {
            nodes: nodes.iter().map(node).collect(),
            arrived: AtomicUsize::new(0),
            turn: AtomicUsize::new(0),
            untaken: AtomicUsize::new(0),
            broken: AtomicUsize::new(0),
            under_way: Arc::new(()),
            interlude: OnceLock::new(),
            interluding: Mutex::new(()),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { address, shared, accepting })
    }

    /// Where clients connect.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a node as it is through the balancer.
    ///
    /// # Panics
    /// When it is no URL with a path.
    #[must_use]
    pub fn url(&self, url: &str) -> String {
        let uri: http::Uri = url.parse().expect("a URL");
        format!("http://{}{}", self.address, uri.path())
    }

    /// Lets something happen before each request from now on; only the first call of this has an effect.
    pub fn between(&self, interlude: Interlude) {
        // Documented: what was set first stays.
        let _ = self.shared.interlude.set(interlude);
    }

    /// What was sent on until now.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let shared = &self.shared;
        Counts {
            by_node: shared.nodes.iter().map(|node| node.taken.load(Ordering::SeqCst)).collect(),
            untaken: shared.untaken.load(Ordering::SeqCst),
            broken: shared.broken.load(Ordering::SeqCst),
        }
    }
}

impl Drop for Balancer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Shared").field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Aborting this task drops the set, which aborts every connection.
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => {
                if let Ok((stream, _)) = accepted {
                    connections.spawn(serve(stream, Arc::clone(&shared)));
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // What is small is sent at once; without this a client waits for its own acknowledgements.
    let _ = stream.set_nodelay(true);
    let respond = service_fn(move |request| {
        let shared = Arc::clone(&shared);
        async move { Ok::<_, Infallible>(shared.answer(request).await) }
    });
    // An error here says that the client left or spoke no HTTP: its concern, and it has been told.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await;
}

impl Shared {
    async fn answer(&self, request: Request<Incoming>) -> Answer {
        let number = self.arrived.fetch_add(1, Ordering::SeqCst);
        let under_way = {
            let _one_at_a_time = self.interluding.lock().await;
            if let Some(interlude) = self.interlude.get()
                && Arc::strong_count(&self.under_way) == 1
            {
                interlude(number).await;
            }
            (request.method() == Method::POST).then(|| Arc::clone(&self.under_way))
        };
        let (head, body) = request.into_parts();
        let Ok(body) = Limited::new(body, BODY_BYTES_MAX).collect().await else {
            return plain(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large, or the client left");
        };
        let mut request = Request::from_parts(head, Full::new(body.to_bytes()));
        for name in [CONNECTION, TRANSFER_ENCODING] {
            request.headers_mut().remove(name);
        }
        let Some((node, mut sender)) = self.next_ready().await else {
            self.untaken.fetch_add(1, Ordering::SeqCst);
            return plain(StatusCode::SERVICE_UNAVAILABLE, "no node takes the request");
        };
        node.taken.fetch_add(1, Ordering::SeqCst);
        match sender.send_request(request).await {
            Ok(response) => {
                let (mut head, body) = response.into_parts();
                head.headers.remove(CONNECTION);
                head.headers.remove(TRANSFER_ENCODING);
                // What is under way ends with the body.
                let body = body.map_frame(move |frame| {
                    let _ = &under_way;
                    frame
                });
                Response::from_parts(head, body.boxed())
            }
            Err(error) => {
                self.broken.fetch_add(1, Ordering::SeqCst);
                plain(StatusCode::BAD_GATEWAY, &format!("the node broke: {error}"))
            }
        }
    }

    /// The next node in turn that is ready, each of them asked once.
    async fn next_ready(&self) -> Option<(&Node, SendRequest<Full<Bytes>>)> {
        let turn = self.turn.fetch_add(1, Ordering::SeqCst);
        for step in 0..self.nodes.len() {
            let node = &self.nodes[(turn + step) % self.nodes.len()];
            if let Some(sender) = connect(node.address).await {
                return Some((node, sender));
            }
        }
        None
    }
}

/// A connection of its own for one request, so that none is sent to a node that has gone meanwhile; `None` where the
/// node is not there or not ready.
async fn connect(address: SocketAddr) -> Option<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.ok()?;
    stream.set_nodelay(true).ok()?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
    // It ends with the answer's body, or when the sender goes.
    tokio::spawn(async { drop(connection.await) });
    let host = HeaderValue::from_str(&address.to_string()).ok()?;
    let question = Request::get("/readyz").header(HOST, host).body(Full::default()).ok()?;
    let answer = sender.send_request(question).await.ok()?;
    if answer.status() != StatusCode::OK {
        return None;
    }
    answer.into_body().collect().await.ok()?;
    sender.ready().await.ok()?;
    Some(sender)
}

fn plain(status: StatusCode, text: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response
}
