//! The sums are what they would be if everything were added up anew, whatever happened.

use gantry_model::record::RecordValue;
use gantry_model::{Kind, Labels, ResourceId, Revision, Spec, document};
use gantry_wire::Command;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::State;

const TENANTS: [&str; 3] = ["amber", "amber-2", "birch"];
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

fn any_command() -> impl Strategy<Value = Command> {
    let tenant = prop::sample::select(TENANTS.to_vec());
    let agent = prop::sample::select(vec!["one", "two"]);
    let regions = prop::sample::subsequence(REGIONS.to_vec(), 0..=2);
    let apply = |document| Command::Apply(vec![document::parse(document).expect("a document")]);
    prop_oneof![
        (tenant.clone(), regions).prop_map(move |(tenant, regions)| {
            apply(json!({"kind": "Tenant", "name": tenant, "spec": {"regions": regions}}))
        }),
        (tenant.clone(), agent.clone(), prop::bool::ANY).prop_map(move |(tenant, agent, is_long)| {
            let description = if is_long { "long" } else { "" };
            let spec = json!({"description": description});
            apply(json!({"kind": "Agent", "tenant": tenant, "name": agent, "spec": spec}))
        }),
        (tenant.clone(), agent).prop_map(|(tenant, agent)| {
            let (tenant, agent) = (tenant.parse().expect("a name"), agent.parse().expect("a name"));
            Command::Delete(vec![ResourceId::agent(&tenant, &agent)])
        }),
        tenant.prop_map(|tenant| {
            let tenant: TenantName = tenant.parse().expect("a name");
            Command::Delete(vec![ResourceId::of_tenant(&tenant)])
        }),
    ]
}

fn any_scope() -> impl Strategy<Value = Scope> {
    let tenants = prop::sample::subsequence(TENANTS.to_vec(), 0..=2);
    let region = prop::option::of(prop::sample::select(REGIONS.to_vec()));
    let of = (tenants, region).prop_map(|(tenants, region)| {
        Scope::Of(Labels {
            tenants: tenants.iter().map(|tenant| tenant.parse().expect("a name")).collect(),
            region: region.map(|region| region.parse().expect("a name")),
            ..Labels::default()
        })
    });
    prop_oneof![1 => Just(Scope::Everything), 6 => of]
}

fn regions_of(state: &State, tenant: &TenantName) -> BTreeSet<RegionName> {
    match state.resource(&ResourceId::of_tenant(tenant)).map(|(resource, _)| &resource.spec) {
        Some(Spec::Tenant(tenant)) => tenant.regions.clone(),
        _ => panic!("{tenant} has entries and is none"),
    }
}

proptest! {
    #[test]
    fn the_digest_of_a_scope_is_that_of_the_full_state_filtered(
        history in prop::collection::vec(any_command(), 0..40),
        scopes in prop::collection::vec(any_scope(), 4),
    ) {
        let mut state = State::default();
        for (index, command) in history.iter().enumerate() {
            state.apply(Revision(index as u64 + 1), command);
            for scope in &scopes {
                let (mut expected, mut tenants) = (Digest::default(), BTreeSet::new());
                for record in state.records().filter(|record| record.value.key().kind().is_for_nodes()) {
                    let key = record.value.key();
                    let tenant = key.tenant().expect("nodes receive what is a tenant's");
                    if scope.holds(tenant, &regions_of(&state, tenant)) {
                        let key = key.to_string();
                        expected.add(&key, &state.bytes(&key).expect("bytes"));
                        tenants.insert(tenant.clone());
                    }
                }
                prop_assert_eq!(state.digests().of(scope), expected, "{:?}", scope);
                let told: BTreeSet<_> = state.digests().tenants(scope).cloned().collect();
                prop_assert_eq!(told, tenants, "{:?}", scope);
            }
        }
        // Of tenants that are gone nothing stays, and a state that was stored has the same sums.
        let stored = state.entries().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
        let loaded = State::load(stored.collect::<Vec<_>>()).expect("loads");
        let is_tenant = |value: &RecordValue| matches!(value, RecordValue::Resource(it) if it.spec.kind() == Kind::Tenant);
        let count = state.records().filter(|record| is_tenant(&record.value)).count();
        for state in [&state, &loaded] {
            prop_assert_eq!(state.digests().tenants.size(), count);
            prop_assert!(state.digests().by_region.values().all(|of| of.tenants > 0));
        }
        for scope in &scopes {
            prop_assert_eq!(loaded.digests().of(scope), state.digests().of(scope));
        }
    }
}
