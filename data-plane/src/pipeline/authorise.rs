//! Authorise: whether policy permits it. Default deny; forbid wins; a policy that fails denies.
//!
//! Always holds: whatever names a tool, prompt, resource or the server as a whole passes the one evaluator.
//! Housekeeping of the protocol names none and needs only that the caller is known.

use std::sync::LazyLock;

use gantry_policy::{Call, Decision, Standing, Target, Verdict};
use serde_json::Value;

use super::approve::Demanded;
use super::authenticate::demand_scopes;
use super::discover::{Discovered, Subject};
use super::guard::Guarded;
use super::{Caller, Received, now_seconds};
use crate::audit::entry::{Asked, Facts};
use crate::config::caller::Agent;
use crate::config::endpoint::Named;
use crate::config::tenant::Tenant;
use crate::config::view::ToolAccess;
use crate::mcp::headers::{self, PROTOCOL_VERSION};
use crate::mcp::message::Kind;
use crate::mcp::session::Session;
use crate::rejection::{Approval, Rejection};

/// A call without arguments has none.
static NO_ARGUMENTS: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// Proof that policy permits the request. Only this stage builds it.
pub(super) struct Authorised {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    /// What is to be approved before it is forwarded.
    pub(super) demanded: Option<Demanded>,
    _private: (),
}

pub(super) fn authorise(guarded: Guarded, facts: &mut Facts) -> Result<Authorised, Rejection> {
    let Discovered { caller, received, subject, .. } = guarded.into_discovered();
    let call = call(&received);
    let mut judge = |target: Target<'_>, what: &str| {
        let decision = caller.tenant.decide(&caller.agent, &target, &call);
        permit(&decision, &caller, (&target, &call), what, facts).and_then(only_outright)
    };
    let mut demanded = None;
    match &subject {
        // A list holds only what was permitted when it was made.
        Subject::Protocol | Subject::Here(_) => {}
        Subject::Tool(access) => {
            let arguments = arguments(&received).unwrap_or(&NO_ARGUMENTS);
            demanded =
                decide_tool(&caller.tenant, &caller.agent, access, (&call, arguments), |decision, asked| {
                    permit(decision, &caller, asked, &access.tool.name, facts)
                })?;
            demand_scopes(&caller.endpoint, caller.identity.as_deref(), received.called())?;
        }
        Subject::Prompt(Named { server, name }) => {
            judge(Target::Prompt { server: &server.name, name }, name)?
        }
        Subject::Resource(Named { server, name }) => {
            judge(Target::Resource { server: &server.name, uri: name }, name)?;
        }
        Subject::CompletePrompt(Named { server, name }) => {
            judge(Target::CompletePrompt { server: &server.name, name }, name)?;
        }
        Subject::CompleteResource(Named { server, name }) => {
            judge(Target::CompleteResource { server: &server.name, uri: name }, name)?;
        }
        Subject::Subscribe(named) => {
            let mut each = named.iter();
            let judged = each.try_for_each(|Named { server, name }| {
                judge(Target::Subscribe { server: &server.name, uri: name }, name)
            });
            // One of several is told of, be it the last that was let through or the first that was not.
            if let Some(asked) = &mut facts.asked {
                asked.more = named.len() > 1;
            }
            judged?;
        }
        Subject::Task(Named { server, .. }) | Subject::Server(server) => {
            judge(Target::Server { server: &server.name }, server.name.as_str())?;
        }
    }
    Ok(Authorised { caller, received, subject, demanded, _private: () })
}

/// Only calls of tools are approved; a policy that demands it of anything else does not compile.
fn only_outright(demanded: Option<Demanded>) -> Result<(), Rejection> {
    match demanded {
        None => Ok(()),
        Some(_) => Err(Rejection::Approval(Approval::Changed)),
    }
}

/// What policy says of a call of a tool, with what it was asked: as its place in a list was settled, or by the call.
fn decide_tool<R>(
    tenant: &Tenant,
    agent: &Agent,
    access: &ToolAccess,
    (call, arguments): (&Call<'_>, &Value),
    then: impl FnOnce(&Decision, (&Target<'_>, &Call<'_>)) -> R,
) -> R {
    let ToolAccess { server, tool, standing } = access;
    let target = Target::Tool { server: &server.name, name: &tool.name, hints: tool.hints };
    let declared = &server.inspections.of(Some(&tool.name)).calls.declared;
    let read = || gantry_inspect::facts::of(declared, arguments).map_err(|error| error.to_string());
    let call = Call { arguments: Some((&tool.shape, arguments)), facts: Some(&read), ..*call };
    match standing.as_ref() {
        Standing::Settled(decision) => then(decision, (&target, &call)),
        Standing::Refused | Standing::Open => then(&tenant.decide(agent, &target, &call), (&target, &call)),
    }
}

/// What policies may read of a request besides who asks for what.
fn call(received: &Received) -> Call<'_> {
    let said = headers::single(&received.headers, &PROTOCOL_VERSION).ok().flatten();
    let agreed = match &received.session {
        Some(known) => match &known.session {
            Session::Bridged(bridged) => Some(bridged.version.as_str()),
            Session::Relayed(_) => None,
        },
        None => None,
    };
    Call {
        at_seconds: now_seconds(),
        era: received.era.as_str(),
        revision: agreed.or(said).unwrap_or_default(),
        arguments: None,
        facts: None,
    }
}

fn arguments(received: &Received) -> Option<&Value> {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { params, .. }) => params.arguments.as_ref(),
        _ => None,
    }
}

fn asked(target: &Target<'_>, call: &Call<'_>) -> Asked {
    let server = target.server().as_str();
    let resource = match target.name() {
        Some(name) => [server, "/", name].concat(),
        None => server.to_owned(),
    };
    let (action, kind, protocol) = (target.method(), target.kind(), call.revision.to_owned());
    Asked { action, kind, resource, at: call.at_seconds, protocol, more: false }
}

fn permit(
    decision: &Decision,
    caller: &Caller,
    (target, call): (&Target<'_>, &Call<'_>),
    what: &str,
    facts: &mut Facts,
) -> Result<Option<Demanded>, Rejection> {
    // Of several resources the first of which something is to be told.
    if facts.shadow.is_none() {
        facts.shadow = caller.tenant.shadow(decision, &caller.agent, target, call);
    }
    facts.asked = Some(asked(target, call));
    facts.verdict = Some(decision.verdict);
    facts.reasons.clone_from(&decision.reasons);
    facts.failures.clone_from(&decision.failures);
    match decision.verdict {
        Verdict::Allow => Ok(None),
        Verdict::RequireApproval => Ok(Some(Demanded::of(decision))),
        Verdict::Deny => Err(Rejection::Denied {
            method: facts.method.clone().unwrap_or_default(),
            what: what.to_owned(),
            reasons: decision.reasons.clone(),
            failed: !decision.failures.is_empty(),
        }),
    }
}

#[cfg(test)]
mod tests;
