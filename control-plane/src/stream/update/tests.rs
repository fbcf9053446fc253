//! What a node of a scope is sent, over histories of tenants that come, go and move: never anything of a tenant that
//! it neither held nor is to hold, and always exactly the full state filtered.

use std::collections::BTreeMap;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::ban::{Ban, BanTarget};
use gantry_model::{Labels, RegionName, ResourceId, Secret, Spec, document};
use gantry_node::seal::{NodeSealKey, Purpose};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::feed::Feed;

const TENANTS: [&str; 4] = ["amber", "amber-2", "birch", "cypress"];
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    Place {
        tenant: &'static str,
        regions: Vec<&'static str>,
    },
    Agent {
        tenant: &'static str,
        is_long: bool,
    },
    Secret {
        tenant: &'static str,
        secret: u8,
    },
    Ban {
        tenant: &'static str,
    },
    DeleteAgent {
        tenant: &'static str,
    },
    DeleteCredential {
        tenant: &'static str,
    },
    DeleteTenant {
        tenant: &'static str,
    },
    /// One of the nodes takes what changed since it last did.
    Sync {
        node: usize,
        is_new_process: bool,
    },
}

fn any_step() -> impl Strategy<Value = Step> {
    let tenant = || prop::sample::select(TENANTS.to_vec());
    let regions = prop::sample::subsequence(REGIONS.to_vec(), 0..=2);
    prop_oneof![
        3 => (tenant(), regions).prop_map(|(tenant, regions)| Step::Place { tenant, regions }),
        2 => (tenant(), any::<bool>()).prop_map(|(tenant, is_long)| Step::Agent { tenant, is_long }),
        2 => (tenant(), any::<u8>()).prop_map(|(tenant, secret)| Step::Secret { tenant, secret }),
        1 => tenant().prop_map(|tenant| Step::Ban { tenant }),
        1 => tenant().prop_map(|tenant| Step::DeleteAgent { tenant }),
        1 => tenant().prop_map(|tenant| Step::DeleteCredential { tenant }),
        1 => tenant().prop_map(|tenant| Step::DeleteTenant { tenant }),
        4 => (0..4_usize, prop::bool::weighted(0.2))
            .prop_map(|(node, is_new_process)| Step::Sync { node, is_new_process }),
    ]
}

fn scopes() -> [Scope; 4] {
    let of = |tenants: &[&str], region: Option<&str>| {
        Scope::Of(Labels {
            tenants: tenants.iter().map(|tenant| tenant.parse().expect("a name")).collect(),
            region: region.map(|region| region.parse().expect("a name")),
        })
    };
    [Scope::Everything, of(&[], Some("eu")), of(&["amber", "birch"], Some("us")), of(&["amber"], None)]
}

/// A cluster, its feed, and what its credentials are.
struct Cluster {
    _directory: tempfile::TempDir,
    vault: Vault,
    feed: Feed,
    revision: u64,
    secrets: BTreeMap<String, u8>,
}

impl Cluster {
    fn new() -> Cluster {
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = Vault::found(directory.path()).expect("a key file");
        let vault = Vault::unseal(directory.path(), &cluster).expect("the key");
        let (feed, secrets) = (Feed::new(), BTreeMap::new());
        let mut made = Cluster { _directory: directory, vault, feed, revision: 0, secrets };
        made.apply(&Command::Bootstrap(cluster));
        made
    }

    /// Whether it was done.
    fn apply(&mut self, command: &Command) -> bool {
        self.revision += 1;
        let mut state = self.state();
        let applied = state.apply(Revision(self.revision), command);
        self.feed.publish(Revision(self.revision), applied.changes, state);
        matches!(applied.outcome, Outcome::Done(_))
    }

    fn state(&self) -> State {
        self.feed.latest().state
    }

    fn change(&mut self, step: &Step) {
        let document = |document| document::parse(document).expect("a document");
        let name = |text: &str| text.parse::<TenantName>().expect("a name");
        match step {
            Step::Place { tenant, regions } => {
                let spec = json!({"regions": regions});
                self.apply(&Command::Apply(vec![
                    document(json!({"kind": "Tenant", "name": tenant, "spec": spec})),
                    document(json!({"kind": "Credential", "tenant": tenant, "name": "token"})),
                ]));
            }
            Step::Agent { tenant, is_long } => {
                let spec = json!({"description": if *is_long { "long" } else { "" }});
                let agent = json!({"kind": "Agent", "tenant": tenant, "name": "bot", "spec": spec});
                self.apply(&Command::Apply(vec![document(agent)]));
            }
            Step::Secret { tenant, secret } => {
                let (of, credential) = (name(tenant), "token".parse().expect("a name"));
                let sealed =
                    self.vault.seal_secret(&self.state(), &of, &credential, &Secret::new(vec![*secret]));
                if sealed
                    .is_ok_and(|(secret, tenant_key)| self.apply(&Command::PutSecret { secret, tenant_key }))
                {
                    self.secrets.insert((*tenant).to_owned(), *secret);
                }
            }
            Step::Ban { tenant } => {
                let (target, by) = (BanTarget::Agent("bot".parse().expect("a name")), "root".to_owned());
                let ban =
                    Ban { tenant: name(tenant), target, by, reason: String::new(), at_ms: 1, until_ms: None };
                self.apply(&Command::PutBan(ban));
            }
            Step::DeleteAgent { tenant } => {
                let agent = ResourceId::agent(&name(tenant), &"bot".parse().expect("a name"));
                self.apply(&Command::Delete(vec![agent]));
            }
            Step::DeleteCredential { tenant } => {
                let credential = ResourceId::credential(&name(tenant), &"token".parse().expect("a name"));
                if self.apply(&Command::Delete(vec![credential])) {
                    self.secrets.remove(*tenant);
                }
            }
            Step::DeleteTenant { tenant } => {
                let of = name(tenant);
                let credential = ResourceId::credential(&of, &"token".parse().expect("a name"));
                let agent = ResourceId::agent(&of, &"bot".parse().expect("a name"));
                let ids = [ResourceId::of_tenant(&of), credential, agent];
                let there = ids.into_iter().filter(|id| self.state().resource(id).is_some());
                if self.apply(&Command::Delete(there.collect())) {
                    self.secrets.remove(*tenant);
                }
            }
            Step::Sync { .. } => {}
        }
    }

    fn regions(&self, tenant: &TenantName) -> std::collections::BTreeSet<RegionName> {
        match self.state().resource(&ResourceId::of_tenant(tenant)).map(|(resource, _)| &resource.spec) {
            Some(Spec::Tenant(tenant)) => tenant.regions.clone(),
            _ => Default::default(),
        }
    }
}

/// A node, as the protocol says that it is.
struct Node {
    scope: Scope,
    key: NodeSealKey,
    revision: Revision,
    entries: BTreeMap<String, Vec<u8>>,
    /// By tenant.
    secrets: BTreeMap<String, u8>,
}

impl Node {
    fn sync(&mut self, cluster: &Cluster, is_new_process: bool) {
        let (view, held) = (cluster.feed.latest(), self.tenants());
        let since =
            (self.revision > Revision::NONE).then(|| cluster.feed.since(self.revision).expect("remembered"));
        if is_new_process {
            self.secrets.clear();
        }
        let key = self.key.public_key();
        let builder = Builder { vault: &cluster.vault, view: &view, recipient: &key, scope: &self.scope };
        let built = match since {
            Some(since) => builder.delta(self.revision, &since, is_new_process).expect("a delta"),
            None => builder.snapshot().expect("a snapshot"),
        };
        assert!(built.unopened.is_empty());
        let told: BTreeSet<String> = built.parts.iter().flat_map(mentioned).collect();
        built.parts.iter().for_each(|part| self.forget(part));
        built.parts.iter().for_each(|part| self.take(part));
        self.revision = built.revision;
        let known: BTreeSet<String> = held.union(&self.tenants()).cloned().collect();
        assert!(told.is_subset(&known), "{:?} was told of {told:?} and has to do with {known:?}", self.scope);
        let mut digest = Digest::default();
        self.entries.iter().for_each(|(key, record)| digest.add(key, record));
        assert_eq!(
            (digest, &built.parts.last().expect("a part").digest_after),
            (built.digest, &digest.to_bytes().to_vec())
        );
    }

    fn tenants(&self) -> BTreeSet<String> {
        self.entries.keys().map(|key| tenant_of(key)).collect()
    }

    fn forget(&mut self, part: &Update) {
        for tenant in &part.tenant_deletes {
            self.entries.retain(|key, _| tenant_of(key) != *tenant);
            self.secrets.remove(tenant);
        }
        part.deletes.iter().for_each(|key| drop(self.entries.remove(key)));
        part.secret_deletes.iter().for_each(|id| {
            self.secrets.remove(&id.tenant);
        });
    }

    fn take(&mut self, part: &Update) {
        for entry in &part.upserts {
            self.entries.insert(entry.key.clone(), entry.record.to_vec());
        }
        for released in &part.secrets {
            let (id, sealed) =
                (released.id.as_ref().expect("an id"), released.sealed.clone().expect("a secret"));
            let purpose = Purpose::Credential {
                tenant: id.tenant.parse().expect("a name"),
                credential: id.credential.parse().expect("a name"),
                version: released.version,
            };
            let sealed = Sealed { encapsulated_key: sealed.encapsulated_key, ciphertext: sealed.ciphertext };
            let secret = self.key.open(&purpose, &sealed).expect("sealed to this node");
            self.secrets.insert(id.tenant.clone(), secret.expose()[0]);
        }
    }

    /// It holds the full state filtered, and nothing else.
    fn check(&self, cluster: &Cluster) {
        let state = cluster.state();
        let holds = |tenant: &TenantName| self.scope.holds(tenant, &cluster.regions(tenant));
        let for_nodes =
            state.records().map(|record| record.value.key()).filter(|key| key.kind().is_for_nodes());
        let expected: BTreeMap<String, Vec<u8>> = for_nodes
            .filter(|key| key.tenant().is_some_and(holds))
            .map(|key| (key.to_string(), state.bytes(&key.to_string()).expect("bytes").to_vec()))
            .collect();
        assert_eq!(
            self.entries.keys().collect::<Vec<_>>(),
            expected.keys().collect::<Vec<_>>(),
            "{:?}",
            self.scope
        );
        assert_eq!(self.entries, expected, "{:?}", self.scope);
        let secrets = cluster.secrets.iter().filter(|(tenant, _)| holds(&tenant.parse().expect("a name")));
        let secrets: BTreeMap<String, u8> =
            secrets.map(|(tenant, secret)| (tenant.clone(), *secret)).collect();
        assert_eq!(self.secrets, secrets, "{:?}", self.scope);
    }
}

fn tenant_of(key: &str) -> String {
    key.split('/').next().unwrap_or_default().to_owned()
}

/// The tenants that a part of an update speaks of.
fn mentioned(part: &Update) -> Vec<String> {
    let keys = part.upserts.iter().map(|entry| &entry.key).chain(&part.deletes).map(|key| tenant_of(key));
    let secrets = part.secrets.iter().filter_map(|secret| secret.id.as_ref());
    let secrets = secrets.chain(&part.secret_deletes).map(|id| id.tenant.clone());
    keys.chain(secrets).chain(part.tenant_deletes.iter().cloned()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn a_node_of_a_scope_hears_of_no_other_tenant_and_holds_the_full_state_filtered(
        steps in prop::collection::vec(any_step(), 1..48),
    ) {
        let mut cluster = Cluster::new();
        let mut nodes = scopes().map(|scope| Node {
            scope,
            key: NodeSealKey::generate().expect("a key"),
            revision: Revision::NONE,
            entries: BTreeMap::new(),
            secrets: BTreeMap::new(),
        });
        for step in &steps {
            cluster.change(step);
            if let Step::Sync { node, is_new_process } = step {
                nodes[*node].sync(&cluster, *is_new_process);
                nodes[*node].check(&cluster);
            }
        }
        for node in &mut nodes {
            node.sync(&cluster, false);
            node.check(&cluster);
        }
    }
}
