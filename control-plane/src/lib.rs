#![doc = include_str!("../README.md")]

pub mod feed;
pub mod raft;
pub mod store;

mod access;
mod admin;
mod fleet;
mod journal;
mod options;
mod plane;
mod start;
mod stream;
mod vault;

pub use access::TOKEN_BYTES_MIN;
pub use options::{Options, OptionsError};
pub use start::{ControlPlane, Failure, ShutdownError, StartError, start};
pub use vault::{CryptoError, FoundError, KeyFileError, NotOurs, UnsealError};
