//! Sessions of legacy clients: the token that a client holds, and what is in it.
//!
//! Always holds: nothing is kept of a session that the token can say, so any node can serve any request of it. A
//! token is sealed ([`super::seal`]), so that it is good for its principal and endpoint only, and for a day.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use gantry_model::SessionId;
use gantry_model::ban::SESSION_ID_BYTES;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::seal::{Invalid, Keyring, Owner, Purpose, SealError};

/// How long a session is good for, in seconds: a day. Agents that run longer initialise again.
pub(crate) const SESSION_SECONDS_MAX: u64 = 24 * 60 * 60;
/// Longest session that is sealed, in bytes: a header holds no more everywhere.
const SESSION_BYTES_MAX: usize = 3 * 1_024;

/// Ended sessions that a node remembers; about 200 bytes each. Beyond, the oldest is forgotten.
const ENDED_MAX: usize = 65_536;

/// What a client's session is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Session {
    /// A session of the one server behind the endpoint, by that server's id.
    #[serde(rename = "r")]
    Relayed(String),
    /// A session with the gateway.
    #[serde(rename = "b")]
    Bridged(Box<Bridged>),
}

/// A session with the gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Bridged {
    /// The node that has what cannot be sealed: sessions with servers, subscriptions, answers waited for.
    #[serde(rename = "h")]
    pub(crate) home: String,
    /// Tells the session from all others.
    #[serde(rename = "n")]
    pub(crate) nonce: String,
    /// The protocol version that was agreed on.
    #[serde(rename = "v")]
    pub(crate) version: String,
    /// The client's capabilities, as it sent them.
    #[serde(rename = "c")]
    pub(crate) capabilities: Box<RawValue>,
}

/// Sessions that were ended, by their tokens: what is answered without a server must not outlive them.
#[derive(Default)]
pub(crate) struct Ended(Mutex<EndedTokens>);

#[derive(Default)]
struct EndedTokens {
    known: HashSet<String>,
    order: VecDeque<String>,
}

/// A session cannot be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SessionError {
    /// What has to be in it is too long for a header.
    #[error("the session would be longer than {SESSION_BYTES_MAX} bytes")]
    TooLong,
    /// It cannot be sealed.
    #[error("the session cannot be sealed")]
    Seal(#[from] SealError),
}

impl Session {
    /// The token for a client. `now` is in seconds since 1970.
    pub(crate) fn seal(&self, keys: &Keyring, owner: Owner<'_>, now: u64) -> Result<String, SessionError> {
        // Every field has a JSON form.
        let plain = serde_json::to_vec(self).unwrap_or_default();
        if plain.len() > SESSION_BYTES_MAX {
            return Err(SessionError::TooLong);
        }
        Ok(keys.seal(Purpose::Session, owner, now + SESSION_SECONDS_MAX, &plain)?)
    }

    /// What names the session in records, and to admins. It gives nobody a right to it.
    pub(crate) fn id(&self, owner: Owner<'_>) -> SessionId {
        let hashed = |parts: [&str; 4]| {
            let mut hasher = blake3::Hasher::new();
            for part in parts {
                hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
            }
            let mut id = [0; SESSION_ID_BYTES];
            id.copy_from_slice(&hasher.finalize().as_bytes()[..SESSION_ID_BYTES]);
            SessionId(id)
        };
        match self {
            // A server's own id may let whoever has it in.
            Session::Relayed(upstream) => hashed([owner.tenant, owner.endpoint, owner.principal, upstream]),
            Session::Bridged(bridged) => bridged
                .nonce
                .parse()
                .unwrap_or_else(|_| hashed([owner.tenant, owner.endpoint, owner.principal, &bridged.nonce])),
        }
    }

    /// The session of a token.
    pub(crate) fn open(keys: &Keyring, owner: Owner<'_>, token: &str, now: u64) -> Result<Session, Invalid> {
        let plain = keys.open(Purpose::Session, owner, token, now)?;
        serde_json::from_slice(&plain).map_err(|_| Invalid)
    }
}

impl Ended {
    /// Remembers that a session is over. Returns whether that is news.
    pub(crate) fn insert(&self, token: &str) -> bool {
        let mut tokens = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = tokens.known.insert(token.to_owned());
        if is_new {
            tokens.order.push_back(token.to_owned());
        }
        if tokens.order.len() > ENDED_MAX
            && let Some(oldest) = tokens.order.pop_front()
        {
            tokens.known.remove(&oldest);
        }
        is_new
    }

    /// Whether a session is over.
    pub(crate) fn contains(&self, token: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).known.contains(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_ended_session_is_forgotten_beyond_the_limit() {
        let ended = Ended::default();
        for number in 0..=ENDED_MAX {
            assert!(ended.insert(&number.to_string()));
            assert!(!ended.insert(&number.to_string()));
        }
        assert!(!ended.contains("0"));
        assert!(ended.contains("1"));
        assert!(ended.contains(&ENDED_MAX.to_string()));
    }

    #[test]
    fn a_session_comes_back_as_it_was() -> Result<(), Box<dyn std::error::Error>> {
        let keys = Keyring::new([(1, &[7; 32][..])])?;
        let owner = Owner { tenant: "acme", endpoint: "main", principal: "bot" };
        let bridged = Bridged {
            home: "node-1".to_owned(),
            nonce: "n".to_owned(),
            version: "2025-06-18".to_owned(),
            capabilities: RawValue::from_string(r#"{"elicitation": {}}"#.to_owned())?,
        };
        for session in [Session::Relayed("upstream-1".to_owned()), Session::Bridged(Box::new(bridged))] {
            let token = session.seal(&keys, owner, 1_000)?;
            let opened = Session::open(&keys, owner, &token, 1_000)?;
            assert_eq!(serde_json::to_string(&opened)?, serde_json::to_string(&session)?);
            assert!(Session::open(&keys, owner, &token, 1_000 + SESSION_SECONDS_MAX).is_err());
        }
        let long = Session::Relayed("x".repeat(SESSION_BYTES_MAX));
        assert_eq!(long.seal(&keys, owner, 1_000), Err(SessionError::TooLong));
        Ok(())
    }
}
