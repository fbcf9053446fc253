//! One entry: opened before the stages, filled by them, closed after the answer.
//!
//! Always holds: closing happens exactly once; an entry that is dropped unclosed was left by its client and says so.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use gantry_model::{ApprovalId, Revision, SessionId};
use gantry_policy::{Decision, Failure, Reason, Verdict};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::mpsc::OwnedPermit;

use crate::audit::redaction;
use crate::breaker::Watched;
use crate::check::{Noted, Notes};
use crate::config::tally::Tally;
use crate::identity::Identity;
use crate::mcp::Era;
use crate::mcp::message::Method;
use crate::rejection::Rejection;

/// What a revision of the protocol has, such as `2026-07-28`.
const PROTOCOL_BYTES: usize = 10;

/// The entry of one request.
pub(crate) struct Entry {
    permit: Option<OwnedPermit<Vec<u8>>>,
    started: Instant,
    /// What stages know of the request; written as it stands when the entry is closed.
    pub(crate) facts: Facts,
}

/// What a record says.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) decision_id: String,
    pub(crate) node: Arc<str>,
    pub(crate) tenant: Option<String>,
    pub(crate) endpoint: Option<String>,
    pub(crate) agent: Option<String>,
    pub(crate) key_id: Option<String>,
    /// What the token said that was shown.
    pub(crate) identity: Option<Arc<Identity>>,
    /// Names a legacy client's session.
    pub(crate) session: Option<SessionId>,
    pub(crate) server: Option<String>,
    pub(crate) era: Option<Era>,
    pub(crate) method: Option<String>,
    /// The tool, prompt, resource or task that the request is about.
    pub(crate) target: Option<String>,
    pub(crate) arguments: Option<Value>,
    /// What policies were asked, where they were.
    pub(crate) asked: Option<Asked>,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) reasons: Vec<Reason>,
    /// What could not be evaluated.
    pub(crate) failures: Vec<Failure>,
    /// What it would have come to with the policies that are not enforced, where they say something of it.
    pub(crate) shadow: Option<Decision>,
    /// What it was approved by, or waits for.
    pub(crate) approval: Option<ApprovalFacts>,
    pub(crate) reason: Option<String>,
    pub(crate) revision: Revision,
    pub(crate) status: Option<u16>,
    pub(crate) upstream_us: Option<u64>,
    pub(crate) response_bytes: u64,
    /// What was found in the arguments.
    pub(crate) findings: Vec<String>,
    /// How much was taken out of the answer.
    pub(crate) redacted: u64,
    /// What services of the organisation's own said.
    pub(crate) checks: Notes,
    /// Of the tenant that let the caller in.
    pub(crate) tally: Option<Arc<Tally>>,
    /// The caller as its tenant's breaker knows it.
    pub(crate) watched: Option<Watched>,
}

/// What policies were asked, besides who asks and with which arguments: all that it takes to ask them again.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Asked {
    /// The method that is the action.
    pub(crate) action: &'static str,
    /// What sort of thing the resource is: `Tool`, `Prompt`, `Resource` or `Server`.
    pub(crate) kind: &'static str,
    /// The server, and with `/` before it what the server calls it; not what agents call it.
    pub(crate) resource: String,
    /// When, in seconds since 1970.
    pub(crate) at: u64,
    /// The revision of the protocol.
    pub(crate) protocol: String,
    /// Whether other resources were asked for at once, of which records do not tell.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) more: bool,
}

/// How far an approval was when the call went on, or stopped.
#[derive(Debug)]
pub(crate) struct ApprovalFacts {
    pub(crate) id: ApprovalId,
    pub(crate) state: &'static str,
    /// Admins who approved.
    pub(crate) approvers: Vec<String>,
}

/// How a request ended that was not rejected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// With a result.
    Ok,
    /// With an error of the server, or a tool's own error.
    Error,
    /// The server's answer broke off or was late.
    Broken,
    /// The client left.
    Cancelled,
    /// An admin stopped it.
    Revoked,
}

#[derive(Serialize)]
struct Line<'a> {
    time: String,
    decision_id: &'a str,
    node: &'a str,
    tenant: Option<&'a str>,
    endpoint: Option<&'a str>,
    agent: Option<&'a str>,
    key_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    actors: &'a [String],
    /// What else a token said that policies were asked with.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a RawValue>,
    session: Option<String>,
    server: Option<&'a str>,
    era: Option<&'a str>,
    method: Option<&'a str>,
    tool: Option<&'a str>,
    arguments: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    asked: Option<Asked>,
    outcome: &'a str,
    verdict: Option<&'a str>,
    policies: Vec<PolicyLine<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailureLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    shadow: Option<ShadowLine<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    approval: Option<ApprovalLine<'a>>,
    reason: Option<&'a str>,
    revision: u64,
    status: Option<u16>,
    duration_us: u64,
    upstream_us: Option<u64>,
    response_bytes: u64,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    findings: &'a [String],
    #[serde(skip_serializing_if = "is_none")]
    redacted: u64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Noted>,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

#[derive(Serialize)]
struct PolicyLine<'a> {
    policy: &'a str,
    id: Option<&'a str>,
    index: u32,
}

#[derive(Serialize)]
struct ShadowLine<'a> {
    verdict: &'a str,
    policies: Vec<PolicyLine<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<FailureLine<'a>>,
}

#[derive(Serialize)]
struct ApprovalLine<'a> {
    id: String,
    state: &'a str,
    approvers: &'a [String],
}

/// Which statement failed, or why none could be asked. What Cedar says of a statement that failed is left out, because
/// it may repeat arguments.
#[derive(Serialize)]
#[serde(untagged)]
enum FailureLine<'a> {
    Statement(PolicyLine<'a>),
    Request { message: &'a str },
}

impl<'a> From<&'a Reason> for PolicyLine<'a> {
    fn from(reason: &'a Reason) -> PolicyLine<'a> {
        PolicyLine { policy: reason.policy.as_str(), id: reason.id.as_deref(), index: reason.index }
    }
}

impl<'a> From<&'a Decision> for ShadowLine<'a> {
    fn from(would: &'a Decision) -> ShadowLine<'a> {
        ShadowLine {
            verdict: word(would.verdict),
            policies: would.reasons.iter().map(PolicyLine::from).collect(),
            failures: would.failures.iter().map(FailureLine::from).collect(),
        }
    }
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Allow => "allow",
        Verdict::RequireApproval => "require_approval",
        Verdict::Deny => "deny",
    }
}

impl<'a> From<&'a Failure> for FailureLine<'a> {
    fn from(failure: &'a Failure) -> FailureLine<'a> {
        match &failure.statement {
            Some(statement) => FailureLine::Statement(statement.into()),
            None => FailureLine::Request { message: &failure.message },
        }
    }
}

impl Entry {
    pub(super) fn new(permit: OwnedPermit<Vec<u8>>, decision_id: String, node: Arc<str>) -> Entry {
        let facts = Facts { decision_id, node, ..Facts::default() };
        Entry { permit: Some(permit), started: Instant::now(), facts }
    }

    /// Closes the entry of a request that was answered.
    pub(crate) fn close(mut self, outcome: Outcome) {
        self.write(outcome.as_str(), outcome == Outcome::Broken);
    }

    /// Closes the entry of a request that stopped.
    pub(crate) fn reject(mut self, rejection: &Rejection, status: u16) {
        self.facts.reason = Some(rejection.recorded());
        self.facts.status = Some(status);
        self.write(rejection.outcome(), true);
    }

    fn write(&mut self, outcome: &str, is_rejected: bool) {
        let Some(permit) = self.permit.take() else { return };
        if let Some(tally) = &self.facts.tally {
            tally.count(is_rejected);
        }
        if let (Some(watched), Some(is_failure)) = (&self.facts.watched, self.facts.is_failure(outcome)) {
            watched.end(is_failure, Instant::now());
        }
        permit.send(self.facts.to_line(outcome, self.started));
    }
}

impl Drop for Entry {
    /// The one case that no stage sees: hyper dropped the request because its client left.
    fn drop(&mut self) {
        self.write(Outcome::Cancelled.as_str(), false);
    }
}

impl Asked {
    /// What clients wrote may be anything.
    fn redacted(&self) -> Asked {
        let Asked { action, kind, at, more, .. } = *self;
        // No known form of a secret is as short as a revision of the protocol.
        let protocol = match self.protocol.len() {
            0..=PROTOCOL_BYTES => self.protocol.clone(),
            _ => redaction::redact_text(&self.protocol),
        };
        Asked { action, kind, resource: redaction::redact_text(&self.resource), at, protocol, more }
    }
}

impl Outcome {
    fn as_str(self) -> &'static str {
        match self {
            Outcome::Ok => "ok",
            Outcome::Error => "error",
            Outcome::Broken => "upstream_failed",
            Outcome::Cancelled => "cancelled",
            Outcome::Revoked => "revoked",
        }
    }
}

impl Facts {
    /// Whether a call of a tool that ended so failed; `None`: it was no call of a tool, or says nothing of the caller.
    fn is_failure(&self, outcome: &str) -> Option<bool> {
        if self.method.as_deref() != Some(Method::ToolsCall.as_str()) {
            return None;
        }
        match outcome {
            "ok" => Some(false),
            "error" | "denied" | "invalid" | "upstream_failed" => Some(true),
            _ => None,
        }
    }

    fn to_line(&self, outcome: &str, started: Instant) -> Vec<u8> {
        let arguments = self.arguments.as_ref().map(redaction::redact);
        let arguments = arguments.and_then(|json| RawValue::from_string(json).ok());
        // These repeat what the client wrote, in full length and with whatever is in it.
        let text = |text: &Option<String>| text.as_deref().map(redaction::redact_text);
        let (method, target, reason) = (text(&self.method), text(&self.target), text(&self.reason));
        let identity = self.identity.as_deref();
        let line = Line {
            time: OffsetDateTime::from(SystemTime::now()).format(&Rfc3339).unwrap_or_default(),
            decision_id: &self.decision_id,
            node: &self.node,
            tenant: self.tenant.as_deref(),
            endpoint: self.endpoint.as_deref(),
            agent: self.agent.as_deref(),
            key_id: self.key_id.as_deref(),
            provider: identity.map(|identity| identity.provider.as_str()),
            client: identity.map(|identity| identity.client.as_str()),
            user: identity.and_then(|identity| identity.user.as_ref()).map(ToString::to_string),
            actors: identity.map_or(&[], |identity| &identity.actors),
            token: identity.filter(|_| self.asked.is_some()).map(Identity::told),
            session: self.session.map(|session| session.to_string()),
            server: self.server.as_deref(),
            era: self.era.map(Era::as_str),
            method: method.as_deref(),
            tool: target.as_deref(),
            arguments: arguments.as_deref(),
            asked: self.asked.as_ref().map(Asked::redacted),
            outcome,
            verdict: self.verdict.map(word),
            policies: self.reasons.iter().map(PolicyLine::from).collect(),
            failures: self.failures.iter().map(FailureLine::from).collect(),
            shadow: self.shadow.as_ref().map(ShadowLine::from),
            approval: self.approval.as_ref().map(|approval| ApprovalLine {
                id: approval.id.to_string(),
                state: approval.state,
                approvers: &approval.approvers,
            }),
            reason: reason.as_deref(),
            revision: self.revision.0,
            status: self.status,
            duration_us: u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX),
            upstream_us: self.upstream_us,
            response_bytes: self.response_bytes,
            findings: &self.findings,
            redacted: self.redacted,
            checks: self.checks.all(),
        };
        // Every field has a JSON form; were one to lose it, an empty line would tell that a record was here.
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
