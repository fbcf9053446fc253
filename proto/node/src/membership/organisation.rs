//! What an organisation gives a process in files, in place of what the built-in authority certifies.
//!
//! Always holds: where files say whom to believe, nobody else is; where they say what to show, nothing else is.

use std::convert::Infallible;
use std::path::PathBuf;
use std::time::SystemTime;

use rustls::pki_types::CertificateDer;

use super::Membership;
use crate::tls::{Certified, Follower, Mark, PeerFiles, PeerFilesError, Presenter, Trust, TrustError};

/// Files, and what of them is in use.
#[derive(Debug, Clone)]
pub(super) struct Given {
    files: PeerFiles,
    mark: Mark,
}

impl Membership {
    /// By files alone, for a process that the built-in authority never certified. Blocks.
    pub fn of_files(files: PeerFiles) -> Result<Membership, PeerFilesError> {
        let loaded = files.load(None, SystemTime::now())?;
        let mark = loaded.mark();
        let certified = loaded.certified.ok_or(PeerFilesError::NoCertificate)?;
        let trust = Trust::new(&loaded.authorities);
        let trust =
            trust.map_err(|source| PeerFilesError::Trust { path: files.authorities.clone(), source })?;
        let name = certified.peer().name.clone();
        let given = Some(Given { files, mark });
        Ok(Membership { name, presenter: Presenter::new(certified), trust, file: PathBuf::new(), given })
    }

    /// With files in place of what this process has. Blocks.
    pub fn with_files(mut self, files: PeerFiles) -> Result<Membership, PeerFilesError> {
        let loaded = files.load(Some(&self.name), SystemTime::now())?;
        let mark = loaded.mark();
        let replaced = self.trust.replace_authorities(&loaded.authorities);
        replaced.map_err(|source| PeerFilesError::Trust { path: files.authorities.clone(), source })?;
        if let Some(certified) = loaded.certified {
            self.presenter.replace(certified);
        }
        self.given = Some(Given { files, mark });
        Ok(self)
    }

    /// Takes what the built-in authority certified into use, as far as nothing else is given.
    pub fn take(&self, certified: Certified, authorities: &[CertificateDer<'_>]) -> Result<(), TrustError> {
        if self.given.is_none() {
            self.trust.replace_authorities(authorities)?;
        }
        if !self.shows_given() {
            self.presenter.replace(certified);
        }
        Ok(())
    }

    /// Whether what it shows is from files.
    pub fn shows_given(&self) -> bool {
        self.given.as_ref().is_some_and(|given| given.files.own.is_some())
    }

    /// Takes what is in the files into use whenever they change. Never ends; dropping the future is safe.
    pub async fn follow(&self) -> Infallible {
        let Some(Given { files, mark }) = self.given.clone() else { return std::future::pending().await };
        Follower::new(files, self.presenter.clone(), self.trust.clone(), mark).run().await
    }
}
