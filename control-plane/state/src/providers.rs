//! What has to be so of the providers of a tenant, and of what they call its agents, taken together.
//!
//! Always holds after a set was applied: an issuer is one provider's, so that a token picks one; a client of a provider is
//! one agent, and at most one agent is all the others; a tenant has at most [`PROVIDERS_MAX`] providers.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::record::RecordValue;
use gantry_model::resource::{AgentIdentity, PROVIDERS_MAX, ProviderSpec};
use gantry_model::{Name, Resource, ResourceId, Spec, TenantName};

use crate::outcome::Refusal;
use crate::state::State;

/// What the providers of a tenant are, and whom they call what.
#[derive(Default)]
struct Providers<'a> {
    /// By issuer.
    names: BTreeMap<&'a str, BTreeSet<&'a Name>>,
    count: usize,
    agents: BTreeMap<&'a AgentIdentity, BTreeSet<&'a Name>>,
}

/// What is wrong with the providers of the tenants that a set touches; `state` has it already.
pub(crate) fn ambiguous(state: &State, resources: &[Resource]) -> Vec<Refusal> {
    let concerns = |resource: &Resource| match &resource.spec {
        Spec::Provider(_) => true,
        Spec::Agent(agent) => !agent.identities.is_empty(),
        _ => false,
    };
    let concerned = || resources.iter().enumerate().filter(|(_, resource)| concerns(resource));
    let tenants: BTreeSet<&TenantName> = concerned().map(|(_, resource)| &resource.tenant).collect();
    let mut refusals = Vec::new();
    for tenant in tenants {
        let providers = Providers::of(state, tenant);
        let of_tenant = concerned().filter(|(_, resource)| resource.tenant == *tenant);
        refusals.extend(of_tenant.flat_map(|(index, resource)| providers.refusals(index, resource)));
    }
    refusals
}

impl<'a> Providers<'a> {
    fn of(state: &'a State, tenant: &TenantName) -> Providers<'a> {
        let mut providers = Providers::default();
        for record in state.tenant_records(tenant) {
            let RecordValue::Resource(resource) = &record.value else { continue };
            match &resource.spec {
                Spec::Provider(spec) => {
                    providers.count += 1;
                    if let ProviderSpec::Issuer(spec) = spec {
                        providers.names.entry(&spec.issuer).or_default().insert(&resource.name);
                    }
                }
                Spec::Agent(agent) => {
                    for identity in &agent.identities {
                        providers.agents.entry(identity).or_default().insert(&resource.name);
                    }
                }
                _ => {}
            }
        }
        providers
    }

    fn refusals(&self, index: usize, resource: &Resource) -> Vec<Refusal> {
        let at = |path: String, message: String| Refusal { path, ..Refusal::of(index, message) };
        let other = |names: Option<&BTreeSet<&'a Name>>| {
            names.and_then(|names| names.iter().find(|name| ***name != resource.name).copied())
        };
        match &resource.spec {
            Spec::Provider(_) if self.count > PROVIDERS_MAX => {
                let message =
                    format!("tenant {} would have more than {PROVIDERS_MAX} providers", resource.tenant);
                vec![at(String::new(), message)]
            }
            Spec::Provider(ProviderSpec::Issuer(spec)) => {
                let taken = other(self.names.get(spec.issuer.as_str()));
                let taken = taken.map(|name| {
                    format!("is that of provider {name} already; a token picks its provider by it")
                });
                taken.map(|message| at("spec.issuer".to_owned(), message)).into_iter().collect()
            }
            Spec::Agent(agent) => {
                let identities = agent.identities.iter().enumerate();
                let taken = identities.filter_map(|(place, identity)| {
                    let name = other(self.agents.get(identity))?;
                    let id = ResourceId { name: name.clone(), ..resource.id() };
                    Some(at(format!("spec.identities[{place}]"), format!("is {id} already")))
                });
                taken.collect()
            }
            _ => Vec::new(),
        }
    }
}
