//! Files and directories that only their owner may read: keys, tokens, certificates with their keys.
//!
//! Always holds: one that others may read is refused, never repaired, since whoever wanted to has read it; a new one has
//! its mode from its first byte on. What is replaced is the old file or the new one, whole, also after a loss of power.
//! All of it blocks.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_model::Secret;

/// The owner may read and write; nobody else anything.
const MODE: u32 = 0o600;
/// The same of a directory.
const DIRECTORY_MODE: u32 = 0o700;
/// What others would need.
const MODE_OF_OTHERS: u32 = 0o077;

/// What was read.
#[derive(Debug)]
pub struct Found {
    /// The contents.
    pub contents: Secret<Vec<u8>>,
    /// The user that the file belongs to.
    pub owner: u32,
}

/// Why a file is not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("{} is missing", .0.display())]
    Missing(PathBuf),
    /// The disk, or its rights.
    #[error("{} cannot be read", .path.display())]
    Disk {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("{path} is open to others (mode {mode:04o}); run `chmod 600 {path}`", path = .path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a directory, a device, or too long to be what is looked for.
    #[error("{} is no file of at most {bytes_max} bytes", .path.display())]
    Form {
        /// The file.
        path: PathBuf,
        /// How many it may have.
        bytes_max: u64,
    },
}

/// Reads a file of at most so many bytes.
pub fn read(path: &Path, bytes_max: u64) -> Result<Found, ReadError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => ReadError::Missing(path.to_owned()),
        _ => ReadError::Disk { path: path.to_owned(), source },
    };
    let file = File::open(path).map_err(failed)?;
    // Of what was opened, not of the name, which may mean another file by now.
    let metadata = file.metadata().map_err(failed)?;
    let unformed = || ReadError::Form { path: path.to_owned(), bytes_max };
    if !metadata.is_file() {
        return Err(unformed());
    }
    let mode = metadata.mode() & 0o7777;
    if mode & MODE_OF_OTHERS != 0 {
        return Err(ReadError::Open { path: path.to_owned(), mode });
    }
    let expected = metadata.len().min(bytes_max) + 1;
    // Of one size from the beginning: what a growing vector leaves behind is not wiped.
    let mut contents = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
    let read = file.take(bytes_max + 1).read_to_end(&mut contents);
    let (length, contents) = (contents.len() as u64, Secret::new(contents));
    read.map_err(failed)?;
    if length > bytes_max {
        return Err(unformed());
    }
    Ok(Found { contents, owner: metadata.uid() })
}

/// Puts a file in the place of what is there, if anything is. Durable when this returns.
pub fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut beside = path.file_name().unwrap_or_default().to_owned();
    beside.push(".tmp");
    replace_by(path, &path.with_file_name(beside), |file| file.write_all(contents))
}

/// The same of what `write` writes, to a file beside it in the same directory until it is whole.
pub fn replace_by(
    path: &Path,
    beside: &Path,
    write: impl FnOnce(&mut File) -> io::Result<()>,
) -> io::Result<()> {
    // What an interrupted process left may have any mode.
    match fs::remove_file(beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = create(beside)?;
    write(&mut file)?;
    file.sync_all()?;
    fs::rename(beside, path)?;
    sync_directory_of(path)
}

/// Makes a file where there is none, and leaves one that is there as it is (`AlreadyExists`). Durable when this returns.
pub fn make(path: &Path, contents: &[u8]) -> io::Result<()> {
    let mut file = create(path)?;
    let made = file.write_all(contents).and_then(|()| file.sync_all()).and_then(|()| sync_directory_of(path));
    if made.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(path);
    }
    made
}

/// Begins a file where there is none.
pub fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(MODE).open(path)
}

/// Opens a file to write at its end, and makes it where there is none.
pub fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(MODE).open(path)
}

/// Makes a directory, with those above it, where there is none; one that is there keeps its mode.
pub fn make_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(path)
}

/// Makes what happened to the names in a file's directory durable.
pub fn sync_directory_of(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    type Tested = Result<(), Box<dyn std::error::Error>>;

    fn mode(path: &Path) -> io::Result<u32> {
        Ok(fs::metadata(path)?.mode() & 0o7777)
    }

    fn text(path: &Path) -> Result<String, Box<dyn std::error::Error>> {
        Ok(String::from_utf8(read(path, 16)?.contents.expose().clone())?)
    }

    #[test]
    fn what_is_replaced_or_made_is_the_owners_alone_whatever_was_there() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("made/above/key");
        make_directory(path.parent().ok_or("a parent")?)?;
        assert_eq!(mode(path.parent().ok_or("a parent")?)?, DIRECTORY_MODE);
        // What an interrupted process left, for others to write into.
        let beside = path.with_file_name("key.tmp");
        fs::write(&beside, "half")?;
        fs::set_permissions(&beside, fs::Permissions::from_mode(0o666))?;
        replace(&path, b"one")?;
        assert_eq!((text(&path)?.as_str(), mode(&path)?, beside.exists()), ("one", MODE, false));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644))?;
        replace(&path, b"two")?;
        assert_eq!((text(&path)?.as_str(), mode(&path)?), ("two", MODE));

        let refused = make(&path, b"three").map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::AlreadyExists));
        assert_eq!(text(&path)?, "two");
        let other = path.with_file_name("other");
        make(&other, b"three")?;
        assert_eq!((text(&other)?.as_str(), mode(&other)?), ("three", MODE));
        append(&path.with_file_name("log"))?.write_all(b"a line")?;
        assert_eq!(mode(&path.with_file_name("log"))?, MODE);
        Ok(())
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_before() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key");
        replace(&path, b"one")?;
        let broken = replace_by(&path, &directory.path().join("next"), |file| {
            file.write_all(b"tw")?;
            Err(io::ErrorKind::StorageFull.into())
        });
        assert_eq!(broken.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
        assert_eq!(text(&path)?, "one");
        Ok(())
    }

    #[test]
    fn what_others_may_read_and_what_is_no_such_file_is_refused_with_the_next_step() -> Tested {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key");
        let refused = |path: &Path| read(path, 4).map(drop).map_err(|error| error.to_string());
        let shown = path.display();
        assert_eq!(refused(&path), Err(format!("{shown} is missing")));
        replace(&path, b"four")?;
        assert_eq!(refused(&path), Ok(()));
        for open in [0o640, 0o604, 0o620, 0o601, 0o1644] {
            fs::set_permissions(&path, fs::Permissions::from_mode(open))?;
            let expected = format!("{shown} is open to others (mode {open:04o}); run `chmod 600 {shown}`");
            assert_eq!(refused(&path), Err(expected));
        }
        replace(&path, b"fiver")?;
        assert_eq!(refused(&path), Err(format!("{shown} is no file of at most 4 bytes")));
        let folder = directory.path().display();
        assert_eq!(refused(directory.path()), Err(format!("{folder} is no file of at most 4 bytes")));
        assert_eq!(read(&path, 5)?.owner, fs::metadata(&path)?.uid());
        Ok(())
    }
}
