//! Backups: the whole state as of one revision in one sealed file, and a new cluster made of it.
//!
//! ```text
//! gantry backup 1\n
//! head, one line of JSON: the cluster, the revision, the time, the recipient, the backup's key sealed to it
//! for each part: length u32 LE | nonce | ciphertext | tag; a part is at most 64 KiB of content
//! 0 as u32 | blake3 of everything before (32 bytes)
//!
//! content: root key (32 bytes) | for each entry: key length u32 LE | value length u32 LE | key | value
//!          | u32::MAX | entries u64 LE
//! ```
//!
//! Always holds: nothing but the head is readable without the operator's [`BackupKey`]; the head is bound to the parts;
//! a file that is not whole to the last byte is refused before anything is written. The state is what this member had
//! applied when it was asked, with every write that was acknowledged before on any member.
//!
//! It travels with the cluster's root key, because without it no secret opens; the key file (`kek`) does not travel.

mod file;
mod restore;
#[cfg(test)]
mod tests;

pub use file::{BackupFacts, FileError, check};
pub(crate) use file::{PARTS_MAX, write};
pub use restore::{RestoreError, Restored, restore};
