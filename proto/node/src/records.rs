//! Audit records of a process: from a queue to a file, by a thread of its own, and a copy of each to whoever reports them.
//!
//! Always holds: records are written in the order in which their entries were closed, a record
//! waits a few milliseconds for its turn. A record that cannot be written is counted and said in the log. Files rotate by
//! size; the oldest go.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::mpsc;

/// Size at which a file is put aside, in bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;
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
        let mut options = OpenOptions::new();
        options.create(true).append(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(&path)?;
        let size = file.metadata()?.len();
        Ok(Log { path, file, size })
    }

    fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        if self.size >= FILE_BYTES_MAX {
            self.rotate()?;
        }
        self.file.write_all(batch)?;
        self.size += batch.len() as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        let aside = |number: u32| self.path.with_extension(format!("jsonl.{number}"));
        for number in (1..FILES_KEPT).rev() {
            match std::fs::rename(aside(number), aside(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        std::fs::rename(&self.path, aside(1))?;
        *self = Log::open(self.path.clone())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
