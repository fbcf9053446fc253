//! The product's own `main`, built with the tests, so that they never run a stale binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    gantry_cli::main()
}
