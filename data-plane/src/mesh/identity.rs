//! Who a node is to its peers: a certificate of its own making, and how others' certificates are checked.
//!
//! Always holds: TLS 1.3, both ends show a certificate and prove that they have its key; a certificate is accepted by
//! its SHA-256 alone, which the control plane told. Nothing is resumed, so every connection is checked anew. The key
//! lives in memory and as long as the process.
//!
//! There is no authority behind these certificates: whoever has the node token can become a member.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use quinn::crypto::rustls::{NoInitialCipherSuite, QuicClientConfig, QuicServerConfig};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs as provider, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};

use super::Process;

/// What is spoken on a connection.
const ALPN: &[u8] = b"gantry-mesh/1";
/// The name in every certificate; it says nothing about whose it is.
pub(super) const SERVER_NAME: &str = "gantry-mesh";
/// Bytes of a fingerprint.
const FINGERPRINT_BYTES: usize = 32;

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Fingerprint([u8; FINGERPRINT_BYTES]);

/// A node's certificate and key.
pub(super) struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    provider: Arc<CryptoProvider>,
}

/// Says whether a certificate is a member's.
pub(super) type IsMember = Box<dyn Fn(&Fingerprint) -> bool + Send + Sync>;

/// Why a node has no identity.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IdentityError {
    #[error("no certificate can be made")]
    Certificate(#[from] rcgen::Error),
    #[error("the certificate cannot be used for TLS")]
    Tls(#[from] Error),
    #[error("the cryptography for QUIC is absent")]
    Quic(#[from] NoInitialCipherSuite),
}

/// Checks the certificate that the other end shows.
struct Checker {
    accepts: IsMember,
    provider: Arc<CryptoProvider>,
}

impl Identity {
    /// Makes a certificate.
    pub(super) fn generate() -> Result<Identity, IdentityError> {
        let made = rcgen::generate_simple_self_signed([SERVER_NAME.to_owned()])?;
        Ok(Identity {
            certificate: made.cert.der().clone(),
            key: PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()),
            provider: Arc::new(provider::default_provider()),
        })
    }

    /// What peers know the certificate by.
    pub(super) fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.certificate)
    }

    /// For connections that come in: any member.
    pub(super) fn server(&self, is_member: IsMember) -> Result<QuicServerConfig, IdentityError> {
        let checker = Checker { accepts: is_member, provider: self.provider.clone() };
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(checker))
            .with_single_cert(vec![self.certificate.clone()], self.private_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config.try_into()?)
    }

    /// For a connection that goes out: to exactly this peer.
    pub(super) fn client(&self, expected: Fingerprint) -> Result<QuicClientConfig, IdentityError> {
        let accepts = Box::new(move |shown: &Fingerprint| *shown == expected);
        let checker = Checker { accepts, provider: self.provider.clone() };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(checker))
            .with_client_auth_cert(vec![self.certificate.clone()], self.private_key())?;
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_sni = false;
        Ok(config.try_into()?)
    }

    fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(self.key.clone_key())
    }
}

impl Fingerprint {
    /// Which process made the certificate.
    pub(super) fn process(&self) -> Process {
        let mut first = [0; 8];
        first.copy_from_slice(&self.0[..8]);
        Process(u64::from_be_bytes(first))
    }

    /// Of a certificate.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Fingerprint {
        let mut bytes = [0; FINGERPRINT_BYTES];
        bytes.copy_from_slice(digest(&SHA256, certificate).as_ref());
        Fingerprint(bytes)
    }

    /// Of the certificate that the other end of a connection showed.
    pub(super) fn of_peer(connection: &quinn::Connection) -> Option<Fingerprint> {
        let identity = connection.peer_identity()?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok()?;
        chain.first().map(Fingerprint::of)
    }

    /// As it is sent.
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// As it was sent.
    pub(crate) fn from_bytes(bytes: &[u8]) -> Option<Fingerprint> {
        bytes.try_into().ok().map(Fingerprint)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Checker {
    fn check(&self, shown: &CertificateDer<'_>) -> Result<(), Error> {
        if (self.accepts)(&Fingerprint::of(shown)) {
            return Ok(());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

impl fmt::Debug for Checker {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Checker")
    }
}

/// QUIC has no earlier version than TLS 1.3.
fn no_tls12() -> Error {
    PeerIncompatible::Tls12NotOffered.into()
}

impl ServerCertVerifier for Checker {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ClientCertVerifier for Checker {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

/// For tests: checks that the other end shows this certificate.
#[cfg(test)]
pub(super) fn accepting(fingerprint: &[u8]) -> Arc<dyn ServerCertVerifier> {
    let expected = Fingerprint::from_bytes(fingerprint);
    let accepts = Box::new(move |shown: &Fingerprint| Some(*shown) == expected);
    Arc::new(Checker { accepts, provider: Arc::new(provider::default_provider()) })
}
