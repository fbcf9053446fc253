//! Calls that wait for approval, and deciding them.
//!
//! Always holds: whoever is bound to tenants finds no others' calls, also by their ids. A vote is checked by the state
//! machine, where it counts once; what is answered is what stands after it.

use gantry_control_state::{Command, Outcome, State};
use gantry_model::approval::{ApprovalState, Vote};
use gantry_model::ban::REASON_BYTES_MAX;
use gantry_model::{ApprovalId, ApprovalRequest, TenantName};
use gantry_wire::admin_v1::{
    ApprovalInfo, ListApprovalsRequest, ListApprovalsResponse, VoteOnApprovalRequest, VoteOnApprovalResponse,
};
use prost::Message;
use tonic::Status;

use super::call::Call;
use super::read::ANSWER_BYTES_MAX;
use super::rejection::{parse, parse_or_every, refused, require_tenant};
use crate::plane::now_ms;

pub(super) fn list(call: &Call, request: &ListApprovalsRequest) -> Result<ListApprovalsResponse, Status> {
    let view = call.view();
    let found = match request.id.as_str() {
        "" => in_tenant(&view.state, &request.tenant)?,
        id => vec![find(&view.state, &request.tenant, id)?],
    };
    let now = now_ms();
    let mut infos: Vec<ApprovalInfo> = Vec::new();
    let mut bytes = 0;
    for request_of in found {
        let is_over = matches!(word(&view.state, request_of, now), "used" | "expired" | "void" | "denied");
        if is_over && !request.all && request.id.is_empty() {
            continue;
        }
        let info = info(&view.state, request_of, now);
        bytes += info.encoded_len() + 8;
        if bytes > ANSWER_BYTES_MAX {
            return Err(Status::resource_exhausted(
                "the answer would be too long; ask for one tenant, or one id",
            ));
        }
        infos.push(info);
    }
    infos.sort_by_key(|info| info.request.as_ref().map(|request| request.created_at_ms));
    Ok(ListApprovalsResponse { revision: view.revision.0, approvals: infos })
}

pub(super) async fn vote(
    call: &Call,
    request: VoteOnApprovalRequest,
) -> Result<VoteOnApprovalResponse, Status> {
    let reason = request.reason.trim();
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let message = format!("a reason is one line of at most {REASON_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(message));
    }
    let (id, tenant) = {
        let state = call.view().state;
        let found = find(&state, &request.tenant, &request.id)?;
        (found.id, found.call.tenant.clone())
    };
    let vote = Vote {
        by: call.identity().name.clone(),
        approves: request.approves,
        reason: reason.to_owned(),
        at_ms: now_ms(),
    };
    let command = Command::VoteOnApproval { tenant: tenant.clone(), id, vote };
    let committed = call.propose(command).await?;
    match committed.outcome {
        Outcome::Done(_) => {
            let state = call.view().state;
            let info = state.approval(&tenant, id).map(|request| info(&state, request, now_ms()));
            Ok(VoteOnApprovalResponse { revision: committed.revision.0, approval: info })
        }
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}

fn in_tenant<'s>(state: &'s State, tenant: &str) -> Result<Vec<&'s ApprovalRequest>, Status> {
    let tenant: Option<TenantName> = parse_or_every("tenant", tenant)?;
    Ok(match &tenant {
        Some(tenant) => {
            require_tenant(state, tenant)?;
            state.approvals_of(tenant).map(AsRef::as_ref).collect()
        }
        None => state.approvals().map(AsRef::as_ref).collect(),
    })
}

fn find<'s>(state: &'s State, tenant: &str, id: &str) -> Result<&'s ApprovalRequest, Status> {
    let id: ApprovalId = parse("id", id).map_err(|_| {
        Status::invalid_argument(
            "an approval's id has 16 hexadecimal digits; `gantry approval ls` lists them",
        )
    })?;
    let mut found = in_tenant(state, tenant)?.into_iter().filter(|request| request.id == id);
    match (found.next(), found.next()) {
        (Some(request), None) => Ok(request),
        (Some(_), Some(_)) => {
            Err(Status::invalid_argument("two tenants have that id; say which with --tenant"))
        }
        (None, _) => {
            Err(Status::not_found(format!("there is no approval {id}; `gantry approval ls` lists them")))
        }
    }
}

fn info(state: &State, request: &ApprovalRequest, now_ms: u64) -> ApprovalInfo {
    ApprovalInfo {
        id: request.id.to_string(),
        state: word(state, request, now_ms).to_owned(),
        request: Some(request.into()),
    }
}

/// How far it is; what could still be used is void where what it is bound to changed.
fn word(state: &State, request: &ApprovalRequest, now_ms: u64) -> &'static str {
    match request.state(now_ms) {
        ApprovalState::Pending | ApprovalState::Approved if state.void(&request.call).is_some() => "void",
        found => found.as_str(),
    }
}
