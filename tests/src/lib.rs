//! What the tests of Gantry stand on: software that others wrote, and the ways to run it.
//!
//! Nothing in here is part of the product. Everything that is installed lands in `target/peers` of the
//! clone, everything that is started listens on loopback only and ends with the value that owns it.

pub mod agent;
pub mod audit;
pub mod balancer;
pub mod certified;
pub mod checker;
pub mod cluster;
pub mod conformance;
pub mod dev;
pub mod eventually;
pub mod faults;
pub mod fixture;
pub mod governed;
pub mod matrix;
pub mod members;
pub mod peers;
pub mod process;
pub mod refusal;
pub mod socket;
