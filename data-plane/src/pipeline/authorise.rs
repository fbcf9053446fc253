//! Authorise: whether policy permits it. Default deny; forbid wins; a policy that fails denies.
//!
//! Always holds: whatever names a tool, prompt, resource or the server as a whole passes the one evaluator.
//! Housekeeping of the protocol names none and needs only that the caller is known.

use gantry_policy::{Decision, Target, Verdict};

use super::authenticate::demand_scopes;
use super::discover::{Discovered, Subject};
use super::{Caller, Received};
use crate::audit::entry::Facts;
use crate::config::endpoint::Named;
use crate::rejection::Rejection;

/// Proof that policy permits the request. Only this stage builds it.
pub(super) struct Authorised {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    _private: (),
}

pub(super) fn authorise(discovered: Discovered, facts: &mut Facts) -> Result<Authorised, Rejection> {
    let Discovered { caller, received, subject, .. } = discovered;
    let decide = |target: Target<'_>| caller.tenant.decide(&caller.agent, &target);
    match &subject {
        // A list holds only what was permitted when it was made.
        Subject::Protocol | Subject::Here(_) => {}
        Subject::Tool(access) => {
            permit(&access.decision, &access.tool.name, facts)?;
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
