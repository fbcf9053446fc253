//! Sealed session ids of the legacy era: any node can serve any request of a session, and none keeps it.
//!
//! Always holds: a session id that a client holds opens only for the principal and endpoint that it was made for,
//! and only until it expires. It seals the server's own session id (AES-256-GCM, random nonce), so that a client
//! never learns that one.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::aead::{AES_256_GCM, Aad, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// How long a session id is good for, in seconds: a day. Agents that run longer initialise again.
pub(crate) const SESSION_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Longest session id of a server that is sealed, in bytes; longer ones would not fit into common header limits.
pub(crate) const UPSTREAM_SESSION_BYTES_MAX: usize = 1_024;

/// Ended sessions that a node remembers; about 100 bytes each. Beyond, the oldest is forgotten, and its lists are
/// answered again until it expires; its calls are refused by the server.
const ENDED_MAX: usize = 65_536;

const FORM: u8 = 1;
const HEADER_BYTES: usize = 1 + 8;
const NONCE_BYTES: usize = 12;

/// Seals and opens session ids.
pub(crate) struct SessionKey(RandomizedNonceKey);

/// Whom and what a session belongs to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SessionOwner<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) endpoint: &'a str,
    pub(crate) agent: &'a str,
}

/// Sessions that were ended on this node, by their sealed ids: what is answered without the server must not outlive
/// the session either. Other nodes do not know of them in this release.
#[derive(Default)]
pub(crate) struct Ended(Mutex<EndedIds>);

#[derive(Default)]
struct EndedIds {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// A session id cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SealError {
    /// The key has not 32 bytes.
    #[error("the session key has a wrong length")]
    Key,
    /// The server's session id is too long.
    #[error("the server's session id is longer than {UPSTREAM_SESSION_BYTES_MAX} bytes")]
    TooLong,
    /// The cipher refused.
    #[error("the session id cannot be sealed")]
    Cipher,
}

/// The session id is not one of this principal and endpoint, or no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session does not exist or has expired")]
pub(crate) struct SessionGone;

impl SessionKey {
    /// Takes a key of 32 bytes.
    pub(crate) fn new(key: &[u8]) -> Result<SessionKey, SealError> {
        RandomizedNonceKey::new(&AES_256_GCM, key).map(SessionKey).map_err(|_| SealError::Key)
    }

    /// Seals a server's session id. `now` is in seconds since 1970.
    pub(crate) fn seal(
        &self,
        owner: SessionOwner<'_>,
        upstream: &str,
        now: u64,
    ) -> Result<String, SealError> {
        if upstream.len() > UPSTREAM_SESSION_BYTES_MAX {
            return Err(SealError::TooLong);
        }
        let mut sealed = Vec::with_capacity(HEADER_BYTES + upstream.len() + 32);
        sealed.push(FORM);
        sealed.extend_from_slice(&(now + SESSION_SECONDS_MAX).to_be_bytes());
        sealed.extend_from_slice(upstream.as_bytes());
        let nonce = self
            .0
            .seal_in_place_append_tag(Aad::from(owner.to_aad()), &mut sealed)
            .map_err(|_| SealError::Cipher)?;
        let mut text = nonce.as_ref().to_vec();
        text.append(&mut sealed);
        Ok(URL_SAFE_NO_PAD.encode(text))
    }

    /// The server's session id of a sealed one.
    pub(crate) fn open(
        &self,
        owner: SessionOwner<'_>,
        session: &str,
        now: u64,
    ) -> Result<String, SessionGone> {
        let mut bytes = URL_SAFE_NO_PAD.decode(session).map_err(|_| SessionGone)?;
        if bytes.len() < NONCE_BYTES {
            return Err(SessionGone);
        }
        let mut sealed = bytes.split_off(NONCE_BYTES);
        let nonce: [u8; NONCE_BYTES] = bytes.try_into().map_err(|_| SessionGone)?;
        let plain = self
            .0
            .open_in_place((&nonce).into(), Aad::from(owner.to_aad()), &mut sealed)
            .map_err(|_| SessionGone)?;
        let (header, upstream) = plain.split_at_checked(HEADER_BYTES).ok_or(SessionGone)?;
        let expires = header[1..].iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        if header[0] != FORM || expires <= now {
            return Err(SessionGone);
        }
        String::from_utf8(upstream.to_vec()).map_err(|_| SessionGone)
    }
}

impl Ended {
    /// Remembers that a session is over.
    pub(crate) fn insert(&self, session: &str) {
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.known.insert(session.to_owned()) {
            ids.order.push_back(session.to_owned());
        }
        if ids.order.len() > ENDED_MAX
            && let Some(oldest) = ids.order.pop_front()
        {
            ids.known.remove(&oldest);
        }
    }

    /// Whether a session is over.
    pub(crate) fn contains(&self, session: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains(session)
    }
}

impl SessionOwner<'_> {
    /// Names have no `/`, so the parts cannot run into each other.
    fn to_aad(self) -> String {
        format!("gantry session/{}/{}/{}", self.tenant, self.endpoint, self.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: SessionOwner<'static> = SessionOwner { tenant: "acme", endpoint: "main", agent: "bot" };

    #[test]
    fn the_oldest_ended_session_is_forgotten_beyond_the_limit() {
        let ended = Ended::default();
        for number in 0..=ENDED_MAX {
            ended.insert(&number.to_string());
            ended.insert(&number.to_string());
        }
        assert!(!ended.contains("0"));
        assert!(ended.contains("1"));
        assert!(ended.contains(&ENDED_MAX.to_string()));
    }

    #[test]
    fn a_session_opens_for_its_owner_only_and_until_it_expires() -> Result<(), SealError> {
        let key = SessionKey::new(&[7; 32])?;
        let sealed = key.seal(OWNER, "upstream-1", 1_000)?;
        assert!(sealed.bytes().all(|byte| (0x21..=0x7e).contains(&byte)));
        assert_eq!(key.open(OWNER, &sealed, 1_000), Ok("upstream-1".to_owned()));
        assert_eq!(key.open(OWNER, &sealed, 1_000 + SESSION_SECONDS_MAX), Err(SessionGone));
        assert_eq!(key.open(SessionOwner { agent: "eve", ..OWNER }, &sealed, 1_000), Err(SessionGone));
        assert_eq!(key.open(SessionOwner { endpoint: "other", ..OWNER }, &sealed, 1_000), Err(SessionGone));
        assert_eq!(SessionKey::new(&[8; 32])?.open(OWNER, &sealed, 1_000), Err(SessionGone));
        for broken in ["", "x", "AAAA", &sealed[1..]] {
            assert_eq!(key.open(OWNER, broken, 1_000), Err(SessionGone), "{broken}");
        }
        Ok(())
    }
}
