//! Staged rollouts: beginning, showing, promoting and aborting them.
//!
//! Always holds: a rollout begins with the checks that its change would have to pass if it were applied at once; what
//! somebody decides is decided about the stage that this call saw, so that a rollout is not taken two stages further by
//! two calls.

use gantry_control_state::{Command, Outcome, State};
use gantry_model::rollout::{END_REASON_BYTES_MAX, End, Ended, Stage, Thresholds};
use gantry_model::{Kind, Resource, ResourceId, Revision, Rollout, RolloutId, ServerName, TenantName};
use gantry_wire::WireError;
use gantry_wire::admin_v1::change_rollout_request::Change;
use gantry_wire::admin_v1::{
    BeginRolloutRequest, BeginRolloutResponse, ChangeRolloutRequest, ChangeRolloutResponse,
    ListRolloutsRequest, ListRolloutsResponse, Problem, RolloutCalls, RolloutNode, RolloutStatus,
    RolloutStep,
};
use gantry_wire::resource_v1 as wire;
use tokio::time::Instant;
use tonic::Status;

use super::apply::{Draft, applied, draft, judged, read_all};
use super::call::Call;
use super::rejection::{index, parse, parse_or_every, problems, refused, require_tenant};
use crate::fleet::NodeView;
use crate::plane::now_ms;
use crate::rollout::{Calls, Compared, TAKES_NOTHING, holders};
use crate::vault::fill_random;

pub(super) async fn begin(call: &Call, request: BeginRolloutRequest) -> Result<BeginRolloutResponse, Status> {
    let refusing = |problems: Vec<Problem>| {
        call.note_problems(problems.len());
        BeginRolloutResponse { problems, ..BeginRolloutResponse::default() }
    };
    let resources: Vec<Resource> = match read_all(&request.resources) {
        Ok(resources) => resources,
        Err(problems) => return Ok(refusing(problems)),
    };
    let deleted: Vec<ResourceId> = match read_all(&request.deletes) {
        Ok(deleted) => deleted,
        Err(problems) => return Ok(refusing(problems)),
    };
    let view = call.view();
    let rollout = new(call, &request, (resources, deleted), view.revision)?;
    require_tenant(&view.state, &rollout.tenant)?;
    rollout.check().map_err(|error| Status::invalid_argument(error.to_string()))?;
    let command = call.guarded(Command::BeginRollout(Box::new(rollout.clone())));
    let mut begun = match draft(call, view, &command) {
        Ok(begun) => begun,
        Err(refusals) => return Ok(refusing(problems(refusals))),
    };
    lay(&mut begun, &rollout);
    let changes = begun.results.iter().map(|(_, change)| *change);
    let documents = rollout.applied.iter().cloned().zip(changes).collect();
    let judgement = judged(&begun, documents).await?;
    if !judgement.problems.is_empty() {
        return Ok(refusing(judgement.problems));
    }
    let mut warnings = judgement.warnings;
    warnings.extend(expectations(call, &begun.before, &rollout));
    let committed = call.propose(command).await?;
    Ok(match committed.outcome {
        Outcome::Done(results) => BeginRolloutResponse {
            revision: committed.revision.0,
            results: results.iter().map(applied).collect(),
            problems: Vec::new(),
            warnings,
            tenant: rollout.tenant.to_string(),
            id: rollout.id.to_string(),
        },
        Outcome::Refused(refusals) => refusing(problems(refusals)),
    })
}

pub(super) fn list(call: &Call, request: &ListRolloutsRequest) -> Result<ListRolloutsResponse, Status> {
    let tenant: Option<TenantName> = parse_or_every("tenant", &request.tenant)?;
    let view = call.view();
    let tenants = match tenant {
        Some(tenant) => {
            require_tenant(&view.state, &tenant)?;
            vec![tenant]
        }
        None => view.state.tenants_with_rollouts(),
    };
    let rollouts = tenants.iter().filter_map(|tenant| status(call, &view.state, tenant)).collect();
    Ok(ListRolloutsResponse { revision: view.revision.0, rollouts })
}

pub(super) async fn change(
    call: &Call,
    request: ChangeRolloutRequest,
) -> Result<ChangeRolloutResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let view = call.view();
    require_tenant(&view.state, &tenant)?;
    let rollout = running(&view.state, &tenant, &request)?;
    let mut at = rollout.at();
    at.stage = request.stage.unwrap_or(at.stage);
    let end = |how, reason: &str| {
        let by = call.identity().name.to_string();
        Ended { how, reason: reason.to_owned(), by, at_ms: now_ms() }
    };
    let is_last = rollout.is_in_last_stage();
    let command = match &request.change {
        Some(Change::Abort(reason)) => {
            let reason = reason.trim();
            if reason.len() > END_REASON_BYTES_MAX || reason.chars().any(char::is_control) {
                let message = format!("a reason is one line of at most {END_REASON_BYTES_MAX} bytes");
                return Err(Status::invalid_argument(message));
            }
            Command::EndRollout { at, end: end(End::Aborted, reason) }
        }
        Some(Change::Promote(step)) => match RolloutStep::try_from(*step) {
            Ok(RolloutStep::Next) if !is_last => Command::AdvanceRollout(at),
            Ok(RolloutStep::Next | RolloutStep::All) => {
                Command::EndRollout { at, end: end(End::Promoted, "") }
            }
            Ok(RolloutStep::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument("promote: neither the next stage nor all"));
            }
        },
        None => return Err(Status::invalid_argument("neither promote nor abort")),
    };
    let is_promotion = matches!(&command, Command::EndRollout { end, .. } if end.how == End::Promoted);
    let committed = call.propose(call.guarded(command)).await?;
    if let Outcome::Refused(refusals) = &committed.outcome {
        return Err(refused(refusals));
    }
    let state = call.view().state;
    let now = state.rollout(&tenant).map(|(now, _)| now.clone()).filter(|now| now.id == rollout.id);
    if let Some(ended) = now.and_then(|now| now.ended.clone())
        && is_promotion
        && ended.how != End::Promoted
    {
        let message = format!(
            "{}; nodes go back to what is stored; begin another with `gantry apply --rollout`",
            ended.reason
        );
        return Err(Status::failed_precondition(message));
    }
    let rollout = status(call, &state, &tenant);
    Ok(ChangeRolloutResponse { revision: committed.revision.0, rollout })
}

/// What an admin who compares documents with what is stored should know of rollouts.
pub(super) fn notes(state: &State, ids: &[ResourceId]) -> Vec<String> {
    let tenants: std::collections::BTreeSet<&TenantName> = ids.iter().map(|id| &id.tenant).collect();
    let running = tenants.into_iter().filter_map(|tenant| Some(state.rollout(tenant)?.0));
    let note = |rollout: &std::sync::Arc<Rollout>| {
        let Rollout { id, tenant, .. } = rollout.as_ref();
        format!(
            "rollout {id} of tenant {tenant} is in {}; this compares with what is stored, which its nodes do not serve; \
             `gantry rollout status --tenant {tenant}` shows it",
            rollout.stage_title()
        )
    };
    running.filter(|rollout| rollout.is_running()).map(note).collect()
}

fn new(
    call: &Call,
    request: &BeginRolloutRequest,
    (applied, deleted): (Vec<Resource>, Vec<ResourceId>),
    checked: Revision,
) -> Result<Rollout, Status> {
    let first = applied.first().map(Resource::id).or_else(|| deleted.first().cloned());
    let Some(ResourceId { tenant, .. }) = first else {
        return Err(Status::invalid_argument("the rollout names no resource"));
    };
    let stages: Result<Vec<Stage>, WireError> = request.stages.iter().map(TryInto::try_into).collect();
    let rise = u8::try_from(request.rise_percent);
    let rise_percent = rise.map_err(|_| Status::invalid_argument("a rise is at most 100%"))?;
    let mut id = [0; 8];
    fill_random(&mut id).map_err(|error| Status::internal(error.to_string()))?;
    Ok(Rollout {
        tenant,
        id: RolloutId(id),
        resource_count: index(applied.len() + deleted.len()),
        applied,
        deleted,
        checked,
        begun: Revision::NONE,
        stages: stages.map_err(|error| Status::invalid_argument(error.to_string()))?,
        stage: 0,
        pause_seconds: (request.pause_seconds != 0).then_some(request.pause_seconds),
        thresholds: Thresholds { rise_percent, calls_min: request.calls_min },
        by: call.identity().name.to_string(),
        begun_at_ms: now_ms(),
        ended: None,
    })
}

/// Has the draft be what all nodes get in the end, since that is what is judged.
fn lay(begun: &mut Draft, rollout: &Rollout) {
    let mut after = begun.before.clone();
    let (applied, deleted) = (rollout.applied.clone(), rollout.deleted.clone());
    // They were found to fit, as one.
    for command in [Command::Apply(applied), Command::Delete(deleted)] {
        after.apply(Revision(u64::MAX), &command);
    }
    begun.after = after;
}

/// What a rollout that begins may come to wait for.
fn expectations(call: &Call, before: &State, rollout: &Rollout) -> Vec<String> {
    let view = call.plane.consensus.feed().latest();
    let nodes = call.plane.fleet.nodes.list(Instant::now());
    let nodes = holders(&view, &nodes, &rollout.tenant);
    let mut expected = Vec::new();
    if !nodes.iter().any(|node| node.connected && is_in(rollout, node)) {
        let Rollout { tenant, .. } = rollout;
        expected.push(format!(
            "no connected node is in {}: it waits there for one, or for `gantry rollout promote --tenant {tenant}`; nodes \
             get a label by `gantry cluster token --role node --label LABEL`",
            rollout.stage_title()
        ));
    }
    let servers = rollout.applied.iter().filter(|resource| resource.spec.kind() == Kind::Server);
    for server in servers {
        let name = ServerName::from(server.name.clone());
        if before.catalog(&server.tenant, &name).is_none() {
            expected.push(format!(
                "what {} offers is not recorded while it is staged, so its tools are not served; apply it by itself first, \
                 and roll out the endpoint that names it",
                server.id()
            ));
        }
    }
    expected
}

fn is_in(rollout: &Rollout, node: &NodeView) -> bool {
    rollout.has(node.node.as_str(), &node.seen.scope)
}

/// The rollout that a request means, if it runs.
fn running(state: &State, tenant: &TenantName, request: &ChangeRolloutRequest) -> Result<Rollout, Status> {
    let Some((rollout, _)) = state.rollout(tenant) else {
        return Err(Status::not_found(format!(
            "tenant {tenant} has no rollout; `gantry apply --rollout -f FILE` begins one"
        )));
    };
    let is_meant = request.id.is_empty() || request.id == rollout.id.to_string();
    if !is_meant {
        return Err(Status::failed_precondition(format!(
            "the rollout of tenant {tenant} is {} now",
            rollout.id
        )));
    }
    if !rollout.is_running() {
        return Err(Status::failed_precondition(format!(
            "rollout {} of tenant {tenant} has ended",
            rollout.id
        )));
    }
    Ok(rollout.as_ref().clone())
}

/// A tenant's rollout and how it goes.
fn status(call: &Call, state: &State, tenant: &TenantName) -> Option<RolloutStatus> {
    let (rollout, at) = state.rollout(tenant)?;
    let without = Rollout { applied: Vec::new(), deleted: Vec::new(), ..rollout.as_ref().clone() };
    let mut status = RolloutStatus {
        rollout: Some((&without).into()),
        applied: rollout.applied.iter().map(|resource| wire::ResourceId::from(&resource.id())).collect(),
        deleted: rollout.deleted.iter().map(Into::into).collect(),
        stage_revision: at.0,
        ..RolloutStatus::default()
    };
    if !rollout.is_running() {
        return Some(status);
    }
    let (plane, now) = (&call.plane, Instant::now());
    let nodes = plane.fleet.nodes.list(now);
    let nodes = holders(&plane.consensus.feed().latest(), &nodes, tenant);
    let (stage, others): (Vec<_>, Vec<_>) = nodes.into_iter().partition(|node| is_in(rollout, node));
    status.nodes = stage.into_iter().map(|node| node_status(node, tenant, at)).collect();
    status.other_count = index(others.iter().filter(|node| node.connected).count());
    if let Some(watched) = plane.fleet.rollouts.of(rollout) {
        status.calls = Some(calls(watched.calls));
        status.compared = Some(calls(watched.compared));
        status.compared_with = match watched.compared_with {
            Compared::Nothing => "",
            Compared::Others => "others",
            Compared::Before => "before",
        }
        .to_owned();
        let healthy = watched.healthy_for(now).map(|healthy| healthy.as_millis().max(1));
        status.healthy_ms = healthy.map_or(0, |healthy| u64::try_from(healthy).unwrap_or(u64::MAX));
        status.waits_for = watched.waits_for;
    }
    Some(status)
}

fn node_status(node: &NodeView, tenant: &TenantName, at: Revision) -> RolloutNode {
    let mut problems = node.seen.problems.iter();
    let problem = problems.find_map(|problem| match problem.is_of_all() {
        true => Some(TAKES_NOTHING.to_owned()),
        false => (problem.tenant == tenant.as_str()).then(|| problem.message.clone()),
    });
    RolloutNode {
        node_id: node.node.to_string(),
        connected: node.connected,
        acked: node.acked >= at,
        problem: problem.unwrap_or_default(),
    }
}

fn calls(calls: Calls) -> RolloutCalls {
    RolloutCalls { calls: calls.calls, rejected: calls.rejected }
}
