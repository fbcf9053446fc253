//! Why a handshake failed, in words.
//!
//! Always holds: where one of our own checks refused the peer, its error is the source; rustls would show it as the
//! structure that it is.

use std::io;
use std::sync::Arc;

use rustls::{AlertDescription, CertificateError, Error, OtherError};

use super::peer::PeerError;

/// Why a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The peer's certificate is good, and not that of somebody who belongs here.
    #[error("the peer is refused")]
    Refused(#[source] PeerError),
    /// The peer's certificate does not count.
    #[error("the certificate of the peer does not count: {0}")]
    Certificate(CertificateError),
    /// The peer shows a certificate of an authority that is not believed here.
    #[error(
        "the peer is of another cluster, or of none: its certificate is of an authority that is not believed here"
    )]
    OtherAuthority,
    /// The peer does not believe the authority of the certificate that it was shown.
    #[error("the peer is of another cluster, or of none: it does not believe the authority of this one")]
    OtherToPeer,
    /// Anything else, of either side; an alert is what the peer says.
    #[error("TLS failed")]
    Tls(#[source] Error),
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] io::Error),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        let tls = error.get_ref().and_then(|error| error.downcast_ref::<Error>()).cloned();
        match tls {
            Some(Error::InvalidCertificate(CertificateError::Other(OtherError(other)))) => {
                match other.downcast_ref::<PeerError>() {
                    Some(refused) => HandshakeError::Refused(refused.clone()),
                    None => HandshakeError::Broken(error),
                }
            }
            Some(Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                HandshakeError::OtherAuthority
            }
            Some(Error::AlertReceived(AlertDescription::UnknownCA)) => HandshakeError::OtherToPeer,
            Some(Error::InvalidCertificate(certificate)) => HandshakeError::Certificate(certificate),
            Some(tls) => HandshakeError::Tls(tls),
            None => HandshakeError::Broken(error),
        }
    }
}

impl From<PeerError> for Error {
    fn from(error: PeerError) -> Error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(error))))
    }
}

/// An error with its sources, as it is logged.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
