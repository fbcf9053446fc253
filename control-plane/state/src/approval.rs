//! Asking for approvals, voting on them, and using them up.
//!
//! Always holds: an approval is taken by at most one taker, and by that one as often as it asks. It is taken only by the very
//! call that was asked about, in time, with every demand met, and while each of the policies that demanded it is as it was then
//! and the tool is defined as it was. A vote counts once for an admin and is final; the yes of one who is deleted goes with him,
//! while it was not used. The clock is the proposer's. One request waits for one call, however often it is asked for.
//!
//! What is over is forgotten with the next request of its tenant, [`FORGOTTEN_AFTER_MS`] after its end. As soon as there is no
//! more room, so is what is over at all or void, and then the oldest that were denied; until then a denial holds at least as
//! long as the approval would have. What is void, denied or over takes no room of its agent.

use std::fmt;
use std::sync::Arc;

use gantry_model::approval::{
    ARGUMENTS_SHOWN_BYTES_MAX, ApprovalPolicy, ApprovalState, Use, VOTES_MAX, Vote,
};
use gantry_model::record::{RecordKey, RecordValue};
use gantry_model::resource::ApprovalSpec;
use gantry_model::{
    ApprovalCall, ApprovalId, ApprovalRequest, Definition, Name, ResourceId, Spec, TenantName,
};

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

    /// What the policies of a call demand; or why it cannot be asked for now.
    pub fn demands(&self, call: &ApprovalCall, now_ms: u64) -> Result<Vec<ApprovalSpec>, Unasked> {
        if let Some(why) = self.void(call) {
            return Err(Unasked::Void(why));
        }
        let demands = call.policies.iter().map(|policy| demand(self, &call.tenant, policy).cloned());
        let changed = || Unasked::Void("a policy was changed since".to_owned());
        let demands = demands.collect::<Option<Vec<_>>>().ok_or_else(changed)?;
        self.room(call, now_ms).map(|_| demands)
    }

    /// What is to be forgotten so that a call can be kept.
    fn room(&self, call: &ApprovalCall, now_ms: u64) -> Result<Vec<ApprovalId>, Unasked> {
        let waits = |known: &&Arc<ApprovalRequest>| {
            (&known.call.agent, &known.call.user) == (&call.agent, &call.user)
                && matches!(known.state(now_ms), ApprovalState::Pending | ApprovalState::Approved)
        };
        let is_void = |known: &Arc<ApprovalRequest>| known.used.is_none() && self.void(&known.call).is_some();
        let theirs = || self.approvals_of(&call.tenant).filter(waits);
        // What is void is looked for where it matters only: that takes a look at a catalog for each.
        if theirs().count() >= APPROVALS_OF_PRINCIPAL_MAX
            && theirs().filter(|known| !is_void(known)).count() >= APPROVALS_OF_PRINCIPAL_MAX
        {
            return Err(Unasked::Full);
        }
        let ids = |forget: &dyn Fn(&Arc<ApprovalRequest>) -> bool| -> Vec<ApprovalId> {
            self.approvals_of(&call.tenant).filter(|known| forget(known)).map(|known| known.id).collect()
        };
        let count = self.approvals_of(&call.tenant).count();
        let mut over = ids(&|known| is_over(known, FORGOTTEN_AFTER_MS, now_ms));
        if count - over.len() < APPROVALS_OF_TENANT_MAX {
            return Ok(over);
        }
        over = ids(&|known| is_over(known, 0, now_ms) || is_void(known));
        let missing = (count - over.len() + 1).saturating_sub(APPROVALS_OF_TENANT_MAX);
        let is_denied = |known: &&Arc<ApprovalRequest>| {
            known.state(now_ms) == ApprovalState::Denied && !over.contains(&known.id)
        };
        let mut denied: Vec<_> = self.approvals_of(&call.tenant).filter(is_denied).collect();
        denied.sort_by_key(|known| (known.created_at_ms, known.id));
        if denied.len() < missing {
            return Err(Unasked::Full);
        }
        let oldest: Vec<ApprovalId> = denied.iter().take(missing).map(|known| known.id).collect();
        over.extend(oldest);
        Ok(over)
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

/// Why a call cannot be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unasked {
    /// What it is bound to is another by now; what.
    Void(String),
    /// As many wait as may.
    Full,
}

impl fmt::Display for Unasked {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Unasked::Void(why) => write!(formatter, "{why}; make the call again"),
            Unasked::Full => {
                formatter.write_str("too many calls wait for approval already; have some decided first")
            }
        }
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

/// Whether a request was over so long ago that nobody asks for it again.
fn is_over(request: &ApprovalRequest, age_ms: u64, now_ms: u64) -> bool {
    let since = match request.used {
        Some(used) => used.at_ms.saturating_add(TAKEN_AGAIN_MS),
        None => request.expires_at_ms,
    };
    since.saturating_add(age_ms) <= now_ms
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
        let demands = match self.state.demands(call, at_ms) {
            Ok(demands) => demands,
            Err(why) => return refused(why.to_string()),
        };
        if arguments.len() > ARGUMENTS_SHOWN_BYTES_MAX || self.state.approval(&call.tenant, id).is_some() {
            return refused("the request is not one that can be kept");
        }
        for over in self.state.room(call, at_ms).unwrap_or_default() {
            self.remove(&RecordKey::approval(&call.tenant, over));
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

    /// Takes back what an admin approved who is no more. What he denied stays denied.
    pub(crate) fn unvote(&mut self, admin: &Name) {
        let is_his = |vote: &Vote| vote.by == *admin && vote.approves;
        let counts = |known: &&Arc<ApprovalRequest>| known.used.is_none() && known.votes.iter().any(is_his);
        let without = |known: &Arc<ApprovalRequest>| {
            let mut known = known.as_ref().clone();
            known.votes.retain(|vote| !is_his(vote));
            known
        };
        let left: Vec<ApprovalRequest> = self.state.approvals().filter(counts).map(without).collect();
        for request in left {
            self.put(RecordValue::ApprovalRequest(Arc::new(request)));
        }
    }
}

#[cfg(test)]
mod tests;
