//! What changed since the author of a command looked: the guard against lost updates.
//!
//! Always holds: a command that passes changes nothing that was changed or deleted after the revision that its author
//! saw, nor takes anything along that was. Where that is not remembered any more it is refused, too. Which records a
//! command changes can be told from the command and the state, so every voter judges alike.
//!
//! Remembered is what somebody deleted by its name. What went along with it is told by it, and what is forgotten because
//! it is past is nobody's update.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_model::admin::AdminChange;
use gantry_model::deletions::{Deletion, Deletions};
use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::{BanTarget, Kind, Name, ResourceId, Revision, TenantName};
use gantry_wire::Command;

use crate::admins::without;
use crate::apply::dependents;
use crate::outcome::Refusal;
use crate::state::State;

/// Deletions that are remembered of each tenant: what a team deletes between a `diff` and its `apply`.
pub const DELETIONS_MAX: usize = 64;

/// Why a command is refused whose author saw `expected`; empty: it is not.
pub(crate) fn changed_since(
    state: &State,
    expected: Revision,
    at: Revision,
    command: &Command,
) -> Vec<Refusal> {
    if expected >= at {
        return vec![Refusal::of(0, format!("there is no revision {} yet", expected.0))];
    }
    let refusal = |(index, key): (usize, RecordKey)| {
        let told = told(state, expected, &key)?;
        Some(Refusal::of(index, format!("{told}, after the expected revision {}", expected.0)))
    };
    touched(state, command).into_iter().filter_map(refusal).collect()
}

/// Remembers what was deleted by its name, by tenant; of a tenant that is gone nothing is.
pub(crate) fn remember(state: &State, revision: Revision, deleted: &[RecordKey]) -> Vec<Deletions> {
    let mut by_tenant: BTreeMap<Option<TenantName>, Vec<Deletion>> = BTreeMap::new();
    for key in deleted {
        let is_tenant = matches!(key.kind(), RecordKind::Resource(Kind::Tenant));
        let tenant = key.tenant().filter(|_| !is_tenant);
        if tenant.is_some_and(|tenant| state.resource(&ResourceId::of_tenant(tenant)).is_none()) {
            continue;
        }
        let deletion = Deletion { key: key.to_string(), revision };
        by_tenant.entry(tenant.cloned()).or_default().push(deletion);
    }
    let known = by_tenant.into_iter().map(|(tenant, new)| {
        let mut deletions = match state.deletions(tenant.as_ref()) {
            Some(known) => known.as_ref().clone(),
            None => Deletions { tenant, forgotten: Revision::NONE, latest: Vec::new() },
        };
        deletions.latest.retain(|known| !new.iter().any(|new| new.key == known.key));
        deletions.latest.extend(new);
        let surplus = deletions.latest.len().saturating_sub(DELETIONS_MAX);
        if let Some(newest) = deletions.latest.drain(..surplus).next_back() {
            deletions.forgotten = newest.revision;
        }
        deletions
    });
    known.collect()
}

/// The records that a command changes, with the place of each in it.
fn touched(state: &State, command: &Command) -> Vec<(usize, RecordKey)> {
    match command {
        Command::Apply(resources) => {
            resources.iter().map(|resource| RecordKey::from(&resource.id())).enumerate().collect()
        }
        Command::Delete(ids) => ids.iter().enumerate().flat_map(|place| goes(state, place)).collect(),
        Command::PutKey(key) => vec![(0, RecordKey::from(&ResourceId::agent(&key.tenant, &key.agent)))],
        Command::RevokeKey { tenant, id } => vec![(0, RecordKey::of(tenant, RecordKind::AgentKey, id))],
        Command::PutSecret { secret, .. } => {
            let credential = RecordKey::from(&ResourceId::credential(&secret.tenant, &secret.credential));
            let secret = RecordKey::of(&secret.tenant, RecordKind::SealedSecret, &secret.credential);
            vec![(0, credential), (0, secret)]
        }
        Command::PutCatalog(catalog) => {
            vec![(0, RecordKey::of(&catalog.tenant, RecordKind::Catalog, &catalog.server))]
        }
        Command::ApproveCatalog { tenant, server, .. } => {
            vec![(0, RecordKey::of(tenant, RecordKind::Catalog, server))]
        }
        Command::ChangeAdmin(change) => vec![(0, RecordKey::admin(admin(change)))],
        Command::Bootstrap(_) | Command::RotateNodeKeys { .. } | Command::ChangeEnrolment(_) => {
            vec![(0, RecordKey::cluster())]
        }
        Command::PutBan(ban) => {
            let target = match &ban.target {
                BanTarget::Agent(agent) => Some(RecordKey::from(&ResourceId::agent(&ban.tenant, agent))),
                BanTarget::User(user) => {
                    Some(RecordKey::from(&ResourceId::provider(&ban.tenant, user.provider())))
                }
                BanTarget::Server(server) => Some(RecordKey::from(&ResourceId::server(&ban.tenant, server))),
                BanTarget::Key(id) => Some(RecordKey::of(&ban.tenant, RecordKind::AgentKey, id)),
                BanTarget::Session(_) | BanTarget::Tenant => None,
            };
            let own = RecordKey::ban(&ban.tenant, &ban.target);
            [Some(own), target].into_iter().flatten().map(|key| (0, key)).collect()
        }
        Command::LiftBan { tenant, target } => vec![(0, RecordKey::ban(tenant, target))],
        // Its change is judged when it is applied, but whoever begins it has seen what it changes.
        Command::BeginRollout(rollout) => {
            let applied = rollout.applied.iter().map(|resource| RecordKey::from(&resource.id())).enumerate();
            let deleted = (rollout.applied.len()..).zip(&rollout.deleted);
            applied.chain(deleted.flat_map(|place| goes(state, place))).collect()
        }
        // Whoever asks, decides or takes saw nothing that another could have changed unseen: it is judged when applied.
        Command::AskApproval { id, call, .. } | Command::TakeApproval { id, call, .. } => {
            vec![(0, RecordKey::approval(&call.tenant, *id))]
        }
        Command::VoteOnApproval { tenant, id, .. } => vec![(0, RecordKey::approval(tenant, *id))],
        Command::AdvanceRollout(at) | Command::EndRollout { at, .. } => {
            vec![(0, RecordKey::rollout(&at.tenant))]
        }
        Command::Expecting { command, .. } => touched(state, command),
    }
}

/// A resource that goes, which is named at a place, with what it takes along.
fn goes(state: &State, (index, id): (usize, &ResourceId)) -> Vec<(usize, RecordKey)> {
    let keys = std::iter::once(RecordKey::from(id)).chain(goes_along(state, id));
    keys.map(|key| (index, key)).collect()
}

/// What a resource takes along, and what its end changes, as far as anybody looks at it.
fn goes_along(state: &State, id: &ResourceId) -> Vec<RecordKey> {
    let dependents = dependents(state, id).into_iter();
    let mut keys: Vec<RecordKey> = dependents.filter(|key| key.kind() != RecordKind::Deletions).collect();
    if id.kind == Kind::Tenant {
        keys.extend(without(state, &id.tenant).iter().map(|admin| RecordKey::admin(&admin.name)));
    }
    keys
}

fn admin(change: &AdminChange) -> &Name {
    match change {
        AdminChange::Create(admin) => &admin.name,
        AdminChange::Rotate { name, .. } | AdminChange::Delete(name) => name,
    }
}

/// What happened to a record after a revision; `None`: nothing.
fn told(state: &State, expected: Revision, key: &RecordKey) -> Option<String> {
    if let Some(record) = state.record(key) {
        let changed = record.revision > expected;
        return changed.then(|| format!("{} was changed at revision {}", title(key), record.revision.0));
    }
    let Some(tenant) = key.tenant() else { return deleted(state.deletions(None)?, expected, key) };
    let its = RecordKey::from(&ResourceId::of_tenant(tenant));
    // A tenant that stands as it was expected to was not made again.
    if state.record(&its).is_some_and(|tenant| tenant.revision <= expected) {
        return deleted(state.deletions(Some(tenant))?, expected, key);
    }
    // What belonged to a tenant that is gone went with it, also when there is another one of its name.
    let with_tenant = state.deletions(None).and_then(|deletions| deleted(deletions, expected, &its));
    with_tenant.or_else(|| deleted(state.deletions(Some(tenant))?, expected, key))
}

/// What is remembered of a record's deletion after a revision.
fn deleted(deletions: &Deletions, expected: Revision, key: &RecordKey) -> Option<String> {
    let text = key.to_string();
    let known = deletions.latest.iter().find(|deletion| deletion.key == text && deletion.revision > expected);
    match known {
        Some(deletion) => Some(format!("{} was deleted at revision {}", title(key), deletion.revision.0)),
        None if deletions.forgotten <= expected => None,
        // When others of the cluster were deleted is not for whoever is bound to one tenant.
        None if deletions.tenant.is_none() => Some(format!("{} may have been deleted", title(key))),
        None => Some(format!("{} may have been deleted by revision {}", title(key), deletions.forgotten.0)),
    }
}

/// A record as people name it.
fn title(key: &RecordKey) -> String {
    let name = key.name();
    let of = |what: &str| match key.tenant() {
        Some(tenant) => format!("{what} {tenant}/{name}"),
        None => format!("{what} {name}"),
    };
    match key.kind() {
        RecordKind::Resource(Kind::Tenant) => format!("Tenant {name}"),
        RecordKind::Resource(kind) => of(kind.as_str()),
        RecordKind::AgentKey => of("key"),
        RecordKind::Catalog => of("the catalog of Server"),
        RecordKind::SealedSecret => of("the secret of Credential"),
        RecordKind::Ban => of("the revocation of"),
        RecordKind::Rollout => match key.tenant() {
            Some(tenant) => format!("the rollout of tenant {tenant}"),
            None => key.to_string(),
        },
        RecordKind::ApprovalRequest => of("approval"),
        RecordKind::TenantKey => of("data key"),
        RecordKind::Admin => of("admin"),
        RecordKind::Cluster => "the cluster's record".to_owned(),
        RecordKind::Proposer | RecordKind::Deletions => key.to_string(),
    }
}

/// The state holds what was deleted in records of its own.
impl State {
    /// What was deleted of late, of a tenant's or of the cluster's.
    pub(crate) fn deletions(&self, tenant: Option<&TenantName>) -> Option<&Arc<Deletions>> {
        match &self.record(&RecordKey::deletions(tenant))?.value {
            RecordValue::Deletions(deletions) => Some(deletions),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
