//! Tokens that count only with a key of whoever shows them (`cnf`, RFC 7800).
//!
//! Always holds: a token that says so is never taken as one that counts for everybody who has it. Understood is the one form
//! that needs nothing but the connection: the client's certificate (`x5t#S256`, RFC 8705, 3.1). What is bound in another way
//! as well, such as by DPoP (`jkt`, RFC 9449), is refused: half a proof is none.

use std::fmt;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::rules::TokenError;

/// SHA-256 of a certificate's DER.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thumbprint([u8; 32]);

/// What whoever trusts a provider does about tokens that are bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Binding {
    /// Takes none.
    #[default]
    Refused,
    /// Compares the certificate of the connection.
    Certificate,
}

impl Thumbprint {
    /// Of a certificate.
    pub fn of(der: &[u8]) -> Thumbprint {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, der).as_ref());
        Thumbprint(bytes)
    }
}

impl fmt::Display for Thumbprint {
    /// As it stands in tokens.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&URL_SAFE_NO_PAD.encode(self.0))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Thumbprint({self})")
    }
}

impl Binding {
    /// What a token is bound to by its claim `cnf`.
    pub(crate) fn of(self, confirmation: Option<&Value>) -> Result<Option<Thumbprint>, TokenError> {
        let Some(confirmation) = confirmation else { return Ok(None) };
        let members =
            confirmation.as_object().filter(|members| members.len() == 1 && self == Binding::Certificate);
        let encoded = members.and_then(|members| members.get("x5t#S256")?.as_str());
        let bytes = encoded.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok());
        bytes.map(|bytes| Some(Thumbprint(bytes))).ok_or(TokenError::Binding)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_bound_to_a_certificate_or_to_nothing_or_refused() {
        let certificate = Thumbprint::of(b"certificate");
        let text = certificate.to_string();
        let bound = |confirmation: Value| Binding::Certificate.of(Some(&confirmation));
        assert_eq!(Binding::Refused.of(None), Ok(None));
        assert_eq!(bound(json!({"x5t#S256": text})), Ok(Some(certificate)));
        for refused in [
            json!({}),
            json!(null),
            json!("x"),
            json!({"jkt": text}),
            json!({"x5t#S256": text, "jkt": text}),
            json!({"x5t": text}),
            json!({"x5t#S256": &text[1..]}),
            json!({"x5t#S256": [text]}),
            json!({"jwk": {"kty": "EC"}}),
        ] {
            assert_eq!(bound(refused.clone()), Err(TokenError::Binding), "{refused}");
        }
        let alone = Binding::Refused.of(Some(&json!({"x5t#S256": text})));
        assert_eq!(alone, Err(TokenError::Binding), "where nobody looks at certificates");
    }
}
