//! What consensus is about, in memory and on disk.
//!
//! The types here bind openraft to Gantry's commands; the conversions are the one place where openraft's structures
//! become the messages of `proto/gantry/raft/v1/log.proto` and back.
//!
//! What always holds: what is encoded decodes to the same thing, and a message that this build does not know in full
//! is an error. It is never skipped: a newer build wrote it, and skipping an entry would fork the state.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use bytes::Bytes;
use gantry_control_state::Answer;
use gantry_wire::raft_v1 as wire;
use openraft::{CommittedLeaderId, EntryPayload};
use prost::Message;
use thiserror::Error;

openraft::declare_raft_types!(
    /// openraft with Gantry's commands.
    pub(super) Config:
        D = Batch,
        R = Answers,
        NodeId = u64,
        Node = Member,
        Entry = openraft::Entry<Config>,
        SnapshotData = CheckpointFile,
        AsyncRuntime = super::runtime::Runtime,
);

pub(super) type Entry = openraft::Entry<Config>;
pub(super) type LogId = openraft::LogId<u64>;
pub(super) type Vote = openraft::Vote<u64>;
pub(super) type Membership = openraft::Membership<u64, Member>;
pub(super) type StoredMembership = openraft::StoredMembership<u64, Member>;
pub(super) type CheckpointMeta = openraft::SnapshotMeta<u64, Member>;

/// Encoded commands that are one log entry and share its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Batch {
    pub(super) commands: Vec<Bytes>,
}

/// One answer for each command of a batch, in order; none for other entries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Answers(pub(super) Vec<Answer>);

/// How a voter is reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) address: String,
}

/// A checkpoint on its way between voters: a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CheckpointFile {
    pub(super) path: PathBuf,
}

/// How far the state goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Applied {
    pub(super) last: Option<LogId>,
    pub(super) membership: StoredMembership,
}

/// Stored bytes that this build cannot read.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// Not a message at all.
    #[error("not a message of this build")]
    Message(#[from] prost::DecodeError),
    /// A part that this build needs is absent, or of a kind that it does not know.
    #[error("{0} is missing or unknown")]
    Missing(&'static str),
    /// The entry belongs under another index.
    #[error("entry {actual} is stored as entry {stored}")]
    Misplaced {
        /// Where it is stored.
        stored: u64,
        /// Where it belongs.
        actual: u64,
    },
}

pub(super) fn encode_entry(entry: &Entry) -> Vec<u8> {
    entry_to_wire(entry).encode_to_vec()
}

pub(super) fn entry_to_wire(entry: &Entry) -> wire::Entry {
    let payload = match &entry.payload {
        EntryPayload::Blank => wire::entry::Payload::Blank(wire::Blank {}),
        EntryPayload::Normal(batch) => {
            wire::entry::Payload::Batch(wire::Batch { commands: batch.commands.clone() })
        }
        EntryPayload::Membership(membership) => {
            wire::entry::Payload::Membership(membership_to_wire(membership))
        }
    };
    let log_id = Some(log_id_to_wire(&entry.log_id));
    wire::Entry { log_id, payload: Some(payload) }
}

/// Reads the entry that is stored under `index`.
pub(super) fn decode_entry(index: u64, bytes: Vec<u8>) -> Result<Entry, DecodeError> {
    let entry = entry_from_wire(wire::Entry::decode(Bytes::from(bytes))?)?;
    if entry.log_id.index != index {
        return Err(DecodeError::Misplaced { stored: index, actual: entry.log_id.index });
    }
    Ok(entry)
}

pub(super) fn entry_from_wire(entry: wire::Entry) -> Result<Entry, DecodeError> {
    let log_id = log_id_from_wire(entry.log_id.ok_or(DecodeError::Missing("log id"))?);
    let payload = match entry.payload.ok_or(DecodeError::Missing("payload"))? {
        wire::entry::Payload::Blank(wire::Blank {}) => EntryPayload::Blank,
        wire::entry::Payload::Batch(batch) => EntryPayload::Normal(Batch { commands: batch.commands }),
        wire::entry::Payload::Membership(membership) => {
            EntryPayload::Membership(membership_from_wire(membership))
        }
    };
    Ok(Entry { log_id, payload })
}

/// The log id of an entry's bytes.
pub(super) fn decode_log_id_of_entry(bytes: &[u8]) -> Result<LogId, DecodeError> {
    let entry = wire::Entry::decode(bytes)?;
    Ok(log_id_from_wire(entry.log_id.ok_or(DecodeError::Missing("log id"))?))
}

pub(super) fn encode_vote(vote: &Vote) -> Vec<u8> {
    vote_to_wire(vote).encode_to_vec()
}

pub(super) fn vote_to_wire(vote: &Vote) -> wire::Vote {
    let openraft::Vote { leader_id, committed } = *vote;
    wire::Vote { term: leader_id.term, voter: leader_id.node_id, committed }
}

pub(super) fn vote_from_wire(vote: wire::Vote) -> Vote {
    Vote { leader_id: openraft::LeaderId::new(vote.term, vote.voter), committed: vote.committed }
}

pub(super) fn decode_vote(bytes: &[u8]) -> Result<Vote, DecodeError> {
    Ok(vote_from_wire(wire::Vote::decode(bytes)?))
}

pub(super) fn encode_log_id(log_id: &LogId) -> Vec<u8> {
    log_id_to_wire(log_id).encode_to_vec()
}

pub(super) fn decode_log_id(bytes: &[u8]) -> Result<LogId, DecodeError> {
    Ok(log_id_from_wire(wire::LogId::decode(bytes)?))
}

pub(super) fn encode_applied(applied: &Applied) -> Vec<u8> {
    applied_to_wire(applied).encode_to_vec()
}

pub(super) fn decode_applied(bytes: &[u8]) -> Result<Applied, DecodeError> {
    applied_from_wire(wire::Applied::decode(bytes)?)
}

pub(super) fn encode_identity(voter: u64) -> Vec<u8> {
    wire::Identity { voter }.encode_to_vec()
}

pub(super) fn decode_identity(bytes: &[u8]) -> Result<u64, DecodeError> {
    Ok(wire::Identity::decode(bytes)?.voter)
}

pub(super) fn encode_checkpoint_header(meta: &CheckpointMeta) -> Vec<u8> {
    checkpoint_header_to_wire(meta).encode_to_vec()
}

pub(super) fn checkpoint_header_to_wire(meta: &CheckpointMeta) -> wire::CheckpointHeader {
    let applied = Applied { last: meta.last_log_id, membership: meta.last_membership.clone() };
    let applied = Some(applied_to_wire(&applied));
    wire::CheckpointHeader { applied, id: meta.snapshot_id.clone() }
}

pub(super) fn decode_checkpoint_header(bytes: &[u8]) -> Result<CheckpointMeta, DecodeError> {
    checkpoint_header_from_wire(wire::CheckpointHeader::decode(bytes)?)
}

pub(super) fn checkpoint_header_from_wire(
    header: wire::CheckpointHeader,
) -> Result<CheckpointMeta, DecodeError> {
    let applied = applied_from_wire(header.applied.ok_or(DecodeError::Missing("applied"))?)?;
    Ok(CheckpointMeta {
        last_log_id: applied.last,
        last_membership: applied.membership,
        snapshot_id: header.id,
    })
}

fn applied_to_wire(applied: &Applied) -> wire::Applied {
    let membership = Some(stored_membership_to_wire(&applied.membership));
    wire::Applied { log_id: applied.last.as_ref().map(log_id_to_wire), membership }
}

pub(super) fn stored_membership_to_wire(stored: &StoredMembership) -> wire::StoredMembership {
    wire::StoredMembership {
        log_id: stored.log_id().as_ref().map(log_id_to_wire),
        membership: Some(membership_to_wire(stored.membership())),
    }
}

fn applied_from_wire(applied: wire::Applied) -> Result<Applied, DecodeError> {
    let membership = applied.membership.ok_or(DecodeError::Missing("membership"))?;
    let membership = stored_membership_from_wire(membership)?;
    Ok(Applied { last: applied.log_id.map(log_id_from_wire), membership })
}

pub(super) fn stored_membership_from_wire(
    stored: wire::StoredMembership,
) -> Result<StoredMembership, DecodeError> {
    let membership = membership_from_wire(stored.membership.ok_or(DecodeError::Missing("membership"))?);
    Ok(StoredMembership::new(stored.log_id.map(log_id_from_wire), membership))
}

pub(super) fn log_id_to_wire(log_id: &LogId) -> wire::LogId {
    let openraft::LogId { leader_id, index } = *log_id;
    wire::LogId { term: leader_id.term, voter: leader_id.node_id, index }
}

pub(super) fn log_id_from_wire(log_id: wire::LogId) -> LogId {
    LogId::new(CommittedLeaderId::new(log_id.term, log_id.voter), log_id.index)
}

fn membership_to_wire(membership: &Membership) -> wire::Membership {
    let voters = |config: &BTreeSet<u64>| wire::VoterSet { voters: config.iter().copied().collect() };
    let member =
        |(voter, member): (&u64, &Member)| wire::Member { voter: *voter, address: member.address.clone() };
    wire::Membership {
        configs: membership.get_joint_config().iter().map(voters).collect(),
        members: membership.nodes().map(member).collect(),
    }
}

fn membership_from_wire(membership: wire::Membership) -> Membership {
    let configs = membership.configs.into_iter().map(|config| config.voters.into_iter().collect());
    let members = membership.members.into_iter();
    let members: BTreeMap<_, _> =
        members.map(|member| (member.voter, Member { address: member.address })).collect();
    Membership::new(configs.collect(), members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_id(index: u64) -> LogId {
        LogId::new(CommittedLeaderId::new(3, 7), index)
    }

    fn membership() -> Membership {
        let members = [(1, "one"), (2, "two"), (5, "learner")];
        let members: BTreeMap<_, _> =
            members.map(|(voter, address)| (voter, Member { address: address.into() })).into();
        Membership::new(vec![[1].into(), [1, 2].into()], members)
    }

    #[test]
    fn every_kind_of_entry_decodes_to_what_was_encoded() {
        let batch = Batch { commands: vec![Bytes::from_static(b"one"), Bytes::new()] };
        let payloads =
            [EntryPayload::Blank, EntryPayload::Normal(batch), EntryPayload::Membership(membership())];
        for payload in payloads {
            let entry = Entry { log_id: log_id(9), payload };
            assert_eq!(decode_entry(9, encode_entry(&entry)).expect("decode"), entry);
        }
    }

    #[test]
    fn marks_decode_to_what_was_encoded() {
        for vote in [Vote::new(4, 2), Vote::new_committed(4, 2), Vote::default()] {
            assert_eq!(decode_vote(&encode_vote(&vote)).expect("decode"), vote);
        }
        let applied = Applied {
            last: Some(log_id(12)),
            membership: StoredMembership::new(Some(log_id(4)), membership()),
        };
        for applied in [applied, Applied::default()] {
            assert_eq!(decode_applied(&encode_applied(&applied)).expect("decode"), applied);
            let meta = CheckpointMeta {
                last_log_id: applied.last,
                last_membership: applied.membership,
                snapshot_id: "3-7-12".into(),
            };
            assert_eq!(decode_checkpoint_header(&encode_checkpoint_header(&meta)).expect("decode"), meta);
        }
        assert_eq!(decode_log_id(&encode_log_id(&log_id(0))).expect("decode"), log_id(0));
        assert_eq!(decode_identity(&encode_identity(u64::MAX)).expect("decode"), u64::MAX);
    }

    #[test]
    fn an_entry_of_a_kind_that_this_build_does_not_know_is_refused() {
        // Field 15, which no build has written yet, in place of a payload.
        let mut bytes =
            wire::Entry { log_id: Some(wire::LogId { term: 1, voter: 1, index: 2 }), payload: None }
                .encode_to_vec();
        bytes.extend_from_slice(&[0x7a, 0x01, 0x00]);
        assert!(matches!(decode_entry(2, bytes), Err(DecodeError::Missing("payload"))));
    }

    #[test]
    fn an_entry_stored_under_another_index_is_refused() {
        let bytes = encode_entry(&Entry { log_id: log_id(9), payload: EntryPayload::Blank });
        assert!(matches!(decode_entry(8, bytes), Err(DecodeError::Misplaced { stored: 8, actual: 9 })));
    }
}
