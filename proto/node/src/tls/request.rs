//! Asking for a certificate: a new key, and the proof that one has it.
//!
//! Always holds: the key never leaves the process but as [`CertificateRequest::to_pem`], for its own file; each
//! request has a key of its own.

use gantry_model::Secret;
use pem::Pem;
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::presenter::{Certified, CertifiedError};

/// What a request is called in PEM; the second is what some older tools write.
const REQUEST_TAGS: [&str; 2] = ["CERTIFICATE REQUEST", "NEW CERTIFICATE REQUEST"];

/// A key of ECDSA over P-256, and the request (PKCS #10) to certify it. It asks for no name: the authority decides that.
#[derive(Debug)]
pub struct CertificateRequest {
    key: Secret<Vec<u8>>,
    request: Vec<u8>,
}

/// No key could be made.
#[derive(Debug, thiserror::Error)]
#[error("no key for a certificate can be made")]
pub struct RequestError(#[from] rcgen::Error);

impl CertificateRequest {
    /// Makes a key and the request for it.
    pub fn new() -> Result<CertificateRequest, RequestError> {
        let key = KeyPair::generate()?;
        let request = CertificateParams::default().serialize_request(&key)?;
        Ok(CertificateRequest { key: Secret::new(key.serialize_der()), request: request.der().to_vec() })
    }

    /// Reads a request that somebody made elsewhere, as PEM; its DER. What it says is for the authority to look at.
    pub fn read_pem(text: &[u8]) -> Option<Vec<u8>> {
        let part = pem::parse(text).ok()?;
        REQUEST_TAGS.contains(&part.tag()).then(|| part.into_contents())
    }

    /// The request, as PEM, for an authority elsewhere.
    pub fn request_to_pem(&self) -> String {
        pem::encode(&Pem::new(REQUEST_TAGS[0], self.request.clone()))
    }

    /// The request, as DER.
    pub fn as_der(&self) -> &[u8] {
        &self.request
    }

    /// What is shown with the chain that the authority answered, leaf first. Fails when that is for another key.
    pub fn complete(&self, chain: Vec<CertificateDer<'static>>) -> Result<Certified, CertifiedError> {
        let key = PrivatePkcs8KeyDer::from(self.key.expose().clone());
        Certified::from_der(chain, PrivateKeyDer::Pkcs8(key))
    }

    /// The key as PEM.
    pub fn to_pem(&self) -> Secret<String> {
        Secret::new(pem::encode(&Pem::new("PRIVATE KEY", self.key.expose().clone())))
    }
}
