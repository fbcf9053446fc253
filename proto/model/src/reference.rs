//! References between resources: what each refers to, and which of them dangle.
//!
//! Always holds: a resource refers to resources of its own tenant only, because a reference has no tenant in it.
//! It does not look into policy text; `gantry-policy` does.

use crate::nearest::nearest;
use crate::resource::{Kind, LimitSpec, Resource, ResourceId, Spec};

/// A field of a resource that names another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// The field, such as `spec.servers[0]`.
    pub path: String,
    /// What it names.
    pub target: ResourceId,
}

/// A reference to what is not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: there is no {}", reference.path, reference.target)]
pub struct Dangling {
    /// The reference.
    pub reference: Reference,
    /// The nearest name that is there.
    pub nearest: Option<String>,
}

/// Everything that a resource refers to, its tenant included.
pub fn references(resource: &Resource) -> Vec<Reference> {
    let tenant = &resource.tenant;
    let mut found = Vec::new();
    let mut refer = |path: String, target: ResourceId| found.push(Reference { path, target });
    if resource.spec.kind() != Kind::Tenant {
        refer("tenant".to_owned(), ResourceId::of_tenant(tenant));
    }
    match &resource.spec {
        Spec::Tenant(spec) => {
            if let Some(credential) = spec.check.as_ref().and_then(|check| check.credential.as_ref()) {
                refer("spec.check.credential".to_owned(), ResourceId::credential(tenant, credential));
            }
        }
        Spec::Policy(_) | Spec::Credential(_) | Spec::Provider(_) => {}
        Spec::Agent(agent) => {
            for (index, identity) in agent.identities.iter().enumerate() {
                let target = ResourceId::provider(tenant, &identity.provider);
                refer(format!("spec.identities[{index}].provider"), target);
            }
        }
        Spec::Server(server) => {
            if let Some(credential) = &server.credential {
                refer("spec.credential".to_owned(), ResourceId::credential(tenant, credential));
            }
            if let Some(credential) = server.check.as_ref().and_then(|check| check.credential.as_ref()) {
                refer("spec.check.credential".to_owned(), ResourceId::credential(tenant, credential));
            }
        }
        Spec::Endpoint(endpoint) => {
            for (index, server) in endpoint.servers.iter().enumerate() {
                refer(format!("spec.servers[{index}]"), ResourceId::server(tenant, server));
            }
            for (index, provider) in endpoint.authentication.providers.iter().flatten().enumerate() {
                let target = ResourceId::provider(tenant, provider);
                refer(format!("spec.authentication.providers[{index}]"), target);
            }
        }
        Spec::Limit(LimitSpec { agent, server, .. }) => {
            if let Some(agent) = agent {
                refer("spec.agent".to_owned(), ResourceId::agent(tenant, agent));
            }
            if let Some(server) = server {
                refer("spec.server".to_owned(), ResourceId::server(tenant, server));
            }
        }
    }
    found
}

/// The references of a resource whose target is not there. `exists` answers for one id; `names` lists the names
/// of a kind in the resource's tenant, for the suggestion.
pub fn dangling(
    resource: &Resource,
    exists: impl Fn(&ResourceId) -> bool,
    names: impl Fn(Kind) -> Vec<String>,
) -> Vec<Dangling> {
    references(resource)
        .into_iter()
        .filter(|reference| !exists(&reference.target))
        .map(|reference| {
            let names = names(reference.target.kind);
            let near = nearest(reference.target.name.as_str(), names.iter().map(String::as_str));
            Dangling { nearest: near.map(str::to_owned), reference }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document;

    #[test]
    fn a_dangling_reference_is_named_with_the_nearest_that_is_there() -> Result<(), Box<dyn std::error::Error>>
    {
        let endpoint = document::parse(serde_json::json!({
            "kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["flies"]}
        }))?;
        let found = dangling(
            &endpoint,
            |id| id.kind == Kind::Tenant,
            |_| vec!["files".to_owned(), "time".to_owned()],
        );
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].reference.path, "spec.servers[0]");
        assert_eq!(found[0].nearest.as_deref(), Some("files"));
        assert_eq!(found[0].to_string(), "spec.servers[0]: there is no Server acme/flies");
        Ok(())
    }
}
