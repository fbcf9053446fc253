#![doc = include_str!("../README.md")]

mod audit;
mod bans;
mod breaker;
mod bridge;
mod budget;
mod check;
mod config;
mod front;
#[cfg(test)]
pub mod fuzz;
mod gzip;
mod held;
mod identity;
mod limiter;
mod listen;
mod mcp;
#[cfg_attr(not(test), expect(dead_code, reason = "what uses it comes next: sessions that span nodes"))]
mod mesh;
mod narrowing;
mod node;
mod page;
mod pipeline;
mod rejection;
mod reply;
mod route;
mod start;
mod sync;
mod upstream;

pub use start::{DataPlane, Died, LastKnownGood, Options, Proof, StartError, start};
