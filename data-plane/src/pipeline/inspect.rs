//! Inspect: what is in the arguments of a call that an admin wants to hear of, or does not let pass.
//!
//! Always holds: what is looked at is what is forwarded; what was found is told by its place and a word, in the record
//! and to the caller, never by its text.

use gantry_inspect::Findings;

use super::approve::Demanded;
use super::discover::Subject;
use super::validate::Validated;
use super::{Caller, Received};
use crate::audit::entry::Facts;
use crate::audit::redaction::redact_text;
use crate::mcp::message::Kind;
use crate::rejection::Rejection;

/// Proof that nothing was found that does not pass. Only this stage builds it.
pub(super) struct Inspected {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) demanded: Option<Demanded>,
    _private: (),
}

pub(super) fn inspect(validated: Validated, facts: &mut Facts) -> Result<Inspected, Rejection> {
    let Validated { caller, received, subject, demanded, .. } = validated;
    let (server, tool) = match &subject {
        Subject::Tool(access) => (Some(&access.server), Some(&*access.tool.name)),
        Subject::Prompt(named) => (Some(&named.server), None),
        _ => (None, None),
    };
    let arguments = match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { params, .. }) => params.arguments.as_ref(),
        _ => None,
    };
    if let (Some(server), Some(arguments)) = (server, arguments) {
        let findings = server.inspections.of(tool).calls.inspect(arguments);
        facts.findings = findings.as_slice().iter().map(|found| redact_text(&found.to_string())).collect();
        refuse(&findings, facts)?;
    }
    Ok(Inspected { caller, received, subject, demanded, _private: () })
}

fn refuse(findings: &Findings, facts: &Facts) -> Result<(), Rejection> {
    let findings: Vec<String> = findings.blocking().map(ToString::to_string).collect();
    if findings.is_empty() {
        return Ok(());
    }
    Err(Rejection::Inspected { what: facts.target.clone().unwrap_or_default(), findings })
}
