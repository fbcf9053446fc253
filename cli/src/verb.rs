//! The verbs, a file each: arguments, one or two calls, what is printed. All but `connect` and those that run a plane are an
//! admin's.
//!
//! Always holds: a verb returns how the command ends and prints its data through [`crate::output`].

pub(crate) mod admin;
pub(crate) mod apply;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod call;
pub(crate) mod catalog;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod context;
pub(crate) mod control_plane;
pub(crate) mod credential;
pub(crate) mod data_plane;
pub(crate) mod delete;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod key;
pub(crate) mod login;
pub(crate) mod node;
pub(crate) mod policy;
pub(crate) mod revoke;
pub(crate) mod rollout;
pub(crate) mod status;
pub(crate) mod tool;
