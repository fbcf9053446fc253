//! `gantry status`: the cluster, the revision that each node has, and what each server offers or why it does not.

use gantry_wire::admin_v1::{ServerStatus, StatusRequest, StatusResponse};
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::{Exit, Failure};
use crate::output::{self, ReadFlags};
use crate::verb::node::NodeView;

/// Longest failure text in a table, in characters.
const FAILURE_MAX: usize = 80;

/// Show the cluster, its nodes and its servers.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    #[command(flatten)]
    read: ReadFlags,
}

#[derive(Debug, Serialize)]
struct ClusterView {
    cluster_id: String,
    build: String,
    revision: u64,
    term: u64,
    leader: bool,
    log_last: u64,
    log_purged: u64,
    resources: u32,
    nodes: Vec<NodeView>,
    servers: Vec<ServerView>,
}

#[derive(Debug, Serialize)]
struct ServerView {
    tenant: String,
    name: String,
    tools: u32,
    quarantined: u32,
    revisions: Vec<String>,
    failure: String,
}

impl Status {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let answer = status(&admin).await?;
        let view = ClusterView::from(&answer);
        output::show(&view, self.read.output, || view.text())?;
        Ok(Exit::Done)
    }
}

/// Asks for the status.
pub(crate) async fn status(admin: &Admin) -> Result<StatusResponse, Failure> {
    admin.ask(admin.service().status(StatusRequest {}), "look into the log of `gantry dev`").await
}

impl From<&StatusResponse> for ClusterView {
    fn from(status: &StatusResponse) -> ClusterView {
        ClusterView {
            cluster_id: status.cluster_id.clone(),
            build: status.build.clone(),
            revision: status.revision,
            term: status.term,
            leader: status.leader,
            log_last: status.log_last,
            log_purged: status.log_purged,
            resources: status.resource_count,
            nodes: status.nodes.iter().map(|node| NodeView::new(node, status.revision)).collect(),
            servers: status.servers.iter().map(ServerView::from).collect(),
        }
    }
}

impl From<&ServerStatus> for ServerView {
    fn from(server: &ServerStatus) -> ServerView {
        ServerView {
            tenant: server.tenant.clone(),
            name: server.name.clone(),
            tools: server.tool_count,
            quarantined: server.quarantined_count,
            revisions: server.revisions.clone(),
            failure: server.failure.clone(),
        }
    }
}

impl ServerView {
    fn row(&self) -> Vec<String> {
        let failure = output::first_line(&self.failure, FAILURE_MAX);
        vec![
            self.tenant.clone(),
            self.name.clone(),
            self.tools.to_string(),
            self.quarantined.to_string(),
            self.revisions.join(", "),
            failure,
        ]
    }
}

impl ClusterView {
    fn text(&self) -> String {
        let role = if self.leader { "leader" } else { "not the leader" };
        let mut text = format!(
            "cluster {}, build {}, {role} in term {}\nrevision {}, {} resources; log up to {}, purged up to {}\n",
            self.cluster_id,
            self.build,
            self.term,
            self.revision,
            self.resources,
            self.log_last,
            self.log_purged,
        );
        text.push('\n');
        if self.nodes.is_empty() {
            text.push_str("no node has connected\n");
        } else {
            let header = ["NODE", "STATE", "REVISION", "LAG", "APPLY", "RECORDS LOST", "BUILD", "LAST ERROR"];
            text.push_str(&output::table(&header, self.nodes.iter().map(NodeView::row).collect()));
        }
        text.push('\n');
        if self.servers.is_empty() {
            text.push_str("no server is stored; `gantry apply -f FILE` stores one\n");
        } else {
            let header = ["TENANT", "SERVER", "TOOLS", "WAITING", "PROTOCOL", "FAILURE"];
            text.push_str(&output::table(&header, self.servers.iter().map(ServerView::row).collect()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use gantry_wire::admin_v1::NodeStatus;

    use super::*;

    #[test]
    fn the_lag_of_a_node_is_told_in_revisions() {
        let node =
            NodeStatus { node_id: "a".into(), acked_revision: 5, connected: true, ..Default::default() };
        let server =
            ServerStatus { tenant: "t".into(), name: "s".into(), tool_count: 2, ..Default::default() };
        let status = StatusResponse {
            cluster_id: "c".into(),
            build: "0.1.0".into(),
            revision: 7,
            term: 1,
            leader: true,
            nodes: vec![node],
            servers: vec![server],
            ..Default::default()
        };
        let expected = "\
cluster c, build 0.1.0, leader in term 1
revision 7, 0 resources; log up to 0, purged up to 0

NODE  STATE      REVISION  LAG  APPLY  RECORDS LOST  BUILD  LAST ERROR
a     connected  5         2    0 µs   0

TENANT  SERVER  TOOLS  WAITING  PROTOCOL  FAILURE
t       s       2      0
";
        assert_eq!(ClusterView::from(&status).text(), expected);
    }
}
