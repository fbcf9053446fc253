//! The built-in authority: it signs the certificates by which the processes of a cluster know each other.
//!
//! Always holds:
//! - a certificate is for one name with its labels, or an admin's with its token, which the caller decides; of a request only the key and the proof of it count;
//! - it counts for [`LEAF_LIFE`], or for less where that is asked for ([`Ca::with_life`]), and has a random serial number of 128 bits;
//! - the authority's key is in the state, sealed by the vault; in memory it is only while somebody holds a [`Ca`].
//!
//! It keeps no list of what it signed, and does not know who may have what: `enrol.rs` does.

use std::time::{Duration, SystemTime};

use gantry_control_state::State;
use gantry_model::admin::token_uri;
use gantry_model::identity::{ClusterId, Party, PeerName};
use gantry_model::key::KeyId;
use gantry_model::{Labels, Name, Secret};
use gantry_node::tls::{CertificateRequest, Certified, CertifiedError, RequestError};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
    SerialNumber,
};
use rustls::pki_types::{CertificateDer, CertificateSigningRequestDer, PrivatePkcs8KeyDer};

use crate::vault::{CryptoError, NotOurs, Vault, fill_random};

/// How long a certificate counts, at most. It is renewed after two thirds of that, so that a control plane may be away for eight
/// hours before the first node is kept out.
pub(crate) const LEAF_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// How far the clocks of the processes of a cluster may be apart; less where certificates are short ([`skew`]).
pub(crate) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// Longest request in bytes. One for our keys has 200; what an organisation's tools add is a few hundred more.
pub(crate) const REQUEST_BYTES_MAX: usize = 4 * 1024;

/// How long the authority itself counts: it is not renewed in this release.
const AUTHORITY_LIFE: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
const SERIAL_BYTES: usize = 16;

/// The authority, with its key.
pub(crate) struct Ca {
    cluster: ClusterId,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
    /// How long what it signs counts.
    life: Duration,
}

/// An authority that no cluster has yet.
pub(crate) struct NewAuthority {
    /// DER.
    pub(crate) certificate: Vec<u8>,
    /// PKCS #8, DER.
    pub(crate) key: Secret<Vec<u8>>,
}

/// Why an authority cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The state has none: the cluster is of an earlier build and its leader has not made one yet.
    #[error("the cluster has no authority yet")]
    None,
    /// Its key was sealed elsewhere, or is damaged.
    #[error("the key of the authority cannot be opened")]
    Sealed(#[source] NotOurs),
    /// The cluster's id cannot stand in a certificate.
    #[error("the cluster's id is no name")]
    Cluster(#[source] gantry_model::name::NameError),
    /// It cannot be made, or read.
    #[error("the authority cannot be used")]
    Unusable(#[from] rcgen::Error),
}

/// Why a certificate is not signed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssueError {
    /// Nothing to sign.
    #[error("the certificate request is not one, or has no proof of its key")]
    Request(#[source] rcgen::Error),
    /// Larger than the limit.
    #[error("the certificate request has {0} bytes, {REQUEST_BYTES_MAX} are the most")]
    TooLarge(usize),
    /// Another kind of key than ours.
    #[error("the key of the certificate request is not of ECDSA over P-256")]
    KeyKind,
    /// The name is that of another cluster.
    #[error("{0} is not of this cluster")]
    OtherCluster(PeerName),
    /// No randomness.
    #[error("no serial number can be made")]
    Crypto(#[from] CryptoError),
    /// The library refused.
    #[error("the certificate cannot be signed")]
    Sign(#[source] rcgen::Error),
}

/// Why a process cannot certify itself.
#[derive(Debug, thiserror::Error)]
pub enum CertifyError {
    /// No key.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// Not signed.
    #[error("this process's certificate is not signed: {0}")]
    Issue(String),
    /// Not usable.
    #[error("this process's certificate cannot be used")]
    Certified(#[from] CertifiedError),
}

impl NewAuthority {
    /// Makes one for a cluster.
    pub(crate) fn make(cluster_id: &str, now: SystemTime) -> Result<NewAuthority, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, format!("Gantry cluster {cluster_id}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        params.not_before = (now - CLOCK_SKEW).into();
        params.not_after = (now + AUTHORITY_LIFE).into();
        let certificate = params.self_signed(&key)?.der().to_vec();
        Ok(NewAuthority { certificate, key: Secret::new(key.serialize_der()) })
    }
}

impl Ca {
    /// Opens the authority that `state` has.
    pub(crate) fn open(vault: &Vault, state: &State) -> Result<Ca, CaError> {
        let authority = state.cluster().and_then(|cluster| cluster.enrolment.authority.as_ref());
        let authority = authority.ok_or(CaError::None)?;
        let key = vault.open_authority(authority).map_err(CaError::Sealed)?;
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose().as_slice()))?;
        let certificate = CertificateDer::from(authority.certificate.clone());
        let issuer = Issuer::from_ca_cert_der(&certificate, key)?;
        let cluster = vault.cluster_id().parse().map_err(CaError::Cluster)?;
        Ok(Ca { cluster, certificate, issuer, life: LEAF_LIFE })
    }

    /// The same, with certificates that count for `life`, which is [`LEAF_LIFE`] at most.
    pub(crate) fn with_life(self, life: Duration) -> Ca {
        Ca { life: life.min(LEAF_LIFE), ..self }
    }

    /// The cluster whose names it certifies.
    pub(crate) fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// Its own certificate.
    pub(crate) fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Certifies that the key of `request` is that of `name`. The chain, leaf first.
    pub(crate) fn issue(
        &self,
        request: &[u8],
        (name, labels): (&PeerName, &Labels),
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if name.cluster != self.cluster {
            return Err(IssueError::OtherCluster(name.clone()));
        }
        // One without labels is as builds before them make it, and read it.
        let labels = (!labels.is_empty()).then(|| labels.to_uri(name.cluster.as_str()));
        self.sign(request, leaf(name, labels, now, self.life)?)
    }

    /// Certifies that the key of `request` is that of an admin, as long as a token of his counts. The chain, leaf first.
    pub(crate) fn issue_to_admin(
        &self,
        request: &[u8],
        (name, token): (&Name, KeyId),
        now: SystemTime,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        let name = PeerName::admin(self.cluster.clone(), name.clone());
        let token = token_uri(&self.cluster, token);
        self.sign(request, leaf(&name, Some(token), now, self.life)?)
    }

    fn sign(
        &self,
        request: &[u8],
        params: CertificateParams,
    ) -> Result<Vec<CertificateDer<'static>>, IssueError> {
        if request.len() > REQUEST_BYTES_MAX {
            return Err(IssueError::TooLarge(request.len()));
        }
        let request = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(request))
            .map_err(IssueError::Request)?;
        if request.public_key.algorithm() != &PKCS_ECDSA_P256_SHA256 {
            return Err(IssueError::KeyKind);
        }
        let leaf = params.signed_by(&request.public_key, &self.issuer).map_err(IssueError::Sign)?;
        Ok(vec![leaf.der().clone(), self.certificate.clone()])
    }

    /// A certificate for this process itself, with a new key.
    pub(crate) fn certify(&self, name: &PeerName, now: SystemTime) -> Result<Certified, CertifyError> {
        let request = CertificateRequest::new()?;
        let chain = self.issue(request.as_der(), (name, &Labels::default()), now);
        let chain = chain.map_err(|error| CertifyError::Issue(error.to_string()))?;
        Ok(request.complete(chain)?)
    }
}

/// By how much a certificate that counts for `life` counts before it was made. A tenth of its life at most, since it is
/// renewed after six tenths of all the time for which it counts: with more, a short one would be renewed at once.
fn skew(life: Duration) -> Duration {
    CLOCK_SKEW.min(life / 10)
}

/// What is certified of a name; `more` is what stands beside it.
fn leaf(
    name: &PeerName,
    more: Option<String>,
    now: SystemTime,
    life: Duration,
) -> Result<CertificateParams, IssueError> {
    let mut serial = [0; SERIAL_BYTES];
    fill_random(&mut serial)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for uri in [Some(name.to_string()), more].into_iter().flatten() {
        params.subject_alt_names.push(SanType::URI(uri.try_into().map_err(IssueError::Sign)?));
    }
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = match name.party {
        // A node is a server to other nodes.
        Party::ControlPlane(_) | Party::Node(_) => {
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth]
        }
        Party::Admin(_) => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params.not_before = (now - skew(life)).into();
    params.not_after = (now + life).into();
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl std::fmt::Debug for Ca {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Ca").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
