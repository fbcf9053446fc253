//! The directory of a member before consensus runs in it: of one that is to join, or of one that is alone and begins with
//! a given state.
//!
//! Always holds: it has the member's number from when it is made; whether it was made does not depend on this build's
//! format. What [`begin_with`] leaves is what a voter leaves that has installed a checkpoint and purged its log: it leads
//! at its next start, and its next revision is above the given one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_control_state::State;
use gantry_model::Revision;
use openraft::CommittedLeaderId;
use thiserror::Error;

use super::entry::{self, Applied, CheckpointMeta, LogId, Member, Membership, StoredMembership, Vote};
use super::{StartError, VoterId};
use crate::store::{self, ChangeSet, CheckpointError, OpenError, Store, WriteError};

/// The term that the state is of; the first election begins the next.
const TERM: u64 = 1;

/// The voter that is alone.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Founder<'a> {
    pub(crate) voter: VoterId,
    /// Where others will reach it.
    pub(crate) address: &'a str,
}

/// Why the directory cannot be made.
#[derive(Debug, Error)]
pub enum BeginError {
    /// It does not open.
    #[error("the new store cannot be made")]
    Open(#[from] OpenError),
    /// It cannot be written.
    #[error("the new store cannot be written")]
    Write(#[from] WriteError),
    /// The checkpoint cannot be written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

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

/// Makes the directory of consensus, which is not there yet, with a state as of a revision. Durable when this returns.
pub(crate) async fn begin_with(
    dir: &Path,
    founder: Founder<'_>,
    revision: Revision,
    state: &State,
) -> Result<(), BeginError> {
    let opened = Store::open(dir, &entry::encode_identity(founder.voter.0))?;
    let written = write(&opened.store, founder, revision, state).await;
    let closed = opened.store.close().await;
    written?;
    Ok(closed?)
}

async fn write(
    store: &Store,
    founder: Founder<'_>,
    revision: Revision,
    state: &State,
) -> Result<(), BeginError> {
    let Founder { voter, address } = founder;
    let last = LogId::new(CommittedLeaderId::new(TERM, voter.0), revision.0);
    let members = BTreeMap::from([(voter.0, Member { address: address.to_owned() })]);
    let membership = Membership::new(vec![[voter.0].into()], members);
    let membership = StoredMembership::new(Some(last), membership);
    let applied = Applied { last: Some(last), membership: membership.clone() };
    let changes = state.entries().map(|(key, value)| (key.to_owned(), Some(value))).collect();
    let change = ChangeSet { index: last.index, record: entry::encode_applied(&applied), changes };
    store.save_vote(entry::encode_vote(&Vote::new(TERM, voter.0))).await?;
    store.replace(change).await?;
    let snapshot_id = format!("{}-{}", last.leader_id, last.index);
    let meta = CheckpointMeta { last_log_id: Some(last), last_membership: membership, snapshot_id };
    let state = state.clone();
    let entries = move || state.entries().map(|(key, value)| (key.to_owned(), value)).collect();
    store.write_checkpoint(last.index, entry::encode_checkpoint_header(&meta), entries).await?;
    store.purge(last.index, entry::encode_log_id(&last)).await?;
    Ok(())
}
