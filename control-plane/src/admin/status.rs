//! How the cluster is, and waiting until nodes have a revision.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use gantry_control_state::State;
use gantry_model::record::RecordValue;
use gantry_model::{Revision, Scope, ServerName, Spec, TenantName};
use gantry_wire::admin_v1::{
    NodeProblem, NodeStanding, NodeStatus, ServerStatus, StatusResponse, WaitAppliedRequest,
    WaitAppliedResponse,
};
use gantry_wire::resource_v1::NodeLabels;
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use super::call::Call;
use super::rejection::index;
use crate::access::rules::{Reach, WAIT_MAX};
use crate::fleet::{Lane, NodeView, Problem, Progress, Standing, labels};

/// To whoever is bound to tenants, the cluster is what serves those: he sees neither its log nor what nodes said of others.
pub(super) async fn status(call: &Call) -> StatusResponse {
    let view = call.view();
    let nodes = call.plane.fleet.nodes.list(Instant::now()).into_iter();
    if let Reach::Tenants(tenants) = &call.reach {
        let serves = serves(call);
        let revisions = view.state.tenant_revisions();
        return StatusResponse {
            cluster_id: call.plane.vault.cluster_id().to_owned(),
            build: env!("CARGO_PKG_VERSION").to_owned(),
            revision: view.revision.0,
            resource_count: resources(&view.state),
            nodes: nodes
                .filter(|node| serves(&node.seen.scope))
                .map(|node| bound_node_status(node, tenants, &revisions))
                .collect(),
            servers: servers(call, &view.state),
            ..StatusResponse::default()
        };
    }
    let consensus = call.plane.consensus.status().await;
    let own = consensus.voter.0;
    StatusResponse {
        cluster_id: call.plane.vault.cluster_id().to_owned(),
        build: env!("CARGO_PKG_VERSION").to_owned(),
        revision: view.revision.0,
        term: consensus.term,
        leader: consensus.stopped.is_none() && consensus.leader == Some(consensus.voter),
        log_last: consensus.last_log.unwrap_or(0),
        log_purged: consensus.purged.unwrap_or(0),
        resource_count: resources(&view.state),
        nodes: nodes.map(|node| node_status(node, own)).collect(),
        servers: servers(call, &view.state),
        digest: view.state.digest().to_bytes().to_vec(),
    }
}

fn resources(state: &State) -> u32 {
    index(state.records().filter(|record| matches!(record.value, RecordValue::Resource(_))).count())
}

/// A node as those see it who are bound to tenants: the newest of their own revisions that it has, and nothing of what
/// was seen of it, which may tell of others.
fn bound_node_status(
    node: NodeView,
    tenants: &BTreeSet<TenantName>,
    revisions: &BTreeSet<Revision>,
) -> NodeStatus {
    let acked = revisions.range(..=node.acked).next_back().copied().unwrap_or(Revision::NONE);
    let (node_id, connected) = (node.node.to_string(), node.connected);
    NodeStatus {
        node_id,
        build: node.seen.build.clone(),
        connected,
        acked_revision: acked.0,
        labels: labels(&node.seen.scope).map(|labels| NodeLabels {
            tenants: labels
                .tenants
                .into_iter()
                .filter(|name| tenants.iter().any(|tenant| tenant.as_str() == name))
                .collect(),
            ..labels
        }),
        ..NodeStatus::default()
    }
}

/// Which nodes are the caller's affair: to whoever is bound to tenants, those that hold one of them.
fn serves(call: &Call) -> impl Fn(&Scope) -> bool {
    let (reach, state) = (call.reach.clone(), call.plane.consensus.feed().latest().state);
    move |scope| match &reach {
        Reach::Everything => true,
        Reach::Tenants(tenants) => tenants.iter().any(|tenant| state.digests().has(scope, tenant)),
    }
}

/// `own`: the member that answers.
fn node_status(node: NodeView, own: u64) -> NodeStatus {
    let problem = |problem: Problem| NodeProblem {
        tenant: problem.tenant,
        resource: problem.resource,
        message: problem.message,
    };
    let seen = Arc::unwrap_or_clone(node.seen);
    NodeStatus {
        node_id: node.node.to_string(),
        build: seen.build,
        connected: node.connected,
        acked_revision: node.acked.0,
        apply_us: seen.apply_us,
        last_error: seen.last_error,
        records_dropped: seen.records_dropped,
        address: seen.address,
        member: node.member.unwrap_or(own),
        connected_at_ms: seen.connected_at_ms,
        urgent_revision: node.urgent.0,
        refused_revision: seen.refused.0,
        problems: seen.problems.into_iter().map(problem).collect(),
        labels: labels(&seen.scope),
    }
}

fn servers(call: &Call, state: &State) -> Vec<ServerStatus> {
    let of_record = |value: &RecordValue| {
        let RecordValue::Resource(resource) = value else { return None };
        let Spec::Server(_) = resource.spec else { return None };
        let (tenant, server) = (&resource.tenant, ServerName::from(resource.name.clone()));
        let catalog = state.catalog(tenant, &server);
        Some(ServerStatus {
            tenant: tenant.to_string(),
            name: server.to_string(),
            tool_count: catalog.map_or(0, |catalog| index(catalog.tools.len())),
            revisions: catalog.map(|catalog| catalog.revisions.clone()).unwrap_or_default(),
            failure: failure(call, tenant, &server).unwrap_or_default(),
            quarantined_count: catalog.map_or(0, |catalog| index(catalog.quarantined.len())),
        })
    };
    state.records().filter_map(|record| of_record(&record.value)).collect()
}

fn failure(call: &Call, tenant: &TenantName, server: &ServerName) -> Option<String> {
    let fleet = &call.plane.fleet;
    fleet.failures.get(tenant, server).or_else(|| fleet.flapping.told(tenant, server))
}

/// Answers as soon as every connected node has the revision, which is at once when none is connected.
pub(super) async fn wait_applied(
    call: &Call,
    request: &WaitAppliedRequest,
) -> Result<WaitAppliedResponse, Status> {
    let lane = if request.urgent { Lane::Urgent } else { Lane::Configuration };
    let revision = seen(call, Revision(request.revision)).await?;
    let nodes = &call.plane.fleet.nodes;
    let wait = Duration::from_millis(u64::from(request.timeout_ms)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let mut changes = nodes.subscribe();
    loop {
        changes.borrow_and_update();
        let now = Instant::now();
        let came = call.plane.fleet.timeline.came(revision);
        let serves = serves(call);
        let progress = nodes.progress((revision, lane), &serves, came, now);
        if progress.acked == progress.connected || now >= deadline {
            let each = request.each.then(|| nodes.standings((revision, lane), &serves, came, now));
            return Ok(answer(progress, each.unwrap_or_default()));
        }
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep_until(deadline) => {}
            () = call.plane.stop.cancelled() => {
                return Err(Status::unavailable("the control plane is going down; the change is stored"));
            }
        }
    }
}

/// The revision that is waited for: to whoever is bound to tenants, the newest of theirs up to the one that he names,
/// since others' are to him as if they were not there.
async fn seen(call: &Call, asked: Revision) -> Result<Revision, Status> {
    if call.reach.is_everything() {
        return Ok(asked);
    }
    // Another member may have told him of it.
    call.catch_up().await?;
    let revisions = call.view().state.tenant_revisions();
    Ok(revisions.range(..=asked).next_back().copied().unwrap_or(Revision::NONE))
}

fn answer(progress: Progress, each: Vec<Standing>) -> WaitAppliedResponse {
    let ms = |took: Duration| u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    let (slowest_node, slowest_ms) = match progress.slowest {
        Some((node, took)) => (node.to_string(), ms(took)),
        None => (String::new(), 0),
    };
    let nodes = each.into_iter().map(|standing| NodeStanding {
        node_id: standing.node.to_string(),
        connected: standing.is_connected,
        acked: standing.has_it,
        ms: ms(standing.took),
    });
    WaitAppliedResponse {
        node_count: index(progress.connected),
        acked_count: index(progress.acked),
        slowest_node,
        slowest_ms,
        nodes: nodes.collect(),
    }
}
