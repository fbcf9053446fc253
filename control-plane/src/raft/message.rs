//! What members say to each other, between openraft's structures and `proto/gantry/raft/v1/peer.proto`.
//!
//! Always holds: a message that this build does not know in full becomes nothing, never a part of it.

use gantry_wire::raft_v1 as wire;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use super::VoterId;
use super::entry::{
    self, Config, DecodeError, log_id_from_wire, log_id_to_wire, vote_from_wire, vote_to_wire as vote,
};
use super::members::{ChangeError, Membership, MembershipChange, MembershipVersion};

pub(super) fn append_to_wire(request: &AppendEntriesRequest<Config>) -> wire::Append {
    wire::Append {
        vote: Some(vote(&request.vote)),
        previous: request.prev_log_id.as_ref().map(log_id_to_wire),
        entries: request.entries.iter().map(entry::entry_to_wire).collect(),
        committed: request.leader_commit.as_ref().map(log_id_to_wire),
    }
}

pub(super) fn append_from_wire(append: wire::Append) -> Result<AppendEntriesRequest<Config>, DecodeError> {
    Ok(AppendEntriesRequest {
        vote: vote_from_wire(append.vote.ok_or(DecodeError::Missing("vote"))?),
        prev_log_id: append.previous.map(log_id_from_wire),
        entries: append.entries.into_iter().map(entry::entry_from_wire).collect::<Result<_, _>>()?,
        leader_commit: append.committed.map(log_id_from_wire),
    })
}

pub(super) fn append_reply_to_wire(reply: &AppendEntriesResponse<u64>) -> wire::AppendReply {
    use wire::append_reply::Outcome;
    let outcome = match reply {
        AppendEntriesResponse::Success => Outcome::Matched(wire::Matched { log_id: None }),
        AppendEntriesResponse::PartialSuccess(log_id) => {
            Outcome::MatchedInPart(wire::Matched { log_id: log_id.as_ref().map(log_id_to_wire) })
        }
        AppendEntriesResponse::Conflict => Outcome::Conflict(wire::Blank {}),
        AppendEntriesResponse::HigherVote(higher) => Outcome::HigherVote(vote(higher)),
    };
    wire::AppendReply { outcome: Some(outcome) }
}

pub(super) fn append_reply_from_wire(reply: wire::AppendReply) -> Option<AppendEntriesResponse<u64>> {
    use wire::append_reply::Outcome;
    Some(match reply.outcome? {
        Outcome::Matched(_) => AppendEntriesResponse::Success,
        Outcome::MatchedInPart(part) => {
            AppendEntriesResponse::PartialSuccess(part.log_id.map(log_id_from_wire))
        }
        Outcome::Conflict(_) => AppendEntriesResponse::Conflict,
        Outcome::HigherVote(higher) => AppendEntriesResponse::HigherVote(vote_from_wire(higher)),
    })
}

pub(super) fn vote_to_wire(request: &VoteRequest<u64>) -> wire::AskVote {
    wire::AskVote { vote: Some(vote(&request.vote)), last: request.last_log_id.as_ref().map(log_id_to_wire) }
}

pub(super) fn vote_request_from_wire(ask: wire::AskVote) -> Result<VoteRequest<u64>, DecodeError> {
    let vote = vote_from_wire(ask.vote.ok_or(DecodeError::Missing("vote"))?);
    Ok(VoteRequest::new(vote, ask.last.map(log_id_from_wire)))
}

pub(super) fn vote_reply_to_wire(reply: &VoteResponse<u64>) -> wire::VoteReply {
    wire::VoteReply {
        vote: Some(vote(&reply.vote)),
        granted: reply.vote_granted,
        last: reply.last_log_id.as_ref().map(log_id_to_wire),
    }
}

pub(super) fn vote_reply_from_wire(reply: wire::VoteReply) -> Option<VoteResponse<u64>> {
    let vote = vote_from_wire(reply.vote?);
    Some(VoteResponse::new(vote, reply.last.map(log_id_from_wire), reply.granted))
}

pub(super) fn change_to_wire(
    from: VoterId,
    to: u64,
    change: &MembershipChange,
    expected: Option<MembershipVersion>,
) -> wire::Question {
    use wire::change_members::Change as To;
    let change = match change {
        MembershipChange::Learn(voter, address) => {
            To::Learn(wire::Member { voter: voter.0, address: address.clone() })
        }
        MembershipChange::Promote(voter) => To::Promote(voter.0),
        MembershipChange::Remove(voter) => To::Remove(voter.0),
        MembershipChange::HandOver(voter) => To::HandOver(voter.0),
    };
    let expected = expected.map(|version| wire::LogId {
        term: version.term,
        voter: version.leader,
        index: version.index,
    });
    let change = wire::ChangeMembers { expected, change: Some(change) };
    wire::Question { from: from.0, to, question: Some(wire::question::Question::ChangeMembers(change)) }
}

pub(super) fn change_from_wire(
    ask: &wire::ChangeMembers,
) -> Option<(MembershipChange, Option<MembershipVersion>)> {
    use wire::change_members::Change as From;
    let change = match ask.change.as_ref()? {
        From::Learn(member) => MembershipChange::Learn(VoterId(member.voter), member.address.clone()),
        From::Promote(voter) => MembershipChange::Promote(VoterId(*voter)),
        From::Remove(voter) => MembershipChange::Remove(VoterId(*voter)),
        From::HandOver(voter) => MembershipChange::HandOver(VoterId(*voter)),
    };
    let expected =
        ask.expected.map(|id| MembershipVersion { term: id.term, leader: id.voter, index: id.index });
    Some((change, expected))
}

/// The address of the leader, when the one that was asked does not lead and knows who does.
pub(super) fn named_leader(reply: &wire::Reply) -> Option<String> {
    let Some(wire::reply::Reply::ChangeMembers(reply)) = &reply.reply else { return None };
    match &reply.outcome {
        Some(wire::change_members_reply::Outcome::NotLeader(named)) if !named.address.is_empty() => {
            Some(named.address.clone())
        }
        _ => None,
    }
}

/// `None`: the one that was asked does not lead.
pub(super) fn change_reply_from_wire(reply: wire::Reply) -> Option<Result<Membership, ChangeError>> {
    use wire::change_members_reply::Outcome as From;
    let unfit = || Some(Err(ChangeError::Unknown("this build does not know the leader's reply".to_owned())));
    let Some(wire::reply::Reply::ChangeMembers(reply)) = reply.reply else { return unfit() };
    match reply.outcome {
        Some(From::Membership(stored)) => match entry::stored_membership_from_wire(stored) {
            Ok(stored) => {
                let metrics = openraft::RaftMetrics::<u64, entry::Member> {
                    membership_config: std::sync::Arc::new(stored),
                    ..openraft::RaftMetrics::new_initial(0)
                };
                Some(Ok(super::members::membership(&metrics)))
            }
            Err(_) => unfit(),
        },
        Some(From::NotLeader(_)) => None,
        Some(From::Refused(reason)) => Some(Err(ChangeError::Refused(reason))),
        Some(From::Unknown(reason)) => Some(Err(ChangeError::Unknown(reason))),
        None => unfit(),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload, LogId, Vote};

    use super::*;

    fn log_id(index: u64) -> LogId<u64> {
        LogId::new(CommittedLeaderId::new(3, 7), index)
    }

    #[test]
    fn messages_decode_to_what_was_encoded() {
        let entries = vec![entry::Entry { log_id: log_id(4), payload: EntryPayload::Blank }];
        let request = AppendEntriesRequest::<Config> {
            vote: Vote::new_committed(3, 7),
            prev_log_id: Some(log_id(3)),
            entries,
            leader_commit: None,
        };
        let read = append_from_wire(append_to_wire(&request)).expect("reads");
        assert_eq!(format!("{read:?}"), format!("{request:?}"));
        for reply in [
            AppendEntriesResponse::Success,
            AppendEntriesResponse::PartialSuccess(None),
            AppendEntriesResponse::PartialSuccess(Some(log_id(9))),
            AppendEntriesResponse::Conflict,
            AppendEntriesResponse::HigherVote(Vote::new(9, 1)),
        ] {
            assert_eq!(append_reply_from_wire(append_reply_to_wire(&reply)), Some(reply));
        }
        let ask = VoteRequest::new(Vote::new(4, 2), Some(log_id(8)));
        assert_eq!(vote_request_from_wire(vote_to_wire(&ask)).expect("reads"), ask);
        let reply = VoteResponse::new(Vote::new(4, 2), None, true);
        assert_eq!(vote_reply_from_wire(vote_reply_to_wire(&reply)), Some(reply));
    }

    #[test]
    fn an_entry_that_this_build_does_not_know_is_not_left_out() {
        let unknown = wire::Entry { log_id: Some(log_id_to_wire(&log_id(4))), payload: None };
        let append = wire::Append {
            vote: Some(vote(&Vote::new(1, 1))),
            entries: vec![unknown],
            ..wire::Append::default()
        };
        assert!(append_from_wire(append).is_err());
    }
}
