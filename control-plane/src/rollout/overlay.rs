//! What rollouts make of a state, for nodes in their stages.
//!
//! Always holds: an overlay is worked out from one state and is that state's; of one rollout it says the same of each key
//! for as long as it runs, since nothing else may change what it changes. One that does not fit is none: its nodes are
//! served what all others are.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_control_state::{Change, Digests, State};
use gantry_model::digest::Digest;
use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::{Resource, ResourceId, Revision, Rollout, Scope, TenantName};

/// The overlays of a state, by tenant. Cloning takes constant time.
#[derive(Debug, Clone, Default)]
pub(crate) struct Overlays(Arc<BTreeMap<TenantName, Arc<Overlay>>>);

/// What one rollout makes of a state.
#[derive(Debug)]
struct Overlay {
    rollout: Arc<Rollout>,
    /// When it came to its stage.
    at: Revision,
    /// In the order of the keys.
    changes: Vec<Change>,
    /// What the digest has more, or less, than that of the state.
    difference: Digest,
}

/// What one node is served beyond a state.
#[derive(Debug, Clone, Default)]
pub(crate) struct Laid(Vec<Arc<Overlay>>);

impl Overlays {
    /// Those of a later state; `changes` since this one, where that is known.
    pub(crate) fn after(&self, state: &State, changes: Option<&[Change]>) -> Overlays {
        let running = state.running_rollouts();
        if running.len() == 0 {
            return Overlays::default();
        }
        let overlay = |(rollout, at): (&Arc<Rollout>, Revision)| {
            let prefix = RecordKey::tenant_prefix(&rollout.tenant);
            let is_concerned =
                |change: &Change| change.key.starts_with(prefix.as_str()) && !is_ban(&change.key);
            let is_same = changes.is_some_and(|changes| !changes.iter().any(is_concerned));
            let known = self.0.get(&rollout.tenant).filter(|known| known.is_of(rollout, at));
            let overlay = match known {
                Some(known) if is_same => known.clone(),
                // What is the same is kept once, however many revisions are remembered.
                known => match (Overlay::new(state, rollout, at)?, known) {
                    (new, Some(known)) if new.says_the_same(known) => known.clone(),
                    (new, _) => Arc::new(new),
                },
            };
            Some((rollout.tenant.clone(), overlay))
        };
        Overlays(Arc::new(running.filter_map(overlay).collect()))
    }

    /// Whether these are of the same rollouts, in whatever stage.
    pub(crate) fn are_of_the_same(&self, other: &Overlays) -> bool {
        self.0
            .values()
            .map(|overlay| overlay.rollout.id)
            .eq(other.0.values().map(|overlay| overlay.rollout.id))
    }

    /// Whether there is none.
    pub(crate) fn are_none(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a tenant's rollout runs and fits.
    pub(crate) fn has(&self, tenant: &TenantName) -> bool {
        self.0.contains_key(tenant)
    }

    /// What a node is served beyond the state, which has these digests.
    pub(crate) fn laid(&self, node: &str, scope: &Scope, digests: &Digests) -> Laid {
        let is_in = |overlay: &&Arc<Overlay>| {
            overlay.rollout.has(node, scope) && digests.has(scope, &overlay.rollout.tenant)
        };
        Laid(self.0.values().filter(is_in).cloned().collect())
    }
}

impl Overlay {
    fn new(state: &State, rollout: &Arc<Rollout>, at: Revision) -> Option<Overlay> {
        let changes = state.overlay(rollout).ok()?;
        let mut difference = Digest::default();
        for Change { key, value } in changes.iter().filter(|change| is_for_nodes(&change.key)) {
            if let Some(before) = state.bytes(key) {
                difference.remove(key, &before);
            }
            if let Some(value) = value {
                difference.add(key, value);
            }
        }
        Some(Overlay { rollout: rollout.clone(), at, changes, difference })
    }

    fn is_of(&self, rollout: &Rollout, at: Revision) -> bool {
        self.rollout.id == rollout.id && self.at == at
    }

    fn says_the_same(&self, other: &Overlay) -> bool {
        self.difference == other.difference && self.changes == other.changes
    }

    fn change(&self, key: &str) -> Option<&Change> {
        let at = self.changes.binary_search_by(|change| change.key.as_str().cmp(key));
        self.changes.get(at.ok()?)
    }
}

impl Laid {
    /// The digest of what the node holds, where that of the state is this.
    pub(crate) fn over(&self, mut digest: Digest) -> Digest {
        self.0.iter().for_each(|overlay| digest.add_set(overlay.difference));
        digest
    }

    /// The bytes under a key, as the node is to have them.
    pub(crate) fn bytes(&self, state: &State, key: &str) -> Option<Arc<[u8]>> {
        match self.change(key) {
            Some(change) => change.value.clone(),
            None => state.bytes(key),
        }
    }

    /// Whether the node is to have nothing under a key, though there may be something.
    pub(crate) fn deletes(&self, key: &str) -> bool {
        self.change(key).is_some_and(|change| change.value.is_none())
    }

    /// The entries of a tenant that the node is to have.
    pub(crate) fn entries_for_nodes(
        &self,
        state: &State,
        tenant: &TenantName,
    ) -> impl Iterator<Item = (String, Arc<[u8]>)> {
        let stored = state.entries_for_nodes(tenant).map(|(key, bytes)| (key.to_owned(), bytes));
        let mut entries: BTreeMap<String, Arc<[u8]>> = stored.collect();
        let of_tenant = self.0.iter().filter(|overlay| overlay.rollout.tenant == *tenant);
        for change in
            of_tenant.flat_map(|overlay| &overlay.changes).filter(|change| is_for_nodes(&change.key))
        {
            match &change.value {
                Some(value) => drop(entries.insert(change.key.clone(), value.clone())),
                None => drop(entries.remove(&change.key)),
            }
        }
        entries.into_iter()
    }

    /// The resources of a tenant, as the node is to have them.
    pub(crate) fn resources<'a>(
        &'a self,
        state: &'a State,
        tenant: &'a TenantName,
    ) -> impl Iterator<Item = &'a Resource> {
        let stored = state.tenant_records(tenant).filter_map(|record| match &record.value {
            RecordValue::Resource(resource) => Some(resource.as_ref()),
            _ => None,
        });
        let of_tenant = self.0.iter().filter(move |overlay| overlay.rollout.tenant == *tenant);
        let applied = of_tenant.flat_map(|overlay| &overlay.rollout.applied);
        stored.filter(|resource| !self.touches(&resource.id())).chain(applied)
    }

    /// The keys that only one of two has changed.
    pub(crate) fn unlike<'a>(&'a self, other: &'a Laid) -> impl Iterator<Item = &'a str> {
        let only = |one: &'a Laid, other: &'a Laid| {
            let is_there =
                |overlay: &Overlay| other.0.iter().any(|known| known.rollout.id == overlay.rollout.id);
            one.0.iter().filter(move |overlay| !is_there(overlay)).flat_map(|overlay| &overlay.changes)
        };
        only(self, other).chain(only(other, self)).map(|change| change.key.as_str())
    }

    /// Whether a resource may be another one to the node than it is stored.
    pub(crate) fn touches(&self, id: &ResourceId) -> bool {
        self.0.iter().any(|overlay| overlay.rollout.touches(id))
    }

    fn change(&self, key: &str) -> Option<&Change> {
        self.0.iter().find_map(|overlay| overlay.change(key))
    }
}

/// Nothing that rollouts change goes by bans, which come while somebody waits for them.
fn is_ban(key: &str) -> bool {
    key.parse::<RecordKey>().is_ok_and(|key| key.kind() == RecordKind::Ban)
}

fn is_for_nodes(key: &str) -> bool {
    key.parse::<RecordKey>().is_ok_and(|key| key.kind().is_for_nodes())
}

#[cfg(test)]
mod tests {
    use gantry_control_state::Command;
    use gantry_model::rollout::{Stage, Thresholds};
    use gantry_model::{RolloutId, document};
    use serde_json::{Value, json};

    use super::*;

    fn agent(name: &str, description: &str) -> Resource {
        let spec = json!({"description": description});
        document(json!({"kind": "Agent", "tenant": "acme", "name": name, "spec": spec}))
    }

    fn document(value: Value) -> Resource {
        document::parse(value).expect("a document")
    }

    fn rollout() -> Rollout {
        Rollout {
            tenant: "acme".parse().expect("a name"),
            id: RolloutId([1; 8]),
            applied: vec![agent("bot", "staged")],
            deleted: Vec::new(),
            resource_count: 1,
            checked: Revision::NONE,
            begun: Revision::NONE,
            stages: vec![Stage::Share(50)],
            stage: 0,
            pause_seconds: None,
            thresholds: Thresholds { rise_percent: 5, calls_min: 50 },
            by: "ann".to_owned(),
            begun_at_ms: 1,
            ended: None,
        }
    }

    #[test]
    fn what_a_rollout_makes_of_a_tenant_is_kept_once_while_it_is_the_same() {
        let (mut state, mut revision) = (State::default(), 0);
        let mut apply = |command: Command| {
            revision += 1;
            (state.apply(Revision(revision), &command).changes, state.clone())
        };
        let tenant = document(json!({"kind": "Tenant", "name": "acme"}));
        apply(Command::Apply(vec![tenant, agent("bot", "")]));
        let (changes, state) = apply(Command::BeginRollout(Box::new(rollout())));
        let first = Overlays::default().after(&state, Some(&changes));
        let (changes, state) = apply(Command::Apply(vec![agent("other", "")]));
        assert!(!changes.is_empty());
        let second = first.after(&state, Some(&changes));
        let only = |overlays: &Overlays| overlays.0.values().next().expect("one").clone();
        assert!(Arc::ptr_eq(&only(&first), &only(&second)));
        let fresh = Overlays::default().after(&state, None);
        assert!(only(&fresh).says_the_same(&only(&second)));
    }
}
