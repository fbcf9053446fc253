//! The data directory: its format mark, its lock, and what else lies in it.
//!
//! ```text
//! <dir>/FORMAT        gantry control-plane store 1
//! <dir>/LOCK          held by the process that has the directory open; names that process
//! <dir>/raft/         the database
//! <dir>/WATERMARK     how far the database was durable (`watermark.rs`)
//! <dir>/checkpoints/  checkpoint files; made last, so where it is there has been a whole database
//! ```
//!
//! What always holds: `FORMAT` is read before anything else and nothing is written where it is missing beside other
//! files, unreadable or newer. One process at a time is past [`Directory::open`]. A name that this file created is
//! durable when `open` returns.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use super::OpenError;

/// The layout that this build reads and writes.
pub const FORMAT_VERSION: u32 = 1;

const FORMAT_NAME: &str = "FORMAT";
const FORMAT_NEXT_NAME: &str = "FORMAT.tmp";
const FORMAT_TEXT: &str = "gantry control-plane store ";
/// The mark is one short line; anything longer is another file.
const FORMAT_BYTES_MAX: u64 = 64;
const LOCK_NAME: &str = "LOCK";
/// Room for a process id.
const LOCK_BYTES_MAX: u64 = 32;

/// An open data directory. Dropping it gives the lock back.
#[derive(Debug)]
pub(super) struct Directory {
    root: PathBuf,
    _lock: File,
}

impl Directory {
    /// Checks the mark, takes the lock and, in an empty or absent directory, writes the mark.
    pub(super) fn open(root: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::Directory { dir: root.to_owned(), source };
        if read_mark(root)?.is_none() {
            refuse_foreign(root)?;
        }
        if !root.is_dir() {
            fs::create_dir_all(root).map_err(failed)?;
            sync_parent(root).map_err(failed)?;
        }
        let lock = take_lock(root)?;
        // Another process may have made the directory between the first look and the lock.
        if read_mark(root)?.is_none() {
            refuse_foreign(root)?;
            write_mark(root).map_err(failed)?;
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    /// The directory itself.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the database lies.
    pub(super) fn database(&self) -> PathBuf {
        self.root.join("raft")
    }

    /// Where checkpoint files lie.
    pub(super) fn checkpoints(&self) -> PathBuf {
        self.root.join("checkpoints")
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Makes the name of `path` itself durable.
pub(super) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => sync_directory(Path::new(".")),
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Whether a directory has a mark of ours, of whatever version: it was made. Blocks.
pub fn is_made(root: &Path) -> bool {
    root.join(FORMAT_NAME).exists()
}

fn read_mark(root: &Path) -> Result<Option<()>, OpenError> {
    let path = root.join(FORMAT_NAME);
    let unreadable = |source| OpenError::FormatUnreadable { dir: root.to_owned(), source };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
    };
    let mut text = String::new();
    file.take(FORMAT_BYTES_MAX).read_to_string(&mut text).map_err(unreadable)?;
    let version = text.strip_prefix(FORMAT_TEXT).and_then(|rest| rest.strip_suffix('\n'));
    match version.and_then(|version| version.parse::<u32>().ok()) {
        Some(FORMAT_VERSION) => Ok(Some(())),
        Some(found) if found > FORMAT_VERSION => Err(OpenError::Newer { dir: root.to_owned(), found }),
        Some(_) | None => {
            Err(unreadable(io::Error::new(io::ErrorKind::InvalidData, "content is not a format mark")))
        }
    }
}

/// A directory without a mark may hold only what an interrupted first start leaves.
fn refuse_foreign(root: &Path) -> Result<(), OpenError> {
    let failed = |source| OpenError::Directory { dir: root.to_owned(), source };
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let name = entry.map_err(failed)?.file_name();
        if name != LOCK_NAME && name != FORMAT_NEXT_NAME && name != FORMAT_NAME {
            let found = name.to_string_lossy().into_owned();
            return Err(OpenError::Unmarked { dir: root.to_owned(), found });
        }
    }
    Ok(())
}

fn write_mark(root: &Path) -> io::Result<()> {
    let next = root.join(FORMAT_NEXT_NAME);
    let mut file = File::create(&next)?;
    writeln!(file, "{FORMAT_TEXT}{FORMAT_VERSION}")?;
    file.sync_all()?;
    fs::rename(&next, root.join(FORMAT_NAME))?;
    sync_directory(root)
}

fn take_lock(root: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Directory { dir: root.to_owned(), source };
    let path = root.join(LOCK_NAME);
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            // Only for the message: without it the error still names the directory.
            let _ = file.take(LOCK_BYTES_MAX).read_to_string(&mut holder);
            return Err(OpenError::InUse { dir: root.to_owned(), holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(source)) => return Err(failed(source)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(root: &Path) -> Result<(), OpenError> {
        Directory::open(root).map(drop)
    }

    #[test]
    fn a_directory_that_a_newer_gantry_wrote_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(FORMAT_NAME), "gantry control-plane store 2\n").expect("write");
        let error = open(dir.path()).expect_err("newer format");
        assert_eq!(
            error.to_string(),
            format!(
                "data directory {} was written by a newer gantry (format 2, this build reads 1); run that version \
                 or choose another data directory",
                dir.path().display()
            )
        );
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "nothing was written");
    }

    #[test]
    fn a_directory_with_other_files_and_no_mark_is_refused() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join("notes.txt"), "mine").expect("write");
        let error = open(dir.path()).expect_err("foreign directory");
        assert!(matches!(&error, OpenError::Unmarked { found, .. } if found == "notes.txt"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).expect("list").count(), 1, "nothing was written");
    }

    #[test]
    fn an_unreadable_mark_is_refused() {
        for text in
            ["", "gantry", "gantry control-plane store 0\n", "gantry control-plane store 1", "\u{0}\u{0}"]
        {
            let dir = tempfile::tempdir().expect("temporary directory");
            fs::write(dir.path().join(FORMAT_NAME), text).expect("write");
            assert!(matches!(open(dir.path()), Err(OpenError::FormatUnreadable { .. })), "{text:?}");
        }
    }

    #[test]
    fn an_interrupted_first_start_is_carried_on() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::write(dir.path().join(FORMAT_NEXT_NAME), "gantry con").expect("write");
        fs::write(dir.path().join(LOCK_NAME), "").expect("write");
        open(dir.path()).expect("carried on");
        open(dir.path()).expect("opened again");
        assert_eq!(
            fs::read_to_string(dir.path().join(FORMAT_NAME)).expect("mark"),
            "gantry control-plane store 1\n"
        );
    }

    #[test]
    fn a_second_open_names_the_directory_and_the_holder() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let first = Directory::open(dir.path()).expect("first");
        let error = open(dir.path()).expect_err("second");
        assert_eq!(
            error.to_string(),
            format!("data directory {} is in use by process {}", dir.path().display(), std::process::id())
        );
        drop(first);
        open(dir.path()).expect("free again");
    }
}
