//! Calls that need an approval, as nodes ask for it: `Sync.AskApproval` and `Sync.TakeApproval`.
//!
//! Always holds: what is granted is granted by the state machine, in the log; what this member has applied only says when it
//! is worth asking. A node asks for tenants that it holds and for no others. An answer that did not come is asked for again,
//! of any member: asking finds the same request, and taking has one taker.

use std::time::Duration;

use aws_lc_rs::rand;
use gantry_control_state::{Command, Outcome, Unasked};
use gantry_model::approval::{ApprovalState, Use};
use gantry_model::{ApprovalCall, ApprovalId, ApprovalRequest, Scope};
use gantry_wire::sync_v1 as wire;
use tokio::time::Instant;
use tonic::Status;

use crate::access::CertifiedNode;
use crate::plane::{Plane, now_ms};
use crate::raft::ProposeError;

/// Longest wait for a decision; a node asks again, so that a member that ends is not waited for.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Has a call wait for approval, and waits for what becomes of it.
pub(super) async fn ask(
    plane: &Plane,
    node: Option<&CertifiedNode>,
    request: wire::AskApprovalRequest,
) -> Result<wire::ApprovalAnswer, Status> {
    let call = read(plane, node, request.call.as_ref())?;
    let wait = Duration::from_millis(u64::from(request.wait_ms)).min(WAIT_MAX);
    let deadline = Instant::now() + wait;
    let mut news = plane.consensus.feed().subscribe();
    let (mut is_proposed, mut asked) = (false, None);
    loop {
        news.borrow_and_update();
        let state = plane.consensus.feed().latest().state;
        let now = now_ms();
        let known = match asked {
            // Looked for once, since there is a look with each commit.
            Some(id) => state.approval(&call.tenant, id).filter(|known| known.call == call),
            None => state.approval_of(&call, now),
        };
        let Some(known) = known else {
            if is_proposed || asked.is_some() {
                // Used by another, or expired, while it was waited for.
                return Ok(gone());
            }
            // Nothing is proposed that would be refused: whoever asks on and on shall not fill the log.
            let refused = match state.demands(&call, now) {
                Ok(_) => propose_asking(plane, &call, &request.arguments).await?,
                Err(why) => Some(why),
            };
            match refused {
                None => is_proposed = true,
                Some(Unasked::Void(_)) => return Ok(gone()),
                Some(Unasked::Full) => return Err(Status::resource_exhausted(Unasked::Full.to_string())),
            }
            continue;
        };
        asked = Some(known.id);
        let found = known.state(now);
        if found != ApprovalState::Pending {
            return Ok(answer(known, word(found)));
        }
        if state.void(&call).is_some() {
            return Ok(gone());
        }
        let expires = Duration::from_millis(known.expires_at_ms.saturating_sub(now));
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => return Ok(answer(known, wire::ApprovalState::Pending)),
            () = tokio::time::sleep(expires) => {}
            () = plane.stop.cancelled() => return Err(Status::unavailable("this member is going down; ask another")),
            changed = news.changed() => if changed.is_err() {
                return Err(Status::unavailable("this member is going down; ask another"));
            },
        }
    }
}

/// Asks; what is answered is why that was refused.
async fn propose_asking(
    plane: &Plane,
    call: &ApprovalCall,
    arguments: &str,
) -> Result<Option<Unasked>, Status> {
    let mut id = ApprovalId([0; 8]);
    rand::fill(&mut id.0).map_err(|_| Status::unavailable("there is no randomness; ask another member"))?;
    let (asked, arguments) = (call.clone(), arguments.to_owned());
    let command = Command::AskApproval { id, call: asked, arguments, at_ms: now_ms() };
    let committed = plane.consensus.propose(command).await.map_err(not_committed)?;
    let told = match committed.outcome {
        Outcome::Done(_) => return Ok(None),
        Outcome::Refused(refusals) => refusals.into_iter().next().map(|refusal| refusal.message),
    };
    match plane.consensus.feed().latest().state.demands(call, now_ms()) {
        Err(why) => Ok(Some(why)),
        // It was refused for what is over by now, or for what no call has that a node asks about.
        Ok(_) => Err(Status::resource_exhausted(told.unwrap_or_default())),
    }
}

/// Uses an approval up.
pub(super) async fn take(
    plane: &Plane,
    node: Option<&CertifiedNode>,
    request: wire::TakeApprovalRequest,
) -> Result<wire::ApprovalAnswer, Status> {
    let call = read(plane, node, request.call.as_ref())?;
    let unread = |_| Status::invalid_argument("an id has 8 bytes, and a taker 16");
    let id = ApprovalId(request.id.as_slice().try_into().map_err(unread)?);
    let taker = request.taker.as_slice().try_into().map_err(unread)?;
    let taking = Use { taker, at_ms: now_ms() };
    let command = Command::TakeApproval { id, call: call.clone(), taking };
    let committed = plane.consensus.propose(command).await.map_err(not_committed)?;
    let state = plane.consensus.feed().latest().state;
    let known = state.approval(&call.tenant, id);
    Ok(match (&committed.outcome, known) {
        (Outcome::Done(_), Some(known)) => answer(known, wire::ApprovalState::Taken),
        // INVARIANT: what was taken is kept for minutes; who took it is told by the outcome in any case.
        (Outcome::Done(_), None) => {
            wire::ApprovalAnswer { state: wire::ApprovalState::Taken.into(), ..gone() }
        }
        (Outcome::Refused(_), Some(known)) => match known.state(taking.at_ms) {
            state @ (ApprovalState::Pending | ApprovalState::Denied) => answer(known, word(state)),
            ApprovalState::Approved | ApprovalState::Used | ApprovalState::Expired => gone(),
        },
        (Outcome::Refused(_), None) => gone(),
    })
}

/// The call, if the node may ask for it.
fn read(
    plane: &Plane,
    node: Option<&CertifiedNode>,
    call: Option<&gantry_wire::resource_v1::ApprovalCall>,
) -> Result<ApprovalCall, Status> {
    let call = call.ok_or_else(|| Status::invalid_argument("the call is missing"))?;
    let call = ApprovalCall::try_from(call).map_err(|error| Status::invalid_argument(error.to_string()))?;
    let scope = node.map_or(Scope::Everything, |CertifiedNode(_, labels)| Scope::Of(labels.clone()));
    let state = plane.consensus.feed().latest().state;
    if state.digests().has(&scope, &call.tenant) {
        Ok(call)
    } else {
        // The same for one that there is not: a node hears nothing of others.
        Err(Status::permission_denied("the node holds no such tenant"))
    }
}

fn answer(request: &ApprovalRequest, state: wire::ApprovalState) -> wire::ApprovalAnswer {
    wire::ApprovalAnswer {
        id: request.id.0.to_vec(),
        state: state.into(),
        expires_in_ms: request.expires_at_ms.saturating_sub(now_ms()),
        approvers: request.approvers().into_iter().map(ToString::to_string).collect(),
    }
}

fn gone() -> wire::ApprovalAnswer {
    wire::ApprovalAnswer { state: wire::ApprovalState::Gone.into(), ..wire::ApprovalAnswer::default() }
}

fn word(state: ApprovalState) -> wire::ApprovalState {
    match state {
        ApprovalState::Pending => wire::ApprovalState::Pending,
        ApprovalState::Approved => wire::ApprovalState::Approved,
        ApprovalState::Denied => wire::ApprovalState::Denied,
        ApprovalState::Used | ApprovalState::Expired => wire::ApprovalState::Gone,
    }
}

/// All of it may be asked again, of any member, also where the outcome is unknown.
fn not_committed(error: ProposeError) -> Status {
    match error {
        ProposeError::TooLarge { .. } => Status::invalid_argument(error.to_string()),
        ProposeError::Unknown { .. }
        | ProposeError::Overloaded
        | ProposeError::NoLeader
        | ProposeError::NoQuorum
        | ProposeError::ShuttingDown => Status::unavailable(error.to_string()),
    }
}
