//! The vault: the one place that opens secrets.
//!
//! ```text
//! key file (KEK)  wraps  cluster root key  wraps  tenant data key  derives  record key  seals  a credential's secret
//!                                     \--  seals  the keys that all nodes share
//! ```
//!
//! Always holds:
//! - what leaves [`Vault::seal_secret`] and [`Vault::found`] is ciphertext, made before it is proposed; so the log,
//!   the store, checkpoints and backups never hold a secret;
//! - every seal binds its place (cluster, tenant, credential, version, data key version): a record that is moved or
//!   rolled back to another place does not open;
//! - a secret leaves only sealed to one node's key, [`Vault::release`], or within a backup, sealed to the operator's;
//!   nothing here returns one to a person.
//!
//! It stores nothing and proposes nothing. It does not lock memory or forbid core dumps: that needs `unsafe` or the
//! operator (`LimitCORE=0`).

mod authority;
mod backup_key;
mod envelope;
mod key_file;
mod node_keys;
mod refound;

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use aws_lc_rs::hmac;
use gantry_control_state::{Command, State};
use gantry_model::enrolment::{Authority, Enrolment};
use gantry_model::identity::PeerName;
use gantry_model::key::KEY_SECRET_BYTES;
use gantry_model::record::{Cluster, RecordKey, RecordKind, RecordValue, SealedSecret, TenantKey};
use gantry_model::{CredentialName, Secret, TenantName};
use gantry_node::seal::{self, Purpose, SealError, SealPublicKey, Sealed};

use crate::ca::NewAuthority;
use envelope::Key;
use key_file::KeyFile;
use node_keys::NodeKeySet;

pub use backup_key::{BackupKey, BackupKeyError, BackupRecipient};
pub(crate) use backup_key::{BackupSeal, SealedBackupKey};
pub(crate) use envelope::fill_random;
pub use envelope::{CryptoError, NotOurs};
pub(crate) use key_file::KEY_FILE_NAME;
pub use key_file::KeyFileError;
pub use refound::RefoundError;
pub(crate) use refound::Refounded;

/// Longest secret in bytes. It is sent as one header, and servers commonly refuse headers beyond 8 to 16 KiB.
pub(crate) const SECRET_BYTES_MAX: usize = 16 * 1024;

/// Random bytes of a cluster's id.
const CLUSTER_ID_BYTES: usize = 16;

/// An open vault: it holds the cluster's root key in memory.
#[derive(Debug)]
pub(crate) struct Vault {
    cluster_id: Arc<str>,
    root: Key,
    /// Never rotated: what it hashed is stored.
    agent_keys: hmac::Key,
}

/// Why the vault does not open.
#[derive(Debug, thiserror::Error)]
pub enum UnsealError {
    /// There is no key to open it with.
    #[error("the vault's key cannot be had")]
    KeyFile(#[from] KeyFileError),
    /// The key is that of another cluster.
    #[error(
        "the vault was sealed with the key {expected}, and the key file holds {actual}; put the right file back"
    )]
    WrongKey {
        /// The key that wraps the root key.
        expected: String,
        /// The key in the file.
        actual: String,
    },
    /// The cluster's record is damaged.
    #[error("the vault's {what} cannot be opened")]
    Damaged {
        /// What does not open.
        what: &'static str,
        /// How that shows.
        #[source]
        source: NotOurs,
    },
    /// The keys of the nodes are not what this build writes.
    #[error("the vault's node keys are not of the form that this build knows")]
    NodeKeys,
}

/// Why the facts of a new cluster cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FoundError {
    /// There is no key to seal them with.
    #[error("the vault's key cannot be made")]
    KeyFile(#[from] KeyFileError),
    /// No randomness.
    #[error("the vault's keys cannot be made")]
    Crypto(#[from] CryptoError),
    /// No authority.
    #[error("the cluster's authority cannot be made")]
    Authority(#[from] rcgen::Error),
}

/// Why the key file is not handed to a member.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SealKeyFileError {
    /// It cannot be read.
    #[error(transparent)]
    KeyFile(#[from] KeyFileError),
    /// What the member sent is no usable key.
    #[error("the vault's key file cannot be sealed to the member")]
    Seal(#[from] SealError),
}

/// Why a stored secret cannot be worked with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// No randomness.
    #[error("the secret cannot be sealed")]
    Crypto(#[from] CryptoError),
    /// The tenant's data key, or the secret, was not sealed for its place.
    #[error("the {what} of tenant {tenant} cannot be opened")]
    Damaged {
        /// What does not open.
        what: &'static str,
        /// Whose it is.
        tenant: TenantName,
        /// How that shows.
        #[source]
        source: NotOurs,
    },
    /// The data key that it was sealed under is not in the state.
    #[error("tenant {tenant} has no data key of version {version}")]
    NoTenantKey {
        /// Whose it is.
        tenant: TenantName,
        /// Which one.
        version: u32,
    },
    /// The keys that nodes share do not open, or are not whole.
    #[error("the keys of the nodes cannot be opened")]
    NodeKeys(#[source] NotOurs),
    /// It cannot be sealed to the node.
    #[error("the secret cannot be sealed to the node")]
    Seal(#[from] SealError),
}

/// A credential's secret for one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Released {
    /// Which of the credential's secrets.
    pub(crate) version: u64,
    /// Opens with the node's key only.
    pub(crate) sealed: Sealed,
}

impl Vault {
    /// Makes the facts of a new cluster: its id, its root key, the keys that its nodes share. The key file in
    /// `directory` is made when it is not there. Blocks. Nothing is decided before the facts are committed.
    pub(crate) fn found(directory: &Path) -> Result<Cluster, FoundError> {
        Vault::found_with(directory, &NodeKeySet::random()?)
    }

    fn found_with(directory: &Path, keys: &NodeKeySet) -> Result<Cluster, FoundError> {
        let key_file = KeyFile::read_or_make(directory)?;
        let mut id = [0; CLUSTER_ID_BYTES];
        fill_random(&mut id)?;
        let id: String = id.iter().map(|byte| format!("{byte:02x}")).collect();
        let root = Key::random()?;
        let wrapped = key_file.key.seal(&purpose_of_root(&id, &key_file.id), &root.to_secret())?;
        let node_keys = root.seal(&purpose_of_node_keys(&id, keys.generation()), &keys.encode())?;
        let new = NewAuthority::make(&id, SystemTime::now())?;
        let authority = authority::seal(&root, &id, new.certificate, &new.key)?;
        Ok(Cluster {
            id,
            kek_id: key_file.id,
            root_nonce: wrapped.nonce,
            root_wrapped: wrapped.ciphertext,
            node_keys_nonce: node_keys.nonce,
            node_keys_wrapped: node_keys.ciphertext,
            node_keys_generation: keys.generation(),
            node_keys_rotated_at_ms: None,
            enrolment: Enrolment { authority: Some(authority), ..Enrolment::default() },
        })
    }

    /// Opens the vault of a cluster with the key file in `directory`. Blocks.
    pub(crate) fn unseal(directory: &Path, cluster: &Cluster) -> Result<Vault, UnsealError> {
        let key_file = KeyFile::read(directory)?;
        if key_file.id != cluster.kek_id {
            let (expected, actual) = (cluster.kek_id.clone(), key_file.id);
            return Err(UnsealError::WrongKey { expected, actual });
        }
        let damaged = |what| move |source| UnsealError::Damaged { what, source };
        let purpose = purpose_of_root(&cluster.id, &cluster.kek_id);
        let root = key_file
            .key
            .open(&purpose, cluster.root_nonce, &cluster.root_wrapped)
            .and_then(|root| Key::of_bytes(root.expose()).ok_or(NotOurs))
            .map_err(damaged("root key"))?;
        let vault = Vault::with_root(cluster, root).map_err(damaged("node keys"))?;
        vault.ok_or(UnsealError::NodeKeys)
    }

    /// `None`: the keys of the nodes open, and are not whole.
    fn with_root(cluster: &Cluster, root: Key) -> Result<Option<Vault>, NotOurs> {
        let keys = open_node_keys(&root, cluster)?;
        let cluster_id = cluster.id.as_str().into();
        Ok(keys.map(|keys| Vault { cluster_id, root, agent_keys: keys.agent_key_hasher() }))
    }

    /// The key file in `directory`, sealed to a member that joins. Blocks.
    pub(crate) fn seal_key_file(
        directory: &Path,
        member: PeerName,
        recipient: &SealPublicKey,
    ) -> Result<Sealed, SealKeyFileError> {
        let key_file = KeyFile::read(directory)?;
        Ok(seal::seal(recipient, &Purpose::KeyFile { member }, &key_file.key.to_secret())?)
    }

    /// Keeps the key file that a member handed over. Blocks.
    pub(crate) fn keep_key_file(directory: &Path, handed: &Secret<Vec<u8>>) -> Result<(), KeyFileError> {
        KeyFile::keep(directory, handed)
    }

    /// The cluster that the vault belongs to.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Makes an authority for a cluster that has none, and seals its key.
    pub(crate) fn found_authority(&self) -> Result<Authority, FoundError> {
        let new = NewAuthority::make(&self.cluster_id, SystemTime::now())?;
        Ok(authority::seal(&self.root, &self.cluster_id, new.certificate, &new.key)?)
    }

    /// Opens the key of the cluster's authority: PKCS #8, as DER.
    pub(crate) fn open_authority(&self, authority: &Authority) -> Result<Secret<Vec<u8>>, NotOurs> {
        authority::open(&self.root, &self.cluster_id, authority)
    }

    /// What is stored of an agent key's secret.
    pub(crate) fn hash_agent_key(&self, secret: &Secret<[u8; KEY_SECRET_BYTES]>) -> [u8; 32] {
        let tag = hmac::sign(&self.agent_keys, secret.expose());
        let mut hash = [0; 32];
        hash.copy_from_slice(tag.as_ref());
        hash
    }

    /// Seals the next secret of a credential as `state` has it, with the tenant's first data key when it has none.
    /// The state machine refuses it when either moved on meanwhile.
    pub(crate) fn seal_secret(
        &self,
        state: &State,
        tenant: &TenantName,
        credential: &CredentialName,
        secret: &Secret<Vec<u8>>,
    ) -> Result<(SealedSecret, Option<TenantKey>), SecretError> {
        let (data_key, tenant_key_version, new_key) = match state.tenant_key(tenant) {
            Some(stored) => (self.open_tenant_key(stored)?, stored.version, None),
            None => {
                let key = Key::random()?;
                let wrapped = self.root.seal(&purpose_of_tenant_key(tenant, 1), &key.to_secret())?;
                let stored = TenantKey {
                    tenant: tenant.clone(),
                    version: 1,
                    nonce: wrapped.nonce,
                    wrapped: wrapped.ciphertext,
                };
                (key, 1, Some(stored))
            }
        };
        let version = state.secret(tenant, credential).map_or(0, |stored| stored.version) + 1;
        let mut sealed = SealedSecret {
            tenant: tenant.clone(),
            credential: credential.clone(),
            version,
            tenant_key_version,
            nonce: [0; 12],
            ciphertext: Vec::new(),
        };
        let ciphertext = record_key(&data_key, &sealed)?.seal(&self.purpose_of_secret(&sealed), secret)?;
        (sealed.nonce, sealed.ciphertext) = (ciphertext.nonce, ciphertext.ciphertext);
        Ok((sealed, new_key))
    }

    /// Opens a stored secret and seals it to one node.
    pub(crate) fn release(
        &self,
        state: &State,
        stored: &SealedSecret,
        recipient: &SealPublicKey,
    ) -> Result<Released, SecretError> {
        let secret = self.open_secret(state, stored)?;
        let purpose = Purpose::Credential {
            tenant: stored.tenant.clone(),
            credential: stored.credential.clone(),
            version: stored.version,
        };
        Ok(Released { version: stored.version, sealed: seal::seal(recipient, &purpose, &secret)? })
    }

    /// The keys that all nodes share as `state` has them, sealed to one of them.
    pub(crate) fn release_node_keys(
        &self,
        state: &State,
        recipient: &SealPublicKey,
    ) -> Result<Sealed, SecretError> {
        Ok(seal::seal(recipient, &Purpose::NodeKeys, &self.node_keys(state.cluster())?.encode())?)
    }

    /// The next generation of the keys that all nodes share. The state machine refuses it when another came first.
    pub(crate) fn rotate_node_keys(&self, state: &State, now_ms: u64) -> Result<Command, SecretError> {
        let keys = self.node_keys(state.cluster())?.next()?;
        let generation = keys.generation();
        let sealed = self.root.seal(&purpose_of_node_keys(&self.cluster_id, generation), &keys.encode())?;
        let (nonce, wrapped) = (sealed.nonce, sealed.ciphertext);
        Ok(Command::RotateNodeKeys { generation, nonce, wrapped, rotated_at_ms: now_ms })
    }

    fn node_keys(&self, cluster: Option<&Arc<Cluster>>) -> Result<NodeKeySet, SecretError> {
        let keys = cluster.map(|cluster| open_node_keys(&self.root, cluster)).transpose();
        keys.map_err(SecretError::NodeKeys)?.flatten().ok_or(SecretError::NodeKeys(NotOurs))
    }

    fn open_secret(&self, state: &State, stored: &SealedSecret) -> Result<Secret<Vec<u8>>, SecretError> {
        let (tenant, version) = (&stored.tenant, stored.tenant_key_version);
        let key = RecordKey::of(tenant, RecordKind::TenantKey, version);
        let Some(RecordValue::TenantKey(data_key)) = state.record(&key).map(|record| &record.value) else {
            return Err(SecretError::NoTenantKey { tenant: tenant.clone(), version });
        };
        let data_key = self.open_tenant_key(data_key)?;
        record_key(&data_key, stored)?
            .open(&self.purpose_of_secret(stored), stored.nonce, &stored.ciphertext)
            .map_err(|source| SecretError::Damaged { what: "secret", tenant: tenant.clone(), source })
    }

    fn open_tenant_key(&self, stored: &TenantKey) -> Result<Key, SecretError> {
        let purpose = purpose_of_tenant_key(&stored.tenant, stored.version);
        self.root
            .open(&purpose, stored.nonce, &stored.wrapped)
            .and_then(|key| Key::of_bytes(key.expose()).ok_or(NotOurs))
            .map_err(|source| SecretError::Damaged {
                what: "data key",
                tenant: stored.tenant.clone(),
                source,
            })
    }

    fn purpose_of_secret(&self, secret: &SealedSecret) -> Vec<u8> {
        let SealedSecret { tenant, credential, version, tenant_key_version, .. } = secret;
        format!("{}|{tenant}|{credential}|{version}|{tenant_key_version}", self.cluster_id).into_bytes()
    }
}

// No part of a purpose holds a `|`, so different purposes have different bytes.

fn purpose_of_root(cluster_id: &str, key_file_id: &str) -> Vec<u8> {
    format!("gantry root key v1|{cluster_id}|{key_file_id}").into_bytes()
}

fn purpose_of_node_keys(cluster_id: &str, generation: u32) -> Vec<u8> {
    match generation {
        // As it was sealed before there were generations.
        1 => format!("gantry node keys v1|{cluster_id}").into_bytes(),
        _ => format!("gantry node keys v1|{cluster_id}|{generation}").into_bytes(),
    }
}

fn purpose_of_tenant_key(tenant: &TenantName, version: u32) -> Vec<u8> {
    format!("gantry tenant key v1|{tenant}|{version}").into_bytes()
}

/// The key of one version of one secret: it seals a single message, so there are no nonces to count.
fn record_key(data_key: &Key, secret: &SealedSecret) -> Result<Key, CryptoError> {
    data_key.derive(format!("{}|{}", secret.credential, secret.version).as_bytes())
}

/// `None`: they open, and are not whole.
fn open_node_keys(root: &Key, cluster: &Cluster) -> Result<Option<NodeKeySet>, NotOurs> {
    let generation = cluster.node_keys_generation;
    let purpose = purpose_of_node_keys(&cluster.id, generation);
    let opened = root.open(&purpose, cluster.node_keys_nonce, &cluster.node_keys_wrapped)?;
    Ok(NodeKeySet::read(&opened).filter(|keys| keys.generation() == generation))
}

#[cfg(test)]
mod tests;
