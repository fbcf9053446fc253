//! Making a new cluster of a backup: the directory of its first member.
//!
//! Always holds:
//! - everything is made beside its place, within the data directory, and moved there when it is durable, the certificate
//!   last: what a restore that was cut short leaves is no member's directory, and does not run;
//! - a directory that has anything of a member in it is refused, untouched;
//! - the new cluster has another id, authority, root key and key file than the old one, so that neither takes the other's
//!   members, nodes, admins, certificates and tokens;
//! - no revision is given to two changes, also when the old cluster went on after the backup ([`REVISIONS_APART`]).

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gantry_control_state::{LoadError, State};
use gantry_model::{Name, Revision};
use gantry_node::owner_only;
use gantry_wire::encode_record;

use super::file::{self, BackupFacts, FileError};
use crate::member::{self, DIRECTORY_PARTS, MakeError, Member, Place};
use crate::raft::{self, Founder};
use crate::start::{CONSENSUS_DIRECTORY, ONLY_VOTER, make_directory};
use crate::vault::{BackupKey, RefoundError, Refounded, Vault};

/// Below the data directory: where everything is made.
const MAKING: &str = "restoring";
/// The first revision of the new cluster is the next multiple of this one above the backup's. An old cluster that goes on
/// after its backup needs years to come so far: at a hundred changes a second, all the time, a third of one year.
const REVISIONS_APART: u64 = 1_000_000_000;

/// Why no cluster was made of a backup. The data directory is as it was, or new and empty.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// The backup cannot be used.
    #[error("the backup {} cannot be used", .path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FileError,
    },
    /// The directory cannot become that of a member.
    #[error(transparent)]
    Member(#[from] MakeError),
    /// The file system refused.
    #[error("{} cannot be made", .path.display())]
    Directory {
        /// What.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A record of a newer build.
    #[error("the state in the backup cannot be read: a newer gantry wrote it")]
    State(#[from] LoadError),
    /// The keys.
    #[error("no new cluster can be made of the backup")]
    Refound(#[from] RefoundError),
    /// The store.
    #[error("the new cluster cannot be stored")]
    Store(#[from] raft::BeginError),
    /// The process is ending.
    #[error("the restore was interrupted")]
    Interrupted,
}

/// What became of a backup.
#[derive(Debug, Clone)]
pub struct Restored {
    /// The first member of the new cluster.
    pub member: Member,
    /// Its first revision.
    pub revision: u64,
    /// Of what it was made.
    pub backup: BackupFacts,
    /// Admins, who have no token in the new cluster.
    pub admins: Vec<Name>,
    /// Secrets that were damaged already and are left out, as `TENANT/CREDENTIAL`.
    pub unreadable: Vec<String>,
}

/// Makes the directory of the first member of a new cluster. Dropping the future may leave a directory `restoring` in
/// `data_dir`, which the next restore removes.
pub async fn restore(
    path: &Path,
    key: BackupKey,
    data_dir: &Path,
    place: Place,
) -> Result<Restored, RestoreError> {
    member::refuse_used(data_dir)?;
    let file = path.to_owned();
    let read = tokio::task::spawn_blocking(move || file::read(&file, &key)).await;
    let read = read.map_err(|_| RestoreError::Interrupted)?;
    let content = read.map_err(|source| RestoreError::File { path: path.to_owned(), source })?;
    let old = State::load(content.entries)?;
    let revision = Revision((content.facts.revision / REVISIONS_APART + 1) * REVISIONS_APART);

    make_directory(data_dir.to_owned()).await.map_err(MakeError::from)?;
    let making = data_dir.join(MAKING);
    remove(&making)?;
    owner_only::make_directory(&making).map_err(directory(&making))?;
    let (beside, root) = (making.clone(), content.root);
    let refounded = tokio::task::spawn_blocking(move || Vault::refound(&beside, &old, &root, revision)).await;
    let refounded = refounded.map_err(|_| RestoreError::Interrupted)?;
    let made = match refounded {
        Ok(refounded) => make(&making, refounded, revision, &place).await,
        Err(error) => Err(error.into()),
    };
    let made =
        made.and_then(|made| put_in_place(&making, data_dir).map_err(directory(data_dir)).map(|()| made));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = remove(&making);
    }
    let (member, admins, unreadable) = made?;
    Ok(Restored { member, revision: revision.0, backup: content.facts, admins, unreadable })
}

async fn make(
    making: &Path,
    refounded: Refounded,
    revision: Revision,
    place: &Place,
) -> Result<(Member, Vec<Name>, Vec<String>), RestoreError> {
    let Refounded { vault, records, unreadable } = refounded;
    let entries = records.iter().map(|record| (record.value.key().to_string(), encode_record(record)));
    let state = State::load(entries)?;
    let founder = Founder { voter: ONLY_VOTER, address: &place.advertise };
    raft::begin_with(&making.join(CONSENSUS_DIRECTORY), founder, revision, &state).await?;
    let (id, membership) = member::keep_founder(&vault, &state, making, place).await?;
    let admins = state.admins().map(|admin| admin.name.clone()).collect();
    Ok((Member { id, membership, place: place.clone() }, admins, unreadable))
}

fn put_in_place(making: &Path, data_dir: &Path) -> io::Result<()> {
    for part in DIRECTORY_PARTS {
        File::open(making.join(part))?.sync_all()?;
    }
    for part in DIRECTORY_PARTS {
        fs::rename(making.join(part), data_dir.join(part))?;
        // The certificate has its name only when everything else has.
        File::open(data_dir)?.sync_all()?;
    }
    fs::remove_dir(making)
}

fn remove(making: &Path) -> Result<(), RestoreError> {
    match fs::remove_dir_all(making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(directory(making)(error)),
        _ => Ok(()),
    }
}

fn directory(path: &Path) -> impl Fn(io::Error) -> RestoreError {
    move |source| RestoreError::Directory { path: path.to_owned(), source }
}
