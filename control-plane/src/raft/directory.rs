//! The directory of a member before consensus runs in it.
//!
//! Always holds: it has the member's number from when it is made; whether it was made does not depend on this build's
//! format.

use std::path::{Path, PathBuf};

use super::{StartError, VoterId, entry};
use crate::store::{self, Store};

/// Makes the directory of a member that is to join a cluster: with its identity, and nothing else in it.
pub(crate) async fn make(data_dir: PathBuf, voter: VoterId) -> Result<(), StartError> {
    let (dir, identity) = (data_dir.clone(), entry::encode_identity(voter.0));
    let opened = tokio::task::spawn_blocking(move || Store::open(&dir, &identity)).await;
    let opened = opened.map_err(|_| StartError::Interrupted)?;
    let opened = opened.map_err(|source| StartError::Store { dir: data_dir, source })?;
    opened.store.close().await.map_err(|error| StartError::Raft(error.to_string()))
}

/// Whether a member was ever made in a directory. Blocks.
pub(crate) fn is_made(data_dir: &Path) -> bool {
    store::is_made(data_dir)
}
