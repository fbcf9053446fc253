//! The flags by which an organisation gives a process of Gantry certificates of its own.
//!
//! Always holds: what to show needs whom to believe; the files are read again by the process when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_node::membership::Membership;
use gantry_node::tls::{OwnFiles, PeerFiles, PeerFilesError, Trust, read_authorities};

use crate::failure::{Failure, chain};
use crate::output;

/// A certificate that lives longer is not reached by the revocation of its name, which takes back what ends within that.
const LIFE_MAX_MS: u64 = (24 * 60 + 5) * 60 * 1_000;

/// The flags.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct PeerFileFlags {
    /// PEM certificate chain to show other processes of Gantry, by the organisation's own authority, leaf first. The leaf
    /// names this process by a URI: gantry://CLUSTER/control-plane/NUMBER or gantry://CLUSTER/node/NAME. Read again when
    /// it changes.
    #[arg(long, value_name = "FILE", requires_all = ["peer_key", "peer_ca"])]
    peer_cert: Option<PathBuf>,
    /// PEM key of that certificate; read again when it changes.
    #[arg(long, value_name = "FILE", requires = "peer_cert")]
    peer_key: Option<PathBuf>,
    /// PEM certificates of the authorities to believe, in place of the built-in one; read again when they change.
    #[arg(long, value_name = "FILE")]
    pub(crate) peer_ca: Option<PathBuf>,
}

impl PeerFileFlags {
    /// The files that are named, if any.
    pub(crate) fn files(&self) -> Option<PeerFiles> {
        let authorities = self.peer_ca.clone()?;
        let own = self.peer_cert.clone().zip(self.peer_key.clone());
        let own = own.map(|(certificate, key)| OwnFiles { certificate, key });
        Some(PeerFiles { own, authorities })
    }
}

/// Authorities to believe for one connection.
pub(crate) fn trust(path: &Path) -> Result<Arc<Trust>, Failure> {
    let next = "name a PEM file of authorities with --peer-ca";
    let authorities = read_authorities(path).map_err(|error| Failure::error(chain(&error), next))?;
    Trust::new(&authorities)
        .map_err(|error| Failure::error(format!("{}: {}", path.display(), chain(&error)), next))
}

/// What is told of files that cannot be used.
pub(crate) fn unusable(error: &PeerFilesError) -> Failure {
    Failure::error(chain(error), "name PEM files with --peer-cert, --peer-key and --peer-ca")
}

/// Says so where `gantry cluster revoke` would not take back what a process shows.
pub(crate) fn warn_of_long_life(shown: &Membership) {
    let Some(certified) = shown.presenter().certified() else { return };
    let peer = certified.peer();
    if peer.expires_at_ms.saturating_sub(peer.begins_at_ms) > LIFE_MAX_MS {
        output::warn(
            "the certificate of --peer-cert counts for more than a day, and `gantry cluster revoke` does not reach it; have \
             it made for a day, and renewed",
        );
    }
}
