//! Making a new cluster of an old one's state: everything that is sealed is sealed anew, under keys of the new cluster.
//!
//! Always holds: of what comes out nothing opens with a key of the old cluster, and nothing that the old cluster issued
//! (certificates, join tokens, admins' tokens) counts; agents' keys do, because what hashes them is carried over. What
//! was stopped is stopped still. The revisions of records stay, but of those that this changes.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_control_state::State;
use gantry_model::admin::Admin;
use gantry_model::name::TenantName;
use gantry_model::record::{Cluster, Record, RecordValue, SealedSecret, TenantKey};
use gantry_model::{Revision, Secret};

use super::envelope::{Key, NotOurs};
use super::{FoundError, Vault, open_node_keys, purpose_of_tenant_key, record_key};

/// Why no new cluster can be made of a state.
#[derive(Debug, thiserror::Error)]
pub enum RefoundError {
    /// The state is of no cluster.
    #[error("the backup holds no cluster")]
    NoCluster,
    /// Its keys do not open with the root key that came with it.
    #[error("the keys in the backup cannot be opened")]
    Damaged(#[from] NotOurs),
    /// New keys cannot be made.
    #[error("the new cluster's keys cannot be made")]
    Found(#[from] FoundError),
}

/// The records of a new cluster.
#[derive(Debug)]
pub(crate) struct Refounded {
    /// Its vault.
    pub(crate) vault: Vault,
    /// Everything that it begins with.
    pub(crate) records: Vec<Record>,
    /// Secrets that did not open and are left out, as `TENANT/CREDENTIAL`.
    pub(crate) unreadable: Vec<String>,
}

/// A tenant's data key, as it was and as it will be.
struct DataKey {
    old: Key,
    new: Key,
}

impl Vault {
    /// The root key, for a backup, which is sealed as a whole.
    pub(crate) fn root_for_backup(&self) -> Secret<Vec<u8>> {
        self.root.to_secret()
    }

    /// Makes a new cluster, whose key file is put into `directory`, of a state and the root key of its cluster. The
    /// facts of the new cluster are written at `revision`. Blocks.
    pub(crate) fn refound(
        directory: &Path,
        state: &State,
        root: &Secret<Vec<u8>>,
        revision: Revision,
    ) -> Result<Refounded, RefoundError> {
        let old_cluster = state.cluster().ok_or(RefoundError::NoCluster)?;
        let root = Key::of_bytes(root.expose()).ok_or(NotOurs)?;
        let old = Vault::with_root(old_cluster, root)?.ok_or(NotOurs)?;
        let node_keys = open_node_keys(&old.root, old_cluster)?.ok_or(NotOurs)?;
        let node_keys = node_keys.refounded().map_err(FoundError::from)?;
        let cluster = Vault::found_with(directory, &node_keys)?;
        let new = Vault::unseal(directory, &cluster).map_err(|_| NotOurs)?;
        let data_keys = data_keys(&old, state)?;
        let (mut records, mut unreadable) = (Vec::new(), Vec::new());
        for record in state.records() {
            let value = match &record.value {
                // Bans above all: who was stopped is stopped still.
                RecordValue::Resource(_)
                | RecordValue::AgentKey(_)
                | RecordValue::Catalog(_)
                | RecordValue::Deletions(_)
                | RecordValue::Ban(_) => record.value.clone(),
                RecordValue::Admin(admin) => {
                    records.push(without_tokens(admin, revision));
                    continue;
                }
                RecordValue::SealedSecret(secret) => match reseal(&old, &new, &data_keys, secret)? {
                    Some(secret) => RecordValue::SealedSecret(secret.into()),
                    None => {
                        unreadable.push(format!("{}/{}", secret.tenant, secret.credential));
                        continue;
                    }
                },
                RecordValue::TenantKey(key) => RecordValue::TenantKey(rewrap(&new, &data_keys, key)?.into()),
                RecordValue::Cluster(_) => {
                    records.push(new_facts(&cluster, revision));
                    continue;
                }
                // A backup may be from before one was used: it would let a call through a second time.
                RecordValue::ApprovalRequest(_) => continue,
                // Of processes that have no part in the new cluster.
                RecordValue::Proposer(_) => continue,
                // Nodes join anew: none has a part of a change that the others do not have.
                RecordValue::Rollout(_) => continue,
            };
            records.push(Record { revision: record.revision, value });
        }
        Ok(Refounded { vault: new, records, unreadable })
    }
}

fn new_facts(cluster: &Cluster, revision: Revision) -> Record {
    Record { revision, value: RecordValue::Cluster(cluster.clone().into()) }
}

/// A token that was taken back after the backup would count again. Whoever restores has the new cluster's own, and makes
/// others anew.
fn without_tokens(admin: &Admin, revision: Revision) -> Record {
    let admin = Admin { tokens: Vec::new(), ..admin.clone() };
    Record { revision, value: RecordValue::Admin(admin.into()) }
}

/// One that does not open is left out, with the secrets under it.
fn data_keys(old: &Vault, state: &State) -> Result<BTreeMap<(TenantName, u32), DataKey>, RefoundError> {
    let mut keys = BTreeMap::new();
    for record in state.records() {
        if let RecordValue::TenantKey(stored) = &record.value
            && let Ok(opened) = old.open_tenant_key(stored)
        {
            let new = Key::random().map_err(FoundError::from)?;
            keys.insert((stored.tenant.clone(), stored.version), DataKey { old: opened, new });
        }
    }
    Ok(keys)
}

fn rewrap(
    new: &Vault,
    keys: &BTreeMap<(TenantName, u32), DataKey>,
    stored: &TenantKey,
) -> Result<TenantKey, RefoundError> {
    let fresh = Key::random().map_err(FoundError::from)?;
    let key = keys.get(&(stored.tenant.clone(), stored.version)).map_or(&fresh, |key| &key.new);
    let purpose = purpose_of_tenant_key(&stored.tenant, stored.version);
    let wrapped = new.root.seal(&purpose, &key.to_secret()).map_err(FoundError::from)?;
    Ok(TenantKey { nonce: wrapped.nonce, wrapped: wrapped.ciphertext, ..stored.clone() })
}

/// `None`: it does not open.
fn reseal(
    old: &Vault,
    new: &Vault,
    keys: &BTreeMap<(TenantName, u32), DataKey>,
    stored: &SealedSecret,
) -> Result<Option<SealedSecret>, RefoundError> {
    let Some(key) = keys.get(&(stored.tenant.clone(), stored.tenant_key_version)) else {
        return Ok(None);
    };
    let opened = record_key(&key.old, stored).map_err(FoundError::from)?.open(
        &old.purpose_of_secret(stored),
        stored.nonce,
        &stored.ciphertext,
    );
    let Ok(secret) = opened else { return Ok(None) };
    let sealed = record_key(&key.new, stored)
        .and_then(|key| key.seal(&new.purpose_of_secret(stored), &secret))
        .map_err(FoundError::from)?;
    Ok(Some(SealedSecret { nonce: sealed.nonce, ciphertext: sealed.ciphertext, ..stored.clone() }))
}
