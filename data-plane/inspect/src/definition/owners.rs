//! Whose tools have a name: as their servers call them, and as endpoints offer them.
//!
//! Always holds: names are compared in lower case; it depends on catalogs and endpoints alone, so that whoever has the
//! same finds the same.

use std::collections::{BTreeSet, HashMap};

use gantry_model::exposed::exposed_name;
use gantry_model::resource::{AliasTarget, EndpointSpec, Naming};
use gantry_model::{Catalog, ServerName};

/// Which servers of a tenant have a tool of a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Owners {
    by_name: HashMap<String, BTreeSet<ServerName>>,
}

impl Owners {
    /// Of the servers of a tenant and its endpoints.
    pub fn of<'c, 'e>(
        catalogs: impl Iterator<Item = &'c Catalog>,
        endpoints: impl Iterator<Item = &'e EndpointSpec>,
    ) -> Owners {
        let (mut prefixed, mut owners) = (BTreeSet::new(), Owners::default());
        for endpoint in endpoints {
            if endpoint.naming == Naming::Prefixed {
                prefixed.extend(&endpoint.servers);
            }
            for (name, alias) in &endpoint.aliases {
                if matches!(alias.target, AliasTarget::Tool(_)) {
                    owners.add(name, &alias.server);
                }
            }
        }
        for catalog in catalogs {
            for tool in &catalog.tools {
                owners.add(&tool.name, &catalog.server);
                if prefixed.contains(&catalog.server) {
                    owners.add(&exposed_name(&catalog.server, &tool.name), &catalog.server);
                }
            }
        }
        owners
    }

    /// Whether another server than this has a tool of a name, which is in lower case.
    pub fn has_elsewhere(&self, server: &ServerName, name: &str) -> bool {
        self.by_name.get(name).is_some_and(|owners| owners.iter().any(|owner| owner != server))
    }

    fn add(&mut self, name: &str, server: &ServerName) {
        self.by_name.entry(name.to_lowercase()).or_default().insert(server.clone());
    }
}
