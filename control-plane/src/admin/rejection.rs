//! What an admin is told when a call is not done.
//!
//! Always holds: a message says what is wrong and names the next step; it carries no internal text. What concerns
//! single documents is a [`Problem`] in the response; what concerns the call is a [`Status`].

use std::fmt;
use std::str::FromStr;

use gantry_control_state::{Refusal, State};
use gantry_model::nearest::nearest;
use gantry_model::{Kind, ResourceId, TenantName};
use gantry_wire::WireError;
use gantry_wire::admin_v1::Problem;
use tonic::Status;

use crate::raft::ProposeError;

/// A proposal of which it is not known that it was applied.
pub(super) fn not_committed(error: ProposeError) -> Status {
    match error {
        ProposeError::Unknown { reason } => {
            tracing::warn!(reason, "the outcome of a proposal is unknown");
            // Not `unavailable`: clients repeat that by themselves, and creating a key twice makes two keys.
            Status::deadline_exceeded(
                "the outcome is unknown: the change may have been applied, or may yet be; look with `gantry get`; \
                 applying the same again is safe",
            )
        }
        ProposeError::Overloaded => {
            Status::resource_exhausted("too many changes wait already; nothing was changed; try again")
        }
        ProposeError::NoLeader | ProposeError::NoQuorum => Status::unavailable(format!(
            "{error}; nothing was changed; try again, and look with `gantry cluster status` if it stays so"
        )),
        ProposeError::TooLarge { .. } => Status::invalid_argument(format!(
            "the change is too large ({error}); nothing was changed; apply the documents in smaller sets"
        )),
        ProposeError::ShuttingDown => {
            Status::unavailable("the control plane is going down; nothing was changed; try again")
        }
    }
}

/// A command that the state machine refused, where the response has no place for problems.
pub(super) fn refused(refusals: &[Refusal]) -> Status {
    let told: Vec<String> = refusals.iter().map(|refusal| with_nearest(&refusal.message, refusal)).collect();
    Status::failed_precondition(told.join("; "))
}

fn with_nearest(message: &str, refusal: &Refusal) -> String {
    match &refusal.nearest {
        Some(nearest) => format!("{message}; nearest: {nearest}"),
        None => message.to_owned(),
    }
}

/// A command that the state machine refused.
pub(super) fn problems(refusals: Vec<Refusal>) -> Vec<Problem> {
    let problem = |refusal: Refusal| Problem {
        index: index(refusal.index),
        path: refusal.path,
        message: refusal.message,
        nearest: refusal.nearest.unwrap_or_default(),
    };
    refusals.into_iter().map(problem).collect()
}

/// A document that cannot be read.
pub(super) fn unreadable(at: usize, error: &WireError) -> Problem {
    let (path, message) = match error {
        WireError::Missing(field) => (path_of(field), "is missing".to_owned()),
        WireError::Invalid { field, message } => (path_of(field), message.clone()),
        WireError::Decode(_) => (String::new(), error.to_string()),
    };
    Problem { index: index(at), path, message, nearest: String::new() }
}

/// The place of a document in a request; a request has far fewer than this type counts.
pub(super) fn index(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}

fn path_of(field: &str) -> String {
    match field {
        "kind" | "tenant" | "name" | "spec" => field.to_owned(),
        field => format!("spec.{field}"),
    }
}

/// Reads a name of a request.
pub(super) fn parse<T>(field: &str, text: &str) -> Result<T, Status>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    text.parse().map_err(|error| Status::invalid_argument(format!("{field} {text:?}: {error}")))
}

/// Reads a name of a request where an empty text means every one.
pub(super) fn parse_or_every<T>(field: &str, text: &str) -> Result<Option<T>, Status>
where
    T: FromStr,
    T::Err: fmt::Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

/// Refuses a call about a resource that is not there.
pub(super) fn require(state: &State, id: &ResourceId) -> Result<(), Status> {
    if state.resource(id).is_some() {
        return Ok(());
    }
    let tenant = ResourceId::of_tenant(&id.tenant);
    if id.kind != Kind::Tenant && state.resource(&tenant).is_none() {
        return require(state, &tenant);
    }
    let names = state.names(&id.tenant, id.kind);
    let near = match nearest(id.name.as_str(), names.iter().map(String::as_str)) {
        Some(near) => format!("; nearest: {near}"),
        None => String::new(),
    };
    let list = id.kind.as_str().to_ascii_lowercase();
    Err(Status::not_found(format!("there is no {id}{near}; `gantry get {list}` lists what is there")))
}

/// Refuses a call about a tenant that is not there.
pub(super) fn require_tenant(state: &State, tenant: &TenantName) -> Result<(), Status> {
    require(state, &ResourceId::of_tenant(tenant))
}

/// Work on a blocking thread that did not come to its end.
pub(super) fn broken_off() -> Status {
    Status::internal("the control plane broke off the work on this call; its log says why")
}
