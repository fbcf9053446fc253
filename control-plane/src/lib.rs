#![doc = include_str!("../README.md")]

pub mod feed;
pub mod member;
pub mod raft;
pub mod store;

mod access;
mod admin;
mod audit;
mod backup;
mod ca;
mod enrol;
mod fleet;
mod journal;
mod membership;
mod options;
mod peer;
mod plane;
mod revoked;
mod rollout;
mod services;
#[cfg(test)]
mod simulation;
mod start;
mod stream;
mod transport;
mod vault;

pub use access::TOKEN_BYTES_MIN;
pub use audit::AuditError;
pub use backup::{BackupFacts, FileError, RestoreError, Restored, check as check_backup, restore};
pub use ca::{CaError, CertifyError};
pub use options::{
    CERTIFICATE_LIFE_MAX, CERTIFICATE_LIFE_MIN, MemberOptions, MemberProof, Options, OptionsError,
};
pub use start::{ControlPlane, Failure, ShutdownError, StartError, start};
pub use transport::{SecureError, Transport};
pub use vault::{
    BackupKey, BackupKeyError, BackupRecipient, CryptoError, FoundError, KeyFileError, NotOurs, RefoundError,
    UnsealError,
};
