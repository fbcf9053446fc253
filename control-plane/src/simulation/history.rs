//! What clients asked and heard, and whether one register could have answered so.
//!
//! The check is that of Wing and Gong with the memory of Lowe: look for an order of the operations on a key in which
//! each takes effect at one moment between its call and its return, and a register gives the answers that were given.
//! An operation without an answer may have taken effect at any time after its call, or never.
//!
//! Always holds: values are unique, so a read names the one write that it saw. The search ends at a limit of steps, and
//! then says so.

use std::collections::HashSet;

/// What was asked of the register of one key; `None`: nothing was written yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// This value was written.
    Write(u64),
    /// This value was read.
    Read(Option<u64>),
}

/// One operation. Moments are places in the order of all calls and returns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    /// Who asked whom, for whoever reads a failure.
    pub(crate) told: String,
    pub(crate) action: Action,
    pub(crate) called: u64,
    /// `None`: no answer came, or none that says what happened.
    pub(crate) returned: Option<u64>,
}

/// What the check found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Linearizable,
    /// No order explains these; leaving out any further read, or any further write that nobody read, would.
    Impossible(Vec<Operation>),
    /// The limit of steps was reached.
    Undecided,
}

/// Steps of one search. Histories of a simulation take some hundred.
pub(crate) const STEPS_MAX: usize = 200_000;

/// Checks the operations on one key.
pub(crate) fn check(history: &[Operation], steps_max: usize) -> Verdict {
    let history = relevant(history);
    match search(&history, steps_max) {
        Some(true) => Verdict::Linearizable,
        None => Verdict::Undecided,
        Some(false) => Verdict::Impossible(shrink(history, steps_max)),
    }
}

/// Leaves out what can always be explained: reads without an answer, and writes without an answer that nobody read.
fn relevant(history: &[Operation]) -> Vec<Operation> {
    let read: HashSet<u64> = history.iter().filter_map(value_read).collect();
    let counts = |operation: &&Operation| match operation.action {
        Action::Read(_) => operation.returned.is_some(),
        Action::Write(value) => operation.returned.is_some() || read.contains(&value),
    };
    let mut kept: Vec<_> = history.iter().filter(counts).cloned().collect();
    kept.sort_by_key(|operation| operation.called);
    kept
}

fn value_read(operation: &Operation) -> Option<u64> {
    match operation.action {
        Action::Read(value) if operation.returned.is_some() => value,
        Action::Read(_) | Action::Write(_) => None,
    }
}

/// Leaves out, one by one, what the contradiction does not need.
fn shrink(mut history: Vec<Operation>, steps_max: usize) -> Vec<Operation> {
    let mut at = history.len();
    while at > 0 {
        at -= 1;
        let needed = match history[at].action {
            Action::Read(_) => false,
            Action::Write(value) => history.iter().filter_map(value_read).any(|read| read == value),
        };
        if needed {
            continue;
        }
        let mut without = history.clone();
        without.remove(at);
        if search(&without, steps_max) == Some(false) {
            history = without;
            // A write may have lost the last read that needed it.
            at = history.len();
        }
    }
    history
}

/// Operations in the order of their calls, and those that took effect.
struct Search<'a> {
    history: &'a [Operation],
    done: Vec<bool>,
    seen: HashSet<(Vec<u64>, Option<u64>)>,
    steps_left: usize,
}

/// Whether an order explains the history; `None` when the limit of steps was reached.
fn search(history: &[Operation], steps_max: usize) -> Option<bool> {
    let done = vec![false; history.len()];
    Search { history, done, seen: HashSet::new(), steps_left: steps_max }.from(None)
}

impl Search<'_> {
    /// Goes on from a value of the register.
    fn from(&mut self, value: Option<u64>) -> Option<bool> {
        self.steps_left = self.steps_left.checked_sub(1)?;
        let open: Vec<usize> = self.candidates();
        // A read of what is there may always come first: it changes nothing.
        let reads = |at: &&usize| self.history[**at].action == Action::Read(value);
        if let Some(read) = open.iter().find(reads) {
            self.done[*read] = true;
            let found = self.from(value);
            self.done[*read] = false;
            return found;
        }
        let is_left = |(operation, done): (&Operation, &bool)| !done && operation.returned.is_some();
        if !self.history.iter().zip(&self.done).any(is_left) {
            return Some(true);
        }
        if !self.seen.insert((self.done_bits(), value)) {
            return Some(false);
        }
        for at in open {
            let Action::Write(written) = self.history[at].action else { continue };
            self.done[at] = true;
            let found = self.from(Some(written));
            self.done[at] = false;
            if found != Some(false) {
                return found;
            }
        }
        Some(false)
    }

    /// What may take effect next: what was called before anything that is left has returned.
    fn candidates(&self) -> Vec<usize> {
        let left = || (0..self.history.len()).filter(|at| !self.done[*at]);
        let first_return = left().filter_map(|at| self.history[at].returned).min().unwrap_or(u64::MAX);
        left().filter(|at| self.history[*at].called < first_return).collect()
    }

    fn done_bits(&self) -> Vec<u64> {
        let bits = |chunk: &[bool]| chunk.iter().fold(0, |bits, done| bits << 1 | u64::from(*done));
        self.done.chunks(64).map(bits).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Operations as (action, called, returned).
    fn history(operations: &[(Action, u64, u64)]) -> Vec<Operation> {
        let make = |(action, called, returned): &(Action, u64, u64)| Operation {
            told: String::new(),
            action: *action,
            called: *called,
            returned: (*returned != NEVER).then_some(*returned),
        };
        operations.iter().map(make).collect()
    }

    use Action::{Read, Write};
    const NEVER: u64 = u64::MAX;

    fn is_explained(operations: &[(Action, u64, u64)]) -> bool {
        match check(&history(operations), STEPS_MAX) {
            Verdict::Linearizable => true,
            Verdict::Impossible(_) => false,
            Verdict::Undecided => panic!("undecided"),
        }
    }

    #[test]
    fn histories_of_a_register_are_explained() {
        assert!(is_explained(&[]));
        assert!(is_explained(&[(Read(None), 1, 2), (Write(1), 3, 4), (Read(Some(1)), 5, 6)]));
        // Two that overlap may take effect in either order.
        assert!(is_explained(&[(Write(1), 1, 4), (Write(2), 2, 3), (Read(Some(1)), 5, 6)]));
        assert!(is_explained(&[(Write(1), 1, 4), (Write(2), 2, 3), (Read(Some(2)), 5, 6)]));
        // A read may see a write that is under way, and another one later may not.
        assert!(is_explained(&[
            (Write(1), 1, 2),
            (Write(2), 3, 8),
            (Read(Some(1)), 4, 5),
            (Read(Some(2)), 6, 7)
        ]));
    }

    #[test]
    fn an_operation_without_an_answer_takes_effect_late_or_never() {
        let unknown = [(Write(1), 1, 2), (Write(2), 3, NEVER)];
        let with = |reads: &[(Action, u64, u64)]| is_explained(&[&unknown[..], reads].concat());
        assert!(with(&[(Read(Some(1)), 4, 5)]));
        assert!(with(&[(Read(Some(1)), 4, 5), (Read(Some(2)), 6, 7)]));
        assert!(!with(&[(Read(Some(2)), 4, 5), (Read(Some(1)), 6, 7)]));
        assert!(is_explained(&[(Write(1), 1, 2), (Read(Some(9)), 3, NEVER)]));
        // Not before it was asked for.
        assert!(!is_explained(&[(Read(Some(1)), 1, 2), (Write(1), 3, NEVER)]));
    }

    #[test]
    fn a_stale_read_is_found_with_what_it_contradicts() {
        let operations = [(Write(1), 1, 2), (Write(2), 3, 4), (Read(Some(2)), 5, 6), (Read(Some(1)), 7, 8)];
        let mut padded = operations.to_vec();
        padded.extend([(Write(3), 20, 21), (Read(Some(3)), 22, 23)]);
        let stale = history(&operations);
        // Either the read of the second write or that write's own answer suffices.
        let minimal = vec![stale[0].clone(), stale[1].clone(), stale[3].clone()];
        assert_eq!(check(&history(&padded), STEPS_MAX), Verdict::Impossible(minimal));
    }

    #[test]
    fn a_lost_write_is_found() {
        assert!(!is_explained(&[(Write(1), 1, 2), (Read(None), 3, 4)]));
        assert!(!is_explained(&[(Write(1), 1, 2), (Write(2), 3, 4), (Read(Some(1)), 5, 6)]));
    }

    #[test]
    fn a_value_that_nobody_wrote_is_found() {
        assert!(!is_explained(&[(Write(1), 1, 2), (Read(Some(7)), 3, 4)]));
    }

    #[test]
    fn a_write_that_takes_effect_twice_is_found() {
        assert!(!is_explained(&[
            (Write(1), 1, 2),
            (Write(2), 3, 4),
            (Read(Some(2)), 5, 6),
            (Read(Some(1)), 7, 8),
        ]));
    }

    #[test]
    fn two_readers_that_see_two_orders_are_found() {
        assert!(!is_explained(&[
            (Write(1), 1, 20),
            (Write(2), 2, 20),
            (Read(Some(1)), 3, 4),
            (Read(Some(2)), 5, 6),
            (Read(Some(1)), 7, 8),
        ]));
    }

    #[test]
    fn a_search_ends_at_its_limit_and_says_so() {
        let writes = (0..40).map(|at| (Write(at), 1, 100));
        let mut operations: Vec<_> = writes.collect();
        operations.push((Read(Some(77)), 2, 99));
        assert_eq!(check(&history(&operations), 1000), Verdict::Undecided);
    }
}
