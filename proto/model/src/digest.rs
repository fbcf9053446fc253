//! A digest of a set of entries that can be kept up to date entry by entry.
//!
//! Always holds: the digest depends on the set only, not on the order in which it came about; so a node that
//! applied deltas and a voter that replayed its log compare equal exactly when they hold the same entries.
//! It guards against faults, not against an adversary who may choose entries.

/// Sum modulo 2^64, lane by lane, of the blake3 of every entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Digest([u64; 4]);

impl Digest {
    /// Bytes of the encoded form.
    pub const BYTES: usize = 32;

    /// The digest of one entry.
    pub fn of(key: &str, value: &[u8]) -> Digest {
        Digest(entry_lanes(key, value))
    }

    /// Accounts for an entry that joined the set.
    pub fn add(&mut self, key: &str, value: &[u8]) {
        self.add_set(Digest::of(key, value));
    }

    /// Accounts for an entry that left the set.
    pub fn remove(&mut self, key: &str, value: &[u8]) {
        self.remove_set(Digest::of(key, value));
    }

    /// Accounts for the entries of another set, none of which was here.
    pub fn add_set(&mut self, other: Digest) {
        for (lane, hash) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_add(hash);
        }
    }

    /// Accounts for the entries of another set, all of which were here.
    pub fn remove_set(&mut self, other: Digest) {
        for (lane, hash) in self.0.iter_mut().zip(other.0) {
            *lane = lane.wrapping_sub(hash);
        }
    }

    /// The encoded form.
    pub fn to_bytes(self) -> [u8; Digest::BYTES] {
        let mut bytes = [0; Digest::BYTES];
        for (chunk, lane) in bytes.chunks_exact_mut(8).zip(self.0) {
            chunk.copy_from_slice(&lane.to_le_bytes());
        }
        bytes
    }
}

fn entry_lanes(key: &str, value: &[u8]) -> [u64; 4] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_le_bytes());
    hasher.update(key.as_bytes());
    hasher.update(value);
    let hash = hasher.finalize();
    let mut lanes = [0; 4];
    for (lane, chunk) in lanes.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
        *lane = chunk.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
    }
    lanes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_forgets_the_order_and_what_left() {
        let mut first = Digest::default();
        first.add("a", b"1");
        first.add("b", b"2");
        let mut second = Digest::default();
        second.add("b", b"2");
        second.add("c", b"3");
        second.add("a", b"1");
        assert_ne!(first, second);
        second.remove("c", b"3");
        assert_eq!(first, second);
    }

    #[test]
    fn the_border_between_key_and_value_counts() {
        let mut first = Digest::default();
        first.add("ab", b"c");
        let mut second = Digest::default();
        second.add("a", b"bc");
        assert_ne!(first, second);
    }
}
