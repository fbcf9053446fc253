//! Who belongs to the cluster and who leads it, and changes of both.
//!
//! Always holds: looking needs no quorum; a change says what it was made on top of, and is refused when that is gone.

use gantry_wire::admin_v1::change_members_request::Change;
use gantry_wire::admin_v1::{self as wire, ChangeMembersRequest, MembersResponse};
use tonic::Status;

use super::call::Call;
use crate::raft::{ChangeError, Membership, MembershipChange, MembershipVersion, VoterId};

pub(super) async fn list(call: &Call) -> MembersResponse {
    respond(call, call.plane.consensus.membership()).await
}

pub(super) async fn change(call: &Call, request: ChangeMembersRequest) -> Result<MembersResponse, Status> {
    let change = match request.change {
        Some(Change::Promote(id)) => MembershipChange::Promote(VoterId(id)),
        Some(Change::Remove(id)) => MembershipChange::Remove(VoterId(id)),
        Some(Change::Transfer(id)) => MembershipChange::HandOver(VoterId(id)),
        None => return Err(Status::invalid_argument("the request names no change that this build knows")),
    };
    let expected = request.expected.map(|version| MembershipVersion {
        term: version.term,
        leader: version.leader,
        index: version.index,
    });
    tracing::info!(?change, "a change of the members is asked for");
    match call.plane.consensus.change_members(change, expected).await {
        Ok(membership) => Ok(respond(call, membership).await),
        Err(error @ ChangeError::Refused(_)) => Err(Status::failed_precondition(error.to_string())),
        Err(error @ ChangeError::Unknown(_)) => {
            Err(Status::deadline_exceeded(format!("{error}; look with `gantry cluster status`")))
        }
        Err(error @ ChangeError::NoLeader) => Err(Status::unavailable(error.to_string())),
    }
}

async fn respond(call: &Call, membership: Membership) -> MembersResponse {
    let status = call.plane.consensus.status().await;
    let members = membership.members.into_iter().map(|member| wire::ClusterMember {
        id: member.voter.0,
        address: member.address,
        votes: member.votes,
        matched: member.matched.unwrap_or(0),
    });
    MembersResponse {
        members: members.collect(),
        version: membership.version.map(|version| wire::MembershipVersion {
            term: version.term,
            leader: version.leader,
            index: version.index,
        }),
        asked: status.voter.0,
        leader: status.leader.map_or(0, |leader| leader.0),
        term: status.term,
        changing: membership.changing,
        last_log: status.last_log.unwrap_or(0),
        quorum_silent_ms: status
            .quorum_silent
            .map_or(0, |silent| u64::try_from(silent.as_millis()).unwrap_or(u64::MAX)),
    }
}
