//! Approve: whether admins let a call through that policies forbid without them. Redeem: that it is used up, at the last
//! moment.
//!
//! Always holds: what is forwarded needed no approval, or used one up: of exactly this call, by this caller, under the
//! policies and the definition that decided. The control plane grants each once; where it is not known whether it did, the
//! call stops. What is sure to fail does not use one up. A call is held for a while, as long as its client stays and does not
//! cancel it; that it was asked for outlives both. What changed in the tenant meanwhile has the call made again, and so
//! decided again.
//!
//! A call of 2026-07-28 that goes on where it was interrupted on a node is not made again, and needs no second approval.

mod bound;
pub(super) mod link;

pub(crate) use bound::Granted;
use link::{Coming, Link};

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand;
use gantry_model::{ApprovalId, PolicyName};
use gantry_policy::Decision;
use gantry_wire::resource_v1;
use gantry_wire::sync_v1 as wire;
use http::{HeaderName, HeaderValue};
use tokio::time::Instant;

use super::check::Checked;
use super::credential::Credentialed;
use super::discover::Subject;
use super::limit::Budget;
use super::{Caller, Received, now_seconds};
use crate::audit::entry::{ApprovalFacts, Facts};
use crate::audit::redaction;
use crate::bridge::tokens::{self, State};
use crate::config::tenant::Tenant;
use crate::config::view::ToolAccess;
use crate::held::HeldCall;
use crate::mcp::Era;
use crate::mcp::message::Kind;
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
    pub(super) pass: Pass,
    _private: (),
}

/// Proof that the approval of a call, where it needs one, is used up by it. Only this stage builds it.
pub(super) struct Redeemed {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    /// The server's credential.
    pub(super) header: Option<(HeaderName, HeaderValue)>,
    pub(super) granted: Option<Granted>,
    pub(super) budget: Budget,
    _private: (),
}

/// By what a call goes on.
pub(super) struct Pass(Option<Box<Ticket>>);

/// The policies whose approvals a call needs; by name, at least one.
pub(super) struct Demanded(Vec<PolicyName>);

/// An approval that can be used up.
struct Ticket {
    call: resource_v1::ApprovalCall,
    answer: wire::ApprovalAnswer,
    /// Where its client can cancel it.
    held: Option<HeldCall>,
}

/// What a call waits with.
struct Asking<'a> {
    node: &'a Node,
    caller: &'a Caller,
    tool: &'a str,
    question: wire::AskApprovalRequest,
    held: Option<&'a HeldCall>,
    /// Where its client can be sent meanwhile.
    link: Option<Link>,
}

pub(super) async fn approve(node: &Node, checked: Checked, facts: &mut Facts) -> Result<Approved, Rejection> {
    let Checked { caller, mut received, subject, demanded, .. } = checked;
    let coming = link::come(&caller, &mut received)?;
    let ticket = match (demanded, &subject) {
        (None, _) => None,
        (Some(_), _) if goes_on(&caller, &received) => None,
        (Some(demanded), Subject::Tool(access)) => {
            // Nearly every call needs none, and shall not carry what this takes.
            let asked = Box::pin(ask(node, (&caller, &received, coming), access, &demanded, facts)).await;
            if let Err(Rejection::Approval(approval)) = &asked
                && approval.may_be_repeated()
            {
                bound::spare(&received, access, facts);
            }
            Some(Box::new(asked?))
        }
        // Policies demand approvals of calls of tools only.
        (Some(_), _) => return Err(Rejection::Approval(Approval::Changed)),
    };
    Ok(Approved { caller, received, subject, pass: Pass(ticket), _private: () })
}

/// A call that another node had approved when it received it: this very call, for the policies that this node asks for.
pub(super) fn vouched(checked: Checked, granted: Option<&Granted>) -> Result<Approved, Rejection> {
    let Checked { caller, received, subject, demanded, .. } = checked;
    match (demanded, &subject) {
        (None, _) => {}
        (Some(_), _) if goes_on(&caller, &received) => {}
        (Some(demanded), Subject::Tool(access)) => {
            let (call, _) = bound::call(&caller, &received, access, &demanded.0)?;
            if granted != Some(&Granted::of(&call)) {
                return Err(Rejection::Approval(Approval::Changed));
            }
        }
        (Some(_), _) => return Err(Rejection::Approval(Approval::Changed)),
    }
    Ok(Approved { caller, received, subject, pass: Pass(None), _private: () })
}

/// Uses up what the call goes on by.
pub(super) async fn redeem(
    node: &Node,
    credentialed: Credentialed,
    facts: &mut Facts,
) -> Result<Redeemed, Rejection> {
    let Credentialed { caller, received, subject, header, pass, budget, .. } = credentialed;
    let granted = match pass.0 {
        None => None,
        Some(ticket) => {
            Box::pin(ticket.take(node, &caller, &received, facts)).await?;
            Some(Granted::of(&ticket.call))
        }
    };
    Ok(Redeemed { caller, received, subject, header, granted, budget, _private: () })
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

async fn ask(
    node: &Node,
    (caller, received, coming): (&Caller, &Received, Coming),
    access: &ToolAccess,
    demanded: &Demanded,
    facts: &mut Facts,
) -> Result<Ticket, Rejection> {
    let (call, shown) = bound::call(caller, received, access, &demanded.0)?;
    let arguments = redaction::redact_whole(&shown).ok_or_else(|| {
        let most = redaction::ARGUMENTS_BYTES_MAX;
        Rejection::InvalidParams(format!(
            "this call needs an approval, and nobody could read its arguments: at most {most} bytes are shown"
        ))
    })?;
    let held = match (&received.session, received.id()) {
        (Some(session), Some(id)) => Some(node.held.begin(&session.token, &id.0).ok_or(Rejection::Busy)?),
        _ => None,
    };
    let question = wire::AskApprovalRequest { call: Some(call.clone()), arguments, wait_ms: 0 };
    let link = Link::to(caller, received, coming);
    let asking = Asking { node, caller, tool: &access.tool.name, question, held: held.as_ref(), link };
    let answer = asking.run(facts).await?;
    Ok(Ticket { call, answer, held })
}

impl Ticket {
    async fn take(
        &self,
        node: &Node,
        caller: &Caller,
        received: &Received,
        facts: &mut Facts,
    ) -> Result<(), Rejection> {
        self.is_wanted(node, caller, received)?;
        let mut taker = [0; 16];
        rand::fill(&mut taker).map_err(|_| Rejection::Approval(Approval::Unanswered))?;
        let (id, call) = (self.answer.id.clone(), Some(self.call.clone()));
        let question = wire::TakeApprovalRequest { id, call, taker: taker.to_vec() };
        let taken = node.approvals.take(question).await.map_err(unanswered)?;
        facts.approval = approval_facts(&taken);
        if taken.state() != wire::ApprovalState::Taken {
            return Err(Rejection::Approval(Approval::Changed));
        }
        // That takes as long as a new leader may.
        self.is_wanted(node, caller, received)
    }

    /// Whether the call is still to be made, and would be decided as it was.
    fn is_wanted(&self, node: &Node, caller: &Caller, received: &Received) -> Result<(), Rejection> {
        if self.held.as_ref().is_some_and(|held| held.cancelled.is_cancelled()) {
            return Err(Rejection::Approval(Approval::Cancelled));
        }
        if received.session.as_ref().is_some_and(|session| node.ended.contains(&session.token)) {
            return Err(Rejection::SessionGone);
        }
        is_as_it_was(node, caller).then_some(()).ok_or(Rejection::Approval(Approval::Changed))
    }
}

/// Whether a call would be decided as it was: its tenant is the same, and its caller's token good.
fn is_as_it_was(node: &Node, caller: &Caller) -> bool {
    let config = node.config();
    let is_same = |now: &Arc<Tenant>| Arc::ptr_eq(now, &caller.tenant);
    config.tenants.get(&caller.tenant.name).is_some_and(is_same)
        && caller.expires_at().is_none_or(|at| at > now_seconds())
}

impl Asking<'_> {
    /// Returns what says that the call is approved.
    async fn run(mut self, facts: &mut Facts) -> Result<wire::ApprovalAnswer, Rejection> {
        let tenant = &self.caller.tenant;
        // Whoever has something to open has it before it waits.
        let is_sent = self.link.as_ref().is_some_and(|link| link.coming == Coming::New);
        let room = self.node.approvals.hold(&tenant.name, self.caller.principal_id());
        let hold = if room.is_some() && !is_sent { tenant.approving.hold } else { Duration::ZERO };
        if !is_sent && hold.is_zero() {
            // It would come back at once, again and again.
            self.link = None;
        }
        let until = Instant::now() + hold;
        loop {
            let wait = until.saturating_duration_since(Instant::now()).min(WAIT_STEP);
            let answer = self.unless_cancelled(wait).await?;
            let is_over = Instant::now() >= until || self.node.stopping.is_cancelled();
            facts.approval = approval_facts(&answer);
            match answer.state() {
                wire::ApprovalState::Approved => return Ok(answer),
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
        }
    }

    async fn unless_cancelled(&mut self, wait: Duration) -> Result<wire::ApprovalAnswer, Rejection> {
        let Some(held) = self.held else { return self.ask(wait).await };
        tokio::select! {
            biased;
            () = held.cancelled.cancelled() => Err(Rejection::Approval(Approval::Cancelled)),
            answer = self.ask(wait) => answer,
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

    fn pending(&mut self, answer: &wire::ApprovalAnswer) -> Rejection {
        let (tool, expires_in) = (self.tool.to_owned(), Duration::from_millis(answer.expires_in_ms));
        let id = match id(answer) {
            Ok(id) => id,
            Err(rejection) => return rejection,
        };
        let linked = self.link.take().and_then(|link| link.tell(self.caller, tool.clone(), (id, expires_in)));
        Rejection::Approval(linked.unwrap_or(Approval::Pending { tool, id, expires_in }))
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
