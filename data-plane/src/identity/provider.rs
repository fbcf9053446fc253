//! A provider, compiled: whether it issued a token, and what its claims mean.
//!
//! Always holds: nothing of a token is used before it was verified (`gantry-token`); what is read of it is bounded. Where the
//! claim for the user and the subject are the client itself, the client acts for nobody (RFC 9068, 2.2).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gantry_model::resource::{IssuerSpec, SUBJECT_BYTES_MAX};
use gantry_model::{ProviderName, UserId};
use gantry_token::{
    Algorithm, Binding, ClaimPath, Claims, KeySet, KeysError, Rules, TokenError, Trusted, VerifyError,
};
use serde_json::Value;

use super::keepers::{Keepers, Kept};
use super::{Identity, Told};

/// Actors of a token that was exchanged several times; what is beyond is not recorded.
const ACTORS_MAX: usize = 8;
/// Groups, scopes or values of one tag that are looked at.
const LIST_MAX: usize = 256;

/// A provider, ready for tokens.
pub(crate) struct Provider {
    pub(crate) name: ProviderName,
    spec: IssuerSpec,
    algorithms: BTreeSet<Algorithm>,
    agent: Vec<ClaimPath>,
    user: Vec<ClaimPath>,
    groups: Vec<ClaimPath>,
    scopes: Vec<ClaimPath>,
    tags: Vec<(String, ClaimPath)>,
    /// `None`: they cannot be fetched, which the log says.
    kept: Option<Arc<Kept>>,
}

/// Why a token does not say who calls.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum IdentifyError {
    /// What is wrong with it.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// It may be good, and nobody can tell now.
    #[error("the keys of the token's provider cannot be had at this moment")]
    Keys,
    /// Its provider has no audience, and neither has the endpoint.
    #[error(
        "no token can be for this endpoint: its tenant has no `public_url`, and the provider no `audiences`"
    )]
    NoAudience,
    /// It is nobody's.
    #[error("the token does not say which client has it, in at most {SUBJECT_BYTES_MAX} bytes")]
    NoClient,
    /// The user cannot be named.
    #[error(
        "the token's word for its user is longer than {SUBJECT_BYTES_MAX} bytes, or has control characters"
    )]
    User,
}

impl Provider {
    pub(crate) fn compile(name: ProviderName, spec: IssuerSpec, keepers: &Keepers) -> Provider {
        // What does not parse was refused where it was written, and is believed in nothing here.
        let paths = |texts: &[String]| texts.iter().filter_map(|text| text.parse().ok()).collect();
        let claims = &spec.claims;
        let tags = claims.tags.iter().filter_map(|(tag, claim)| Some((tag.clone(), claim.parse().ok()?)));
        let kept = keepers.of(&spec).map_err(|error| {
            tracing::error!(provider = %name, issuer = spec.issuer, %error, "no token of a provider can be taken");
        });
        Provider {
            algorithms: spec.algorithms.iter().filter_map(|name| name.parse().ok()).collect(),
            agent: paths(&claims.agent),
            user: paths(&claims.user),
            groups: paths(&claims.groups),
            scopes: paths(&claims.scopes),
            tags: tags.collect(),
            kept: kept.ok(),
            name,
            spec,
        }
    }

    /// Whether it is the provider of this specification.
    pub(crate) fn is(&self, spec: &IssuerSpec) -> bool {
        self.spec == *spec && self.kept.is_some()
    }

    /// How it calls itself.
    pub(crate) fn issuer(&self) -> &str {
        &self.spec.issuer
    }

    /// The keys that are known, and not too old.
    pub(crate) fn keys_at_hand(&self) -> Option<Arc<KeySet>> {
        self.kept.as_ref()?.keys.at_hand()
    }

    /// What a token says at `now`, for an endpoint of this audience, and the keys by which it was verified where those are
    /// the newest. Waits for keys where the token's is not known and may be fetched. Dropping the future is safe.
    pub(crate) async fn identify(
        &self,
        token: &str,
        audience: Option<&str>,
        now: SystemTime,
    ) -> Result<(Identity, Option<Arc<KeySet>>), IdentifyError> {
        let kept = self.kept.as_ref().ok_or(IdentifyError::Keys)?;
        let rules = self.rules(audience)?;
        let before = kept.keys.at_hand();
        let trusted = gantry_token::Provider::new(rules, kept.keys.clone());
        let claims = match trusted.verify_at_once(token, now) {
            Some(verified) => verified?,
            None => {
                let Ok(_place) = kept.waiting.try_acquire() else { return Err(IdentifyError::Keys) };
                trusted.verify(token, now).await.map_err(|error| match error {
                    VerifyError::Token(error) => IdentifyError::Token(error),
                    VerifyError::Keys(error) => self.no_keys(&error),
                })?
            }
        };
        let after = kept.keys.at_hand();
        let is_same = matches!((&before, &after), (Some(before), Some(after)) if Arc::ptr_eq(before, after));
        Ok((self.read(&claims)?, after.filter(|_| is_same)))
    }

    /// Takes all places of those who wait for its keys.
    #[cfg(test)]
    pub(super) fn take_places(&self) -> Option<tokio::sync::SemaphorePermit<'_>> {
        self.kept.as_ref()?.waiting.try_acquire_many(super::keepers::WAITING_MAX as u32).ok()
    }

    /// How many callers wait for its keys.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        let free = self.kept.as_ref().map_or(0, |kept| kept.waiting.available_permits());
        super::keepers::WAITING_MAX - free
    }

    fn no_keys(&self, error: &KeysError) -> IdentifyError {
        tracing::debug!(provider = %self.name, %error, "a token cannot be verified");
        IdentifyError::Keys
    }

    fn rules(&self, audience: Option<&str>) -> Result<Rules, IdentifyError> {
        let audiences = match self.spec.audiences.is_empty() {
            true => audience.map(str::to_owned).into_iter().collect(),
            false => self.spec.audiences.clone(),
        };
        let trusted = Trusted {
            issuer: self.spec.issuer.clone(),
            audiences,
            algorithms: self.algorithms.clone(),
            authorized_party: None,
            skew: Duration::from_secs(self.spec.clock_skew_seconds.into()),
            age_max: None,
            binding: Binding::Certificate,
        };
        Rules::new(trusted).map_err(|_| IdentifyError::NoAudience)
    }

    fn read(&self, claims: &Claims) -> Result<Identity, IdentifyError> {
        let first = |paths: &[ClaimPath]| {
            let found = paths.iter().find_map(|path| claims.text(path).filter(|text| !text.is_empty()));
            found.map(str::to_owned)
        };
        let client = first(&self.agent).filter(|client| client.len() <= SUBJECT_BYTES_MAX);
        let client = client.ok_or(IdentifyError::NoClient)?;
        // Elsewhere people may choose their word, and must not become nobody by choosing the client's.
        let is_client = "sub".parse().is_ok_and(|path: ClaimPath| claims.text(&path) == Some(&client));
        let user = first(&self.user).filter(|user| !is_client || *user != client);
        let user = user.map(|user| UserId::new(self.name.clone(), &user)).transpose();
        let list = |path: &ClaimPath| -> BTreeSet<String> {
            claims.texts(path).into_iter().take(LIST_MAX).map(str::to_owned).collect()
        };
        let of_first = |paths: &[ClaimPath]| paths.iter().map(list).find(|found| !found.is_empty());
        let scopes = of_first(&self.scopes).unwrap_or_default();
        let scopes = scopes.iter().flat_map(|text| text.split_ascii_whitespace()).take(LIST_MAX);
        let tags = self.tags.iter().map(|(tag, path)| (tag.clone(), list(path)));
        Ok(Identity {
            provider: self.name.clone(),
            client,
            user: user.map_err(|_| IdentifyError::User)?,
            actors: actors(claims),
            groups: of_first(&self.groups).unwrap_or_default(),
            scopes: scopes.map(str::to_owned).collect(),
            tags: tags.filter(|(_, values)| !values.is_empty()).collect::<BTreeMap<_, _>>(),
            ends_at: claims.expires_at().saturating_add(self.spec.clock_skew_seconds.into()),
            bound_to: claims.bound_to(),
            told: Told::default(),
        })
    }
}

/// Who acts: the claim `act`, and those within it (RFC 8693, 4.1).
fn actors(claims: &Claims) -> Vec<String> {
    let named = |actor: &Value| {
        let word = actor.get("sub").or_else(|| actor.get("client_id"))?.as_str()?;
        Some(word.chars().filter(|character| !character.is_control()).take(SUBJECT_BYTES_MAX).collect())
    };
    let outermost = "act".parse().ok().and_then(|path: ClaimPath| claims.at(&path));
    let chain = std::iter::successors(outermost, |actor| actor.get("act"));
    chain.take(ACTORS_MAX).filter_map(named).collect()
}
