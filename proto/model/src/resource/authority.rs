//! Authorities whose certificates agents show in the handshake of TLS, and by which name of a certificate they are known.
//!
//! Always holds: a certificate has one name that counts, of a kind that is said here; where that is an id of SPIFFE, it is of
//! one trust domain. Whether the bundle holds certificates of authorities is looked at where it is applied, because that
//! takes a reader of certificates, and two builds of it may differ.

use serde::{Deserialize, Serialize};

use super::SpecError;
use super::check::error;

/// Most bytes of a bundle: sixteen authorities with keys of 4,096 bits.
pub const BUNDLE_BYTES_MAX: usize = 64 * 1024;
/// Longest trust domain in bytes (SPIFFE ID, 2.1).
pub const TRUST_DOMAIN_BYTES_MAX: usize = 255;
/// The field by which a document tells that it is of authorities.
pub(crate) const CLIENT_AUTHORITIES: &str = "client_authorities";
/// What begins an id of SPIFFE.
const SPIFFE: &str = "spiffe://";

/// Authorities of clients' certificates.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthoritySpec {
    /// Their certificates, as PEM.
    pub client_authorities: String,
    /// Which name of a certificate is its client: what agents name in `identities`.
    #[serde(default)]
    pub client_name: ClientName,
    /// Of which trust domain ids of SPIFFE have to be; `None`: names need not be such ids.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trust_domain: Option<String>,
}

/// A kind of names that certificates have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClientName {
    /// A URI, such as an id of SPIFFE, among the alternative names.
    #[default]
    Uri,
    /// A host's name among them.
    Dns,
    /// An address of mail among them.
    Email,
    /// The subject as a whole (RFC 4514).
    Subject,
}

impl ClientName {
    /// All of them.
    pub const ALL: [ClientName; 4] =
        [ClientName::Uri, ClientName::Dns, ClientName::Email, ClientName::Subject];

    /// The kind as it stands in a document.
    pub fn as_str(self) -> &'static str {
        match self {
            ClientName::Uri => "uri",
            ClientName::Dns => "dns",
            ClientName::Email => "email",
            ClientName::Subject => "subject",
        }
    }
}

impl AuthoritySpec {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        if self.client_authorities.len() > BUNDLE_BYTES_MAX {
            return Err(error(CLIENT_AUTHORITIES, format!("has more than {BUNDLE_BYTES_MAX} bytes")));
        }
        if self.client_authorities.contains("PRIVATE KEY") {
            let message = "holds a private key, which nobody but its owner may have; certificates are enough";
            return Err(error(CLIENT_AUTHORITIES, message));
        }
        if !self.client_authorities.contains("-----BEGIN CERTIFICATE-----") {
            return Err(error(CLIENT_AUTHORITIES, "holds no certificate; PEM is expected"));
        }
        let Some(domain) = &self.trust_domain else { return Ok(()) };
        if !(1..=TRUST_DOMAIN_BYTES_MAX).contains(&domain.len()) || !domain.bytes().all(is_of_domain) {
            let message = "a trust domain has 1 to 255 of a-z, 0-9, `.`, `-`, `_`, such as prod.example.com";
            return Err(error("trust_domain", message));
        }
        if self.client_name != ClientName::Uri {
            return Err(error("trust_domain", "goes with `client_name: uri`, for ids of SPIFFE are URIs"));
        }
        Ok(())
    }

    /// Whether a URI may be a client's: any, or an id of SPIFFE of the trust domain (SPIFFE ID, 2).
    pub fn is_of_trust_domain(&self, uri: &str) -> bool {
        let Some(domain) = &self.trust_domain else { return true };
        let path = uri.strip_prefix(SPIFFE).and_then(|rest| rest.strip_prefix(domain.as_str()));
        let Some(path) = path.and_then(|rest| rest.strip_prefix('/')) else { return false };
        path.split('/').all(|segment| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|byte| is_of_domain(byte) || byte.is_ascii_uppercase())
        })
    }
}

fn is_of_domain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n";

    fn spec(change: serde_json::Value) -> AuthoritySpec {
        let mut spec = serde_json::json!({"client_authorities": PEM});
        for (name, value) in change.as_object().expect("an object") {
            spec[name] = value.clone();
        }
        serde_json::from_value(spec).expect("a specification")
    }

    #[test]
    fn an_id_of_spiffe_is_of_the_trust_domain_and_nothing_else_is() {
        let spec = spec(serde_json::json!({"trust_domain": "acme.example"}));
        for (uri, is_one) in [
            ("spiffe://acme.example/agents/Reporter_1", true),
            ("spiffe://acme.example", false),
            ("spiffe://acme.example/", false),
            ("spiffe://acme.example/a//b", false),
            ("spiffe://acme.example/a/../b", false),
            ("spiffe://acme.example/a?b", false),
            ("spiffe://acme.example/a%2fb", false),
            ("spiffe://acme.example.evil.example/a", false),
            ("spiffe://acme.example:443/a", false),
            ("spiffe://other.example/agents/Reporter_1", false),
            ("https://acme.example/a", false),
            ("SPIFFE://acme.example/a", false),
        ] {
            assert_eq!(spec.is_of_trust_domain(uri), is_one, "{uri}");
        }
    }

    #[test]
    fn a_refused_bundle_names_the_place() {
        use serde_json::json;
        let path = |change| spec(change).check().map_err(|error| error.path.into_owned());
        assert_eq!(path(json!({"client_name": "subject"})), Ok(()));
        let private = format!("{PEM}-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n");
        for (change, place) in [
            (json!({"client_authorities": ""}), "client_authorities"),
            (json!({"client_authorities": private}), "client_authorities"),
            (json!({"client_authorities": "x".repeat(BUNDLE_BYTES_MAX + 1)}), "client_authorities"),
            (json!({"trust_domain": "Acme"}), "trust_domain"),
            (json!({"trust_domain": ""}), "trust_domain"),
            (json!({"trust_domain": "acme", "client_name": "dns"}), "trust_domain"),
        ] {
            assert_eq!(path(change.clone()), Err(place.to_owned()), "{change}");
        }
    }
}
