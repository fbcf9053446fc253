//! How a stage goes, from what nodes said: one rollout as one member sees it.
//!
//! Always holds: a stage is healthy only while every connected node in it has the change, at least one, and none that had
//! it is gone; the clock starts anew when that ends, and when this member begins to watch. A node that refuses the tenant
//! stops the rollout, whatever the clock says.
//!
//! It decides nothing: it says what should be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_model::{Revision, Rollout, RolloutId, TenantName};
use tokio::time::Instant;

use super::Calls;
use crate::fleet::{NodeId, NodeView};

/// What this process has seen of the rollouts that run. It is memory, and lost at a restart.
#[derive(Debug, Default)]
pub(crate) struct Rollouts(Mutex<BTreeMap<TenantName, Watched>>);

/// What was seen of one.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    id: RolloutId,
    /// When it came to its stage.
    at: Revision,
    /// Nodes that had the change when they were last looked at.
    live: BTreeSet<NodeId>,
    healthy_since: Option<Instant>,
    marks: HashMap<NodeId, Mark>,
    /// What the stage needs to go on; empty: time.
    pub(crate) waits_for: String,
    /// Calls of the nodes in the stage, since they have the change or this stage began.
    pub(crate) calls: Calls,
    pub(crate) compared: Calls,
    pub(crate) compared_with: Compared,
}

/// Where a node's counts stood.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Before it got the change.
    first: Calls,
    /// When the stage began; `None`: it was not seen since.
    stage: Option<Calls>,
}

/// With what calls are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Compared {
    /// There are too few.
    #[default]
    Nothing,
    /// With those of nodes that do not have the change.
    Others,
    /// With those of the same nodes before they had it.
    Before,
}

/// What should be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Advice {
    /// Nothing yet.
    Wait,
    /// The next stage.
    GoOn,
    /// Take the change back, for this reason.
    Stop(String),
}

impl Rollouts {
    /// What was seen of a tenant's rollout, if it is the one.
    pub(crate) fn of(&self, rollout: &Rollout) -> Option<Watched> {
        self.lock().get(&rollout.tenant).filter(|watched| watched.id == rollout.id).cloned()
    }

    /// Forgets all but these tenants'.
    pub(crate) fn keep(&self, running: &BTreeSet<TenantName>) {
        self.lock().retain(|tenant, _| running.contains(tenant));
    }

    /// Looks at a rollout's nodes, which are those that hold its tenant.
    pub(crate) fn look(
        &self,
        (rollout, at): (&Rollout, Revision),
        nodes: &[NodeView],
        now: Instant,
    ) -> Advice {
        let mut watched = self.lock();
        let known = watched.entry(rollout.tenant.clone()).or_insert_with(|| Watched::new(rollout, at));
        if known.id != rollout.id {
            *known = Watched::new(rollout, at);
        }
        known.look((rollout, at), nodes, now)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantName, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn new(rollout: &Rollout, at: Revision) -> Watched {
        Watched {
            id: rollout.id,
            at,
            live: BTreeSet::new(),
            healthy_since: None,
            marks: HashMap::new(),
            waits_for: String::new(),
            calls: Calls::default(),
            compared: Calls::default(),
            compared_with: Compared::Nothing,
        }
    }

    /// For how long the stage has been healthy.
    pub(crate) fn healthy_for(&self, now: Instant) -> Option<Duration> {
        self.healthy_since.map(|since| now.saturating_duration_since(since))
    }

    fn look(&mut self, (rollout, at): (&Rollout, Revision), nodes: &[NodeView], now: Instant) -> Advice {
        if self.at != at {
            self.begin_stage(at);
        }
        let in_stage = |node: &&NodeView| rollout.has(node.node.as_str(), &node.seen.scope);
        let connected = || nodes.iter().filter(|node| node.connected);
        for node in connected().filter(in_stage) {
            if let Some(problem) = refusal(node, rollout, at) {
                return Advice::Stop(format!("node {} refuses the change: {problem}", node.node));
            }
        }
        let stage: Vec<&NodeView> = connected().filter(in_stage).collect();
        let others: Vec<&NodeView> = connected().filter(|node| !in_stage(node)).collect();
        self.keep_time(&stage, now);
        if let Some(reason) = self.compare(rollout, &stage, &others) {
            return Advice::Stop(reason);
        }
        let is_over = match (self.healthy_for(now), rollout.pause_seconds) {
            (Some(healthy), Some(pause)) => healthy >= Duration::from_secs(pause),
            (None, _) | (_, None) => false,
        };
        if is_over { Advice::GoOn } else { Advice::Wait }
    }

    fn begin_stage(&mut self, at: Revision) {
        self.at = at;
        self.live.clear();
        self.healthy_since = None;
        // What its nodes had before they got the change stays what they had before.
        self.marks.values_mut().for_each(|mark| mark.stage = None);
    }

    fn keep_time(&mut self, stage: &[&NodeView], now: Instant) {
        let has_it = |node: &&&NodeView| node.acked >= self.at;
        let live: BTreeSet<NodeId> = stage.iter().filter(has_it).map(|node| node.node.clone()).collect();
        let behind = stage.iter().find(|node| node.acked < self.at);
        let gone = self.live.difference(&live).next();
        self.waits_for = match (behind, gone) {
            _ if stage.is_empty() => "no connected node is in the stage".to_owned(),
            (Some(node), _) => format!("node {} does not have the change yet", node.node),
            (None, Some(node)) => format!("node {node} had the change and is gone; the clock starts anew"),
            (None, None) => String::new(),
        };
        let is_healthy = self.waits_for.is_empty() && !live.is_empty();
        self.live = live;
        self.healthy_since = if is_healthy { Some(self.healthy_since.unwrap_or(now)) } else { None };
    }

    /// Why the rollout is to stop for the sake of what agents get.
    fn compare(&mut self, rollout: &Rollout, stage: &[&NodeView], others: &[&NodeView]) -> Option<String> {
        let thresholds = &rollout.thresholds;
        let (mut calls, mut before) = (Calls::default(), Calls::default());
        for node in stage {
            if node.acked < self.at {
                continue;
            }
            let Some(counted) = node.seen.calls.get(&rollout.tenant) else { continue };
            let (first, stage) = self.mark(node, *counted);
            (calls, before) = (calls.and(counted.since(stage)), before.and(first));
        }
        let mut elsewhere = Calls::default();
        for node in others {
            let Some(counted) = node.seen.calls.get(&rollout.tenant) else { continue };
            let (_, stage) = self.mark(node, *counted);
            elsewhere = elsewhere.and(counted.since(stage));
        }
        (self.compared_with, self.compared) = match () {
            () if elsewhere.are_enough(thresholds) => (Compared::Others, elsewhere),
            () if before.are_enough(thresholds) => (Compared::Before, before),
            () => (Compared::Nothing, Calls::default()),
        };
        self.calls = calls;
        let rose = self.compared_with != Compared::Nothing && calls.rose_above(self.compared, thresholds);
        rose.then(|| {
            let than = match self.compared_with {
                Compared::Others | Compared::Nothing => "of nodes without the change",
                Compared::Before => "of the same nodes before",
            };
            format!(
                "{} of {} calls were rejected on nodes with the change, and {} of {} {than}",
                calls.rejected, calls.calls, self.compared.rejected, self.compared.calls
            )
        })
    }

    /// Where a node's counts stood before it got the change, and when its part in the stage began, which is now where it
    /// is seen first.
    fn mark(&mut self, node: &NodeView, counted: Calls) -> (Calls, Calls) {
        let mark = self.marks.entry(node.node.clone()).or_insert(Mark { first: counted, stage: None });
        (mark.first, *mark.stage.get_or_insert(counted))
    }
}

/// What of the rollout's tenant a node refuses, since the stage began.
fn refusal(node: &NodeView, rollout: &Rollout, at: Revision) -> Option<String> {
    if node.seen.refused < at {
        return None;
    }
    let problem = node.seen.problems.iter().find(|problem| problem.tenant == rollout.tenant.as_str())?;
    let place = Some(problem.resource.as_str()).filter(|resource| !resource.is_empty());
    Some(place.map_or_else(|| problem.message.clone(), |place| format!("{place}: {}", problem.message)))
}

#[cfg(test)]
mod tests;
