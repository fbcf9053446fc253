//! Inspection: what is in the arguments of a call and in its answer that an admin wants to hear of, or to keep out.
//!
//! Always holds: nothing here reads a clock, a file, the network or configuration; time grows linearly with what is
//! read; what is found is told by its place and a word, never by its text, because it may be a secret. Arguments in
//! which nothing is found, and which need no decoding, cost no allocation.
//!
//! It does not decide: what becomes of a finding is the mode's to say, and who enforces it is the pipeline. It is a
//! net, not a proof: what it does not know passes.

mod arguments;
mod declared;
pub mod definition;
mod detect;
pub mod facts;
mod finding;
mod path;
mod patterns;
mod redact;
pub mod secrets;
mod shell;
mod sql;
mod target;
mod unicode;

pub use arguments::{Inspection, Limits, Modes};
pub use declared::{DECLARED_MAX, Declared, PlaceError};
pub use detect::{Detectors, Match};
pub use finding::{FINDINGS_MAX, Finding, Findings};
pub use patterns::{PatternError, Patterns};
pub use redact::{HELD_BYTES_MAX, Redactor, Written, redact};
