//! What a process shows of itself: its certificate, which can be replaced while it runs.
//!
//! Always holds: certificate and key are replaced together, and fit each other; a handshake under way keeps the pair
//! it began with, and connections that stand are not touched.

use std::fmt;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwapOption;
use gantry_model::Secret;
use rustls::client::ResolvesClientCert;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, SignatureScheme};
use tokio::sync::watch;

use super::peer::{Peer, PeerError};

/// Certificates in a chain: the leaf, the authority, and what an organisation has between them.
pub const CHAIN_LENGTH_MAX: usize = 8;

/// A certificate with its key.
#[derive(Clone)]
pub struct Certified {
    peer: Peer,
    key: Arc<CertifiedKey>,
}

/// What a process shows of itself at each handshake. Empty until it has a certificate.
#[derive(Default)]
pub struct Presenter {
    certified: ArcSwapOption<Certified>,
    /// Whether a peer that was dialled said that the certificate was revoked.
    revoked: watch::Sender<bool>,
}

/// Why a certificate and a key cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum CertifiedError {
    /// Not PEM.
    #[error("the {what} cannot be read as PEM")]
    Pem {
        /// What cannot.
        what: &'static str,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The length of the chain.
    #[error("the chain has {0} certificates; it has at least one and at most {CHAIN_LENGTH_MAX}")]
    ChainLength(usize),
    /// The certificate names nobody.
    #[error("the certificate does not say whose it is")]
    Peer(#[from] PeerError),
    /// Certificate and key do not fit each other, or are not usable.
    #[error("certificate and key cannot be used")]
    Unusable(#[source] rustls::Error),
}

impl Certified {
    /// Takes a chain, leaf first, and the key of the leaf, both as PEM.
    pub fn from_pem(chain: &[u8], key: &Secret<Vec<u8>>) -> Result<Certified, CertifiedError> {
        let unreadable = |what| move |source| CertifiedError::Pem { what, source };
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
            .take(CHAIN_LENGTH_MAX + 1)
            .collect::<Result<_, _>>()
            .map_err(unreadable("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key.expose()).map_err(unreadable("key"))?;
        Certified::from_der(chain, key)
    }

    /// Takes a chain, leaf first, and the key of the leaf.
    pub fn from_der(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
    ) -> Result<Certified, CertifiedError> {
        let leaf = match chain.len() {
            1..=CHAIN_LENGTH_MAX => &chain[0],
            length => return Err(CertifiedError::ChainLength(length)),
        };
        let peer = Peer::read(leaf)?;
        let key = CertifiedKey::from_der(chain, key, &super::provider()).map_err(CertifiedError::Unusable)?;
        Ok(Certified { peer, key: Arc::new(key) })
    }

    /// Whose it is, and until when.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The chain, leaf first.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.key.cert
    }
}

impl fmt::Debug for Certified {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Certified").field("peer", &self.peer).finish_non_exhaustive()
    }
}

impl Presenter {
    /// Shows this.
    pub fn new(certified: Certified) -> Arc<Presenter> {
        Arc::new(Presenter { certified: ArcSwapOption::from_pointee(certified), ..Presenter::default() })
    }

    /// Shows nothing yet: a joiner.
    pub fn empty() -> Arc<Presenter> {
        Arc::new(Presenter::default())
    }

    /// Shows this from the next handshake on.
    pub fn replace(&self, certified: Certified) {
        self.certified.store(Some(Arc::new(certified)));
    }

    /// Waits until a peer that was dialled says that what is shown was revoked. Dropping the future is safe.
    pub async fn is_told_revoked(&self) {
        let mut revoked = self.revoked.subscribe();
        // The sender lives as long as `self`.
        let _ = revoked.wait_for(|revoked| *revoked).await;
    }

    /// Hears what a peer that was dialled says of the handshake.
    pub(super) fn hear(&self, error: &io::Error) {
        let said = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        if matches!(said, Some(rustls::Error::AlertReceived(AlertDescription::CertificateRevoked))) {
            self.revoked.send_replace(true);
        }
    }

    /// What is shown now.
    pub fn certified(&self) -> Option<Arc<Certified>> {
        self.certified.load_full()
    }

    fn key(&self) -> Option<Arc<CertifiedKey>> {
        self.certified.load().as_ref().map(|certified| certified.key.clone())
    }
}

impl ResolvesServerCert for Presenter {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.key()
    }
}

impl ResolvesClientCert for Presenter {
    fn resolve(&self, _hints: &[&[u8]], _schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.key()
    }

    fn has_certs(&self) -> bool {
        self.certified.load().is_some()
    }
}

impl fmt::Debug for Presenter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Presenter").field("certified", &self.certified()).finish()
    }
}
