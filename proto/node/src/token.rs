//! Join tokens, as they are handed from an admin to a process that is to join.
//!
//! Always holds: the text is a secret, and is shown by nothing. It names the cluster and the fingerprint of its
//! authority, so that a joiner gives it to nobody else.

use std::fmt;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use gantry_model::Secret;
use gantry_model::enrolment::{JOIN_TOKEN_ID_BYTES, JoinTokenId};

use crate::identity::ClusterId;
use crate::tls::Fingerprint;

/// Random bytes of a token's secret.
pub const JOIN_SECRET_BYTES: usize = 32;

const PREFIX: &str = "gantry-join-1.";
const FINGERPRINT_BYTES: usize = 32;
const HEAD_BYTES: usize = JOIN_TOKEN_ID_BYTES + JOIN_SECRET_BYTES + FINGERPRINT_BYTES;

/// The right to join a cluster once.
#[derive(Debug, Clone)]
pub struct JoinToken {
    /// Which cluster.
    pub cluster: ClusterId,
    /// Which token of it.
    pub id: JoinTokenId,
    /// What proves that one has it.
    pub secret: Secret<[u8; JOIN_SECRET_BYTES]>,
    /// By what the cluster is known.
    pub authority: Fingerprint,
}

/// The text is no join token. It is not repeated here: it may be one with a slip.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JoinTokenError;

impl JoinToken {
    /// The text that is handed over.
    pub fn encode(&self) -> Secret<String> {
        let mut bytes = self.id.0.to_vec();
        bytes.extend_from_slice(self.secret.expose());
        bytes.extend_from_slice(&self.authority.0);
        bytes.extend_from_slice(self.cluster.as_str().as_bytes());
        let bytes = Secret::new(bytes);
        Secret::new(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bytes.expose())))
    }

    /// Reads the text; white space around it does not count.
    pub fn parse(text: &str) -> Result<JoinToken, JoinTokenError> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(JoinTokenError)?;
        let bytes = Secret::new(BASE64_URL_SAFE_NO_PAD.decode(encoded).map_err(|_| JoinTokenError)?);
        let (head, cluster) = bytes.expose().split_at_checked(HEAD_BYTES).ok_or(JoinTokenError)?;
        let (id, rest) = head.split_at(JOIN_TOKEN_ID_BYTES);
        let (secret, authority) = rest.split_at(JOIN_SECRET_BYTES);
        let cluster = std::str::from_utf8(cluster).map_err(|_| JoinTokenError)?;
        Ok(JoinToken {
            cluster: cluster.parse().map_err(|_| JoinTokenError)?,
            id: JoinTokenId(id.try_into().map_err(|_| JoinTokenError)?),
            secret: Secret::new(secret.try_into().map_err(|_| JoinTokenError)?),
            authority: Fingerprint(authority.try_into().map_err(|_| JoinTokenError)?),
        })
    }
}

impl fmt::Display for JoinTokenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not a join token, which begins with {PREFIX}")
    }
}

impl std::error::Error for JoinTokenError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_reads_back_as_it_was_written_and_no_slip_of_it_does() -> Result<(), Box<dyn std::error::Error>>
    {
        let token = JoinToken {
            cluster: "abcd".parse()?,
            id: JoinTokenId([1; 8]),
            secret: Secret::new([2; 32]),
            authority: Fingerprint([3; 32]),
        };
        let text = token.encode();
        let read = JoinToken::parse(&format!("  {}\n", text.expose()))?;
        assert_eq!(
            (read.cluster, read.id, read.authority),
            (token.cluster.clone(), token.id, token.authority)
        );
        assert_eq!(read.secret.expose(), token.secret.expose());
        for slip in [
            "",
            "gantry-join-1.",
            &text.expose()[1..],
            &text.expose()[..100],
            &text.expose().replace('.', ""),
        ] {
            assert_eq!(JoinToken::parse(slip).err(), Some(JoinTokenError), "{slip}");
        }
        assert!(!format!("{token:?}").contains('2'), "the secret is not shown");
        Ok(())
    }
}
