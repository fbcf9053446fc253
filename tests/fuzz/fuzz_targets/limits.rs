//! What nodes say to each other of limits.

#![no_main]

use gantry_limits::message;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| message::property(input));
