//! Approve: whether admins let a call through that policies forbid without them.
//!
//! Always holds: what goes on from here needed no approval, or used one up: of exactly this call, by this caller, under the
//! policies and the definition that decided. The control plane grants each once; where it is not known whether it did, the
//! call stops. A call is held for a while, as long as its client stays; that it was asked for outlives both. What changed in the
//! tenant while it was held has the call made again, and so decided again.
//!
//! A call of 2026-07-28 that goes on where it was interrupted on a node is not made again, and needs no second approval.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use gantry_model::approval::{ApprovalCall, ApprovalPolicy};
use gantry_model::{ApprovalId, PolicyName};
use gantry_policy::Decision;
use gantry_wire::sync_v1 as wire;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::discover::Subject;
use super::limit::Admitted;
use super::{Caller, Received, now_seconds};
use crate::audit::entry::{ApprovalFacts, Facts};
use crate::audit::redaction;
use crate::bridge::tokens::{self, State};
use crate::config::tenant::Tenant;
use crate::config::view::ToolAccess;
use crate::mcp::message::Kind;
use crate::mcp::{Era, canonical};
use crate::node::Node;
use crate::rejection::{Approval, Rejection};
use crate::sync::approvals::AskError;

/// Longest part of a hold that one member is asked for: one that dies costs no more.
const WAIT_STEP: Duration = Duration::from_secs(10);

/// Proof that the call was approved, or needs not to be. Only this stage builds it.
pub(super) struct Approved {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) granted: Option<Granted>,
    _private: (),
}

/// The policies whose approvals a call needs; by name, at least one.
pub(super) struct Demanded(Vec<PolicyName>);

/// An approval that was used up, for a node that the call is handed to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Granted {
    policies: Vec<PolicyName>,
}

impl Demanded {
    /// Those of a decision that demands some.
    pub(super) fn of(decision: &Decision) -> Demanded {
        let mut policies: Vec<PolicyName> =
            decision.reasons.iter().map(|reason| reason.policy.clone()).collect();
        policies.sort_unstable();
        policies.dedup();
        Demanded(policies)
    }
}

/// What a call waits with.
struct Asking<'a> {
    node: &'a Node,
    tenant: &'a Arc<Tenant>,
    caller: &'a Caller,
    tool: &'a str,
    question: wire::AskApprovalRequest,
}

pub(super) async fn approve(
    node: &Node,
    admitted: Admitted,
    facts: &mut Facts,
) -> Result<Approved, Rejection> {
    let Admitted { caller, received, subject, demanded, .. } = admitted;
    let granted = match (demanded, &subject) {
        (None, _) => None,
        (Some(_), _) if goes_on(&caller, &received) => None,
        (Some(Demanded(policies)), Subject::Tool(access)) => {
            let question = question(&caller, &received, access, &policies, facts)?;
            let (tenant, tool) = (&caller.tenant, &*access.tool.name);
            let asking = Asking { node, tenant, caller: &caller, tool, question };
            // Nearly every call needs none, and shall not carry what this takes.
            Box::pin(asking.run(facts)).await?;
            Some(Granted { policies })
        }
        // Policies demand approvals of calls of tools only.
        (Some(_), _) => return Err(Rejection::Approval(Approval::Changed)),
    };
    Ok(Approved { caller, received, subject, granted, _private: () })
}

/// A call that another node had approved when it received it: for the policies that this node asks for, too.
pub(super) fn vouched(admitted: Admitted, granted: Option<&Granted>) -> Result<Approved, Rejection> {
    let Admitted { caller, received, subject, demanded, .. } = admitted;
    let is_granted = |policy: &PolicyName| granted.is_some_and(|granted| granted.policies.contains(policy));
    let goes_on = goes_on(&caller, &received);
    if demanded.is_some_and(|demanded| !goes_on && !demanded.0.iter().all(is_granted)) {
        return Err(Rejection::Approval(Approval::Changed));
    }
    Ok(Approved { caller, received, subject, granted: granted.cloned(), _private: () })
}

/// Whether it goes on with a call that waits on a node for its client's answers, which can be done once. Only where the state
/// is read, and nothing is forwarded for it: anywhere else it would be a word that lets any call through.
fn goes_on(caller: &Caller, received: &Received) -> bool {
    if received.era != Era::Modern || received.session.is_some() {
        return false;
    }
    let Some(Kind::Request { params, .. }) = received.message.as_ref().map(|message| &message.kind) else {
        return false;
    };
    let state = params.request_state.as_ref().map(|token| tokens::open_state(caller, token));
    matches!(state, Some(Ok(State::Parked { .. })))
}

fn question(
    caller: &Caller,
    received: &Received,
    access: &ToolAccess,
    policies: &[PolicyName],
    facts: &Facts,
) -> Result<wire::AskApprovalRequest, Rejection> {
    let body = received.message.as_ref().map(|message| &*message.body).unwrap_or_default();
    let refused = |error: canonical::CanonicalError| Rejection::InvalidParams(error.to_string());
    let policy = |name: &PolicyName| {
        let revision = caller.tenant.approving.revision(name);
        revision.map(|revision| ApprovalPolicy { name: name.clone(), revision })
    };
    let policies = policies.iter().map(policy).collect::<Option<Vec<_>>>();
    let tool = access.tool.name.parse().map_err(|_| Rejection::Approval(Approval::Changed))?;
    let call = ApprovalCall {
        tenant: caller.tenant.name.clone(),
        agent: caller.agent.name.clone(),
        user: caller.user().cloned(),
        server: access.server.name.clone(),
        tool,
        arguments_hash: canonical::arguments_hash(body).map_err(refused)?,
        definition_hash: access.tool.hash,
        // A policy that came ahead of its update has no revision here yet.
        policies: policies.ok_or(Rejection::Approval(Approval::Changed))?,
    };
    let arguments = facts.arguments.as_ref().map_or_else(|| "{}".to_owned(), redaction::redact);
    Ok(wire::AskApprovalRequest { call: Some((&call).into()), arguments, wait_ms: 0 })
}

impl Asking<'_> {
    /// Returns once an approval was used up for this call.
    async fn run(mut self, facts: &mut Facts) -> Result<(), Rejection> {
        let held = self.node.approvals.hold(&self.tenant.name);
        let hold = if held.is_some() { self.tenant.approving.hold } else { Duration::ZERO };
        let until = Instant::now() + hold;
        let answer = loop {
            let wait = until.saturating_duration_since(Instant::now()).min(WAIT_STEP);
            let answer = self.ask(wait).await?;
            let is_over = Instant::now() >= until || self.node.stopping.is_cancelled();
            facts.approval = approval_facts(&answer);
            match answer.state() {
                wire::ApprovalState::Approved => break answer,
                wire::ApprovalState::Pending if !is_over => {}
                wire::ApprovalState::Pending => return Err(self.pending(&answer)),
                wire::ApprovalState::Denied => {
                    let (tool, id) = (self.tool.to_owned(), id(&answer)?);
                    return Err(Rejection::Approval(Approval::Denied { tool, id }));
                }
                wire::ApprovalState::Gone | wire::ApprovalState::Taken | wire::ApprovalState::Unspecified => {
                    return Err(Rejection::Approval(Approval::Changed));
                }
            }
        };
        if !self.is_as_it_was() {
            return Err(Rejection::Approval(Approval::Changed));
        }
        let taken = self.take(&answer).await?;
        facts.approval = approval_facts(&taken);
        match taken.state() {
            wire::ApprovalState::Taken => Ok(()),
            _ => Err(Rejection::Approval(Approval::Changed)),
        }
    }

    async fn ask(&mut self, wait: Duration) -> Result<wire::ApprovalAnswer, Rejection> {
        self.question.wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        tokio::select! {
            answer = self.node.approvals.ask(self.question.clone()) => answer.map_err(unanswered),
            // Whoever is held is told where he is, before the node ends.
            () = self.node.stopping.cancelled(), if !wait.is_zero() => {
                self.question.wait_ms = 0;
                self.node.approvals.ask(self.question.clone()).await.map_err(unanswered)
            }
        }
    }

    /// Whether the call would be decided as it was: its tenant is the same, and its caller's token good.
    fn is_as_it_was(&self) -> bool {
        let config = self.node.config();
        let is_same = config.tenants.get(&self.tenant.name).is_some_and(|now| Arc::ptr_eq(now, self.tenant));
        is_same && self.caller.expires_at().is_none_or(|at| at > now_seconds())
    }

    async fn take(&self, approved: &wire::ApprovalAnswer) -> Result<wire::ApprovalAnswer, Rejection> {
        let mut taker = [0; 16];
        rand::fill(&mut taker).map_err(|_| Rejection::Approval(Approval::Unanswered))?;
        let (id, call) = (approved.id.clone(), self.question.call.clone());
        let question = wire::TakeApprovalRequest { id, call, taker: taker.to_vec() };
        self.node.approvals.take(question).await.map_err(unanswered)
    }

    fn pending(&self, answer: &wire::ApprovalAnswer) -> Rejection {
        match id(answer) {
            Ok(id) => {
                let expires_in = Duration::from_millis(answer.expires_in_ms);
                Rejection::Approval(Approval::Pending { tool: self.tool.to_owned(), id, expires_in })
            }
            Err(rejection) => rejection,
        }
    }
}

fn id(answer: &wire::ApprovalAnswer) -> Result<ApprovalId, Rejection> {
    let id = answer.id.as_slice().try_into().map_err(|_| Rejection::Approval(Approval::Unanswered))?;
    Ok(ApprovalId(id))
}

fn approval_facts(answer: &wire::ApprovalAnswer) -> Option<ApprovalFacts> {
    let state = match answer.state() {
        wire::ApprovalState::Pending => "pending",
        wire::ApprovalState::Approved => "approved",
        wire::ApprovalState::Denied => "denied",
        wire::ApprovalState::Taken => "used",
        wire::ApprovalState::Gone | wire::ApprovalState::Unspecified => "gone",
    };
    let id = id(answer).ok()?;
    Some(ApprovalFacts { id, state, approvers: answer.approvers.clone() })
}

fn unanswered(error: AskError) -> Rejection {
    tracing::info!(%error, "an approval cannot be had");
    Rejection::Approval(match error {
        AskError::Refused(why) => Approval::Refused(why),
        AskError::Unanswered(_) => Approval::Unanswered,
    })
}
