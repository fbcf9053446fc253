//! Waiting until what was revoked is in force on every node.

use std::time::Duration;

use gantry_wire::admin_v1::{NodeStanding, WaitAppliedRequest};
use serde::Serialize;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::output::{self, TextFormat};

/// Longest single question to the service within a wait; shorter than the bound on a call.
const WAIT_STEP: Duration = Duration::from_secs(20);

/// Where it is in force, and where not.
#[derive(Debug, Serialize)]
pub(super) struct Seen {
    in_force: Vec<NodeTime>,
    silent: Vec<NodeTime>,
    lost: Vec<NodeTime>,
    #[serde(skip)]
    revision: u64,
}

/// A node, and how long it took; of one that is lost, since when.
#[derive(Debug, Serialize)]
struct NodeTime {
    node: String,
    ms: u64,
}

/// Waits until a revision's bans are in force everywhere, or the time is over; prints each node.
pub(super) async fn until_in_force(
    admin: &Admin,
    revision: u64,
    span: Span,
    format: TextFormat,
) -> Result<Seen, Failure> {
    let deadline = Instant::now() + Duration::from_secs(span.seconds);
    let seen = loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout_ms = u32::try_from(left.min(WAIT_STEP).as_millis()).unwrap_or(u32::MAX);
        let request = WaitAppliedRequest { revision, timeout_ms, urgent: true, each: true };
        let answer = admin.ask(admin.service().wait_applied(request), "`gantry status`").await?;
        if answer.acked_count >= answer.node_count || Instant::now() >= deadline {
            break Seen::of(revision, answer.nodes);
        }
    };
    if format == TextFormat::Text {
        output::print(&seen.text())?;
    }
    Ok(seen)
}

impl Seen {
    fn of(revision: u64, nodes: Vec<NodeStanding>) -> Seen {
        let mut seen = Seen { in_force: Vec::new(), silent: Vec::new(), lost: Vec::new(), revision };
        for NodeStanding { node_id, connected, acked, ms } in nodes {
            let node = NodeTime { node: output::visible(&node_id), ms };
            match (connected, acked) {
                (false, _) => seen.lost.push(node),
                (true, true) => seen.in_force.push(node),
                (true, false) => seen.silent.push(node),
            }
        }
        seen
    }

    fn text(&self) -> String {
        let line = |NodeTime { node, ms }: &NodeTime, how: &str| format!("{how:<10} {node}, {ms} ms\n");
        let mut text: String = self.in_force.iter().map(|node| line(node, "in force")).collect();
        text.extend(self.silent.iter().map(|node| line(node, "silent")));
        text.extend(self.lost.iter().map(|node| line(node, "lost")));
        let all = self.in_force.len() + self.silent.len();
        if let Some(NodeTime { node, ms }) = self.in_force.iter().max_by_key(|node| node.ms) {
            let known = self.in_force.len();
            text.push_str(&format!("in force on {known} of {all} nodes; slowest {node}, {ms} ms\n"));
        }
        text
    }

    /// `None`: it is in force wherever somebody could be served.
    pub(super) fn failure(&self, what: &str) -> Option<Failure> {
        let (revision, none) = (self.revision, self.in_force.is_empty() && self.silent.is_empty());
        if self.silent.is_empty() && self.lost.is_empty() && !none {
            return None;
        }
        let mut details: Vec<String> = Vec::new();
        let silent = self.silent.iter().map(|node| format!("{} is connected and did not answer", node.node));
        details.extend(silent);
        let lost = self.lost.iter().map(|NodeTime { node, ms }| {
            format!("{node} was lost without a word {} s ago, and may serve on", ms / 1_000)
        });
        details.extend(lost);
        let message = match none {
            true => format!("{what} is revoked at revision {revision}, but no node is connected"),
            false => format!("{what} is revoked at revision {revision}, but not known to be everywhere"),
        };
        let next = "look at these nodes; `gantry status` shows which are connected";
        Some(Failure::new(Exit::Unavailable, message, next).with_details(details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Paint;

    fn node(name: &str, connected: bool, acked: bool, ms: u64) -> NodeStanding {
        NodeStanding { node_id: name.to_owned(), connected, acked, ms }
    }

    #[test]
    fn every_node_is_named_and_those_that_did_not_answer_are_a_failure() {
        let seen = Seen::of(
            7,
            vec![
                node("a", true, true, 12),
                node("b", true, false, 900),
                node("c", false, false, 61_000),
                node("d", true, true, 40),
            ],
        );
        let text = "in force   a, 12 ms\nin force   d, 40 ms\nsilent     b, 900 ms\nlost       c, 61000 ms\n\
                    in force on 2 of 3 nodes; slowest d, 40 ms\n";
        assert_eq!(seen.text(), text);
        let failure = seen.failure("Agent acme/bot").expect("a failure");
        assert_eq!(failure.exit(), Exit::Unavailable);
        let told = "error: Agent acme/bot is revoked at revision 7, but not known to be everywhere\n  \
                    b is connected and did not answer\n  c was lost without a word 61 s ago, and may serve on\n\
                    next: look at these nodes; `gantry status` shows which are connected\n";
        assert_eq!(failure.render(Paint::PLAIN), told);
    }

    #[test]
    fn where_every_node_has_it_nothing_failed_and_no_node_is_none() {
        let seen = Seen::of(7, vec![node("a", true, true, 3)]);
        assert_eq!(seen.failure("Key acme/00"), None);
        let nobody = Seen::of(7, Vec::new());
        assert_eq!(
            (nobody.text().as_str(), nobody.failure("x").map(|failure| failure.exit())),
            ("", Some(Exit::Unavailable))
        );
    }
}
