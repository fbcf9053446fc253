//! What a node of a scope is sent, over histories of tenants that come, go and move and of rollouts that begin, go on and
//! end, by members that were started anew meanwhile: never anything of a tenant that it neither held nor is to hold, nor of
//! a rollout that has not come to it, and always exactly the full state filtered, with its rollouts laid over.

use std::collections::BTreeMap;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::ban::{Ban, BanTarget};
use gantry_model::rollout::{End, Ended, Stage, Thresholds};
use gantry_model::{Labels, RegionName, ResourceId, Rollout, RolloutId, Secret, Spec, document};
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
    /// What a tenant's agents are to be, and whether its credential goes.
    Begin {
        tenant: &'static str,
        agents: Vec<&'static str>,
        is_credential_gone: bool,
        share: u8,
    },
    Advance {
        tenant: &'static str,
    },
    End {
        tenant: &'static str,
        is_promoted: bool,
    },
    /// A member forgets what was before.
    Restart {
        member: usize,
    },
    /// One of the nodes takes what changed since it last did.
    Sync {
        node: usize,
        member: usize,
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
        3 => (tenant(), prop::sample::subsequence(vec!["bot", "new"], 1..=2), any::<bool>(), 1..100_u8).prop_map(
            |(tenant, agents, is_credential_gone, share)| {
                Step::Begin { tenant, agents, is_credential_gone, share }
            }
        ),
        2 => tenant().prop_map(|tenant| Step::Advance { tenant }),
        2 => (tenant(), any::<bool>()).prop_map(|(tenant, is_promoted)| Step::End { tenant, is_promoted }),
        1 => (0..2_usize).prop_map(|member| Step::Restart { member }),
        7 => (0..4_usize, 0..2_usize, prop::bool::weighted(0.2)).prop_map(
            |(node, member, is_new_process)| Step::Sync { node, member, is_new_process }
        ),
    ]
}

fn scopes() -> [Scope; 4] {
    let of = |tenants: &[&str], region: Option<&str>, labels: &[&str]| {
        Scope::Of(Labels {
            tenants: tenants.iter().map(|tenant| tenant.parse().expect("a name")).collect(),
            region: region.map(|region| region.parse().expect("a name")),
            labels: labels.iter().map(|label| label.parse().expect("a name")).collect(),
        })
    };
    [
        Scope::Everything,
        of(&[], Some("eu"), &["canary"]),
        of(&["amber", "birch"], Some("us"), &[]),
        of(&["amber"], None, &["canary", "large"]),
    ]
}

/// A cluster, what two members know of it, and what its credentials are.
struct Cluster {
    _directory: tempfile::TempDir,
    vault: Vault,
    feeds: [Feed; 2],
    revision: u64,
    secrets: BTreeMap<String, u8>,
}

impl Cluster {
    fn new() -> Cluster {
        let directory = tempfile::tempdir().expect("a directory");
        let cluster = Vault::found(directory.path()).expect("a key file");
        let vault = Vault::unseal(directory.path(), &cluster).expect("the key");
        let (feeds, secrets) = ([(); 2].map(|()| Feed::new()), BTreeMap::new());
        let mut made = Cluster { _directory: directory, vault, feeds, revision: 0, secrets };
        made.apply(&Command::Bootstrap(cluster));
        made
    }

    /// Whether it was done.
    fn apply(&mut self, command: &Command) -> bool {
        self.revision += 1;
        let mut state = self.state();
        let applied = state.apply(Revision(self.revision), command);
        for feed in &self.feeds {
            feed.publish(Revision(self.revision), applied.changes.clone(), state.clone());
        }
        matches!(applied.outcome, Outcome::Done(_))
    }

    fn state(&self) -> State {
        self.feeds[0].latest().state
    }

    /// What a node is to be served, worked out as if the rollouts that have come to it were in force.
    fn served(&self, node: &Node) -> State {
        let state = self.state();
        let mut served = state.without_rollouts();
        for (rollout, _) in
            state.running_rollouts().filter(|(rollout, _)| rollout.has(node.name, &node.scope))
        {
            let (applied, deleted) = (rollout.applied.clone(), rollout.deleted.clone());
            for command in [Command::Apply(applied), Command::Delete(deleted)] {
                let outcome = served.apply(rollout.begun, &command).outcome;
                assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
            }
        }
        served
    }

    fn begin(&mut self, tenant: &TenantName, agents: &[&str], is_credential_gone: bool, share: u8) {
        let agent = |name: &&str| {
            let spec = json!({"description": "staged"});
            let agent = json!({"kind": "Agent", "tenant": tenant.as_str(), "name": name, "spec": spec});
            document::parse(agent).expect("a document")
        };
        let credential = ResourceId::credential(tenant, &"token".parse().expect("a name"));
        self.apply(&Command::BeginRollout(Box::new(Rollout {
            tenant: tenant.clone(),
            id: RolloutId(self.revision.to_be_bytes()),
            applied: agents.iter().map(agent).collect(),
            deleted: is_credential_gone.then_some(credential).into_iter().collect(),
            resource_count: 1,
            checked: Revision(self.revision),
            begun: Revision::NONE,
            stages: vec![Stage::Label("canary".parse().expect("a name")), Stage::Share(share)],
            stage: 0,
            pause_seconds: None,
            thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
            by: "root".to_owned(),
            begun_at_ms: 1,
            ended: None,
        })));
    }

    /// Decides about the rollout of a tenant, if there is one.
    fn decide(&mut self, tenant: &TenantName, end: Option<End>) {
        let state = self.state();
        let Some((rollout, _)) = state.rollout(tenant) else { return };
        let (at, is_credential_gone) = (rollout.at(), !rollout.deleted.is_empty());
        let command = match end {
            None => Command::AdvanceRollout(at),
            Some(how) => {
                let (reason, by) = (String::new(), "root".to_owned());
                Command::EndRollout { at, end: Ended { how, reason, by, at_ms: 2 } }
            }
        };
        if self.apply(&command) && end == Some(End::Promoted) && is_credential_gone {
            self.secrets.remove(tenant.as_str());
        }
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
            Step::Begin { tenant, agents, is_credential_gone, share } => {
                self.begin(&name(tenant), agents, *is_credential_gone, *share);
            }
            Step::Advance { tenant } => self.decide(&name(tenant), None),
            Step::End { tenant, is_promoted } => {
                self.decide(&name(tenant), Some(if *is_promoted { End::Promoted } else { End::Aborted }));
            }
            Step::Restart { member } => self.feeds[*member].reset(Revision(self.revision), self.state()),
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
    name: &'static str,
    scope: Scope,
    key: NodeSealKey,
    revision: Revision,
    entries: BTreeMap<String, Vec<u8>>,
    /// By tenant.
    secrets: BTreeMap<String, u8>,
}

impl Node {
    fn sync(&mut self, cluster: &Cluster, member: usize, is_new_process: bool) {
        let feed = &cluster.feeds[member];
        let (view, held) = (feed.latest(), self.tenants());
        let (revision, is_any) = (self.revision, self.revision > Revision::NONE);
        if let Some(past) = feed.past_at(revision).filter(|_| is_any) {
            assert_eq!(past.digest(self.name, &self.scope), self.digest(), "any member lets it go on");
        }
        let since = feed.since(revision).filter(|_| is_any);
        if is_new_process {
            self.secrets.clear();
        }
        let key = self.key.public_key();
        let builder = Builder::new(&cluster.vault, &view, &key, (self.name, &self.scope));
        let built = match since {
            Some(since) => {
                let built = builder.delta(revision, &since, is_new_process).expect("a delta");
                let is_changed = |key: &str| since.changes.iter().any(|change| change.key == key);
                let upserts = built.parts.iter().flat_map(|part| &part.upserts);
                for entry in upserts.filter(|entry| !is_changed(&entry.key)) {
                    let is_known = self.entries.get(&entry.key).is_some_and(|known| *known == entry.record);
                    assert!(
                        !is_known || self.has_moved(&since, &entry.key),
                        "{} was there already",
                        entry.key
                    );
                }
                built
            }
            None => {
                self.entries.clear();
                self.secrets.clear();
                builder.snapshot().expect("a snapshot")
            }
        };
        assert!(built.unopened.is_empty());
        let told: BTreeSet<String> = built.parts.iter().flat_map(mentioned).collect();
        built.parts.iter().for_each(|part| self.forget(part));
        built.parts.iter().for_each(|part| self.take(part));
        self.revision = built.revision;
        let known: BTreeSet<String> = held.union(&self.tenants()).cloned().collect();
        assert!(told.is_subset(&known), "{:?} was told of {told:?} and has to do with {known:?}", self.scope);
        let digest = self.digest();
        assert_eq!(
            (digest, &built.parts.last().expect("a part").digest_after),
            (built.digest, &digest.to_bytes().to_vec())
        );
    }

    fn digest(&self) -> Digest {
        let mut digest = Digest::default();
        self.entries.iter().for_each(|(key, record)| digest.add(key, record));
        digest
    }

    /// Whether a tenant came as a whole.
    fn has_moved(&self, since: &Since, key: &str) -> bool {
        let tenant = tenant_of(key).parse().expect("a name");
        !since.before.digests.has(&self.scope, &tenant)
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
        let state = cluster.served(self);
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
        let is_there = |tenant: &TenantName| {
            state.secret(tenant, &"token".parse().expect("a name")).is_some() && holds(tenant)
        };
        let secrets = cluster.secrets.iter().filter(|(tenant, _)| is_there(&tenant.parse().expect("a name")));
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
    #[test]
    fn a_node_of_a_scope_hears_of_no_other_tenant_and_holds_the_full_state_filtered(
        steps in prop::collection::vec(any_step(), 1..64),
    ) {
        let mut cluster = Cluster::new();
        let mut names = ["n0", "n1", "n2", "n3"].into_iter();
        let mut nodes = scopes().map(|scope| Node {
            name: names.next().expect("a name"),
            scope,
            key: NodeSealKey::generate().expect("a key"),
            revision: Revision::NONE,
            entries: BTreeMap::new(),
            secrets: BTreeMap::new(),
        });
        for step in &steps {
            cluster.change(step);
            if let Step::Sync { node, member, is_new_process } = step {
                nodes[*node].sync(&cluster, *member, *is_new_process);
                nodes[*node].check(&cluster);
            }
        }
        for node in &mut nodes {
            node.sync(&cluster, 0, false);
            node.check(&cluster);
        }
    }
}
