//! What is shown of a node: a row for people, and the word of it for other members.
//!
//! Always holds: texts of a node are cut, and at most [`PROBLEMS_MAX`] of its problems are kept.

use gantry_control_state::ROLLOUTS_MAX;
use gantry_model::{Revision, Scope, TenantName};
use gantry_wire::raft_v1 as wire;
use gantry_wire::resource_v1::NodeLabels;
use gantry_wire::sync_v1::TenantCalls;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::NodeId;
use crate::rollout::Calls;

/// Longest message in characters: it is one cell of a table.
pub(super) const MESSAGE_CHARS_MAX: usize = 512;
/// Problems that are kept of a node; they often have one cause.
const PROBLEMS_MAX: usize = 64;

/// A row, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NodeView {
    pub(crate) node: NodeId,
    /// The member that it follows; `None`: this one.
    pub(crate) member: Option<u64>,
    pub(crate) connected: bool,
    pub(crate) acked: Revision,
    pub(crate) urgent: Revision,
    pub(crate) seen: Arc<Seen>,
}

/// What a node says of itself, and what is seen of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) build: String,
    /// What it may hold.
    pub(crate) scope: Scope,
    /// From where its stream comes; empty: not known.
    pub(crate) address: String,
    /// In milliseconds since 1970.
    pub(crate) connected_at_ms: u64,
    pub(crate) apply_us: u64,
    pub(crate) last_error: String,
    pub(crate) records_dropped: u64,
    /// Of the latest update that it refused in part.
    pub(crate) refused: Revision,
    pub(crate) problems: Vec<Problem>,
    /// Updates in a row that it took nothing of.
    pub(crate) refused_whole: u32,
    /// Calls of the tenants with a rollout, since its process began.
    pub(crate) calls: BTreeMap<TenantName, Calls>,
}

/// What a node refused of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Problem {
    /// Empty: the update as a whole.
    pub(crate) tenant: String,
    /// Empty: the tenant as a whole.
    pub(crate) resource: String,
    pub(crate) message: String,
}

impl Problem {
    /// Whether it is of no tenant: nothing was taken.
    pub(crate) fn is_of_all(&self) -> bool {
        self.tenant.is_empty()
    }
}

impl Seen {
    /// Something went wrong with the node.
    pub(super) fn failed(&mut self, message: &str) {
        self.last_error = cut(message);
    }

    /// It refused a part of an update.
    pub(super) fn refused(&mut self, revision: Revision, problems: Vec<Problem>) {
        let problem = |problem: Problem| Problem {
            tenant: cut(&problem.tenant),
            resource: cut(&problem.resource),
            message: cut(&problem.message),
        };
        self.problems = problems.into_iter().take(PROBLEMS_MAX).map(problem).collect();
        self.refused = revision;
        self.refused_whole = 0;
    }

    /// It took nothing of an update, and asks for a snapshot. The first time that may be the fault of a delta; a snapshot
    /// that it does not take either it refuses, which is a problem of no tenant.
    pub(super) fn refused_whole(&mut self, revision: Revision, message: &str) {
        let count = self.refused_whole.saturating_add(1);
        if count > 1 {
            let (tenant, resource, message) = (String::new(), String::new(), message.to_owned());
            self.refused(revision, vec![Problem { tenant, resource, message }]);
        }
        self.refused_whole = count;
    }

    /// It told of calls: of those tenants that it names, the rest stay.
    pub(super) fn counted(&mut self, calls: &[TenantCalls]) {
        for told in calls.iter().take(ROLLOUTS_MAX) {
            let Ok(tenant) = told.tenant.parse::<TenantName>() else { continue };
            if self.calls.len() < ROLLOUTS_MAX || self.calls.contains_key(&tenant) {
                let TenantCalls { calls, rejected, refused, .. } = *told;
                self.calls.insert(tenant, Calls { calls, rejected, refused });
            }
        }
    }

    /// It has all of an update.
    pub(super) fn applied(&mut self, apply_us: u64) {
        self.apply_us = apply_us;
        self.last_error.clear();
        self.problems.clear();
        self.refused = Revision::NONE;
        self.refused_whole = 0;
    }

    /// What another member tells of a node.
    pub(super) fn of_news(node: &wire::FleetNode) -> Seen {
        let problem = |problem: &wire::FleetProblem| Problem {
            tenant: problem.tenant.clone(),
            resource: problem.resource.clone(),
            message: problem.message.clone(),
        };
        let mut seen = Seen {
            build: node.build.clone(),
            // Its member read the certificate; labels that cannot be read here are not shown as more than none.
            scope: node
                .labels
                .as_ref()
                .map_or(Scope::Everything, |labels| Scope::Of(labels.try_into().unwrap_or_default())),
            address: cut(&node.address),
            connected_at_ms: node.connected_at_ms,
            apply_us: node.apply_us,
            last_error: cut(&node.last_error),
            records_dropped: node.records_dropped,
            ..Seen::default()
        };
        seen.counted(&node.calls);
        seen.refused(Revision(node.refused_revision), node.problems.iter().map(problem).collect());
        seen
    }

    /// The same for other members.
    pub(super) fn to_news(&self, id: &NodeId) -> wire::FleetNode {
        let problem = |problem: &Problem| wire::FleetProblem {
            tenant: problem.tenant.clone(),
            resource: problem.resource.clone(),
            message: problem.message.clone(),
        };
        wire::FleetNode {
            node_id: id.to_string(),
            build: self.build.clone(),
            address: self.address.clone(),
            connected_at_ms: self.connected_at_ms,
            apply_us: self.apply_us,
            last_error: self.last_error.clone(),
            records_dropped: self.records_dropped,
            refused_revision: self.refused.0,
            problems: self.problems.iter().map(problem).collect(),
            labels: labels(&self.scope),
            calls: self.calls.iter().map(told).collect(),
            ..wire::FleetNode::default()
        }
    }
}

/// A scope as it is told; everything has no labels.
pub(crate) fn labels(scope: &Scope) -> Option<NodeLabels> {
    match scope {
        Scope::Everything => None,
        Scope::Of(labels) => Some(labels.into()),
    }
}

fn told((tenant, calls): (&TenantName, &Calls)) -> TenantCalls {
    let Calls { calls, rejected, refused } = *calls;
    TenantCalls { tenant: tenant.to_string(), calls, rejected, refused }
}

fn cut(text: &str) -> String {
    text.chars().take(MESSAGE_CHARS_MAX).collect()
}
