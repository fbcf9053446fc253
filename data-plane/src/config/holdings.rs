//! What the node received of the control plane's state, and the configuration made of it.
//!
//! Always holds: after an update was taken, the records are exactly the control plane's at that revision (the digest
//! says so), or the update is refused and a snapshot is asked for. Records are kept as they came, so that the digest
//! is over the same bytes on both sides.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::hmac;
use gantry_model::digest::Digest;
use gantry_model::record::{Record, RecordKey, RecordValue};
use gantry_model::{CredentialName, Revision, Secret, TenantName};
use gantry_node::seal::{NodeSealKey, Purpose, SealError, Sealed};
use gantry_wire::{WireError, decode_record, sync_v1 as wire};
use prost::Message;

use crate::bans::Configured;
use crate::config::image::{Entries, Image, Kept, SecretsByTenant};
use crate::config::tenant::{Secrets, Tenant};
use crate::config::{Changed, Config, NodeKeys};
use crate::mcp::seal::Keyring;

/// Records of all tenants, as received.
pub(crate) struct Holdings {
    seal: Arc<NodeSealKey>,
    entries: Entries,
    digest: Digest,
    revision: Revision,
    cluster_id: String,
    secrets: SecretsByTenant,
    keys: Option<Keys>,
    /// Tenants that are served in an older form, or of which nothing is left but that; they are tried again with every
    /// update.
    stale: BTreeSet<TenantName>,
}

/// The keys that all nodes share.
struct Keys {
    in_use: Arc<NodeKeys>,
    /// As they came, for the image.
    encoded: Arc<Secret<Vec<u8>>>,
}

/// What an update did.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// The tenants that are to be compiled anew.
    tenants: BTreeSet<TenantName>,
    /// What is not among the records any more is gone, whoever had it.
    is_whole: bool,
    /// Nothing is left of what there was, not even its cluster.
    pub(crate) is_of_another_cluster: bool,
}

/// Why an update cannot be taken. All of them are mended by a snapshot, or need a newer build.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpdateError {
    /// It does not begin where the node stands.
    #[error("the update begins at revision {update}, the node stands at {node}")]
    Gap { update: Revision, node: Revision },
    /// It is a change of another cluster's state.
    #[error("the update changes what cluster {update:?} has, the node has cluster {node:?}'s")]
    Cluster { update: String, node: String },
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
            entries: Entries::default(),
            digest: Digest::default(),
            revision: Revision::NONE,
            cluster_id: String::new(),
            secrets: SecretsByTenant::default(),
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

    /// What is held, to be kept; `None` while it is not whole.
    pub(crate) fn image(&self) -> Option<Image> {
        let keys = self.keys.as_ref()?;
        (self.revision > Revision::NONE).then(|| Image {
            cluster_id: self.cluster_id.clone(),
            revision: self.revision,
            digest: self.digest,
            entries: self.entries.clone(),
            secrets: self.secrets.clone(),
            node_keys: keys.encoded.clone(),
        })
    }

    /// Begins with what was kept. After an error it is worth nothing.
    pub(crate) fn restore(&mut self, kept: Kept) -> Result<Touched, UpdateError> {
        let mut touched = Touched::default();
        self.keys = Some(read_node_keys(kept.node_keys)?);
        for encoded in kept.records {
            let record = decode_record(&encoded)
                .map_err(|source| UpdateError::Record { key: "of the file".to_owned(), source })?;
            let key = record.value.key();
            touched.tenants.extend(key.tenant().cloned());
            self.insert(key.to_string(), encoded, record);
        }
        for (tenant, credential, secret) in kept.secrets {
            self.put_secret(&tenant, credential, secret);
        }
        if self.digest.to_bytes()[..] != kept.digest[..] {
            return Err(UpdateError::Digest(kept.revision));
        }
        self.revision = kept.revision;
        self.cluster_id = kept.cluster_id;
        Ok(touched)
    }

    /// Takes a whole update (its parts merged). What one that fails has touched is compiled with the next.
    pub(crate) fn take(&mut self, update: wire::Update) -> Result<Touched, UpdateError> {
        let mut touched = Touched::default();
        match self.take_into(update, &mut touched) {
            Ok(()) => Ok(touched),
            Err(error) => {
                self.stale.append(&mut touched.tenants);
                Err(error)
            }
        }
    }

    fn take_into(&mut self, update: wire::Update, touched: &mut Touched) -> Result<(), UpdateError> {
        let (from, to) = (Revision(update.from_revision), Revision(update.revision));
        if from == Revision::NONE {
            touched.is_whole = true;
            touched.is_of_another_cluster =
                self.cluster_id != update.cluster_id && !self.cluster_id.is_empty();
            touched.tenants.extend(self.tenants());
            self.entries = Entries::default();
            self.secrets = SecretsByTenant::default();
            self.digest = Digest::default();
        } else if from != self.revision {
            return Err(UpdateError::Gap { update: from, node: self.revision });
        } else if update.cluster_id != self.cluster_id {
            return Err(UpdateError::Cluster { update: update.cluster_id, node: self.cluster_id.clone() });
        }
        // Until the digest is found to be right, this is no revision to go on from.
        self.revision = Revision::NONE;
        if let Some(sealed) = update.node_keys {
            self.keys = Some(open_node_keys(&self.seal, sealed)?);
        }
        for tenant in update.tenant_deletes {
            touched.tenants.insert(self.drop_tenant(&tenant)?);
        }
        for key in update.deletes {
            touched.tenants.extend(self.remove(&key)?);
        }
        for entry in update.upserts {
            touched.tenants.extend(self.take_entry(entry)?);
        }
        for id in update.secret_deletes {
            let (tenant, credential) = secret_id(&id)?;
            let mut secrets = self.secrets.get(&tenant).cloned().unwrap_or_default();
            secrets.remove(&credential);
            self.secrets.insert_mut(tenant.clone(), secrets);
            touched.tenants.insert(tenant);
        }
        for released in update.secrets {
            touched.tenants.insert(self.take_secret(released)?);
        }
        if self.digest.to_bytes()[..] != update.digest_after[..] {
            return Err(UpdateError::Digest(to));
        }
        self.revision = to;
        self.cluster_id = update.cluster_id;
        Ok(())
    }

    /// Whether nothing is held any more of a tenant that an update touched, or one before that failed.
    pub(crate) fn lost_any(&self, touched: &Touched) -> bool {
        let is_lost = |tenant: &TenantName| {
            let prefix = RecordKey::tenant_prefix(tenant);
            self.entries.range(prefix.clone()..).next().is_none_or(|(key, _)| !key.starts_with(&prefix))
        };
        touched.tenants.iter().chain(&self.stale).any(is_lost)
    }

    /// The bans of the tenants that an update touched, or one before that failed.
    pub(crate) fn bans(&self, touched: &Touched) -> Configured {
        let of_tenant = |tenant: &TenantName| {
            let prefix = RecordKey::bans_prefix(tenant);
            let records =
                self.entries.range(prefix.clone()..).take_while(|(found, _)| found.starts_with(&prefix));
            let bans = records.filter_map(|(_, (_, record))| match &record.value {
                RecordValue::Ban(ban) => Some(ban.clone()),
                _ => None,
            });
            (tenant.clone(), bans.collect())
        };
        touched.tenants.union(&self.stale).map(of_tenant).collect()
    }

    /// The configuration with the touched tenants compiled anew, and which ones may be others now. A tenant that fails
    /// keeps its form of `before`, if that is of the same cluster.
    pub(crate) fn compile(&mut self, before: &Config, touched: Touched) -> (Config, Changed, Vec<Problem>) {
        let mut wanted = &touched.tenants | &std::mem::take(&mut self.stale);
        if touched.is_whole {
            // Also one whose last record an update took that was refused after that.
            wanted.extend(before.tenants.keys().cloned());
        }
        let none = Config::empty(before.site.clone());
        let before = if touched.is_of_another_cluster { &none } else { before };
        let mut problems = Vec::new();
        let at = (self.cluster_id.as_str(), self.revision);
        let mut config = before.at(at, self.keys.as_ref().map(|keys| keys.in_use.clone()));
        for name in &wanted {
            let key = RecordKey::tenant_prefix(name);
            let records = self.entries.range(key.clone()..).take_while(|(found, _)| found.starts_with(&key));
            let mut records = records.map(|(_, (_, record))| record).peekable();
            if records.peek().is_none() {
                config.remove(name);
                continue;
            }
            let none = Secrets::new();
            let secrets = self.secrets.get(name).unwrap_or(&none);
            let kept = before.tenants.get(name).map(Arc::as_ref);
            match Tenant::build(name, records, secrets, kept, &before.site) {
                Ok(tenant) => config.put(tenant),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
                    let message = format!("{error}{}", cause.unwrap_or_default());
                    self.stale.insert(name.clone());
                    problems.push(Problem { tenant: name.clone(), message });
                }
            }
        }
        config.older = Arc::new(self.stale.clone());
        (config, wanted, problems)
    }

    fn tenants(&self) -> impl Iterator<Item = TenantName> {
        self.entries.values().filter_map(|(_, record)| record.value.key().tenant().cloned())
    }

    fn take_entry(&mut self, entry: wire::Entry) -> Result<Option<TenantName>, UpdateError> {
        let record = decode_record(&entry.record)
            .map_err(|source| UpdateError::Record { key: entry.key.clone(), source })?;
        let key = record.value.key();
        if key.to_string() != entry.key {
            return Err(UpdateError::Misplaced(entry.key));
        }
        self.insert(entry.key, entry.record, record);
        Ok(key.tenant().cloned())
    }

    fn insert(&mut self, key: String, encoded: bytes::Bytes, record: Record) {
        if let Some((before, _)) = self.entries.get(&key) {
            self.digest.remove(&key, before);
        }
        self.digest.add(&key, &encoded);
        self.entries.insert_mut(key, (encoded, record));
    }

    fn remove(&mut self, key: &str) -> Result<Option<TenantName>, UpdateError> {
        let parsed: RecordKey = key.parse().map_err(|_| UpdateError::Misplaced(key.to_owned()))?;
        if let Some((before, _)) = self.entries.get(key) {
            self.digest.remove(key, before);
            self.entries.remove_mut(key);
        }
        Ok(parsed.tenant().cloned())
    }

    fn drop_tenant(&mut self, tenant: &str) -> Result<TenantName, UpdateError> {
        let tenant: TenantName = tenant.parse().map_err(|_| UpdateError::Form("a tenant's name"))?;
        let prefix = RecordKey::tenant_prefix(&tenant);
        let keys = self.entries.range(prefix.clone()..).map(|(key, _)| key);
        let keys: Vec<String> = keys.take_while(|key| key.starts_with(&prefix)).cloned().collect();
        for key in keys {
            self.remove(&key)?;
        }
        self.secrets.remove_mut(&tenant);
        Ok(tenant)
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
        self.put_secret(&tenant, credential, secret);
        Ok(tenant)
    }

    fn put_secret(&mut self, tenant: &TenantName, credential: CredentialName, secret: Secret<Vec<u8>>) {
        // Those of one tenant only are copied, when an image has them too.
        let mut secrets = self.secrets.get(tenant).cloned().unwrap_or_default();
        secrets.insert(credential, Arc::new(secret));
        self.secrets.insert_mut(tenant.clone(), secrets);
    }
}

fn secret_id(id: &wire::SecretId) -> Result<(TenantName, CredentialName), UpdateError> {
    match (id.tenant.parse(), id.credential.parse()) {
        (Ok(tenant), Ok(credential)) => Ok((tenant, credential)),
        _ => Err(UpdateError::Form("a secret's id")),
    }
}

fn open_node_keys(seal: &NodeSealKey, sealed: wire::SealedToNode) -> Result<Keys, UpdateError> {
    let opened = seal.open(&Purpose::NodeKeys, &of_wire(sealed));
    read_node_keys(opened.map_err(|error| UpdateError::Seal("the node keys", error))?)
}

fn read_node_keys(encoded: Secret<Vec<u8>>) -> Result<Keys, UpdateError> {
    let keys = wire::NodeKeys::decode(encoded.expose().as_slice())
        .map_err(|_| UpdateError::Form("the node keys"))?;
    let (key_hash_key, _) = (Secret::new(keys.key_hash_key), Secret::new(keys.session_key));
    let seal_keys: Vec<_> =
        keys.seal_keys.into_iter().map(|key| (key.generation, Secret::new(key.key))).collect();
    let generations = seal_keys.iter().map(|(generation, key)| (*generation, key.expose().as_slice()));
    let in_use = NodeKeys {
        key_hash: hmac::Key::new(hmac::HMAC_SHA256, key_hash_key.expose()),
        seal: Keyring::new(generations).map_err(|_| UpdateError::Form("the seal keys"))?,
    };
    Ok(Keys { in_use: Arc::new(in_use), encoded: Arc::new(encoded) })
}

fn of_wire(sealed: wire::SealedToNode) -> Sealed {
    Sealed { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext }
}

#[cfg(test)]
mod tests;
