//! Checkpoint files: the whole state as of one log entry, in one file that is there whole or not at all.
//!
//! ```text
//! gantry checkpoint 1\n
//! length u32 LE | crc32c u32 LE | header of the caller
//! for each entry: key length u32 LE | value length u32 LE | key | value
//! u32::MAX | entries u64 LE | blake3 of everything before (32 bytes)
//! ```
//!
//! What always holds: a file gets its name only when it is whole and durable; the newest [`KEPT`] are kept; what
//! [`read`] returns is what was written. A checkpoint is not the source of this voter's own state (that is the
//! database), so a damaged one is refused where it is used and harms nothing else.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use thiserror::Error;

use super::directory::sync_directory;
use super::record::RECORD_BYTES_MAX;

/// How many checkpoints are kept: the newest, and the one before in case the newest turns out damaged.
const KEPT: usize = 2;
const MAGIC: &[u8] = b"gantry checkpoint 1\n";
const SUFFIX: &str = ".checkpoint";
const TEMPORARY_SUFFIX: &str = ".checkpoint.tmp";
/// Headers name a log id and a membership.
const HEADER_BYTES_MAX: usize = 64 * 1024;
const END: u32 = u32::MAX;
const DIGEST_BYTES: usize = 32;

/// Why a checkpoint could not be written or read.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("cannot use checkpoint {}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The file is not what was written.
    #[error("checkpoint {} is damaged: {reason}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: &'static str,
    },
    /// The process is ending.
    #[error("the work on a checkpoint was interrupted")]
    Interrupted,
}

/// A checkpoint read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// The caller's header.
    pub header: Vec<u8>,
    /// Keys and values of the state.
    pub entries: Vec<(String, Vec<u8>)>,
}

/// Does what takes long away from the tasks.
pub(super) async fn blocking<Answer: Send + 'static>(
    act: impl FnOnce() -> Result<Answer, CheckpointError> + Send + 'static,
) -> Result<Answer, CheckpointError> {
    tokio::task::spawn_blocking(act).await.unwrap_or(Err(CheckpointError::Interrupted))
}

/// Makes the directory for checkpoints and removes files whose writing was cut short.
pub(super) fn prepare(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(TEMPORARY_SUFFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    sync_directory(directory)
}

/// Where a checkpoint from elsewhere may be written. [`prepare`] removes what is left there.
pub(super) fn incoming(directory: &Path) -> PathBuf {
    directory.join(format!("incoming{TEMPORARY_SUFFIX}"))
}

/// Writes a checkpoint as of log entry `index`, replacing one of the same index; durable when this returns.
pub(super) fn write<Value: AsRef<[u8]>>(
    directory: &Path,
    index: u64,
    header: &[u8],
    entries: impl Iterator<Item = (String, Value)>,
) -> Result<PathBuf, CheckpointError> {
    // Names sort by index.
    let path = directory.join(format!("{index:020}{SUFFIX}"));
    let temporary = directory.join(format!("{index:020}{TEMPORARY_SUFFIX}"));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| CheckpointError::Io { path, source }
    };
    write_file(&temporary, header, entries).map_err(failed(&temporary))?;
    fs::rename(&temporary, &path).map_err(failed(&path))?;
    sync_directory(directory).map_err(failed(directory))?;
    for old in list(directory)?.into_iter().rev().skip(KEPT) {
        fs::remove_file(&old).map_err(failed(&old))?;
    }
    Ok(path)
}

/// The newest checkpoint whose header is sound, with that header. An unsound one is reported and passed over.
pub(super) fn newest(directory: &Path) -> Result<Option<(PathBuf, Vec<u8>)>, CheckpointError> {
    for path in list(directory)?.into_iter().rev() {
        match open(&path) {
            Ok((_, header)) => return Ok(Some((path, header))),
            Err(error) => tracing::warn!(%error, "checkpoint passed over"),
        }
    }
    Ok(None)
}

/// Reads a whole checkpoint, checked to the last byte.
pub(super) fn read(path: &Path) -> Result<Checkpoint, CheckpointError> {
    let (mut file, header) = open(path)?;
    let damaged = |reason| CheckpointError::Damaged { path: path.to_owned(), reason };
    let mut entries = Vec::new();
    loop {
        let key_length = file.number(path)?;
        if key_length == END {
            break;
        }
        let value_length = file.number(path)?;
        if key_length as usize > RECORD_BYTES_MAX || value_length as usize > RECORD_BYTES_MAX {
            return Err(damaged("an entry is longer than any entry may be"));
        }
        let key = String::from_utf8(file.take(path, key_length as usize)?);
        let key = key.map_err(|_| damaged("a key is not text"))?;
        entries.push((key, file.take(path, value_length as usize)?));
    }
    let count = file.take(path, 8)?;
    let digest = file.hasher.finalize();
    let stored = file.take(path, DIGEST_BYTES)?;
    if stored != digest.as_bytes() {
        return Err(damaged("digest does not match"));
    }
    if count != (entries.len() as u64).to_le_bytes() || !file.is_at_end(path)? {
        return Err(damaged("it does not end where it should"));
    }
    Ok(Checkpoint { header, entries })
}

struct HashedReader {
    file: BufReader<File>,
    hasher: blake3::Hasher,
}

impl HashedReader {
    fn take(&mut self, path: &Path, length: usize) -> Result<Vec<u8>, CheckpointError> {
        let mut bytes = vec![0; length];
        self.file.read_exact(&mut bytes).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => {
                CheckpointError::Damaged { path: path.to_owned(), reason: "it ends too early" }
            }
            _ => CheckpointError::Io { path: path.to_owned(), source },
        })?;
        self.hasher.update(&bytes);
        Ok(bytes)
    }

    fn number(&mut self, path: &Path) -> Result<u32, CheckpointError> {
        let bytes = self.take(path, 4)?;
        let bytes = bytes.first_chunk().copied().unwrap_or_default();
        Ok(u32::from_le_bytes(bytes))
    }

    fn is_at_end(&mut self, path: &Path) -> Result<bool, CheckpointError> {
        let read = self.file.read(&mut [0]);
        let read = read.map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
        Ok(read == 0)
    }
}

fn open(path: &Path) -> Result<(HashedReader, Vec<u8>), CheckpointError> {
    let damaged = |reason| CheckpointError::Damaged { path: path.to_owned(), reason };
    let file = File::open(path).map_err(|source| CheckpointError::Io { path: path.to_owned(), source })?;
    let mut file = HashedReader { file: BufReader::new(file), hasher: blake3::Hasher::new() };
    if file.take(path, MAGIC.len())? != MAGIC {
        return Err(damaged("it is of another format"));
    }
    let length = file.number(path)? as usize;
    let checksum = file.number(path)?;
    if length > HEADER_BYTES_MAX {
        return Err(damaged("its header is too long"));
    }
    let header = file.take(path, length)?;
    if crc32c::crc32c(&header) != checksum {
        return Err(damaged("checksum of the header does not match"));
    }
    Ok((file, header))
}

fn write_file<Value: AsRef<[u8]>>(
    path: &Path,
    header: &[u8],
    entries: impl Iterator<Item = (String, Value)>,
) -> io::Result<()> {
    if header.len() > HEADER_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "header is too long"));
    }
    let mut file = BufWriter::new(File::create(path)?);
    let mut hasher = blake3::Hasher::new();
    let mut put = |bytes: &[u8]| {
        hasher.update(bytes);
        file.write_all(bytes)
    };
    put(MAGIC)?;
    put(&(header.len() as u32).to_le_bytes())?;
    put(&crc32c::crc32c(header).to_le_bytes())?;
    put(header)?;
    let mut count = 0_u64;
    for (key, value) in entries {
        let value = value.as_ref();
        if key.len() > RECORD_BYTES_MAX || value.len() > RECORD_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "entry is too long"));
        }
        put(&(key.len() as u32).to_le_bytes())?;
        put(&(value.len() as u32).to_le_bytes())?;
        put(key.as_bytes())?;
        put(value)?;
        count += 1;
    }
    put(&END.to_le_bytes())?;
    put(&count.to_le_bytes())?;
    file.write_all(hasher.finalize().as_bytes())?;
    file.into_inner()?.sync_all()
}

/// Whole checkpoints, the oldest first.
fn list(directory: &Path) -> Result<Vec<PathBuf>, CheckpointError> {
    let failed = |source| CheckpointError::Io { path: directory.to_owned(), source };
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        if entry.file_name().to_string_lossy().ends_with(SUFFIX) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(count: u64) -> Vec<(String, Vec<u8>)> {
        (0..count).map(|at| (format!("key/{at}"), vec![at as u8; 300])).collect()
    }

    fn written(directory: &Path, index: u64) -> PathBuf {
        write(directory, index, b"header", entries(index).into_iter()).expect("write")
    }

    #[test]
    fn a_checkpoint_reads_back_and_only_the_two_newest_are_kept() {
        let dir = tempfile::tempdir().expect("temporary directory");
        assert_eq!(newest(dir.path()).expect("newest"), None);
        for index in [3, 20, 100] {
            written(dir.path(), index);
        }
        let (path, header) = newest(dir.path()).expect("newest").expect("some");
        assert_eq!(header, b"header");
        assert_eq!(read(&path).expect("read"), Checkpoint { header, entries: entries(100) });
        assert_eq!(list(dir.path()).expect("list").len(), 2);
    }

    #[test]
    fn a_file_whose_writing_was_cut_short_is_cleared_away() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = written(dir.path(), 1);
        fs::write(dir.path().join(format!("2{TEMPORARY_SUFFIX}")), "half").expect("write");
        prepare(dir.path()).expect("prepare");
        let left: Vec<_> =
            fs::read_dir(dir.path()).expect("list").map(|entry| entry.expect("entry").path()).collect();
        assert_eq!(left, [path]);
    }

    #[test]
    fn every_flipped_byte_and_every_missing_tail_is_found() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = written(dir.path(), 3);
        let sound = fs::read(&path).expect("read");
        for at in 0..sound.len() {
            let mut bytes = sound.clone();
            bytes[at] ^= 1;
            fs::write(&path, &bytes).expect("write");
            assert!(matches!(read(&path), Err(CheckpointError::Damaged { .. })), "byte {at}");
            fs::write(&path, &sound[..at]).expect("write");
            assert!(matches!(read(&path), Err(CheckpointError::Damaged { .. })), "cut at {at}");
        }
    }

    #[test]
    fn a_newest_checkpoint_with_a_damaged_header_is_passed_over() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let older = written(dir.path(), 1);
        fs::write(written(dir.path(), 2), "not a checkpoint").expect("write");
        assert_eq!(newest(dir.path()).expect("newest"), Some((older, b"header".to_vec())));
    }
}
