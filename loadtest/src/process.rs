//! The processes of a run: started in their own folder, measured from outside, stopped by id.
//!
//! What always holds: processor time and memory are those of a process and all its descendants,
//! dead children included; only processes that were started here are ever stopped.
//! Linux only: it reads `/proc`.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncRead, BufReader},
    process::{Child, Command},
    task::JoinHandle,
};

/// The first line of a process's output is a small JSON object.
const LINE_BYTES_MAX: u64 = 64 * 1_024;
/// How long a process may take to say that it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a process may take to end by itself.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);
/// How much of its own words is shown when a process fails.
const WORDS_CHARS_MAX: usize = 600;
/// Linux has shown this unit to programs on every architecture for decades.
const TICKS_PER_SECOND_USUAL: u64 = 100;
const NANOSECONDS_PER_SECOND: u64 = 1_000_000_000;

/// A running process with its output in files of its own.
#[derive(Debug)]
pub struct Process {
    child: Child,
    id: u32,
    stderr: PathBuf,
    /// Reads and drops what it prints after its first line.
    drain: Option<JoinHandle<()>>,
}

/// Why a process did not start.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Starting it or its files failed.
    #[error("cannot start {program}")]
    Start {
        /// The program.
        program: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// It ended, or said nothing in time.
    #[error("{program} did not become ready; its last words: {words}")]
    NotReady {
        /// The program.
        program: String,
        /// The end of its error output.
        words: String,
    },
}

/// What a process and its descendants have used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time since its start, user and system.
    pub processor: Duration,
    /// Memory that is resident now; pages that processes share count once for each.
    pub resident_kib: u64,
}

/// Reads usage in the kernel's units.
#[derive(Clone, Copy, Debug)]
pub struct Meter {
    ticks_per_second: u64,
}

impl Process {
    /// Starts `command` with its error output in `folder/NAME.log`, and without input unless the
    /// command says otherwise. It is killed if this value is dropped.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, folder: &Path, name: &str) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Start { program: name.to_owned(), source };
        let stderr = folder.join(format!("{name}.log"));
        let log = fs::File::create(&stderr).map_err(failed)?;
        let child = command.stderr(log).kill_on_drop(true).spawn().map_err(failed)?;
        let gone = || io::Error::other("it ended at once");
        let id = child.id().ok_or_else(gone).map_err(failed)?;
        Ok(Self { child, id, stderr, drain: None })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The first line that it prints, for which its output has to be piped. What it prints later
    /// is read and dropped for as long as it runs.
    ///
    /// # Errors
    /// When it ends or thirty seconds pass without a line.
    pub async fn first_line(&mut self, name: &str) -> Result<String, ProcessError> {
        let Some(stdout) = self.child.stdout.take() else {
            return Err(self.not_ready(name));
        };
        let mut stdout = BufReader::new(stdout);
        let line = tokio::time::timeout(READY_TIMEOUT, read_line(&mut stdout)).await;
        match line {
            Ok(Ok(line)) if line.ends_with('\n') => {
                // Ends with the process; a full pipe would block it.
                self.drain = Some(tokio::spawn(async move {
                    drop(tokio::io::copy(&mut stdout, &mut tokio::io::sink()).await);
                }));
                Ok(line)
            }
            _ => Err(self.not_ready(name)),
        }
    }

    /// The error that it did not become ready, with its last words.
    #[must_use]
    pub fn not_ready(&self, name: &str) -> ProcessError {
        let words = fs::read(&self.stderr).unwrap_or_default();
        let words = String::from_utf8_lossy(&words);
        let surplus = words.chars().count().saturating_sub(WORDS_CHARS_MAX);
        let words = words.chars().skip(surplus).collect::<String>().trim().to_owned();
        ProcessError::NotReady { program: name.to_owned(), words }
    }

    /// Kills it (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(mut self) -> io::Result<ExitStatus> {
        self.child.start_kill()?;
        self.child.wait().await
    }

    /// Asks it to end (SIGTERM, or the end of its input), and kills it if it does not.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(mut self) -> io::Result<ExitStatus> {
        drop(self.child.stdin.take());
        // The shell's own `kill`, because sending a signal from here would need unsafe code. The
        // process is not reaped yet, so the id is still its own.
        Command::new("/bin/sh")
            .args(["-c", "kill -TERM \"$1\"", "sh", &self.id.to_string()])
            .stderr(Stdio::null())
            .status()
            .await?;
        let status = match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => status,
            Err(_) => {
                self.child.start_kill()?;
                self.child.wait().await
            }
        };
        // A grandchild that lives on would hold the pipe open; it is not waited for.
        if let Some(drain) = self.drain.take() {
            drain.abort();
        }
        status
    }
}

impl Meter {
    /// Asks the system for its unit of processor time.
    #[must_use]
    pub fn of_this_machine() -> Self {
        let output = std::process::Command::new("getconf").arg("CLK_TCK").output();
        let ticks = output
            .ok()
            .and_then(|output| String::from_utf8(output.stdout).ok()?.trim().parse().ok())
            .filter(|ticks| *ticks > 0);
        Self { ticks_per_second: ticks.unwrap_or(TICKS_PER_SECOND_USUAL) }
    }

    /// Processor time that all processes of the machine have used since it started, and what the
    /// machine's host has taken from it.
    ///
    /// # Errors
    /// When `/proc` cannot be read.
    pub fn whole_machine(&self) -> io::Result<Duration> {
        let text = fs::read_to_string("/proc/stat")?;
        let unreadable = || io::Error::new(io::ErrorKind::InvalidData, "/proc/stat is not understood");
        Ok(self.duration(parse_machine_ticks(&text).ok_or_else(unreadable)?))
    }

    fn duration(&self, ticks: u64) -> Duration {
        Duration::from_nanos(ticks.saturating_mul(NANOSECONDS_PER_SECOND) / self.ticks_per_second)
    }

    /// What the process `root` and its descendants have used.
    ///
    /// # Errors
    /// When the process does not exist or `/proc` cannot be read.
    pub fn usage(&self, root: u32) -> io::Result<Usage> {
        let stats = all_stats()?;
        if !stats.contains_key(&root) {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the process has ended"));
        }
        let mut ticks = 0;
        let mut resident_kib = 0;
        let mut open = vec![root];
        while let Some(id) = open.pop() {
            ticks += stats.get(&id).map_or(0, |stat| stat.ticks);
            resident_kib += resident_kib_of(id);
            open.extend(stats.iter().filter(|(_, stat)| stat.parent == id).map(|(id, _)| *id));
        }
        Ok(Usage { processor: self.duration(ticks), resident_kib })
    }
}

struct Stat {
    parent: u32,
    /// User and system time, its own and that of children that it has waited for.
    ticks: u64,
}

fn all_stats() -> io::Result<HashMap<u32, Stat>> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // A process may end between the two reads.
        let text = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        if let Some(stat) = parse_stat(&text) {
            stats.insert(id, stat);
        }
    }
    Ok(stats)
}

/// proc(5): after the name in parentheses, the parent is field 4 and the times are 14 to 17.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let parent = fields.get(1)?.parse().ok()?;
    let ticks: Option<Vec<u64>> = fields.get(11..15)?.iter().map(|field| field.parse().ok()).collect();
    Some(Stat { parent, ticks: ticks?.into_iter().sum() })
}

/// proc(5): the first line is `cpu` with user, nice, system, idle, iowait, irq, softirq and steal.
fn parse_machine_ticks(text: &str) -> Option<u64> {
    let line = text.lines().next()?.strip_prefix("cpu ")?;
    let ticks: Option<Vec<u64>> =
        line.split_ascii_whitespace().take(8).map(|field| field.parse().ok()).collect();
    let ticks = ticks?;
    Some(ticks.get(..3)?.iter().sum::<u64>() + ticks.get(5..8)?.iter().sum::<u64>())
}

fn resident_kib_of(id: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_ascii_whitespace().next());
    number.and_then(|number| number.parse().ok()).unwrap_or(0)
}

async fn read_line(stdout: &mut (impl AsyncRead + AsyncBufReadExt + Unpin)) -> io::Result<String> {
    let mut line = String::new();
    let mut bounded = tokio::io::AsyncReadExt::take(stdout, LINE_BYTES_MAX);
    bounded.read_line(&mut line).await?;
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) S 7 1 1 0 -1 0 10 11 12 13 100 20 3 4 20 0 1 0 99 0 0";
        let stat = parse_stat(text).expect("the test is right");
        assert_eq!((stat.parent, stat.ticks), (7, 127));
    }

    #[test]
    fn idle_time_is_not_used_time() {
        let text = "cpu  1 2 4 1000 2000 8 16 32 64 128\ncpu0 1 2 4 1000 2000 8 16 32 64 128\n";
        assert_eq!(parse_machine_ticks(text), Some(63));
        assert_eq!(parse_machine_ticks("intr 1"), None);
    }

    #[test]
    fn the_usage_of_this_process_is_readable_and_grows() {
        let meter = Meter::of_this_machine();
        let before = meter.usage(std::process::id()).expect("the test is right");
        assert!(before.resident_kib > 100);
        let mut sum = 0_u64;
        while meter.usage(std::process::id()).expect("the test is right").processor <= before.processor {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
    }

    #[test]
    fn a_process_that_does_not_exist_has_no_usage() {
        let usage = Meter::of_this_machine().usage(u32::MAX);
        assert_eq!(usage.map_err(|error| error.kind()), Err(io::ErrorKind::NotFound));
    }
}
