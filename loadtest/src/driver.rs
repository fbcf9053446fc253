//! The load driver: sends one kind of call over raw HTTP/1.1 connections, closed loop (as fast as
//! answers come) or open loop (at a fixed rate, whatever the answers do).
//!
//! What always holds: each answer is checked in full before it counts, a failed call never adds a
//! latency, and calls that got no answer by the end of a slot are failed calls.
//! It runs on the caller's runtime, best a single-threaded one. It knows no targets.

mod answer;
pub mod call;
pub mod closed_loop;
pub mod connection;
pub mod listener;
pub mod open_loop;
pub mod schedule;
mod tally;

use std::time::Duration;

use crate::latency::Latencies;

/// How long calls in flight may take after the end of a slot before they count as failed.
pub const GRACE: Duration = Duration::from_secs(10);

/// What a slot measured.
#[derive(Debug)]
pub struct Outcome {
    /// Latencies of the calls answered within the measured time.
    pub latencies: Latencies,
    /// Correct answers in the measured time.
    pub completed_count: u64,
    /// Correct answers in all, warm-up and end included.
    pub succeeded_count: u64,
    /// Failed calls in all, warm-up and end included.
    pub failed_count: u64,
    /// The first few failures, for people.
    pub failures: Vec<String>,
    /// The measured time as it was.
    pub measured: Duration,
}

/// The two ends of the measured time, for whoever reads clocks of other processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// Measuring begins; connections are open and warm.
    Start,
    /// Measuring ends; connections are still open.
    End,
}
