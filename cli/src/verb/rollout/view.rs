//! A rollout, as a person or a program reads it.

use std::fmt::Write as _;

use gantry_model::rollout::{End, Stage};
use gantry_model::{Rollout, rollout::PAUSE_SECONDS_MAX};
use gantry_wire::admin_v1::{RolloutCalls, RolloutNode, RolloutStatus};
use gantry_wire::resource_v1::ResourceId;
use serde::Serialize;

use crate::change::title;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::moment::rfc3339;
use crate::output::visible;

/// Nodes that are listed for people; the others are counted.
const NODES_SHOWN_MAX: usize = 20;
/// Resources, likewise.
const RESOURCES_SHOWN_MAX: usize = 10;

/// A rollout.
#[derive(Debug, Serialize)]
pub(super) struct RolloutView {
    tenant: String,
    id: String,
    /// `running`, `promoted`, `aborted` or `stopped`.
    state: &'static str,
    /// From 1; all nodes are the last.
    stage: u32,
    stages: Vec<String>,
    by: String,
    begun_at: String,
    checked_revision: u64,
    begun_revision: u64,
    stage_revision: u64,
    /// Absent: no stage ends by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pause_seconds: Option<u64>,
    /// When it is taken back if it runs still.
    late_at: String,
    max_rise_percent: u8,
    min_calls: u32,
    resource_count: u32,
    applied: Vec<String>,
    deleted: Vec<String>,
    nodes: Vec<NodeView>,
    other_nodes: u32,
    calls: Counts,
    compared: Counts,
    /// `others`, `before`, or `nothing` while there are too few calls.
    compared_with: String,
    healthy_ms: u64,
    waits_for: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ended: Option<EndView>,
}

#[derive(Debug, Serialize)]
struct NodeView {
    name: String,
    connected: bool,
    acked: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    problem: String,
}

#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct Counts {
    calls: u64,
    rejected: u64,
}

#[derive(Debug, Serialize)]
struct EndView {
    /// Empty: it ended by itself.
    by: String,
    at: String,
    reason: String,
}

impl RolloutView {
    /// `None`: a newer build says what this one cannot read.
    pub(super) fn new(status: &RolloutStatus) -> Option<RolloutView> {
        let rollout = Rollout::try_from(status.rollout.as_ref()?).ok()?;
        let state = match rollout.ended.as_ref().map(|ended| ended.how) {
            None => "running",
            Some(End::Promoted) => "promoted",
            Some(End::Aborted) => "aborted",
            Some(End::Stopped) => "stopped",
        };
        let stages = rollout.stages.iter().map(Stage::to_string).chain(["all".to_owned()]).collect();
        let name = |id: &ResourceId| title(&id.kind, &id.tenant, &id.name);
        let compared_with = match status.compared_with.as_str() {
            "" => "nothing".to_owned(),
            with => with.to_owned(),
        };
        Some(RolloutView {
            tenant: rollout.tenant.to_string(),
            id: rollout.id.to_string(),
            state,
            stage: rollout.stage + 1,
            stages,
            by: rollout.by.clone(),
            begun_at: rfc3339(rollout.begun_at_ms),
            checked_revision: rollout.checked.0,
            begun_revision: rollout.begun.0,
            stage_revision: status.stage_revision,
            pause_seconds: rollout.pause_seconds,
            late_at: rfc3339(rollout.late_at_ms()),
            max_rise_percent: rollout.thresholds.rise_percent,
            min_calls: rollout.thresholds.calls_min,
            resource_count: rollout.resource_count,
            applied: status.applied.iter().map(name).collect(),
            deleted: status.deleted.iter().map(name).collect(),
            nodes: status.nodes.iter().map(NodeView::from).collect(),
            other_nodes: status.other_count,
            calls: status.calls.as_ref().map(Counts::from).unwrap_or_default(),
            compared: status.compared.as_ref().map(Counts::from).unwrap_or_default(),
            compared_with,
            healthy_ms: status.healthy_ms,
            waits_for: status.waits_for.clone(),
            ended: rollout.ended.as_ref().map(|ended| EndView {
                by: ended.by.clone(),
                at: rfc3339(ended.at_ms),
                reason: ended.reason.clone(),
            }),
        })
    }

    /// Whether it runs.
    pub(super) fn is_running(&self) -> bool {
        self.ended.is_none()
    }

    /// What tells it from others.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How a wait for the end of a rollout ends, where this is the tenant's now.
    pub(super) fn ending(&self, waited_for: &str, timeout: Span) -> Result<Exit, Failure> {
        let RolloutView { id, tenant, .. } = self;
        match (&self.ended, self.state) {
            _ if waited_for != id => Err(Failure::error(
                format!("rollout {waited_for} of tenant {tenant} has ended, and {id} was begun since"),
                format!("`gantry get all --tenant {tenant}` shows whether all nodes got its change"),
            )),
            (None, _) => Err(Failure::new(
                Exit::Unavailable,
                format!(
                    "rollout {id} of tenant {tenant} still runs after {} s, in {}{}",
                    timeout.seconds,
                    self.stage_title(),
                    if self.waits_for.is_empty() {
                        String::new()
                    } else {
                        format!(": {}", visible(&self.waits_for))
                    },
                ),
                format!(
                    "`gantry rollout promote --tenant {tenant}` or `gantry rollout abort --tenant {tenant}`"
                ),
            )),
            (Some(_), "promoted") => Ok(Exit::Done),
            (Some(ended), state) => Err(Failure::error(
                format!("rollout {id} of tenant {tenant} was {state}: {}", visible(&ended.reason)),
                "mend the change, then begin another with `gantry apply --rollout` or `gantry delete --rollout`",
            )),
        }
    }

    /// What it is and where it stands, in one line.
    pub(super) fn line(&self) -> String {
        let RolloutView { id, tenant, state, stage, stages, .. } = self;
        let name = stages.get(*stage as usize - 1).map(String::as_str).unwrap_or_default();
        match &self.ended {
            None => format!("rollout {id} of tenant {tenant}: running, {}\n", self.stage_title()),
            Some(EndView { by, at, reason }) => {
                let by = if by.is_empty() { "by itself".to_owned() } else { format!("by {}", visible(by)) };
                let why = if reason.is_empty() { String::new() } else { format!(": {}", visible(reason)) };
                format!(
                    "rollout {id} of tenant {tenant}: {state} {by} at {at} in stage {stage} ({name}){why}\n"
                )
            }
        }
    }

    fn stage_title(&self) -> String {
        let RolloutView { stage, stages, .. } = self;
        let name = stages.get(*stage as usize - 1).map(String::as_str).unwrap_or_default();
        format!("stage {stage} of {} ({name})", stages.len())
    }

    fn text(&self) -> String {
        let mut text = self.line();
        let mut line = |what: &str, value: String| {
            let _ = writeln!(text, "  {what:<10} {value}");
        };
        line(
            "begun",
            format!("by {} at {}, revision {}", visible(&self.by), self.begun_at, self.begun_revision),
        );
        if !self.is_running() {
            return text;
        }
        line("stages", self.stages.join(", "));
        line(
            "changes",
            shown(
                self.applied.iter().cloned().chain(self.deleted.iter().map(|id| format!("{id} (deleted)"))),
            ),
        );
        let acked = self.nodes.iter().filter(|node| node.connected && node.acked).count();
        line(
            "nodes",
            format!(
                "{acked} of {} in the stage have the change; {} others",
                self.nodes.len(),
                self.other_nodes
            ),
        );
        for node in self.nodes.iter().take(NODES_SHOWN_MAX) {
            line("", node.text());
        }
        let against = match self.compared_with.as_str() {
            "others" => format!("; on others {}", self.compared.text()),
            "before" => format!("; on the same nodes before {}", self.compared.text()),
            _ => "; too few elsewhere to compare with".to_owned(),
        };
        line("rejected", format!("{}{against}", self.calls.text()));
        let healthy = match self.healthy_ms {
            0 => "not yet".to_owned(),
            ms => format!("for {} s", ms / 1_000),
        };
        line("healthy", healthy);
        let next = match (self.waits_for.as_str(), self.pause_seconds) {
            ("", Some(pause)) => format!("the next stage after {} s of health", pause.min(PAUSE_SECONDS_MAX)),
            ("", None) => format!("`gantry rollout promote --tenant {}`", self.tenant),
            (waits_for, _) => format!("waits: {}", visible(waits_for)),
        };
        line("next", next);
        line("at latest", format!("taken back at {}", self.late_at));
        text
    }
}

impl NodeView {
    fn text(&self) -> String {
        let state = match (self.connected, self.acked) {
            (false, _) => "gone",
            (true, true) => "has it",
            (true, false) => "does not have it yet",
        };
        let problem =
            if self.problem.is_empty() { String::new() } else { format!(": {}", visible(&self.problem)) };
        format!("{} {state}{problem}", visible(&self.name))
    }
}

impl Counts {
    fn text(&self) -> String {
        format!("{} of {} calls", self.rejected, self.calls)
    }
}

impl From<&RolloutNode> for NodeView {
    fn from(node: &RolloutNode) -> NodeView {
        let RolloutNode { node_id, connected, acked, problem } = node.clone();
        NodeView { name: node_id, connected, acked, problem }
    }
}

impl From<&RolloutCalls> for Counts {
    fn from(calls: &RolloutCalls) -> Counts {
        Counts { calls: calls.calls, rejected: calls.rejected }
    }
}

/// For people.
pub(super) fn text(rollouts: &[RolloutView]) -> String {
    if rollouts.is_empty() {
        crate::output::say("there is no rollout; `gantry apply --rollout -f FILE` begins one");
    }
    rollouts.iter().map(RolloutView::text).collect()
}

fn shown(names: impl Iterator<Item = String>) -> String {
    let names: Vec<String> = names.collect();
    let more = names.len().saturating_sub(RESOURCES_SHOWN_MAX);
    let mut text = names.iter().take(RESOURCES_SHOWN_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 {
        let _ = write!(text, " and {more} more");
    }
    text
}

#[cfg(test)]
mod tests {
    use gantry_wire::resource_v1 as wire;

    use super::*;

    fn status(end: Option<wire::RolloutEnd>) -> RolloutStatus {
        let label = wire::rollout_stage::Nodes::Label("canary".to_owned());
        let share = wire::rollout_stage::Nodes::SharePercent(25);
        let stages = [label, share].map(|nodes| wire::RolloutStage { nodes: Some(nodes) });
        let rollout = wire::Rollout {
            tenant: "acme".to_owned(),
            id: vec![0, 1, 2, 3, 4, 5, 6, 7],
            resource_count: 1,
            checked_revision: 6,
            begun_revision: 7,
            stages: stages.to_vec(),
            stage: 1,
            pause_seconds: 300,
            rise_percent: 5,
            calls_min: 50,
            by: "ann".to_owned(),
            begun_at_ms: 1_800_000_000_000,
            end,
            ..wire::Rollout::default()
        };
        let node = |name: &str, acked| RolloutNode {
            node_id: name.to_owned(),
            connected: true,
            acked,
            problem: String::new(),
        };
        RolloutStatus {
            rollout: Some(rollout),
            applied: vec![ResourceId { kind: "Policy".into(), tenant: "acme".into(), name: "all".into() }],
            stage_revision: 9,
            nodes: vec![node("a", true), node("b", false)],
            other_count: 6,
            calls: Some(RolloutCalls { calls: 80, rejected: 2 }),
            compared: Some(RolloutCalls { calls: 900, rejected: 9 }),
            compared_with: "others".to_owned(),
            waits_for: "node b does not have the change yet".to_owned(),
            ..RolloutStatus::default()
        }
    }

    #[test]
    fn a_rollout_is_shown_with_its_nodes_and_what_it_waits_for() {
        let view = RolloutView::new(&status(None)).expect("readable");
        let text = "\
rollout 0001020304050607 of tenant acme: running, stage 2 of 3 (25%)
  begun      by ann at 2027-01-15T08:00:00Z, revision 7
  stages     canary, 25%, all
  changes    Policy acme/all
  nodes      1 of 2 in the stage have the change; 6 others
             a has it
             b does not have it yet
  rejected   2 of 80 calls; on others 9 of 900 calls
  healthy    not yet
  next       waits: node b does not have the change yet
  at latest  taken back at 2027-01-18T08:10:00Z
";
        assert_eq!(view.text(), text);
        let exit =
            |waited_for| view.ending(waited_for, Span { seconds: 1 }).map_err(|failure| failure.exit());
        assert_eq!(exit(view.id()), Err(Exit::Unavailable));
        assert_eq!(exit("another"), Err(Exit::Error));
    }

    #[test]
    fn a_wait_for_its_end_ends_by_what_became_of_it() {
        let ended = |outcome: wire::RolloutOutcome| {
            let (reason, by) = ("node a refuses the change".to_owned(), String::new());
            let end = wire::RolloutEnd { outcome: outcome.into(), reason, by, at_ms: 1_800_000_001_000 };
            RolloutView::new(&status(Some(end))).expect("readable")
        };
        let exit = |view: &RolloutView| {
            view.ending(view.id(), Span { seconds: 1 }).map_err(|failure| failure.exit())
        };
        assert_eq!(exit(&ended(wire::RolloutOutcome::Promoted)), Ok(Exit::Done));
        assert_eq!(exit(&ended(wire::RolloutOutcome::Aborted)), Err(Exit::Error));
        let stopped = ended(wire::RolloutOutcome::Stopped);
        assert_eq!(exit(&stopped), Err(Exit::Error));
        let text = "\
rollout 0001020304050607 of tenant acme: stopped by itself at 2027-01-15T08:00:01Z in stage 2 (25%): node a refuses the \
change
  begun      by ann at 2027-01-15T08:00:00Z, revision 7
";
        assert_eq!(stopped.text(), text);
    }
}
