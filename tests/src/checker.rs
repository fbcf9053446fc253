//! A service that checks calls (`gantry/check/v1/check.proto`), as an organisation would write one; a test says what it
//! answers.
//!
//! It keeps what it was asked. It ends when it is dropped, with the connections that it has: it runs by itself.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use gantry_wire::check_v1 as wire;
use gantry_wire::check_v1::check_server::{Check, CheckServer};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tonic::transport::Server;
use tonic::transport::server::{Connected, TcpIncoming};
use tonic::{Request, Response, Status};

/// What the service answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Say {
    /// It passes.
    Allow,
    /// It does not, for this reason.
    Deny(String),
    /// This goes on in its place.
    Replace(String),
    /// No verdict.
    Nothing,
    /// That it failed.
    Fail,
    /// Never anything.
    Silence,
}

/// The service.
#[derive(Debug)]
pub struct Checker {
    address: SocketAddr,
    authority: Option<String>,
    script: Arc<Script>,
    runtime: Option<Runtime>,
}

#[derive(Debug)]
struct Script {
    of_requests: Mutex<Say>,
    of_answers: Mutex<Say>,
    requests: Mutex<Vec<wire::CheckRequestRequest>>,
    answers: Mutex<Vec<wire::CheckAnswerRequest>>,
    shown: Mutex<Option<String>>,
}

impl Default for Script {
    fn default() -> Self {
        Self {
            of_requests: Mutex::new(Say::Allow),
            of_answers: Mutex::new(Say::Allow),
            requests: Mutex::default(),
            answers: Mutex::default(),
            shown: Mutex::default(),
        }
    }
}

struct Service(Arc<Script>);

/// A connection with TLS, of which nothing more is told.
struct Io(TlsStream<TcpStream>);

impl Connected for Io {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

impl Checker {
    /// Starts it on loopback; it lets everything pass.
    ///
    /// # Errors
    /// When it finds no port.
    pub fn start() -> io::Result<Self> {
        let (runtime, listener) = listen()?;
        let (address, script) = (listener.local_addr()?, Arc::new(Script::default()));
        let serving = Server::builder()
            .add_service(CheckServer::new(Service(script.clone())))
            .serve_with_incoming(TcpIncoming::from(listener));
        runtime.spawn(serving);
        Ok(Self { address, authority: None, script, runtime: Some(runtime) })
    }

    /// The same with TLS, by a certificate of an authority of its own.
    ///
    /// # Errors
    /// When it finds no port.
    ///
    /// # Panics
    /// When no certificate can be made.
    pub fn start_with_tls() -> io::Result<Self> {
        let (runtime, listener) = listen()?;
        let (address, script) = (listener.local_addr()?, Arc::new(Script::default()));
        let (authority, acceptor) = certified();
        let incoming = futures_util::stream::unfold((listener, acceptor), async |(listener, acceptor)| {
            loop {
                let Ok((stream, _)) = listener.accept().await else { return None };
                // Who refuses the certificate is gone.
                if let Ok(stream) = acceptor.accept(stream).await {
                    return Some((io::Result::Ok(Io(stream)), (listener, acceptor)));
                }
            }
        });
        let service = CheckServer::new(Service(script.clone()));
        runtime.spawn(Server::builder().add_service(service).serve_with_incoming(Box::pin(incoming)));
        Ok(Self { address, authority: Some(authority), script, runtime: Some(runtime) })
    }

    /// The authority of its certificate, as PEM; empty without TLS.
    #[must_use]
    pub fn authority(&self) -> &str {
        self.authority.as_deref().unwrap_or_default()
    }

    /// Where it is.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// What it says of requests from now on.
    pub fn say(&self, what: Say) {
        *held(&self.script.of_requests) = what;
    }

    /// What it says of answers from now on.
    pub fn say_of_answers(&self, what: Say) {
        *held(&self.script.of_answers) = what;
    }

    /// The requests that it was asked about since this was last asked.
    #[must_use]
    pub fn requests(&self) -> Vec<wire::CheckRequestRequest> {
        std::mem::take(&mut *held(&self.script.requests))
    }

    /// Likewise the messages of answers.
    #[must_use]
    pub fn answers(&self) -> Vec<wire::CheckAnswerRequest> {
        std::mem::take(&mut *held(&self.script.answers))
    }

    /// The `authorization` that it was last shown.
    #[must_use]
    pub fn shown(&self) -> Option<String> {
        held(&self.script.shown).clone()
    }
}

impl Drop for Checker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn listen() -> io::Result<(Runtime, TcpListener)> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let listener = {
        let _entered = runtime.enter();
        TcpListener::from_std(listener)?
    };
    Ok((runtime, listener))
}

/// An authority as PEM, and what shows a certificate of it.
fn certified() -> (String, TlsAcceptor) {
    let authority = crate::certified::authority("checks");
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("names");
    let certificate = params.signed_by(&key, &authority).expect("signed");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate.der().clone()],
            PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        )
        .expect("a certificate");
    tls.alpn_protocols = vec![b"h2".to_vec()];
    (authority.pem(), TlsAcceptor::from(Arc::new(tls)))
}

fn held<T>(value: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}

#[tonic::async_trait]
impl Check for Service {
    async fn check_request(
        &self,
        request: Request<wire::CheckRequestRequest>,
    ) -> Result<Response<wire::CheckRequestResponse>, Status> {
        use wire::check_request_response::Verdict;
        let shown = request.metadata().get("authorization").and_then(|value| value.to_str().ok());
        *held(&self.0.shown) = shown.map(str::to_owned);
        held(&self.0.requests).push(request.into_inner());
        let say = held(&self.0.of_requests).clone();
        let verdict = match say {
            Say::Allow => Some(Verdict::Allow(wire::Allow {})),
            Say::Deny(reason) => Some(Verdict::Deny(wire::Deny { reason })),
            Say::Replace(text) => Some(Verdict::ReplaceArguments(text)),
            Say::Nothing => None,
            Say::Fail => return Err(Status::internal("no good")),
            Say::Silence => std::future::pending().await,
        };
        Ok(Response::new(wire::CheckRequestResponse { verdict }))
    }

    async fn check_answer(
        &self,
        request: Request<wire::CheckAnswerRequest>,
    ) -> Result<Response<wire::CheckAnswerResponse>, Status> {
        use wire::check_answer_response::Verdict;
        held(&self.0.answers).push(request.into_inner());
        let say = held(&self.0.of_answers).clone();
        let verdict = match say {
            Say::Allow => Some(Verdict::Allow(wire::Allow {})),
            Say::Deny(reason) => Some(Verdict::Deny(wire::Deny { reason })),
            Say::Replace(text) => Some(Verdict::ReplaceMessage(text)),
            Say::Nothing => None,
            Say::Fail => return Err(Status::internal("no good")),
            Say::Silence => std::future::pending().await,
        };
        Ok(Response::new(wire::CheckAnswerResponse { verdict }))
    }
}
