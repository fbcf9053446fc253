//! The watermark: how far the database was durable, at least, in a file of its own.
//!
//! sled takes a damaged piece of its file for the end of what was written, drops everything behind it, and opens
//! without a word. One flipped bit can so undo acknowledged commands. The watermark is what tells: the database may
//! know more than it says, never less.
//!
//! ```text
//! two slots, 512 bytes apart, written in turn:
//! gantry watermark 1\n | sequence u64 LE | log u64 LE | state u64 LE | votes u64 LE | crc32c u32 LE
//! ```
//!
//! What always holds: the file is written after the sync that it speaks of and before anybody is told, so it is never
//! ahead of the disk and never behind an acknowledgement, however the process ends. It is not synced itself (that would
//! double the price of a commit): a power cut may leave it behind, which makes it say less, not wrong.
//!
//! An operator who removes the file accepts what is there. A file that is damaged is refused.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::OpenError;

const NAME: &str = "WATERMARK";
const MAGIC: &[u8; 19] = b"gantry watermark 1\n";
const NUMBERS: usize = 4;
const SLOT_BYTES: usize = MAGIC.len() + NUMBERS * 8 + 4;
/// A sector: a torn write spoils one slot at most.
const SLOT_DISTANCE: u64 = 512;

/// What was durable. Each number only grows, but for the log's when entries are truncated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Mark {
    /// One past the last log entry.
    pub(super) log: u64,
    /// One past the revision of the state.
    pub(super) state: u64,
    /// How many votes have been saved.
    pub(super) votes: u64,
}

/// The open file.
#[derive(Debug)]
pub(super) struct Watermark {
    file: File,
    sequence: u64,
    /// What it says.
    mark: Mark,
}

impl Watermark {
    /// Where the file is in a data directory.
    pub(super) fn path(dir: &Path) -> PathBuf {
        dir.join(NAME)
    }

    /// Whether anything was ever durable in a data directory, as far as the file tells.
    pub(super) fn says_anything(dir: &Path) -> bool {
        std::fs::metadata(Self::path(dir)).is_ok_and(|metadata| metadata.len() > 0)
    }

    /// Opens or makes the file; `None` when it says nothing yet.
    pub(super) fn open(dir: &Path) -> Result<(Self, Option<Mark>), OpenError> {
        let path = Self::path(dir);
        let failed = |source| OpenError::Watermark { path: path.clone(), source };
        let file = OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&path);
        let file = file.map_err(failed)?;
        if file.metadata().map_err(failed)?.len() == 0 {
            return Ok((Self { file, sequence: 0, mark: Mark::default() }, None));
        }
        let slots = [0, 1].map(|slot| read_slot(&file, slot));
        let slots = slots.into_iter().collect::<io::Result<Vec<_>>>().map_err(failed)?;
        let Some((sequence, mark)) = slots.into_iter().flatten().max_by_key(|(sequence, _)| *sequence) else {
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, "neither of its slots is whole")));
        };
        Ok((Self { file, sequence, mark }, Some(mark)))
    }

    /// Writes the mark, for when this process ends.
    pub(super) fn write(&mut self, mark: Mark) -> io::Result<()> {
        self.sequence += 1;
        self.mark = mark;
        let numbers = [self.sequence, mark.log, mark.state, mark.votes];
        let mut slot = MAGIC.to_vec();
        slot.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        slot.extend_from_slice(&crc32c::crc32c(&slot).to_le_bytes());
        self.file.write_all_at(&slot, (self.sequence % 2) * SLOT_DISTANCE)
    }

    /// Takes the log's mark back, before entries from `log` on are deleted. Survives a power cut, so it says nothing of
    /// the rest but what was durable before.
    pub(super) fn lower(&mut self, log: u64) -> io::Result<()> {
        self.write(Mark { log: self.mark.log.min(log), ..self.mark })?;
        self.sync()
    }

    /// Makes the mark survive a power cut as well.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// `None` when the slot is not whole.
fn read_slot(file: &File, slot: u64) -> io::Result<Option<(u64, Mark)>> {
    let mut bytes = [0; SLOT_BYTES];
    match file.read_exact_at(&mut bytes, slot * SLOT_DISTANCE) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let Some((content, checksum)) = bytes.split_last_chunk::<4>() else {
        return Ok(None);
    };
    let Some(numbers) = content.strip_prefix(MAGIC) else {
        return Ok(None);
    };
    if u32::from_le_bytes(*checksum) != crc32c::crc32c(content) {
        return Ok(None);
    }
    let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| u64::from_le_bytes(*bytes));
    let mut next = || numbers.next().unwrap_or_default();
    Ok(Some((next(), Mark { log: next(), state: next(), votes: next() })))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(number: u64) -> Mark {
        Mark { log: number, state: number + 1, votes: number + 2 }
    }

    fn read(dir: &Path) -> Result<Option<Mark>, OpenError> {
        Watermark::open(dir).map(|(_, mark)| mark)
    }

    #[test]
    fn the_newest_mark_is_read_and_one_torn_slot_leaves_the_one_before() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (mut watermark, first) = Watermark::open(dir.path()).expect("open");
        assert_eq!(first, None);
        assert_eq!(read(dir.path()).expect("open"), None);
        for number in 1..=5 {
            watermark.write(mark(number)).expect("write");
            assert_eq!(read(dir.path()).expect("open"), Some(mark(number)));
        }
        let file = OpenOptions::new().write(true).open(Watermark::path(dir.path())).expect("open");
        file.write_all_at(b"torn", SLOT_DISTANCE + 30).expect("write");
        assert_eq!(read(dir.path()).expect("open"), Some(mark(4)));
        file.write_all_at(b"torn", 30).expect("write");
        assert!(matches!(read(dir.path()), Err(OpenError::Watermark { .. })));
    }
}
