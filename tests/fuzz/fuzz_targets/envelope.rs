//! Bodies of requests.

#![no_main]

use gantry_fuzz::fuzz;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| fuzz::envelope(input));
