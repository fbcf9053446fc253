//! Meshes that talk to each other over loopback, in one process.

mod exchanges;
mod identities;
mod loss;
mod membership;
mod nodes;
