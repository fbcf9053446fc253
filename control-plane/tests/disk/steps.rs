//! The child that takes steps on the store alone, as it is told to, and what the store should remember of them.
//!
//! Here are the ways of the store that a voter alone never goes: truncation, replaced state, votes between entries.

use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::Path;
use std::sync::Arc;

use gantry_control_plane::store::{ChangeSet, Store};
use serde::{Deserialize, Serialize};

use crate::process::say;
use crate::random::Random;

/// One call of the store. Contents follow from a number that is different for every step, and their lengths.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Step {
    Append { first: u64, number: u64, lengths: Vec<usize> },
    Vote { number: u64 },
    Truncate { from: u64 },
    Purge { through: u64 },
    Apply { number: u64, changes: BTreeMap<String, Option<usize>> },
    Replace { number: u64, changes: BTreeMap<String, Option<usize>> },
    Sync,
}

/// What a store remembers: contents by their hashes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub(crate) kept: Kept,
    pub(crate) state: State,
}

/// What is durable when a call returns.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Kept {
    vote: Option<u64>,
    purged: Option<u64>,
    log: Vec<(u64, String)>,
}

/// What is durable with the next call that is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct State {
    applied: Option<u64>,
    entries: BTreeMap<String, String>,
}

/// Opens the store, says what it remembers, takes the steps that come on standard input and says `did` after each.
pub(crate) async fn take(directory: &Path) {
    let opened = Store::open(directory, b"steps").expect("open");
    assert_eq!(opened.identity, b"steps");
    let store = opened.store;
    let number = |bytes: &[u8]| std::str::from_utf8(bytes).expect("text").parse().expect("a number");
    let log = store.read_log(0, u64::MAX, usize::MAX).await.expect("read");
    let kept = Kept {
        vote: opened.vote.as_deref().map(number),
        purged: opened.purged.as_deref().map(number),
        log: log.into_iter().map(|(index, entry)| (index, hash(&entry))).collect(),
    };
    let applied = Some(opened.applied.as_slice()).filter(|applied| !applied.is_empty()).map(number);
    let entries = opened.entries.into_iter().map(|(key, value)| (key, hash(&value))).collect();
    let memory = Memory { kept, state: State { applied, entries } };
    say("ready", &serde_json::to_string(&memory).expect("memory"));
    for line in std::io::stdin().lock().lines() {
        let step: Step = serde_json::from_str(&line.expect("a line")).expect("a step");
        let written = serde_json::to_string(&step).expect("a step");
        say("try", &written);
        do_step(&store, step).await;
        say("did", "");
    }
    store.close().await.expect("close");
}

async fn do_step(store: &Store, step: Step) {
    let change = |number: u64, changes: BTreeMap<String, Option<usize>>| {
        let value = |length: Option<usize>| length.map(|length| Arc::from(content(number, length)));
        let changes = changes.into_iter().map(|(key, length)| (key, value(length))).collect();
        ChangeSet { index: number, record: number.to_string().into_bytes(), changes }
    };
    let done = match step {
        Step::Append { first, number, lengths } => {
            store.append(first, lengths.into_iter().map(|length| content(number, length)).collect()).await
        }
        Step::Vote { number } => store.save_vote(number.to_string().into_bytes()).await,
        Step::Truncate { from } => store.truncate(from).await,
        Step::Purge { through } => store.purge(through, through.to_string().into_bytes()).await,
        Step::Apply { number, changes } => store.apply(change(number, changes)).await,
        Step::Replace { number, changes } => store.replace(change(number, changes)).await,
        Step::Sync => store.sync().await,
    };
    done.expect("done");
}

impl Step {
    /// Some step that is possible after `memory`; `number` is greater than that of every step before.
    pub(crate) fn some(random: &mut Random, memory: &Kept, number: u64) -> Self {
        let (first, next) = memory.bounds();
        let length = |random: &mut Random| match random.below(8) {
            0 => 60_000 + random.below(200_000) as usize,
            1 | 2 => 4000 + random.below(9000) as usize,
            _ => random.below(300) as usize,
        };
        let at = |random: &mut Random| first + random.below(next - first);
        match random.below(12) {
            0 if first < next => Self::Truncate { from: at(random) },
            1 if first < next => Self::Purge { through: at(random) },
            2 => Self::Vote { number },
            3 => Self::Sync,
            4 => Self::Replace { number, changes: changes(random, length, false) },
            5..8 => Self::Apply { number, changes: changes(random, length, true) },
            _ => {
                let lengths = (0..=random.below(4)).map(|_| length(random)).collect();
                Self::Append { first: next, number, lengths }
            }
        }
    }
}

fn changes(
    random: &mut Random,
    length: impl Fn(&mut Random) -> usize,
    deletes: bool,
) -> BTreeMap<String, Option<usize>> {
    let count = random.below(12);
    let change = |_| {
        let key = format!("key {}", random.below(12));
        (key, (!deletes || random.below(4) > 0).then(|| length(random)))
    };
    (0..count).map(change).collect()
}

impl Memory {
    /// What it is after a step.
    pub(crate) fn after(mut self, step: &Step) -> Self {
        match step {
            Step::Append { first, number, lengths } => {
                let hashes = lengths.iter().map(|length| hash(&content(*number, *length)));
                self.kept.log.extend((*first..).zip(hashes));
            }
            Step::Vote { number } => self.kept.vote = Some(*number),
            Step::Truncate { from } => self.kept.log.retain(|(index, _)| index < from),
            Step::Purge { through } => {
                self.kept.purged = Some(*through);
                self.kept.log.retain(|(index, _)| index > through);
            }
            Step::Apply { number, changes } | Step::Replace { number, changes } => {
                self.state.applied = Some(*number);
                if matches!(step, Step::Replace { .. }) {
                    self.state.entries.clear();
                }
                for (key, length) in changes {
                    match length {
                        Some(length) => {
                            self.state.entries.insert(key.clone(), hash(&content(*number, *length)));
                        }
                        None => drop(self.state.entries.remove(key)),
                    }
                }
            }
            Step::Sync => {}
        }
        self
    }
}

impl Kept {
    /// The first entry that there may be, and the one that comes next.
    fn bounds(&self) -> (u64, u64) {
        let first = self.purged.map_or(0, |purged| purged + 1);
        (first, self.log.last().map_or(first, |(index, _)| index + 1))
    }

    /// Everything that it may be while a step that leads to `after` is under way.
    pub(crate) fn on_the_way_to(&self, after: &Self) -> Vec<Self> {
        // An append leaves its first entries, a truncation is done from the end; everything else is one write.
        let (shorter, longer) = (self.log.len().min(after.log.len()), self.log.len().max(after.log.len()));
        if self.purged != after.purged || shorter == longer {
            return vec![self.clone(), after.clone()];
        }
        let log = if self.log.len() == longer { &self.log } else { &after.log };
        (shorter..=longer).map(|length| Self { log: log[..length].to_vec(), ..self.clone() }).collect()
    }
}

fn content(number: u64, length: usize) -> Vec<u8> {
    (0..length as u64).map(|at| (at.wrapping_mul(31).wrapping_add(number * 131 + at / 256)) as u8).collect()
}

fn hash(bytes: &[u8]) -> String {
    format!("{}:{}", bytes.len(), &blake3::hash(bytes).to_hex()[..16])
}
