//! What the policies of a tenant may name, as one state has it.
//!
//! Always holds: it is complete; a name that is not in it does not exist in that state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_control_state::State;
use gantry_model::name::ANONYMOUS_AGENT;
use gantry_model::record::RecordValue;
use gantry_model::{AgentName, Catalog, GroupName, ProviderName, ServerName, Spec, TenantName};
use gantry_policy::Known;

/// What the policies of one tenant may name.
#[derive(Debug, Default)]
pub(super) struct Names {
    agents: BTreeSet<AgentName>,
    groups: BTreeSet<GroupName>,
    providers: BTreeSet<ProviderName>,
    servers: BTreeMap<ServerName, Option<Arc<Catalog>>>,
}

impl Names {
    /// What a state has.
    pub(super) fn of(state: &State, tenant: &TenantName) -> Names {
        let mut names = Names::default();
        for record in state.tenant_records(tenant) {
            let RecordValue::Resource(resource) = &record.value else { continue };
            match &resource.spec {
                Spec::Agent(agent) => {
                    names.agents.insert(AgentName::from(resource.name.clone()));
                    names.groups.extend(agent.groups.iter().cloned());
                }
                Spec::Server(_) => {
                    let server = ServerName::from(resource.name.clone());
                    let catalog = state.catalog(tenant, &server).cloned();
                    names.servers.insert(server, catalog);
                }
                Spec::Provider(_) => {
                    names.providers.insert(ProviderName::from(resource.name.clone()));
                }
                Spec::Endpoint(endpoint) if endpoint.anonymous => {
                    names.agents.extend(ANONYMOUS_AGENT.parse().ok());
                }
                Spec::Tenant(_)
                | Spec::Endpoint(_)
                | Spec::Policy(_)
                | Spec::Limit(_)
                | Spec::Credential(_) => {}
            }
        }
        names
    }

    /// The same for the checks of `gantry-policy`.
    pub(super) fn known(&self) -> Known<'_> {
        let mut known = Known::new();
        self.agents.iter().for_each(|agent| known.add_agent(agent));
        self.groups.iter().for_each(|group| known.add_group(group));
        self.providers.iter().for_each(|provider| known.add_provider(provider));
        self.servers.iter().for_each(|(server, catalog)| known.add_server(server, catalog.as_deref()));
        known
    }

    /// Whether a name that was in `before` is not here any more.
    pub(super) fn lost_any_of(&self, before: &Names) -> bool {
        !before.agents.is_subset(&self.agents)
            || !before.groups.is_subset(&self.groups)
            || !before.providers.is_subset(&self.providers)
            || before.servers.keys().any(|server| !self.servers.contains_key(server))
    }
}
