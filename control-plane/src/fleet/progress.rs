//! How far the nodes are with one revision, for whoever waits for it.
//!
//! Always holds: whoever is connected is counted; who went without a word is named, since it may serve on.

use std::time::Duration;

use gantry_model::{Revision, Scope};
use tokio::time::Instant;

use super::nodes::Nodes;
use super::{Lane, NodeId};

/// How far the connected nodes are with one revision.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) connected: usize,
    pub(crate) acked: usize,
    /// The node that took longest; one that is still behind counts as slower than any other.
    pub(crate) slowest: Option<(NodeId, Duration)>,
}

/// One node's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standing {
    pub(crate) node: NodeId,
    pub(crate) is_connected: bool,
    pub(crate) has_it: bool,
    /// How long it took, or takes already; of one that is gone, since when.
    pub(crate) took: Duration,
}

impl Nodes {
    /// How far the connected nodes of some scopes are with a revision that came at `came`; without that, times count from when each
    /// node connected.
    pub(crate) fn progress(
        &self,
        (revision, lane): (Revision, Lane),
        whose: impl Fn(&Scope) -> bool,
        came: Option<Instant>,
        now: Instant,
    ) -> Progress {
        let mut progress = Progress::default();
        let mut behind = false;
        self.each_connected(whose, |id, connected_at, answers| {
            let acked_at = answers.at(revision, lane);
            progress.connected += 1;
            progress.acked += usize::from(acked_at.is_some());
            let took = took(connected_at, acked_at, came, now);
            let slower = match &progress.slowest {
                None => true,
                Some((_, slowest)) if behind == acked_at.is_none() => took > *slowest,
                Some(_) => acked_at.is_none(),
            };
            if slower {
                behind = acked_at.is_none();
                progress.slowest = Some((id.clone(), took));
            }
        });
        progress
    }

    /// The same of each node, and of those that went without a word, in the order of the ids.
    pub(crate) fn standings(
        &self,
        (revision, lane): (Revision, Lane),
        whose: impl Fn(&Scope) -> bool,
        came: Option<Instant>,
        now: Instant,
    ) -> Vec<Standing> {
        let mut standings = Vec::new();
        self.each_connected(&whose, |id, connected_at, answers| {
            let acked_at = answers.at(revision, lane);
            let took = took(connected_at, acked_at, came, now);
            let (node, has_it) = (id.clone(), acked_at.is_some());
            standings.push(Standing { node, is_connected: true, has_it, took });
        });
        self.each_lost(&whose, |id, gone_at| {
            let (node, took) = (id.clone(), now.saturating_duration_since(gone_at));
            standings.push(Standing { node, is_connected: false, has_it: false, took });
        });
        standings.sort_by(|one, other| one.node.cmp(&other.node));
        standings
    }
}

fn took(connected_at: Instant, acked_at: Option<Instant>, came: Option<Instant>, now: Instant) -> Duration {
    let from = came.map_or(connected_at, |came| came.max(connected_at));
    acked_at.unwrap_or(now).saturating_duration_since(from)
}
