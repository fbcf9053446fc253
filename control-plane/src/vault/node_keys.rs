//! The keys that all nodes share: making them, reading them.
//!
//! Always holds: what [`NodeKeySet::read`] gives is whole: a key for hashes and one or two generations of keys for
//! seals, newest first. It is wiped when it is dropped.

use aws_lc_rs::hmac;
use gantry_model::Secret;
use gantry_wire::sync_v1::{NodeKeys, SealKey};
use prost::Message;
use zeroize::Zeroize;

use super::envelope::{CryptoError, KEY_BYTES, Key};

/// Generations of seal keys that nodes hold: the one that seals, and the one before it, which opens still.
const SEAL_KEYS_MAX: usize = 2;

/// The keys that all nodes share.
pub(super) struct NodeKeySet(NodeKeys);

impl NodeKeySet {
    /// New keys, of generation 1.
    pub(super) fn random() -> Result<NodeKeySet, CryptoError> {
        let (hash, seal) = (Key::random()?, Key::random()?);
        Ok(NodeKeySet(NodeKeys {
            key_hash_key: hash.expose().to_vec(),
            session_key: seal.expose().to_vec(),
            seal_keys: vec![SealKey { generation: 1, key: seal.expose().to_vec() }],
        }))
    }

    /// Reads encoded keys; `None` when they are not whole. A cluster of a build before generations has one key, which
    /// is its first generation.
    pub(super) fn read(encoded: &Secret<Vec<u8>>) -> Option<NodeKeySet> {
        let mut set = NodeKeySet(NodeKeys::decode(encoded.expose().as_slice()).ok()?);
        let keys = &mut set.0;
        if keys.seal_keys.is_empty() {
            keys.seal_keys.push(SealKey { generation: 1, key: keys.session_key.clone() });
        }
        let whole = |key: &SealKey| key.key.len() == KEY_BYTES && key.generation > 0;
        let newest_first = keys.seal_keys.is_sorted_by(|newer, older| newer.generation > older.generation);
        let all_whole = keys.key_hash_key.len() == KEY_BYTES && keys.seal_keys.iter().all(whole);
        (all_whole && newest_first && keys.seal_keys.len() <= SEAL_KEYS_MAX).then_some(set)
    }

    /// The same with a new seal key; the one before the newest of these is forgotten.
    pub(super) fn next(mut self) -> Result<NodeKeySet, CryptoError> {
        let key = Key::random()?;
        let generation = self.generation().checked_add(1).ok_or(CryptoError)?;
        let keys = &mut self.0;
        keys.seal_keys.insert(0, SealKey { generation, key: key.expose().to_vec() });
        while keys.seal_keys.len() > SEAL_KEYS_MAX {
            if let Some(mut oldest) = keys.seal_keys.pop() {
                oldest.key.zeroize();
            }
        }
        keys.session_key.zeroize();
        keys.session_key = key.expose().to_vec();
        Ok(self)
    }

    /// For a cluster that is made of another one's state: the same key for hashes, which were stored, and a new seal key.
    pub(super) fn refounded(self) -> Result<NodeKeySet, CryptoError> {
        let mut set = self.next()?;
        for mut old in set.0.seal_keys.drain(1..) {
            old.key.zeroize();
        }
        Ok(set)
    }

    /// Of the newest seal key.
    pub(super) fn generation(&self) -> u32 {
        self.0.seal_keys.first().map_or(0, |newest| newest.generation)
    }

    /// The keys as nodes receive them.
    pub(super) fn encode(&self) -> Secret<Vec<u8>> {
        Secret::new(self.0.encode_to_vec())
    }

    /// What hashes agents' keys.
    pub(super) fn agent_key_hasher(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0.key_hash_key)
    }
}

impl Drop for NodeKeySet {
    fn drop(&mut self) {
        self.0.key_hash_key.zeroize();
        self.0.session_key.zeroize();
        self.0.seal_keys.iter_mut().for_each(|seal| seal.key.zeroize());
    }
}
