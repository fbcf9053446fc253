//! Resources and their ids, to and from messages.

use gantry_model::name::{Name, TenantName};
use gantry_model::resource::{
    AgentSpec, CredentialSpec, Kind, LimitKeyPart, LimitSpec, PolicySpec, Resource, ResourceId, Spec,
};

mod endpoint;
mod external;
mod inspection;
mod provider;
mod server;
mod tenant;

use crate::convert::{WireError, name, name_or_none, text_or_empty};
use crate::resource_v1 as wire;

impl From<&ResourceId> for wire::ResourceId {
    fn from(id: &ResourceId) -> wire::ResourceId {
        wire::ResourceId {
            kind: id.kind.to_string(),
            tenant: id.tenant.to_string(),
            name: id.name.to_string(),
        }
    }
}

impl TryFrom<&wire::ResourceId> for ResourceId {
    type Error = WireError;

    fn try_from(id: &wire::ResourceId) -> Result<ResourceId, WireError> {
        let kind: Kind = id.kind.parse().map_err(|problem| WireError::invalid("kind", problem))?;
        let name: Name = name("name", &id.name)?;
        let tenant = match kind {
            Kind::Tenant => TenantName::from(name.clone()),
            _ => crate::convert::name("tenant", &id.tenant)?,
        };
        Ok(ResourceId { tenant, kind, name })
    }
}

impl From<&Resource> for wire::Resource {
    fn from(resource: &Resource) -> wire::Resource {
        wire::Resource {
            tenant: resource.tenant.to_string(),
            name: resource.name.to_string(),
            spec: Some((&resource.spec).into()),
        }
    }
}

impl From<&Spec> for wire::resource::Spec {
    fn from(spec: &Spec) -> wire::resource::Spec {
        use wire::resource::Spec as To;
        match spec {
            Spec::Tenant(spec) => To::TenantSpec(spec.into()),
            Spec::Server(spec) => To::ServerSpec(spec.into()),
            Spec::Endpoint(spec) => To::EndpointSpec(spec.into()),
            Spec::Agent(spec) => To::AgentSpec(wire::AgentSpec {
                description: spec.description.clone(),
                groups: spec.groups.iter().map(ToString::to_string).collect(),
                identities: spec.identities.iter().map(Into::into).collect(),
            }),
            Spec::Policy(spec) => To::PolicySpec(wire::PolicySpec {
                cedar: spec.cedar.clone(),
                shadow: spec.shadow,
                approval: spec.approval.as_ref().map(Into::into),
            }),
            Spec::Limit(spec) => To::LimitSpec(spec.into()),
            Spec::Credential(spec) => To::CredentialSpec(wire::CredentialSpec {
                header: spec.header.clone(),
                prefix: spec.prefix.clone(),
            }),
            Spec::Provider(spec) => To::ProviderSpec(spec.into()),
        }
    }
}

impl From<&LimitSpec> for wire::LimitSpec {
    fn from(spec: &LimitSpec) -> wire::LimitSpec {
        let part = |part: &LimitKeyPart| match part {
            LimitKeyPart::Agent => wire::LimitKeyPart::Agent as i32,
            LimitKeyPart::Server => wire::LimitKeyPart::Server as i32,
            LimitKeyPart::Tool => wire::LimitKeyPart::Tool as i32,
            LimitKeyPart::User => wire::LimitKeyPart::User as i32,
        };
        wire::LimitSpec {
            per: spec.per.iter().map(part).collect(),
            calls: spec.calls,
            window_seconds: spec.window_seconds,
            burst: spec.burst.unwrap_or(0),
            agent: text_or_empty(spec.agent.as_ref()),
            server: text_or_empty(spec.server.as_ref()),
            tool: text_or_empty(spec.tool.as_ref()),
        }
    }
}

impl TryFrom<&wire::Resource> for Resource {
    type Error = WireError;

    /// Reads a resource and checks its specification.
    fn try_from(resource: &wire::Resource) -> Result<Resource, WireError> {
        let spec = Spec::try_from(resource.spec.as_ref().ok_or(WireError::Missing("spec"))?)?;
        let name: Name = name("name", &resource.name)?;
        let tenant = match spec.kind() {
            Kind::Tenant => TenantName::from(name.clone()),
            _ => crate::convert::name("tenant", &resource.tenant)?,
        };
        Ok(Resource { tenant, name, spec })
    }
}

impl TryFrom<&wire::resource::Spec> for Spec {
    type Error = WireError;

    fn try_from(spec: &wire::resource::Spec) -> Result<Spec, WireError> {
        use wire::resource::Spec as From;
        let spec = match spec {
            From::TenantSpec(spec) => Spec::Tenant(spec.try_into()?),
            From::ServerSpec(spec) => Spec::Server(spec.try_into()?),
            From::EndpointSpec(spec) => Spec::Endpoint(spec.try_into()?),
            From::AgentSpec(spec) => Spec::Agent(AgentSpec {
                description: spec.description.clone(),
                groups: spec.groups.iter().map(|text| name("groups", text)).collect::<Result<_, _>>()?,
                identities: spec.identities.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            }),
            From::PolicySpec(spec) => Spec::Policy(PolicySpec {
                cedar: spec.cedar.clone(),
                shadow: spec.shadow,
                approval: spec.approval.as_ref().map(TryInto::try_into).transpose()?,
            }),
            From::LimitSpec(spec) => Spec::Limit(spec.try_into()?),
            From::CredentialSpec(spec) => {
                Spec::Credential(CredentialSpec { header: spec.header.clone(), prefix: spec.prefix.clone() })
            }
            From::ProviderSpec(spec) => Spec::Provider(spec.try_into()?),
        };
        spec.check().map_err(|problem| WireError::invalid(problem.path, problem.message))?;
        Ok(spec)
    }
}

impl TryFrom<&wire::LimitSpec> for LimitSpec {
    type Error = WireError;

    fn try_from(spec: &wire::LimitSpec) -> Result<LimitSpec, WireError> {
        let part = |part: &i32| match wire::LimitKeyPart::try_from(*part) {
            Ok(wire::LimitKeyPart::Agent) => Ok(LimitKeyPart::Agent),
            Ok(wire::LimitKeyPart::Server) => Ok(LimitKeyPart::Server),
            Ok(wire::LimitKeyPart::Tool) => Ok(LimitKeyPart::Tool),
            Ok(wire::LimitKeyPart::User) => Ok(LimitKeyPart::User),
            Ok(wire::LimitKeyPart::Unspecified) | Err(_) => {
                Err(WireError::invalid("per", format!("{part} is no part of a key")))
            }
        };
        Ok(LimitSpec {
            per: spec.per.iter().map(part).collect::<Result<_, _>>()?,
            calls: spec.calls,
            window_seconds: spec.window_seconds,
            burst: (spec.burst != 0).then_some(spec.burst),
            agent: name_or_none("agent", &spec.agent)?,
            server: name_or_none("server", &spec.server)?,
            tool: name_or_none("tool", &spec.tool)?,
        })
    }
}
