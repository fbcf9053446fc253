//! Applying a command: the only place where the state changes.
//!
//! Always holds: the change is worked out on a candidate (a clone, in constant time) which replaces the state only
//! when nothing was refused; so a refused command leaves no trace.

use std::collections::HashSet;
use std::sync::Arc;

use gantry_model::admin::AdminChange;
use gantry_model::catalog::ApproveError;
use gantry_model::enrolment::EnrolmentChange;
use gantry_model::key::KeyId;
use gantry_model::nearest::nearest;
use gantry_model::record::{Cluster, Record, RecordKey, RecordKind, RecordValue, SealedSecret, TenantKey};
use gantry_model::reference::{dangling, references};
use gantry_model::{
    AgentKey, Approval, BanTarget, Catalog, Kind, Resource, ResourceId, Revision, ServerName, TenantName,
};
use gantry_wire::Command;

use crate::admins::{self, Changed};
use crate::enrolment;
use crate::expected;
use crate::issuers;
use crate::outcome::{Applied, Change, ChangeKind, Outcome, Refusal};
use crate::providers;
use crate::state::State;

/// Most documents in one command: a set larger than this is applied in parts by whoever wrote it.
pub const APPLY_RESOURCES_MAX: usize = 10_000;
/// Keys of an agent that count when another is made: rotation needs two, a fleet that shares an identity a few more.
/// Revoked ones are not among them, and stay within the bound of bans; lifting those may lead beyond this one.
pub const AGENT_KEYS_MAX: usize = 64;

impl State {
    /// Applies one command at a revision. Total and deterministic.
    pub fn apply(&mut self, revision: Revision, command: &Command) -> Applied {
        let mut draft = Draft::new(self.clone(), revision);
        let outcome = match command {
            Command::Expecting { revision: expected, command } => {
                let refusals = expected::changed_since(self, *expected, revision, command);
                return match refusals.is_empty() {
                    true => self.apply(revision, command),
                    false => Applied { outcome: Outcome::Refused(refusals), changes: Vec::new() },
                };
            }
            Command::Bootstrap(cluster) => draft.bootstrap(cluster),
            Command::Apply(resources) => {
                draft.apply(resources).and_then(|done| draft.respecting_rollouts(self, done))
            }
            Command::Delete(ids) => draft.delete(ids).and_then(|done| draft.respecting_rollouts(self, done)),
            Command::PutKey(key) => draft.put_key(key),
            Command::RevokeKey { tenant, id } => draft.revoke_key(tenant, *id),
            Command::PutSecret { secret, tenant_key } => draft.put_secret(secret, tenant_key.as_ref()),
            Command::PutCatalog(catalog) => draft.put_catalog(catalog),
            Command::ApproveCatalog { tenant, server, approvals } => {
                draft.approve_catalog(tenant, server, approvals)
            }
            Command::RotateNodeKeys { generation, nonce, wrapped, rotated_at_ms } => {
                draft.rotate_node_keys(*generation, (*nonce, wrapped), *rotated_at_ms)
            }
            Command::ChangeEnrolment(change) => draft.change_enrolment(change),
            Command::ChangeAdmin(change) => draft.change_admin(change),
            Command::PutBan(ban) => draft.put_ban(ban),
            Command::LiftBan { tenant, target } => draft.lift_ban(tenant, target),
            Command::AskApproval { id, call, arguments, at_ms } => {
                draft.ask_approval(*id, call, arguments, *at_ms)
            }
            Command::VoteOnApproval { tenant, id, vote } => draft.vote_on_approval(tenant, *id, vote),
            Command::TakeApproval { id, call, taking } => draft.take_approval(*id, call, taking),
            Command::BeginRollout(rollout) => draft.begin_rollout(rollout),
            Command::AdvanceRollout(at) => draft.advance_rollout(at),
            Command::EndRollout { at, end } => draft.end_rollout(at, end),
        };
        match outcome {
            Ok(done) => {
                draft.remember_deletions();
                *self = draft.state;
                Applied { outcome: Outcome::Done(done), changes: draft.changes }
            }
            Err(refusals) => Applied { outcome: Outcome::Refused(refusals), changes: Vec::new() },
        }
    }
}

pub(crate) type Done = Result<Vec<(ResourceId, ChangeKind)>, Vec<Refusal>>;

pub(crate) struct Draft {
    pub(crate) state: State,
    pub(crate) revision: Revision,
    pub(crate) changes: Vec<Change>,
    /// What the command deletes by its name.
    pub(crate) deleted: Vec<RecordKey>,
}

impl Draft {
    pub(crate) fn new(state: State, revision: Revision) -> Draft {
        Draft { state, revision, changes: Vec::new(), deleted: Vec::new() }
    }

    fn bootstrap(&mut self, cluster: &Cluster) -> Done {
        if self.state.cluster().is_some() {
            return refused("the cluster exists already");
        }
        self.put(RecordValue::Cluster(Arc::new(cluster.clone())));
        Ok(Vec::new())
    }

    pub(crate) fn apply(&mut self, resources: &[Resource]) -> Done {
        if resources.len() > APPLY_RESOURCES_MAX {
            return refused(format!("a set has at most {APPLY_RESOURCES_MAX} documents"));
        }
        let mut done = Vec::with_capacity(resources.len());
        let mut seen = HashSet::with_capacity(resources.len());
        let mut refusals = Vec::new();
        for (index, resource) in resources.iter().enumerate() {
            let id = resource.id();
            if !seen.insert(id.clone()) {
                refusals.push(Refusal::of(index, format!("{id} stands twice in the set")));
                continue;
            }
            let kind = match self.state.resource(&id) {
                None => ChangeKind::Created,
                Some((stored, _)) if stored.as_ref() == resource => ChangeKind::Unchanged,
                Some(_) => ChangeKind::Updated,
            };
            if kind != ChangeKind::Unchanged {
                self.put(RecordValue::Resource(Arc::new(resource.clone())));
            }
            done.push((id, kind));
        }
        // Only now, so that the documents of a set may refer to each other in any order.
        refusals.extend(
            resources.iter().enumerate().flat_map(|(index, resource)| self.dangling(index, resource)),
        );
        refusals.extend(providers::ambiguous(&self.state, resources));
        if refusals.is_empty() { Ok(done) } else { Err(refusals) }
    }

    fn dangling(&self, index: usize, resource: &Resource) -> Vec<Refusal> {
        let exists = |id: &ResourceId| self.state.resource(id).is_some();
        let names = |kind: Kind| self.state.names(&resource.tenant, kind);
        dangling(resource, exists, names)
            .into_iter()
            .map(|problem| Refusal {
                index,
                message: format!("there is no {}", problem.reference.target),
                path: problem.reference.path,
                nearest: problem.nearest,
            })
            .collect()
    }

    pub(crate) fn delete(&mut self, ids: &[ResourceId]) -> Done {
        let mut done = Vec::with_capacity(ids.len());
        let mut refusals = Vec::new();
        for (index, id) in ids.iter().enumerate() {
            if self.delete_named(&RecordKey::from(id)) {
                self.remove_dependents(id);
                done.push((id.clone(), ChangeKind::Deleted));
            } else {
                let names = self.state.names(&id.tenant, id.kind);
                let near = nearest(id.name.as_str(), names.iter().map(String::as_str));
                let nearest = near.map(str::to_owned);
                refusals.push(Refusal { nearest, ..Refusal::of(index, format!("there is no {id}")) });
            }
        }
        refusals.extend(ids.iter().enumerate().flat_map(|(index, id)| self.referrers(index, id)));
        if refusals.is_empty() { Ok(done) } else { Err(refusals) }
    }

    fn remove_dependents(&mut self, id: &ResourceId) {
        for key in dependents(&self.state, id) {
            self.remove(&key);
        }
        if id.kind == Kind::Tenant {
            for admin in admins::without(&self.state, &id.tenant) {
                self.put(RecordValue::Admin(Arc::new(admin)));
            }
            let cluster = self.state.cluster().cloned();
            let enrolment =
                cluster.as_ref().and_then(|cluster| issuers::without(&cluster.enrolment, &id.tenant));
            if let (Some(cluster), Some(enrolment)) = (cluster, enrolment) {
                self.put(RecordValue::Cluster(Arc::new(Cluster { enrolment, ..cluster.as_ref().clone() })));
            }
        }
    }

    fn referrers(&self, index: usize, id: &ResourceId) -> Vec<Refusal> {
        if self.state.resource(id).is_some() {
            return Vec::new();
        }
        self.state
            .tenant_records(&id.tenant)
            .filter_map(|record| match &record.value {
                RecordValue::Resource(resource) => Some(resource),
                _ => None,
            })
            .filter(|resource| references(resource).iter().any(|reference| reference.target == *id))
            .map(|resource| Refusal::of(index, format!("{id} is still named by {}", resource.id())))
            .collect()
    }

    fn put_key(&mut self, key: &AgentKey) -> Done {
        let agent = ResourceId::agent(&key.tenant, &key.agent);
        self.require(&agent)?;
        let is_good = |key: &&Arc<AgentKey>| self.state.ban(&key.tenant, &BanTarget::Key(key.id)).is_none();
        if self.state.agent_keys(&key.tenant, &key.agent).filter(is_good).count() >= AGENT_KEYS_MAX {
            return refused(format!("{agent} has {AGENT_KEYS_MAX} keys already; revoke one"));
        }
        let value = RecordValue::AgentKey(Arc::new(key.clone()));
        if self.state.record(&value.key()).is_some() {
            return refused("a key of this id exists already");
        }
        self.put(value);
        Ok(Vec::new())
    }

    fn revoke_key(&mut self, tenant: &TenantName, id: KeyId) -> Done {
        if self.delete_named(&RecordKey::of(tenant, RecordKind::AgentKey, id)) {
            Ok(Vec::new())
        } else {
            refused(format!("tenant {tenant} has no key {id}"))
        }
    }

    fn put_secret(&mut self, secret: &SealedSecret, tenant_key: Option<&TenantKey>) -> Done {
        self.require(&ResourceId::credential(&secret.tenant, &secret.credential))?;
        match (self.state.tenant_key(&secret.tenant), tenant_key) {
            (None, Some(key)) if key.tenant == secret.tenant && key.version == secret.tenant_key_version => {
                self.put(RecordValue::TenantKey(Arc::new(key.clone())));
            }
            (Some(key), None) if key.version == secret.tenant_key_version => {}
            _ => return refused("the tenant's data key changed meanwhile; try again"),
        }
        let stored = self.state.secret(&secret.tenant, &secret.credential).map_or(0, |stored| stored.version);
        if secret.version != stored + 1 {
            return refused("the credential's secret changed meanwhile; try again");
        }
        self.put(RecordValue::SealedSecret(Arc::new(secret.clone())));
        Ok(Vec::new())
    }

    fn put_catalog(&mut self, catalog: &Catalog) -> Done {
        self.require(&ResourceId::server(&catalog.tenant, &catalog.server))?;
        if let Some(catalog) = self.state.catalog_after(catalog) {
            self.put(RecordValue::Catalog(Arc::new(catalog)));
        }
        Ok(Vec::new())
    }

    fn approve_catalog(&mut self, tenant: &TenantName, server: &ServerName, approvals: &[Approval]) -> Done {
        self.require(&ResourceId::server(tenant, server))?;
        if approvals.is_empty() {
            return refused("the approval names no definition");
        }
        let Some(stored) = self.state.catalog(tenant, server) else {
            return refused(format!("nothing is recorded of server {tenant}/{server} yet"));
        };
        let refusal = |error: ApproveError| {
            let message = error.to_string();
            let nearest = match error {
                ApproveError::NotQuarantined { nearest, .. } => nearest,
                ApproveError::ChangedAgain { .. } => None,
            };
            Refusal { nearest, ..Refusal::of(0, message) }
        };
        let approved = stored
            .approve(approvals)
            .map_err(|errors| errors.into_iter().map(refusal).collect::<Vec<_>>())?;
        self.put(RecordValue::Catalog(Arc::new(approved)));
        Ok(Vec::new())
    }

    fn rotate_node_keys(
        &mut self,
        generation: u32,
        (nonce, wrapped): ([u8; 12], &[u8]),
        rotated_at_ms: u64,
    ) -> Done {
        let Some(cluster) = self.state.cluster() else { return refused("there is no cluster yet") };
        if cluster.node_keys_generation.checked_add(1) != Some(generation) {
            return refused("the keys of the nodes were rotated meanwhile");
        }
        self.put(RecordValue::Cluster(Arc::new(Cluster {
            node_keys_nonce: nonce,
            node_keys_wrapped: wrapped.to_vec(),
            node_keys_generation: generation,
            node_keys_rotated_at_ms: Some(rotated_at_ms),
            ..cluster.as_ref().clone()
        })));
        Ok(Vec::new())
    }

    fn change_enrolment(&mut self, change: &EnrolmentChange) -> Done {
        let Some(cluster) = self.state.cluster() else { return refused("there is no cluster yet") };
        if let EnrolmentChange::PutAdminIssuer(issuer) = change {
            for tenant in issuer.rules.iter().filter_map(|rule| rule.role.tenant()) {
                self.require(&ResourceId::of_tenant(tenant))?;
            }
        }
        let enrolment = match enrolment::change(&cluster.enrolment, change) {
            Ok(enrolment) => enrolment,
            Err(refusal) => return refused(refusal.to_string()),
        };
        self.put(RecordValue::Cluster(Arc::new(Cluster { enrolment, ..cluster.as_ref().clone() })));
        Ok(Vec::new())
    }

    fn change_admin(&mut self, change: &AdminChange) -> Done {
        match admins::change(&self.state, change) {
            Ok(Changed::Put(admin)) => self.put(RecordValue::Admin(Arc::new(admin))),
            Ok(Changed::Gone(key)) => {
                self.delete_named(&key);
                if let AdminChange::Delete(name) = change {
                    self.unvote(name);
                }
            }
            Err(refusal) => return Err(vec![refusal]),
        }
        Ok(Vec::new())
    }

    fn remember_deletions(&mut self) {
        let deleted = std::mem::take(&mut self.deleted);
        for deletions in expected::remember(&self.state, self.revision, &deleted) {
            self.put(RecordValue::Deletions(Arc::new(deletions)));
        }
    }

    pub(crate) fn require(&self, id: &ResourceId) -> Result<(), Vec<Refusal>> {
        match self.state.resource(id) {
            Some(_) => Ok(()),
            None => {
                let names = self.state.names(&id.tenant, id.kind);
                let near = nearest(id.name.as_str(), names.iter().map(String::as_str));
                let nearest = near.map(str::to_owned);
                Err(vec![Refusal { nearest, ..Refusal::of(0, format!("there is no {id}")) }])
            }
        }
    }

    pub(crate) fn put(&mut self, value: RecordValue) {
        let change = self.state.put(Record { revision: self.revision, value });
        self.changes.push(change);
    }

    /// Removes what the command names, which is remembered.
    pub(crate) fn delete_named(&mut self, key: &RecordKey) -> bool {
        let was_there = self.remove(key);
        if was_there {
            self.deleted.push(key.clone());
        }
        was_there
    }

    pub(crate) fn remove(&mut self, key: &RecordKey) -> bool {
        let change = self.state.remove(key);
        let was_there = change.is_some();
        self.changes.extend(change);
        was_there
    }
}

/// The records that have no life of their own and go with a resource.
pub(crate) fn dependents(state: &State, id: &ResourceId) -> Vec<RecordKey> {
    let belongs = |value: &RecordValue| match (id.kind, value) {
        (Kind::Agent, RecordValue::AgentKey(key)) => key.agent.as_name() == &id.name,
        (Kind::Server, RecordValue::Catalog(catalog)) => catalog.server.as_name() == &id.name,
        (Kind::Credential, RecordValue::SealedSecret(secret)) => secret.credential.as_name() == &id.name,
        (Kind::Tenant, value) => goes_with_tenant(value),
        _ => false,
    };
    let records = state.tenant_records(&id.tenant).filter(|record| belongs(&record.value));
    records.map(|record| record.value.key()).collect()
}

/// What of a tenant is none of its resources and ends with it.
fn goes_with_tenant(value: &RecordValue) -> bool {
    matches!(
        value,
        RecordValue::TenantKey(_)
            | RecordValue::Deletions(_)
            | RecordValue::Ban(_)
            | RecordValue::Rollout(_)
            | RecordValue::ApprovalRequest(_)
    )
}

pub(crate) fn refused(message: impl Into<String>) -> Done {
    Err(vec![Refusal::of(0, message)])
}
