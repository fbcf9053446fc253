//! Asking for approvals, voting on them, and using them up.
//!
//! Always holds: an approval is taken by at most one taker, and by that one as often as it asks. It is taken only by the very
//! call that was asked about, in time, with every demand met, and while each of the policies that demanded it is as it was then
//! and the tool is defined as it was. A vote counts once for an admin and is final. The clock is the proposer's. One request
//! waits for one call, however often it is asked for.
//!
//! What is over is forgotten with the next request of its tenant, [`FORGOTTEN_AFTER_MS`] after its end, or as soon as there
//! is no more room; a denial holds until then at least as long as the approval would have.

use std::sync::Arc;

use gantry_model::approval::{
    ARGUMENTS_SHOWN_BYTES_MAX, ApprovalPolicy, ApprovalState, Use, VOTES_MAX, Vote,
};
use gantry_model::record::{RecordKey, RecordValue};
use gantry_model::resource::ApprovalSpec;
use gantry_model::{ApprovalCall, ApprovalId, ApprovalRequest, Definition, ResourceId, Spec, TenantName};

use crate::apply::{Done, Draft, refused};
use crate::outcome::Refusal;
use crate::state::State;

/// Requests of a tenant at one time: more than its approvers could read in a day.
pub const APPROVALS_OF_TENANT_MAX: usize = 1_000;
/// Requests of one agent for one user that wait or are approved: an agent that asks for more is stuck, and must not take the
/// room of others.
pub const APPROVALS_OF_PRINCIPAL_MAX: usize = 32;
/// How long what is over can still be looked at; by then nobody asks again whether it took it.
pub const FORGOTTEN_AFTER_MS: u64 = 60 * 60 * 1_000;
/// For how long the taker of an approval may ask again, whatever room there is.
const TAKEN_AGAIN_MS: u64 = 5 * 60 * 1_000;

impl State {
    /// The request of a call that can still be decided or used, or is denied; `None`: it is to be asked for.
    pub fn approval_of(&self, call: &ApprovalCall, now_ms: u64) -> Option<&Arc<ApprovalRequest>> {
        self.approvals_of(&call.tenant).find(|known| known.call == *call && is_open(known, now_ms))
    }

    /// Whether what a request is bound to is as it was; the reason, where it is not.
    pub fn void(&self, call: &ApprovalCall) -> Option<String> {
        let changed = |policy: &&ApprovalPolicy| demand(self, &call.tenant, policy).is_none();
        if let Some(policy) = call.policies.iter().find(changed) {
            return Some(format!("policy {} was changed since", policy.name));
        }
        let catalog = self.catalog(&call.tenant, &call.server);
        let tools = catalog.map(|catalog| catalog.tools.as_slice()).unwrap_or_default();
        let is_same =
            |tool: &Definition| *tool.name == *call.tool.as_str() && tool.hash == call.definition_hash;
        let is_same = tools.iter().any(is_same);
        (!is_same)
            .then(|| format!("the definition of tool {}/{} changed since", call.server, call.tool.as_str()))
    }
}

/// What a policy demands; `None`: it is another by now, or demands nothing. Nodes in a stage of a rollout have what that
/// changes, as of when it began.
fn demand<'s>(state: &'s State, tenant: &TenantName, policy: &ApprovalPolicy) -> Option<&'s ApprovalSpec> {
    let id = ResourceId::policy(tenant, &policy.name);
    let stored = state.resource(&id).filter(|(_, record)| record.revision == policy.revision);
    let spec = stored.map(|(resource, _)| &resource.spec).or_else(|| {
        let (rollout, _) = state.rollout(tenant)?;
        let is_staged = rollout.is_running() && rollout.begun == policy.revision;
        let staged = rollout.applied.iter().filter(|_| is_staged).find(|resource| resource.id() == id)?;
        Some(&staged.spec)
    })?;
    match spec {
        Spec::Policy(policy) if !policy.shadow => policy.approval.as_ref(),
        _ => None,
    }
}

/// Whether the same call is answered by a request that is there.
fn is_open(request: &ApprovalRequest, now_ms: u64) -> bool {
    match request.state(now_ms) {
        ApprovalState::Pending | ApprovalState::Approved | ApprovalState::Denied => true,
        ApprovalState::Used | ApprovalState::Expired => false,
    }
}

impl Draft {
    pub(crate) fn ask_approval(
        &mut self,
        id: ApprovalId,
        call: &ApprovalCall,
        arguments: &str,
        at_ms: u64,
    ) -> Done {
        self.require(&ResourceId::of_tenant(&call.tenant))?;
        if self.state.approval_of(call, at_ms).is_some() {
            return Ok(Vec::new());
        }
        if let Some(why) = self.state.void(call) {
            return refused(format!("{why}; make the call again"));
        }
        let demands = call.policies.iter().map(|policy| demand(&self.state, &call.tenant, policy).cloned());
        let Some(demands) = demands.collect::<Option<Vec<_>>>() else {
            return refused("a policy was changed since; make the call again");
        };
        if arguments.len() > ARGUMENTS_SHOWN_BYTES_MAX || self.state.approval(&call.tenant, id).is_some() {
            return refused("the request is not one that can be kept");
        }
        self.forget_approvals(&call.tenant, at_ms);
        let is_theirs = |known: &&Arc<ApprovalRequest>| {
            (&known.call.agent, &known.call.user) == (&call.agent, &call.user)
        };
        let (mut of_tenant, mut of_principal) = (0, 0);
        for known in self.state.approvals_of(&call.tenant) {
            of_tenant += 1;
            of_principal += usize::from(is_theirs(&known) && is_open(known, at_ms));
        }
        if of_principal >= APPROVALS_OF_PRINCIPAL_MAX || of_tenant >= APPROVALS_OF_TENANT_MAX {
            return refused("too many calls wait for approval already; have some decided first");
        }
        let seconds = demands.iter().map(|demand| demand.expires_seconds).min().unwrap_or_default();
        self.put(RecordValue::ApprovalRequest(Arc::new(ApprovalRequest {
            id,
            call: call.clone(),
            arguments: arguments.to_owned(),
            demands,
            created_at_ms: at_ms,
            expires_at_ms: at_ms.saturating_add(u64::from(seconds) * 1_000),
            votes: Vec::new(),
            used: None,
        })));
        Ok(Vec::new())
    }

    pub(crate) fn vote_on_approval(&mut self, tenant: &TenantName, id: ApprovalId, vote: &Vote) -> Done {
        let request = self.approval(tenant, id)?;
        if let Some(why) = self.state.void(&request.call) {
            return refused(format!("approval {id} is void: {why}"));
        }
        let state = request.state(vote.at_ms);
        let is_late = match state {
            ApprovalState::Pending => false,
            // Who approved may have second thoughts, and so may others.
            ApprovalState::Approved => vote.approves,
            ApprovalState::Denied | ApprovalState::Used | ApprovalState::Expired => true,
        };
        if is_late {
            return refused(format!("approval {id} is {} already", state.as_str()));
        }
        if !request.asks(&vote.by) {
            return refused(format!("{} is none of the approvers that the policies of {id} name", vote.by));
        }
        let is_said = request.votes.iter().any(|said| said.by == vote.by && said.approves == vote.approves);
        if is_said {
            return refused(format!("{} has approved {id} already; another approver is needed", vote.by));
        }
        if request.votes.len() >= VOTES_MAX && vote.approves {
            return refused(format!("approval {id} has {VOTES_MAX} votes already"));
        }
        let mut voted = request.as_ref().clone();
        voted.votes.push(vote.clone());
        self.put(RecordValue::ApprovalRequest(Arc::new(voted)));
        Ok(Vec::new())
    }

    pub(crate) fn take_approval(&mut self, id: ApprovalId, call: &ApprovalCall, taking: &Use) -> Done {
        let request = self.approval(&call.tenant, id)?;
        if request.call != *call {
            return refused(format!("approval {id} is of another call"));
        }
        match request.used {
            // It asks again because it did not hear the answer.
            Some(used) if used.taker == taking.taker => return Ok(Vec::new()),
            Some(_) => return refused(format!("approval {id} is used already")),
            None => {}
        }
        if let Some(why) = self.state.void(call) {
            return refused(format!("approval {id} is void: {why}"));
        }
        let state = request.state(taking.at_ms);
        if state != ApprovalState::Approved {
            return refused(format!("approval {id} is {}", state.as_str()));
        }
        let mut used = request.as_ref().clone();
        used.used = Some(*taking);
        self.put(RecordValue::ApprovalRequest(Arc::new(used)));
        Ok(Vec::new())
    }

    fn approval(&self, tenant: &TenantName, id: ApprovalId) -> Result<Arc<ApprovalRequest>, Vec<Refusal>> {
        let there = self.state.approval(tenant, id).cloned();
        there.ok_or_else(|| vec![Refusal::of(0, format!("tenant {tenant} has no approval {id}"))])
    }

    /// Forgets what is over for long; what is over at all, where there is no more room.
    fn forget_approvals(&mut self, tenant: &TenantName, now_ms: u64) {
        let over_since = |request: &ApprovalRequest| match request.used {
            Some(used) => used.at_ms.saturating_add(TAKEN_AGAIN_MS),
            None => request.expires_at_ms,
        };
        let older = |age_ms: u64| -> Vec<ApprovalId> {
            let is_over =
                |request: &&Arc<ApprovalRequest>| over_since(request).saturating_add(age_ms) <= now_ms;
            self.state.approvals_of(tenant).filter(is_over).map(|request| request.id).collect()
        };
        let mut over = older(FORGOTTEN_AFTER_MS);
        if self.state.approvals_of(tenant).count() - over.len() >= APPROVALS_OF_TENANT_MAX {
            over = older(0);
        }
        for id in over {
            self.remove(&RecordKey::approval(tenant, id));
        }
    }
}

#[cfg(test)]
mod tests;
