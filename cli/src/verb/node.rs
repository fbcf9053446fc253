//! `gantry node`: what each node of the fleet has, and what it refused.
//!
//! Always holds: it shows what `gantry status` knows, of the nodes of all members.

use std::fmt;

use gantry_wire::admin_v1::{NodeProblem, NodeStatus};
use gantry_wire::resource_v1::NodeLabels;
use serde::Serialize;

use super::status::status;
use crate::admin::Admin;
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::moment::{rfc3339, short};
use crate::output::{self, ReadFlags, visible};

/// Longest failure text in a table, in characters.
const FAILURE_MAX: usize = 80;

/// Show nodes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Node {
    /// List the nodes: how far each is, whom it follows, and what went wrong.
    Ls(List),
    /// Show one node with everything that is known of it.
    Show(Show),
}

/// `gantry node ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry node show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The node's name.
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    read: ReadFlags,
}

/// A node, as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct NodeView {
    name: String,
    build: String,
    scope: ScopeView,
    connected: bool,
    acked_revision: u64,
    lag: u64,
    urgent_revision: u64,
    apply_us: u64,
    records_dropped: u64,
    last_error: String,
    address: String,
    member: u64,
    connected_since: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused_revision: Option<u64>,
    problems: Vec<ProblemView>,
}

/// What a node may hold.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct ScopeView {
    /// Whatever there is.
    everything: bool,
    /// These tenants; each when there is none.
    tenants: Vec<String>,
    /// Those of them that may be there, beside those that may be anywhere.
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    /// Free ones, by which stages of rollouts name nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    labels: Vec<String>,
}

/// What a node refused, and serves in an older form.
#[derive(Debug, Serialize)]
struct ProblemView {
    tenant: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    resource: String,
    message: String,
}

impl Node {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Node::Ls(list) => list.run().await,
            Node::Show(show) => show.run().await,
        }
    }
}

async fn nodes(access: &Access) -> Result<Vec<NodeView>, Failure> {
    let admin = Admin::connect(&access.resolve()?).await?;
    let status = status(&admin).await?;
    Ok(status.nodes.iter().map(|node| NodeView::new(node, status.revision)).collect())
}

impl List {
    async fn run(self) -> Result<Exit, Failure> {
        let nodes = nodes(&self.read.access).await?;
        output::show(&nodes, self.read.output, || table(&nodes))?;
        Ok(Exit::Done)
    }
}

impl Show {
    async fn run(self) -> Result<Exit, Failure> {
        let nodes = nodes(&self.read.access).await?;
        let Some(node) = nodes.into_iter().find(|node| node.name == self.name) else {
            let message = format!("no node {:?} was seen within the last hour", self.name);
            return Err(Failure::error(message, "`gantry node ls` lists the nodes"));
        };
        output::show(&node, self.read.output, || node.text())?;
        Ok(Exit::Done)
    }
}

fn table(nodes: &[NodeView]) -> String {
    if nodes.is_empty() {
        output::say("no node has connected; `gantry data-plane run --help` says how one is started");
        return String::new();
    }
    let header = [
        "NODE",
        "STATE",
        "HOLDS",
        "REVISION",
        "LAG",
        "APPLIED IN",
        "FOLLOWS",
        "ADDRESS",
        "SINCE",
        "BUILD",
        "LAST ERROR",
    ];
    output::table(&header, nodes.iter().map(NodeView::long_row).collect())
}

impl NodeView {
    /// A node beside the cluster's revision.
    pub(crate) fn new(node: &NodeStatus, revision: u64) -> NodeView {
        NodeView {
            name: node.node_id.clone(),
            build: node.build.clone(),
            scope: ScopeView::of(node.labels.as_ref()),
            connected: node.connected,
            acked_revision: node.acked_revision,
            lag: revision.saturating_sub(node.acked_revision),
            urgent_revision: node.urgent_revision,
            apply_us: node.apply_us,
            records_dropped: node.records_dropped,
            last_error: node.last_error.clone(),
            address: node.address.clone(),
            member: node.member,
            connected_since: rfc3339(node.connected_at_ms),
            refused_revision: (node.refused_revision != 0).then_some(node.refused_revision),
            problems: node.problems.iter().map(ProblemView::from).collect(),
        }
    }

    fn state(&self) -> String {
        if self.connected { "connected" } else { "gone" }.to_owned()
    }

    /// A row of `gantry status`.
    pub(crate) fn row(&self) -> Vec<String> {
        vec![
            self.name.clone(),
            self.state(),
            self.acked_revision.to_string(),
            self.lag.to_string(),
            short(self.apply_us),
            self.records_dropped.to_string(),
            self.build.clone(),
            output::first_line(&self.last_error, FAILURE_MAX),
        ]
    }

    fn long_row(&self) -> Vec<String> {
        vec![
            visible(&self.name),
            self.state(),
            visible(&self.scope.to_string()),
            self.acked_revision.to_string(),
            self.lag.to_string(),
            short(self.apply_us),
            format!("member {}", self.member),
            visible(&self.address),
            self.connected_since.clone(),
            visible(&self.build),
            output::first_line(&self.last_error, FAILURE_MAX),
        ]
    }

    fn text(&self) -> String {
        let mut text = format!("{} {}\n", visible(&self.name), self.state());
        let mut line = |name: &str, value: String| text.push_str(&format!("  {name:<12} {value}\n"));
        line("holds", visible(&self.scope.to_string()));
        line("revision", format!("{}, {} behind", self.acked_revision, self.lag));
        line("revocations", format!("in force up to revision {}", self.urgent_revision));
        line("applied in", short(self.apply_us));
        line("follows", format!("member {} from {}", self.member, visible(&self.address)));
        line("since", self.connected_since.clone());
        line("build", visible(&self.build));
        line("records", format!("{} not reported for want of room", self.records_dropped));
        if !self.last_error.is_empty() {
            line("last error", visible(&self.last_error));
        }
        if let Some(revision) = self.refused_revision {
            line("refused", format!("of revision {revision}, and served in an older form:"));
        }
        for problem in &self.problems {
            let what = [problem.tenant.as_str(), problem.resource.as_str()];
            let what = what.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
            line("", format!("{}: {}", visible(&what), visible(&problem.message)));
        }
        text
    }
}

impl ScopeView {
    fn of(labels: Option<&NodeLabels>) -> ScopeView {
        let region = labels.map(|labels| labels.region.clone()).filter(|region| !region.is_empty());
        let tenants = labels.map(|labels| labels.tenants.clone()).unwrap_or_default();
        let free = labels.map(|labels| labels.labels.clone()).unwrap_or_default();
        ScopeView { everything: labels.is_none(), tenants, region, labels: free }
    }
}

impl fmt::Display for ScopeView {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.everything {
            return formatter.write_str("everything");
        }
        match self.tenants.is_empty() {
            true => formatter.write_str("every tenant")?,
            false => formatter.write_str(&self.tenants.join(", "))?,
        }
        match &self.region {
            Some(region) => write!(formatter, " in {region}")?,
            None => formatter.write_str(" without regions")?,
        }
        match self.labels.is_empty() {
            true => Ok(()),
            false => write!(formatter, " ({})", self.labels.join(", ")),
        }
    }
}

impl From<&NodeProblem> for ProblemView {
    fn from(problem: &NodeProblem) -> ProblemView {
        let NodeProblem { tenant, resource, message } = problem.clone();
        ProblemView { tenant, resource, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_shown_with_what_it_refused_by_tenant() {
        let problem = |tenant: &str, resource: &str| NodeProblem {
            tenant: tenant.to_owned(),
            resource: resource.to_owned(),
            message: "does not compile".to_owned(),
        };
        let node = NodeStatus {
            node_id: "edge-1".to_owned(),
            build: "0.1.0".to_owned(),
            connected: true,
            acked_revision: 40,
            apply_us: 1_250,
            last_error: "revision 41: acme: does not compile".to_owned(),
            records_dropped: 3,
            address: "192.0.2.7:4711".to_owned(),
            member: 2,
            connected_at_ms: 1_800_000_000_000,
            urgent_revision: 41,
            refused_revision: 41,
            problems: vec![problem("acme", ""), problem("globex", "Policy x")],
            labels: Some(NodeLabels {
                tenants: vec!["acme".to_owned()],
                region: "eu".to_owned(),
                labels: vec!["canary".to_owned()],
            }),
        };
        let view = NodeView::new(&node, 42);
        let text = "\
edge-1 connected
  holds        acme in eu (canary)
  revision     40, 2 behind
  revocations  in force up to revision 41
  applied in   1.2 ms
  follows      member 2 from 192.0.2.7:4711
  since        2027-01-15T08:00:00Z
  build        0.1.0
  records      3 not reported for want of room
  last error   revision 41: acme: does not compile
  refused      of revision 41, and served in an older form:
               acme: does not compile
               globex Policy x: does not compile
";
        assert_eq!(view.text(), text);
        let row = [
            "edge-1",
            "connected",
            "acme in eu (canary)",
            "40",
            "2",
            "1.2 ms",
            "member 2",
            "192.0.2.7:4711",
            "2027-01-15T08:00:00Z",
            "0.1.0",
            "revision 41: acme: does not compile",
        ];
        assert_eq!(view.long_row(), row);
    }
}
