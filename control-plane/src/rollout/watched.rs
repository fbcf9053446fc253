//! How a stage goes, from what nodes said: one rollout as one member sees it.
//!
//! Always holds: a stage is healthy only while every connected node in it has the change, at least one, and none that had
//! it is gone; the clock starts anew when that ends, and when this member begins to watch. A node that refuses the tenant, or
//! the update as a whole, stops the rollout, whatever the clock says, and so does its age. What is said of a node does not
//! repeat what it says of an update as a whole, which may be about other tenants.
//!
//! It decides nothing: it says what should be done.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_model::rollout::Thresholds;
use gantry_model::{Revision, Rollout, RolloutId, TenantName};
use tokio::time::Instant;

use super::Calls;
use crate::fleet::{NodeId, NodeView, Problem};

/// For how long after a stage began the first counts of its nodes are taken for those from before it: nodes tell every
/// second, other members as often, and they are asked for counts no sooner than the first stage begins.
const FIRST_COUNTS: Duration = Duration::from_secs(5);

/// What is said of a node that takes no update; why, it may not be told those who are bound to a tenant.
pub(crate) const TAKES_NOTHING: &str =
    "takes no update, neither a delta nor a snapshot; `gantry node show` says why";

/// What this process has seen of the rollouts that run. It is memory, and lost at a restart.
#[derive(Debug, Default)]
pub(crate) struct Rollouts(Mutex<BTreeMap<TenantName, Watched>>);

/// What was seen of one.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    id: RolloutId,
    /// When it came to its stage.
    at: Revision,
    /// Until when counts that are seen first are those from before the stage.
    first_until: Instant,
    /// Nodes that had the change when they were last looked at.
    live: BTreeSet<NodeId>,
    healthy_since: Option<Instant>,
    marks: HashMap<NodeId, Mark>,
    /// What the stage needs to go on; empty: time.
    pub(crate) waits_for: String,
    /// Calls of the nodes in the stage, since they have the change or this stage began; where they are compared with those of
    /// other nodes, those who were turned away before anybody knew them are among both.
    pub(crate) calls: Calls,
    pub(crate) compared: Calls,
    pub(crate) compared_with: Compared,
}

/// Where a node's counts stood.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Before it got the change; `None`: it was not seen then.
    first: Option<Calls>,
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

/// What a member sees at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Look<'a> {
    /// The nodes that hold the tenant.
    pub(crate) nodes: &'a [&'a NodeView],
    pub(crate) now: Instant,
    /// In milliseconds since 1970.
    pub(crate) now_ms: u64,
    /// Whether this process was there when the stage began.
    pub(crate) saw_begin: bool,
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

    /// Looks at a rollout's nodes.
    pub(crate) fn look(&self, (rollout, at): (&Rollout, Revision), look: Look<'_>) -> Advice {
        let mut watched = self.lock();
        let known = watched.entry(rollout.tenant.clone()).or_insert_with(|| Watched::new(rollout, at, look));
        if known.id != rollout.id {
            *known = Watched::new(rollout, at, look);
        }
        known.look((rollout, at), look)
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TenantName, Watched>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watched {
    fn new(rollout: &Rollout, at: Revision, look: Look<'_>) -> Watched {
        Watched {
            id: rollout.id,
            at,
            first_until: if look.saw_begin { look.now + FIRST_COUNTS } else { look.now },
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

    fn look(&mut self, (rollout, at): (&Rollout, Revision), look: Look<'_>) -> Advice {
        if self.at != at {
            self.begin_stage(at, look.now);
        }
        let (in_stage, others): (Vec<&NodeView>, Vec<&NodeView>) =
            look.nodes.iter().partition(|node| rollout.has(node.node.as_str(), &node.seen.scope));
        // Also of one that is gone since: who takes nothing is sent away.
        if let Some(reason) = in_stage.iter().find_map(|node| refusal(node, rollout, at)) {
            return Advice::Stop(reason);
        }
        let is_connected = |node: &&NodeView| node.connected;
        let stage: Vec<&NodeView> = in_stage.into_iter().filter(is_connected).collect();
        let others: Vec<&NodeView> = others.into_iter().filter(is_connected).collect();
        self.keep_time(&stage, look.now);
        if let Some(reason) = self.compare(rollout, (&stage, &others), look.now) {
            return Advice::Stop(reason);
        }
        let is_over = match (self.healthy_for(look.now), rollout.pause_seconds) {
            (Some(healthy), Some(pause)) => healthy >= Duration::from_secs(pause),
            (None, _) | (_, None) => false,
        };
        match is_over {
            true => Advice::GoOn,
            false if look.now_ms >= rollout.late_at_ms() => {
                let days = (rollout.late_at_ms() - rollout.begun_at_ms) / 86_400_000;
                Advice::Stop(format!("it was not over within {days} days"))
            }
            false => Advice::Wait,
        }
    }

    fn begin_stage(&mut self, at: Revision, now: Instant) {
        self.at = at;
        self.first_until = now + FIRST_COUNTS;
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
    fn compare(
        &mut self,
        rollout: &Rollout,
        (stage, others): (&[&NodeView], &[&NodeView]),
        now: Instant,
    ) -> Option<String> {
        let thresholds = &rollout.thresholds;
        let (mut calls, mut before) = (Calls::default(), Calls::default());
        let first_until = self.first_until;
        for node in stage {
            if node.acked < self.at {
                continue;
            }
            let Some(counted) = node.seen.calls.get(&rollout.tenant) else { continue };
            let mark = self.marks.entry(node.node.clone()).or_insert_with(|| {
                // Whoever sees it later does not know what it had before.
                Mark { first: (now < first_until).then_some(*counted), stage: None }
            });
            calls = calls.and(counted.since(*mark.stage.get_or_insert(*counted)));
            before = before.and(mark.first.unwrap_or_default());
        }
        let mut elsewhere = Calls::default();
        for node in others {
            let Some(counted) = node.seen.calls.get(&rollout.tenant) else { continue };
            let mark = self.marks.entry(node.node.clone()).or_insert(Mark { first: None, stage: None });
            // It has no change, until it is in a stage.
            mark.first = Some(*counted);
            elsewhere = elsewhere.and(counted.since(*mark.stage.get_or_insert(*counted)));
        }
        // Apart: whoever shows tokens that he made up is turned away everywhere, and shall hide no rise among those who are
        // known.
        let known = self.judge([calls, elsewhere, before], thresholds);
        // Only other nodes at the same time tell how many strangers there are anyway: with what was before, whoever has no key
        // could have any change taken back that all nodes have.
        let [calls, elsewhere] = [calls, elsewhere].map(Calls::with_refused);
        if known.is_some() || !elsewhere.are_enough(thresholds) {
            return known;
        }
        self.judge([calls, elsewhere, Calls::default()], thresholds)
    }

    /// Whether more of the calls are rejected than elsewhere, or before, and that in words.
    fn judge(&mut self, [calls, elsewhere, before]: [Calls; 3], thresholds: &Thresholds) -> Option<String> {
        let compared = match () {
            () if elsewhere.are_enough(thresholds) => (Compared::Others, elsewhere),
            () if before.are_enough(thresholds) => (Compared::Before, before),
            () => (Compared::Nothing, Calls::default()),
        };
        (self.calls, (self.compared_with, self.compared)) = (calls, compared);
        let (of, compared) = compared;
        let than = match of {
            Compared::Nothing => return None,
            Compared::Others => "of nodes without the change",
            Compared::Before => "of the same nodes before",
        };
        calls.rose_above(compared, thresholds).then(|| {
            format!(
                "{} of {} calls were rejected on nodes with the change, and {} of {} {than}",
                calls.rejected, calls.calls, compared.rejected, compared.calls
            )
        })
    }
}

/// What of the rollout's tenant a node refuses, since the stage began.
fn refusal(node: &NodeView, rollout: &Rollout, at: Revision) -> Option<String> {
    let (name, seen) = (&node.node, &node.seen);
    if seen.refused < at {
        return None;
    }
    let of_tenant = seen.problems.iter().find(|problem| problem.tenant == rollout.tenant.as_str());
    if let Some(Problem { resource, message, .. }) = of_tenant {
        let place = if resource.is_empty() { String::new() } else { format!("{resource}: ") };
        return Some(format!("node {name} refuses the change: {place}{message}"));
    }
    // What it has it keeps; what it says of it may be about anybody.
    let takes_nothing = node.acked < at && seen.problems.iter().any(Problem::is_of_all);
    takes_nothing.then(|| format!("node {name} {TAKES_NOTHING}"))
}

#[cfg(test)]
mod tests;
