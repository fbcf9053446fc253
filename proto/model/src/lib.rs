//! What things mean in Gantry: names, resources, catalogs, keys, secrets, and the rules between them.
//!
//! Always holds: this crate is pure. It has no I/O, no clock and no randomness; a value that exists is valid by
//! itself (names are well formed, bounds are kept), and [`mod@reference`] says whether it is valid beside others.
//! It does not know how things are stored, sent or enforced.

pub mod admin;
pub mod admin_issuer;
pub mod approval;
pub mod ban;
pub mod catalog;
pub mod deletions;
pub mod digest;
pub mod document;
pub mod enrolment;
pub mod exposed;
pub mod facts;
pub mod identity;
pub mod inspection;
pub mod key;
pub mod name;
pub mod nearest;
pub mod record;
pub mod reference;
pub mod resource;
pub mod revision;
pub mod rollout;
pub mod scope;
pub mod secret;

pub use approval::{ApprovalCall, ApprovalId, ApprovalRequest};
pub use ban::{Ban, BanTarget, SessionId};
pub use catalog::{
    Approval, Catalog, Definition, DefinitionKind, QuarantineReason, Quarantined, SessionCarrier,
};
pub use key::AgentKey;
pub use name::{
    AgentName, CredentialName, EndpointName, GroupName, LimitName, Name, PolicyName, ProviderName,
    RegionName, ServerName, TenantName, ToolName,
};
pub use record::{Record, RecordKey, RecordKind};
pub use resource::{Kind, Resource, ResourceId, Spec, UserId};
pub use revision::Revision;
pub use rollout::{Rollout, RolloutAt, RolloutId};
pub use scope::{Labels, Scope};
pub use secret::Secret;
