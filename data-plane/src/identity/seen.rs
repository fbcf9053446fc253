//! Tokens that were verified already: a client shows the same one for minutes.
//!
//! Always holds: what is remembered was verified for the same endpoint, by the same provider as it is now, with keys that are
//! the newest still, and has not ended; a token itself is not kept, only a hash of it. At most [`TOKENS_MAX`] of a tenant.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, Weak};

use gantry_token::KeySet;

use super::Identity;
use super::provider::Provider;

/// Tokens that are remembered of a tenant: its users of an hour. Each takes about 1 KiB.
pub(super) const TOKENS_MAX: usize = 8_192;

/// What finds a token that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32]);

/// Tokens of one tenant.
#[derive(Default)]
pub(crate) struct Seen(RwLock<HashMap<TokenHash, Remembered>>);

struct Remembered {
    /// Not for ever: while there is one, its keys are fetched.
    provider: Weak<Provider>,
    keys: Arc<KeySet>,
    identity: Arc<Identity>,
}

impl TokenHash {
    /// Of a token that is shown at the endpoint of this audience.
    pub(crate) fn of(token: &str, audience: Option<&str>) -> TokenHash {
        let mut hasher = blake3::Hasher::new();
        // With its length, so that no other two give the same bytes.
        hasher.update(&(token.len() as u64).to_le_bytes()).update(token.as_bytes());
        hasher.update(audience.unwrap_or_default().as_bytes());
        TokenHash(hasher.finalize().into())
    }
}

impl Seen {
    /// What a token says, where that is known and holds at `now`, in seconds since 1970. `is_current` says whether a
    /// provider is what it was.
    pub(crate) fn get(
        &self,
        token: &TokenHash,
        now: u64,
        is_current: impl FnOnce(&Arc<Provider>) -> bool,
    ) -> Option<Arc<Identity>> {
        let seen = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = seen.get(token)?;
        let provider = known.provider.upgrade()?;
        let newest = provider.keys_at_hand()?;
        let holds =
            now < known.identity.ends_at && Arc::ptr_eq(&known.keys, &newest) && is_current(&provider);
        holds.then(|| known.identity.clone())
    }

    /// Remembers a token that was verified with these keys.
    pub(crate) fn put(
        &self,
        token: TokenHash,
        provider: &Arc<Provider>,
        keys: Arc<KeySet>,
        identity: &Arc<Identity>,
        now: u64,
    ) {
        let mut seen = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= TOKENS_MAX {
            seen.retain(|_, known| now < known.identity.ends_at && known.provider.strong_count() > 0);
            if seen.len() >= TOKENS_MAX {
                // Those in use are verified once more.
                seen.clear();
            }
        }
        let (provider, identity) = (Arc::downgrade(provider), identity.clone());
        seen.insert(token, Remembered { provider, keys, identity });
    }
}
