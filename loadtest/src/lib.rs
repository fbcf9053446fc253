//! Gantry's yardstick: a load driver, a fast upstream MCP server, and scenarios that measure
//! Gantry beside what it is compared with, in one run.
//!
//! What always holds: every answer is checked in full, a wrong answer is a failed call and never a
//! fast one, and latency at a fixed rate counts from the moment at which a call was due.
//! It knows Gantry only from outside: its command line, its endpoints, and the protocol between its processes.
#![doc = include_str!("../README.md")]

pub mod bars;
pub mod causes;
pub mod compare;
pub mod control;
pub mod driver;
pub mod figures;
pub mod isolation;
pub mod latency;
pub mod lists;
pub mod machine;
pub mod pinning;
pub mod pipeline;
pub mod process;
pub mod report;
pub mod scenario;
pub mod streams;
pub mod table;
pub mod target;
pub mod upstream;
