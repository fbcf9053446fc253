//! The directory of last-known-good files: which there are, how one is added, and which go.
//!
//! Always holds: a file appears under its name whole and durable, or not at all; only its owner may read it; at most
//! [`FILES_KEPT`] stay, all of one cluster. A file that cannot be used is said in the log, by name, and left for
//! whoever wants to know why, until newer ones take its place. One process at a time uses it: a node's name, and its
//! audit file, are no more shared than this is.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, BufWriter};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_model::Revision;

use super::contents::{self, Read, ReadError};
use super::key::Key;
use super::sealed::{Content, OpenError, SealedReader, SealedWriter};
use crate::config::image::Image;

/// Its name in the data directory.
const DIRECTORY_NAME: &str = "last-known-good";
/// Files that stay: the newest, one in case that is damaged, and one in case the two were written by a failing disk.
const FILES_KEPT: usize = 3;
/// What the name of a file ends with.
const SUFFIX: &str = ".bin";
/// Where a file is written before it gets its name.
const NEXT_NAME: &str = "next.tmp";
/// The owner may read and write; nobody else anything.
const MODE: u32 = 0o600;
/// The most that is read: contents twice as large as the largest update, which is not served.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;
/// Bytes that are written, and read, at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The directory, and the key of what is in it.
pub(super) struct Directory {
    path: PathBuf,
    key: Key,
}

impl Directory {
    /// Of a data directory. Makes nothing.
    pub(super) fn new(data_dir: &Path, key: Key) -> Directory {
        Directory { path: data_dir.join(DIRECTORY_NAME), key }
    }

    /// The files, the newest first. Blocks.
    pub(super) fn files(&self) -> io::Result<Vec<(Revision, PathBuf)>> {
        let entries = match fs::read_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut files = Vec::new();
        for entry in entries {
            let name = entry?.file_name();
            if let Some(revision) = name.to_str().and_then(revision_of) {
                files.push((revision, self.path.join(&name)));
            }
        }
        files.sort_unstable_by(|one, other| other.cmp(one));
        Ok(files)
    }

    /// Reads one of the files. Blocks.
    pub(super) fn read(&self, path: &Path) -> Result<Read, ReadError> {
        let file = File::open(path).map_err(OpenError::Io)?;
        let metadata = file.metadata().map_err(OpenError::Io)?;
        if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
            return Err(OpenError::Foreign.into());
        }
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        contents::read(&mut SealedReader::new(file, &self.key, Content::Configuration)?)
    }

    /// Adds a file and removes those that it makes superfluous. Blocks.
    pub(super) fn write(&self, image: &Image, heard_at_ms: u64) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path)?;
        let next = self.path.join(NEXT_NAME);
        // What an interrupted write left may have any mode; a new file has ours from the start.
        remove_if_there(&next)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&next)?;
        let file = BufWriter::with_capacity(BUFFER_BYTES, file);
        let mut sealed = SealedWriter::new(file, &self.key, Content::Configuration)?;
        contents::write(&mut sealed, image, heard_at_ms)?;
        let file = sealed.finish()?.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        fs::rename(&next, self.path.join(format!("{}{SUFFIX}", image.revision)))?;
        File::open(&self.path)?.sync_all()?;
        self.prune(image.revision)
    }

    /// Removes all files: they are of a cluster that the node no longer belongs to. Blocks.
    pub(super) fn clear(&self) -> io::Result<()> {
        for (_, path) in self.files()? {
            remove_if_there(&path)?;
        }
        remove_if_there(&self.path.join(NEXT_NAME))
    }

    /// A file of a later revision is of a history that is no longer the control plane's.
    fn prune(&self, newest: Revision) -> io::Result<()> {
        let files = self.files()?;
        let (later, mut kept): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(revision, _)| *revision > newest);
        let old = kept.split_off(kept.len().min(FILES_KEPT));
        later.into_iter().chain(old).try_for_each(|(_, path)| remove_if_there(&path))
    }
}

fn revision_of(name: &str) -> Option<Revision> {
    let digits = name.strip_suffix(SUFFIX)?;
    let revision = digits.parse().ok()?;
    // `007.bin` and `+7.bin` are none of ours.
    (u64::to_string(&revision) == digits).then_some(Revision(revision))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_were_given_here_are_files() {
        for (name, revision) in [
            ("7.bin", Some(7)),
            ("18446744073709551615.bin", Some(u64::MAX)),
            ("18446744073709551616.bin", None),
            ("007.bin", None),
            ("+7.bin", None),
            ("7.tmp", None),
            (".bin", None),
            ("next.tmp", None),
        ] {
            assert_eq!(revision_of(name), revision.map(Revision), "{name}");
        }
    }
}
