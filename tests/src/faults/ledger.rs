//! What all clients of a run were told, and what of it must not have been.
//!
//! Always holds: what a client heard is judged when it hears it; the first violation stops the clients, so that the
//! processes are as they were.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use tokio::sync::RwLock;
use tokio_util::sync::CancellationToken;

use super::oracle::{Leaders, Life, Made, Newest, Register, State, Violation};

/// Violations kept; one is enough.
const VIOLATIONS_MAX: usize = 20;

/// Shared by all clients.
#[derive(Debug)]
pub struct Ledger {
    told: Mutex<Told>,
    /// Writers read it while they write; who wants them to pause writes it.
    pub turn: RwLock<()>,
    /// Cancelled at the end, and with the first violation.
    pub stop: CancellationToken,
}

/// What was told.
#[derive(Debug, Default)]
pub struct Told {
    /// By name.
    pub registers: BTreeMap<String, Register>,
    /// What was made once.
    pub made: Made,
    /// Of reads and writes at any member.
    pub newest: Newest,
    /// Of the status of one member, by its place and start: it is as of now there, which is not as of now anywhere.
    pub status: BTreeMap<(usize, u64), Newest>,
    /// Of the configuration that one node serves by, by its number and start.
    pub served: BTreeMap<(usize, u64), Newest>,
    /// By term.
    pub leaders: Leaders,
    /// How the nodes are to be judged.
    pub lives: Vec<Life>,
    /// How often each voter, and each node, was started.
    pub voter_starts: Vec<u64>,
    /// See there.
    pub node_starts: Vec<u64>,
    /// For the report.
    pub counts: Counts,
    violations: Vec<Violation>,
}

/// How much was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Writes with an answer.
    pub acknowledged: u64,
    /// Writes that found no connection.
    pub not_sent: u64,
    /// Writes without an answer.
    pub unknown: u64,
    /// Reads with an answer.
    pub reads: u64,
    /// Calls that a server answered.
    pub calls: u64,
    /// Looks at the configuration that a node serves by.
    pub looks: u64,
    /// Calls that failed at a node with a fault, or found no node because of faults.
    pub excused: u64,
    /// Connections that were tried in vain before a call found a node.
    pub passed_on: u64,
}

impl Ledger {
    /// An empty one.
    #[must_use]
    pub fn new(voters: usize, nodes: usize) -> Self {
        let told = Told {
            lives: vec![Life::default(); nodes],
            voter_starts: vec![0; voters],
            node_starts: vec![0; nodes],
            ..Told::default()
        };
        Self { told: Mutex::new(told), turn: RwLock::new(()), stop: CancellationToken::new() }
    }

    /// Looks at what was told, or adds to it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Told) -> T) -> T {
        act(&mut self.told.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a violation, if it is one.
    pub fn judge(&self, judged: Result<(), Violation>) {
        let Err(violation) = judged else { return };
        self.stop.cancel();
        self.with(|told| {
            if told.violations.len() < VIOLATIONS_MAX {
                told.violations.push(violation);
            }
        });
    }

    /// A node is to be judged otherwise from now on.
    pub fn node_becomes(&self, node: usize, state: State) {
        self.with(|told| told.lives[node].becomes(state));
    }

    /// All violations.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.with(|told| told.violations.clone())
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} writes acknowledged, {} unknown, {} not sent, {} reads, {} calls answered, {} excused, {} connections passed on, {} looks at \
             what nodes serve by",
            self.acknowledged,
            self.unknown,
            self.not_sent,
            self.reads,
            self.calls,
            self.excused,
            self.passed_on,
            self.looks
        )
    }
}
