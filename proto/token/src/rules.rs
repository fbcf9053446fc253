//! What has to be so of a token before it is believed.
//!
//! Always holds: the signature is asked before anything that the token says; issuer, audience and end are asked of every
//! token; the algorithms are those that were named for the provider (RFC 8725).

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value};

use crate::algorithm::Algorithm;
use crate::binding::Binding;
use crate::claims::Claims;
use crate::compact::Compact;
use crate::json;
use crate::key_set::KeySet;

/// Longest difference of clocks that may be allowed for.
const SKEW_MAX: Duration = Duration::from_secs(5 * 60);
/// What a token may call itself when nothing else is said: nothing, a JWT, or an access token (RFC 9068).
const KINDS: [&str; 2] = ["jwt", "at+jwt"];

/// What is trusted of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Who signs, exactly as it calls itself.
    pub issuer: String,
    /// For whom a token has to be: one of these.
    pub audiences: BTreeSet<String>,
    /// With what it signs.
    pub algorithms: BTreeSet<Algorithm>,
    /// Who has to have asked for it, where it says that (`azp`).
    pub authorized_party: Option<String>,
    /// How far the clocks may be apart; 5 minutes at most.
    pub skew: Duration,
    /// How long ago it may have been issued; `None`: as long as it counts.
    pub age_max: Option<Duration>,
    /// Whether who trusts asks by which certificate a token was shown ([`Claims::bound_to`]). Tokens that count with a
    /// certificate only are refused where nobody asks.
    pub binding: Binding,
}

/// The same, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules(Trusted);

/// Why a provider cannot be trusted so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RulesError {
    /// Any issuer would do.
    #[error("the provider has no issuer")]
    NoIssuer,
    /// A token for anybody would do.
    #[error("the provider has no audience")]
    NoAudience,
    /// Nothing would be verified.
    #[error("the provider has no algorithm")]
    NoAlgorithm,
    /// What has ended would count for long.
    #[error("clocks may be apart by 5 minutes at most")]
    Skew,
}

/// Why a token does not count. No text of the token is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Its size.
    #[error("the token is longer than {} bytes", crate::compact::TOKEN_BYTES_MAX)]
    TooLong,
    /// Its parts.
    #[error("the token is not three parts of base64url with dots between")]
    Form,
    /// JWE.
    #[error("the token is encrypted, and signed ones are expected")]
    Encrypted,
    /// Its header.
    #[error("the header of the token cannot be read")]
    Header,
    /// An extension that has to be understood.
    #[error("the header of the token demands an extension (`crit`), and none is known")]
    Critical,
    /// `none`, one with a shared secret, or another than the provider's.
    #[error("the token is not signed with an algorithm of the provider (`alg`)")]
    Algorithm,
    /// An id token in place of an access token, or the like.
    #[error("the token is of another kind (`typ`)")]
    Kind,
    /// It names no key, and there are several.
    #[error("the token does not say which key has signed it (`kid`), and the provider has several")]
    NoKeyId,
    /// No such key.
    #[error("the provider has no such key as the token names (`kid`)")]
    UnknownKey,
    /// The key is of another kind.
    #[error("the key that the token names is not for its algorithm")]
    OtherKey,
    /// Forged, or damaged.
    #[error("the signature of the token is not good")]
    Signature,
    /// What is signed.
    #[error("what the token says cannot be read")]
    Claims,
    /// Another provider.
    #[error("the token is of another issuer (`iss`)")]
    Issuer,
    /// Somebody else's.
    #[error("the token is for another audience (`aud`)")]
    Audience,
    /// Another client's.
    #[error("the token was issued to another client (`azp`)")]
    AuthorizedParty,
    /// It never ends.
    #[error("the token does not say when it ends (`exp`)")]
    Endless,
    /// It has ended.
    #[error("the token has expired (`exp`)")]
    Expired,
    /// Not yet.
    #[error("the token does not count yet (`nbf`)")]
    Early,
    /// It counts only with a key that is to be proven otherwise (DPoP, RFC 9449), or where nobody looks at certificates.
    #[error(
        "the token counts only together with a key (`cnf`), in a way that is not taken here: it may be bound to a certificate \
         (`x5t#S256`) where certificates are looked at, and to nothing else"
    )]
    Binding,
    /// The clocks differ by more than is allowed for.
    #[error("the token was issued in the future (`iat`)")]
    Future,
    /// Too long ago.
    #[error("the token was issued too long ago, or does not say when (`iat`)")]
    Old,
}

impl Rules {
    /// Refuses what would let anybody in.
    pub fn new(trusted: Trusted) -> Result<Rules, RulesError> {
        if trusted.issuer.is_empty() {
            return Err(RulesError::NoIssuer);
        }
        if trusted.audiences.is_empty() || trusted.audiences.contains("") {
            return Err(RulesError::NoAudience);
        }
        if trusted.algorithms.is_empty() {
            return Err(RulesError::NoAlgorithm);
        }
        if trusted.skew > SKEW_MAX {
            return Err(RulesError::Skew);
        }
        Ok(Rules(trusted))
    }

    /// What is trusted.
    pub fn trusted(&self) -> &Trusted {
        &self.0
    }

    /// Believes a token that one of `keys` has signed and that counts at `now`, and tells what it says.
    pub fn check(&self, token: &Compact<'_>, keys: &KeySet, now: SystemTime) -> Result<Claims, TokenError> {
        if !self.0.algorithms.contains(&token.algorithm) {
            return Err(TokenError::Algorithm);
        }
        if token.kind.as_ref().is_some_and(|kind| !KINDS.contains(&kind.as_str())) {
            return Err(TokenError::Kind);
        }
        keys.verify(token)?;
        let claims = json::object(&token.payload).ok_or(TokenError::Claims)?;
        if claims.get("iss").and_then(Value::as_str) != Some(&self.0.issuer) {
            return Err(TokenError::Issuer);
        }
        if !self.is_for_us(claims.get("aud")) {
            return Err(TokenError::Audience);
        }
        if let (Some(own), Some(party)) = (&self.0.authorized_party, claims.get("azp"))
            && party.as_str() != Some(own)
        {
            return Err(TokenError::AuthorizedParty);
        }
        let expires_at = self.check_times(&claims, now)?;
        let bound_to = self.0.binding.of(claims.get("cnf"))?;
        Ok(Claims::new(claims, expires_at, bound_to))
    }

    fn is_for_us(&self, audience: Option<&Value>) -> bool {
        let is_ours = |audience: &Value| audience.as_str().is_some_and(|one| self.0.audiences.contains(one));
        match audience {
            Some(Value::Array(list)) => list.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        }
    }

    /// When it ends.
    fn check_times(&self, claims: &Map<String, Value>, now: SystemTime) -> Result<u64, TokenError> {
        let at = |name: &str| match claims.get(name) {
            None => Ok(None),
            Some(time) => seconds(time).map(Some).ok_or(TokenError::Claims),
        };
        let (skew, now) =
            (self.0.skew.as_secs(), now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let expires_at = at("exp")?.ok_or(TokenError::Endless)?;
        if expires_at.saturating_add(skew) <= now {
            return Err(TokenError::Expired);
        }
        if at("nbf")?.is_some_and(|begins| begins > now.saturating_add(skew)) {
            return Err(TokenError::Early);
        }
        let issued_at = at("iat")?;
        if issued_at.is_some_and(|issued| issued > now.saturating_add(skew)) {
            return Err(TokenError::Future);
        }
        if let Some(age_max) = self.0.age_max {
            let oldest = now.saturating_sub(age_max.as_secs().saturating_add(skew));
            if issued_at.is_none_or(|issued| issued < oldest) {
                return Err(TokenError::Old);
            }
        }
        Ok(expires_at)
    }
}

/// A time in whole seconds since 1970; providers may write fractions.
fn seconds(time: &Value) -> Option<u64> {
    time.as_u64().or_else(|| {
        let time = time.as_f64().filter(|time| (0.0..1e15).contains(time))?;
        // What is behind the point is cut off: earlier by less than a second.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "it is within the bounds above"
        )]
        Some(time as u64)
    })
}
