//! What the node received of the control plane's state, and the configuration made of it.
//!
//! Always holds: after an update was taken, the records are exactly the control plane's at that revision (the digest
//! says so), or the update is refused and a snapshot is asked for. Records are kept as they came, so that the digest
//! is over the same bytes on both sides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use aws_lc_rs::hmac;
use gantry_model::digest::Digest;
use gantry_model::record::{Record, RecordKey};
use gantry_model::{CredentialName, Revision, Secret, TenantName};
use gantry_node::seal::{NodeSealKey, Purpose, SealError, Sealed};
use gantry_wire::{WireError, decode_record, sync_v1 as wire};
use prost::Message;

use crate::config::tenant::{Secrets, Tenant};
use crate::config::{Config, NodeKeys};
use crate::mcp::seal::Keyring;

/// Records of all tenants, as received.
pub(crate) struct Holdings {
    seal: Arc<NodeSealKey>,
    entries: BTreeMap<String, (bytes::Bytes, Record)>,
    digest: Digest,
    revision: Revision,
    cluster_id: String,
    secrets: HashMap<TenantName, Secrets>,
    keys: Option<Arc<NodeKeys>>,
    /// Tenants that are served in an older form; they are tried again with every update.
    stale: BTreeSet<TenantName>,
}

/// Why an update cannot be taken. All of them are mended by a snapshot, or need a newer build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// It does not begin where the node stands.
    #[error("the update begins at revision {update}, the node stands at {node}")]
    Gap { update: Revision, node: Revision },
    /// A record cannot be read.
    #[error("the record {key:?} cannot be read")]
    Record {
        key: String,
        #[source]
        source: WireError,
    },
    /// A record stands under another's key.
    #[error("the record {0:?} is not what its key says")]
    Misplaced(String),
    /// A secret or key cannot be opened.
    #[error("{0} cannot be opened")]
    Seal(&'static str, #[source] SealError),
    /// A part of the update is not well formed.
    #[error("{0} is not well formed")]
    Form(&'static str),
    /// The records are not the control plane's.
    #[error("the digest differs after revision {0}")]
    Digest(Revision),
}

/// A tenant that could not be compiled.
#[derive(Debug)]
pub(crate) struct Problem {
    pub(crate) tenant: TenantName,
    pub(crate) message: String,
}

impl Holdings {
    pub(crate) fn new(seal: Arc<NodeSealKey>) -> Holdings {
        Holdings {
            seal,
            entries: BTreeMap::new(),
            digest: Digest::default(),
            revision: Revision::NONE,
            cluster_id: String::new(),
            secrets: HashMap::new(),
            keys: None,
            stale: BTreeSet::new(),
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    pub(crate) fn digest(&self) -> Digest {
        self.digest
    }

    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Takes a whole update (its parts merged). Returns the tenants that it touched.
    pub(crate) fn take(&mut self, update: wire::Update) -> Result<BTreeSet<TenantName>, UpdateError> {
        let (from, to) = (Revision(update.from_revision), Revision(update.revision));
        let mut touched = BTreeSet::new();
        if from == Revision::NONE {
            touched.extend(self.tenants());
            self.entries.clear();
            self.secrets.clear();
            self.digest = Digest::default();
        } else if from != self.revision {
            return Err(UpdateError::Gap { update: from, node: self.revision });
        }
        // Until the digest is found to be right, this is no revision to go on from.
        self.revision = Revision::NONE;
        if let Some(sealed) = update.node_keys {
            self.keys = Some(Arc::new(open_node_keys(&self.seal, sealed)?));
        }
        for key in update.deletes {
            touched.extend(self.remove(&key)?);
        }
        for entry in update.upserts {
            touched.extend(self.insert(entry)?);
        }
        for id in update.secret_deletes {
            let (tenant, credential) = secret_id(&id)?;
            self.secrets.entry(tenant.clone()).or_default().remove(&credential);
            touched.insert(tenant);
        }
        for released in update.secrets {
            touched.insert(self.take_secret(released)?);
        }
        if self.digest.to_bytes()[..] != update.digest_after[..] {
            return Err(UpdateError::Digest(to));
        }
        self.revision = to;
        self.cluster_id = update.cluster_id;
        Ok(touched)
    }

    /// The configuration with the touched tenants compiled anew. A tenant that fails keeps its form of `before`.
    pub(crate) fn compile(
        &mut self,
        before: &Config,
        touched: BTreeSet<TenantName>,
    ) -> (Config, Vec<Problem>) {
        let mut problems = Vec::new();
        let mut tenants = before.tenants.clone();
        let wanted = &touched | &std::mem::take(&mut self.stale);
        for name in &wanted {
            let key = RecordKey::tenant_prefix(name);
            let records = self.entries.range(key.clone()..).take_while(|(found, _)| found.starts_with(&key));
            let mut records = records.map(|(_, (_, record))| record).peekable();
            if records.peek().is_none() {
                tenants.remove(name);
                continue;
            }
            let none = Secrets::new();
            let secrets = self.secrets.get(name).unwrap_or(&none);
            match Tenant::build(name, records, secrets, before.tenants.get(name).map(Arc::as_ref)) {
                Ok(tenant) => {
                    tenants.insert(name.clone(), Arc::new(tenant));
                }
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    let message = format!("{error}{}", cause.unwrap_or_default());
                    self.stale.insert(name.clone());
                    problems.push(Problem { tenant: name.clone(), message });
                }
            }
        }
        (Config { revision: self.revision, tenants, keys: self.keys.clone() }, problems)
    }

    fn tenants(&self) -> impl Iterator<Item = TenantName> {
        self.entries.values().filter_map(|(_, record)| record.value.key().tenant().cloned())
    }

    fn insert(&mut self, entry: wire::Entry) -> Result<Option<TenantName>, UpdateError> {
        let record = decode_record(&entry.record)
            .map_err(|source| UpdateError::Record { key: entry.key.clone(), source })?;
        let key = record.value.key();
        if key.to_string() != entry.key {
            return Err(UpdateError::Misplaced(entry.key));
        }
        self.digest.add(&entry.key, &entry.record);
        if let Some((before, _)) = self.entries.insert(entry.key.clone(), (entry.record, record)) {
            self.digest.remove(&entry.key, &before);
        }
        Ok(key.tenant().cloned())
    }

    fn remove(&mut self, key: &str) -> Result<Option<TenantName>, UpdateError> {
        let parsed: RecordKey = key.parse().map_err(|_| UpdateError::Misplaced(key.to_owned()))?;
        if let Some((before, _)) = self.entries.remove(key) {
            self.digest.remove(key, &before);
        }
        Ok(parsed.tenant().cloned())
    }

    fn take_secret(&mut self, released: wire::ReleasedSecret) -> Result<TenantName, UpdateError> {
        let id = released.id.ok_or(UpdateError::Form("a secret's id"))?;
        let (tenant, credential) = secret_id(&id)?;
        let sealed = released.sealed.ok_or(UpdateError::Form("a secret"))?;
        let purpose = Purpose::Credential {
            tenant: tenant.clone(),
            credential: credential.clone(),
            version: released.version,
        };
        let secret = self
            .seal
            .open(&purpose, &of_wire(sealed))
            .map_err(|error| UpdateError::Seal("a secret", error))?;
        self.secrets.entry(tenant.clone()).or_default().insert(credential, Arc::new(secret));
        Ok(tenant)
    }
}

fn secret_id(id: &wire::SecretId) -> Result<(TenantName, CredentialName), UpdateError> {
    match (id.tenant.parse(), id.credential.parse()) {
        (Ok(tenant), Ok(credential)) => Ok((tenant, credential)),
        _ => Err(UpdateError::Form("a secret's id")),
    }
}

fn open_node_keys(seal: &NodeSealKey, sealed: wire::SealedToNode) -> Result<NodeKeys, UpdateError> {
    let opened = seal
        .open(&Purpose::NodeKeys, &of_wire(sealed))
        .map_err(|error| UpdateError::Seal("the node keys", error))?;
    let keys =
        wire::NodeKeys::decode(opened.expose().as_slice()).map_err(|_| UpdateError::Form("the node keys"))?;
    let (key_hash_key, _) = (Secret::new(keys.key_hash_key), Secret::new(keys.session_key));
    let seal_keys: Vec<_> =
        keys.seal_keys.into_iter().map(|key| (key.generation, Secret::new(key.key))).collect();
    let generations = seal_keys.iter().map(|(generation, key)| (*generation, key.expose().as_slice()));
    Ok(NodeKeys {
        key_hash: hmac::Key::new(hmac::HMAC_SHA256, key_hash_key.expose()),
        seal: Keyring::new(generations).map_err(|_| UpdateError::Form("the seal keys"))?,
    })
}

fn of_wire(sealed: wire::SealedToNode) -> Sealed {
    Sealed { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext }
}
