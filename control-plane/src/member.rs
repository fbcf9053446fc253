//! The directory of a member of a cluster, from before it runs: made by founding a cluster or by joining one.
//!
//! Always holds: a directory is one member's, under one number, for ever. Its log and state are made together with it;
//! where they are missing the member does not start, because it may have voted and acknowledged what it no longer
//! knows: the way back is another member, with a number of its own.
//!
//! ```text
//! DATA_DIR/identity      its certificate (`gantry_node::membership`), which names cluster and number
//! DATA_DIR/member.json   where it listens, and how the others reach it
//! DATA_DIR/kek           the key file of the vault, which every member has
//! DATA_DIR/consensus/    its log and state
//! ```

mod found;
mod join;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use gantry_model::identity::{MemberId, Party, PeerName};
use gantry_node::membership::{FileError, JoinError, KeepError, Membership};
use gantry_node::tls::{PeerFiles, PeerFilesError};
use serde::{Deserialize, Serialize};

use crate::options::{MemberOptions, MemberProof};
use crate::raft::{self, VoterId};
use crate::start::{CONSENSUS_DIRECTORY, StartError};
use crate::store::WriteError;
use crate::transport::SecureError;
use crate::vault::{KEY_FILE_NAME, KeyFileError};

pub use found::found;
pub(crate) use found::keep_founder;
pub use join::join;

/// Below the data directory: the certificate.
const IDENTITY: &str = "identity";
/// Below the data directory: the addresses.
const PLACE: &str = "member.json";
/// What a member's directory consists of, and no other directory has; the certificate last.
pub(crate) const DIRECTORY_PARTS: [&str; 4] = [KEY_FILE_NAME, CONSENSUS_DIRECTORY, PLACE, IDENTITY];

/// A member, as its directory has it.
#[derive(Debug, Clone)]
pub struct Member {
    /// Who it is.
    pub id: MemberId,
    /// What it shows the others until it has the cluster's state, and whom it believes.
    pub membership: Membership,
    /// Where it is.
    pub place: Place,
}

/// Where a member is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Where admins and nodes connect.
    pub listen: SocketAddr,
    /// Where the other members are heard.
    pub peer_listen: SocketAddr,
    /// `HOST:PORT` at which they reach it; port 0 stands for the port that it listens on.
    pub advertise: String,
    /// Where it finds members while it knows none from its own log.
    #[serde(default)]
    pub contacts: Vec<String>,
}

/// Why a directory does not become that of a member.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// There is something in it.
    #[error("{} has a member already, or what is left of one", .0.display())]
    Used(PathBuf),
    /// The directory, or the cluster's facts.
    #[error(transparent)]
    Start(#[from] StartError),
    /// No certificate.
    #[error("the member has no certificate")]
    Secure(#[from] SecureError),
    /// The certificate is not kept.
    #[error("the member's certificate is not kept")]
    Keep(#[from] KeepError),
    /// The cluster does not take it.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// It was certified as something else.
    #[error("the certificate is that of {0}, which is no member of a control plane")]
    NotMember(PeerName),
    /// The cluster handed no key file over.
    #[error("the member that was asked handed no key file of the vault over")]
    NoKeyFile,
    /// The key file is not kept.
    #[error("the vault's key file is not kept")]
    KeyFile(#[from] KeyFileError),
    /// The store was not closed in order.
    #[error("the member's store could not be closed")]
    Store(#[from] WriteError),
    /// The disk.
    #[error("{} cannot be written", .path.display())]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Why a directory is not that of a member that could run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Nobody was made here.
    #[error("there is no member in {}", .0.display())]
    None(PathBuf),
    /// It is a member's, and its log is gone.
    #[error(
        "the log and the state of member {member} are not in {}: it may have voted and acknowledged what it does not \
         know any more, so this number is never used again", .directory.display()
    )]
    EmptyDisk {
        /// The directory.
        directory: PathBuf,
        /// Whose it was.
        member: MemberId,
    },
    /// The certificate.
    #[error(transparent)]
    Identity(#[from] FileError),
    /// The certificate is a node's, or an admin's.
    #[error("the certificate in {} is that of {name}, which is no member of a control plane", .directory.display())]
    OtherParty {
        /// The directory.
        directory: PathBuf,
        /// Whose it is.
        name: PeerName,
    },
    /// The addresses.
    #[error("{} cannot be used", .path.display())]
    Place {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl Member {
    /// Reads what [`found`] or [`join`] made. Blocks.
    pub fn load(data_dir: &Path) -> Result<Member, LoadError> {
        let directory = || data_dir.to_owned();
        let membership = Membership::load(data_dir.join(IDENTITY))?;
        let membership = membership.ok_or_else(|| LoadError::None(directory()))?;
        let Party::ControlPlane(id) = membership.name().party else {
            return Err(LoadError::OtherParty { directory: directory(), name: membership.name().clone() });
        };
        if !raft::is_made(&data_dir.join(CONSENSUS_DIRECTORY)) {
            return Err(LoadError::EmptyDisk { directory: directory(), member: id });
        }
        let path = data_dir.join(PLACE);
        let place = fs::read(&path).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let place = place.map_err(|source| LoadError::Place { path, source })?;
        Ok(Member { id, membership, place })
    }

    /// With an organisation's files in place of what the built-in authority certifies. Blocks.
    pub fn with_files(self, files: PeerFiles) -> Result<Member, PeerFilesError> {
        Ok(Member { membership: self.membership.with_files(files)?, ..self })
    }

    /// What it is started with.
    pub fn options(&self) -> MemberOptions {
        MemberOptions {
            voter: VoterId(self.id.get()),
            listen: self.place.peer_listen,
            advertise: Some(self.place.advertise.clone()),
            proof: MemberProof::Certificate(self.membership.clone()),
            join: self.place.contacts.clone(),
        }
    }
}

/// Refuses a directory in which there is anything of a member.
pub(crate) fn refuse_used(data_dir: &Path) -> Result<(), MakeError> {
    let is_used = DIRECTORY_PARTS.iter().any(|part| data_dir.join(part).exists());
    if is_used { Err(MakeError::Used(data_dir.to_owned())) } else { Ok(()) }
}

async fn keep_place(data_dir: &Path, place: &Place) -> Result<(), MakeError> {
    let path = data_dir.join(PLACE);
    let failed = |source| MakeError::Write { path: path.clone(), source };
    let mut text = serde_json::to_string_pretty(place).map_err(|error| failed(error.into()))?;
    text.push('\n');
    tokio::fs::write(&path, text).await.map_err(failed)
}
