//! The gRPC service by which the members of a cluster reach each other, and its client.
//!
//! Always holds: a checkpoint is installed only when every byte of it came as it was sent; at most one is received at a
//! time; connections are kept to the members that are asked, and no more.

mod checkpoint;
mod client;
mod service;

pub use client::GrpcPeers;
pub(crate) use service::PeerService;
