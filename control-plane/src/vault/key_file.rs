//! The key-encryption key as a file beside the data: 32 random bytes that only their owner may read.
//!
//! Always holds: the file appears under its name whole and durable, or not at all; one that others may read, or of
//! another size, is refused, never repaired. It protects the data where it goes without this file (a backup of the
//! log, a copied checkpoint); it does not protect a stolen disk that holds both.

use std::io;
use std::path::{Path, PathBuf};

use gantry_model::Secret;
use gantry_node::owner_only::{self, ReadError};

use super::envelope::{CryptoError, KEY_BYTES, Key};

/// The file's name in the data directory.
pub(crate) const KEY_FILE_NAME: &str = "kek";

/// The key that wraps the cluster's root key.
#[derive(Debug, Clone)]
pub(super) struct KeyFile {
    pub(super) key: Key,
    /// Tells keys apart without telling anything of the key.
    pub(super) id: String,
}

/// Why there is no key-encryption key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file is not there, and this is no first start.
    #[error(
        "the vault's key file {path} is missing, and the secrets in this directory can be opened with nothing else; \
         put it back from your backup"
    )]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("the vault's key file {path} cannot be read")]
    Read {
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It cannot be made.
    #[error("the vault's key file {path} cannot be written")]
    Write {
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the vault's key file {path} is open to others (mode {mode:04o}); run `chmod 600 {path}`")]
    Permissions {
        /// Where it is.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is not what this build writes.
    #[error("the vault's key file {path} is not a file of {KEY_BYTES} bytes; put it back from your backup")]
    Content {
        /// Where it is.
        path: PathBuf,
    },
    /// No key could be made.
    #[error(transparent)]
    Crypto(#[from] CryptoError),
}

impl From<ReadError> for KeyFileError {
    fn from(error: ReadError) -> KeyFileError {
        match error {
            ReadError::Missing(path) => KeyFileError::Missing { path },
            ReadError::Disk { path, source } => KeyFileError::Read { path, source },
            ReadError::Open { path, mode } => KeyFileError::Permissions { path, mode },
            ReadError::Form { path, .. } => KeyFileError::Content { path },
        }
    }
}

impl KeyFile {
    /// Reads the key of a data directory. Blocks.
    pub(super) fn read(directory: &Path) -> Result<KeyFile, KeyFileError> {
        let path = directory.join(KEY_FILE_NAME);
        let found = owner_only::read(&path, KEY_BYTES as u64)?;
        let key = Key::of_bytes(found.contents.expose()).ok_or(KeyFileError::Content { path })?;
        KeyFile::of(key)
    }

    /// Reads the key of a data directory, or makes one where there is none. Durable when this returns. Blocks.
    /// Only for a cluster that does not exist yet.
    pub(super) fn read_or_make(directory: &Path) -> Result<KeyFile, KeyFileError> {
        match KeyFile::read(directory) {
            Err(KeyFileError::Missing { path }) => {
                let key = Key::random()?;
                write(&path, &key).map_err(|source| KeyFileError::Write { path: path.clone(), source })?;
                KeyFile::of(key)
            }
            read => read,
        }
    }

    /// Keeps the key that another member handed over, in a directory that has none. Durable when this returns. Blocks.
    pub(super) fn keep(directory: &Path, handed: &Secret<Vec<u8>>) -> Result<(), KeyFileError> {
        let path = directory.join(KEY_FILE_NAME);
        let key =
            Key::of_bytes(handed.expose()).ok_or_else(|| KeyFileError::Content { path: path.clone() })?;
        write(&path, &key).map_err(|source| KeyFileError::Write { path, source })
    }

    fn of(key: Key) -> Result<KeyFile, KeyFileError> {
        // A one-way image under a purpose of its own; eight bytes tell any two keys apart.
        let image = key.derive(b"gantry key file id v1")?;
        let id = image.expose()[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Ok(KeyFile { key, id: format!("file-{id}") })
    }
}

fn write(path: &Path, key: &Key) -> io::Result<()> {
    path.parent().map_or(Ok(()), owner_only::make_directory)?;
    owner_only::replace(path, key.expose())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const MODE: u32 = 0o600;

    #[test]
    fn a_made_key_is_found_again_and_only_its_owner_may_read_it() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let made = KeyFile::read_or_make(directory.path())?;
        let read = KeyFile::read(directory.path())?;
        assert_eq!((read.key.expose(), &read.id), (made.key.expose(), &made.id));
        let again = KeyFile::read_or_make(directory.path())?;
        assert_eq!(again.id, made.id);
        let metadata = fs::metadata(directory.path().join(KEY_FILE_NAME))?;
        assert_eq!(metadata.permissions().mode() & 0o7777, MODE);
        Ok(())
    }

    #[test]
    fn a_missing_key_is_not_made_anew_for_a_cluster_that_exists() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let refused = KeyFile::read(directory.path()).map(|key| key.id);
        assert!(matches!(refused, Err(KeyFileError::Missing { .. })), "{refused:?}");
        assert!(!directory.path().join(KEY_FILE_NAME).exists());
        Ok(())
    }

    #[test]
    fn a_key_that_others_may_read_or_of_another_size_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        KeyFile::read_or_make(directory.path())?;
        let path = directory.path().join(KEY_FILE_NAME);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let refused = KeyFile::read_or_make(directory.path()).map(|key| key.id);
        let expected = format!(
            "the vault's key file {0} is open to others (mode 0640); run `chmod 600 {0}`",
            path.display()
        );
        assert_eq!(refused.map_err(|error| error.to_string()), Err(expected));

        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        for bytes in [&[0_u8; 31][..], &[0; 33], &[]] {
            fs::write(&path, bytes)?;
            let refused = KeyFile::read_or_make(directory.path()).map(|key| key.id);
            assert!(matches!(refused, Err(KeyFileError::Content { .. })), "{refused:?}");
        }
        Ok(())
    }

    #[test]
    fn what_an_interrupted_start_left_does_not_hinder_the_next() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        fs::write(directory.path().join("kek.tmp"), "half")?;
        let made = KeyFile::read_or_make(directory.path())?;
        assert_eq!(KeyFile::read(directory.path())?.id, made.id);
        Ok(())
    }
}
