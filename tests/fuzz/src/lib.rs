//! The data plane's protocol modules with the properties that they must keep, and nothing else of it.
//!
//! They are compiled from their own files, so that the targets build in a minute and not with the whole plane. What
//! holds is said in `data-plane/src/fuzz.rs`.

#[path = "../../../data-plane/src"]
mod data_plane {
    pub mod fuzz;
    pub(crate) mod mcp;
}

pub use data_plane::fuzz;
