//! What a certificate says of its owner: one name, a serial number, when it ends, what a node may hold, and which token
//! an admin's hangs on.
//!
//! Always holds: a [`Peer`] carries exactly one name. It is only what the certificate says; that an authority said so
//! is for [`super::Trust`] to decide, before anybody asks here.

use std::fmt;

use gantry_model::admin::{is_token_uri, read_token_uri};
use gantry_model::key::KeyId;
use gantry_model::scope::{Labels, LabelsError};
use rustls::pki_types::CertificateDer;

use crate::identity::{ClusterId, PeerName, PeerNameError, Serial};

/// The owner of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub name: PeerName,
    /// What it may hold, where it is a node.
    pub labels: Labels,
    /// The token without which it does not count, where it is an admin.
    pub token: Option<KeyId>,
    /// Which of its certificates.
    pub serial: Serial,
    /// From when the certificate counts, in milliseconds since 1970.
    pub begins_at_ms: u64,
    /// Until when, in milliseconds since 1970.
    pub expires_at_ms: u64,
}

/// Who is expected at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// This one and nobody else.
    Exactly(PeerName),
    /// Any process of this cluster's control plane.
    ControlPlaneOf(ClusterId),
    /// Any process of the control plane of whatever cluster it is whose authority is believed: for admins, who have
    /// the authority's certificate and nothing else.
    ControlPlane,
    /// Anybody whom this cluster has named.
    AnyOf(ClusterId),
}

/// Why a certificate does not say who somebody is, or is not that of whom was expected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerError {
    /// It is no certificate.
    #[error("the certificate cannot be read")]
    Unreadable,
    /// One certificate, one name.
    #[error("the certificate carries {0} names of Gantry, and not one")]
    NameCount(usize),
    /// The name is not of Gantry's form.
    #[error("the certificate's name cannot be read")]
    Name(#[source] PeerNameError),
    /// What its owner may hold is not understood, so that nothing is.
    #[error("what the certificate's owner may hold cannot be read")]
    Labels(#[source] LabelsError),
    /// What it hangs on is not understood, so that nothing is.
    #[error("the token that the certificate hangs on cannot be read")]
    Token,
    /// It is somebody else's.
    #[error("the certificate is that of {presented}, and {expected} was expected")]
    NotExpected {
        /// Who was.
        expected: Expected,
        /// Who is there.
        presented: PeerName,
    },
}

impl Peer {
    /// Reads what a certificate says.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<Peer, PeerError> {
        let parsed = webpki::EndEntityCert::try_from(certificate).map_err(|_| PeerError::Unreadable)?;
        let (tokens, others): (Vec<&str>, Vec<&str>) =
            parsed.valid_uri_names().partition(|uri| is_token_uri(uri));
        let (labels, names): (Vec<&str>, Vec<&str>) = others.into_iter().partition(|uri| Labels::is_uri(uri));
        let [name] = names[..] else {
            return Err(PeerError::NameCount(names.len()));
        };
        let name: PeerName = name.parse().map_err(PeerError::Name)?;
        let labels = match labels[..] {
            [] => Labels::default(),
            [labels] => Labels::from_uri(labels, name.cluster.as_str()).map_err(PeerError::Labels)?,
            _ => return Err(PeerError::Labels(LabelsError)),
        };
        let token = match tokens[..] {
            [] => None,
            [token] => Some(read_token_uri(token, &name.cluster).ok_or(PeerError::Token)?),
            _ => return Err(PeerError::Token),
        };
        let (_, dated) =
            x509_parser::parse_x509_certificate(certificate).map_err(|_| PeerError::Unreadable)?;
        let validity = dated.validity();
        Ok(Peer {
            name,
            labels,
            token,
            serial: Serial::new(parsed.serial()),
            begins_at_ms: milliseconds(validity.not_before.timestamp()),
            expires_at_ms: milliseconds(validity.not_after.timestamp()),
        })
    }
}

/// A time before 1970 counts as 1970.
fn milliseconds(seconds: i64) -> u64 {
    u64::try_from(seconds).unwrap_or(0).saturating_mul(1_000)
}

impl Expected {
    /// Refuses everybody else.
    pub(super) fn check(&self, presented: &PeerName) -> Result<(), PeerError> {
        let is_expected = match self {
            Expected::Exactly(name) => name == presented,
            Expected::ControlPlaneOf(cluster) => {
                presented.cluster == *cluster && presented.party.is_control_plane()
            }
            Expected::ControlPlane => presented.party.is_control_plane(),
            Expected::AnyOf(cluster) => presented.cluster == *cluster,
        };
        if is_expected {
            return Ok(());
        }
        Err(PeerError::NotExpected { expected: self.clone(), presented: presented.clone() })
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Exactly(name) => name.fmt(formatter),
            Expected::ControlPlaneOf(cluster) => write!(formatter, "the control plane of cluster {cluster}"),
            Expected::ControlPlane => formatter.write_str("a control plane"),
            Expected::AnyOf(cluster) => write!(formatter, "a peer of cluster {cluster}"),
        }
    }
}
