//! What a node holds, as a value of its own: what is kept on disk, and what a node that starts begins with.
//!
//! Always holds: an [`Image`] is of one revision and never changes; it shares its parts with the holdings that it was
//! taken from, so taking one costs the same however much there is. It has secrets in it and cannot be printed.

use std::sync::Arc;

use bytes::Bytes;
use gantry_model::digest::Digest;
use gantry_model::record::Record;
use gantry_model::{CredentialName, Revision, Secret, TenantName};
use rpds::RedBlackTreeMapSync;

use crate::config::tenant::Secrets;

/// Records by key: as they came, and read.
pub(super) type Entries = RedBlackTreeMapSync<String, (Bytes, Record)>;
/// Secrets by tenant.
pub(super) type SecretsByTenant = RedBlackTreeMapSync<TenantName, Secrets>;

/// What a node holds at a revision.
pub(crate) struct Image {
    pub(crate) cluster_id: String,
    pub(crate) revision: Revision,
    pub(crate) digest: Digest,
    pub(super) entries: Entries,
    pub(super) secrets: SecretsByTenant,
    /// An encoded `gantry.sync.v1.NodeKeys`.
    pub(crate) node_keys: Arc<Secret<Vec<u8>>>,
}

/// What was kept of an image, before anybody looked at what is in it.
pub(crate) struct Kept {
    pub(crate) cluster_id: String,
    pub(crate) revision: Revision,
    pub(crate) digest: Vec<u8>,
    /// Encoded records; their keys follow from them.
    pub(crate) records: Vec<Bytes>,
    pub(crate) secrets: Vec<(TenantName, CredentialName, Secret<Vec<u8>>)>,
    pub(crate) node_keys: Secret<Vec<u8>>,
}

impl Image {
    /// Of nothing.
    #[cfg(test)]
    pub(crate) fn empty() -> Image {
        Image {
            cluster_id: String::new(),
            revision: Revision::NONE,
            digest: Digest::default(),
            entries: Entries::default(),
            secrets: SecretsByTenant::default(),
            node_keys: Arc::new(Secret::new(Vec::new())),
        }
    }

    /// The records as they came, by key.
    pub(crate) fn records(&self) -> impl Iterator<Item = &Bytes> {
        self.entries.values().map(|(encoded, _)| encoded)
    }

    /// The secrets of credentials.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (&TenantName, &CredentialName, &Secret<Vec<u8>>)> {
        self.secrets.iter().flat_map(|(tenant, secrets)| {
            secrets.iter().map(move |(credential, secret)| (tenant, credential, secret.as_ref()))
        })
    }
}
