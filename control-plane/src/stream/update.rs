//! Building updates: the parts that bring one node from what it has to one view of the state.
//!
//! Always holds: values come from the one view, whatever the feed says meanwhile, so an update ends at exactly its
//! revision; a part is at most [`PART_BYTES_MAX`] long unless a single record is longer; sealed secrets and keys of
//! the control plane never go out as entries.
//!
//! It is pure but for the randomness of sealing. It decides neither when to send nor whether to resume.

use std::sync::Arc;

use bytes::Bytes;
use gantry_control_state::Change;
use gantry_model::digest::Digest;
use gantry_model::record::{RecordKey, RecordKind, RecordValue, SealedSecret};
use gantry_model::{CredentialName, Revision, TenantName};
use gantry_node::seal::{SealPublicKey, Sealed};
use gantry_wire::sync_v1::{Entry, ReleasedSecret, SealedToNode, SecretId, Update};

use crate::feed::View;
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

struct Parts {
    done: Vec<Update>,
    current: Update,
    bytes: usize,
    /// For the last part.
    node_keys: Option<SealedToNode>,
    unopened: Vec<(TenantName, CredentialName, SecretError)>,
}

impl Builder<'_> {
    /// Everything.
    pub(super) fn snapshot(&self) -> Result<Built, SecretError> {
        let mut parts = self.parts(Revision::NONE);
        for (key, record) in self.view.state.entries_for_nodes() {
            parts.upsert(key.to_owned(), record);
        }
        self.provision(&mut parts);
        self.give_node_keys(&mut parts)?;
        Ok(self.finish(parts, true))
    }

    /// What changed after `from`. With `provision`, all secrets as well: for a process that has none.
    pub(super) fn delta(
        &self,
        from: Revision,
        changes: &[Change],
        provision: bool,
    ) -> Result<Built, SecretError> {
        let mut parts = self.parts(from);
        let mut node_keys = provision;
        for change in changes {
            // INVARIANT: the state's keys are keys of records.
            let Ok(key) = change.key.parse::<RecordKey>() else { continue };
            match key.kind() {
                RecordKind::SealedSecret => self.secret_change(&mut parts, &key),
                kind if kind.is_for_nodes() => match self.view.state.bytes(&change.key) {
                    Some(record) => parts.upsert(change.key.clone(), record),
                    None => parts.delete(change.key.clone()),
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

    fn provision(&self, parts: &mut Parts) {
        for record in self.view.state.records() {
            if let RecordValue::SealedSecret(stored) = &record.value {
                self.release(parts, stored);
            }
        }
    }

    fn secret_change(&self, parts: &mut Parts, key: &RecordKey) {
        match self.view.state.record(key).map(|record| &record.value) {
            Some(RecordValue::SealedSecret(stored)) => self.release(parts, stored),
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
        let digest = self.view.state.digest();
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
