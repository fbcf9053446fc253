//! The commands of one log entry, each applied once however often it was proposed.
//!
//! A process that heard no answer proposes its command again, perhaps to another leader. What becomes of its latest
//! commands is therefore part of the state, by proposer and sequence (Raft thesis, section 6.3).
//!
//! Always holds: of commands with the same origin one is applied, and all of them get its answer; a proposer keeps
//! only what it has not been answered yet, and at most [`ANSWERS_MAX`] of those; at most [`PROPOSERS_MAX`] proposers
//! are remembered, those that proposed last. A command that may have been proposed before by one that is not
//! remembered, or that is older than what is, is not applied, and it is said that this is not known.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_model::Revision;
use gantry_model::record::{Answered, Proposer, Record, RecordKey, RecordValue};
use gantry_wire::{Origin, Proposal};

use crate::outcome::{Answer, AppliedBatch, Change, Outcome};
use crate::state::State;

/// Proposers that are remembered: each control-plane process is one from start to end, so these are the latest dozens
/// of restarts.
pub const PROPOSERS_MAX: usize = 64;
/// Commands of one proposer that it waits for at one time, at most. Its own queue is shorter.
pub const ANSWERS_MAX: usize = 4096;

impl State {
    /// Applies the commands of one log entry at the revision that they share. Total and deterministic.
    pub fn apply_batch(&mut self, revision: Revision, proposals: &[Proposal]) -> AppliedBatch {
        let mut touched = BTreeMap::new();
        let mut changes = Vec::new();
        let mut answers = Vec::with_capacity(proposals.len());
        for proposal in proposals {
            let known = proposal.origin.and_then(|origin| self.known(&mut touched, origin));
            answers.push(known.unwrap_or_else(|| {
                let applied = self.apply(revision, &proposal.command);
                changes.extend(applied.changes);
                let outcome = applied.outcome;
                if let Some(origin) = proposal.origin {
                    remember(&mut touched, origin, revision, &outcome);
                }
                Answer { revision, outcome: Some(outcome) }
            }));
        }
        for proposer in touched.into_values() {
            let value = RecordValue::Proposer(Arc::new(proposer));
            changes.push(self.put(Record { revision, value }));
        }
        changes.extend(self.forget_proposers());
        AppliedBatch { answers, changes }
    }

    /// The answer to a command that is not to be applied now; readies its proposer in `touched` for one that is.
    fn known(&self, touched: &mut BTreeMap<[u8; 16], Proposer>, origin: Origin) -> Option<Answer> {
        let stored = || match self.record(&RecordKey::proposer(&origin.proposer)).map(|record| &record.value)
        {
            Some(RecordValue::Proposer(proposer)) => Some(proposer.as_ref().clone()),
            _ => None,
        };
        let forgotten = Some(Answer { revision: Revision::NONE, outcome: None });
        let proposer = match touched.entry(origin.proposer) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => match stored() {
                Some(proposer) => entry.insert(proposer),
                None if origin.again => return forgotten,
                None => entry.insert(Proposer {
                    id: origin.proposer,
                    answered_below: 0,
                    answered: BTreeMap::new(),
                }),
            },
        };
        if let Some(answered) = proposer.answered.get(&origin.sequence) {
            let outcome = Outcome::decode(&answered.outcome);
            return Some(Answer { revision: answered.revision, outcome });
        }
        if origin.sequence < proposer.answered_below {
            return forgotten;
        }
        None
    }

    fn forget_proposers(&mut self) -> Vec<Change> {
        let surplus = self.proposers().count().saturating_sub(PROPOSERS_MAX);
        if surplus == 0 {
            return Vec::new();
        }
        let mut remembered: Vec<_> =
            self.proposers().map(|record| (record.revision, record.value.key())).collect();
        remembered.sort_by_key(|(revision, key)| (*revision, key.to_string()));
        remembered.iter().take(surplus).filter_map(|(_, key)| self.remove(key)).collect()
    }
}

fn remember(
    touched: &mut BTreeMap<[u8; 16], Proposer>,
    origin: Origin,
    revision: Revision,
    outcome: &Outcome,
) {
    // INVARIANT: `known` put it there.
    let Some(proposer) = touched.get_mut(&origin.proposer) else { return };
    proposer.answered.insert(origin.sequence, Answered { revision, outcome: outcome.encode() });
    proposer.answered_below = proposer.answered_below.max(origin.answered_below);
    while let Some(oldest) = proposer.answered.first_entry() {
        let sequence = *oldest.key();
        if sequence >= proposer.answered_below && proposer.answered.len() <= ANSWERS_MAX {
            break;
        }
        proposer.answered_below = proposer.answered_below.max(sequence + 1);
        proposer.answered.pop_first();
    }
}

#[cfg(test)]
mod tests {
    use gantry_model::{Kind, document};
    use gantry_wire::Command;
    use serde_json::json;

    use super::*;
    use crate::outcome::ChangeKind;

    fn tenant(name: &str) -> Command {
        let tenant = document::parse(json!({"kind": "Tenant", "name": name, "spec": {}}));
        Command::Apply(vec![tenant.expect("a valid tenant")])
    }

    fn origin(proposer: u8, sequence: u64) -> Origin {
        Origin { proposer: [proposer; 16], sequence, answered_below: 0, again: false }
    }

    fn kinds(answer: &Answer) -> Option<Vec<ChangeKind>> {
        match answer.outcome.as_ref()? {
            Outcome::Done(done) => Some(done.iter().map(|(_, kind)| *kind).collect()),
            Outcome::Refused(refusals) => panic!("{refusals:?}"),
        }
    }

    fn apply(state: &mut State, revision: u64, origin: Origin, command: Command) -> Answer {
        let batch = [Proposal { origin: Some(origin), command }];
        let applied = state.apply_batch(Revision(revision), &batch);
        // What is stored is what is in memory.
        let entries = state.entries().map(|(key, bytes)| (key.to_owned(), bytes.to_vec()));
        let loaded = State::load(entries.collect::<Vec<_>>()).expect("loads");
        assert!(loaded.entries().eq(state.entries()));
        applied.answers.into_iter().next().expect("an answer")
    }

    #[test]
    fn a_command_that_is_proposed_twice_is_applied_once_and_answered_the_same() {
        let mut state = State::default();
        let first = apply(&mut state, 1, origin(1, 1), tenant("acme"));
        assert_eq!(kinds(&first), Some(vec![ChangeKind::Created]));
        let again = apply(&mut state, 5, Origin { again: true, ..origin(1, 1) }, tenant("acme"));
        assert_eq!(again, first);
        // Another's is another command, and so is the next.
        let other = apply(&mut state, 6, origin(2, 1), tenant("acme"));
        assert_eq!((other.revision, kinds(&other)), (Revision(6), Some(vec![ChangeKind::Unchanged])));
        // Also within one entry.
        let twice = Proposal { origin: Some(origin(1, 2)), command: tenant("beta") };
        let applied = state.apply_batch(Revision(7), &[twice.clone(), twice]);
        assert_eq!(applied.answers[0], applied.answers[1]);
        assert_eq!(kinds(&applied.answers[0]), Some(vec![ChangeKind::Created]));
        assert_eq!(state.names(&"any".parse().expect("a name"), Kind::Tenant), ["acme", "beta"]);
    }

    #[test]
    fn what_was_answered_is_forgotten_and_not_applied_again() {
        let mut state = State::default();
        apply(&mut state, 1, origin(1, 1), tenant("acme"));
        apply(&mut state, 2, Origin { answered_below: 2, ..origin(1, 2) }, tenant("beta"));
        let late = apply(&mut state, 3, Origin { again: true, ..origin(1, 1) }, tenant("late"));
        assert_eq!(late, Answer { revision: Revision::NONE, outcome: None });
        assert_eq!(state.names(&"any".parse().expect("a name"), Kind::Tenant), ["acme", "beta"]);
    }

    #[test]
    fn proposers_are_forgotten_the_oldest_first_and_then_not_believed() {
        let mut state = State::default();
        for proposer in 0..=PROPOSERS_MAX {
            let proposer = u8::try_from(proposer).expect("few");
            let name = format!("t{proposer}");
            apply(&mut state, u64::from(proposer) + 1, origin(proposer, 1), tenant(&name));
        }
        let gone = apply(&mut state, 100, Origin { again: true, ..origin(0, 1) }, tenant("again"));
        assert_eq!(gone, Answer { revision: Revision::NONE, outcome: None });
        let kept = apply(&mut state, 101, Origin { again: true, ..origin(1, 1) }, tenant("again"));
        assert_eq!((kept.revision, kinds(&kept)), (Revision(2), Some(vec![ChangeKind::Created])));
    }

    #[test]
    fn a_proposer_keeps_a_bounded_number_of_answers() {
        let mut state = State::default();
        let batch: Vec<_> = (1..=ANSWERS_MAX as u64 + 10)
            .map(|sequence| Proposal { origin: Some(origin(1, sequence)), command: tenant("acme") })
            .collect();
        state.apply_batch(Revision(1), &batch);
        let RecordValue::Proposer(proposer) =
            &state.record(&RecordKey::proposer(&[1; 16])).expect("a record").value
        else {
            panic!("not a proposer")
        };
        assert_eq!((proposer.answered.len(), proposer.answered_below), (ANSWERS_MAX, 11));
    }
}
