//! The file in which a process keeps who it is: its key, its certificate, and whom it believes, as PEM.
//!
//! Always holds: only the owner can read it, and one that others can read is refused; it is written beside its place,
//! flushed, and moved there.

use std::io;
use std::path::{Path, PathBuf};

use gantry_model::Secret;
use pem::Pem;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::owner_only::{self, ReadError};
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
        let text = match owner_only::read(path, MEMBERSHIP_BYTES_MAX) {
            Ok(found) => found.contents,
            Err(ReadError::Missing(_)) => return Ok(None),
            Err(ReadError::Disk { path, source }) => {
                return Err(FileError::Disk { what: "read", path, source });
            }
            Err(ReadError::Open { path, .. }) => return Err(FileError::Open(path)),
            Err(ReadError::Form { path, .. }) => return Err(FileError::Form(path)),
        };
        let form = || FileError::Form(path.to_owned());
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
    path.parent().map_or(Ok(()), owner_only::make_directory)?;
    owner_only::replace(path, text.expose().as_bytes())
}
