//! By what callers of an endpoint are known, compiled: whose tokens and certificates are taken, what tokens have to be for,
//! and what those are told who have none (RFC 9728, RFC 6750).
//!
//! Always holds: the URL of an endpoint is its tenant's word, or that of a node on loopback; no request has a say in it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_model::ProviderName;
use gantry_model::resource::Authentication;
use serde_json::json;

use crate::identity::Identity;
use crate::identity::certificate::Authority;
use crate::identity::provider::Provider;

/// Where metadata of endpoints is, before the endpoint's own path (RFC 9728, 3.1).
pub(crate) const METADATA_PATH: &str = "/.well-known/oauth-protected-resource";

/// By what callers are known.
#[derive(Default)]
pub(crate) struct Access {
    /// Whether agents' keys are taken.
    pub(crate) keys: bool,
    providers: BTreeSet<ProviderName>,
    /// Whose certificates are taken.
    pub(crate) authorities: Vec<Arc<Authority>>,
    required: BTreeSet<String>,
    by_tool: BTreeMap<String, BTreeSet<String>>,
    /// What a token has to be for: where agents reach the endpoint.
    pub(crate) url: Option<String>,
    /// What clients are told of it, as JSON; `None`: no token is taken.
    pub(crate) metadata: Option<Arc<str>>,
    metadata_url: Option<String>,
}

/// What a token is not for, and what it would have to be for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Missing {
    /// All that is needed for what was asked.
    pub(crate) needed: BTreeSet<String>,
}

impl Access {
    /// Compiles what an endpoint of `url` takes, of the providers of its tenant.
    pub(crate) fn compile<'a>(
        spec: &Authentication,
        providers: impl Iterator<Item = &'a Arc<Provider>>,
        authorities: &[Arc<Authority>],
        url: Option<String>,
    ) -> Access {
        let is_taken = |name: &ProviderName| spec.providers.as_ref().is_none_or(|named| named.contains(name));
        let taken: Vec<_> = providers.filter(|provider| is_taken(&provider.name)).collect();
        let authorities = authorities.iter().filter(|authority| is_taken(&authority.name));
        let mut access = Access {
            keys: spec.keys,
            providers: taken.iter().map(|provider| provider.name.clone()).collect(),
            authorities: authorities.cloned().collect(),
            required: spec.required_scopes.clone(),
            by_tool: spec.tool_scopes.clone(),
            url,
            metadata: None,
            metadata_url: None,
        };
        if let Some(url) = access.url.clone().filter(|_| !taken.is_empty()) {
            let issuers: BTreeSet<&str> = taken.iter().map(|provider| provider.issuer()).collect();
            let mut metadata = json!({
                "resource": url,
                "authorization_servers": issuers,
                "bearer_methods_supported": ["header"],
            });
            let scopes: BTreeSet<&String> =
                access.required.iter().chain(access.by_tool.values().flatten()).collect();
            if !scopes.is_empty() {
                metadata["scopes_supported"] = json!(scopes);
            }
            access.metadata = Some(metadata.to_string().into());
            // An origin, and the path of an endpoint.
            let path = url.match_indices('/').nth(2).map_or(url.len(), |(at, _)| at);
            access.metadata_url = Some(format!("{}{METADATA_PATH}{}", &url[..path], &url[path..]));
        }
        access
    }

    /// Whether tokens are taken at all.
    pub(crate) fn takes_any(&self) -> bool {
        !self.providers.is_empty()
    }

    /// Whether tokens of a provider are taken.
    pub(crate) fn takes(&self, provider: &ProviderName) -> bool {
        self.providers.contains(provider)
    }

    /// Whether what a caller shows is for `tool`, or for the endpoint where none is asked. Keys and certificates are for
    /// everything.
    pub(crate) fn check_scopes(
        &self,
        identity: Option<&Identity>,
        tool: Option<&str>,
    ) -> Result<(), Missing> {
        let Some(identity) = identity else { return Ok(()) };
        if self.authorities.iter().any(|authority| authority.name == identity.provider) {
            return Ok(());
        }
        let of_tool = tool.and_then(|tool| self.by_tool.get(tool));
        let mut needed = self.required.iter().chain(of_tool.into_iter().flatten());
        if needed.all(|scope| identity.scopes.contains(scope)) {
            return Ok(());
        }
        Err(Missing { needed: self.required.iter().chain(of_tool.into_iter().flatten()).cloned().collect() })
    }

    /// What a caller without a token is told: where to learn how to get one, and what it is to be for. Empty where none is
    /// taken.
    pub(crate) fn challenge(&self, needed: Option<&Missing>) -> String {
        let Some(url) = &self.metadata_url else { return String::new() };
        let scopes = needed.map_or(&self.required, |missing| &missing.needed);
        let scopes: Vec<&str> = scopes.iter().map(String::as_str).collect();
        let mut challenge = format!(r#", resource_metadata="{url}""#);
        if !scopes.is_empty() {
            challenge.push_str(&format!(r#", scope="{}""#, scopes.join(" ")));
        }
        challenge
    }
}

#[cfg(test)]
mod tests;
