//! The directory of last-known-good files: which there are, how one is added, and which go.
//!
//! Always holds: a file appears under its name whole and durable, or not at all; only its owner may read it; at most
//! [`FILES_KEPT`] stay, all of one cluster. A file that cannot be used is said in the log, by name, and left for
//! whoever wants to know why, until newer ones take its place. One process at a time uses it: a node's name, and its
//! audit file, are no more shared than this is.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter};
use std::path::{Path, PathBuf};

use gantry_model::Revision;
use gantry_node::owner_only;
use gantry_wire::sync_v1::KeptUrgent;
use prost::Message;

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
/// When a control plane was last heard.
const HEARD_NAME: &str = "heard";
/// Bans that came ahead of the configuration that has them.
const URGENT_NAME: &str = "urgent";
/// Most bytes of them, written as well as read: what came of many tenants, in many messages, before one update was taken.
const URGENT_BYTES_MAX: u32 = 1024 * 1024 * 1024;
/// Where a file is written before it gets its name.
const NEXT_NAME: &str = "next.tmp";
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

    /// Adds a file and removes those that it makes superfluous: all others where it is to be alone. Blocks.
    pub(super) fn write(&self, image: &Image, heard_at_ms: u64, is_alone: bool) -> io::Result<()> {
        owner_only::make_directory(&self.path)?;
        let path = self.path.join(format!("{}{SUFFIX}", image.revision));
        owner_only::replace_by(&path, &self.path.join(NEXT_NAME), |file| {
            let file = BufWriter::with_capacity(BUFFER_BYTES, file);
            let mut sealed = SealedWriter::new(file, &self.key, Content::Configuration)?;
            contents::write(&mut sealed, image, heard_at_ms)?;
            sealed.finish()?.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
        })?;
        self.prune(image.revision, if is_alone { 1 } else { FILES_KEPT })
    }

    /// When a control plane was last heard, in milliseconds since 1970, as far as it was noted; 0 otherwise. Blocks.
    pub(super) fn read_heard(&self) -> u64 {
        let read = || {
            let file = File::open(self.path.join(HEARD_NAME)).map_err(OpenError::Io)?;
            let mut sealed = SealedReader::new(BufReader::new(file), &self.key, Content::Heard)?;
            let mut heard = [0; 8];
            sealed.read_exact(&mut heard)?;
            if sealed.is_at_end()? { Ok(u64::from_be_bytes(heard)) } else { Err(OpenError::Damaged) }
        };
        match read() {
            Ok(heard_at_ms) => heard_at_ms,
            Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::warn!(
                    error,
                    "when a control plane was last heard is not known; it may count as longer ago"
                );
                0
            }
        }
    }

    /// Bans that were in no configuration yet; none where there is nothing, or nothing that can be read. Blocks.
    pub(super) fn read_urgent(&self) -> KeptUrgent {
        let read = || {
            let file = File::open(self.path.join(URGENT_NAME)).map_err(OpenError::Io)?;
            let file_bytes = file.metadata().map_err(OpenError::Io)?.len();
            let mut sealed = SealedReader::new(BufReader::new(file), &self.key, Content::Urgent)?;
            let mut length = [0; 4];
            sealed.read_exact(&mut length)?;
            let length = u32::from_be_bytes(length);
            if length > URGENT_BYTES_MAX || u64::from(length) > file_bytes {
                return Err(OpenError::Damaged);
            }
            let mut encoded = vec![0; usize::try_from(length).unwrap_or(0)];
            sealed.read_exact(&mut encoded)?;
            KeptUrgent::decode(encoded.as_slice()).map_err(|_| OpenError::Damaged)
        };
        match read() {
            Ok(urgent) => urgent,
            Err(OpenError::Io(error)) if error.kind() == io::ErrorKind::NotFound => KeptUrgent::default(),
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "the latest revocations cannot be read; a control plane has them");
                KeptUrgent::default()
            }
        }
    }

    /// Keeps bans that are in no configuration yet. Blocks until they are durable.
    pub(super) fn write_urgent(&self, urgent: &KeptUrgent) -> io::Result<()> {
        let encoded = urgent.encode_to_vec();
        let length = u32::try_from(encoded.len()).ok().filter(|length| *length <= URGENT_BYTES_MAX);
        let length = length.ok_or(io::ErrorKind::FileTooLarge)?;
        owner_only::make_directory(&self.path)?;
        owner_only::replace_by(&self.path.join(URGENT_NAME), &self.path.join(NEXT_NAME), |file| {
            let mut sealed = SealedWriter::new(file, &self.key, Content::Urgent)?;
            sealed.write_all(&length.to_be_bytes())?;
            sealed.write_all(&encoded)?;
            sealed.finish().map(drop)
        })
    }

    /// Notes when a control plane was heard. Not durable at once: a time that is lost counts as longer ago. Blocks.
    pub(super) fn write_heard(&self, heard_at_ms: u64) -> io::Result<()> {
        owner_only::make_directory(&self.path)?;
        let next = self.path.join(NEXT_NAME);
        remove_if_there(&next)?;
        let mut sealed = SealedWriter::new(owner_only::create(&next)?, &self.key, Content::Heard)?;
        sealed.write_all(&heard_at_ms.to_be_bytes())?;
        sealed.finish()?;
        fs::rename(&next, self.path.join(HEARD_NAME))
    }

    /// Removes all files: they are of a cluster that the node no longer belongs to. Blocks.
    pub(super) fn clear(&self) -> io::Result<()> {
        for (_, path) in self.files()? {
            remove_if_there(&path)?;
        }
        remove_if_there(&self.path.join(HEARD_NAME))?;
        remove_if_there(&self.path.join(URGENT_NAME))?;
        remove_if_there(&self.path.join(NEXT_NAME))
    }

    /// A file of a later revision is of a history that is no longer the control plane's.
    fn prune(&self, newest: Revision, count: usize) -> io::Result<()> {
        let files = self.files()?;
        let (later, mut kept): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(revision, _)| *revision > newest);
        let old = kept.split_off(kept.len().min(count));
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
    fn when_a_control_plane_was_heard_is_read_back_and_not_believed_when_damaged()
    -> Result<(), Box<dyn std::error::Error>> {
        let data_dir = tempfile::tempdir()?;
        let directory = Directory::new(data_dir.path(), Key::random()?);
        assert_eq!(directory.read_heard(), 0);
        for heard_at_ms in [1, u64::MAX] {
            directory.write_heard(heard_at_ms)?;
            assert_eq!(directory.read_heard(), heard_at_ms);
        }
        let path = data_dir.path().join(DIRECTORY_NAME).join(HEARD_NAME);
        let mut damaged = fs::read(&path)?;
        *damaged.last_mut().ok_or("a file")? ^= 1;
        fs::write(&path, damaged)?;
        assert_eq!(directory.read_heard(), 0);
        // It is no configuration, whatever its name.
        directory.write_heard(1)?;
        fs::rename(&path, data_dir.path().join(DIRECTORY_NAME).join("1.bin"))?;
        let (_, path) = directory.files()?.pop().ok_or("a file")?;
        let read = directory.read(&path).map(|read| read.heard_at_ms).map_err(|error| error.to_string());
        assert_eq!(read, Err("it is no last-known-good file".to_owned()));
        directory.write_heard(1)?;
        directory.clear()?;
        assert_eq!(fs::read_dir(data_dir.path().join(DIRECTORY_NAME))?.count(), 0);
        Ok(())
    }

    #[test]
    fn bans_that_came_ahead_are_read_back_and_nothing_else_is_taken_for_them()
    -> Result<(), Box<dyn std::error::Error>> {
        let data_dir = tempfile::tempdir()?;
        let directory = Directory::new(data_dir.path(), Key::random()?);
        assert_eq!(directory.read_urgent(), KeptUrgent::default());
        let ban = gantry_wire::sync_v1::KeptBan {
            revision: 7,
            key: "acme/ban/tenant".into(),
            record: vec![1].into(),
        };
        let urgent = KeptUrgent { cluster_id: "c".to_owned(), bans: vec![ban], narrowings: Vec::new() };
        directory.write_urgent(&urgent)?;
        assert_eq!(directory.read_urgent(), urgent);
        // What came of very many tenants.
        let cedar = "forbid(principal, action, resource);".repeat(32 * 1024);
        let policies =
            vec![gantry_wire::sync_v1::NarrowingPolicy { name: "all".into(), cedar, needs_approval: false }];
        let of = |number| gantry_wire::sync_v1::Narrowing {
            tenant: format!("tenant-{number}"),
            policies: policies.clone(),
            ..Default::default()
        };
        let many = KeptUrgent { narrowings: (0..32).map(of).collect(), ..urgent.clone() };
        assert!(many.encoded_len() > 2 * gantry_wire::MESSAGE_BYTES_MAX);
        directory.write_urgent(&many)?;
        assert!(directory.read_urgent() == many);
        directory.write_heard(1)?;
        let folder = data_dir.path().join(DIRECTORY_NAME);
        fs::rename(folder.join(HEARD_NAME), folder.join(URGENT_NAME))?;
        assert_eq!(directory.read_urgent(), KeptUrgent::default());
        directory.write_urgent(&urgent)?;
        directory.clear()?;
        assert_eq!(fs::read_dir(folder)?.count(), 0);
        Ok(())
    }

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
