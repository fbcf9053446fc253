//! The control plane: keeps what admins apply, and brings it to the nodes.
//!
//! Always holds: what was acknowledged is durable and reaches every node that is connected; what is stored and sent
//! holds no secret in the clear. It serves no agent and sees no call.

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
