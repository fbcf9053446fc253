//! Audit records of a process: from a queue to a file, by a thread of its own, and a copy of each to whoever reports them.
//!
//! Always holds: records are written in the order in which their entries were closed; a record waits a few milliseconds
//! for its turn. What cannot be written is said in the log, with its size. Files rotate by size, and the oldest go; where
//! that fails, the current file grows on and nothing is lost by it.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use crate::owner_only;

/// Size at which a file is put aside, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// How much more is written to a full file before it is tried once more to put it aside.
const RETRY_BYTES: u64 = 1024 * 1024;
/// Files kept besides the current one: 2 GiB of records in all.
const FILES_KEPT: u32 = 7;
/// Bytes collected before they are written even though more records wait.
const BATCH_BYTES: usize = 256 * 1024;
/// Pause after each batch. Waking this thread costs a request more than its record does; under load one wake-up then
/// serves all records of the pause.
const LINGER: Duration = Duration::from_millis(2);

/// The thread.
#[derive(Debug)]
pub struct Writer {
    thread: JoinHandle<()>,
}

/// The audit file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("the audit file {path} cannot be opened")]
pub struct OpenError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

struct Log {
    path: PathBuf,
    file: File,
    size: u64,
    /// The size at which it is put aside.
    full_at: u64,
}

impl Writer {
    /// Appends every record of the queue, which ends in a line feed, to the file `path`, such as `audit.jsonl`; its
    /// directory is made. `report` gets each record in the same order, and must not wait.
    pub fn start(
        path: PathBuf,
        mut records: mpsc::Receiver<Vec<u8>>,
        mut report: impl FnMut(Vec<u8>) + Send + 'static,
    ) -> Result<Writer, OpenError> {
        let failed = |source| OpenError { path: path.clone(), source };
        path.parent().map_or(Ok(()), std::fs::create_dir_all).map_err(failed)?;
        let mut log = Log::open(path.clone()).map_err(failed)?;
        let run = move || {
            while let Some(batch) = next_batch(&mut records, &mut report) {
                if let Err(error) = log.append(&batch) {
                    tracing::error!(path = %log.path.display(), %error, bytes = batch.len(), "audit records are lost");
                }
                std::thread::sleep(LINGER);
            }
        };
        let thread = std::thread::Builder::new().name("audit".to_owned()).spawn(run).map_err(failed)?;
        Ok(Writer { thread })
    }

    /// The same as [`Writer::join`], but not for longer than this. Whether it has ended; otherwise it goes on by itself, and
    /// the log says so.
    pub fn join_within(self, longest: Duration) -> bool {
        let deadline = Instant::now() + longest;
        while !self.thread.is_finished() {
            if Instant::now() >= deadline {
                tracing::warn!("the audit's last records are not written in time, and it is left behind");
                return false;
            }
            std::thread::sleep(LINGER);
        }
        self.join();
        true
    }

    /// Blocks until the queue is closed and its last record is written.
    pub fn join(self) {
        if self.thread.join().is_err() {
            tracing::error!("the audit's thread panicked");
        }
    }
}

/// Waits for a record, then takes what else is there; `None` once the queue is closed and empty.
fn next_batch(records: &mut mpsc::Receiver<Vec<u8>>, report: &mut impl FnMut(Vec<u8>)) -> Option<Vec<u8>> {
    let mut batch = Vec::new();
    let mut next = Some(records.blocking_recv()?);
    while let Some(record) = next {
        batch.extend_from_slice(&record);
        report(record);
        next = if batch.len() < BATCH_BYTES { records.try_recv().ok() } else { None };
    }
    Some(batch)
}

impl Log {
    fn open(path: PathBuf) -> io::Result<Log> {
        let file = owner_only::append(&path)?;
        let size = file.metadata()?.len();
        Ok(Log { path, file, size, full_at: FILE_BYTES_MAX })
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.size >= self.full_at
            && let Err(error) = self.rotate()
        {
            self.full_at = self.size + RETRY_BYTES;
            tracing::error!(path = %self.path.display(), %error, "the audit file is full and cannot be put aside; it grows on");
        }
        self.file.write_all(batch)?;
        self.size += batch.len() as u64;
        Ok(())
    }

    /// Puts the file aside. The next one is there before: without one, nothing is moved.
    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u32| self.path.with_extension(format!("jsonl.{number}"));
        let next = self.path.with_extension("jsonl.new");
        let file = owner_only::append(&next)?;
        // Where it is not, it was put aside before, and the next one did not take its place.
        if self.path.try_exists()? {
            for number in (1..FILES_KEPT).rev() {
                rename_if_there(&aside(number), &aside(number + 1))?;
            }
            std::fs::rename(&self.path, aside(1))?;
        }
        std::fs::rename(next, &self.path)?;
        (self.file, self.size, self.full_at) = (file, 0, FILE_BYTES_MAX);
        Ok(())
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        renamed => renamed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_the_end_waits_no_longer_than_he_says() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::tempdir()?;
        let start = || {
            let (sender, receiver) = mpsc::channel(1);
            Writer::start(folder.path().join("audit.jsonl"), receiver, drop).map(|writer| (sender, writer))
        };
        let (sender, writer) = start()?;
        assert!(!writer.join_within(Duration::from_millis(1)), "somebody may still send");
        drop(sender);
        let (sender, writer) = start()?;
        sender.blocking_send(b"{}\n".to_vec())?;
        drop(sender);
        assert!(writer.join_within(Duration::from_secs(60)));
        assert_eq!(std::fs::read(folder.path().join("audit.jsonl"))?, b"{}\n");
        Ok(())
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_oldest_goes() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let mut log = Log::open(folder.path().join("audit.jsonl"))?;
        for number in 0..=FILES_KEPT + 1 {
            log.append(format!("{number}\n").as_bytes())?;
            log.size = FILE_BYTES_MAX;
        }
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name));
        assert_eq!(read("audit.jsonl")?, format!("{}\n", FILES_KEPT + 1));
        assert_eq!(read("audit.jsonl.1")?, format!("{FILES_KEPT}\n"));
        assert_eq!(read(&format!("audit.jsonl.{FILES_KEPT}"))?, "1\n");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), FILES_KEPT as usize + 1);
        Ok(())
    }

    #[test]
    fn a_full_file_that_cannot_be_put_aside_grows_on_and_no_other_is_touched() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = |name: &str| folder.path().join(name);
        let read = |name: &str| std::fs::read_to_string(path(name));
        let mut log = Log::open(path("audit.jsonl"))?;
        std::fs::write(path("audit.jsonl.1"), "older\n")?;
        // What is in the way of the next file.
        std::fs::create_dir(path("audit.jsonl.new"))?;
        for number in 0..3 {
            log.size = FILE_BYTES_MAX + RETRY_BYTES * number;
            log.append(format!("{number}\n").as_bytes())?;
        }
        assert_eq!(
            (read("audit.jsonl")?, read("audit.jsonl.1")?),
            ("0\n1\n2\n".to_owned(), "older\n".to_owned())
        );
        std::fs::remove_dir(path("audit.jsonl.new"))?;
        log.append(b"3\n")?;
        assert_eq!(read("audit.jsonl")?, "0\n1\n2\n3\n", "it is not tried with every batch");
        log.size += RETRY_BYTES;
        log.append(b"4\n")?;
        let files = [read("audit.jsonl")?, read("audit.jsonl.1")?, read("audit.jsonl.2")?];
        assert_eq!(files, ["4\n", "0\n1\n2\n3\n", "older\n"]);
        Ok(())
    }
}
