//! The gRPC service by which the members of a cluster reach each other, and its client.
//!
//! Always holds: where there is TLS, a member hears only who shows the certificate of the member that it says it is,
//! and asks only who shows that of the member that is asked; a checkpoint is installed only when every byte of it came as it was sent; at most one is received at a
//! time; connections are kept to the members that are asked, and no more.

mod checkpoint;
mod client;
mod service;

pub(crate) use client::GrpcPeers;
pub(crate) use service::PeerService;
