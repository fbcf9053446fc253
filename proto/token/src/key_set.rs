//! The keys of a provider (JWKS, RFC 7517), and which of them signed a token.
//!
//! Always holds: a key verifies by its own kind of algorithm only, and by the one that it names where it does; a set is
//! bounded; keys that cannot be used (others' kinds, too small, for encryption, or with their private half published) are
//! left out, and the rest counts.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::signature::{self, ParsedPublicKey, RsaPublicKeyComponents};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::compact::Compact;
use crate::json;
use crate::rules::TokenError;

/// Keys in a set: two for rotation, of each kind, and some that providers keep for long.
pub const KEYS_MAX: usize = 64;
/// Longest set in bytes: that many keys of RSA, with their certificates.
pub(crate) const SET_BYTES_MAX: usize = 512 * 1024;
/// Bits of an RSA modulus.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=8_192;
/// Longest public exponent in bytes. 65,537 has three; a long one makes a verification slow.
const EXPONENT_BYTES_MAX: usize = 4;

/// The public keys of a provider.
pub struct KeySet {
    keys: Vec<Key>,
    left_out: usize,
}

struct Key {
    id: Option<String>,
    /// Ready for each algorithm that it may be used by.
    ready: BTreeMap<Algorithm, ParsedPublicKey>,
}

/// Why there is no set of keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeySetError {
    /// Larger than any provider's.
    #[error("the key set has more than {SET_BYTES_MAX} bytes")]
    TooLong,
    /// Something else.
    #[error("there is no key set, an object with a list `keys`")]
    Form,
    /// More than are looked through.
    #[error("the key set has more than {KEYS_MAX} keys")]
    TooMany,
    /// Nothing could be verified.
    #[error("none of the {0} keys in the set can be used")]
    Unusable(usize),
}

impl KeySet {
    /// Reads a set.
    pub fn parse(bytes: &[u8]) -> Result<KeySet, KeySetError> {
        if bytes.len() > SET_BYTES_MAX {
            return Err(KeySetError::TooLong);
        }
        let mut set = json::object(bytes).ok_or(KeySetError::Form)?;
        let Some(Value::Array(listed)) = set.remove("keys") else { return Err(KeySetError::Form) };
        if listed.len() > KEYS_MAX {
            return Err(KeySetError::TooMany);
        }
        let keys: Vec<Key> = listed.iter().filter_map(|key| Key::read(key.as_object()?)).collect();
        let left_out = listed.len() - keys.len();
        if keys.is_empty() { Err(KeySetError::Unusable(left_out)) } else { Ok(KeySet { keys, left_out }) }
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether it has none, which it never has.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many keys of the provider it does without.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// Refuses a token that none of the keys has signed. [`TokenError::UnknownKey`]: newer keys may have.
    pub fn verify(&self, token: &Compact<'_>) -> Result<(), TokenError> {
        let named: Vec<&Key> = match &token.key_id {
            Some(id) => self.keys.iter().filter(|key| key.id.as_ref() == Some(id)).collect(),
            None => self.keys.iter().filter(|key| key.ready.contains_key(&token.algorithm)).collect(),
        };
        match (named.len(), &token.key_id) {
            (0, _) => return Err(TokenError::UnknownKey),
            (1, _) | (_, Some(_)) => {}
            (_, None) => return Err(TokenError::NoKeyId),
        }
        let mut fitting = named.iter().filter_map(|key| key.ready.get(&token.algorithm)).peekable();
        if fitting.peek().is_none() {
            return Err(TokenError::OtherKey);
        }
        // Two keys of one id are a provider's mistake; each of them is the provider's.
        let signed = fitting.any(|key| key.verify_sig(token.signed, &token.signature).is_ok());
        if signed { Ok(()) } else { Err(TokenError::Signature) }
    }
}

impl Key {
    /// `None`: of no use here.
    fn read(key: &Map<String, Value>) -> Option<Key> {
        let text = |name: &str| key.get(name).map(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(text(name)??).ok();
        if !matches!(text("use"), None | Some(Some("sig"))) || key.contains_key("d") {
            return None;
        }
        if let Some(operations) = key.get("key_ops") {
            operations.as_array()?.iter().find(|operation| operation.as_str() == Some("verify"))?;
        }
        let own: Option<Algorithm> = match text("alg") {
            None => None,
            Some(named) => Some(named?.parse().ok()?),
        };
        let id = match text("kid") {
            None => None,
            Some(id) => Some(id?.to_owned()),
        };
        let mut ready = match text("kty")?? {
            "RSA" => rsa(&bytes("n")?, &bytes("e")?)?,
            "EC" => {
                let (algorithm, how, length) = match text("crv")?? {
                    "P-256" => (Algorithm::Es256, &signature::ECDSA_P256_SHA256_FIXED, 32),
                    "P-384" => (Algorithm::Es384, &signature::ECDSA_P384_SHA384_FIXED, 48),
                    _ => return None,
                };
                let (x, y) = (bytes("x")?, bytes("y")?);
                let point = [&[4], &x[..], &y[..]].concat();
                let is_whole = x.len() == length && y.len() == length;
                is_whole
                    .then(|| ParsedPublicKey::new(how, point).ok())
                    .flatten()
                    .map(|key| [(algorithm, key)].into())?
            }
            "OKP" if text("crv")?? == "Ed25519" => {
                let key = ParsedPublicKey::new(&signature::ED25519, bytes("x")?).ok()?;
                [(Algorithm::EdDsa, key)].into()
            }
            _ => return None,
        };
        if let Some(own) = own {
            ready.retain(|algorithm, _| *algorithm == own);
        }
        (!ready.is_empty()).then_some(Key { id, ready })
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<BTreeMap<Algorithm, ParsedPublicKey>> {
    // Some encoders put a zero before a number.
    let trimmed =
        |number: &'_ [u8]| number.iter().position(|byte| *byte != 0).map(|at| number[at..].to_vec());
    let (modulus, exponent) = (trimmed(modulus)?, trimmed(exponent)?);
    let bits = modulus.len() * 8 - modulus.first()?.leading_zeros() as usize;
    let is_odd = exponent.last()? % 2 == 1 && exponent != [1];
    if !RSA_BITS.contains(&bits) || !is_odd || exponent.len() > EXPONENT_BYTES_MAX {
        return None;
    }
    let components = RsaPublicKeyComponents { n: modulus, e: exponent };
    let ready = Algorithm::ALL
        .into_iter()
        .filter_map(|algorithm| Some((algorithm, components.to_parsed_public_key(algorithm.rsa()?).ok()?)));
    Some(ready.collect())
}

impl fmt::Debug for KeySet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ids: Vec<_> = self.keys.iter().map(|key| key.id.as_deref().unwrap_or_default()).collect();
        formatter.debug_struct("KeySet").field("keys", &ids).field("left_out", &self.left_out).finish()
    }
}
