//! Bans: who or what is stopped at once, whatever the configuration and its policies say.
//!
//! Always holds: a ban is of one tenant; it names whom it stops by what a call carries. Who made it, when and why is
//! for admins and never told to agents. What `gantry revoke` makes is a ban; a *revocation* is of a certificate
//! ([`crate::enrolment`]).

use std::fmt;
use std::str::FromStr;

use crate::key::KeyId;
use crate::name::{AgentName, ServerName, TenantName};
use crate::resource::UserId;

/// Bytes of a session's id.
pub const SESSION_ID_BYTES: usize = 12;
/// Longest reason in bytes: it is one cell of a table.
pub const REASON_BYTES_MAX: usize = 256;

/// What is stopped, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ban {
    /// Whose it is.
    pub tenant: TenantName,
    /// What is stopped.
    pub target: BanTarget,
    /// The admin who made it.
    pub by: String,
    /// Why, in the admin's words; may be empty.
    pub reason: String,
    /// When, in milliseconds since 1970.
    pub at_ms: u64,
    /// From when on it stops nothing that could still come, and is forgotten, in milliseconds since 1970; `None`: it
    /// stays until it is lifted.
    pub until_ms: Option<u64>,
}

/// What a ban stops.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BanTarget {
    /// An agent, with all its keys and sessions.
    Agent(AgentName),
    /// Somebody for whom agents act, with whatever agent.
    User(UserId),
    /// One key of an agent.
    Key(KeyId),
    /// One session of a legacy client.
    Session(SessionId),
    /// A server: nothing is sent to it.
    Server(ServerName),
    /// The tenant: everything.
    Tenant,
}

/// Names a session, and gives nobody a right to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub [u8; SESSION_ID_BYTES]);

/// The text is no session's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a session's id has {} hexadecimal digits; `gantry audit tail -o json` shows it as `session`", 2 * SESSION_ID_BYTES)]
pub struct SessionIdError;

impl Ban {
    /// Whether it stops nothing any more.
    pub fn is_past(&self, now_ms: u64) -> bool {
        self.until_ms.is_some_and(|until| until <= now_ms)
    }
}

impl BanTarget {
    /// The last part of the key of its record, as people name it too.
    pub fn key_name(&self) -> String {
        match self {
            BanTarget::Agent(agent) => format!("agent/{agent}"),
            BanTarget::User(user) => format!("user/{user}"),
            BanTarget::Key(key) => format!("key/{key}"),
            BanTarget::Session(session) => format!("session/{session}"),
            BanTarget::Server(server) => format!("server/{server}"),
            BanTarget::Tenant => "tenant".to_owned(),
        }
    }

    /// The kind, in one word.
    pub fn kind(&self) -> &'static str {
        match self {
            BanTarget::Agent(_) => "agent",
            BanTarget::User(_) => "user",
            BanTarget::Key(_) => "key",
            BanTarget::Session(_) => "session",
            BanTarget::Server(_) => "server",
            BanTarget::Tenant => "tenant",
        }
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for SessionId {
    type Err = SessionIdError;

    fn from_str(text: &str) -> Result<SessionId, SessionIdError> {
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 2 * SESSION_ID_BYTES).ok_or(SessionIdError)?;
        let mut id = [0; SESSION_ID_BYTES];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| SessionIdError)?;
        }
        Ok(SessionId(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sessions_id_survives_its_text_form_and_nothing_else_is_one() {
        let id = SessionId([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xab, 0xff]);
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in
            ["", "00", "000102030405060708090abf0", "00010203040506070809xxff", "٠٠٠١٠٢٠٣٠٤٠٥٠٦٠٧٠٨٠٩aaff"]
        {
            assert_eq!(text.parse::<SessionId>(), Err(SessionIdError), "{text}");
        }
    }
}
