//! Rollouts as nodes hear of them: in a stage or held back, denials go ahead for what a node is served; and what becomes of
//! one that a node takes nothing of.

use gantry_wire::admin_v1::change_rollout_request::Change;
use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::rollout_stage::Nodes;
use gantry_wire::resource_v1::{RolloutOutcome, RolloutStage};
use gantry_wire::sync_v1::node_message::Message;
use gantry_wire::sync_v1::{Nack, Narrowing, Problem, UrgentAck};
use serde_json::{Value, json};

use crate::harness::{Harness, Result, acme, agent, eventually, policy, resources};
use crate::node::{Connection, Process};
use crate::policy::{catalog, report};

const PERMIT: &str = "permit(principal, action, resource);";
const FORBID: &str = "forbid(principal, action, resource);";

impl Harness {
    /// Begins a rollout whose only stage is this; answers the revision.
    async fn begin(&mut self, documents: &[Value], stage: &Nodes) -> Result<u64> {
        let request = BeginRolloutRequest {
            resources: resources(documents)?,
            stages: vec![RolloutStage { nodes: Some(stage.clone()) }],
            rise_percent: 100,
            ..BeginRolloutRequest::default()
        };
        let begun = self.admin.begin_rollout(request).await?.into_inner();
        assert_eq!(begun.problems, []);
        Ok(begun.revision)
    }

    async fn abort(&mut self) -> Result<u64> {
        let change = Some(Change::Abort(String::new()));
        let request = ChangeRolloutRequest { tenant: "acme".into(), change, ..Default::default() };
        Ok(self.admin.change_rollout(request).await?.into_inner().revision)
    }

    /// Begins one with the node in its stage. Who is in a share is by a hash of the rollout's random id.
    async fn begin_on(&mut self, documents: &[Value], node: &str) -> Result<u64> {
        let begin = async || {
            let revision = self.begin(documents, &Nodes::SharePercent(99)).await?;
            let listed = self.admin.list_rollouts(ListRolloutsRequest::default()).await?.into_inner();
            let is_in = listed.rollouts[0].nodes.iter().any(|known| known.node_id == node);
            if !is_in {
                self.abort().await?;
            }
            Ok((revision, is_in))
        };
        Ok(eventually(begin, |(_, is_in)| *is_in).await?.0)
    }
}

/// What is told ahead of the update that the node has not answered: names of policies, and of agents.
async fn ahead(connection: &mut Connection) -> Result<(Vec<String>, Vec<String>)> {
    loop {
        let urgent = connection.urgent().await?;
        connection.send(Message::Urgent(UrgentAck { revision: urgent.revision })).await?;
        if let [Narrowing { policies, agents, .. }] = urgent.narrowings.as_slice() {
            let mut policies: Vec<_> = policies.iter().map(|policy| policy.name.clone()).collect();
            let mut agents: Vec<_> = agents.iter().map(|agent| agent.name.clone()).collect();
            policies.sort();
            agents.sort();
            return Ok((policies, agents));
        }
    }
}

fn named(policies: &[&str], agents: &[&str]) -> (Vec<String>, Vec<String>) {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    (owned(policies), owned(agents))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denial_overtakes_for_what_a_node_is_served_in_a_stage_or_held_back() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    harness.apply(&[policy("open", PERMIT)]).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;

    // In a stage: what only the rollout allows stays allowed, and what is forbidden beside it is not.
    let staged = [policy("staged", PERMIT), agent("guest")];
    let begun = harness.begin_on(&staged, "node").await?;
    process.follow_to(&mut connection, begun).await?;
    assert!(process.entries.contains_key("acme/policy/staged"));
    harness.apply(&[json!({"kind": "Tenant", "name": "in-the-way"})]).await?;
    let waiting = connection.update().await?;
    let forbidden = harness.apply(&[policy("less", FORBID)]).await?;
    assert_eq!(ahead(&mut connection).await?, named(&["less", "open", "staged"], &["bot", "guest"]));

    // What it allowed is taken back as fast.
    let aborted = harness.abort().await?;
    assert_eq!(ahead(&mut connection).await?, named(&["less", "open"], &["bot"]));
    process.take(&waiting)?;
    connection.ack(&waiting, process.digest()).await?;
    process.follow_to(&mut connection, aborted).await?;
    assert!(aborted > forbidden && process.entries.contains_key("acme/policy/less"));
    assert!(!process.entries.contains_key("acme/policy/staged"));

    // Held back: nothing of the rollout goes ahead, and the denial comes with the update too.
    let begun = harness.begin(&staged, &Nodes::Label("canary".into())).await?;
    process.follow_to(&mut connection, begun).await?;
    harness.apply(&[json!({"kind": "Tenant", "name": "in-the-way-again"})]).await?;
    let waiting = connection.update().await?;
    let forbidden = harness.apply(&[policy("least", FORBID)]).await?;
    assert_eq!(ahead(&mut connection).await?, named(&["least", "less", "open"], &["bot"]));
    process.take(&waiting)?;
    connection.ack(&waiting, process.digest()).await?;
    process.follow_to(&mut connection, forbidden).await?;
    assert!(process.entries.contains_key("acme/policy/least"));
    assert!(!process.entries.contains_key("acme/policy/staged"));
    harness.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_takes_neither_delta_nor_snapshot_stops_the_rollout_and_what_it_says_is_told_to_nobody()
-> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    let begun = harness.begin_on(&[policy("staged", PERMIT)], "node").await?;
    let mut refused = async |connection: &mut Connection| {
        let mut update = connection.update().await?;
        while update.revision < begun {
            process.take(&update)?;
            connection.ack(&update, process.digest()).await?;
            update = connection.update().await?;
        }
        let problem =
            Problem { message: "globex has what this build cannot read".into(), ..Problem::default() };
        let nack = Nack { revision: update.revision, problems: vec![problem], need_snapshot: true };
        connection.send(Message::Nack(nack)).await?;
        Result::Ok(update.from_revision)
    };
    assert_ne!(refused(&mut connection).await?, 0, "a delta, which a snapshot may mend");
    assert_eq!(refused(&mut connection).await?, 0, "a snapshot");
    let ended = async || {
        let listed = harness.admin.list_rollouts(ListRolloutsRequest::default()).await?.into_inner();
        Ok(listed.rollouts.first().and_then(|status| status.rollout.as_ref()?.end.clone()))
    };
    let end = eventually(ended, Option::is_some).await?.ok_or("an end")?;
    let reason =
        "node node takes no update, neither a delta nor a snapshot; `gantry node show` says why".to_owned();
    assert_eq!((end.outcome(), end.reason), (RolloutOutcome::Stopped, reason));
    harness.stop().await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_server_offers_that_only_a_stage_had_is_not_recorded_after_it_was_taken_back() -> Result {
    let mut harness = Harness::start().await?;
    harness.apply(&acme()).await?;
    let mut process = Process::new("node")?;
    let (mut connection, _) = process.join(harness.address()).await?;
    report(&connection, catalog(&["stored"])).await?;
    let recorded = async |harness: &mut Harness, tools: u32| {
        let count = async || {
            let status = harness.admin.status(StatusRequest {}).await?.into_inner();
            Ok(status.servers.iter().map(|server| server.tool_count).collect::<Vec<_>>())
        };
        eventually(count, |counts| counts.contains(&tools)).await
    };
    recorded(&mut harness, 1).await?;
    let moved = json!({"kind": "Server", "tenant": "acme", "name": "files",
        "spec": {"url": "http://127.0.0.1:9/other", "credential": "token"}});
    let begun = harness.begin_on(&[moved], "node").await?;
    process.follow_to(&mut connection, begun).await?;
    // It is taken back, and the node does not know yet when it tells what it found.
    let aborted = harness.abort().await?;
    let update = connection.update().await?;
    assert_eq!(update.revision, aborted);
    report(&connection, catalog(&["other", "one"])).await?;
    process.take(&update)?;
    connection.ack(&update, process.digest()).await?;
    // Reports are looked at one after the other; once this one counts, the one before did not.
    let known = async || {
        report(&connection, catalog(&["stored", "and", "more"])).await?;
        let status = harness.admin.status(StatusRequest {}).await?.into_inner();
        Ok(status.servers.iter().map(|server| server.tool_count).max().unwrap_or_default())
    };
    assert_eq!(eventually(known, |count| *count != 1).await?, 3);
    harness.stop().await?;
    Ok(())
}
