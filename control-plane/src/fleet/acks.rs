//! What a node said that it has, and when.
//!
//! Always holds: at most [`ACKS_MAX`] answers of each lane, the latest; the time of an older revision is, at the latest,
//! that of the oldest answer that is remembered.

use std::collections::VecDeque;

use gantry_model::Revision;
use tokio::time::Instant;

/// Answers that are remembered, so that a question about a recent revision finds when it was applied.
pub(super) const ACKS_MAX: usize = 64;

/// By which way something comes to a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Updates, which bring everything, one after the other.
    Configuration,
    /// What is in force before an update brings it: bans.
    Urgent,
}

/// Answers of one lane.
#[derive(Debug, Clone, Default)]
pub(super) struct Acks {
    newest: Revision,
    latest: VecDeque<(Revision, Instant)>,
}

/// Answers of a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    pub(super) configuration: Acks,
    pub(super) urgent: Acks,
}

impl Acks {
    /// The node has a revision, as was heard now.
    pub(super) fn note(&mut self, revision: Revision, now: Instant) {
        self.newest = revision;
        self.latest.push_back((revision, now));
        while self.latest.len() > ACKS_MAX {
            self.latest.pop_front();
        }
    }

    /// The newest.
    pub(super) fn newest(&self) -> Revision {
        self.newest
    }

    /// When the node had this revision or a later one.
    pub(super) fn at(&self, revision: Revision) -> Option<Instant> {
        if self.newest < revision {
            return None;
        }
        self.latest.iter().find(|(acked, _)| *acked >= revision).map(|(_, at)| *at)
    }
}

impl Answers {
    /// When what a lane brings of a revision was in force.
    pub(super) fn at(&self, revision: Revision, lane: Lane) -> Option<Instant> {
        let configured = self.configuration.at(revision);
        match lane {
            Lane::Configuration => configured,
            // The configuration has it too, and may have been there first.
            Lane::Urgent => [self.urgent.at(revision), configured].into_iter().flatten().min(),
        }
    }
}
