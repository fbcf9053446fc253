//! The organisation's own certificates, from files that may be replaced while the process runs.
//!
//! Always holds: what is in use fits together, counted when it was taken, and names the process that began with it; files
//! that do not, as while they are being replaced or after a mistake, are told of and leave what is in use; they are tried
//! again until they do. That a certificate ends soon is told of too, and all of this again every hour.
//!
//! It reads no lists of revoked certificates.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;
use gantry_model::Secret;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use super::handshake::chain;
use super::peer::Peer;
use super::presenter::{Certified, CertifiedError, Presenter};
use super::trust::{AUTHORITIES_MAX, Trust, TrustError};
use crate::identity::PeerName;

/// How often the files are looked at: a new certificate is in use within seconds, and reading a few files costs nothing.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// How often what is wrong is told again.
const REMINDER_INTERVAL: Duration = Duration::from_secs(60 * 60);
/// Longest file in bytes: chains and bundles at their bounds.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// The last part of a certificate's life, by when it should have been replaced: a quarter.
const LIFE_PER_LAST_PART: u64 = 4;
/// What others than owner and group may not have of the file of a key.
const MODE_OF_OTHERS: u32 = 0o007;

/// Where a process has its certificate and its authorities from, all as PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerFiles {
    /// What it shows of itself; `None`: what the built-in authority certifies.
    pub own: Option<OwnFiles>,
    /// Whom it believes, and nobody else.
    pub authorities: PathBuf,
}

/// What a process shows of itself. Its name is in the certificate as a URI, as in those of the built-in authority.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnFiles {
    /// The chain, leaf first.
    pub certificate: PathBuf,
    /// The leaf's private key.
    pub key: PathBuf,
}

/// Why the files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PeerFilesError {
    /// The disk.
    #[error("{} cannot be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else.
    #[error("{} is longer than any such file may be", .0.display())]
    TooLong(PathBuf),
    /// Anybody on the machine can read the key.
    #[error("{} can be read by everybody, and holds a private key; `chmod o= FILE` ends that", .0.display())]
    Open(PathBuf),
    /// Certificate and key.
    #[error("the certificate in {} and the key in {} cannot be used", .certificate.display(), .key.display())]
    Certified {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// Why.
        #[source]
        source: Box<CertifiedError>,
    },
    /// It does not count any more.
    #[error("the certificate in {} has ended", .0.display())]
    Ended(PathBuf),
    /// It will count.
    #[error("the certificate in {} does not count yet", .0.display())]
    Early(PathBuf),
    /// Another process than this.
    #[error("the certificate in {} is that of {presented}, and this process is {own}", .path.display())]
    OtherName {
        /// The file.
        path: PathBuf,
        /// Who this process is.
        own: Box<PeerName>,
        /// Who is named.
        presented: Box<PeerName>,
    },
    /// There is no certificate among the files, and the process has none.
    #[error("none of the files holds a certificate of this process")]
    NoCertificate,
    /// The authorities cannot be read.
    #[error("{} cannot be read as PEM", .path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// The authorities.
    #[error("the authorities in {} cannot be used", .path.display())]
    Trust {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TrustError,
    },
}

/// What the files hold.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) certified: Option<Certified>,
    pub(crate) authorities: Vec<CertificateDer<'static>>,
    mark: Mark,
}

/// Tells contents apart.
pub(crate) type Mark = [u8; 32];

/// The bytes of the files.
struct Contents {
    own: Option<(Vec<u8>, Secret<Vec<u8>>)>,
    authorities: Vec<u8>,
}

/// Files that are followed, as time goes by.
pub(crate) struct Follower {
    files: PeerFiles,
    presenter: Arc<Presenter>,
    trust: Arc<Trust>,
    /// Of what is in use.
    used: Mark,
    /// What was told last, and when.
    told: Option<(String, SystemTime)>,
}

/// What a look at the files has found, where there is something to tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// They have changed and are in use.
    Taken,
    /// What is wrong, in words.
    Wrong(String),
}

impl PeerFiles {
    /// Reads them, for the process `own`, where it is known already. Blocks.
    pub(crate) fn load(&self, own: Option<&PeerName>, now: SystemTime) -> Result<Loaded, PeerFilesError> {
        self.parse(&self.read()?, own, now)
    }

    fn read(&self) -> Result<Contents, PeerFilesError> {
        let own = match &self.own {
            Some(own) => Some((read(&own.certificate)?, Secret::new(read_key(&own.key)?))),
            None => None,
        };
        Ok(Contents { own, authorities: read(&self.authorities)? })
    }

    fn parse(
        &self,
        contents: &Contents,
        own: Option<&PeerName>,
        now: SystemTime,
    ) -> Result<Loaded, PeerFilesError> {
        let certified = match (&self.own, &contents.own) {
            (Some(files), Some((chain, key))) => Some(files.certified(chain, key, own, now)?),
            _ => None,
        };
        let pem = |source| PeerFilesError::Pem { path: self.authorities.clone(), source };
        let authorities = CertificateDer::pem_slice_iter(&contents.authorities).take(AUTHORITIES_MAX + 1);
        let authorities: Vec<_> = authorities.collect::<Result<_, _>>().map_err(pem)?;
        // Before anything of it is used.
        Trust::new(&authorities).map_err(|source| self.untrusted(source))?;
        Ok(Loaded { certified, authorities, mark: contents.mark() })
    }

    fn untrusted(&self, source: TrustError) -> PeerFilesError {
        PeerFilesError::Trust { path: self.authorities.clone(), source }
    }
}

impl OwnFiles {
    fn certified(
        &self,
        chain: &[u8],
        key: &Secret<Vec<u8>>,
        own: Option<&PeerName>,
        now: SystemTime,
    ) -> Result<Certified, PeerFilesError> {
        let path = self.certificate.clone();
        let certified = Certified::from_pem(chain, key).map_err(|source| PeerFilesError::Certified {
            certificate: path.clone(),
            key: self.key.clone(),
            source: Box::new(source),
        })?;
        let peer = certified.peer();
        if let Some(own) = own.filter(|own| **own != peer.name) {
            let (own, presented) = (Box::new(own.clone()), Box::new(peer.name.clone()));
            return Err(PeerFilesError::OtherName { path, own, presented });
        }
        match ms(now) {
            now if now >= peer.expires_at_ms => Err(PeerFilesError::Ended(path)),
            now if now < peer.begins_at_ms => Err(PeerFilesError::Early(path)),
            _ => Ok(certified),
        }
    }
}

impl Loaded {
    /// Tells what the files held from what they hold later.
    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }
}

impl Contents {
    fn mark(&self) -> Mark {
        let mut context = digest::Context::new(&digest::SHA256);
        let own = self.own.iter().flat_map(|(chain, key)| [&chain[..], key.expose()]);
        for content in own.chain([&self.authorities[..]]) {
            context.update(&(content.len() as u64).to_le_bytes());
            context.update(content);
        }
        let mut mark = [0; 32];
        mark.copy_from_slice(context.finish().as_ref());
        mark
    }
}

impl Follower {
    /// Follows files of which what had this mark is in use.
    pub(crate) fn new(
        files: PeerFiles,
        presenter: Arc<Presenter>,
        trust: Arc<Trust>,
        used: Mark,
    ) -> Follower {
        Follower { files, presenter, trust, used, told: None }
    }

    /// Takes what the files hold into use, where it changed and can be. Blocks.
    pub(crate) fn look(&mut self, now: SystemTime) -> Option<Finding> {
        let wrong = match self.take(now) {
            Ok(true) => {
                self.told = None;
                return Some(Finding::Taken);
            }
            Ok(false) => self.ending(now)?,
            Err(error) => format!("{}; what was in use before stays in use", chain(&error)),
        };
        let is_told = self.told.as_ref().is_some_and(|(told, at)| {
            *told == wrong && now.duration_since(*at).is_ok_and(|since| since < REMINDER_INTERVAL)
        });
        if is_told {
            return None;
        }
        self.told = Some((wrong.clone(), now));
        Some(Finding::Wrong(wrong))
    }

    /// Whether there was something new.
    fn take(&mut self, now: SystemTime) -> Result<bool, PeerFilesError> {
        let contents = self.files.read()?;
        if contents.mark() == self.used {
            return Ok(false);
        }
        let own = self.presenter.certified().map(|own| own.peer().name.clone());
        let loaded = self.files.parse(&contents, own.as_ref(), now)?;
        self.trust.replace_authorities(&loaded.authorities).map_err(|source| self.files.untrusted(source))?;
        if let Some(certified) = loaded.certified {
            self.presenter.replace(certified);
        }
        self.used = loaded.mark;
        Ok(true)
    }

    /// That the certificate of the files ends soon, in words.
    fn ending(&self, now: SystemTime) -> Option<String> {
        let path = self.files.own.as_ref()?.certificate.display();
        let certified = self.presenter.certified()?;
        let Peer { begins_at_ms, expires_at_ms, .. } = certified.peer();
        let life = expires_at_ms.saturating_sub(*begins_at_ms);
        let left = expires_at_ms.saturating_sub(ms(now));
        if left == 0 {
            return Some(format!("the certificate in {path} has ended, and nobody believes it; replace it"));
        }
        let is_late = left <= life / LIFE_PER_LAST_PART;
        is_late.then(|| format!("the certificate in {path} is in the last quarter of its life; replace it"))
    }

    /// Follows the files. Never ends; dropping the future is safe.
    pub(crate) async fn run(mut self) -> Infallible {
        let mut ticks = tokio::time::interval(LOOK_INTERVAL);
        loop {
            ticks.tick().await;
            let look = move || {
                let finding = self.look(SystemTime::now());
                (self, finding)
            };
            let finding;
            match tokio::task::spawn_blocking(look).await {
                Ok(looked) => (self, finding) = looked,
                Err(error) => {
                    tracing::error!(%error, "the files of the certificate are not looked at any more");
                    return std::future::pending().await;
                }
            }
            match finding {
                None => {}
                Some(Finding::Taken) => {
                    tracing::info!("the files of the certificate changed, and are in use")
                }
                Some(Finding::Wrong(wrong)) => tracing::error!("{wrong}"),
            }
        }
    }
}

fn read_key(path: &Path) -> Result<Vec<u8>, PeerFilesError> {
    let failed = |source| PeerFilesError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened, not of the name, which may mean another file by now.
    if file.metadata().map_err(failed)?.permissions().mode() & MODE_OF_OTHERS != 0 {
        return Err(PeerFilesError::Open(path.to_owned()));
    }
    read_all(file, path)
}

fn read(path: &Path) -> Result<Vec<u8>, PeerFilesError> {
    let file = File::open(path);
    read_all(file.map_err(|source| PeerFilesError::Read { path: path.to_owned(), source })?, path)
}

fn read_all(file: File, path: &Path) -> Result<Vec<u8>, PeerFilesError> {
    let mut content = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.map_err(|source| PeerFilesError::Read { path: path.to_owned(), source })?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(PeerFilesError::TooLong(path.to_owned()));
    }
    Ok(content)
}

fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
