//! The replicated state machine of the control plane: commands go in, changes and outcomes come out.
//!
//! Always holds:
//! - pure and deterministic: no I/O, no clock, no randomness; the same commands at the same revisions give the same
//!   state on every voter, byte for byte;
//! - total: every command has an outcome; a refused command changes nothing;
//! - the state is consistent: no resource in it refers to one that is not there.
//!
//! It does not compile policies: a voter of another build might judge differently. The admin service does that
//! before it proposes.

mod admins;
mod apply;
mod approval;
mod ban;
mod batch;
mod digests;
mod enrolment;
mod expected;
mod issuers;
mod outcome;
mod providers;
mod rollout;
mod state;
#[cfg(test)]
mod tests;

pub use admins::{ADMIN_TOKENS_MAX, ADMINS_MAX, ROLES_MAX};
pub use apply::{AGENT_KEYS_MAX, APPLY_RESOURCES_MAX};
pub use approval::{APPROVALS_OF_PRINCIPAL_MAX, APPROVALS_OF_TENANT_MAX, FORGOTTEN_AFTER_MS, Unasked};
pub use ban::{BANS_MAX, BANS_OF_TENANT_MAX, PASSING_BANS_MAX, PASSING_BANS_OF_TENANT_MAX};
pub use batch::{ANSWERS_MAX, PROPOSERS_MAX};
pub use digests::Digests;
pub use enrolment::{JOIN_TOKENS_MAX, REVOCATIONS_MAX};
pub use expected::DELETIONS_MAX;
pub use gantry_wire::{Command, CommandError, Origin, Proposal};
pub use outcome::{Answer, Applied, AppliedBatch, Change, ChangeKind, Outcome, Refusal};
pub use rollout::ROLLOUTS_MAX;
pub use state::{LoadError, State};
