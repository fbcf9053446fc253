//! The control plane from the outside: a real server on a free port, real gRPC clients, and nodes that speak the raw
//! stream.

mod admin;
mod admins;
mod backup;
mod catalog;
mod certificates;
mod cluster;
mod enrol;
mod expected;
mod gate;
mod harness;
mod members;
mod mutual;
mod node;
mod node_keys;
mod policy;
mod records;
mod restart;
mod revoke;
mod rollout;
mod stream;
mod tenants;
mod vault;
