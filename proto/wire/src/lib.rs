//! The contract between processes, as Rust: code generated from `proto/gantry`, and conversions between messages
//! and the types of `gantry-model`, one file per subject.
//!
//! Always holds: a conversion from a message checks everything that the model's type promises; what a peer sent
//! never panics. Domain logic does not belong here.

mod admin;
mod approval;
mod ban;
mod catalog;
mod command;
mod convert;
mod enrolment;
mod record;
mod resource;
mod rollout;

pub use command::{Command, CommandError, Origin, Proposal};
pub use convert::WireError;
pub use record::{decode_record, encode_record};

pub use generated::gantry::admin::v1 as admin_v1;
pub use generated::gantry::check::v1 as check_v1;
pub use generated::gantry::enrol::v1 as enrol_v1;
pub use generated::gantry::mesh::v1 as mesh_v1;
pub use generated::gantry::raft::v1 as raft_v1;
pub use generated::gantry::resource::v1 as resource_v1;
pub use generated::gantry::sync::v1 as sync_v1;

mod generated {
    //! What the build script made of `proto/gantry`, nested as its packages are.
    #![expect(missing_docs, unreachable_pub, reason = "generated; documented in the .proto files")]
    #![expect(clippy::allow_attributes, reason = "generated")]
    include!(concat!(env!("OUT_DIR"), "/protocol.rs"));
}

/// The names of the admin service's calls, in the order of `admin.proto`.
pub const ADMIN_METHODS: &[&str] = include!(concat!(env!("OUT_DIR"), "/admin_methods.rs"));

/// Longest gRPC message that a peer may send, in bytes: a recorded catalog at its bound, which has its definitions and
/// as much of approved ones, with room for the rest.
pub const MESSAGE_BYTES_MAX: usize = 12 * 1024 * 1024;
