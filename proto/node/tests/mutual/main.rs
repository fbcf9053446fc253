//! Handshakes between processes, over real connections.

mod authority;
mod handshakes;
mod membership;
mod services;
