//! What is asked of a peer in a handshake: that an authority vouches for its certificate, that it is who was expected,
//! and that nobody took that back.
//!
//! Always holds: the chain is verified before anything in the certificate is believed; addresses and host names count
//! for nothing. TLS 1.3 only, and no session is resumed: a resumed session would not be verified again, and outlive a
//! revocation.

use std::sync::Arc;

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    RootCertStore, ServerConfig, SignatureScheme,
};

use super::TlsError;
use super::peer::{Expected, Peer};
use super::presenter::Presenter;
use super::trust::{Anchors, Fingerprint, Trust};
use crate::identity::ClusterId;

const PROTOCOL: &[u8] = b"h2";

/// For a listener of `cluster`: clients may show a certificate; one that they show must be good.
pub fn server_config(
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
    cluster: ClusterId,
) -> Result<Arc<ServerConfig>, TlsError> {
    let verifier = Verifier { is_client_asked: false, ..Verifier::new(trust, Expected::AnyOf(cluster)) };
    listener(presenter, verifier)
}

/// For the listener by which the members of a control plane hear each other: whoever calls shows the certificate of a
/// member of `cluster`, or is not heard.
pub fn member_server_config(
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
    cluster: ClusterId,
) -> Result<Arc<ServerConfig>, TlsError> {
    listener(presenter, Verifier::new(trust, Expected::ControlPlaneOf(cluster)))
}

fn listener(presenter: Arc<Presenter>, verifier: Verifier) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(presenter);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// For a client: shows the certificate that `presenter` has, if any, to `expected` and to nobody else.
pub fn client_config(
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
    expected: Expected,
) -> Result<Arc<ClientConfig>, TlsError> {
    let verifier = Verifier::new(trust, expected);
    let mut config = ClientConfig::builder_with_provider(super::provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::Unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(presenter);
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Who is at the other end of a connection whose handshake is done; `None` for a client without a certificate.
pub fn peer_of(connection: &CommonState) -> Option<Peer> {
    let certificate = connection.peer_certificates()?.first()?;
    // The verifier read it before.
    Peer::read(certificate).ok()
}

#[derive(Debug)]
struct Verifier {
    trust: Arc<Trust>,
    expected: Expected,
    /// Whether a client without a certificate is refused.
    is_client_asked: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    fn new(trust: Arc<Trust>, expected: Expected) -> Verifier {
        let algorithms = super::provider().signature_verification_algorithms;
        Verifier { trust, expected, is_client_asked: true, algorithms }
    }

    /// Who it is, once the chain is verified.
    fn identify(&self, certificate: &CertificateDer<'_>) -> Result<(), Error> {
        let peer = Peer::read(certificate)?;
        self.expected.check(&peer.name)?;
        if self.trust.has_revoked(&peer) {
            return Err(Error::InvalidCertificate(CertificateError::Revoked));
        }
        Ok(())
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let roots = match &*self.trust.anchors() {
            Anchors::Known { roots, .. } => roots.clone(),
            Anchors::Pinned(fingerprint) => Arc::new(shown(*fingerprint, intermediates)?),
        };
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &roots, intermediates, now, algorithms)?;
        self.identify(end_entity)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.is_client_asked
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let Anchors::Known { clients, .. } = &*self.trust.anchors() else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let verified = clients.verify_client_cert(end_entity, intermediates, now)?;
        self.identify(end_entity)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The authority of this fingerprint, among what a server shows beside its own certificate.
fn shown(fingerprint: Fingerprint, intermediates: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
    let authority = intermediates.iter().find(|shown| Fingerprint::of(shown) == fingerprint);
    let authority = authority.ok_or(Error::InvalidCertificate(CertificateError::UnknownIssuer))?;
    let mut roots = RootCertStore::empty();
    roots.add(authority.clone().into_owned())?;
    Ok(roots)
}

/// No configuration of ours offers it.
fn tls12() -> Error {
    Error::General("TLS 1.2 is not offered".to_owned())
}
