//! What a backup is sealed with: a key pair of the operator, and for each backup a key of its own.
//!
//! RFC 9180, base mode, DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM, as towards nodes. Who makes backups needs
//! the public half only ([`BackupRecipient`]); who restores one needs the file of the private half ([`BackupKey`]).
//!
//! Always holds: parts open in their order, all of them, from the backup that they were sealed for, or not at all; the
//! private half is shown by nothing but [`BackupKey::to_text`] and wiped when it is dropped. Who holds the public half
//! can make a backup that opens: nothing here proves where one comes from.

use std::fmt;
use std::str::FromStr;

use gantry_model::Secret;
use rustls::crypto::aws_lc_rs::hpke::DH_KEM_X25519_HKDF_SHA256_AES_256;
use rustls::crypto::hpke::{EncapsulatedSecret, Hpke, HpkePrivateKey, HpkePublicKey};
use zeroize::Zeroizing;

use super::envelope::{CryptoError, Key, NotOurs, Sealed};

const RECIPIENT_PREFIX: &str = "gantry-backup-1.";
const KEY_PREFIX: &str = "gantry-backup-key-1.";
const HALF_BYTES: usize = 32;
/// Of a recipient's name in an audit record.
const SHORT_BYTES: usize = 8;
/// Separates these messages from any other use of HPKE.
const INFO: &[u8] = b"gantry backup v1";
const NONCE_BYTES: usize = 12;

static SUITE: &dyn Hpke = DH_KEM_X25519_HKDF_SHA256_AES_256;

/// Whom a backup is for: the public half of a [`BackupKey`]. Its text is `gantry-backup-1.` and 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BackupRecipient([u8; HALF_BYTES]);

/// What opens backups. Kept by the operator, apart from the backups and from the cluster.
pub struct BackupKey {
    recipient: BackupRecipient,
    private: HpkePrivateKey,
}

/// The text is not a backup key, or not the public half of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no {0}; `gantry cluster backup-key` makes one")]
pub struct BackupKeyError(&'static str);

/// What seals and opens the parts of one backup.
pub(crate) struct BackupSeal {
    key: Key,
    binding: String,
}

/// A backup's own key, sealed to its recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SealedBackupKey {
    pub(crate) encapsulated: Vec<u8>,
    pub(crate) sealed: Vec<u8>,
}

impl BackupKey {
    /// Makes a key pair.
    pub fn generate() -> Result<BackupKey, CryptoError> {
        let (public, private) = SUITE.generate_key_pair().map_err(|_| CryptoError)?;
        let public = <[u8; HALF_BYTES]>::try_from(public.0).map_err(|_| CryptoError)?;
        Ok(BackupKey { recipient: BackupRecipient(public), private })
    }

    /// The half that is no secret.
    pub fn recipient(&self) -> BackupRecipient {
        self.recipient
    }

    /// Both halves, for the operator's file.
    pub fn to_text(&self) -> Secret<String> {
        let (public, private) =
            (hex::encode(self.recipient.0), Zeroizing::new(hex::encode(self.private.secret_bytes())));
        Secret::new(format!("{KEY_PREFIX}{public}{}", private.as_str()))
    }

    /// Opens the key of the backup that `binding` names.
    pub(crate) fn open(&self, binding: String, key: &SealedBackupKey) -> Result<BackupSeal, NotOurs> {
        let encapsulated = EncapsulatedSecret(key.encapsulated.clone());
        let opened = SUITE.open(&encapsulated, INFO, binding.as_bytes(), &key.sealed, &self.private);
        let opened = Zeroizing::new(opened.map_err(|_| NotOurs)?);
        Ok(BackupSeal { key: Key::of_bytes(&opened).ok_or(NotOurs)?, binding })
    }
}

impl BackupRecipient {
    /// The first digits, by which people tell one from another.
    pub(crate) fn short(&self) -> String {
        hex::encode(&self.0[..SHORT_BYTES])
    }
}

impl BackupSeal {
    /// A key for the backup that `binding` names, and that key for its recipient.
    pub(crate) fn new(
        recipient: &BackupRecipient,
        binding: String,
    ) -> Result<(BackupSeal, SealedBackupKey), CryptoError> {
        let key = Key::random()?;
        let public = HpkePublicKey(recipient.0.to_vec());
        let sealed = SUITE.seal(INFO, binding.as_bytes(), key.expose(), &public);
        let (encapsulated, sealed) = sealed.map_err(|_| CryptoError)?;
        Ok((BackupSeal { key, binding }, SealedBackupKey { encapsulated: encapsulated.0, sealed }))
    }

    /// Seals one part.
    pub(crate) fn seal(
        &self,
        number: u64,
        is_last: bool,
        content: &Secret<Vec<u8>>,
    ) -> Result<Vec<u8>, CryptoError> {
        let Sealed { nonce, ciphertext } = self.key.seal(&self.purpose(number, is_last), content)?;
        Ok([&nonce[..], &ciphertext].concat())
    }

    /// Opens a part that was sealed under this number, as the last one or not.
    pub(crate) fn open(&self, number: u64, is_last: bool, part: &[u8]) -> Result<Secret<Vec<u8>>, NotOurs> {
        let (nonce, ciphertext) = part.split_first_chunk::<NONCE_BYTES>().ok_or(NotOurs)?;
        self.key.open(&self.purpose(number, is_last), *nonce, ciphertext)
    }

    fn purpose(&self, number: u64, is_last: bool) -> Vec<u8> {
        format!("gantry backup part v1|{}|{number}|{is_last}", self.binding).into_bytes()
    }
}

impl fmt::Debug for BackupKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("BackupKey").field("recipient", &self.recipient).finish_non_exhaustive()
    }
}

impl fmt::Display for BackupRecipient {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{RECIPIENT_PREFIX}{}", hex::encode(self.0))
    }
}

impl FromStr for BackupRecipient {
    type Err = BackupKeyError;

    fn from_str(text: &str) -> Result<BackupRecipient, BackupKeyError> {
        let bytes = text.strip_prefix(RECIPIENT_PREFIX).and_then(|digits| hex::decode(digits).ok());
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(BackupRecipient).ok_or(BackupKeyError("recipient of backups"))
    }
}

impl FromStr for BackupKey {
    type Err = BackupKeyError;

    fn from_str(text: &str) -> Result<BackupKey, BackupKeyError> {
        let refused = BackupKeyError("backup key");
        let bytes = text
            .strip_prefix(KEY_PREFIX)
            .and_then(|digits| hex::decode(digits).ok())
            .map(Zeroizing::new)
            .ok_or(refused)?;
        let (public, private) = bytes.split_first_chunk::<HALF_BYTES>().ok_or(refused)?;
        if private.len() != HALF_BYTES {
            return Err(refused);
        }
        Ok(BackupKey { recipient: BackupRecipient(*public), private: private.to_vec().into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_their_text_and_open_what_was_sealed_in_its_place()
    -> Result<(), Box<dyn std::error::Error>> {
        let key = BackupKey::generate()?;
        let recipient: BackupRecipient = key.recipient().to_string().parse()?;
        let again: BackupKey = key.to_text().expose().parse()?;
        assert_eq!((recipient, again.recipient()), (key.recipient(), key.recipient()));

        let (seal, sealed) = BackupSeal::new(&recipient, "one".to_owned())?;
        let part = seal.seal(3, false, &Secret::new(b"content".to_vec()))?;
        let opened = again.open("one".to_owned(), &sealed)?;
        assert_eq!(opened.open(3, false, &part)?.expose(), b"content");
        assert_eq!(opened.open(4, false, &part).err(), Some(NotOurs));
        assert_eq!(opened.open(3, true, &part).err(), Some(NotOurs));
        assert!(again.open("two".to_owned(), &sealed).is_err());
        assert!(BackupKey::generate()?.open("one".to_owned(), &sealed).is_err());
        Ok(())
    }

    #[test]
    fn other_texts_are_refused() -> Result<(), CryptoError> {
        let key = BackupKey::generate()?;
        let (public, text) = (key.recipient().to_string(), key.to_text().expose().clone());
        for text in ["", "gantry-backup-1.", &text, &public[1..], &public[..public.len() - 1]] {
            assert!(text.parse::<BackupRecipient>().is_err(), "{text}");
        }
        for text in ["", &public, &text[..text.len() - 2], &format!("{text}00")] {
            assert!(text.parse::<BackupKey>().is_err());
        }
        assert!(!format!("{key:?}").contains(&text[text.len() - 16..]));
        Ok(())
    }
}
