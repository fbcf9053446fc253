//! TLS: for listeners of the data plane, from certificate and key files; and between processes of Gantry, where both
//! sides are known by the names in their certificates.
//!
//! ```text
//! Presenter (what we show) ─┐
//! Trust (whom we believe)  ─┼─▶ server_config ─▶ Incoming ─▶ requests with a Caller
//! Expected (who is there)  ─┴─▶ client_config ─▶ Connector
//! ```
//!
//! Always holds: rustls with aws-lc-rs and nothing else; TLS 1.2 and 1.3 towards agents, 1.3 between processes.

mod accept;
mod clients;
mod connect;
mod files;
mod guard;
mod handshake;
mod peer;
mod presenter;
mod request;
mod trust;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;

pub use accept::{Accepted, Caller, HANDSHAKE_DEADLINE, HANDSHAKES_MAX, Incoming};
pub use clients::{ClientAuthorities, ClientAuthoritiesError, ClientCertificateError, ClientNames};
pub use connect::{Connector, DIAL_DEADLINE, DialError};
pub(crate) use files::{Follower, Mark};
pub use files::{OwnFiles, PeerFiles, PeerFilesError};
pub use guard::{Cut, Guarded};
pub use handshake::HandshakeError;
pub use peer::{Expected, Peer, PeerError};
pub use presenter::{CHAIN_LENGTH_MAX, Certified, CertifiedError, Presenter};
pub use request::{CertificateRequest, RequestError};
pub use trust::{AUTHORITIES_MAX, Fingerprint, Revocations, Trust, TrustError};
pub use verify::{client_config, member_server_config, peer_of, server_config};

/// Where a listener's certificate chain and key are, as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// Why the files do not make a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or is not PEM.
    #[error("{path} cannot be read as PEM")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// There is no certificate in the file.
    #[error("{0} holds no certificate")]
    NoCertificate(PathBuf),
    /// Certificate and key do not fit each other, or are not usable.
    #[error("certificate and key cannot be used")]
    Unusable(#[source] rustls::Error),
}

/// Makes rustls use aws-lc-rs wherever a provider is not named. Safe to call more than once.
pub fn install_provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

/// Reads certificates of authorities, as PEM, for [`Trust::new`]. Blocks.
pub fn read_authorities(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    let authorities: Vec<_> = CertificateDer::pem_file_iter(path)
        .map_err(unreadable)?
        .take(AUTHORITIES_MAX + 1)
        .collect::<Result<_, _>>()
        .map_err(unreadable)?;
    if authorities.is_empty() { Err(TlsError::NoCertificate(path.to_owned())) } else { Ok(authorities) }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// A listener of agents: with and without the question for clients' certificates. Sessions of one are not resumed by the
/// other, so a client that was not asked once is not taken for one that has none.
#[derive(Debug, Clone)]
pub struct AgentTls {
    /// Asks nobody.
    pub silent: Arc<ServerConfig>,
    /// Asks for a certificate, and serves who has none.
    pub asking: Arc<ServerConfig>,
}

impl TlsFiles {
    /// Reads the files into server configurations that offer HTTP/2 and HTTP/1.1.
    pub fn load(&self) -> Result<AgentTls, TlsError> {
        let read = |path: &PathBuf| {
            let path = path.clone();
            move |source| TlsError::Read { path, source }
        };
        let chain: Vec<_> = CertificateDer::pem_file_iter(&self.certificate)
            .map_err(read(&self.certificate))?
            .collect::<Result<_, _>>()
            .map_err(read(&self.certificate))?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(self.certificate.clone()));
        }
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(read(&self.key))?;
        let build = |asks: bool, chain, key| {
            let builder = ServerConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(TlsError::Unusable)?;
            let builder = match asks {
                true => builder.with_client_cert_verifier(clients::AnyClient::new()),
                false => builder.with_no_client_auth(),
            };
            let mut config = builder.with_single_cert(chain, key).map_err(TlsError::Unusable)?;
            config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            if asks {
                // A session that is resumed brings the certificate back with which it began, whatever the client has by now.
                config.session_storage = Arc::new(NoServerSessionStorage {});
                config.send_tls13_tickets = 0;
            }
            Ok(Arc::new(config))
        };
        let asking = build(true, chain.clone(), key.clone_key())?;
        Ok(AgentTls { silent: build(false, chain, key)?, asking })
    }
}
