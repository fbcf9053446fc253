//! Calls that need an approval, and what becomes of them.

use gantry_model::approval::{APPROVAL_POLICIES_MAX, ApprovalPolicy, Use, Vote};
use gantry_model::resource::ApprovalSpec;
use gantry_model::{ApprovalCall, ApprovalId, ApprovalRequest, Revision};

use crate::command::{Command, required};
use crate::convert::{WireError, bytes, name};
use crate::raft_v1 as raft;
use crate::resource_v1 as wire;

impl From<&ApprovalSpec> for wire::ApprovalSpec {
    fn from(spec: &ApprovalSpec) -> wire::ApprovalSpec {
        wire::ApprovalSpec {
            approvals: spec.approvals,
            approvers: spec.approvers.iter().map(ToString::to_string).collect(),
            expires_seconds: spec.expires_seconds,
        }
    }
}

/// Its bounds are checked with the rest of the specification.
impl TryFrom<&wire::ApprovalSpec> for ApprovalSpec {
    type Error = WireError;

    fn try_from(spec: &wire::ApprovalSpec) -> Result<ApprovalSpec, WireError> {
        let approvers = spec.approvers.iter().map(|text| name("approval.approvers", text));
        Ok(ApprovalSpec {
            approvals: spec.approvals,
            approvers: approvers.collect::<Result<_, _>>()?,
            expires_seconds: spec.expires_seconds,
        })
    }
}

impl From<&ApprovalCall> for wire::ApprovalCall {
    fn from(call: &ApprovalCall) -> wire::ApprovalCall {
        let policy = |policy: &ApprovalPolicy| wire::ApprovalPolicy {
            name: policy.name.to_string(),
            revision: policy.revision.0,
        };
        wire::ApprovalCall {
            tenant: call.tenant.to_string(),
            agent: call.agent.to_string(),
            user: call.user.as_ref().map(ToString::to_string).unwrap_or_default(),
            server: call.server.to_string(),
            tool: call.tool.to_string(),
            arguments_hash: call.arguments_hash.to_vec(),
            definition_hash: call.definition_hash.to_vec(),
            policies: call.policies.iter().map(policy).collect(),
        }
    }
}

impl TryFrom<&wire::ApprovalCall> for ApprovalCall {
    type Error = WireError;

    fn try_from(call: &wire::ApprovalCall) -> Result<ApprovalCall, WireError> {
        let user = match call.user.as_str() {
            "" => None,
            user => Some(user.parse().map_err(|error| WireError::invalid("user", error))?),
        };
        let policy = |policy: &wire::ApprovalPolicy| {
            let (name, revision) = (name("policies", &policy.name)?, Revision(policy.revision));
            Ok::<_, WireError>(ApprovalPolicy { name, revision })
        };
        let policies = call.policies.iter().map(policy).collect::<Result<Vec<_>, _>>()?;
        // In one order, so that the same call is known as the same.
        let is_sorted = policies.is_sorted_by(|one, next| one.name < next.name);
        if policies.is_empty() || policies.len() > APPROVAL_POLICIES_MAX || !is_sorted {
            let told = format!("are 1 to {APPROVAL_POLICIES_MAX}, sorted by name");
            return Err(WireError::invalid("policies", told));
        }
        Ok(ApprovalCall {
            tenant: name("tenant", &call.tenant)?,
            agent: name("agent", &call.agent)?,
            user,
            server: name("server", &call.server)?,
            tool: name("tool", &call.tool)?,
            arguments_hash: bytes("arguments_hash", &call.arguments_hash)?,
            definition_hash: bytes("definition_hash", &call.definition_hash)?,
            policies,
        })
    }
}

impl From<&ApprovalRequest> for wire::ApprovalRequest {
    fn from(request: &ApprovalRequest) -> wire::ApprovalRequest {
        wire::ApprovalRequest {
            id: request.id.0.to_vec(),
            call: Some((&request.call).into()),
            arguments: request.arguments.clone(),
            demands: request.demands.iter().map(Into::into).collect(),
            created_at_ms: request.created_at_ms,
            expires_at_ms: request.expires_at_ms,
            votes: request.votes.iter().map(Into::into).collect(),
            used: request.used.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<&wire::ApprovalRequest> for ApprovalRequest {
    type Error = WireError;

    fn try_from(request: &wire::ApprovalRequest) -> Result<ApprovalRequest, WireError> {
        let call: ApprovalCall = required("call", &request.call)?;
        let demands = request.demands.iter().map(TryInto::try_into).collect::<Result<Vec<_>, _>>()?;
        if demands.len() != call.policies.len() {
            return Err(WireError::invalid("demands", "are not as many as the policies"));
        }
        Ok(ApprovalRequest {
            id: ApprovalId(bytes("id", &request.id)?),
            call,
            arguments: request.arguments.clone(),
            demands,
            created_at_ms: request.created_at_ms,
            expires_at_ms: request.expires_at_ms,
            votes: request.votes.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            used: request.used.as_ref().map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&Vote> for wire::ApprovalVote {
    fn from(vote: &Vote) -> wire::ApprovalVote {
        wire::ApprovalVote {
            by: vote.by.to_string(),
            approves: vote.approves,
            reason: vote.reason.clone(),
            at_ms: vote.at_ms,
        }
    }
}

impl TryFrom<&wire::ApprovalVote> for Vote {
    type Error = WireError;

    fn try_from(vote: &wire::ApprovalVote) -> Result<Vote, WireError> {
        Ok(Vote {
            by: name("by", &vote.by)?,
            approves: vote.approves,
            reason: vote.reason.clone(),
            at_ms: vote.at_ms,
        })
    }
}

impl From<&Use> for wire::ApprovalUse {
    fn from(used: &Use) -> wire::ApprovalUse {
        wire::ApprovalUse { taker: used.taker.to_vec(), at_ms: used.at_ms }
    }
}

impl TryFrom<&wire::ApprovalUse> for Use {
    type Error = WireError;

    fn try_from(used: &wire::ApprovalUse) -> Result<Use, WireError> {
        Ok(Use { taker: bytes("taker", &used.taker)?, at_ms: used.at_ms })
    }
}

impl TryFrom<&raft::AskApproval> for Command {
    type Error = WireError;

    fn try_from(ask: &raft::AskApproval) -> Result<Command, WireError> {
        let (id, call) = (ApprovalId(bytes("id", &ask.id)?), required("call", &ask.call)?);
        Ok(Command::AskApproval { id, call, arguments: ask.arguments.clone(), at_ms: ask.at_ms })
    }
}

impl TryFrom<&raft::VoteOnApproval> for Command {
    type Error = WireError;

    fn try_from(vote: &raft::VoteOnApproval) -> Result<Command, WireError> {
        let (tenant, id) = (name("tenant", &vote.tenant)?, ApprovalId(bytes("id", &vote.id)?));
        Ok(Command::VoteOnApproval { tenant, id, vote: required("vote", &vote.vote)? })
    }
}

impl TryFrom<&raft::TakeApproval> for Command {
    type Error = WireError;

    fn try_from(take: &raft::TakeApproval) -> Result<Command, WireError> {
        let (id, call) = (ApprovalId(bytes("id", &take.id)?), required("call", &take.call)?);
        Ok(Command::TakeApproval { id, call, taking: required("use", &take.r#use)? })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gantry_model::record::{Record, RecordValue};

    use super::*;
    use crate::{Proposal, decode_record, encode_record};

    fn request() -> ApprovalRequest {
        let policy = |name: &str, revision| ApprovalPolicy {
            name: name.parse().expect("a name"),
            revision: Revision(revision),
        };
        let call = ApprovalCall {
            tenant: "acme".parse().expect("a name"),
            agent: "bot".parse().expect("a name"),
            user: Some("corp/ann".parse().expect("a user")),
            server: "files".parse().expect("a name"),
            tool: "delete_file".parse().expect("a name"),
            arguments_hash: [1; 32],
            definition_hash: [2; 32],
            policies: vec![policy("a", 3), policy("b", 4)],
        };
        let demand = |approvers: &[&str]| ApprovalSpec {
            approvals: 1,
            approvers: approvers.iter().map(|name| name.parse().expect("a name")).collect(),
            expires_seconds: 60,
        };
        let vote = Vote { by: "ann".parse().expect("a name"), approves: true, reason: "r".into(), at_ms: 8 };
        ApprovalRequest {
            id: ApprovalId([9; 8]),
            call,
            arguments: "{}".to_owned(),
            demands: vec![demand(&[]), demand(&["ann", "bob"])],
            created_at_ms: 5,
            expires_at_ms: 9,
            votes: vec![vote],
            used: Some(Use { taker: [7; 16], at_ms: 8 }),
        }
    }

    #[test]
    fn requests_and_their_commands_survive_their_messages() {
        let request = request();
        let value = RecordValue::ApprovalRequest(Arc::new(request.clone()));
        let record = Record { revision: Revision(3), value };
        assert_eq!(decode_record(&encode_record(&record)), Ok(record));
        let (id, call) = (request.id, request.call.clone());
        for command in [
            Command::AskApproval { id, call: call.clone(), arguments: "[]".to_owned(), at_ms: 4 },
            Command::VoteOnApproval { tenant: call.tenant.clone(), id, vote: request.votes[0].clone() },
            Command::TakeApproval { id, call, taking: Use { taker: [6; 16], at_ms: 2 } },
        ] {
            let proposal = Proposal::from(command);
            assert_eq!(Proposal::decode(&proposal.encode()), Ok(proposal));
        }
    }

    #[test]
    fn a_call_whose_policies_are_none_doubled_or_in_another_order_is_refused() {
        let call = wire::ApprovalCall::from(&request().call);
        assert!(ApprovalCall::try_from(&call).is_ok());
        let mut backwards = call.clone();
        backwards.policies.reverse();
        let mut doubled = call.clone();
        doubled.policies[1] = doubled.policies[0].clone();
        let none = wire::ApprovalCall { policies: Vec::new(), ..call };
        for wrong in [backwards, doubled, none] {
            assert!(ApprovalCall::try_from(&wrong).is_err(), "{wrong:?}");
        }
    }
}
