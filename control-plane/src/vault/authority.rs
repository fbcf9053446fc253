//! The key of the cluster's authority, as the vault keeps it.
//!
//! Always holds: it is sealed for its cluster and its certificate, so that it opens beside no other.

use gantry_model::Secret;
use gantry_model::enrolment::Authority;

use super::envelope::{CryptoError, Key, NotOurs};

/// Seals the key of an authority.
pub(super) fn seal(
    root: &Key,
    cluster_id: &str,
    certificate: Vec<u8>,
    key: &Secret<Vec<u8>>,
) -> Result<Authority, CryptoError> {
    let sealed = root.seal(&purpose(cluster_id, &certificate), key)?;
    Ok(Authority { certificate, key_nonce: sealed.nonce, key_sealed: sealed.ciphertext })
}

/// Opens the key of an authority: PKCS #8, as DER.
pub(super) fn open(root: &Key, cluster_id: &str, authority: &Authority) -> Result<Secret<Vec<u8>>, NotOurs> {
    root.open(&purpose(cluster_id, &authority.certificate), authority.key_nonce, &authority.key_sealed)
}

fn purpose(cluster_id: &str, certificate: &[u8]) -> Vec<u8> {
    format!("gantry authority key v1|{cluster_id}|{}", blake3::hash(certificate).to_hex()).into_bytes()
}
