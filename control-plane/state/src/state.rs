//! The state: a persistent map of records, their bytes, and the digests of what nodes receive.
//!
//! Always holds: every entry's bytes are the encoding of its record, and its key is the record's; `digests` are over
//! exactly the entries whose kind nodes receive. Cloning takes constant time and gives an immutable view.

mod indexed;

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_model::admin::Admin;
use gantry_model::digest::Digest;
use gantry_model::name::{AgentName, CredentialName, ServerName, TenantName};
use gantry_model::record::{Cluster, Record, RecordKey, RecordKind, RecordValue, SealedSecret, TenantKey};
use gantry_model::resource::Pin;
use gantry_model::{
    AgentKey, Catalog, Kind, Name, RegionName, Resource, ResourceId, Revision, Rollout, Spec,
};
use gantry_wire::{WireError, decode_record, encode_record};
use rpds::{RedBlackTreeMapSync, RedBlackTreeSetSync};

use crate::digests::Digests;
use crate::outcome::Change;

/// The replicated state.
#[derive(Debug, Clone, Default)]
pub struct State {
    entries: RedBlackTreeMapSync<Arc<str>, Entry>,
    digests: Digests,
    /// Keys of bans, so that they are found without looking at everything.
    bans: RedBlackTreeSetSync<Arc<str>>,
    /// Keys of rollouts that run, likewise.
    rollouts: RedBlackTreeSetSync<Arc<str>>,
    /// Keys of approvals, likewise.
    approvals: RedBlackTreeSetSync<Arc<str>>,
}

#[derive(Debug, Clone)]
struct Entry {
    record: Record,
    bytes: Arc<[u8]>,
}

/// A stored entry that this build cannot read.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The bytes are no record.
    #[error("the record {key:?} cannot be read")]
    Unreadable {
        /// Its key.
        key: String,
        /// Why.
        #[source]
        source: WireError,
    },
    /// The record belongs elsewhere.
    #[error("the record under {key:?} is that of {actual:?}")]
    Misplaced {
        /// Where it stood.
        key: String,
        /// Where it belongs.
        actual: String,
    },
}

impl State {
    /// Reads back what [`State::entries`] gave. Fails on the first entry that is not as it was written.
    pub fn load(entries: impl IntoIterator<Item = (String, Vec<u8>)>) -> Result<State, LoadError> {
        let mut state = State::default();
        for (key, bytes) in entries {
            let record =
                decode_record(&bytes).map_err(|source| LoadError::Unreadable { key: key.clone(), source })?;
            let actual = record.value.key().to_string();
            if actual != key {
                return Err(LoadError::Misplaced { key, actual });
            }
            state.insert(record, bytes.into());
        }
        Ok(state)
    }

    /// Everything that must be stored, in the order of the keys.
    pub fn entries(&self) -> impl Iterator<Item = (&str, Arc<[u8]>)> {
        self.entries.iter().map(|(key, entry)| (key.as_ref(), entry.bytes.clone()))
    }

    /// The entries of a tenant that nodes receive, with their keys.
    pub fn entries_for_nodes<'a>(
        &'a self,
        tenant: &TenantName,
    ) -> impl Iterator<Item = (&'a str, Arc<[u8]>)> + use<'a> {
        let of_tenant = self.range(&RecordKey::tenant_prefix(tenant));
        let for_nodes = of_tenant.filter(|(_, entry)| entry.record.value.key().kind().is_for_nodes());
        for_nodes.map(|(key, entry)| (key, entry.bytes.clone()))
    }

    /// Digest of everything that nodes receive.
    pub fn digest(&self) -> Digest {
        self.digests.all()
    }

    /// Digests of what nodes hold, by scope.
    pub fn digests(&self) -> &Digests {
        &self.digests
    }

    /// The entries whose keys begin so.
    fn range(&self, prefix: &str) -> std::vec::IntoIter<(&str, &Entry)> {
        let begin = (std::ops::Bound::Included(prefix), std::ops::Bound::Unbounded);
        let entries = self.entries.range::<str, _>(begin).map(|(key, entry)| (key.as_ref(), entry));
        entries.take_while(|(key, _)| key.starts_with(prefix)).collect::<Vec<_>>().into_iter()
    }

    /// How many records there are.
    pub fn len(&self) -> usize {
        self.entries.size()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The record under a key.
    pub fn record(&self, key: &RecordKey) -> Option<&Record> {
        self.entries.get(key.to_string().as_str()).map(|entry| &entry.record)
    }

    /// The bytes under a key in its text form.
    pub fn bytes(&self, key: &str) -> Option<Arc<[u8]>> {
        self.entries.get(key).map(|entry| entry.bytes.clone())
    }

    /// A resource and the revision of its last change.
    pub fn resource(&self, id: &ResourceId) -> Option<(&Arc<Resource>, &Record)> {
        let record = self.record(&RecordKey::from(id))?;
        match &record.value {
            RecordValue::Resource(resource) => Some((resource, record)),
            _ => None,
        }
    }

    /// Every record, in the order of the keys.
    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.entries.iter().map(|(_, entry)| &entry.record)
    }

    /// The records of a tenant.
    pub fn tenant_records<'a>(&'a self, tenant: &TenantName) -> impl Iterator<Item = &'a Record> + use<'a> {
        self.range(&RecordKey::tenant_prefix(tenant)).map(|(_, entry)| &entry.record)
    }

    /// The names of a kind in a tenant; for [`Kind::Tenant`], of all tenants.
    pub fn names(&self, tenant: &TenantName, kind: Kind) -> Vec<String> {
        let of_kind = |record: &Record| match &record.value {
            RecordValue::Resource(resource) if resource.spec.kind() == kind => {
                Some(resource.name.to_string())
            }
            _ => None,
        };
        match kind {
            Kind::Tenant => self.records().filter_map(of_kind).collect(),
            _ => self.tenant_records(tenant).filter_map(of_kind).collect(),
        }
    }

    /// What a server was last seen to offer.
    pub fn catalog(&self, tenant: &TenantName, server: &ServerName) -> Option<&Arc<Catalog>> {
        match &self.record(&RecordKey::of(tenant, RecordKind::Catalog, server))?.value {
            RecordValue::Catalog(catalog) => Some(catalog),
            _ => None,
        }
    }

    /// What becomes of a server's changed definitions; `None`: there is no such server.
    pub fn pin(&self, tenant: &TenantName, server: &ServerName) -> Option<Pin> {
        match &self.resource(&ResourceId::server(tenant, server))?.0.spec {
            Spec::Server(server) => Some(server.pin),
            _ => None,
        }
    }

    /// What is to be recorded when a node reports a catalog; `None`: nothing, or its server is not there.
    pub fn catalog_after(&self, reported: &Catalog) -> Option<Catalog> {
        let pin = self.pin(&reported.tenant, &reported.server)?;
        let stored = self.catalog(&reported.tenant, &reported.server).map(AsRef::as_ref);
        // A node has nothing to say about quarantine.
        if reported.quarantined.is_empty() {
            Catalog::record(stored, reported, pin)
        } else {
            let reported = Catalog { quarantined: Vec::new(), ..reported.clone() };
            Catalog::record(stored, &reported, pin)
        }
    }

    /// The keys of an agent.
    pub fn agent_keys<'a>(
        &'a self,
        tenant: &TenantName,
        agent: &'a AgentName,
    ) -> impl Iterator<Item = &'a Arc<AgentKey>> {
        self.tenant_records(tenant).filter_map(move |record| match &record.value {
            RecordValue::AgentKey(key) if key.agent == *agent => Some(key),
            _ => None,
        })
    }

    /// The sealed secret of a credential.
    pub fn secret(&self, tenant: &TenantName, credential: &CredentialName) -> Option<&Arc<SealedSecret>> {
        match &self.record(&RecordKey::of(tenant, RecordKind::SealedSecret, credential))?.value {
            RecordValue::SealedSecret(secret) => Some(secret),
            _ => None,
        }
    }

    /// A tenant's newest data key.
    pub fn tenant_key(&self, tenant: &TenantName) -> Option<&Arc<TenantKey>> {
        self.tenant_records(tenant)
            .filter_map(|record| match &record.value {
                RecordValue::TenantKey(key) => Some(key),
                _ => None,
            })
            .max_by_key(|key| key.version)
    }

    /// The cluster's facts, once they are written.
    pub fn cluster(&self) -> Option<&Arc<Cluster>> {
        match &self.record(&RecordKey::cluster())?.value {
            RecordValue::Cluster(cluster) => Some(cluster),
            _ => None,
        }
    }

    /// An admin.
    pub fn admin(&self, name: &Name) -> Option<&Arc<Admin>> {
        match &self.record(&RecordKey::admin(name))?.value {
            RecordValue::Admin(admin) => Some(admin),
            _ => None,
        }
    }

    /// A tenant's rollout, the latest, and the revision at which it came to its stage, or ended.
    pub fn rollout(&self, tenant: &TenantName) -> Option<(&Arc<Rollout>, Revision)> {
        of_rollout(self.record(&RecordKey::rollout(tenant))?)
    }

    /// Whether a rollout that runs changes a resource, which may be there for the nodes of its stages alone.
    pub fn is_staged(&self, id: &ResourceId) -> bool {
        self.rollout(&id.tenant).is_some_and(|(rollout, _)| rollout.is_running() && rollout.touches(id))
    }

    /// The tenants that have or had a rollout. Takes time by the number of records.
    pub fn tenants_with_rollouts(&self) -> Vec<TenantName> {
        let of_record = |record: &Record| of_rollout(record).map(|(rollout, _)| rollout.tenant.clone());
        self.records().filter_map(of_record).collect()
    }

    /// The rollouts that run, by tenant.
    pub fn running_rollouts(&self) -> impl ExactSizeIterator<Item = (&Arc<Rollout>, Revision)> {
        let running = self.rollouts.iter().filter_map(|key| of_rollout(&self.entries.get(key)?.record));
        running.collect::<Vec<_>>().into_iter()
    }

    /// The admins, by name.
    pub fn admins(&self) -> impl Iterator<Item = &Arc<Admin>> {
        self.range(RecordKey::ADMINS).filter_map(|(_, entry)| match &entry.record.value {
            RecordValue::Admin(admin) => Some(admin),
            _ => None,
        })
    }

    /// What there would be if these were the only tenants: their records and the cluster's facts, without admins.
    /// Takes time by the number of their records. Its digest is not that of a state.
    pub fn only(&self, tenants: &BTreeSet<TenantName>) -> State {
        let mut only = State::default();
        let cluster = self.record(&RecordKey::cluster());
        let records = tenants.iter().flat_map(|tenant| self.tenant_records(tenant));
        for record in records.chain(cluster) {
            let key = record.value.key().to_string();
            if let Some(bytes) = self.bytes(&key) {
                only.index(&key, record);
                only.entries.insert_mut(key.as_str().into(), Entry { record: record.clone(), bytes });
            }
        }
        only
    }

    /// The revisions at which tenants were last changed, deletions among them. Those of the cluster's own records are not
    /// among them.
    pub fn tenant_revisions(&self) -> BTreeSet<Revision> {
        let of_tenants = self.records().filter(|record| record.value.key().tenant().is_some());
        of_tenants.map(|record| record.revision).collect()
    }

    /// What proposers are remembered for.
    pub(crate) fn proposers(&self) -> impl Iterator<Item = &Record> {
        self.range(RecordKey::PROPOSERS).map(|(_, entry)| &entry.record)
    }

    /// Stores a record.
    pub(crate) fn put(&mut self, record: Record) -> Change {
        let bytes: Arc<[u8]> = encode_record(&record).into();
        let key = self.insert(record, bytes.clone());
        Change { key, value: Some(bytes) }
    }

    /// Removes a record; `None` when it is not there.
    pub(crate) fn remove(&mut self, key: &RecordKey) -> Option<Change> {
        let text = key.to_string();
        let entry = self.entries.get(text.as_str())?;
        if let Some(tenant) = key.tenant().filter(|_| key.kind().is_for_nodes()) {
            self.digests.remove(tenant, Digest::of(&text, &entry.bytes));
            if key.kind() == RecordKind::Resource(Kind::Tenant) {
                self.digests.place(tenant, &BTreeSet::new());
            }
        }
        match key.kind() {
            RecordKind::Ban => self.bans.remove_mut(text.as_str()),
            RecordKind::Rollout => self.rollouts.remove_mut(text.as_str()),
            RecordKind::ApprovalRequest => self.approvals.remove_mut(text.as_str()),
            _ => false,
        };
        self.entries.remove_mut(text.as_str());
        Some(Change { key: text, value: None })
    }

    fn insert(&mut self, record: Record, bytes: Arc<[u8]>) -> String {
        let key = record.value.key();
        let text = key.to_string();
        if let Some(tenant) = key.tenant().filter(|_| key.kind().is_for_nodes()) {
            let before = self.entries.get(text.as_str()).map(|before| Digest::of(&text, &before.bytes));
            self.digests.put(tenant, before, Digest::of(&text, &bytes));
            if let Some(regions) = regions(&record) {
                self.digests.place(tenant, regions);
            }
        }
        self.index(&text, &record);
        self.entries.insert_mut(text.as_str().into(), Entry { record, bytes });
        text
    }

    /// Has a record be found by what it is.
    fn index(&mut self, key: &str, record: &Record) {
        match &record.value {
            RecordValue::Ban(_) => self.bans.insert_mut(key.into()),
            RecordValue::ApprovalRequest(_) => self.approvals.insert_mut(key.into()),
            RecordValue::Rollout(rollout) if rollout.is_running() => self.rollouts.insert_mut(key.into()),
            RecordValue::Rollout(_) => {
                self.rollouts.remove_mut(key);
            }
            _ => {}
        }
    }
}

fn of_rollout(record: &Record) -> Option<(&Arc<Rollout>, Revision)> {
    match &record.value {
        RecordValue::Rollout(rollout) => Some((rollout, record.revision)),
        _ => None,
    }
}

/// Where the nodes are that may hold a tenant, if the record is of one.
fn regions(record: &Record) -> Option<&BTreeSet<RegionName>> {
    match &record.value {
        RecordValue::Resource(resource) => match &resource.spec {
            Spec::Tenant(tenant) => Some(&tenant.regions),
            _ => None,
        },
        _ => None,
    }
}
