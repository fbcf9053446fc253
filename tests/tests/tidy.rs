//! The rules of this repository that a program can hold: its layout, its dependencies, the shape of its files, and
//! the words that must not be in them.
//!
//! Every rule is a test of its own. One that fails lists each place that breaks it as `file:line` and says how to
//! mend it. What may differ is a row in a table of the file that holds the rule, with its reason; a row that nothing
//! needs any more breaks the rule too. The scan reads text and does not expand macros: it is meant for code that
//! `cargo fmt` has been over, and leaves to `cargo clippy` what clippy can see.

#[path = "tidy/crates.rs"]
mod crates;
#[path = "tidy/finding.rs"]
mod finding;
#[path = "tidy/functions.rs"]
mod functions;
#[path = "tidy/layout.rs"]
mod layout;
#[path = "tidy/locked.rs"]
mod locked;
#[path = "tidy/manifest.rs"]
mod manifest;
#[path = "tidy/mask.rs"]
mod mask;
#[path = "tidy/origins.rs"]
mod origins;
#[path = "tidy/shape.rs"]
mod shape;
#[path = "tidy/source.rs"]
mod source;
#[path = "tidy/test_regions.rs"]
mod test_regions;
#[path = "tidy/tree.rs"]
mod tree;
#[path = "tidy/unwanted.rs"]
mod unwanted;
