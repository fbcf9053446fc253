//! Certificates of clients whose authorities tenants name: agents, not processes of Gantry.
//!
//! Always holds: a handshake proves that the client has the key of the certificate that it shows, and nothing else; whose it is
//! is asked for each tenant by itself ([`ClientAuthorities::verify`]), so that authorities may change while connections live,
//! and one tenant's say nothing in another. No client is told which authorities there are; that a certificate has ended, has not
//! begun or is not for clients is said of one that an authority signed, for anybody can make such a one. What a certificate says
//! ([`ClientNames`]) counts only once it was verified. Nobody is asked whether a certificate was taken back.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter, KeyUsage};
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::x509::{AttributeTypeAndValue, RelativeDistinguishedName, X509Name};

use super::trust::AUTHORITIES_MAX;

/// Certificates between a client's and its authority. A path is looked for in every order of them that their names allow, and
/// a stranger chooses the names: of three that is at most some hundred steps, of seven it would be tens of thousands.
const INTERMEDIATES_MAX: usize = 3;
/// Bytes of a client's chain, which its connection keeps. Chains of RSA keys with many names have less than half of it.
const CHAIN_BYTES_MAX: usize = 16 * 1024;
/// Names of one kind that are read of a certificate: more than one are refused anyway.
const NAMES_MAX: usize = 8;
/// Attributes of subjects by their short names (RFC 4514, 3, and what OpenSSL calls the rest).
const ATTRIBUTES: [(&str, &str); 11] = [
    ("2.5.4.3", "CN"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
];

/// Who may vouch for clients.
#[derive(Debug)]
pub struct ClientAuthorities(Vec<Authority>);

#[derive(Debug)]
struct Authority {
    anchor: TrustAnchor<'static>,
    /// In seconds since 1970: an authority that has ended vouches for nobody.
    begins_at: i64,
    ends_at: i64,
}

/// Why a bundle names no authorities.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientAuthoritiesError {
    /// It is no PEM.
    #[error("cannot be read as PEM")]
    Pem,
    /// There is none.
    #[error("holds no certificate")]
    Empty,
    /// Too many to go through for each connection.
    #[error("holds {0} certificates, and {AUTHORITIES_MAX} are the most")]
    TooMany(usize),
    /// One cannot be read.
    #[error("certificate {0} of the bundle cannot be read")]
    Unreadable(usize),
    /// One is a client's or a server's.
    #[error(
        "certificate {0} of the bundle is not that of an authority (`CA:TRUE`, and `keyCertSign` where it has key usages)"
    )]
    NoAuthority(usize),
}

/// Why nobody here vouches for a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientCertificateError {
    /// It is none, or has what is not understood.
    #[error("the client's certificate cannot be read")]
    Unreadable,
    /// Another authority's, or nobody's.
    #[error("the client's certificate is of no authority that is believed here")]
    UnknownIssuer,
    /// It has ended, or one between it and its authority has.
    #[error("the client's certificate has expired")]
    Expired,
    /// It has not begun.
    #[error("the client's certificate does not count yet")]
    Early,
    /// A server's.
    #[error(
        "the client's certificate is not for clients (`clientAuth` is not among its extended key usages)"
    )]
    Purpose,
    /// Its signatures, constraints, or length.
    #[error("the chain of the client's certificate does not hold")]
    Chain,
}

/// What a certificate calls its owner, and when it ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientNames {
    /// The URIs among its alternative names.
    pub uris: Vec<String>,
    /// The hosts' names among them.
    pub dns: Vec<String>,
    /// The addresses of mail among them.
    pub emails: Vec<String>,
    /// The subject as a whole, as RFC 4514 writes it (`openssl x509 -nameopt RFC2253,-esc_msb`); `None`: it is empty, or has
    /// what is no text, a part of several values, or an attribute that is not of [`ATTRIBUTES`].
    pub subject: Option<String>,
    /// The last second in which it counts, since 1970.
    pub ends_at: u64,
}

impl ClientAuthorities {
    /// Reads a bundle of certificates, as PEM.
    pub fn parse(pem: &str) -> Result<ClientAuthorities, ClientAuthoritiesError> {
        let read: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
        let read = read.map_err(|_| ClientAuthoritiesError::Pem)?;
        match read.len() {
            0 => Err(ClientAuthoritiesError::Empty),
            count if count > AUTHORITIES_MAX => Err(ClientAuthoritiesError::TooMany(count)),
            _ => {
                let authorities = read.iter().enumerate().map(|(at, der)| Authority::read(at + 1, der));
                Ok(ClientAuthorities(authorities.collect::<Result<_, _>>()?))
            }
        }
    }

    /// Whether one of them vouches at `now` for the client whose chain this is, its own certificate first.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), ClientCertificateError> {
        let (leaf, others) = chain.split_first().ok_or(ClientCertificateError::Unreadable)?;
        if !is_within_bounds(leaf, others) {
            return Err(ClientCertificateError::Chain);
        }
        let leaf = webpki::EndEntityCert::try_from(leaf).map_err(|_| ClientCertificateError::Unreadable)?;
        let at = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let counts = |authority: &&Authority| (authority.begins_at..=authority.ends_at).contains(&at);
        let anchors: Vec<TrustAnchor<'_>> =
            self.0.iter().filter(counts).map(|authority| authority.anchor.clone()).collect();
        let algorithms = super::provider().signature_verification_algorithms.all;
        let usage = KeyUsage::client_auth();
        let Err(error) = leaf.verify_for_usage(algorithms, &anchors, others, now, usage, None, None) else {
            return Ok(());
        };
        let error = ClientCertificateError::from(error);
        // webpki looks at these before it looks for who signed.
        if error.is_of_known() && !self.have_signed(&leaf, chain) {
            return Err(ClientCertificateError::UnknownIssuer);
        }
        Err(error)
    }

    /// Whether one of them signed it, whatever it is for, at the time when all of its chain had begun.
    fn have_signed(&self, leaf: &webpki::EndEntityCert<'_>, chain: &[CertificateDer<'_>]) -> bool {
        let begun = |der: &CertificateDer<'_>| {
            let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
            u64::try_from(parsed.validity().not_before.timestamp()).ok()
        };
        let Some(at) = chain.iter().map(begun).try_fold(0, |latest, at| Some(at?.max(latest))) else {
            return false;
        };
        let at = UnixTime::since_unix_epoch(Duration::from_secs(at));
        let anchors: Vec<TrustAnchor<'_>> = self.0.iter().map(|authority| authority.anchor.clone()).collect();
        let algorithms = super::provider().signature_verification_algorithms.all;
        leaf.verify_for_usage(algorithms, &anchors, &chain[1..], at, AnyUse, None, None).is_ok()
    }
}

/// Takes certificates for whatever they are.
struct AnyUse;

impl ExtendedKeyUsageValidator for AnyUse {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl ClientCertificateError {
    /// Whether it is said of certificates that an authority signed, and of no others.
    pub fn is_of_known(self) -> bool {
        match self {
            ClientCertificateError::Expired
            | ClientCertificateError::Early
            | ClientCertificateError::Purpose => true,
            ClientCertificateError::Unreadable
            | ClientCertificateError::UnknownIssuer
            | ClientCertificateError::Chain => false,
        }
    }
}

impl Authority {
    fn read(at: usize, der: &CertificateDer<'_>) -> Result<Authority, ClientAuthoritiesError> {
        let unreadable = || ClientAuthoritiesError::Unreadable(at);
        let (rest, parsed) = x509_parser::parse_x509_certificate(der).map_err(|_| unreadable())?;
        let usage = parsed.key_usage().map_err(|_| unreadable())?;
        let signs = usage.is_none_or(|usage| usage.value.key_cert_sign());
        if !rest.is_empty() {
            return Err(unreadable());
        }
        if !(parsed.is_ca() && signs) {
            return Err(ClientAuthoritiesError::NoAuthority(at));
        }
        let anchor = webpki::anchor_from_trusted_cert(der).map_err(|_| unreadable())?.to_owned();
        let validity = parsed.validity();
        let (begins_at, ends_at) = (validity.not_before.timestamp(), validity.not_after.timestamp());
        Ok(Authority { anchor, begins_at, ends_at })
    }
}

impl From<webpki::Error> for ClientCertificateError {
    fn from(error: webpki::Error) -> ClientCertificateError {
        match error {
            // An authority may be called as another one is.
            webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey => {
                ClientCertificateError::UnknownIssuer
            }
            webpki::Error::CertExpired { .. } => ClientCertificateError::Expired,
            webpki::Error::CertNotValidYet { .. } => ClientCertificateError::Early,
            webpki::Error::RequiredEkuNotFoundContext(_) => ClientCertificateError::Purpose,
            _ => ClientCertificateError::Chain,
        }
    }
}

impl ClientNames {
    /// Reads what a certificate says.
    pub fn read(certificate: &CertificateDer<'_>) -> Result<ClientNames, ClientCertificateError> {
        let unreadable = || ClientCertificateError::Unreadable;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).map_err(|_| unreadable())?;
        let alternative = parsed.subject_alternative_name().map_err(|_| unreadable())?;
        let names = alternative.map(|names| names.value.general_names.as_slice()).unwrap_or_default();
        if names.iter().any(|name| matches!(name, GeneralName::Invalid(..))) {
            // It would be one name the less, and a second one is what makes a certificate ambiguous.
            return Err(unreadable());
        }
        let of_kind = |kind: fn(&GeneralName<'_>) -> Option<String>| -> Vec<String> {
            names.iter().filter_map(kind).take(NAMES_MAX).collect()
        };
        Ok(ClientNames {
            uris: of_kind(|name| match name {
                GeneralName::URI(uri) => Some((*uri).to_owned()),
                _ => None,
            }),
            dns: of_kind(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            }),
            emails: of_kind(|name| match name {
                GeneralName::RFC822Name(address) => Some((*address).to_owned()),
                _ => None,
            }),
            subject: subject(&parsed),
            ends_at: u64::try_from(parsed.validity().not_after.timestamp()).unwrap_or(0),
        })
    }
}

/// Whether a chain is as short as honest ones are.
fn is_within_bounds(leaf: &CertificateDer<'_>, intermediates: &[CertificateDer<'_>]) -> bool {
    let bytes = intermediates.iter().fold(leaf.len(), |sum, one| sum.saturating_add(one.len()));
    intermediates.len() <= INTERMEDIATES_MAX && bytes <= CHAIN_BYTES_MAX
}

/// The subject, its last part first (RFC 4514, 2.1). Only what everybody writes in one way: of parts with several values the
/// order differs from tool to tool, and so do the names of rare attributes.
fn subject(certificate: &X509Certificate<'_>) -> Option<String> {
    let name: &X509Name<'_> = certificate.subject();
    let part = |part: &RelativeDistinguishedName<'_>| match part.iter().collect::<Vec<_>>().as_slice() {
        [single] => attribute(single),
        _ => None,
    };
    let mut parts: Vec<String> = name.iter_rdn().map(part).collect::<Option<_>>()?;
    parts.reverse();
    Some(parts.join(",")).filter(|text| !text.is_empty())
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let kind = attribute.attr_type().to_id_string();
    let (_, kind) = ATTRIBUTES.iter().find(|(id, _)| *id == kind)?;
    let text = attribute.as_str().ok().filter(|text| !text.chars().any(char::is_control))?;
    Some(format!("{kind}={}", escaped(text)))
}

/// RFC 4514, 2.4: so that no text of one part can look like another part.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut escaped = String::with_capacity(text.len());
    for (at, character) in text.chars().enumerate() {
        let is_special = matches!(character, '"' | '+' | ',' | ';' | '<' | '>' | '\\')
            || (at == 0 && matches!(character, ' ' | '#'))
            || (at == last && character == ' ');
        if is_special {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}

/// Asks clients for certificates in the handshake, and takes whatever they have the key of.
#[derive(Debug)]
pub(super) struct AnyClient(WebPkiSupportedAlgorithms);

impl AnyClient {
    pub(super) fn new() -> Arc<AnyClient> {
        Arc::new(AnyClient(super::provider().signature_verification_algorithms))
    }
}

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        ParsedCertificate::try_from(end_entity)?;
        if !is_within_bounds(end_entity, intermediates) {
            return Err(Error::General("the client's chain is too long".to_owned()));
        }
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

#[cfg(test)]
mod tests;
