//! What a request shows of its caller: which of the forms, and that it is one.
//!
//! Always holds: what is shown twice, in two ways that differ, or in the query is refused; what has no form of a token is tried
//! as a key, and the other way round never. Nothing of it is believed here.

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName};

use crate::pipeline::Shown;
use crate::rejection::Unauthenticated;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
/// What a query may not have: it stands in logs and histories (RFC 6750, 5.3; MCP, authorization).
const QUERY_SECRETS: [&str; 3] = ["access_token=", "api_key=", "x-api-key="];

/// What a request shows of its caller.
#[derive(Clone, Copy)]
pub(super) enum Presented<'a> {
    Nothing,
    /// Said to be a key.
    Key(&'a str),
    /// Said to be a provider's.
    Token(&'a str),
}

/// What a request shows: `Authorization: Bearer KEY` or `TOKEN`, or `X-API-Key: KEY`. No key has a `.`, and no token none.
pub(super) fn presented(shown: Shown<'_>) -> Result<Presented<'_>, Unauthenticated> {
    let is_secret = |pair: &str| {
        QUERY_SECRETS
            .iter()
            .any(|name| pair.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name)))
    };
    if shown.query.is_some_and(|query| query.split('&').any(is_secret)) {
        return Err(Unauthenticated::InQuery);
    }
    let key = only(shown.headers, &API_KEY)?;
    let bearer = only(shown.headers, &AUTHORIZATION)?.map(|text| {
        // RFC 9110, 11.1: the scheme's name has no case.
        let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
        if scheme.eq_ignore_ascii_case("bearer") { token.trim() } else { "" }
    });
    Ok(match (bearer, key) {
        (Some(bearer), Some(key)) if bearer != key => return Err(Unauthenticated::Twice),
        (Some(bearer), _) if bearer.contains('.') => Presented::Token(bearer),
        (Some(key), _) | (None, Some(key)) => Presented::Key(key),
        (None, None) => Presented::Nothing,
    })
}

/// A header that may stand once: of several, somebody between may have looked at another one.
fn only<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, Unauthenticated> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(Unauthenticated::Twice),
        (value, None) => Ok(value.map(|value| value.to_str().unwrap_or_default())),
    }
}
