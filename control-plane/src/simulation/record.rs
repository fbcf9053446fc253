//! What a run did: a line for each event that matters, a digest of all events, and the operations of the clients.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard};

use gantry_model::Revision;
use gantry_model::digest::Digest;
use tokio::time::Instant;

use super::history::{Action, Operation};

/// The record of a run.
#[derive(Debug)]
pub(crate) struct Record {
    begun: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    hasher: blake3::Hasher,
    lines: Vec<String>,
    /// Broken promises.
    violations: Vec<String>,
    moment: u64,
    operations: BTreeMap<u64, (u64, Operation)>,
    /// Revisions of answers, by the moments of call and return.
    revisions: Vec<(u64, u64, Revision, bool)>,
    digests: BTreeMap<u64, Digest>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct Recorded {
    pub(crate) digest: String,
    pub(crate) lines: Vec<String>,
    pub(crate) violations: Vec<String>,
    /// The operations on each key.
    pub(crate) histories: BTreeMap<u64, Vec<Operation>>,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("not poisoned")
    }

    /// Counts an event of which there are many.
    pub(crate) fn count(&self, event: &[u64]) {
        let now = self.begun.elapsed().as_micros() as u64;
        let mut inner = self.inner();
        inner.hasher.update(&now.to_le_bytes());
        for number in event {
            inner.hasher.update(&number.to_le_bytes());
        }
    }

    /// Notes an event.
    pub(crate) fn note(&self, event: impl fmt::Display) {
        let line = format!("{:>9.3}s {event}", self.begun.elapsed().as_secs_f64());
        let mut inner = self.inner();
        inner.hasher.update(line.as_bytes());
        inner.lines.push(line);
    }

    /// Notes a broken promise.
    pub(crate) fn violate(&self, what: impl fmt::Display) {
        self.note(format_args!("VIOLATED: {what}"));
        self.inner().violations.push(what.to_string());
    }

    /// A client asks; gives the number of the operation.
    pub(crate) fn call(&self, key: u64, action: Action, told: String) -> u64 {
        self.note(format_args!("call   key {key} {action:?} {told}"));
        let mut inner = self.inner();
        inner.moment += 1;
        let moment = inner.moment;
        inner.operations.insert(moment, (key, Operation { told, action, called: moment, returned: None }));
        moment
    }

    /// A client has its answer, which shows the state as of a revision. What a write did is part of that revision.
    pub(crate) fn answer(&self, call: u64, action: Action, revision: Revision) {
        self.note(format_args!("answer {call} {action:?} at {revision}"));
        let mut inner = self.inner();
        inner.moment += 1;
        let moment = inner.moment;
        if let Some((_, operation)) = inner.operations.get_mut(&call) {
            operation.action = action;
            operation.returned = Some(moment);
        }
        inner.revisions.push((call, moment, revision, matches!(action, Action::Write(_))));
    }

    /// A client knows that what it asked never happens.
    pub(crate) fn refuse(&self, call: u64, why: impl fmt::Display) {
        self.note(format_args!("refuse {call}: {why}"));
        self.inner().operations.remove(&call);
    }

    /// A client does not know what became of what it asked.
    pub(crate) fn give_up(&self, call: u64, why: impl fmt::Display) {
        self.note(format_args!("unknown {call}: {why}"));
    }

    /// A member has a state as of a revision.
    pub(crate) fn has(&self, revision: Revision, digest: Digest, member: u64) {
        let first = *self.inner().digests.entry(revision.0).or_insert(digest);
        if first != digest {
            self.violate(format_args!("member {member} has another state at revision {revision}"));
        }
    }

    /// Ends the record.
    pub(crate) fn end(&self) -> Recorded {
        let mut inner = self.inner();
        if let Some(backward) = backward(&inner.revisions) {
            inner.violations.push(backward);
        }
        let mut histories: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
        for (key, operation) in std::mem::take(&mut inner.operations).into_values() {
            histories.entry(key).or_default().push(operation);
        }
        Recorded {
            digest: inner.hasher.finalize().to_string(),
            lines: std::mem::take(&mut inner.lines),
            violations: std::mem::take(&mut inner.violations),
            histories,
        }
    }
}

/// Revisions are one order over all keys: who asks after an answer has come finds nothing older than it.
fn backward(answers: &[(u64, u64, Revision, bool)]) -> Option<String> {
    let mut by_call = answers.to_vec();
    by_call.sort_unstable_by_key(|(called, ..)| *called);
    let mut by_return = answers.iter().peekable();
    let mut newest = (Revision::NONE, 0);
    for (called, _, revision, is_write) in by_call {
        while let Some((earlier, _, known, _)) = by_return.next_if(|(_, returned, ..)| *returned < called) {
            newest = newest.max((*known, *earlier));
        }
        if revision < newest.0 || is_write && revision == newest.0 && newest.1 != 0 {
            let (known, earlier) = newest;
            return Some(format!("operation {called} is at {revision}, and {earlier} was at {known} before"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_older_than_one_that_came_before_the_call_is_found() {
        let at = |called, returned, revision, is_write| (called, returned, Revision(revision), is_write);
        assert_eq!(backward(&[at(1, 2, 5, true), at(3, 4, 5, false), at(5, 6, 6, true)]), None);
        // Two that overlap have no order.
        assert_eq!(backward(&[at(2, 3, 6, true), at(1, 4, 5, true)]), None);
        let found = Some("operation 3 is at 4, and 1 was at 5 before".to_owned());
        assert_eq!(backward(&[at(1, 2, 5, true), at(3, 4, 4, false)]), found);
        let found = Some("operation 3 is at 5, and 1 was at 5 before".to_owned());
        assert_eq!(backward(&[at(1, 2, 5, true), at(3, 4, 5, true)]), found);
    }
}
