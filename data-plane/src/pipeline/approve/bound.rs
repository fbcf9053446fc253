//! What an approval of a call is bound to.
//!
//! Always holds: of two calls that differ in anything that policies, schema or server may see of them, but for `_meta` and what
//! transports add, no approval of one lets the other through; what counts is shown, but for secrets and for what nobody can read.

use std::time::Instant;

use gantry_model::PolicyName;
use gantry_model::approval::{ApprovalCall, ApprovalPolicy};
use gantry_wire::resource_v1;
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::audit::entry::Facts;
use crate::config::view::ToolAccess;
use crate::mcp::message::Kind;
use crate::mcp::{Era, canonical};
use crate::pipeline::{Caller, Received};
use crate::rejection::{Approval, Rejection};

/// An approval that was used up, for a node that the call is handed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Granted {
    /// Of the very call that it was of.
    #[serde(default)]
    call: String,
}

impl Granted {
    pub(super) fn of(call: &resource_v1::ApprovalCall) -> Granted {
        Granted { call: blake3::hash(&call.encode_to_vec()).to_hex().to_string() }
    }
}

/// Has the breaker not count a call that its client is told to make again.
pub(super) fn spare(received: &Received, access: &ToolAccess, facts: &Facts) {
    let Some(watched) = &facts.watched else { return };
    // One that goes on was not counted.
    let is_state =
        |kind: &Kind| matches!(kind, Kind::Request { params, .. } if params.request_state.is_some());
    if received.era == Era::Modern && received.message.as_ref().is_some_and(|message| is_state(&message.kind))
    {
        return;
    }
    let tool = format!("{}/{}", access.server.name, access.tool.name);
    watched.spare((&tool, arguments(received)), Instant::now());
}

fn arguments(received: &Received) -> Option<&Value> {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { params, .. }) => params.arguments.as_ref(),
        _ => None,
    }
}

/// What an approval of a call is bound to, and what approvers are to see of it.
pub(super) fn call(
    caller: &Caller,
    received: &Received,
    access: &ToolAccess,
    policies: &[PolicyName],
) -> Result<(resource_v1::ApprovalCall, Value), Rejection> {
    let body = received.message.as_ref().map(|message| &*message.body).unwrap_or_default();
    let said = canonical::said(body).map_err(|error| Rejection::InvalidParams(error.to_string()))?;
    let policy = |name: &PolicyName| {
        let revision = caller.tenant.approving.revision(name);
        revision.map(|revision| ApprovalPolicy { name: name.clone(), revision })
    };
    let policies = policies.iter().map(policy).collect::<Option<Vec<_>>>();
    let tool = access.tool.name.parse().map_err(|_| {
        Rejection::InvalidParams(
            "a tool of such a name cannot be approved; its server has to rename it".to_owned(),
        )
    })?;
    let call = ApprovalCall {
        tenant: caller.tenant.name.clone(),
        agent: caller.agent.name.clone(),
        user: caller.user().cloned(),
        server: access.server.name.clone(),
        tool,
        arguments_hash: said.hash,
        definition_hash: access.tool.hash,
        // A policy that came ahead of its update has no revision here yet.
        policies: policies.ok_or(Rejection::Approval(Approval::Changed))?,
    };
    let arguments = arguments(received).cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let shown = match said.besides {
        None => arguments,
        Some(mut besides) => {
            // Nobody can read it; it counts as it is.
            if let Some(Value::String(state)) = besides.get_mut("requestState") {
                *state = format!("[{} bytes]", state.len());
            }
            // Arguments are an object, so that this can be none.
            Value::Array(vec![arguments, besides])
        }
    };
    Ok(((&call).into(), shown))
}
