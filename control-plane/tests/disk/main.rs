//! The store and consensus on a disk that loses power, fills up and fails.
//!
//! A test starts this binary again as a child with a library under it (`disk.c`) that writes down everything the child
//! does to its directory. `power.rs` cuts the power at some point of that record, puts back what a disk may have kept
//! (`platter.rs` says what that is) and starts the next child on it. `faults.rs` lets the disk refuse.
//!
//! ```text
//! GANTRY_POWER_ROUNDS=1000 GANTRY_POWER_SEED=1 cargo test -p gantry-control-plane --test disk power -- --nocapture
//! ```
//!
//! A seed repeats the same choices; what a child has done by the time that it is killed depends on the machine.

mod consensus;
mod faults;
mod platter;
mod power;
mod process;
mod random;
mod shim;
mod steps;
mod trace;

use std::path::PathBuf;

/// The children; does nothing unless a test started it.
#[test]
fn child() {
    let Ok(part) = std::env::var(process::PART) else { return };
    let directory = PathBuf::from(std::env::var(process::DIRECTORY).expect("a directory"));
    let round = std::env::var(process::ROUND).expect("a round");
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        match part.as_str() {
            "consensus" => consensus::propose_without_end(&directory, &round).await,
            "proposer" => consensus::propose_some(&directory).await,
            "store" => steps::take(&directory).await,
            other => panic!("{other} is no part"),
        }
    });
}
