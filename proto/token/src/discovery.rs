//! Where a provider has what: its metadata (OpenID Connect Discovery 1.0, RFC 8414).
//!
//! Always holds: metadata is believed only where it says that it is of the issuer who was asked, exactly.

use serde_json::Value;
use url::Url;

use crate::fetch::{FetchError, Fetcher};
use crate::json;

/// Where a provider has what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// Its keys.
    pub jwks_uri: Url,
    /// Where somebody is sent to log in.
    pub authorization_endpoint: Option<Url>,
    /// Where a machine without a browser begins (RFC 8628).
    pub device_authorization_endpoint: Option<Url>,
    /// Where tokens are given out.
    pub token_endpoint: Option<Url>,
}

/// Why it is not known.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// It is no URL, or one with a query.
    #[error("the issuer is no URL of https without query and fragment")]
    Issuer,
    /// There is none.
    #[error("the issuer's metadata cannot be had")]
    Fetch(#[from] FetchError),
    /// It is something else.
    #[error("the issuer's metadata cannot be read: {0} is missing or no URL")]
    Form(&'static str),
    /// Of somebody else.
    #[error("the metadata is that of another issuer")]
    OtherIssuer,
}

/// Asks an issuer where it has what.
pub async fn discover(fetcher: &Fetcher, issuer: &str) -> Result<Metadata, DiscoveryError> {
    let [openid, oauth] = places(issuer).ok_or(DiscoveryError::Issuer)?;
    let answer = match fetcher.get(&openid).await {
        // It may be one of OAuth alone.
        Err(FetchError::Status { .. }) => fetcher.get(&oauth).await?,
        answer => answer?,
    };
    Metadata::parse(&answer, issuer)
}

/// Where the metadata of an issuer may stand.
fn places(issuer: &str) -> Option<[Url; 2]> {
    let url = Url::parse(issuer).ok().filter(|url| url.query().is_none() && url.fragment().is_none())?;
    let path = url.path().trim_end_matches('/').to_owned();
    let at = |path: &str| {
        let mut place = url.clone();
        place.set_path(path);
        place
    };
    Some([
        at(&format!("{path}/.well-known/openid-configuration")),
        at(&format!("/.well-known/oauth-authorization-server{path}")),
    ])
}

impl Metadata {
    fn parse(bytes: &[u8], issuer: &str) -> Result<Metadata, DiscoveryError> {
        let document = json::object(bytes).ok_or(DiscoveryError::Form("a JSON object"))?;
        let url = |name: &'static str| match document.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(url) => {
                let url = url.as_str().and_then(|url| Url::parse(url).ok());
                url.map(Some).ok_or(DiscoveryError::Form(name))
            }
        };
        if document.get("issuer").and_then(Value::as_str) != Some(issuer) {
            return Err(DiscoveryError::OtherIssuer);
        }
        Ok(Metadata {
            jwks_uri: url("jwks_uri")?.ok_or(DiscoveryError::Form("jwks_uri"))?,
            authorization_endpoint: url("authorization_endpoint")?,
            device_authorization_endpoint: url("device_authorization_endpoint")?,
            token_endpoint: url("token_endpoint")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_stands_where_both_standards_say() {
        let texts = |issuer| places(issuer).map(|places| places.map(String::from));
        let [openid, oauth] = texts("https://id.example.com/t/1").expect("places");
        assert_eq!(openid, "https://id.example.com/t/1/.well-known/openid-configuration");
        assert_eq!(oauth, "https://id.example.com/.well-known/oauth-authorization-server/t/1");
        let [openid, oauth] = texts("https://id.example.com/").expect("places");
        assert_eq!(openid, "https://id.example.com/.well-known/openid-configuration");
        assert_eq!(oauth, "https://id.example.com/.well-known/oauth-authorization-server");
        for none in ["id.example.com", "https://a/?b", "https://a/#b", ""] {
            assert_eq!(texts(none), None, "{none}");
        }
    }

    #[test]
    fn metadata_of_another_issuer_or_without_keys_is_refused() {
        let parse =
            |text: &str| Metadata::parse(text.as_bytes(), "https://a").map_err(|error| error.to_string());
        let whole =
            parse(r#"{"issuer":"https://a","jwks_uri":"https://b/k","token_endpoint":"https://b/t"}"#);
        let expected = Metadata {
            jwks_uri: "https://b/k".parse().expect("a URL"),
            authorization_endpoint: None,
            device_authorization_endpoint: None,
            token_endpoint: Some("https://b/t".parse().expect("a URL")),
        };
        assert_eq!(whole, Ok(expected));
        let other = Err("the metadata is that of another issuer".to_owned());
        assert_eq!(parse(r#"{"issuer":"https://a/","jwks_uri":"https://b/k"}"#), other);
        assert_eq!(parse(r#"{"jwks_uri":"https://b/k"}"#), other);
        for (text, what) in [
            ("[]", "a JSON object"),
            (r#"{"issuer":"https://a"}"#, "jwks_uri"),
            (r#"{"issuer":"https://a","jwks_uri":"https://b/k","token_endpoint":1}"#, "token_endpoint"),
        ] {
            let told = format!("the issuer's metadata cannot be read: {what} is missing or no URL");
            assert_eq!(parse(text), Err(told));
        }
    }
}
