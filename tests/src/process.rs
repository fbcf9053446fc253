//! Child processes with a deadline: [`run`] to the end, or [`Running`] until it is dropped.
//!
//! Every child is killed by its own id when its owner goes, and what it printed last is kept for the
//! message of a failing test. Only the direct child is killed: what it starts must end with it.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Output kept of a child that runs to its end. The longest, of the conformance suite, is 40 KiB.
const OUTPUT_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Lines kept of a child that goes on running: all that one test makes it print, at the level of traces too.
pub const TAIL_LINES_MAX: usize = 100_000;

/// Lines that may wait to be looked at before a child is ready; its output blocks beyond.
const LINES_WAITING_MAX: usize = 64;

/// The time until the rest of what a child printed that has ended is read.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// The time that `kill` may take.
const SIGNAL_TIME_MAX: Duration = Duration::from_secs(30);

/// Where a line was printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

/// What a child left behind that ran to its end.
#[derive(Debug)]
pub struct Finished {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed on standard output.
    pub stdout: String,
    /// What it printed on standard error.
    pub stderr: String,
}

/// Why a child did not do what it was started for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not there.
    #[error("{0} is not installed")]
    Missing(String),
    /// The system refused.
    #[error("cannot run {program}")]
    Io {
        /// The program that was to run.
        program: String,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// It took longer than it may.
    #[error("{program} took longer than {seconds} s\n{output}")]
    TooLong {
        /// The program that ran.
        program: String,
        /// The time it had.
        seconds: u64,
        /// What it printed last.
        output: String,
    },
    /// It ended before it was ready.
    #[error("{program} ended early: {status}\n{output}")]
    Ended {
        /// The program that ran.
        program: String,
        /// How it ended.
        status: ExitStatus,
        /// What it printed last.
        output: String,
    },
}

/// A child that goes on running; dropping it kills it.
pub struct Running {
    program: String,
    child: Child,
    tail: Tail,
    /// What reads its streams.
    reading: Vec<JoinHandle<()>>,
}

#[derive(Clone, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

/// Runs a program to its end, without input.
///
/// Dropping the future kills the child.
///
/// # Errors
/// When it cannot be started or takes longer than `time_max`. A bad exit status is no error here.
pub async fn run(command: Command, time_max: Duration) -> Result<Finished, ProcessError> {
    run_with_input(command, &[], time_max).await
}

/// As [`run`], with what the program reads from standard input. It may end without reading all of it.
///
/// # Errors
/// As [`run`].
pub async fn run_with_input(
    mut command: Command,
    input: &[u8],
    time_max: Duration,
) -> Result<Finished, ProcessError> {
    let program = program(&command);
    let child = command
        .stdin(if input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|source| spawn_error(&program, source))?;
    match timeout(time_max, collect(child, input)).await {
        Ok(finished) => finished.map_err(|source| ProcessError::Io { program, source }),
        Err(_) => Err(ProcessError::TooLong { program, seconds: time_max.as_secs(), output: String::new() }),
    }
}

async fn collect(mut child: Child, input: &[u8]) -> io::Result<Finished> {
    let stdin = write(child.stdin.take(), input);
    let stdout = read(child.stdout.take());
    let stderr = read(child.stderr.take());
    let ((), stdout, stderr, status) = tokio::try_join!(stdin, stdout, stderr, child.wait())?;
    Ok(Finished { status, stdout, stderr })
}

async fn write(stream: Option<impl AsyncWrite + Unpin>, input: &[u8]) -> io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    match stream.write_all(input).await {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(mut stream) = stream {
        (&mut stream).take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await?;
        // The rest is read and forgotten, so that the child does not wait for a reader.
        tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

impl Running {
    /// Starts a program, without input, and waits until `ready` recognises a line that it prints.
    ///
    /// # Errors
    /// When it cannot be started, ends before that line, or does not print it within `time_max`.
    pub async fn start<T>(
        mut command: Command,
        time_max: Duration,
        ready: impl Fn(Stream, &str) -> Option<T>,
    ) -> Result<(Self, T), ProcessError> {
        let program = program(&command);
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| spawn_error(&program, source))?;
        let tail = Tail::default();
        let (sender, mut lines) = mpsc::channel(LINES_WAITING_MAX);
        let reading = vec![
            follow(child.stdout.take(), Stream::Out, &tail, sender.clone()),
            follow(child.stderr.take(), Stream::Err, &tail, sender),
        ];
        let mut running = Self { program, child, tail, reading };
        let recognised = timeout(time_max, async {
            while let Some((stream, line)) = lines.recv().await {
                if let Some(found) = ready(stream, &line) {
                    return Ok(found);
                }
            }
            // Both streams are closed, so the child has ended or is about to.
            let waited = running.child.wait().await;
            Err(match waited {
                Ok(status) => ProcessError::Ended {
                    program: running.program.clone(),
                    status,
                    output: running.tail.to_string(),
                },
                Err(source) => ProcessError::Io { program: running.program.clone(), source },
            })
        })
        .await;
        match recognised {
            Ok(found) => Ok((running, found?)),
            Err(_) => Err(running.too_long(time_max)),
        }
    }

    /// The id of the process; `None` once it has been waited for.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// What the child printed last, on either stream, in the order it was read.
    #[must_use]
    pub fn output(&self) -> String {
        self.tail.to_string()
    }

    /// Kills the child the hard way (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(mut self) -> Result<(), ProcessError> {
        let killed = self.child.kill().await;
        killed.map_err(|source| self.io_error(source))
    }

    /// Asks the child to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When the child does not end within `time_max`; it is killed then.
    pub async fn terminate(mut self, time_max: Duration) -> Result<ExitStatus, ProcessError> {
        self.signal("TERM").await?;
        self.ended(time_max).await
    }

    /// Waits until the child has ended, and what it printed is read.
    ///
    /// # Errors
    /// When it does not end within `time_max`; it is killed with this value then.
    pub async fn ended(&mut self, time_max: Duration) -> Result<ExitStatus, ProcessError> {
        let Ok(status) = timeout(time_max, self.child.wait()).await else {
            return Err(self.too_long(time_max));
        };
        for reading in self.reading.drain(..) {
            // A child of the child may hold the stream open.
            let _ = timeout(READ_TIME_MAX, reading).await;
        }
        status.map_err(|source| self.io_error(source))
    }

    /// Sends the child a signal, such as `STOP`. One that has ended does not hear it.
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub async fn signal(&self, name: &str) -> Result<(), ProcessError> {
        let Some(id) = self.child.id() else { return Ok(()) };
        let mut command = Command::new("kill");
        command.args([&format!("-{name}"), &id.to_string()]);
        run(command, SIGNAL_TIME_MAX).await.map(|_| ())
    }

    fn io_error(&self, source: io::Error) -> ProcessError {
        ProcessError::Io { program: self.program.clone(), source }
    }

    fn too_long(&self, time_max: Duration) -> ProcessError {
        ProcessError::TooLong {
            program: self.program.clone(),
            seconds: time_max.as_secs(),
            output: self.tail.to_string(),
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The output is left out: it may hold the keys that a first start prints.
        formatter
            .debug_struct("Running")
            .field("program", &self.program)
            .field("id", &self.child.id())
            .finish_non_exhaustive()
    }
}

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() >= TAIL_LINES_MAX {
            lines.pop_front();
        }
        lines.push_back(line);
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| writeln!(formatter, "{line}"))
    }
}

/// Reads a stream to its end; the task ends with the child.
fn follow(
    stream: Option<impl AsyncRead + Unpin + Send + 'static>,
    name: Stream,
    tail: &Tail,
    lines: mpsc::Sender<(Stream, String)>,
) -> JoinHandle<()> {
    let tail = tail.clone();
    tokio::spawn(async move {
        let Some(stream) = stream else { return };
        let mut reader = BufReader::new(stream).lines();
        while let Ok(Some(line)) = reader.next_line().await {
            tail.push(line.clone());
            // Once the child is ready nobody looks at its lines any more.
            let _ = lines.send((name, line)).await;
        }
    })
}

fn program(command: &Command) -> String {
    let program = command.as_std().get_program();
    program.to_string_lossy().into_owned()
}

fn spawn_error(program: &str, source: io::Error) -> ProcessError {
    let program = program.to_owned();
    if source.kind() == io::ErrorKind::NotFound {
        ProcessError::Missing(program)
    } else {
        ProcessError::Io { program, source }
    }
}
