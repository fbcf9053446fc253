//! What one change costs a node, and what it leaves alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::digest::Digest;
use gantry_model::record::{Record, RecordValue};
use gantry_model::resource::{AgentSpec, PolicySpec, Resource, ServerSpec, Spec, Transport};
use gantry_model::{Revision, TenantName};
use gantry_wire::sync_v1 as wire;

use super::asking::{resource, tenant};
use super::follower::follower;
use crate::sync::Follower;
use crate::sync::last_known_good::LastKnownGood;

const FEW: usize = 4;
const MANY: usize = 4_096;
/// Changes of which the fastest counts: one of them is not disturbed, whatever else the machine does.
const CHANGES: u64 = 100;
/// Far from what [`MANY`] tenants cost when each is looked at (20 times and more), and from the depth of maps.
const RATIO_MAX: u32 = 5;

/// A node, and what it was sent.
struct Fed {
    follower: Follower,
    digest: Digest,
    revision: u64,
    _directory: tempfile::TempDir,
}

impl Fed {
    async fn new() -> Fed {
        let directory = tempfile::tempdir().expect("a directory");
        let nobody = vec!["http://127.0.0.1:1".to_owned()];
        let follower = follower(directory.path(), &LastKnownGood::Off, nobody).await.expect("a node");
        Fed { follower: follower.0, digest: Digest::default(), revision: 0, _directory: directory }
    }

    /// One that serves so many tenants, each with a server, an agent and a policy.
    async fn serving(tenants: usize) -> Fed {
        let mut fed = Fed::new().await;
        let resources: Vec<_> =
            (0..tenants).flat_map(|number| of_tenant(&format!("tenant-{number}"))).collect();
        let update = fed.update(&[], &resources);
        let problems = fed.follower.take(update).await.expect("a good update");
        assert!(problems.is_empty(), "{problems:?}");
        fed
    }

    /// An update that takes `gone` away and brings `resources`, which are new.
    fn update(&mut self, gone: &[(String, Vec<u8>)], resources: &[Resource]) -> wire::Update {
        let from_revision = self.revision;
        self.revision += 1;
        gone.iter().for_each(|(key, record)| self.digest.remove(key, record));
        let entries = resources.iter().map(|resource| encoded(resource, self.revision));
        let entries: Vec<_> = entries.collect();
        entries.iter().for_each(|(key, record)| self.digest.add(key, record));
        let entry = |(key, record): (String, Vec<u8>)| wire::Entry { key, record: record.into() };
        wire::Update {
            from_revision,
            revision: self.revision,
            deletes: gone.iter().map(|(key, _)| key.clone()).collect(),
            upserts: entries.into_iter().map(entry).collect(),
            last: true,
            digest_after: self.digest.to_bytes().to_vec(),
            cluster_id: "one".to_owned(),
            ..wire::Update::default()
        }
    }

    /// Changes an agent of the first tenant; returns how long the node took.
    async fn change(&mut self) -> Duration {
        let agent = agent("tenant-0");
        let before = encoded(&agent, self.revision);
        let mut update = self.update(&[before], &[agent]);
        // Not deleted: replaced.
        update.deletes.clear();
        let began = Instant::now();
        self.follower.take(update).await.expect("a good update");
        began.elapsed()
    }
}

fn of_tenant(name: &str) -> [Resource; 4] {
    let url = format!("http://127.0.0.1:1/{name}").parse().expect("a URL");
    let cedar = "permit(principal, action, resource);".to_owned();
    [
        tenant(name, Some(60)),
        resource(name, "server", Spec::Server(ServerSpec::new(Transport::Http { url }))),
        resource(name, "policy", Spec::Policy(PolicySpec::enforced(cedar))),
        agent(name),
    ]
}

fn agent(tenant: &str) -> Resource {
    resource(tenant, "bot", Spec::Agent(AgentSpec::default()))
}

fn encoded(resource: &Resource, revision: u64) -> (String, Vec<u8>) {
    let value = RecordValue::Resource(Arc::new(resource.clone()));
    let record = Record { revision: Revision(revision), value };
    (record.value.key().to_string(), gantry_wire::encode_record(&record))
}

#[tokio::test]
async fn one_change_costs_a_node_the_same_with_a_thousand_times_the_tenants() {
    let (mut few, mut many) = (Fed::serving(FEW).await, Fed::serving(MANY).await);
    let mut fastest = (Duration::MAX, Duration::MAX);
    for _ in 0..CHANGES {
        fastest = (fastest.0.min(few.change().await), fastest.1.min(many.change().await));
    }
    println!("a change with {FEW} tenants: {:?}, with {MANY}: {:?}", fastest.0, fastest.1);
    assert!(fastest.1 < fastest.0 * RATIO_MAX, "{fastest:?}");
}

#[tokio::test]
async fn a_change_of_a_tenant_leaves_what_is_known_of_servers_and_other_tenants_as_it_was() {
    let mut fed = Fed::serving(2).await;
    let names: [TenantName; 2] = ["tenant-0", "tenant-1"].map(|name| name.parse().expect("a name"));
    let node = fed.follower.node.clone();
    let [before, other] = names.each_ref().map(|name| node.config().tenants[name].clone());
    fed.change().await;
    let [after, same] = names.each_ref().map(|name| node.config().tenants[name].clone());
    assert!(Arc::ptr_eq(&other, &same) && !Arc::ptr_eq(&before, &after));
    assert!(Arc::ptr_eq(&before.servers["server"].health, &after.servers["server"].health));

    let mut spec = before.servers["server"].spec.clone();
    spec.concurrency += 1;
    let server = |spec| resource("tenant-0", "server", Spec::Server(spec));
    let gone = encoded(&server(before.servers["server"].spec.clone()), 1);
    let mut update = fed.update(&[gone], &[server(spec)]);
    update.deletes.clear();
    fed.follower.take(update).await.expect("a good update");
    let moved = node.config().tenants["tenant-0"].clone();
    assert!(!Arc::ptr_eq(&after.servers["server"].health, &moved.servers["server"].health), "other places");
    assert_eq!(node.config().fail_closed.size(), 2);
}

#[tokio::test]
async fn a_tenant_that_went_with_an_update_that_was_refused_is_gone_with_the_snapshot_that_follows() {
    let mut fed = Fed::serving(2).await;
    let gone: Vec<_> = of_tenant("tenant-1").iter().map(|resource| encoded(resource, 1)).collect();
    let mut update = fed.update(&gone, &[]);
    update.digest_after = Digest::default().to_bytes().to_vec();
    fed.follower.take(update).await.expect_err("another digest");
    assert_eq!(fed.follower.node.config().tenants.size(), 2, "a refused update changes nothing");

    (fed.digest, fed.revision) = (Digest::default(), 0);
    let snapshot = fed.update(&[], &of_tenant("tenant-0"));
    fed.follower.take(snapshot).await.expect("a good update");
    let config = fed.follower.node.config();
    let left: Vec<_> = config.tenants.keys().map(TenantName::as_str).collect();
    assert_eq!((left, config.fail_closed.size()), (vec!["tenant-0"], 1));
}
