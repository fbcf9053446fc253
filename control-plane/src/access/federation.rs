//! Admins by tokens of an issuer that the cluster believes (OpenID Connect).
//!
//! Always holds: such an admin is in no record; what he may do is worked out at each call from what his token says and from
//! the rules of that moment, so that a rule or an issuer that is gone gives nothing at once. A token counts for a day at most
//! after it was issued, and not after it ends. He is named by his issuer and a digest of its word for him; that word stands
//! beside it wherever he is named in a record of the audit.
//!
//! A group that somebody has left is seen in his next token: how long that takes is the issuer's choice.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use gantry_control_state::State;
use gantry_model::Name;
use gantry_model::admin::Role;
use gantry_model::admin_issuer::AdminIssuer;
use gantry_token::{
    Binding, Claims, Compact, Fetcher, KeeperSettings, PlainHttp, Provider, Rules, Source, Trusted,
    VerifyError, keep,
};
use tokio::task::{AbortHandle, JoinSet};
use tonic::Status;

use super::identity::{Identity, Proof};
use super::sha256;
use crate::plane::Plane;

/// How far the clocks of this process and of an issuer may be apart.
const SKEW: Duration = Duration::from_secs(60);
/// Longest age of a token: whoever left a group is out within a day, also where an issuer gives tokens for longer.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest word of an issuer for somebody (OpenID Connect Core, 2).
const SUBJECT_BYTES_MAX: usize = 255;
/// Bytes of the digest of that in a name: two of a million admins are called alike once in millions of clusters.
const DIGEST_BYTES: usize = 8;

/// Whose tokens this process believes. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Federation(Arc<ArcSwap<HashMap<String, Member>>>);

/// Somebody by the token of an issuer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Federated {
    /// The issuer, as it is called here.
    pub(crate) issuer: Name,
    /// Its URL.
    url: String,
    /// Its word for him.
    pub(crate) subject: String,
    claims: Claims,
}

#[derive(Debug, Clone)]
struct Member {
    issuer: AdminIssuer,
    provider: Provider,
}

/// Why an issuer cannot be believed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum IssuerError {
    #[error(transparent)]
    Rules(#[from] gantry_token::RulesError),
    #[error(transparent)]
    Algorithm(#[from] gantry_token::UnknownAlgorithm),
    #[error("a rule: {0}")]
    Claim(#[from] gantry_token::ClaimPathError),
    #[error("a rule has no value")]
    NoValue,
    #[error("its URL is not https, and only plain http on loopback may be allowed instead")]
    Plain,
    #[error("its name has more than 40 characters")]
    Name,
    #[error("{0}")]
    Fetcher(#[from] gantry_token::FetcherError),
}

/// Whether an issuer could be believed.
pub(crate) fn check(issuer: &AdminIssuer) -> Result<(), IssuerError> {
    for rule in &issuer.rules {
        rule.claim.parse::<gantry_token::ClaimPath>()?;
        if rule.value.is_empty() {
            return Err(IssuerError::NoValue);
        }
    }
    let is_plain = issuer.is_plain_on_loopback && issuer.issuer.starts_with("http://");
    if !issuer.issuer.starts_with("https://") && !is_plain {
        return Err(IssuerError::Plain);
    }
    if issuer.name.as_str().len() > 40 {
        return Err(IssuerError::Name);
    }
    rules(issuer)?;
    fetcher(issuer)?;
    Ok(())
}

fn rules(issuer: &AdminIssuer) -> Result<Rules, IssuerError> {
    let algorithms = issuer.algorithms.iter().map(|algorithm| algorithm.parse());
    Ok(Rules::new(Trusted {
        issuer: issuer.issuer.clone(),
        audiences: issuer.audiences.iter().cloned().collect(),
        algorithms: algorithms.collect::<Result<_, _>>()?,
        authorized_party: None,
        skew: SKEW,
        age_max: Some(AGE_MAX),
        // Who comes by gRPC shows no certificate of its own.
        binding: Binding::Refused,
    })?)
}

fn fetcher(issuer: &AdminIssuer) -> Result<Fetcher, IssuerError> {
    let plain = if issuer.is_plain_on_loopback { PlainHttp::OnLoopback } else { PlainHttp::Refused };
    let authorities: Vec<_> = issuer.authorities.iter().map(|der| der.as_slice().into()).collect();
    Ok(Fetcher::new(&authorities, plain)?)
}

impl Federation {
    /// Who shows this token; `None`: it is none of an issuer.
    pub(crate) async fn identify(&self, token: &str, state: &State) -> Option<Result<Identity, Status>> {
        // Tokens of our own have no dots.
        let claimed = token.contains('.').then(|| Compact::parse(token))?;
        let refused = |reason: &dyn std::fmt::Display| {
            Err(Status::unauthenticated(format!("{reason}; `gantry login` has another token made")))
        };
        let claimed = match claimed {
            Ok(claimed) => claimed.claimed_issuer().unwrap_or_default(),
            Err(error) => return Some(refused(&error)),
        };
        let member = self.0.load().get(&claimed).cloned();
        // Neither which issuers there are, nor that there is one of this name, is told to strangers.
        let Some(member) = member else {
            return Some(refused(&"the token is of no issuer that is believed here"));
        };
        Some(match member.provider.verify(token, SystemTime::now()).await {
            Ok(claims) => member.identity(claims, state),
            Err(error @ VerifyError::Token(_)) => refused(&error),
            Err(VerifyError::Keys(error)) => {
                tracing::warn!(issuer = %member.issuer.name, %error, "a token of an admin cannot be verified");
                Err(Status::unavailable("the keys of the token's issuer cannot be had here; try again"))
            }
        })
    }
}

impl Member {
    fn identity(&self, claims: Claims, state: &State) -> Result<Identity, Status> {
        let subject = claims.subject().filter(|subject| subject.len() <= SUBJECT_BYTES_MAX);
        let subject =
            subject.ok_or_else(|| Status::unauthenticated("the token does not say whose it is (`sub`)"))?;
        let subject = subject.to_owned();
        let digest: String =
            sha256(subject.as_bytes()).iter().take(DIGEST_BYTES).map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}-{digest}", self.issuer.name).parse();
        let name = name.map_err(|_| Status::internal("an admin by an issuer cannot be named"))?;
        let (issuer, url) = (self.issuer.name.clone(), self.issuer.issuer.clone());
        let federated = Federated { issuer, url, subject, claims };
        federated.roles(state, now())?;
        Ok(Identity { name, proof: Proof::Federated(Box::new(federated)) })
    }
}

impl Federated {
    /// What he may do, by the rules that `state` has; refused when that is nothing, or his token has ended.
    pub(crate) fn roles(&self, state: &State, now: u64) -> Result<Vec<Role>, Status> {
        if self.claims.expires_at() + SKEW.as_secs() <= now {
            return Err(Status::unauthenticated(
                "the token has expired; `gantry login` has another one made",
            ));
        }
        let issuers = state.cluster().map_or(&[][..], |cluster| &cluster.enrolment.admin_issuers);
        let issuer = issuers.iter().find(|issuer| issuer.name == self.issuer && issuer.issuer == self.url);
        let rules = issuer.map_or(&[][..], |issuer| &issuer.rules);
        let gives = |rule: &&gantry_model::admin_issuer::AdminRule| {
            let path = rule.claim.parse().ok();
            path.is_some_and(|path| self.claims.texts(&path).contains(&rule.value.as_str()))
        };
        let mut roles: Vec<Role> = rules.iter().filter(gives).map(|rule| rule.role.clone()).collect();
        roles.sort();
        roles.dedup();
        if roles.is_empty() {
            return Err(Status::unauthenticated(
                "no rule of the token's issuer gives a role for what the token says; ask who may make admins",
            ));
        }
        Ok(roles)
    }

    /// Until when his token counts, in milliseconds since 1970.
    pub(crate) fn expires_at_ms(&self) -> u64 {
        self.claims.expires_at().saturating_mul(1_000)
    }
}

/// Keeps whose tokens are believed as the state says, and their keys; ends with the process.
pub(crate) async fn follow(plane: Arc<Plane>, federation: Federation) {
    let mut newest = plane.consensus.feed().subscribe();
    // Dropped, it ends all of them.
    let (mut keepers, mut running) = (JoinSet::new(), HashMap::<String, AbortHandle>::new());
    loop {
        newest.borrow_and_update();
        let state = plane.consensus.feed().latest().state;
        let issuers = state.cluster().map_or(&[][..], |cluster| &cluster.enrolment.admin_issuers);
        let known = federation.0.load_full();
        let is_same = known.len() == issuers.len()
            && issuers
                .iter()
                .all(|issuer| known.get(&issuer.issuer).is_some_and(|known| known.issuer == *issuer));
        if !is_same {
            let mut believed = HashMap::new();
            for issuer in issuers {
                let member = match known.get(&issuer.issuer).filter(|known| known.issuer == *issuer) {
                    Some(known) => known.clone(),
                    None => match member(issuer, &mut keepers) {
                        Ok((member, handle)) => {
                            if let Some(before) = running.insert(issuer.issuer.clone(), handle) {
                                before.abort();
                            }
                            member
                        }
                        Err(error) => {
                            tracing::error!(issuer = %issuer.name, %error, "an issuer of admins is not believed");
                            continue;
                        }
                    },
                };
                believed.insert(issuer.issuer.clone(), member);
            }
            running.retain(|url, keeper| {
                let stays = believed.contains_key(url);
                if !stays {
                    keeper.abort();
                }
                stays
            });
            federation.0.store(Arc::new(believed));
        }
        tokio::select! {
            () = plane.stop.cancelled() => return,
            // What was aborted.
            Some(_) = keepers.join_next() => {}
            changed = newest.changed() => if changed.is_err() { return },
        }
    }
}

fn member(issuer: &AdminIssuer, keepers: &mut JoinSet<()>) -> Result<(Member, AbortHandle), IssuerError> {
    let source = Source::Issuer(issuer.issuer.clone());
    let (keys, keeper) = keep(fetcher(issuer)?, source, KeeperSettings::default());
    let provider = Provider::new(rules(issuer)?, keys);
    let handle = keepers.spawn(async move {
        keeper.run().await;
    });
    Ok((Member { issuer: issuer.clone(), provider }, handle))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

#[cfg(test)]
mod tests;
