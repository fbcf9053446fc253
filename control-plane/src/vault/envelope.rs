//! One 256-bit key and the three things that the vault does with it: seal, open, derive.
//!
//! Always holds: AES-256-GCM with a fresh random nonce for each seal; a key is shown by nothing and zeroed when
//! dropped; the buffer that held a plaintext is the one that holds its ciphertext, or is zeroed.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand;
use gantry_model::Secret;
use zeroize::Zeroizing;

/// Bytes of every key of the vault.
pub(super) const KEY_BYTES: usize = 32;

/// Bytes that GCM adds to a plaintext.
const TAG_BYTES: usize = 16;

/// A key of AES-256-GCM, or the secret that keys are derived from.
#[derive(Debug, Clone)]
pub(super) struct Key(Secret<[u8; KEY_BYTES]>);

/// A sealed message and the nonce it was sealed with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Sealed {
    pub(super) nonce: [u8; NONCE_LEN],
    pub(super) ciphertext: Vec<u8>,
}

/// The cryptographic library refused; with keys and buffers of the right size that means that it has no randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library refused")]
pub struct CryptoError;

/// Sealed under another key, for another purpose, or damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("sealed under another key, for another purpose, or damaged")]
pub struct NotOurs;

impl Key {
    /// A random key.
    pub(super) fn random() -> Result<Key, CryptoError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        fill_random(bytes.as_mut())?;
        Ok(Key(Secret::new(*bytes)))
    }

    /// The key of these bytes; `None` when they are not as many as a key has.
    pub(super) fn of_bytes(bytes: &[u8]) -> Option<Key> {
        let bytes = Zeroizing::new(<[u8; KEY_BYTES]>::try_from(bytes).ok()?);
        Some(Key(Secret::new(*bytes)))
    }

    /// The key itself, to be sealed under another.
    pub(super) fn to_secret(&self) -> Secret<Vec<u8>> {
        Secret::new(self.0.expose().to_vec())
    }

    /// The key's bytes, for what is not AES-GCM.
    pub(super) fn expose(&self) -> &[u8; KEY_BYTES] {
        self.0.expose()
    }

    /// HKDF-SHA256 of this key; different for each `info`.
    pub(super) fn derive(&self, info: &[u8]) -> Result<Key, CryptoError> {
        let secret = Salt::new(HKDF_SHA256, &[]).extract(self.0.expose());
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let info = [info];
        let expanded = secret.expand(&info, HKDF_SHA256).map_err(|_| CryptoError)?;
        expanded.fill(bytes.as_mut()).map_err(|_| CryptoError)?;
        Ok(Key(Secret::new(*bytes)))
    }

    /// Seals a message; it opens only with the same `purpose`.
    pub(super) fn seal(&self, purpose: &[u8], plaintext: &Secret<Vec<u8>>) -> Result<Sealed, CryptoError> {
        let mut nonce = [0; NONCE_LEN];
        fill_random(&mut nonce)?;
        // Room for the tag, so that the buffer is not moved while it holds the plaintext.
        let mut buffer = Zeroizing::new(Vec::with_capacity(plaintext.expose().len() + TAG_BYTES));
        buffer.extend_from_slice(plaintext.expose());
        let key = self.cipher()?;
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), &mut *buffer)
            .map_err(|_| CryptoError)?;
        Ok(Sealed { nonce, ciphertext: std::mem::take(&mut *buffer) })
    }

    /// Opens a message that was sealed for `purpose`.
    pub(super) fn open(
        &self,
        purpose: &[u8],
        nonce: [u8; NONCE_LEN],
        ciphertext: &[u8],
    ) -> Result<Secret<Vec<u8>>, NotOurs> {
        let mut buffer = Zeroizing::new(ciphertext.to_vec());
        let key = self.cipher().map_err(|_| NotOurs)?;
        let opened = key
            .open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(purpose), buffer.as_mut())
            .map_err(|_| NotOurs)?;
        let length = opened.len();
        buffer.truncate(length);
        Ok(Secret::new(std::mem::take(&mut *buffer)))
    }

    fn cipher(&self) -> Result<LessSafeKey, CryptoError> {
        let key = UnboundKey::new(&AES_256_GCM, self.0.expose()).map_err(|_| CryptoError)?;
        Ok(LessSafeKey::new(key))
    }
}

/// Fills with random bytes of the operating system.
pub(crate) fn fill_random(bytes: &mut [u8]) -> Result<(), CryptoError> {
    rand::fill(bytes).map_err(|_| CryptoError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_with_the_same_key_and_purpose_only() -> Result<(), Box<dyn std::error::Error>> {
        let key = Key::random()?;
        let sealed = key.seal(b"one", &Secret::new(b"hunter2".to_vec()))?;
        let open = |key: &Key, purpose: &[u8], sealed: &Sealed| {
            key.open(purpose, sealed.nonce, &sealed.ciphertext).map(|secret| secret.expose().clone())
        };
        assert_eq!(open(&key, b"one", &sealed), Ok(b"hunter2".to_vec()));
        assert_eq!(open(&key, b"two", &sealed), Err(NotOurs));
        assert_eq!(open(&Key::random()?, b"one", &sealed), Err(NotOurs));
        let damaged = Sealed { ciphertext: sealed.ciphertext[1..].to_vec(), ..sealed.clone() };
        assert_eq!(open(&key, b"one", &damaged), Err(NotOurs));
        let short = Sealed { ciphertext: vec![1, 2, 3], ..sealed };
        assert_eq!(open(&key, b"one", &short), Err(NotOurs));
        Ok(())
    }

    #[test]
    fn two_seals_of_one_message_have_nothing_in_common() -> Result<(), CryptoError> {
        let key = Key::random()?;
        let message = Secret::new(vec![0; 64]);
        let (first, second) = (key.seal(b"", &message)?, key.seal(b"", &message)?);
        assert_ne!(first.nonce, second.nonce);
        assert_ne!(first.ciphertext, second.ciphertext);
        Ok(())
    }

    #[test]
    fn derived_keys_differ_by_their_purpose_and_repeat_for_the_same() -> Result<(), CryptoError> {
        let key = Key::random()?;
        assert_eq!(key.derive(b"a")?.expose(), key.derive(b"a")?.expose());
        assert_ne!(key.derive(b"a")?.expose(), key.derive(b"b")?.expose());
        assert_ne!(key.derive(b"a")?.expose(), key.expose());
        Ok(())
    }
}
