//! Commands: the payload of the Raft log, to and from bytes.
//!
//! Always holds: a command that exists is valid by itself; clock and randomness went into it before it was proposed,
//! so that applying it is deterministic.

use gantry_model::admin::AdminChange;
use gantry_model::approval::{Use, Vote};
use gantry_model::enrolment::EnrolmentChange;
use gantry_model::key::KeyId;
use gantry_model::record::{Cluster, SealedSecret, TenantKey};
use gantry_model::rollout::Ended;
use gantry_model::{
    AgentKey, Approval, ApprovalCall, ApprovalId, Ban, BanTarget, Catalog, Resource, ResourceId, Revision,
    Rollout, RolloutAt, ServerName, TenantName,
};
use prost::Message;

use crate::convert::{WireError, bytes, name};
use crate::raft_v1 as wire;

/// A change that is proposed to the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Writes the cluster's facts, once.
    Bootstrap(Cluster),
    /// Applies a file set as a whole.
    Apply(Vec<Resource>),
    /// Deletes resources as a whole.
    Delete(Vec<ResourceId>),
    /// Adds an agent's key.
    PutKey(AgentKey),
    /// Removes a key. Read from logs of earlier builds; a key is banned instead.
    RevokeKey {
        /// The tenant of the agent.
        tenant: TenantName,
        /// The key.
        id: KeyId,
    },
    /// Stores a credential's secret, and the tenant's data key with the first one.
    PutSecret {
        /// The sealed secret.
        secret: SealedSecret,
        /// The data key that it is sealed under, when the tenant had none.
        tenant_key: Option<TenantKey>,
    },
    /// Records what a server offers, as far as its pin lets that be in force.
    PutCatalog(Catalog),
    /// Puts quarantined definitions of a server in force.
    ApproveCatalog {
        /// The tenant of the server.
        tenant: TenantName,
        /// The server.
        server: ServerName,
        /// What the admin saw.
        approvals: Vec<Approval>,
    },
    /// Replaces the keys that nodes share by the next generation.
    RotateNodeKeys {
        /// One more than the stored one.
        generation: u32,
        /// AES-256-GCM nonce of `wrapped`.
        nonce: [u8; 12],
        /// The keys, sealed under the root key.
        wrapped: Vec<u8>,
        /// When, in milliseconds since 1970.
        rotated_at_ms: u64,
    },
    /// Changes who may be part of the cluster.
    ChangeEnrolment(EnrolmentChange),
    /// Changes who may call the admin service.
    ChangeAdmin(AdminChange),
    /// Another command, refused when what it changes was changed after a revision. Never one of these within another.
    Expecting {
        /// What its author saw.
        revision: Revision,
        /// What is to be done.
        command: Box<Command>,
    },
    /// Stops somebody or something at once.
    PutBan(Ban),
    /// Ends that.
    LiftBan {
        /// The tenant.
        tenant: TenantName,
        /// What is stopped.
        target: BanTarget,
    },
    /// Has a call wait for approval, unless the same one does already.
    AskApproval {
        /// What it is to be found by.
        id: ApprovalId,
        /// The call.
        call: ApprovalCall,
        /// Its arguments as JSON, redacted.
        arguments: String,
        /// When it was made, in milliseconds since 1970.
        at_ms: u64,
    },
    /// An admin's word on one.
    VoteOnApproval {
        /// Whose it is.
        tenant: TenantName,
        /// Which one.
        id: ApprovalId,
        /// The word.
        vote: Vote,
    },
    /// Uses one up: refused to everybody but its first taker.
    TakeApproval {
        /// Which one.
        id: ApprovalId,
        /// What is about to be done.
        call: ApprovalCall,
        /// By whom.
        taking: Use,
    },
    /// Begins a staged rollout.
    BeginRollout(Box<Rollout>),
    /// Takes one to its next stage.
    AdvanceRollout(RolloutAt),
    /// Ends one: its change is in force everywhere, or nowhere.
    EndRollout {
        /// As whoever decided saw it.
        at: RolloutAt,
        /// How.
        end: Ended,
    },
}

/// A command with its origin, as it stands in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// Who proposed it; `None`: nobody proposes it again.
    pub origin: Option<Origin>,
    /// What is to be done.
    pub command: Command,
}

/// Who proposed a command, and which of its commands it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Random; new at each start of a process.
    pub proposer: [u8; 16],
    /// Counts from 1.
    pub sequence: u64,
    /// Every command of the proposer below this has been answered to it.
    pub answered_below: u64,
    /// It may have been proposed before.
    pub again: bool,
}

/// Bytes that are no command that this build knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a command of this build")]
pub struct CommandError(#[source] pub WireError);

impl Proposal {
    /// The bytes of the proposal, as they stand in the log.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = wire::Command::from(&self.command);
        message.origin = self.origin.as_ref().map(Into::into);
        message.encode_to_vec()
    }

    /// Reads a proposal. An unknown command is an error, never skipped: a newer build wrote it.
    pub fn decode(encoded: &[u8]) -> Result<Proposal, CommandError> {
        let message = wire::Command::decode(encoded).map_err(|error| CommandError(error.into()))?;
        let origin = message.origin.as_ref().map(TryInto::try_into).transpose().map_err(CommandError)?;
        Ok(Proposal { origin, command: Command::try_from(&message).map_err(CommandError)? })
    }
}

impl From<Command> for Proposal {
    /// A command that nobody proposes again.
    fn from(command: Command) -> Proposal {
        Proposal { origin: None, command }
    }
}

impl From<&Origin> for wire::Origin {
    fn from(origin: &Origin) -> wire::Origin {
        wire::Origin {
            proposer: origin.proposer.to_vec(),
            sequence: origin.sequence,
            answered_below: origin.answered_below,
            again: origin.again,
        }
    }
}

impl TryFrom<&wire::Origin> for Origin {
    type Error = WireError;

    fn try_from(origin: &wire::Origin) -> Result<Origin, WireError> {
        Ok(Origin {
            proposer: bytes("proposer", &origin.proposer)?,
            sequence: origin.sequence,
            answered_below: origin.answered_below,
            again: origin.again,
        })
    }
}

impl From<&Command> for wire::Command {
    fn from(command: &Command) -> wire::Command {
        use wire::command::Command as To;
        let command = match command {
            Command::Bootstrap(cluster) => To::Bootstrap(wire::Bootstrap { cluster: Some(cluster.into()) }),
            Command::Apply(resources) => {
                To::Apply(wire::Apply { resources: resources.iter().map(Into::into).collect() })
            }
            Command::Delete(ids) => To::Delete(wire::Delete { ids: ids.iter().map(Into::into).collect() }),
            Command::PutKey(key) => To::PutKey(wire::PutKey { key: Some(key.into()) }),
            Command::RevokeKey { tenant, id } => {
                To::RevokeKey(wire::RevokeKey { tenant: tenant.to_string(), id: id.to_string() })
            }
            Command::PutSecret { secret, tenant_key } => To::PutSecret(wire::PutSecret {
                secret: Some(secret.into()),
                tenant_key: tenant_key.as_ref().map(Into::into),
            }),
            Command::PutCatalog(catalog) => {
                To::PutCatalog(wire::PutCatalog { catalog: Some(catalog.into()) })
            }
            Command::ApproveCatalog { tenant, server, approvals } => {
                To::ApproveCatalog(wire::ApproveCatalog {
                    tenant: tenant.to_string(),
                    server: server.to_string(),
                    approvals: approvals.iter().map(Into::into).collect(),
                })
            }
            Command::RotateNodeKeys { generation, nonce, wrapped, rotated_at_ms } => {
                To::RotateNodeKeys(wire::RotateNodeKeys {
                    generation: *generation,
                    nonce: nonce.to_vec(),
                    wrapped: wrapped.clone(),
                    rotated_at_ms: *rotated_at_ms,
                })
            }
            Command::ChangeEnrolment(change) => To::ChangeEnrolment(change.into()),
            Command::ChangeAdmin(change) => To::ChangeAdmin(change.into()),
            Command::Expecting { revision, command } => To::Expecting(Box::new(wire::Expecting {
                revision: revision.0,
                command: Some(Box::new(command.as_ref().into())),
            })),
            Command::PutBan(ban) => To::PutBan(wire::PutBan { ban: Some(ban.into()) }),
            Command::LiftBan { tenant, target } => {
                To::LiftBan(wire::LiftBan { tenant: tenant.to_string(), target: Some(target.into()) })
            }
            Command::AskApproval { id, call, arguments, at_ms } => To::AskApproval(wire::AskApproval {
                id: id.0.to_vec(),
                call: Some(call.into()),
                arguments: arguments.clone(),
                at_ms: *at_ms,
            }),
            Command::VoteOnApproval { tenant, id, vote } => To::VoteOnApproval(wire::VoteOnApproval {
                tenant: tenant.to_string(),
                id: id.0.to_vec(),
                vote: Some(vote.into()),
            }),
            Command::TakeApproval { id, call, taking } => To::TakeApproval(wire::TakeApproval {
                id: id.0.to_vec(),
                call: Some(call.into()),
                r#use: Some(taking.into()),
            }),
            Command::BeginRollout(rollout) => {
                To::BeginRollout(wire::BeginRollout { rollout: Some(rollout.as_ref().into()) })
            }
            Command::AdvanceRollout(at) => To::AdvanceRollout(at.into()),
            Command::EndRollout { at, end } => {
                To::EndRollout(wire::EndRollout { at: Some(at.into()), end: Some(end.into()) })
            }
        };
        wire::Command { command: Some(command), origin: None }
    }
}

impl TryFrom<&wire::Command> for Command {
    type Error = WireError;

    fn try_from(message: &wire::Command) -> Result<Command, WireError> {
        use wire::command::Command as From;
        Ok(match message.command.as_ref().ok_or(WireError::Missing("command"))? {
            From::Bootstrap(bootstrap) => Command::Bootstrap(required("cluster", &bootstrap.cluster)?),
            From::Apply(apply) => {
                Command::Apply(apply.resources.iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            From::Delete(delete) => {
                Command::Delete(delete.ids.iter().map(TryInto::try_into).collect::<Result<_, _>>()?)
            }
            From::PutKey(put) => Command::PutKey(required("key", &put.key)?),
            From::RevokeKey(revoke) => Command::RevokeKey {
                tenant: name("tenant", &revoke.tenant)?,
                id: revoke.id.parse().map_err(|_| WireError::invalid("id", "not a key's id"))?,
            },
            From::PutSecret(put) => Command::PutSecret {
                secret: required("secret", &put.secret)?,
                tenant_key: put.tenant_key.as_ref().map(TryInto::try_into).transpose()?,
            },
            From::PutCatalog(put) => Command::PutCatalog(required("catalog", &put.catalog)?),
            From::ApproveCatalog(approve) => Command::ApproveCatalog {
                tenant: name("tenant", &approve.tenant)?,
                server: name("server", &approve.server)?,
                approvals: approve.approvals.iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            },
            From::RotateNodeKeys(rotate) => Command::RotateNodeKeys {
                generation: rotate.generation,
                nonce: bytes("nonce", &rotate.nonce)?,
                wrapped: rotate.wrapped.clone(),
                rotated_at_ms: rotate.rotated_at_ms,
            },
            From::ChangeEnrolment(change) => Command::ChangeEnrolment(change.try_into()?),
            From::ChangeAdmin(change) => Command::ChangeAdmin(change.try_into()?),
            From::Expecting(expecting) => {
                let command = expecting.command.as_deref().ok_or(WireError::Missing("command"))?;
                if matches!(command.command, Some(From::Expecting(_))) {
                    return Err(WireError::invalid("command", "expects a revision within another that does"));
                }
                let revision = Revision(expecting.revision);
                Command::Expecting { revision, command: Box::new(command.try_into()?) }
            }
            From::PutBan(put) => Command::PutBan(required("ban", &put.ban)?),
            From::AskApproval(ask) => ask.try_into()?,
            From::VoteOnApproval(vote) => vote.try_into()?,
            From::TakeApproval(take) => take.try_into()?,
            From::BeginRollout(begin) => {
                Command::BeginRollout(Box::new(required("rollout", &begin.rollout)?))
            }
            From::AdvanceRollout(at) => Command::AdvanceRollout(at.try_into()?),
            From::EndRollout(ended) => {
                Command::EndRollout { at: required("at", &ended.at)?, end: required("end", &ended.end)? }
            }
            From::LiftBan(lift) => Command::LiftBan {
                tenant: name("tenant", &lift.tenant)?,
                target: required("target", &lift.target)?,
            },
        })
    }
}

pub(crate) fn required<'a, W, T>(field: &'static str, message: &'a Option<W>) -> Result<T, WireError>
where
    T: TryFrom<&'a W, Error = WireError>,
{
    message.as_ref().ok_or(WireError::Missing(field))?.try_into()
}
