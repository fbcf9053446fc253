//! Who calls by a token or a certificate: what a provider says of a caller, and what that makes of it here.
//!
//! Always holds: an [`Identity`] is made of what was verified ([`provider`], [`certificate`]), or comes from a node of ours that
//! did; the agent is named by an Agent resource, never by what was shown. A principal is an agent and for whom it acts: what
//! belongs to one is not another's, be it the same agent for another user.

pub(crate) mod certificate;
pub(crate) mod keepers;
pub(crate) mod provider;
pub(crate) mod seen;
mod told;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_model::{AgentName, ProviderName, UserId};
use gantry_policy::{ActsFor, Shown};
use gantry_token::Thumbprint;
use serde::{Deserialize, Serialize};

pub(crate) use self::told::Told;

/// What a token or a certificate says of whoever shows it. Nodes tell each other, so its members are never taken away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// Who says so.
    pub(crate) provider: ProviderName,
    /// Its word for the client, by which an agent is found.
    pub(crate) client: String,
    /// For whom the client acts.
    pub(crate) user: Option<UserId>,
    /// Who acts for that user, the last of them first, where the token was exchanged (RFC 8693, `act`).
    pub(crate) actors: Vec<String>,
    pub(crate) groups: BTreeSet<String>,
    pub(crate) scopes: BTreeSet<String>,
    pub(crate) tags: BTreeMap<String, BTreeSet<String>>,
    /// From when on it counts no more, in seconds since 1970.
    pub(crate) ends_at: u64,
    /// The certificate of the only connections that the token counts on (RFC 8705). The node that was shown it asks; `None`: it
    /// counts on all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) bound_to: Option<Thumbprint>,
    /// What records tell of it.
    #[serde(skip)]
    pub(crate) told: Told,
}

impl Identity {
    /// What policies may ask of it.
    pub(crate) fn shown(&self) -> Shown {
        Shown {
            provider: self.provider.clone(),
            user: self.user.clone().map(ActsFor::User),
            groups: self.groups.clone(),
            scopes: self.scopes.clone(),
            tags: self.tags.clone(),
        }
    }
}

/// An agent, and for whom it acts: to whom sessions, tasks and the like belong.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Principal {
    pub(crate) agent: AgentName,
    pub(crate) user: Option<UserId>,
}

impl Principal {
    /// The same as one text. Names of agents and providers have no `/`, so no two are alike.
    pub(crate) fn id(&self) -> Arc<str> {
        match &self.user {
            None => self.agent.as_str().into(),
            Some(user) => format!("{}/{user}", self.agent).into(),
        }
    }
}

#[cfg(test)]
mod tests;
