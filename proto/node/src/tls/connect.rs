//! Dialling for gRPC: TCP, then TLS with the one who is expected.
//!
//! Always holds: nothing is sent to anybody but the expected peer. Each dial shows the certificate of that moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::codegen::Service;
use tonic::codegen::http::Uri;

use super::TlsError;
use super::guard::Guarded;
use super::handshake::HandshakeError;
use super::peer::Expected;
use super::presenter::Presenter;
use super::trust::Trust;
use super::verify::{client_config, peer_of};

/// How long a dial may take, TCP and TLS together.
pub const DIAL_DEADLINE: Duration = Duration::from_secs(10);

/// The port of an address without one.
const PORT: u16 = 443;

/// Dials one peer, for `connect_with_connector` of a `tonic` endpoint. The scheme of the address is `http`: `tonic`
/// knows nothing of the TLS below it.
#[derive(Debug, Clone)]
pub struct Connector {
    config: Arc<ClientConfig>,
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
}

/// Why a peer was not reached.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The address is none.
    #[error("{0} is no address of a peer")]
    Address(Uri),
    /// Nobody answers there.
    #[error("cannot connect to {address}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Who answers is refused, or refuses.
    #[error("the TLS handshake with {address} failed")]
    Handshake {
        /// Where.
        address: String,
        /// Why.
        #[source]
        source: HandshakeError,
    },
    /// It takes too long.
    #[error("{0} did not answer within {DIAL_DEADLINE:?}")]
    Deadline(String),
}

impl Connector {
    /// Dials `expected`, believing `trust`, showing the certificate that `presenter` has at that time, if any.
    pub fn new(
        presenter: Arc<Presenter>,
        trust: Arc<Trust>,
        expected: Expected,
    ) -> Result<Connector, TlsError> {
        let config = client_config(presenter.clone(), trust.clone(), expected)?;
        Ok(Connector { config, presenter, trust })
    }

    async fn dial(self, uri: Uri) -> Result<TokioIo<Guarded<TlsStream<TcpStream>>>, DialError> {
        let host = uri.host().ok_or_else(|| DialError::Address(uri.clone()))?;
        let address = format!("{host}:{}", uri.port_u16().unwrap_or(PORT));
        let dialled = tokio::time::timeout(DIAL_DEADLINE, self.handshake(&uri, host, &address)).await;
        dialled.map_err(|_| DialError::Deadline(address))?.map(TokioIo::new)
    }

    async fn handshake(
        &self,
        uri: &Uri,
        host: &str,
        address: &str,
    ) -> Result<Guarded<TlsStream<TcpStream>>, DialError> {
        // Only for proxies that look at it; who answers is told by the certificate's name.
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|_| DialError::Address(uri.clone()))?;
        let stream = TcpStream::connect(address)
            .await
            .map_err(|source| DialError::Connect { address: address.to_owned(), source })?;
        // Only a little slower without.
        let _ = stream.set_nodelay(true);
        let stream = TlsConnector::from(self.config.clone())
            .connect(name, stream)
            .await
            .map_err(|error| DialError::Handshake { address: address.to_owned(), source: error.into() })?;
        let peer = peer_of(stream.get_ref().1);
        Ok(Guarded::dialled(stream, peer, self.trust.clone(), self.presenter.clone()))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Guarded<TlsStream<TcpStream>>>;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, DialError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().dial(uri))
    }
}
