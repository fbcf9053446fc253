//! Sealed tokens: what Gantry hands to a client to be given back, instead of keeping it (AES-256-GCM).
//!
//! Always holds: a token opens only for the purpose, tenant, endpoint and principal that it was sealed for, only until it
//! expires, and only under one of the at most two keys that the cluster has. Whoever holds a token learns nothing of
//! what is in it. What is in it is not known here.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest token that is made or looked at, in bytes. Those that stand in headers are far shorter; a server's state
/// stands in a body.
pub(crate) const TOKEN_BYTES_MAX: usize = 64 * 1024;

const FORM: u8 = 2;
/// Form and generation of the key.
const HEAD_BYTES: usize = 1 + 4;
const EXPIRY_BYTES: usize = 8;
/// For tokens that are good as long as their key is.
const NEVER: u64 = u64::MAX;

/// What a token is for. A token of one purpose is none of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A session of the legacy era.
    Session,
    /// Where a list goes on.
    Cursor,
    /// `requestState` of the modern era.
    State,
    /// The id of a task.
    Task,
    /// The stream of an HTTP+SSE client (2024-11-05).
    Stream,
}

/// Whom a token belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) endpoint: &'a str,
    /// The agent, and for whom it acts.
    pub(crate) principal: &'a str,
}

/// Seals and opens tokens. It has the newest key first.
pub(crate) struct Keyring {
    keys: Vec<Key>,
}

struct Key {
    generation: u32,
    cipher: LessSafeKey,
    /// Derives the nonces of stable tokens.
    nonces: hmac::Key,
}

/// A token cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// There is no key, or one has not 32 bytes.
    #[error("there is no key to seal with")]
    Key,
    /// The cipher refused.
    #[error("the token cannot be sealed")]
    Cipher,
    /// It would not be looked at when it comes back.
    #[error("the token would be longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
}

/// The token was not made by this cluster for this owner and purpose, or is no longer good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one of this owner, or has expired")]
pub(crate) struct Invalid;

impl Keyring {
    /// Takes keys of 32 bytes with their generations, the newest first.
    pub(crate) fn new<'a>(keys: impl IntoIterator<Item = (u32, &'a [u8])>) -> Result<Keyring, SealError> {
        let keys = keys.into_iter().map(|(generation, key)| Key::new(generation, key));
        let keys: Vec<Key> = keys.collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(SealError::Key) } else { Ok(Keyring { keys }) }
    }

    /// Seals a token that is good until `expires`, in seconds since 1970. Two tokens of the same are not alike.
    pub(crate) fn seal(
        &self,
        purpose: Purpose,
        owner: Owner<'_>,
        expires: u64,
        plain: &[u8],
    ) -> Result<String, SealError> {
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).map_err(|_| SealError::Cipher)?;
        self.newest()?.seal(nonce, &aad(purpose, owner), expires, plain)
    }

    /// Seals a token that is good as long as its key is. The same, sealed again, is the same token: for ids that a
    /// client compares.
    pub(crate) fn seal_stable(
        &self,
        purpose: Purpose,
        owner: Owner<'_>,
        plain: &[u8],
    ) -> Result<String, SealError> {
        let key = self.newest()?;
        let aad = aad(purpose, owner);
        let mut context = hmac::Context::with_key(&key.nonces);
        context.update(&(aad.len() as u64).to_be_bytes());
        context.update(aad.as_bytes());
        context.update(plain);
        let mut nonce = [0; NONCE_LEN];
        nonce.copy_from_slice(&context.sign().as_ref()[..NONCE_LEN]);
        key.seal(nonce, &aad, NEVER, plain)
    }

    /// What is in a token. `now` is in seconds since 1970.
    pub(crate) fn open(
        &self,
        purpose: Purpose,
        owner: Owner<'_>,
        token: &str,
        now: u64,
    ) -> Result<Vec<u8>, Invalid> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Invalid);
        }
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Invalid)?;
        let (head, rest) = bytes.split_first_chunk::<HEAD_BYTES>().ok_or(Invalid)?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>().ok_or(Invalid)?;
        let [form, generation @ ..] = *head;
        let generation = u32::from_be_bytes(generation);
        let key = self.keys.iter().find(|key| form == FORM && key.generation == generation);
        let mut sealed = sealed.to_vec();
        let aad = aad(purpose, owner);
        let plain = key
            .ok_or(Invalid)?
            .cipher
            .open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut sealed)
            .map_err(|_| Invalid)?;
        let (expires, plain) = plain.split_first_chunk::<EXPIRY_BYTES>().ok_or(Invalid)?;
        if u64::from_be_bytes(*expires) <= now {
            return Err(Invalid);
        }
        Ok(plain.to_vec())
    }

    fn newest(&self) -> Result<&Key, SealError> {
        self.keys.first().ok_or(SealError::Key)
    }
}

impl Key {
    fn new(generation: u32, key: &[u8]) -> Result<Key, SealError> {
        let cipher = UnboundKey::new(&AES_256_GCM, key).map_err(|_| SealError::Key)?;
        let derived = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"gantry stable nonces");
        let nonces = hmac::Key::new(hmac::HMAC_SHA256, derived.as_ref());
        Ok(Key { generation, cipher: LessSafeKey::new(cipher), nonces })
    }

    fn seal(
        &self,
        nonce: [u8; NONCE_LEN],
        aad: &str,
        expires: u64,
        plain: &[u8],
    ) -> Result<String, SealError> {
        let mut sealed = Vec::with_capacity(EXPIRY_BYTES + plain.len() + AES_256_GCM.tag_len());
        sealed.extend_from_slice(&expires.to_be_bytes());
        sealed.extend_from_slice(plain);
        self.cipher
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), &mut sealed)
            .map_err(|_| SealError::Cipher)?;
        let mut token = vec![FORM];
        token.extend_from_slice(&self.generation.to_be_bytes());
        token.extend_from_slice(&nonce);
        token.append(&mut sealed);
        let token = URL_SAFE_NO_PAD.encode(token);
        if token.len() > TOKEN_BYTES_MAX { Err(SealError::TooLong) } else { Ok(token) }
    }
}

/// Names have no `/`, and the principal is the last, so the parts cannot run into each other.
fn aad(purpose: Purpose, owner: Owner<'_>) -> String {
    let purpose = match purpose {
        Purpose::Session => "session",
        Purpose::Cursor => "cursor",
        Purpose::State => "state",
        Purpose::Task => "task",
        Purpose::Stream => "stream",
    };
    format!("gantry {purpose}/{}/{}/{}", owner.tenant, owner.endpoint, owner.principal)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Owner<'static> = Owner { tenant: "acme", endpoint: "main", principal: "bot" };

    #[test]
    fn a_token_opens_for_its_owner_and_purpose_only_and_until_it_expires() -> Result<(), SealError> {
        let ring = Keyring::new([(7, &[7; 32][..])])?;
        let token = ring.seal(Purpose::Session, OWNER, 1_001, b"plain")?;
        assert!(token.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        let open = |ring: &Keyring, purpose, owner, now| ring.open(purpose, owner, &token, now);
        assert_eq!(open(&ring, Purpose::Session, OWNER, 1_000), Ok(b"plain".to_vec()));
        assert_eq!(open(&ring, Purpose::Session, OWNER, 1_001), Err(Invalid));
        assert_eq!(open(&ring, Purpose::State, OWNER, 1_000), Err(Invalid));
        for owner in [
            Owner { principal: "eve", ..OWNER },
            Owner { principal: "bot/corp/ann", ..OWNER },
            Owner { endpoint: "other", ..OWNER },
            Owner { tenant: "globex", ..OWNER },
        ] {
            assert_eq!(open(&ring, Purpose::Session, owner, 1_000), Err(Invalid));
        }
        for other in [(7, &[8; 32][..]), (8, &[7; 32][..])] {
            assert_eq!(open(&Keyring::new([other])?, Purpose::Session, OWNER, 1_000), Err(Invalid));
        }
        for broken in ["", "x", "AAAA", &token[1..], &token[..token.len() - 1]] {
            assert_eq!(ring.open(Purpose::Session, OWNER, broken, 1_000), Err(Invalid), "{broken}");
        }
        Ok(())
    }

    #[test]
    fn a_token_outlives_one_change_of_the_key_and_not_two() -> Result<(), SealError> {
        let keys = [(1, &[1; 32][..]), (2, &[2; 32][..]), (3, &[3; 32][..])];
        let token = Keyring::new([keys[0]])?.seal(Purpose::Session, OWNER, NEVER, b"plain")?;
        let next = Keyring::new([keys[1], keys[0]])?;
        assert_eq!(next.open(Purpose::Session, OWNER, &token, 0), Ok(b"plain".to_vec()));
        let last = Keyring::new([keys[2], keys[1]])?;
        assert_eq!(last.open(Purpose::Session, OWNER, &token, 0), Err(Invalid));
        Ok(())
    }

    #[test]
    fn what_would_be_too_long_to_open_is_not_sealed() -> Result<(), SealError> {
        let ring = Keyring::new([(1, &[1; 32][..])])?;
        let overhead = HEAD_BYTES + NONCE_LEN + EXPIRY_BYTES + AES_256_GCM.tag_len();
        let longest = vec![b'x'; TOKEN_BYTES_MAX / 4 * 3 - overhead];
        let token = ring.seal(Purpose::State, OWNER, 9, &longest)?;
        assert_eq!(token.len(), TOKEN_BYTES_MAX);
        assert_eq!(ring.open(Purpose::State, OWNER, &token, 5), Ok(longest.clone()));
        let longer = [&longest[..], b"x"].concat();
        assert_eq!(ring.seal(Purpose::State, OWNER, 9, &longer), Err(SealError::TooLong));
        assert_eq!(ring.seal_stable(Purpose::State, OWNER, &longer), Err(SealError::TooLong));
        Ok(())
    }

    #[test]
    fn only_stable_tokens_of_the_same_are_alike() -> Result<(), SealError> {
        let ring = Keyring::new([(1, &[1; 32][..])])?;
        let stable = |plain| ring.seal_stable(Purpose::Task, OWNER, plain);
        assert_eq!(stable(b"one")?, stable(b"one")?);
        assert_ne!(stable(b"one")?, stable(b"two")?);
        assert_eq!(ring.open(Purpose::Task, OWNER, &stable(b"one")?, 5), Ok(b"one".to_vec()));
        let token = || ring.seal(Purpose::Task, OWNER, 9, b"one");
        assert_ne!(token()?, token()?);
        Ok(())
    }
}
