//! Updates that fail, and the snapshot after.

use gantry_model::resource::{Resource, Spec, TenantSpec};
use gantry_wire::encode_record;

use super::*;

fn entry(tenant: &str) -> wire::Entry {
    let name = tenant.parse().expect("a name");
    let spec = Spec::Tenant(TenantSpec::default());
    let resource = Resource { tenant: tenant.parse().expect("a name"), name, spec };
    let record = Record { revision: Revision(1), value: RecordValue::Resource(Arc::new(resource)) };
    wire::Entry { key: record.value.key().to_string(), record: encode_record(&record).into() }
}

fn snapshot(revision: u64, tenants: &[&str]) -> wire::Update {
    let mut digest = Digest::default();
    let upserts: Vec<_> = tenants.iter().map(|tenant| entry(tenant)).collect();
    upserts.iter().for_each(|entry| digest.add(&entry.key, &entry.record));
    let digest_after = digest.to_bytes().to_vec();
    wire::Update { revision, upserts, digest_after, cluster_id: "c".to_owned(), ..wire::Update::default() }
}

#[test]
fn a_tenant_that_went_with_an_update_that_failed_is_gone_after_the_snapshot_that_mends_it() {
    let mut holdings = Holdings::new(Arc::new(NodeSealKey::generate().expect("a key")));
    let touched = holdings.take(snapshot(1, &["acme", "globex"])).expect("taken");
    let (before, ..) = holdings.compile(&Config::empty(Default::default()), touched);
    let delta = wire::Update {
        from_revision: 1,
        deletes: vec![entry("globex").key],
        digest_after: vec![0; 32],
        ..snapshot(2, &[])
    };
    assert!(matches!(holdings.take(delta), Err(UpdateError::Digest(Revision(2)))));
    let touched = holdings.take(snapshot(2, &["acme"])).expect("taken");
    let bans = holdings.bans(&touched);
    assert_eq!(bans.get("globex").map(Vec::len), Some(0), "nothing is left of its bans either");
    let (after, _, problems) = holdings.compile(&before, touched);
    let names: Vec<_> = after.tenants.keys().map(TenantName::as_str).collect();
    assert_eq!((names, problems.len()), (vec!["acme"], 0));
}
