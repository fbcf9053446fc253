//! The file in which a process keeps who it is: its key, its certificate, and whom it believes, as PEM.
//!
//! Always holds: only the owner can read it, and one that others can read is refused; it is written beside its place,
//! flushed, and moved there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use gantry_model::Secret;
use pem::Pem;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::tls::{CertificateRequest, Certified, CertifiedError, TrustError};

/// Longest file in bytes: a key, and chains and bundles at their bounds.
pub const MEMBERSHIP_BYTES_MAX: u64 = 256 * 1024;

const KEY: &str = "PRIVATE KEY";
const CERTIFICATE: &str = "CERTIFICATE";
/// Told apart from the chain, so that no tool takes it for part of that.
const AUTHORITY: &str = "GANTRY AUTHORITY";

/// What the file holds.
pub(super) struct Stored {
    pub(super) certified: Certified,
    pub(super) authorities: Vec<CertificateDer<'static>>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The disk, or its rights.
    #[error("{} cannot be {what}", .path.display())]
    Disk {
        /// Read or written.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others can read it.
    #[error("{} can be read by others, and holds a private key; make it readable for its owner only", .0.display())]
    Open(PathBuf),
    /// It is something else.
    #[error("{} is not the file of a member of a cluster; remove it and join again", .0.display())]
    Form(PathBuf),
    /// Its parts do not fit each other.
    #[error("the certificate in {} cannot be used; remove it and join again", .path.display())]
    Certified {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: CertifiedError,
    },
    /// Nobody could be believed.
    #[error("the authorities in {} cannot be used; remove it and join again", .path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: TrustError,
    },
}

impl Stored {
    /// Reads the file; `None` when there is none. Blocks.
    pub(super) fn read(path: &Path) -> Result<Option<Stored>, FileError> {
        let disk = |source| FileError::Disk { what: "read", path: path.to_owned(), source };
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(disk(error)),
        };
        if file.metadata().map_err(disk)?.permissions().mode() & 0o077 != 0 {
            return Err(FileError::Open(path.to_owned()));
        }
        let mut text = Vec::new();
        file.take(MEMBERSHIP_BYTES_MAX + 1).read_to_end(&mut text).map_err(disk)?;
        let text = Secret::new(text);
        let form = || FileError::Form(path.to_owned());
        if text.expose().len() as u64 > MEMBERSHIP_BYTES_MAX {
            return Err(form());
        }
        let (mut key, mut chain, mut authorities) = (None, Vec::new(), Vec::new());
        for part in pem::parse_many(text.expose()).map_err(|_| form())? {
            match part.tag() {
                KEY if key.is_none() => key = Some(Secret::new(part.into_contents())),
                CERTIFICATE => chain.push(CertificateDer::from(part.into_contents())),
                AUTHORITY => authorities.push(CertificateDer::from(part.into_contents())),
                _ => return Err(form()),
            }
        }
        let key = PrivatePkcs8KeyDer::from(key.ok_or_else(form)?.expose().clone());
        let certified = Certified::from_der(chain, PrivateKeyDer::Pkcs8(key))
            .map_err(|source| FileError::Certified { path: path.to_owned(), source })?;
        Ok(Some(Stored { certified, authorities }))
    }
}

/// Replaces the file.
pub(super) async fn write(
    path: &Path,
    request: &CertificateRequest,
    certified: &Certified,
    authorities: &[CertificateDer<'static>],
) -> Result<(), FileError> {
    let part = |tag, certificate: &CertificateDer<'static>| pem::encode(&Pem::new(tag, certificate.to_vec()));
    let mut text = request.to_pem().expose().clone();
    text.extend(certified.chain().iter().map(|certificate| part(CERTIFICATE, certificate)));
    text.extend(authorities.iter().map(|authority| part(AUTHORITY, authority)));
    let (text, owned) = (Secret::new(text), path.to_owned());
    let written = tokio::task::spawn_blocking(move || replace(&owned, &text)).await;
    let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
    written.map_err(|source| FileError::Disk { what: "written", path: path.to_owned(), source })
}

fn replace(path: &Path, text: &Secret<String>) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let beside = path.with_extension("new");
    // What an interrupted process left.
    if let Err(error) = fs::remove_file(&beside)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    file.write_all(text.expose().as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(directory)?.sync_all()
}
