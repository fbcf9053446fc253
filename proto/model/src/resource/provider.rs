//! Providers: issuers of tokens, and authorities of certificates, by which agents prove who they are.
//!
//! Always holds: an issuer is reached over https, or over plain http on this machine; its algorithms have public keys;
//! every claim that is read is named. Which agent a proof means is said by the agents ([`AgentIdentity`]), never by the
//! proof alone: a name that policies, limits and revocations go by is not for an issuer to invent.
//!
//! The signatures themselves are `gantry-token`'s, and those of certificates `gantry-node`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::check::error;
use super::{AuthoritySpec, LIST_MAX, SpecError};
use crate::name::{Name, NameError, ProviderName};

/// Providers of a tenant: each has its keys fetched by every node that has the tenant.
pub const PROVIDERS_MAX: usize = 16;
/// Longest URL of a provider, and longest claim's name, in bytes.
pub const PROVIDER_TEXT_BYTES_MAX: usize = 256;
/// Claims that are tried one after the other.
pub const CLAIM_PATHS_MAX: usize = 8;
/// Claims that are handed to policies.
pub const CLAIM_TAGS_MAX: usize = 16;
/// Furthest that clocks may be apart, in seconds.
pub const CLOCK_SKEW_SECONDS_MAX: u32 = 300;
/// How far they may be when nothing is said.
pub const CLOCK_SKEW_SECONDS_DEFAULT: u32 = 60;
/// Longest word of a provider for somebody, in bytes (OpenID Connect Core, 2).
pub const SUBJECT_BYTES_MAX: usize = 255;
/// What providers sign with (RFC 7518, RFC 8037).
pub const SIGNATURE_ALGORITHMS: [&str; 9] =
    ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

/// Whose word counts for who calls. A document with `client_authorities` is of the second form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum ProviderSpec {
    /// An issuer of tokens.
    Issuer(IssuerSpec),
    /// Authorities whose certificates agents show in the handshake of TLS.
    Authority(AuthoritySpec),
}

/// An issuer of tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IssuerSpec {
    /// Its URL, exactly as it calls itself in `iss`.
    pub issuer: String,
    /// Where its keys are; `None`: where its metadata says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwks_url: Option<String>,
    /// With what it signs, of [`SIGNATURE_ALGORITHMS`].
    #[serde(default = "algorithms_default")]
    pub algorithms: BTreeSet<String>,
    /// For whom a token has to be: one of these; empty: for the endpoint that is asked, by its public URL.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub audiences: BTreeSet<String>,
    /// How far its clock may be from a node's: at most [`CLOCK_SKEW_SECONDS_MAX`].
    #[serde(default = "clock_skew_default")]
    pub clock_skew_seconds: u32,
    /// Which claims say what.
    #[serde(default, skip_serializing_if = "ProviderClaims::is_default")]
    pub claims: ProviderClaims,
}

/// Which claims say what. A claim is its name, or a JSON pointer (`/realm_access/roles`); of several the first that is there
/// counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProviderClaims {
    /// Which client has the token: what agents name as `client`.
    pub agent: Vec<String>,
    /// For whom it acts. Where that is the client itself, it acts for nobody.
    pub user: Vec<String>,
    /// In which groups that user is.
    pub groups: Vec<String>,
    /// What the token is for: a text with spaces between, or a list.
    pub scopes: Vec<String>,
    /// What policies may ask for besides, by the name that they ask for it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
}

/// What an agent is called by a provider.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentIdentity {
    /// Which provider.
    pub provider: ProviderName,
    /// What the provider calls it; `None`: whatever no other agent is called there, such as clients that register
    /// themselves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
}

/// Somebody for whom an agent acts: a provider, and its word for him. `PROVIDER/SUBJECT` as text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UserId {
    provider: ProviderName,
    subject: String,
}

/// The text names no user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UserIdError {
    /// Nobody is of no provider.
    #[error("a user is PROVIDER/SUBJECT, as `gantry audit tail -o json` shows it")]
    NoProvider,
    /// The provider.
    #[error("the provider: {0}")]
    Provider(#[from] NameError),
    /// The subject.
    #[error("a subject has 1 to {SUBJECT_BYTES_MAX} bytes and no control characters")]
    Subject,
}

impl UserId {
    /// A user of a provider, by its word for him.
    pub fn new(provider: ProviderName, subject: &str) -> Result<UserId, UserIdError> {
        let is_one =
            (1..=SUBJECT_BYTES_MAX).contains(&subject.len()) && !subject.chars().any(char::is_control);
        if is_one { Ok(UserId { provider, subject: subject.to_owned() }) } else { Err(UserIdError::Subject) }
    }

    /// Whose word it is.
    pub fn provider(&self) -> &ProviderName {
        &self.provider
    }
}

impl TryFrom<String> for UserId {
    type Error = UserIdError;

    fn try_from(text: String) -> Result<UserId, UserIdError> {
        text.parse()
    }
}

impl From<UserId> for String {
    fn from(user: UserId) -> String {
        user.to_string()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.provider, self.subject)
    }
}

impl FromStr for UserId {
    type Err = UserIdError;

    fn from_str(text: &str) -> Result<UserId, UserIdError> {
        // No provider's name has a `/`.
        let (provider, subject) = text.split_once('/').ok_or(UserIdError::NoProvider)?;
        UserId::new(provider.parse::<Name>()?.into(), subject)
    }
}

impl Default for ProviderClaims {
    fn default() -> ProviderClaims {
        let paths = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        ProviderClaims {
            agent: paths(&["client_id", "azp"]),
            user: paths(&["sub"]),
            groups: paths(&["groups"]),
            scopes: paths(&["scope", "scp"]),
            tags: BTreeMap::new(),
        }
    }
}

impl ProviderClaims {
    fn is_default(&self) -> bool {
        *self == ProviderClaims::default()
    }

    fn check(&self) -> Result<(), SpecError> {
        let lists = [
            ("claims.agent", &self.agent),
            ("claims.user", &self.user),
            ("claims.groups", &self.groups),
            ("claims.scopes", &self.scopes),
        ];
        for (path, claims) in lists {
            if claims.len() > CLAIM_PATHS_MAX {
                return Err(error(path, format!("has more than {CLAIM_PATHS_MAX} elements")));
            }
            if let Some(index) = claims.iter().position(|claim| !is_claim(claim)) {
                return Err(error(format!("{path}[{index}]"), CLAIM));
            }
        }
        if self.agent.is_empty() {
            return Err(error("claims.agent", "is empty; a token has to say which client has it"));
        }
        if self.tags.len() > CLAIM_TAGS_MAX {
            return Err(error("claims.tags", format!("has more than {CLAIM_TAGS_MAX} elements")));
        }
        match self.tags.iter().find(|(name, claim)| name.is_empty() || !is_claim(name) || !is_claim(claim)) {
            Some((name, _)) => Err(error(format!("claims.tags.{name}"), CLAIM)),
            None => Ok(()),
        }
    }
}

const CLAIM: &str =
    "a claim is a name, or a JSON pointer such as /realm_access/roles, of 1 to 256 characters";

fn is_claim(claim: &str) -> bool {
    let bounds = 1..=PROVIDER_TEXT_BYTES_MAX;
    bounds.contains(&claim.len()) && claim != "/" && !claim.chars().any(char::is_control)
}

impl ProviderSpec {
    pub(super) fn check(&self) -> Result<(), SpecError> {
        match self {
            ProviderSpec::Issuer(spec) => spec.check(),
            ProviderSpec::Authority(spec) => spec.check(),
        }
    }
}

impl IssuerSpec {
    /// Where its keys are asked for: at its own address, or at its metadata.
    pub fn is_plain(&self) -> bool {
        [Some(&self.issuer), self.jwks_url.as_ref()].into_iter().flatten().any(|url| url.starts_with("http:"))
    }

    fn check(&self) -> Result<(), SpecError> {
        check_url("issuer", &self.issuer)?;
        if let Some(url) = &self.jwks_url {
            check_url("jwks_url", url)?;
        }
        if self.algorithms.is_empty() {
            return Err(error("algorithms", "is empty; name what it signs with"));
        }
        if let Some(unknown) =
            self.algorithms.iter().find(|name| !SIGNATURE_ALGORITHMS.contains(&name.as_str()))
        {
            let known = SIGNATURE_ALGORITHMS.join(", ");
            return Err(error("algorithms", format!("{unknown:?} is none of {known}")));
        }
        if self.audiences.len() > LIST_MAX {
            return Err(error("audiences", format!("has more than {LIST_MAX} elements")));
        }
        let is_text = |text: &String| (1..=PROVIDER_TEXT_BYTES_MAX).contains(&text.len());
        if !self.audiences.iter().all(is_text) {
            let message = format!("an audience has 1 to {PROVIDER_TEXT_BYTES_MAX} bytes");
            return Err(error("audiences", message));
        }
        if self.clock_skew_seconds > CLOCK_SKEW_SECONDS_MAX {
            return Err(error("clock_skew_seconds", format!("must be at most {CLOCK_SKEW_SECONDS_MAX}")));
        }
        self.claims.check()
    }
}

impl AgentIdentity {
    pub(super) fn check(&self, index: usize) -> Result<(), SpecError> {
        match &self.client {
            Some(client) if !(1..=SUBJECT_BYTES_MAX).contains(&client.len()) => {
                let message = format!("must have 1 to {SUBJECT_BYTES_MAX} bytes");
                Err(error(format!("identities[{index}].client"), message))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a URL may be asked for what callers are believed by.
fn check_url(path: &'static str, text: &str) -> Result<(), SpecError> {
    if text.len() > PROVIDER_TEXT_BYTES_MAX {
        return Err(error(path, format!("has more than {PROVIDER_TEXT_BYTES_MAX} bytes")));
    }
    let url: Url = text.parse().map_err(|problem: url::ParseError| error(path, problem.to_string()))?;
    let is_secure = match url.scheme() {
        "https" => true,
        "http" => is_loopback(&url),
        _ => false,
    };
    if !is_secure || url.host_str().is_none() {
        return Err(error(path, "must be https (or http on loopback, for tests)"));
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(error(path, "may have neither a user nor a fragment"));
    }
    Ok(())
}

/// Whether a URL is of this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => IpAddr::from(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::from(address).is_loopback(),
        None => false,
    }
}

fn algorithms_default() -> BTreeSet<String> {
    BTreeSet::from(["RS256".to_owned()])
}

fn clock_skew_default() -> u32 {
    CLOCK_SKEW_SECONDS_DEFAULT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_a_provider_and_its_word_for_him() -> Result<(), UserIdError> {
        let user: UserId = "corp/auth0|7/x".parse()?;
        assert_eq!((user.provider().as_str(), user.to_string().as_str()), ("corp", "corp/auth0|7/x"));
        assert_eq!("ann".parse::<UserId>(), Err(UserIdError::NoProvider));
        assert_eq!("corp/".parse::<UserId>(), Err(UserIdError::Subject));
        assert_eq!("corp/a\nb".parse::<UserId>(), Err(UserIdError::Subject));
        assert_eq!(format!("corp/{}", "x".repeat(256)).parse::<UserId>(), Err(UserIdError::Subject));
        assert!(matches!("Corp/ann".parse::<UserId>(), Err(UserIdError::Provider(_))));
        Ok(())
    }

    #[test]
    fn a_refused_provider_names_the_place() {
        let path = |change: (&str, serde_json::Value)| {
            let mut spec = serde_json::json!({"issuer": "https://id.example.com"});
            spec[change.0] = change.1;
            let spec: IssuerSpec = serde_json::from_value(spec).expect("a specification");
            spec.check().map_err(|error| error.path.into_owned())
        };
        use serde_json::json;
        assert_eq!(path(("issuer", json!("http://localhost:9000/realm"))), Ok(()));
        assert_eq!(path(("claims", json!({"agent": ["/act/sub", "client_id"]}))), Ok(()));
        for (field, value, refused) in [
            ("issuer", json!("http://id.example.com"), "issuer"),
            ("issuer", json!("https://ann@id.example.com"), "issuer"),
            ("issuer", json!("id.example.com"), "issuer"),
            ("jwks_url", json!("http://10.0.0.1/keys"), "jwks_url"),
            ("jwks_url", json!("file:///keys"), "jwks_url"),
            ("algorithms", json!([]), "algorithms"),
            ("algorithms", json!(["HS256"]), "algorithms"),
            ("algorithms", json!(["none"]), "algorithms"),
            ("audiences", json!([""]), "audiences"),
            ("clock_skew_seconds", json!(301), "clock_skew_seconds"),
            ("claims", json!({"agent": []}), "claims.agent"),
            ("claims", json!({"user": ["sub", "/"]}), "claims.user[1]"),
            ("claims", json!({"tags": {"x": ""}}), "claims.tags.x"),
        ] {
            assert_eq!(path((field, value.clone())), Err(refused.to_owned()), "{field}: {value}");
        }
    }
}
