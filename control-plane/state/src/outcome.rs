//! What became of a command.

use std::sync::Arc;

use gantry_model::{ResourceId, Revision};
use gantry_wire::raft_v1 as wire;
use prost::Message;

/// What applying one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The answer for whoever proposed it.
    pub outcome: Outcome,
    /// The entries that changed, to be stored and sent on; empty when the command was refused or changed nothing.
    pub changes: Vec<Change>,
}

/// One entry that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The record's key as text.
    pub key: String,
    /// The record's bytes; `None`: deleted.
    pub value: Option<Arc<[u8]>>,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done. For resources: what happened to each, in the order of the command.
    Done(Vec<(ResourceId, ChangeKind)>),
    /// Nothing was changed, for these reasons.
    Refused(Vec<Refusal>),
}

/// What happened to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was not there.
    Created,
    /// It was there and said something else.
    Updated,
    /// It was there and said the same; its revision stays.
    Unchanged,
    /// It is gone.
    Deleted,
}

/// Why a command was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The document or id in the command, from 0.
    pub index: usize,
    /// The field, such as `spec.servers[0]`, or empty.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The nearest known name, or none.
    pub nearest: Option<String>,
}

/// What became of the commands of one log entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedBatch {
    /// An answer for each, in order.
    pub answers: Vec<Answer>,
    /// The entries that changed.
    pub changes: Vec<Change>,
}

/// What became of a proposal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The revision that it was applied at: an earlier one when it stood in the log before.
    pub revision: Revision,
    /// What it did. `None`: it was proposed before, and what became of it is forgotten.
    pub outcome: Option<Outcome>,
}

impl Refusal {
    /// A refusal that concerns the command or document as a whole.
    pub(crate) fn of(index: usize, message: impl Into<String>) -> Refusal {
        Refusal { index, path: String::new(), message: message.into(), nearest: None }
    }
}

impl Outcome {
    /// The bytes by which an outcome is remembered and told to other members.
    pub fn encode(&self) -> Vec<u8> {
        wire::Outcome::from(self).encode_to_vec()
    }

    /// Reads an outcome; `None` when this build does not know it.
    pub fn decode(encoded: &[u8]) -> Option<Outcome> {
        Outcome::from_message(wire::Outcome::decode(encoded).ok()?)
    }

    /// Reads an outcome; `None` when this build does not know it.
    pub fn from_message(message: wire::Outcome) -> Option<Outcome> {
        match message.outcome? {
            wire::outcome::Outcome::Done(done) => {
                let changed = done.changed.into_iter().map(|changed| {
                    let kind = match changed.kind() {
                        wire::ChangeKind::Unspecified => return None,
                        wire::ChangeKind::Created => ChangeKind::Created,
                        wire::ChangeKind::Updated => ChangeKind::Updated,
                        wire::ChangeKind::Unchanged => ChangeKind::Unchanged,
                        wire::ChangeKind::Deleted => ChangeKind::Deleted,
                    };
                    Some((ResourceId::try_from(&changed.id?).ok()?, kind))
                });
                Some(Outcome::Done(changed.collect::<Option<_>>()?))
            }
            wire::outcome::Outcome::Refused(refused) => {
                let refusals = refused.refusals.into_iter().map(|refusal| {
                    let index = usize::try_from(refusal.index).ok()?;
                    let wire::Refusal { path, message, nearest, .. } = refusal;
                    Some(Refusal { index, path, message, nearest })
                });
                Some(Outcome::Refused(refusals.collect::<Option<_>>()?))
            }
        }
    }
}

impl From<&Outcome> for wire::Outcome {
    fn from(outcome: &Outcome) -> wire::Outcome {
        let outcome = match outcome {
            Outcome::Done(done) => {
                let changed = |(id, kind): &(ResourceId, ChangeKind)| {
                    let kind = match kind {
                        ChangeKind::Created => wire::ChangeKind::Created,
                        ChangeKind::Updated => wire::ChangeKind::Updated,
                        ChangeKind::Unchanged => wire::ChangeKind::Unchanged,
                        ChangeKind::Deleted => wire::ChangeKind::Deleted,
                    };
                    wire::ChangedResource { id: Some(id.into()), kind: kind.into() }
                };
                wire::outcome::Outcome::Done(wire::Done { changed: done.iter().map(changed).collect() })
            }
            Outcome::Refused(refusals) => {
                let refusal = |refusal: &Refusal| wire::Refusal {
                    index: refusal.index as u64,
                    path: refusal.path.clone(),
                    message: refusal.message.clone(),
                    nearest: refusal.nearest.clone(),
                };
                let refusals = refusals.iter().map(refusal).collect();
                wire::outcome::Outcome::Refused(wire::Refused { refusals })
            }
        };
        wire::Outcome { outcome: Some(outcome) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_decodes_to_what_was_encoded() -> Result<(), gantry_model::name::NameError> {
        let id = ResourceId::agent(&"acme".parse()?, &"bot".parse()?);
        let kinds = [ChangeKind::Created, ChangeKind::Updated, ChangeKind::Unchanged, ChangeKind::Deleted];
        let refusal = |index, nearest: Option<&str>| Refusal {
            index,
            path: "spec.servers[0]".to_owned(),
            message: "there is no server".to_owned(),
            nearest: nearest.map(str::to_owned),
        };
        for outcome in [
            Outcome::Done(Vec::new()),
            Outcome::Done(kinds.map(|kind| (id.clone(), kind)).to_vec()),
            Outcome::Refused(vec![refusal(0, None), refusal(7, Some("files"))]),
        ] {
            assert_eq!(Outcome::decode(&outcome.encode()), Some(outcome));
        }
        assert_eq!(Outcome::decode(&[]), None);
        Ok(())
    }
}
