//! A running process as its callers see it: lines go in, and what comes out is brought to whom it concerns.
//!
//! Always holds: one task reads the process's output and ends the process; a message is one line; requests under way,
//! lines that wait for the process, and the length of a line are bounded. When the process ends, every request under
//! way ends with it. A request whose caller left is cancelled at once. Ids are the callers': no two may be the same.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gantry_model::ServerName;
use serde_json::value::RawValue;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;

use crate::mcp::json;
use crate::rejection::Upstream;
use crate::upstream::exchange::{Event, Exchange, MESSAGE_BYTES_MAX, read_messages};
use crate::upstream::router::Router;
use crate::upstream::stdio::Program;
use crate::upstream::stdio::child::{self, Child, Ends};
use crate::upstream::stdio::log::log_lines;
use crate::upstream::stdio::places::Place;

/// Lines that may wait for a process to read them; when so many wait, it is taken to be stuck and ended.
const INPUT_MAX: usize = 1_024;
/// Bytes of those lines: a few of the longest messages that agents may send.
const INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long what a process wrote before it ended is read; a child of it that left the group could keep it open.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// A handle to a process, which ends when the last one is dropped.
pub(crate) struct Pipe {
    input: Input,
    router: Arc<Router>,
    left: Arc<Notify>,
    /// Cancelled when the process is to end, or has ended.
    stop: CancellationToken,
    /// From its start to its end.
    started: Instant,
    ended: Arc<OnceLock<Instant>>,
    /// Cancelled when its task is done.
    gone: CancellationToken,
    _end: DropGuard,
}

/// Lines for the process, written by a task of their own: a process that does not read while it writes would
/// otherwise wait for us, and we for it.
#[derive(Clone)]
struct Input {
    lines: mpsc::Sender<Bytes>,
    bytes: Arc<AtomicUsize>,
}

/// The process does not read what it is sent.
#[derive(Debug)]
struct Stuck;

/// What the task of a process has.
struct Keeper {
    server: ServerName,
    child: Child,
    place: Place,
    lines: LineReader,
    input: Input,
    writing: AbortOnDropHandle<()>,
    router: Arc<Router>,
    left: Arc<Notify>,
    stop: CancellationToken,
    ended: Arc<OnceLock<Instant>>,
    _gone: DropGuard,
}

impl Pipe {
    /// Starts a process; also returns what it sends that belongs to no request.
    pub(super) fn start(
        program: &Program,
        place: Place,
    ) -> std::io::Result<(Arc<Pipe>, mpsc::Receiver<Event>)> {
        let (child, Ends { input: stdin, output, errors }) = child::start(program)?;
        let (router, unbound) = Router::new();
        let (router, left, ended) = (Arc::new(router), Arc::<Notify>::default(), Arc::default());
        let (stop, gone) = (program.yard.stop.child_token(), CancellationToken::new());
        let (lines, queued) = mpsc::channel(INPUT_MAX);
        let input = Input { lines, bytes: Arc::default() };
        let writing = tokio::spawn(write_lines(stdin, queued, input.bytes.clone(), stop.clone()));
        let logging = AbortOnDropHandle::new(tokio::spawn(log_lines(program.server.clone(), errors)));
        let keeper = Keeper {
            server: program.server.clone(),
            child,
            place,
            lines: LineReader { output: BufReader::new(output), line: Vec::new() },
            input: input.clone(),
            writing: AbortOnDropHandle::new(writing),
            router: router.clone(),
            left: left.clone(),
            stop: stop.clone(),
            ended: Arc::clone(&ended),
            _gone: gone.clone().drop_guard(),
        };
        program.yard.tasks.spawn(async move {
            keeper.run().await;
            drop(logging);
        });
        let end = stop.clone().drop_guard();
        let started = Instant::now();
        Ok((Arc::new(Pipe { input, router, left, stop, started, ended, gone, _end: end }), unbound))
    }

    /// Sends a request whose id is not in use. Fails before anything was sent.
    pub(crate) fn ask(self: &Arc<Self>, id: u64, body: &Bytes) -> Result<Exchange, Upstream> {
        let events = self.router.open(id).map_err(|_| Upstream::Busy)?;
        // After the request was opened, so that either we see the end, or the end sees the request.
        if self.is_over() || self.put(body).is_err() {
            self.router.close(id);
            return Err(Upstream::Unreachable);
        }
        Ok(Exchange::of_process(events, self.clone()))
    }

    /// Sends what wants no answer.
    pub(crate) fn tell(&self, message: &Bytes) -> Result<(), Upstream> {
        if self.is_over() {
            return Err(Upstream::Unreachable);
        }
        self.put(message).map_err(|_| Upstream::Unreachable)
    }

    /// Whether the process has ended, or was asked to.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Waits until the process has ended, or was asked to.
    pub(crate) async fn ended(&self) {
        self.stop.cancelled().await;
    }

    /// Ends the process; returns when it has ended and what it had started was killed. It ends as well when this is dropped early.
    pub(crate) async fn close(&self) {
        self.stop.cancel();
        self.gone.cancelled().await;
    }

    /// The reader of a request's events was dropped.
    pub(crate) fn caller_left(&self) {
        self.left.notify_one();
    }

    /// How long the process ran, and when it ended; for one that is over.
    pub(super) fn life(&self) -> (Duration, Instant) {
        let ended = self.ended.get().copied().unwrap_or_else(Instant::now);
        (ended.saturating_duration_since(self.started), ended)
    }

    fn put(&self, message: &Bytes) -> Result<(), Stuck> {
        // A stuck process is of no use to anybody: it is ended.
        self.input.put(message).inspect_err(|_| self.stop.cancel())
    }
}

impl Input {
    fn put(&self, message: &Bytes) -> Result<(), Stuck> {
        let line = one_line(message);
        let length = line.len();
        if self.bytes.fetch_add(length, Ordering::AcqRel).saturating_add(length) > INPUT_BYTES_MAX {
            self.bytes.fetch_sub(length, Ordering::AcqRel);
            return Err(Stuck);
        }
        self.lines.try_send(line).map_err(|_| Stuck)
    }
}

impl Keeper {
    /// Reads until either side ends, and ends the process.
    async fn run(mut self) {
        let reason = self.serve().await;
        if !self.stop.is_cancelled() {
            tracing::warn!(server = %self.server, reason, "server's process ended");
        }
        let _ = self.ended.set(Instant::now());
        self.stop.cancel();
        self.router.end_all();
        self.place.ending();
        let Keeper { child, writing, mut lines, place, .. } = self;
        child.end(&mut lines.output, || writing.abort()).await;
        drop(place);
    }

    /// Returns why it ended.
    async fn serve(&mut self) -> &'static str {
        loop {
            let taken = tokio::select! {
                () = self.stop.cancelled() => return "it was asked to",
                () = self.left.notified() => self.cancel_left(),
                () = self.child.ended() => {
                    self.last_words().await;
                    return "it exited";
                }
                line = self.lines.next() => match line {
                    Some(line) => self.take(&line),
                    None => return "it closed its output, or wrote a line that is too long",
                },
            };
            if taken.is_err() {
                return "it does not read its input";
            }
        }
    }

    /// What the process wrote before it exited counts.
    async fn last_words(&mut self) {
        self.child.kill_rest();
        let _ = tokio::time::timeout(LAST_WORDS_TIMEOUT, async {
            while let Some(line) = self.lines.next().await {
                // There is nobody to answer any more.
                let _ = self.take(&line);
            }
        })
        .await;
    }

    /// Requests whose callers left are cancelled.
    fn cancel_left(&self) -> Result<(), Stuck> {
        for id in self.router.forget_left() {
            let note = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{id}}}}}"#
            );
            self.input.put(&note.into())?;
        }
        Ok(())
    }

    /// Takes a line that the process wrote.
    fn take(&self, line: &Bytes) -> Result<(), Stuck> {
        let mut events = VecDeque::new();
        read_messages(line, &mut events);
        if events.is_empty() {
            tracing::warn!(server = %self.server, bytes = line.len(), "server wrote a line that is no message");
        }
        for event in events {
            match &event {
                Event::Request { id, message } if is_ping(message) => {
                    self.answer(id, r#""result":{}"#)?;
                }
                Event::Request { id, .. } => {
                    let id = id.clone();
                    // A server is not left waiting for what nobody will answer.
                    if !self.router.route(event) {
                        self.answer(&id, r#""error":{"code":-32601,"message":"nobody answers this"}"#)?;
                    }
                }
                Event::Notification(_) | Event::Answer(_) => {
                    self.router.route(event);
                }
            }
        }
        Ok(())
    }

    fn answer(&self, id: &Bytes, outcome: &str) -> Result<(), Stuck> {
        let id = String::from_utf8_lossy(id);
        self.input.put(&format!(r#"{{"jsonrpc":"2.0","id":{id},{outcome}}}"#).into())
    }
}

fn is_ping(message: &Bytes) -> bool {
    let fields = std::str::from_utf8(message).ok().map(|text| json::fields(text, &["method"]));
    matches!(fields, Some(Ok([Some(method)])) if RawValue::get(method) == "\"ping\"")
}

/// A message with the line break at its end. Line breaks stand only between tokens of JSON, never within a string.
fn one_line(message: &Bytes) -> Bytes {
    let mut line = Vec::with_capacity(message.len() + 1);
    line.extend(message.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    line.push(b'\n');
    line.into()
}

struct LineReader {
    output: BufReader<ChildStdout>,
    line: Vec<u8>,
}

impl LineReader {
    /// The next line; `None` at the end, on a read error, and on a line beyond the limit. May be dropped and called
    /// again: what was read of a line is kept.
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            let room = (MESSAGE_BYTES_MAX - self.line.len()) as u64;
            let read = (&mut self.output).take(room).read_until(b'\n', &mut self.line).await.ok()?;
            if read == 0 {
                return None;
            }
            if self.line.ends_with(b"\n") {
                let line = Bytes::from(std::mem::take(&mut self.line));
                if !line.trim_ascii().is_empty() {
                    return Some(line.slice(..line.len() - 1));
                }
            }
        }
    }
}

/// Writes what is queued; at the end of it, or when the process is to end, closes the process's input.
async fn write_lines(
    mut stdin: ChildStdin,
    mut queued: mpsc::Receiver<Bytes>,
    bytes: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    loop {
        let line = tokio::select! {
            biased;
            line = queued.recv() => line,
            () = stop.cancelled() => None,
        };
        let Some(line) = line else { return };
        if stdin.write_all(&line).await.is_err() {
            return;
        }
        bytes.fetch_sub(line.len(), Ordering::AcqRel);
    }
}
