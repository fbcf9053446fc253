//! An agent's API key: its text form and what is stored of it.
//!
//! Always holds: the stored form has a keyed hash of the secret, never the secret. The text form is
//! `gantry_ID_SECRET`: 16 hexadecimal digits that find the record, and 64 that prove possession.

use std::fmt;
use std::str::FromStr;

use crate::name::{AgentName, TenantName};
use crate::secret::Secret;

/// Bytes of the random id.
pub const KEY_ID_BYTES: usize = 8;
/// Bytes of the random secret: 256 bits cannot be guessed, so no slow hash is needed.
pub const KEY_SECRET_BYTES: usize = 32;
/// What every key begins with, so that secret scanners can find a leaked one.
pub const KEY_PREFIX: &str = "gantry_";

/// What finds a key's record: not a secret, and printed in audit records.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct KeyId(pub [u8; KEY_ID_BYTES]);

/// A key as stored and as sent to nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentKey {
    /// The tenant of the agent.
    pub tenant: TenantName,
    /// The agent that the key proves.
    pub agent: AgentName,
    /// What the key is found by.
    pub id: KeyId,
    /// HMAC-SHA256 of the secret's bytes under the cluster's key-hash key.
    pub hash: [u8; 32],
    /// When it was made, in milliseconds since 1970.
    pub created_at_ms: u64,
    /// From when it is refused, in milliseconds since 1970; `None`: never.
    pub expires_at_ms: Option<u64>,
}

/// A key as an agent presents it.
#[derive(Debug, Clone)]
pub struct PresentedKey {
    /// What to look the record up by.
    pub id: KeyId,
    /// What proves possession.
    pub secret: Secret<[u8; KEY_SECRET_BYTES]>,
}

/// The text is not of the form of a key. It says no more, so that it can be shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an agent key (gantry_ID_SECRET)")]
pub struct KeyFormatError;

impl PresentedKey {
    /// The text form, which is itself secret.
    pub fn to_text(&self) -> Secret<String> {
        let mut text = format!("{KEY_PREFIX}{}_", self.id);
        push_hex(&mut text, &self.secret);
        Secret::new(text)
    }
}

impl FromStr for PresentedKey {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<PresentedKey, KeyFormatError> {
        let rest = text.strip_prefix(KEY_PREFIX).ok_or(KeyFormatError)?;
        let (id, secret) = rest.split_once('_').ok_or(KeyFormatError)?;
        Ok(PresentedKey { id: id.parse()?, secret: Secret::new(from_hex(secret).ok_or(KeyFormatError)?) })
    }
}

impl FromStr for KeyId {
    type Err = KeyFormatError;

    fn from_str(text: &str) -> Result<KeyId, KeyFormatError> {
        from_hex(text).map(KeyId).ok_or(KeyFormatError)
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

/// Writes the hexadecimal digits of a secret behind what stands before it.
pub(crate) fn push_hex(text: &mut String, secret: &Secret<[u8; KEY_SECRET_BYTES]>) {
    for byte in secret.expose() {
        text.push(hex_digit(byte >> 4));
        text.push(hex_digit(byte & 15));
    }
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0')
}

pub(crate) fn from_hex<const LENGTH: usize>(text: &str) -> Option<[u8; LENGTH]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * LENGTH {
        return None;
    }
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; LENGTH];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() -> Result<(), KeyFormatError> {
        let key = PresentedKey {
            id: KeyId([1, 2, 3, 4, 5, 6, 7, 0xff]),
            secret: Secret::new([0xab; KEY_SECRET_BYTES]),
        };
        let text = key.to_text();
        let read: PresentedKey = text.expose().parse()?;
        assert_eq!(read.id, key.id);
        assert_eq!(read.secret.expose(), key.secret.expose());
        assert!(text.expose().starts_with("gantry_01020304050607ff_abab"));
        Ok(())
    }

    #[test]
    fn a_text_of_another_form_is_not_a_key() {
        for text in ["", "gantry_", "gantry_01_02", "Bearer x", "gantry_0102030405060708_zz"] {
            assert_eq!(text.parse::<PresentedKey>().err(), Some(KeyFormatError), "{text}");
        }
    }
}
