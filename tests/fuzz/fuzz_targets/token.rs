//! Tokens, key sets and claims.
//!
//! The modules are compiled from their own files, without what fetches keys; what holds is said in `proto/token/src/fuzz.rs`.

#![no_main]

#[path = "../../../proto/token/src/algorithm.rs"]
mod algorithm;
#[path = "../../../proto/token/src/binding.rs"]
mod binding;
#[path = "../../../proto/token/src/claims.rs"]
mod claims;
#[path = "../../../proto/token/src/compact.rs"]
mod compact;
#[path = "../../../proto/token/src/fuzz.rs"]
mod fuzz;
#[path = "../../../proto/token/src/json.rs"]
mod json;
#[path = "../../../proto/token/src/key_set.rs"]
mod key_set;
#[path = "../../../proto/token/src/rules.rs"]
mod rules;

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| fuzz::token(input));
