//! The form of a token: three parts, of which the last signs the first two (RFC 7515, compact).
//!
//! Always holds: what is here was read and not believed yet. Keys that a token brings along or points to are not looked at.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::algorithm::Algorithm;
use crate::json;
use crate::rules::TokenError;

/// Longest token in bytes. Those of providers that list a person's groups have a few thousand; headers of a request end here.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Longest id of a key in bytes. Digests in hexadecimal and URLs are shorter.
const KEY_ID_BYTES_MAX: usize = 256;

/// A token that was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Compact<'t> {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_id: Option<String>,
    pub(crate) kind: Option<String>,
    /// What is signed.
    pub(crate) signed: &'t [u8],
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
}

impl<'t> Compact<'t> {
    /// Reads a token. Nothing of it counts before [`crate::Rules::check`].
    pub fn parse(token: &'t str) -> Result<Compact<'t>, TokenError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        let parts: Vec<&str> = token.splitn(6, '.').collect();
        let [header, payload, signature] = parts[..] else {
            return Err(if parts.len() == 5 { TokenError::Encrypted } else { TokenError::Form });
        };
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| TokenError::Form);
        let signed = &token.as_bytes()[..header.len() + 1 + payload.len()];
        let (payload, signature) = (decode(payload)?, decode(signature)?);
        let header = json::object(&decode(header)?).ok_or(TokenError::Header)?;
        // What has to be understood, and is not: no extension is.
        if header.contains_key("crit") {
            return Err(TokenError::Critical);
        }
        let text = |name: &str| match header.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.clone())),
            Some(_) => Err(TokenError::Header),
        };
        let algorithm = text("alg")?.ok_or(TokenError::Header)?;
        let algorithm = algorithm.parse().map_err(|_| TokenError::Algorithm)?;
        let key_id = text("kid")?;
        if key_id.as_ref().is_some_and(|id| id.len() > KEY_ID_BYTES_MAX) {
            return Err(TokenError::Header);
        }
        let kind = text("typ")?.map(|kind| {
            let kind = kind.to_ascii_lowercase();
            // RFC 7515, 4.1.9: what has no other slash may leave this out.
            kind.strip_prefix("application/").map_or(kind.clone(), str::to_owned)
        });
        Ok(Compact { algorithm, key_id, kind, signed, payload, signature })
    }

    /// Whose it says it is: only to find out whom to ask, for nobody has signed that yet.
    pub fn claimed_issuer(&self) -> Option<String> {
        match json::object(&self.payload)?.remove("iss")? {
            Value::String(issuer) => Some(issuer),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Compact<'_> {
    /// Whoever has all of it has the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Compact").field("algorithm", &self.algorithm).finish_non_exhaustive()
    }
}
