//! Building updates: the parts that bring one node from what it has to one view of the state.
//!
//! Always holds: values come from the one view, whatever the feed says meanwhile, so an update ends at exactly its
//! revision; nothing goes out that is of a tenant beyond the node's scope; a node in a
//! stage of a rollout gets the state with the change of that laid over it; a part is at most [`PART_BYTES_MAX`] long unless a single record is longer; sealed secrets and keys of
//! the control plane never go out as entries.
//!
//! It is pure but for the randomness of sealing. It decides neither when to send nor whether to resume.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use gantry_control_state::Digests;
use gantry_model::digest::Digest;
use gantry_model::record::{RecordKey, RecordKind, RecordValue, SealedSecret};
use gantry_model::{CredentialName, Revision, Scope, TenantName};
use gantry_node::seal::{SealPublicKey, Sealed};
use gantry_wire::sync_v1::{Entry, ReleasedSecret, SealedToNode, SecretId, Update};

use crate::feed::{Since, View};
use crate::rollout::Laid;
use crate::vault::{SecretError, Vault};

/// Longest part in bytes, where records allow it: small enough that a stream's other messages are not held up.
pub(super) const PART_BYTES_MAX: usize = 256 * 1024;

/// What a message's framing and short fields take, roughly.
const ITEM_OVERHEAD_BYTES: usize = 32;

/// A view of the state for one node.
pub(super) struct Builder<'a> {
    pub(super) vault: &'a Vault,
    pub(super) view: &'a View,
    pub(super) recipient: &'a SealPublicKey,
    pub(super) scope: &'a Scope,
    /// Its name.
    node: &'a str,
    /// What it is served beyond the state.
    laid: Laid,
}

/// An update ready to be sent.
#[derive(Debug)]
pub(super) struct Built {
    /// At least one; the last one says so.
    pub(super) parts: Vec<Update>,
    /// The revision that it leads to.
    pub(super) revision: Revision,
    /// What the node then holds.
    pub(super) digest: Digest,
    /// Whether the node then has every secret, whatever it had before.
    pub(super) provisions: bool,
    /// Secrets that could not be opened, and why.
    pub(super) unopened: Vec<(TenantName, CredentialName, SecretError)>,
}

/// What a tenant is to a node.
enum Standing {
    /// It was and is no affair of the node's.
    Beyond,
    /// The node holds it, and what changes of it.
    Held,
    /// It came into the node's scope, or left it.
    Moved,
}

struct Parts {
    done: Vec<Update>,
    current: Update,
    bytes: usize,
    /// For the last part.
    node_keys: Option<SealedToNode>,
    unopened: Vec<(TenantName, CredentialName, SecretError)>,
}

impl<'a> Builder<'a> {
    /// For a node, which is known by its name and scope.
    pub(super) fn new(
        vault: &'a Vault,
        view: &'a View,
        recipient: &'a SealPublicKey,
        (node, scope): (&'a str, &'a Scope),
    ) -> Builder<'a> {
        Builder { vault, view, recipient, scope, node, laid: view.laid(node, scope) }
    }

    /// Everything.
    pub(super) fn snapshot(&self) -> Result<Built, SecretError> {
        let mut parts = self.parts(Revision::NONE);
        for tenant in self.view.state.digests().tenants(self.scope) {
            self.upsert_tenant(&mut parts, tenant);
        }
        self.provision(&mut parts);
        self.give_node_keys(&mut parts)?;
        Ok(self.finish(parts, true))
    }

    /// What changed after `from`. With `provision`, all secrets as well: for a process that has none.
    pub(super) fn delta(&self, from: Revision, since: &Since, provision: bool) -> Result<Built, SecretError> {
        let mut parts = self.parts(from);
        let mut node_keys = provision;
        // Entering a scope, a tenant comes as a whole.
        let mut moved = BTreeSet::new();
        let laid_before = since.before.laid(self.node, self.scope);
        let mut keys: BTreeSet<&str> = since.changes.iter().map(|change| change.key.as_str()).collect();
        keys.extend(laid_before.unlike(&self.laid));
        for text in keys {
            // INVARIANT: the state's keys are keys of records.
            let Ok(key) = text.parse::<RecordKey>() else { continue };
            if let Some(tenant) = key.tenant() {
                match self.standing(&since.before.digests, tenant) {
                    Standing::Held => {}
                    Standing::Beyond => continue,
                    Standing::Moved if !moved.insert(tenant.clone()) => continue,
                    Standing::Moved => {
                        self.move_tenant(&mut parts, tenant, provision);
                        continue;
                    }
                }
            }
            match key.kind() {
                RecordKind::SealedSecret => self.secret_change(&mut parts, &key),
                kind if kind.is_for_nodes() => match self.laid.bytes(&self.view.state, text) {
                    Some(record) => parts.upsert(text.to_owned(), record),
                    None => parts.delete(text.to_owned()),
                },
                // The cluster's facts change by a rotation of these only.
                RecordKind::Cluster => node_keys = true,
                _ => {}
            }
        }
        if provision {
            self.provision(&mut parts);
        }
        if node_keys {
            self.give_node_keys(&mut parts)?;
        }
        Ok(self.finish(parts, provision))
    }

    fn parts(&self, from: Revision) -> Parts {
        let current = Update {
            from_revision: from.0,
            revision: self.view.revision.0,
            cluster_id: self.vault.cluster_id().to_owned(),
            ..Update::default()
        };
        Parts { done: Vec::new(), current, bytes: 0, node_keys: None, unopened: Vec::new() }
    }

    /// What a tenant is to the node, which holds what it held `before`.
    fn standing(&self, before: &Digests, tenant: &TenantName) -> Standing {
        let now = self.view.state.digests();
        match (before.has(self.scope, tenant), now.has(self.scope, tenant)) {
            (false, false) => Standing::Beyond,
            (true, true) => Standing::Held,
            // One that is there no more went record by record.
            (true, false) if !now.has(&Scope::Everything, tenant) => Standing::Held,
            (true, false) | (false, true) => Standing::Moved,
        }
    }

    /// A tenant comes into the node's scope, or leaves it.
    fn move_tenant(&self, parts: &mut Parts, tenant: &TenantName, provision: bool) {
        if !self.view.state.digests().has(self.scope, tenant) {
            return parts.delete_tenant(tenant);
        }
        self.upsert_tenant(parts, tenant);
        if !provision {
            self.release_tenant(parts, tenant);
        }
    }

    fn upsert_tenant(&self, parts: &mut Parts, tenant: &TenantName) {
        for (key, record) in self.laid.entries_for_nodes(&self.view.state, tenant) {
            parts.upsert(key, record);
        }
    }

    fn provision(&self, parts: &mut Parts) {
        for tenant in self.view.state.digests().tenants(self.scope) {
            self.release_tenant(parts, tenant);
        }
    }

    fn release_tenant(&self, parts: &mut Parts, tenant: &TenantName) {
        for record in self.view.state.tenant_records(tenant) {
            if let RecordValue::SealedSecret(stored) = &record.value
                && !self.laid.deletes(&record.value.key().to_string())
            {
                self.release(parts, stored);
            }
        }
    }

    fn secret_change(&self, parts: &mut Parts, key: &RecordKey) {
        match self.view.state.record(key).map(|record| &record.value) {
            Some(RecordValue::SealedSecret(stored)) if !self.laid.deletes(&key.to_string()) => {
                self.release(parts, stored);
            }
            _ => {
                let tenant = key.tenant().map(ToString::to_string).unwrap_or_default();
                parts.delete_secret(SecretId { tenant, credential: key.name().to_owned() });
            }
        }
    }

    fn release(&self, parts: &mut Parts, stored: &Arc<SealedSecret>) {
        let id = SecretId { tenant: stored.tenant.to_string(), credential: stored.credential.to_string() };
        match self.vault.release(&self.view.state, stored, self.recipient) {
            Ok(released) => parts.secret(ReleasedSecret {
                id: Some(id),
                version: released.version,
                sealed: Some(to_wire(released.sealed)),
            }),
            Err(error) => {
                // The node must not go on with an older one.
                parts.delete_secret(id);
                parts.unopened.push((stored.tenant.clone(), stored.credential.clone(), error));
            }
        }
    }

    fn give_node_keys(&self, parts: &mut Parts) -> Result<(), SecretError> {
        let sealed = self.vault.release_node_keys(&self.view.state, self.recipient)?;
        parts.node_keys = Some(to_wire(sealed));
        Ok(())
    }

    fn finish(&self, mut parts: Parts, provisions: bool) -> Built {
        parts.current.node_keys = parts.node_keys;
        let digest = self.laid.over(self.view.state.digests().of(self.scope));
        parts.current.last = true;
        parts.current.digest_after = digest.to_bytes().to_vec();
        parts.done.push(parts.current);
        let (parts, unopened) = (parts.done, parts.unopened);
        Built { parts, revision: self.view.revision, digest, provisions, unopened }
    }
}

impl Parts {
    fn upsert(&mut self, key: String, record: Arc<[u8]>) {
        self.make_room(key.len() + record.len());
        // The message shares the state's memory.
        self.current.upserts.push(Entry { key, record: Bytes::from_owner(record) });
    }

    fn delete(&mut self, key: String) {
        self.make_room(key.len());
        self.current.deletes.push(key);
    }

    fn secret(&mut self, secret: ReleasedSecret) {
        let sealed = secret.sealed.as_ref();
        self.make_room(
            sealed.map_or(0, |sealed| sealed.ciphertext.len() + sealed.encapsulated_key.len()) + 128,
        );
        self.current.secrets.push(secret);
    }

    fn delete_tenant(&mut self, tenant: &TenantName) {
        self.make_room(tenant.as_str().len());
        self.current.tenant_deletes.push(tenant.to_string());
    }

    fn delete_secret(&mut self, id: SecretId) {
        self.make_room(id.tenant.len() + id.credential.len());
        self.current.secret_deletes.push(id);
    }

    fn make_room(&mut self, item_bytes: usize) {
        let bytes = item_bytes + ITEM_OVERHEAD_BYTES;
        if self.bytes > 0 && self.bytes + bytes > PART_BYTES_MAX {
            let next = Update {
                from_revision: self.current.from_revision,
                revision: self.current.revision,
                cluster_id: self.current.cluster_id.clone(),
                ..Update::default()
            };
            self.done.push(std::mem::replace(&mut self.current, next));
            self.bytes = 0;
        }
        self.bytes += bytes;
    }
}

fn to_wire(sealed: Sealed) -> SealedToNode {
    SealedToNode { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext }
}

#[cfg(test)]
mod tests;
