//! Enrolment: how a process becomes part of a cluster, as the cluster keeps it.
//!
//! Always holds: no secret is here. The authority's key is sealed, of a join token there is only a hash.

use std::fmt;
use std::str::FromStr;

use crate::admin_issuer::AdminIssuer;
use crate::identity::{PeerName, Serial};
use crate::name::Name;
use crate::scope::Labels;

/// Random bytes of a join token's id.
pub const JOIN_TOKEN_ID_BYTES: usize = 8;

/// What a cluster knows of who may be part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolment {
    /// Who signs certificates; `None` in a cluster of a build before there were any.
    pub authority: Option<Authority>,
    /// The newest number that was given to a process of the control plane. None is given twice.
    pub last_member: u64,
    /// Tokens that were not forgotten yet, used ones among them.
    pub tokens: Vec<JoinToken>,
    /// Certificates that do not count any more, and might otherwise.
    pub revocations: Vec<Revocation>,
    /// Numbers of members that were removed: never used again.
    pub removed_members: Vec<u64>,
    /// Nor is a number below this one that no member has: those that were forgotten in `removed_members`.
    pub removed_members_below: u64,
    /// Whose tokens prove admins; by name.
    pub admin_issuers: Vec<AdminIssuer>,
}

/// Who signs the cluster's certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    /// Its own certificate, as DER.
    pub certificate: Vec<u8>,
    /// AES-256-GCM nonce of `key_sealed`.
    pub key_nonce: [u8; 12],
    /// Its private key (PKCS #8), sealed under the root key.
    pub key_sealed: Vec<u8>,
}

/// The right to join once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Which one.
    pub id: JoinTokenId,
    /// SHA-256 of its secret, which is random and needs no salt.
    pub hash: [u8; 32],
    /// As what.
    pub role: JoinRole,
    /// Until when, in milliseconds since 1970.
    pub expires_at_ms: u64,
    /// Somebody has joined with it.
    pub is_used: bool,
}

/// Names a join token; not secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct JoinTokenId(pub [u8; JOIN_TOKEN_ID_BYTES]);

/// What a join token lets its bearer become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JoinRole {
    /// A process of the control plane.
    ControlPlane,
    /// A node.
    Node {
        /// Of this name, where one is given.
        name: Option<Name>,
        /// What it may hold then.
        labels: Labels,
    },
}

/// What joins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Joiner {
    /// A process of the control plane, to which this number is given: one more than the newest.
    ControlPlane(u64),
    /// A node of this name.
    Node(Name),
}

/// A certificate, or all of a name, that does not count any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// Which.
    pub subject: Revoked,
    /// A name's certificates that end by then are revoked; later ones were issued after the revocation. What is past
    /// is forgotten, for every certificate that it meant has ended. In milliseconds since 1970.
    pub until_ms: u64,
}

/// What is revoked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Revoked {
    /// Every certificate of this name.
    Name(PeerName),
    /// One certificate.
    Serial(Serial),
}

/// A change of who may be part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EnrolmentChange {
    /// Gives the cluster its authority; refused when it has one.
    FoundAuthority(Authority),
    /// Adds a join token.
    PutJoinToken {
        /// The token, unused.
        token: JoinToken,
        /// When, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Uses a join token up.
    UseJoinToken {
        /// Which.
        id: JoinTokenId,
        /// SHA-256 of the secret that was presented.
        hash: [u8; 32],
        /// For whom.
        joiner: Joiner,
        /// When, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Takes certificates back.
    Revoke {
        /// Which.
        revocation: Revocation,
        /// When, in milliseconds since 1970.
        now_ms: u64,
    },
    /// Remembers that a member is removed, before it is.
    RemoveMember(u64),
    /// Believes an issuer of tokens of admins; in place of one of the name.
    PutAdminIssuer(AdminIssuer),
    /// Believes it no more.
    DeleteAdminIssuer(Name),
}

/// The text is no join token's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not the id of a join token")]
pub struct JoinTokenIdError(String);

impl Default for Enrolment {
    /// Of a cluster that was just made: its founder is number 1.
    fn default() -> Enrolment {
        Enrolment {
            authority: None,
            last_member: 1,
            tokens: Vec::new(),
            revocations: Vec::new(),
            removed_members: Vec::new(),
            removed_members_below: 0,
            admin_issuers: Vec::new(),
        }
    }
}

impl fmt::Display for JoinTokenId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl FromStr for JoinTokenId {
    type Err = JoinTokenIdError;

    fn from_str(text: &str) -> Result<JoinTokenId, JoinTokenIdError> {
        let refused = || JoinTokenIdError(text.to_owned());
        let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
        let digits = digits.filter(|digits| digits.len() == 2 * JOIN_TOKEN_ID_BYTES).ok_or_else(refused)?;
        let mut id = [0; JOIN_TOKEN_ID_BYTES];
        for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = u8::try_from(pair[0] * 16 + pair[1]).map_err(|_| refused())?;
        }
        Ok(JoinTokenId(id))
    }
}
