//! Authorise: whether policy permits it. Default deny; forbid wins; a policy that fails denies.
//!
//! Always holds: whatever names a tool, prompt, resource or the server as a whole passes the one evaluator.
//! Housekeeping of the protocol names none and needs only that the caller is known.

use std::sync::LazyLock;

use gantry_policy::{Call, Decision, Standing, Target, Verdict};
use serde_json::Value;

use super::authenticate::demand_scopes;
use super::discover::{Discovered, Subject};
use super::{Caller, Received, now_seconds};
use crate::audit::entry::Facts;
use crate::config::endpoint::Named;
use crate::config::view::ToolAccess;
use crate::mcp::headers::{self, PROTOCOL_VERSION};
use crate::mcp::message::Kind;
use crate::mcp::session::Session;
use crate::rejection::Rejection;

/// A call without arguments has none.
static NO_ARGUMENTS: LazyLock<Value> = LazyLock::new(|| Value::Object(serde_json::Map::new()));

/// Proof that policy permits the request. Only this stage builds it.
pub(super) struct Authorised {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    _private: (),
}

pub(super) fn authorise(discovered: Discovered, facts: &mut Facts) -> Result<Authorised, Rejection> {
    let Discovered { caller, received, subject, .. } = discovered;
    let call = call(&received);
    let decide = |target: Target<'_>| caller.tenant.decide(&caller.agent, &target, &call);
    match &subject {
        // A list holds only what was permitted when it was made.
        Subject::Protocol | Subject::Here(_) => {}
        Subject::Tool(access) => {
            match access.standing.as_ref() {
                Standing::Settled(decision) => permit(decision, &access.tool.name, facts)?,
                Standing::Refused | Standing::Open => {
                    let arguments = arguments(&received);
                    let arguments = Some((&access.tool.shape, arguments.unwrap_or(&NO_ARGUMENTS)));
                    let call = Call { arguments, ..call };
                    let decision = caller.tenant.decide(&caller.agent, &target(access), &call);
                    permit(&decision, &access.tool.name, facts)?;
                }
            }
            demand_scopes(&caller.endpoint, caller.identity.as_deref(), received.called())?;
        }
        Subject::Prompt(Named { server, name }) => {
            permit(&decide(Target::Prompt { server: &server.name, name }), name, facts)?
        }
        Subject::Resource(Named { server, name }) => {
            permit(&decide(Target::Resource { server: &server.name, uri: name }), name, facts)?
        }
        Subject::CompletePrompt(Named { server, name }) => {
            permit(&decide(Target::CompletePrompt { server: &server.name, name }), name, facts)?
        }
        Subject::CompleteResource(Named { server, name }) => {
            permit(&decide(Target::CompleteResource { server: &server.name, uri: name }), name, facts)?
        }
        Subject::Subscribe(named) => {
            for Named { server, name } in named {
                permit(&decide(Target::Subscribe { server: &server.name, uri: name }), name, facts)?;
            }
        }
        Subject::Task(Named { server, .. }) | Subject::Server(server) => {
            permit(&decide(Target::Server { server: &server.name }), server.name.as_str(), facts)?
        }
    }
    Ok(Authorised { caller, received, subject, _private: () })
}

fn target(access: &ToolAccess) -> Target<'_> {
    Target::Tool { server: &access.server.name, name: &access.tool.name, hints: access.tool.hints }
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
    }
}

fn arguments(received: &Received) -> Option<&Value> {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { params, .. }) => params.arguments.as_ref(),
        _ => None,
    }
}

fn permit(decision: &Decision, what: &str, facts: &mut Facts) -> Result<(), Rejection> {
    facts.verdict = Some(decision.verdict);
    facts.reasons.clone_from(&decision.reasons);
    match decision.verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny => Err(Rejection::Denied {
            method: facts.method.clone().unwrap_or_default(),
            what: what.to_owned(),
            reasons: decision.reasons.clone(),
            failed: !decision.failures.is_empty(),
        }),
    }
}
