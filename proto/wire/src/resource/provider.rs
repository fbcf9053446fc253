//! Providers, what agents are called by them, and by what callers of endpoints are known, to and from messages.

use gantry_model::resource::{
    AgentIdentity, Authentication, AuthoritySpec, ClientName, IssuerSpec, ProviderClaims, ProviderSpec,
};

use crate::convert::{WireError, name, text_or_empty};
use crate::resource_v1 as wire;

impl From<&ProviderSpec> for wire::ProviderSpec {
    fn from(spec: &ProviderSpec) -> wire::ProviderSpec {
        match spec {
            ProviderSpec::Issuer(spec) => spec.into(),
            ProviderSpec::Authority(spec) => spec.into(),
        }
    }
}

impl TryFrom<&wire::ProviderSpec> for ProviderSpec {
    type Error = WireError;

    fn try_from(spec: &wire::ProviderSpec) -> Result<ProviderSpec, WireError> {
        let client_name = match spec.client_name() {
            wire::ClientName::Unspecified => return Ok(ProviderSpec::Issuer(issuer(spec))),
            wire::ClientName::Uri => ClientName::Uri,
            wire::ClientName::Dns => ClientName::Dns,
            wire::ClientName::Email => ClientName::Email,
            wire::ClientName::Subject => ClientName::Subject,
        };
        Ok(ProviderSpec::Authority(AuthoritySpec {
            client_authorities: spec.client_authorities.clone(),
            client_name,
            trust_domain: (!spec.trust_domain.is_empty()).then(|| spec.trust_domain.clone()),
        }))
    }
}

impl From<&IssuerSpec> for wire::ProviderSpec {
    fn from(spec: &IssuerSpec) -> wire::ProviderSpec {
        let tag =
            |(name, claim): (&String, &String)| wire::ClaimTag { name: name.clone(), claim: claim.clone() };
        wire::ProviderSpec {
            issuer: spec.issuer.clone(),
            jwks_url: text_or_empty(spec.jwks_url.as_ref()),
            algorithms: spec.algorithms.iter().cloned().collect(),
            audiences: spec.audiences.iter().cloned().collect(),
            clock_skew_seconds: spec.clock_skew_seconds,
            agent_claims: spec.claims.agent.clone(),
            user_claims: spec.claims.user.clone(),
            group_claims: spec.claims.groups.clone(),
            scope_claims: spec.claims.scopes.clone(),
            tags: spec.claims.tags.iter().map(tag).collect(),
            ..wire::ProviderSpec::default()
        }
    }
}

impl From<&AuthoritySpec> for wire::ProviderSpec {
    fn from(spec: &AuthoritySpec) -> wire::ProviderSpec {
        let client_name = match spec.client_name {
            ClientName::Uri => wire::ClientName::Uri,
            ClientName::Dns => wire::ClientName::Dns,
            ClientName::Email => wire::ClientName::Email,
            ClientName::Subject => wire::ClientName::Subject,
        };
        wire::ProviderSpec {
            client_authorities: spec.client_authorities.clone(),
            client_name: client_name.into(),
            trust_domain: text_or_empty(spec.trust_domain.as_ref()),
            ..wire::ProviderSpec::default()
        }
    }
}

fn issuer(spec: &wire::ProviderSpec) -> IssuerSpec {
    IssuerSpec {
        issuer: spec.issuer.clone(),
        jwks_url: (!spec.jwks_url.is_empty()).then(|| spec.jwks_url.clone()),
        algorithms: spec.algorithms.iter().cloned().collect(),
        audiences: spec.audiences.iter().cloned().collect(),
        clock_skew_seconds: spec.clock_skew_seconds,
        claims: ProviderClaims {
            agent: spec.agent_claims.clone(),
            user: spec.user_claims.clone(),
            groups: spec.group_claims.clone(),
            scopes: spec.scope_claims.clone(),
            tags: spec.tags.iter().map(|tag| (tag.name.clone(), tag.claim.clone())).collect(),
        },
    }
}

impl From<&AgentIdentity> for wire::AgentIdentity {
    fn from(identity: &AgentIdentity) -> wire::AgentIdentity {
        wire::AgentIdentity {
            provider: identity.provider.to_string(),
            client: text_or_empty(identity.client.as_ref()),
        }
    }
}

impl TryFrom<&wire::AgentIdentity> for AgentIdentity {
    type Error = WireError;

    fn try_from(identity: &wire::AgentIdentity) -> Result<AgentIdentity, WireError> {
        let client = (!identity.client.is_empty()).then(|| identity.client.clone());
        Ok(AgentIdentity { provider: name("identities", &identity.provider)?, client })
    }
}

impl From<&Authentication> for wire::Authentication {
    fn from(authentication: &Authentication) -> wire::Authentication {
        let tool = |(tool, scopes): (&String, &std::collections::BTreeSet<String>)| wire::ToolScopes {
            tool: tool.clone(),
            scopes: scopes.iter().cloned().collect(),
        };
        wire::Authentication {
            without_keys: !authentication.keys,
            only_providers: authentication.providers.is_some(),
            providers: authentication.providers.iter().flatten().map(ToString::to_string).collect(),
            required_scopes: authentication.required_scopes.iter().cloned().collect(),
            tool_scopes: authentication.tool_scopes.iter().map(tool).collect(),
        }
    }
}

impl TryFrom<&wire::Authentication> for Authentication {
    type Error = WireError;

    fn try_from(authentication: &wire::Authentication) -> Result<Authentication, WireError> {
        let named = authentication.providers.iter().map(|text| name("authentication.providers", text));
        let named = named.collect::<Result<_, _>>()?;
        let tool = |tool: &wire::ToolScopes| (tool.tool.clone(), tool.scopes.iter().cloned().collect());
        Ok(Authentication {
            keys: !authentication.without_keys,
            providers: authentication.only_providers.then_some(named),
            required_scopes: authentication.required_scopes.iter().cloned().collect(),
            tool_scopes: authentication.tool_scopes.iter().map(tool).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{Resource, document};
    use serde_json::json;

    use super::*;

    #[test]
    fn what_concerns_tokens_comes_back_as_it_was() {
        for document in [
            json!({"kind": "Provider", "tenant": "acme", "name": "corp", "spec": {
                "issuer": "https://id.example.com", "jwks_url": "https://id.example.com/keys",
                "algorithms": ["ES256", "RS256"], "audiences": ["mcp"], "clock_skew_seconds": 0,
                "claims": {"agent": ["azp"], "user": [], "groups": ["/a/b"], "scopes": ["scp"], "tags": {"x": "y"}},
            }}),
            json!({"kind": "Provider", "tenant": "acme", "name": "corp", "spec": {"issuer": "https://id.example.com"}}),
            json!({"kind": "Provider", "tenant": "acme", "name": "mesh", "spec": {
                "client_authorities": "-----BEGIN CERTIFICATE-----", "trust_domain": "acme.example"}}),
            json!({"kind": "Provider", "tenant": "acme", "name": "mesh", "spec": {
                "client_authorities": "-----BEGIN CERTIFICATE-----", "client_name": "subject"}}),
            json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec":
                {"identities": [{"provider": "corp", "client": "x"}, {"provider": "corp"}]}}),
            json!({"kind": "Tenant", "name": "acme", "spec": {"public_url": "https://mcp.example.com"}}),
            json!({"kind": "Tenant", "name": "acme", "spec": {"breaker": {"open_seconds": 5,
                "repeats": {"calls": 9, "window_seconds": 60}}}}),
            json!({"kind": "Tenant", "name": "acme", "spec": {"breaker": {"open_seconds": 5,
                "failures": {"percent": 80, "calls": 20, "window_seconds": 30}}}}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["files"],
                "authentication": {"keys": false, "providers": ["corp"], "required_scopes": ["mcp"],
                    "tool_scopes": {"rm": ["admin"]}}}}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["files"],
                "authentication": {"providers": []}}}),
            json!({"kind": "Limit", "tenant": "acme", "name": "slow", "spec":
                {"per": ["user"], "calls": 1, "window_seconds": 1}}),
        ] {
            let resource = document::parse(document).expect("a document");
            let sent = wire::Resource::from(&resource);
            assert_eq!(Resource::try_from(&sent), Ok(resource));
        }
    }

    #[test]
    fn an_endpoint_that_says_nothing_of_it_is_written_as_it_always_was() {
        let document =
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["files"]}});
        let sent = wire::Resource::from(&document::parse(document).expect("a document"));
        let Some(wire::resource::Spec::EndpointSpec(spec)) = sent.spec else { panic!("an endpoint") };
        assert_eq!(spec.authentication, None);
    }
}
