//! What a node sends: answers to updates, catalogs, audit records.
//!
//! Always holds: nothing that a node sends is believed before it is checked, and nothing of it ends the process. A
//! node that reports more than is recorded waits; its other messages wait behind.

use std::sync::Arc;

use gantry_model::{Revision, Scope, TenantName};
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{CallCounts, Nack, NodeMessage, Problem, RecordReport, TenantCalls};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tonic::{Code, Streaming};

use super::catalogs::{self, ReportSender};
use super::rejection::StreamEnd;
use crate::fleet::{self, Ticket};
use crate::plane::Plane;

/// Problems of a refused update that are shown; they often have one cause.
const PROBLEMS_SHOWN_MAX: usize = 3;

/// A node's answer to an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Applied { revision: Revision, digest: Vec<u8>, apply_us: u64 },
    Refused { revision: Revision, message: String, problems: Vec<fleet::Problem>, need_snapshot: bool },
}

/// Reads what a node sends.
pub(super) struct Intake<'a> {
    pub(super) plane: &'a Arc<Plane>,
    pub(super) ticket: &'a Ticket,
    pub(super) inbound: Streaming<NodeMessage>,
    pub(super) answers: mpsc::Sender<Answer>,
    pub(super) reports: ReportSender,
}

impl Answer {
    /// The revision that it is about.
    pub(super) fn revision(&self) -> Revision {
        match self {
            Answer::Applied { revision, .. } | Answer::Refused { revision, .. } => *revision,
        }
    }
}

impl Intake<'_> {
    /// Ends when the node leaves or breaks the protocol.
    pub(super) async fn run(mut self) -> Result<(), StreamEnd> {
        loop {
            let message = match self.inbound.message().await {
                Ok(Some(message)) => message,
                // The connection broke: where the node is, is not known, and it may serve on.
                Err(status) if status.code() != Code::Cancelled => return Ok(()),
                Ok(None) | Err(_) => {
                    self.plane.fleet.nodes.takes_leave(self.ticket);
                    return Ok(());
                }
            };
            let answer = match message.message {
                Some(Message::Hello(_)) => return Err(StreamEnd::SecondHello),
                Some(Message::Ack(ack)) => Answer::Applied {
                    revision: Revision(ack.revision),
                    digest: ack.digest,
                    apply_us: ack.apply_us,
                },
                Some(Message::Nack(nack)) => self.take_refusal(nack),
                Some(Message::Catalog(report)) => {
                    // Before it waits: what the node has by then may be another.
                    if !catalogs::is_staged(self.plane, self.ticket, &report) {
                        self.reports.send(report).await;
                    }
                    continue;
                }
                Some(Message::Records(report)) => {
                    self.take_records(report);
                    continue;
                }
                Some(Message::Urgent(ack)) => {
                    let (nodes, revision) = (&self.plane.fleet.nodes, Revision(ack.revision));
                    nodes.urgent_acked(self.ticket, revision, Instant::now());
                    continue;
                }
                Some(Message::Calls(counts)) => {
                    self.take_counts(&counts);
                    continue;
                }
                // A message of a newer build.
                None => continue,
            };
            if self.answers.send(answer).await.is_err() {
                return Ok(());
            }
        }
    }

    /// What a refusal of an update as a whole means for the fleet is told by how often it comes.
    fn take_refusal(&self, nack: Nack) -> Answer {
        let answer = refused(nack);
        if let Answer::Refused { revision, message, need_snapshot: true, .. } = &answer {
            self.plane.fleet.nodes.refused_whole(self.ticket, *revision, message);
        }
        answer
    }

    /// Of tenants that the node holds, and that have a rollout: it was asked of no others.
    fn take_counts(&self, counts: &CallCounts) {
        let view = self.plane.consensus.feed().latest();
        let is_running = |tenant: &TenantName| {
            let rollout = view.state.rollout(tenant);
            rollout.is_some_and(|(rollout, _)| rollout.is_running())
                && view.state.digests().has(&self.ticket.scope, tenant)
        };
        let is_asked = |told: &&TenantCalls| told.tenant.parse().is_ok_and(|tenant| is_running(&tenant));
        let asked: Vec<TenantCalls> = counts.tenants.iter().filter(is_asked).cloned().collect();
        self.plane.fleet.nodes.counted(self.ticket, &asked, is_running);
    }

    fn take_records(&self, report: RecordReport) {
        self.plane.fleet.nodes.records_dropped(self.ticket, report.dropped);
        let mut refused = None;
        let view = self.plane.consensus.feed().latest();
        let scope = &self.ticket.scope;
        // A tenant that is gone has nobody to whom it could be told what is not so.
        let holds =
            |tenant: &TenantName| *scope == Scope::Everything || view.state.digests().has(scope, tenant);
        for record in report.records {
            if let Err(error) = self.plane.journal.push_of(record.into(), holds) {
                refused = Some(error);
            }
        }
        if let Some(error) = refused {
            tracing::warn!(node = %self.ticket.node, %error, "an audit record is not taken in");
            self.plane.fleet.nodes.failed(self.ticket, &error.to_string());
        }
    }
}

fn refused(nack: Nack) -> Answer {
    let mut shown: Vec<String> = nack.problems.iter().take(PROBLEMS_SHOWN_MAX).map(describe).collect();
    match nack.problems.len().saturating_sub(shown.len()) {
        0 => {}
        more => shown.push(format!("and {more} more")),
    }
    if shown.is_empty() {
        shown.push("the node asked for a snapshot".to_owned());
    }
    Answer::Refused {
        revision: Revision(nack.revision),
        message: format!("revision {}: {}", nack.revision, shown.join("; ")),
        problems: nack.problems.into_iter().map(problem).collect(),
        need_snapshot: nack.need_snapshot,
    }
}

fn problem(problem: Problem) -> fleet::Problem {
    let Problem { tenant, resource, message } = problem;
    fleet::Problem { tenant, resource, message }
}

fn describe(problem: &Problem) -> String {
    let Problem { tenant, resource, message } = problem;
    let place = [tenant.as_str(), resource.as_str()].into_iter().filter(|part| !part.is_empty());
    match place.collect::<Vec<_>>().join(" ") {
        place if place.is_empty() => message.clone(),
        place => format!("{place}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_in_one_line() {
        let problem = |tenant: &str| Problem {
            tenant: tenant.to_owned(),
            resource: "Policy x".to_owned(),
            message: "bad".to_owned(),
        };
        let nack = Nack {
            revision: 7,
            problems: ["a", "b", "c", "d", "e"].map(problem).to_vec(),
            need_snapshot: false,
        };
        let message = "revision 7: a Policy x: bad; b Policy x: bad; c Policy x: bad; and 2 more".to_owned();
        let problems: Vec<_> = nack.problems.iter().cloned().map(super::problem).collect();
        assert_eq!((problems.len(), &*problems[4].tenant), (5, "e"));
        let answer = Answer::Refused { revision: Revision(7), message, problems, need_snapshot: false };
        assert_eq!(refused(nack), answer);
        let bare = Nack { revision: 8, problems: Vec::new(), need_snapshot: true };
        let message = "revision 8: the node asked for a snapshot".to_owned();
        let problems = Vec::new();
        let answer = Answer::Refused { revision: Revision(8), message, problems, need_snapshot: true };
        assert_eq!(refused(bare), answer);
    }
}
