//! Catalogs, to and from messages.

use std::sync::Arc;

use gantry_model::{
    Approval, Catalog, Definition, DefinitionKind, QuarantineReason, Quarantined, SessionCarrier,
};

use crate::convert::{WireError, bytes, name};
use crate::resource_v1 as wire;

impl From<&Catalog> for wire::Catalog {
    fn from(catalog: &Catalog) -> wire::Catalog {
        let definitions =
            |definitions: &[Definition]| definitions.iter().map(wire::Definition::from).collect();
        let json = |json: &Option<Arc<str>>| json.as_deref().unwrap_or_default().to_owned();
        wire::Catalog {
            tenant: catalog.tenant.to_string(),
            server: catalog.server.to_string(),
            tools: definitions(&catalog.tools),
            prompts: definitions(&catalog.prompts),
            resources: definitions(&catalog.resources),
            resource_templates: definitions(&catalog.resource_templates),
            revisions: catalog.revisions.clone(),
            initialize_result: json(&catalog.initialize_result),
            discover_result: json(&catalog.discover_result),
            quarantined: catalog.quarantined.iter().map(wire::Quarantined::from).collect(),
            carrier: match catalog.carrier {
                SessionCarrier::StreamableHttp => wire::SessionCarrier::StreamableHttp,
                SessionCarrier::HttpSse => wire::SessionCarrier::HttpSse,
            }
            .into(),
        }
    }
}

impl From<&Definition> for wire::Definition {
    fn from(definition: &Definition) -> wire::Definition {
        wire::Definition {
            name: definition.name.to_string(),
            json: definition.json.to_string(),
            hash: definition.hash.to_vec(),
        }
    }
}

impl From<&Quarantined> for wire::Quarantined {
    fn from(held: &Quarantined) -> wire::Quarantined {
        wire::Quarantined {
            kind: wire::DefinitionKind::from(held.kind) as i32,
            definition: Some((&held.definition).into()),
            approved: held.approved().map(Into::into),
        }
    }
}

impl From<&Approval> for wire::Approval {
    fn from(approval: &Approval) -> wire::Approval {
        wire::Approval {
            kind: wire::DefinitionKind::from(approval.kind) as i32,
            name: approval.name.to_string(),
            hash: approval.hash.to_vec(),
        }
    }
}

impl TryFrom<&wire::Approval> for Approval {
    type Error = WireError;

    fn try_from(approval: &wire::Approval) -> Result<Approval, WireError> {
        Ok(Approval {
            kind: definition_kind(approval.kind)?,
            name: approval.name.as_str().into(),
            hash: bytes("hash", &approval.hash)?,
        })
    }
}

impl From<DefinitionKind> for wire::DefinitionKind {
    fn from(kind: DefinitionKind) -> wire::DefinitionKind {
        match kind {
            DefinitionKind::Tool => wire::DefinitionKind::Tool,
            DefinitionKind::Prompt => wire::DefinitionKind::Prompt,
            DefinitionKind::Resource => wire::DefinitionKind::Resource,
            DefinitionKind::ResourceTemplate => wire::DefinitionKind::ResourceTemplate,
        }
    }
}

/// Reads the kind of a definition from the number that stands for it.
fn definition_kind(number: i32) -> Result<DefinitionKind, WireError> {
    match wire::DefinitionKind::try_from(number) {
        Ok(wire::DefinitionKind::Tool) => Ok(DefinitionKind::Tool),
        Ok(wire::DefinitionKind::Prompt) => Ok(DefinitionKind::Prompt),
        Ok(wire::DefinitionKind::Resource) => Ok(DefinitionKind::Resource),
        Ok(wire::DefinitionKind::ResourceTemplate) => Ok(DefinitionKind::ResourceTemplate),
        Ok(wire::DefinitionKind::Unspecified) | Err(_) => {
            Err(WireError::invalid("kind", format!("{number} is no kind of a definition")))
        }
    }
}

impl From<&wire::Definition> for Definition {
    /// Reads a definition; its hash is computed anew, not believed.
    fn from(definition: &wire::Definition) -> Definition {
        Definition::new(definition.name.as_str(), definition.json.as_str())
    }
}

impl TryFrom<&wire::Quarantined> for Quarantined {
    type Error = WireError;

    fn try_from(held: &wire::Quarantined) -> Result<Quarantined, WireError> {
        let reason = match &held.approved {
            Some(approved) => QuarantineReason::Changed { approved: approved.into() },
            None => QuarantineReason::New,
        };
        let definition = held.definition.as_ref().ok_or(WireError::Missing("definition"))?.into();
        Ok(Quarantined { kind: definition_kind(held.kind)?, definition, reason })
    }
}

impl TryFrom<&wire::Catalog> for Catalog {
    type Error = WireError;

    /// Reads a catalog and checks its bounds; hashes are computed anew, not believed.
    fn try_from(catalog: &wire::Catalog) -> Result<Catalog, WireError> {
        let definitions =
            |definitions: &[wire::Definition]| definitions.iter().map(Definition::from).collect();
        let json = |json: &str| (!json.is_empty()).then(|| Arc::from(json));
        let catalog = Catalog {
            tenant: name("tenant", &catalog.tenant)?,
            server: name("server", &catalog.server)?,
            tools: definitions(&catalog.tools),
            prompts: definitions(&catalog.prompts),
            resources: definitions(&catalog.resources),
            resource_templates: definitions(&catalog.resource_templates),
            revisions: catalog.revisions.clone(),
            carrier: match catalog.carrier() {
                wire::SessionCarrier::HttpSse => SessionCarrier::HttpSse,
                wire::SessionCarrier::StreamableHttp => SessionCarrier::StreamableHttp,
            },
            initialize_result: json(&catalog.initialize_result),
            discover_result: json(&catalog.discover_result),
            quarantined: catalog.quarantined.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        };
        catalog.check().map_err(|problem| WireError::invalid("catalog", problem))?;
        Ok(catalog)
    }
}
