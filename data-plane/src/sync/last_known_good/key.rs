//! The key of last-known-good files: a file of 32 random bytes that only the node may read.
//!
//! Always holds: a file that others may read or that belongs to somebody else is refused, never repaired. A key that
//! the operator named is never made here. One that is made appears under its name whole and durable, or not at all.
//! The key beside the files protects them where they go without it (a copy, a backup that leaves it out), not on a
//! disk that holds both: for that, name one on a tmpfs or a mounted secret.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use gantry_node::owner_only::{self, ReadError};
use zeroize::Zeroizing;

/// Bytes of a key.
const KEY_BYTES: usize = 32;
/// The file's name in the data directory, where no other was named.
const KEY_FILE_NAME: &str = "last-known-good.key";

/// A key.
pub(super) struct Key(Zeroizing<[u8; KEY_BYTES]>);

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("the key file {} is missing; a key that was named is not made here", .0.display())]
    Missing(PathBuf),
    #[error("the key file {} cannot be read", .path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key file {} cannot be written", .path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the key file {path} is open to others (mode {mode:04o}); run `chmod 600 {path}`", path = .path.display())]
    Permissions { path: PathBuf, mode: u32 },
    #[error("the key file {} belongs to user {owner}, and neither to this process's nor to root", .path.display())]
    Owner { path: PathBuf, owner: u32 },
    #[error("the key file {} is not a file of {KEY_BYTES} bytes", .0.display())]
    Content(PathBuf),
    #[error("the system gives no randomness")]
    Random,
}

impl From<ReadError> for KeyError {
    fn from(error: ReadError) -> KeyError {
        match error {
            ReadError::Missing(path) => KeyError::Missing(path),
            ReadError::Disk { path, source } => KeyError::Read { path, source },
            ReadError::Open { path, mode } => KeyError::Permissions { path, mode },
            ReadError::Form { path, .. } => KeyError::Content(path),
        }
    }
}

impl Key {
    /// A new key.
    pub(super) fn random() -> Result<Key, KeyError> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut *bytes).map_err(|_| KeyError::Random)?;
        Ok(Key(bytes))
    }

    /// Reads a key that the operator named. Blocks.
    pub(super) fn read(path: &Path) -> Result<Key, KeyError> {
        let found = owner_only::read(path, KEY_BYTES as u64)?;
        // A mounted secret is often root's; whoever is root reads everything anyway.
        let owner = found.owner;
        if owner != 0 && owner != rustix::process::geteuid().as_raw() {
            return Err(KeyError::Owner { path: path.to_owned(), owner });
        }
        let key = <[u8; KEY_BYTES]>::try_from(found.contents.expose().as_slice());
        key.map(|key| Key(Zeroizing::new(key))).map_err(|_| KeyError::Content(path.to_owned()))
    }

    /// Reads the key of a data directory, or makes one where there is none. Blocks.
    pub(super) fn read_or_make(data_dir: &Path) -> Result<Key, KeyError> {
        let path = data_dir.join(KEY_FILE_NAME);
        match Key::read(&path) {
            Err(KeyError::Missing(path)) => {
                let key = Key::random()?;
                write(data_dir, &path, &key).map_err(|source| KeyError::Write { path, source })?;
                Ok(key)
            }
            read => read,
        }
    }

    pub(super) fn expose(&self) -> &[u8] {
        &*self.0
    }
}

fn write(directory: &Path, path: &Path, key: &Key) -> io::Result<()> {
    owner_only::make_directory(directory)?;
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
        // What an interrupted start left does not hinder.
        fs::write(directory.path().join("last-known-good.key.tmp"), "half")?;
        let made = Key::read_or_make(directory.path())?;
        assert_eq!(Key::read_or_make(directory.path())?.expose(), made.expose());
        let metadata = fs::metadata(directory.path().join(KEY_FILE_NAME))?;
        assert_eq!(metadata.permissions().mode() & 0o7777, MODE);
        Ok(())
    }

    #[test]
    fn a_key_that_was_named_is_not_made() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("named");
        let refused = Key::read(&path).map(drop).map_err(|error| error.to_string());
        let expected =
            format!("the key file {} is missing; a key that was named is not made here", path.display());
        assert_eq!(refused, Err(expected));
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn a_key_that_others_may_read_or_of_another_size_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        Key::read_or_make(directory.path())?;
        let path = directory.path().join(KEY_FILE_NAME);
        let refused =
            |directory: &Path| Key::read_or_make(directory).map(drop).map_err(|error| error.to_string());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let shown = path.display();
        let expected = format!("the key file {shown} is open to others (mode 0640); run `chmod 600 {shown}`");
        assert_eq!(refused(directory.path()), Err(expected));

        fs::set_permissions(&path, fs::Permissions::from_mode(MODE))?;
        for bytes in [&[0_u8; 31][..], &[0; 33], &[]] {
            fs::write(&path, bytes)?;
            assert_eq!(
                refused(directory.path()),
                Err(format!("the key file {shown} is not a file of 32 bytes"))
            );
        }
        Ok(())
    }

    #[test]
    fn a_key_of_another_user_is_refused() -> Result<(), Box<dyn std::error::Error>> {
        let directory = tempfile::tempdir()?;
        Key::read_or_make(directory.path())?;
        let path = directory.path().join(KEY_FILE_NAME);
        // Only root can give a file away; elsewhere there is nothing to try.
        if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(12_345), None)?;
            let refused = Key::read(&path).map(drop).map_err(|error| error.to_string());
            let shown = path.display();
            let expected = format!(
                "the key file {shown} belongs to user 12345, and neither to this process's nor to root"
            );
            assert_eq!(refused, Err(expected));
        }
        Ok(())
    }
}
