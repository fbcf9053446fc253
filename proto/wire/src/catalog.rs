//! Catalogs, to and from messages.

use std::sync::Arc;

use gantry_model::{Catalog, Definition};

use crate::convert::{WireError, name};
use crate::resource_v1 as wire;

impl From<&Catalog> for wire::Catalog {
    fn from(catalog: &Catalog) -> wire::Catalog {
        let definitions = |definitions: &[Definition]| {
            definitions
                .iter()
                .map(|definition| wire::Definition {
                    name: definition.name.to_string(),
                    json: definition.json.to_string(),
                    hash: definition.hash.to_vec(),
                })
                .collect()
        };
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
        }
    }
}

impl TryFrom<&wire::Catalog> for Catalog {
    type Error = WireError;

    /// Reads a catalog and checks its bounds; hashes are computed anew, not believed.
    fn try_from(catalog: &wire::Catalog) -> Result<Catalog, WireError> {
        let definitions = |definitions: &[wire::Definition]| {
            definitions
                .iter()
                .map(|definition| Definition::new(definition.name.as_str(), definition.json.as_str()))
                .collect()
        };
        let json = |json: &str| (!json.is_empty()).then(|| Arc::from(json));
        let catalog = Catalog {
            tenant: name("tenant", &catalog.tenant)?,
            server: name("server", &catalog.server)?,
            tools: definitions(&catalog.tools),
            prompts: definitions(&catalog.prompts),
            resources: definitions(&catalog.resources),
            resource_templates: definitions(&catalog.resource_templates),
            revisions: catalog.revisions.clone(),
            initialize_result: json(&catalog.initialize_result),
            discover_result: json(&catalog.discover_result),
        };
        catalog.check().map_err(|problem| WireError::invalid("catalog", problem))?;
        Ok(catalog)
    }
}
