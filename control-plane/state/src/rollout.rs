//! Staged rollouts: their records, and what their change would make of a state.
//!
//! Always holds: at most one of a tenant runs, and at most [`ROLLOUTS_MAX`]; while one runs, the resources that it
//! changes stay as they are, and what it needs is there, so its change still fits when it ends; a change that does not
//! fit all the same is not applied, and the record says why.
//!
//! What nodes in a stage are served is worked out from a state ([`State::overlay`]) and is no part of one: members of two
//! builds that worked it out differently would still have the same state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_model::record::{RecordKey, RecordKind, RecordValue};
use gantry_model::rollout::{End, Ended};
use gantry_model::{ResourceId, Rollout, RolloutAt, TenantName};

use crate::apply::{Done, Draft, refused};
use crate::outcome::{Change, ChangeKind, Refusal};
use crate::state::State;

/// Rollouts that run at one time: nodes count calls for each of their tenants, and each is worked out anew whenever its
/// tenant changes.
pub const ROLLOUTS_MAX: usize = 64;

impl State {
    /// What the change of a rollout makes of this state, in the order of the keys: of what nodes are served, and of
    /// secrets. Refused where it does not fit.
    pub fn overlay(&self, rollout: &Rollout) -> Result<Vec<Change>, Vec<Refusal>> {
        // As of one revision, so that the bytes stay the same for as long as it runs.
        let mut draft = Draft::new(self.clone(), rollout.begun);
        draft.lay(rollout)?;
        let changes = draft.changes.into_iter().map(|change| (change.key.clone(), change));
        let last: BTreeMap<String, Change> = changes.collect();
        let is_served = |change: &Change| {
            let kind = change.key.parse::<RecordKey>().map(|key| key.kind());
            kind.is_ok_and(|kind| kind.is_for_nodes() || kind == RecordKind::SealedSecret)
        };
        Ok(last.into_values().filter(is_served).collect())
    }

    /// This state with no rollout running in it: for whoever asks what a change would be without one.
    pub fn without_rollouts(&self) -> State {
        let mut without = self.clone();
        for (rollout, _) in self.running_rollouts() {
            without.remove(&RecordKey::rollout(&rollout.tenant));
        }
        without
    }
}

impl Draft {
    /// Makes the change of a rollout. After a refusal the draft is worth nothing.
    fn lay(&mut self, rollout: &Rollout) -> Done {
        let mut done = self.apply(&rollout.applied)?;
        let after = |refusal: Refusal| Refusal { index: refusal.index + rollout.applied.len(), ..refusal };
        let deleted = self.delete(&rollout.deleted);
        done.extend(deleted.map_err(|refusals| refusals.into_iter().map(after).collect::<Vec<_>>())?);
        Ok(done)
    }

    /// Takes back nothing: refuses a change that a running rollout of `before` would collide with.
    pub(crate) fn respecting_rollouts(&self, before: &State, done: Vec<(ResourceId, ChangeKind)>) -> Done {
        if before.running_rollouts().len() == 0 {
            return Ok(done);
        }
        let changed = || done.iter().enumerate().filter(|(_, (_, kind))| *kind != ChangeKind::Unchanged);
        let mut refusals = Vec::new();
        for (index, (id, _)) in changed() {
            if let Some((rollout, _)) = running(before, &id.tenant).filter(|(rollout, _)| rollout.touches(id))
            {
                refusals.push(Refusal::of(index, format!("{id} is part of {}", told(rollout))));
            }
        }
        let tenants: BTreeSet<&TenantName> = changed().map(|(_, (id, _))| &id.tenant).collect();
        for (rollout, _) in tenants.into_iter().filter_map(|tenant| running(before, tenant)) {
            if refusals.is_empty()
                && let Err(why) = self.state.overlay(rollout)
            {
                let why = why.first().map(|refusal| refusal.message.clone()).unwrap_or_default();
                let message = format!("the change of {} would not fit any more ({why})", told(rollout));
                refusals.push(Refusal::of(0, message));
            }
        }
        if refusals.is_empty() { Ok(done) } else { Err(refusals) }
    }

    pub(crate) fn begin_rollout(&mut self, rollout: &Rollout) -> Done {
        if let Err(error) = rollout.check() {
            return refused(error.to_string());
        }
        self.require(&ResourceId::of_tenant(&rollout.tenant))?;
        if let Some((running, _)) = running(&self.state, &rollout.tenant) {
            return refused(format!("there is {} already", told(running)));
        }
        if self.state.running_rollouts().len() >= ROLLOUTS_MAX {
            return refused(format!("{ROLLOUTS_MAX} rollouts run already; wait for one to end"));
        }
        let mut trial = Draft::new(self.state.clone(), self.revision);
        let done = trial.lay(rollout)?;
        if done.iter().all(|(_, kind)| *kind == ChangeKind::Unchanged) {
            return refused("all of it is in force already");
        }
        let rollout = Rollout { begun: self.revision, stage: 0, ended: None, ..rollout.clone() };
        self.put(RecordValue::Rollout(Arc::new(rollout)));
        Ok(done)
    }

    pub(crate) fn advance_rollout(&mut self, at: &RolloutAt) -> Done {
        let rollout = self.rollout_at(at)?;
        if rollout.is_in_last_stage() {
            return refused("all nodes come next, which ends the rollout");
        }
        let stage = rollout.stage + 1;
        self.put(RecordValue::Rollout(Arc::new(Rollout { stage, ..rollout.as_ref().clone() })));
        Ok(Vec::new())
    }

    pub(crate) fn end_rollout(&mut self, at: &RolloutAt, end: &Ended) -> Done {
        let rollout = self.rollout_at(at)?;
        let (mut done, mut ended) = (Vec::new(), end.clone());
        if end.how == End::Promoted {
            match self.promoted(&rollout) {
                Ok((trial, all)) => {
                    self.state = trial.state;
                    self.changes.extend(trial.changes);
                    self.deleted.extend(trial.deleted);
                    done = all;
                }
                Err(why) => {
                    let reason = format!("the change does not fit what is stored any more: {why}");
                    ended = Ended { how: End::Stopped, reason, ..ended };
                }
            }
        }
        let (applied, deleted) = (Vec::new(), Vec::new());
        let rollout = Rollout { ended: Some(ended), applied, deleted, ..rollout.as_ref().clone() };
        self.put(RecordValue::Rollout(Arc::new(rollout)));
        Ok(done)
    }

    /// The change for all nodes, unless somebody else changed the same.
    fn promoted(&self, rollout: &Rollout) -> Result<(Draft, Vec<(ResourceId, ChangeKind)>), String> {
        for id in rollout.resources() {
            let changed =
                self.state.record(&RecordKey::from(&id)).filter(|record| record.revision > rollout.begun);
            if let Some(record) = changed {
                return Err(format!("{id} was changed at revision {}", record.revision.0));
            }
        }
        let mut trial = Draft::new(self.state.clone(), self.revision);
        match trial.lay(rollout) {
            Ok(done) => Ok((trial, done)),
            Err(refusals) => Err(refusals.first().map(|refusal| refusal.message.clone()).unwrap_or_default()),
        }
    }

    /// The rollout that somebody decided about, as he saw it.
    fn rollout_at(&self, at: &RolloutAt) -> Result<Arc<Rollout>, Vec<Refusal>> {
        let now = self.state.rollout(&at.tenant).map(|(rollout, _)| rollout);
        let message = match now {
            Some(rollout) if rollout.is_running() && rollout.at() == *at => return Ok(rollout.clone()),
            Some(rollout) if rollout.is_running() => format!("there is {} now", told(rollout)),
            _ => format!("rollout {} of tenant {} has ended", at.id, at.tenant),
        };
        Err(vec![Refusal::of(0, message)])
    }
}

fn running<'s>(state: &'s State, tenant: &TenantName) -> Option<(&'s Arc<Rollout>, gantry_model::Revision)> {
    state.rollout(tenant).filter(|(rollout, _)| rollout.is_running())
}

/// A running rollout, and what to do about it.
fn told(rollout: &Rollout) -> String {
    let Rollout { id, tenant, .. } = rollout;
    format!(
        "rollout {id} of tenant {tenant} in {}; `gantry rollout promote --tenant {tenant}` or `gantry rollout abort \
         --tenant {tenant}` first",
        rollout.stage_title()
    )
}

#[cfg(test)]
mod tests;
