//! The task that owns a server's process: starts it, speaks to it line by line, starts it again when it ends.
//!
//! Always holds: at most [`PENDING_MAX`] calls are under way; a call whose caller left is cancelled at the server;
//! when the process ends, every call under way ends with it. What the process writes to its standard error goes to
//! the log.

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::time::Duration;

use bytes::Bytes;
use gantry_model::ServerName;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::splice::{Part, splice};
use super::{Call, Line};
use crate::mcp::VERSION_LEGACY;
use crate::mcp::json;
use crate::mcp::message::{Id, Kind};

/// Calls under way at one process.
const PENDING_MAX: usize = 1_024;
/// How long a process may take to answer `initialize`: some fetch their packages first.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);
/// Lines that a process may write before it answers `initialize`.
const HANDSHAKE_LINES_MAX: usize = 1_000;
/// Lines that may wait for a process to read them; when so many wait, it is taken to be stuck and started again.
const INPUT_MAX: usize = 1_024;
/// Longest line that a process may write, in bytes.
const LINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Longest line of a process's standard error that is logged as one.
const LOG_BYTES_MAX: u64 = 8 * 1024;
/// Pause before a process that ended is started again; doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
/// Longest pause before a start.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// A process that ran this long is taken to be sound, and its next start is immediate.
const SOUND_AFTER: Duration = Duration::from_secs(60);
/// Variables that a process inherits; everything else of the node's environment is kept from it.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL"];

pub(super) struct Process {
    server: ServerName,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    calls: mpsc::Receiver<Call>,
    stop: CancellationToken,
    initialized: watch::Sender<Option<Bytes>>,
    pending: HashMap<u64, Pending>,
    next: u64,
}

/// Lines for the process, written by a task of their own: a process that does not read while it writes would
/// otherwise wait for us, and we for it.
type Input = mpsc::Sender<Vec<u8>>;

/// The process does not read what it is sent.
#[derive(Debug)]
struct Stuck;

/// The ends of the handle's channels that the task holds.
pub(super) struct Ends {
    pub(super) calls: mpsc::Receiver<Call>,
    pub(super) stop: CancellationToken,
    /// Where the result of `initialize` stands while a process serves.
    pub(super) initialized: watch::Sender<Option<Bytes>>,
}

struct Pending {
    id: Id,
    token: Option<Bytes>,
    answer: mpsc::Sender<Line>,
}

impl Process {
    pub(super) fn new(
        server: ServerName,
        command: Vec<String>,
        environment: BTreeMap<String, String>,
        ends: Ends,
    ) -> Process {
        let Ends { calls, stop, initialized } = ends;
        Process { server, command, environment, calls, stop, initialized, pending: HashMap::new(), next: 1 }
    }

    /// Runs until the handle is dropped.
    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let mut backoff = BACKOFF_FIRST;
        while !stop.is_cancelled() {
            let started = tokio::time::Instant::now();
            match self.spawn() {
                Ok(child) => self.live(child).await,
                Err(error) => {
                    tracing::warn!(server = %self.server, program = %self.command[0], %error, "server does not start");
                }
            }
            self.initialized.send_replace(None);
            // Their callers learn of it by the closed channel.
            self.pending.clear();
            if started.elapsed() >= SOUND_AFTER {
                backoff = BACKOFF_FIRST;
            }
            let _ = tokio::time::timeout(backoff, self.refuse(stop.clone())).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    /// While no process runs, calls are refused at once instead of waiting for one.
    async fn refuse(&mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                call = self.calls.recv() => if call.is_none() { return },
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        let mut command = Command::new(&self.command[0]);
        command.args(&self.command[1..]).env_clear();
        command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(&self.environment);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        command.spawn()
    }

    async fn live(&mut self, mut child: Child) {
        let (Some(stdin), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return;
        };
        let logging = tokio::spawn(log_lines(self.server.clone(), errors));
        let (input, queued) = mpsc::channel(INPUT_MAX);
        let writing = tokio::spawn(write_lines(stdin, queued));
        let mut lines = LineReader { output: BufReader::new(output), line: Vec::new() };
        let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake(&input, &mut lines));
        match self.stop.run_until_cancelled(handshake).await {
            Some(Ok(Some(result))) => {
                self.initialized.send_replace(Some(result));
                self.exchange(&input, &mut lines).await;
            }
            Some(_) => tracing::warn!(server = %self.server, "server's process did not answer initialize"),
            None => {}
        }
        drop(input);
        if !self.stop.is_cancelled() {
            tracing::warn!(server = %self.server, "server's process ended");
        }
        let _ = child.kill().await;
        writing.abort();
        logging.abort();
    }

    /// Passes calls in and answers out, until either side ends.
    async fn exchange(&mut self, input: &Input, lines: &mut LineReader) {
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return,
                call = self.calls.recv() => match call {
                    None => return,
                    Some(call) => if self.send(input, call).is_err() { return },
                },
                line = lines.next() => match line {
                    Some(line) => if self.take(input, &line).is_err() { return },
                    None => return,
                },
            }
        }
    }

    fn send(&mut self, input: &Input, call: Call) -> Result<(), Stuck> {
        self.forget_left(input)?;
        let Call { message, answer } = call;
        let mut line = match (&message.kind, answer) {
            (Kind::Request { id, params, .. }, Some(answer)) => {
                if self.pending.len() >= PENDING_MAX {
                    // The dropped channel tells the caller.
                    return Ok(());
                }
                let number = self.next;
                self.next += 1;
                let token = params.meta.progress_token.clone();
                let mut parts = vec![Part { old: &id.0, new: number.to_string() }];
                parts.extend(token.as_ref().map(|old| Part { old, new: number.to_string() }));
                let line = splice(&message.body, parts);
                self.pending.insert(number, Pending { id: id.clone(), token, answer });
                line
            }
            _ => splice(&message.body, Vec::new()),
        };
        line.push(b'\n');
        put(input, line)
    }

    /// Calls whose callers left are cancelled at the server and forgotten.
    fn forget_left(&mut self, input: &Input) -> Result<(), Stuck> {
        let left: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, pending)| pending.answer.is_closed())
            .map(|(number, _)| *number)
            .collect();
        for number in left {
            self.pending.remove(&number);
            let cancel = format!(
                r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{number}}}}}"#
            );
            put(input, format!("{cancel}\n").into())?;
        }
        Ok(())
    }

    /// Takes a line that the process wrote.
    fn take(&mut self, input: &Input, line: &Bytes) -> Result<(), Stuck> {
        let text = json::check_text(line).ok();
        let Some(Ok([id, method, params, ..])) = text.map(|text| json::fields(text, &FIELDS)) else {
            tracing::warn!(server = %self.server, bytes = line.len(), "server wrote a line that is no message");
            return Ok(());
        };
        match (id, method) {
            (Some(id), Some(method)) => {
                // Nothing was promised that it could ask for, except that anybody may ping.
                let answer = match method.get() {
                    "\"ping\"" => format!(r#"{{"jsonrpc":"2.0","id":{},"result":{{}}}}"#, id.get()),
                    _ => format!(
                        r#"{{"jsonrpc":"2.0","id":{},"error":{{"code":-32601,"message":"not offered"}}}}"#,
                        id.get()
                    ),
                };
                put(input, format!("{answer}\n").into())?;
            }
            (Some(id), None) => {
                let number = id.get().parse().ok();
                if let Some(pending) = number.and_then(|number: u64| self.pending.remove(&number)) {
                    let old = line.slice_ref(id.get().as_bytes());
                    let answer = splice(line, vec![Part { old: &old, new: text_of(&pending.id.0) }]);
                    // Progress leaves a place free for it.
                    let _ = pending.answer.try_send(Line::Answer(answer.into()));
                }
            }
            (None, Some(method)) if method.get() == "\"notifications/progress\"" => {
                self.progress(line, params.map(|params| params.get()));
            }
            (None, _) => tracing::debug!(server = %self.server, "server's notification is not passed on"),
        }
        Ok(())
    }

    fn progress(&self, line: &Bytes, params: Option<&str>) {
        let Some(Ok([Some(token)])) = params.map(|params| json::fields(params, &["progressToken"])) else {
            return;
        };
        let number = token.get().parse().ok();
        let Some(pending) = number.and_then(|number: u64| self.pending.get(&number)) else { return };
        let Some(original) = &pending.token else { return };
        let old = line.slice_ref(token.get().as_bytes());
        let event = splice(line, vec![Part { old: &old, new: text_of(original) }]);
        // A caller that does not keep up misses progress, not the answer.
        if pending.answer.capacity() > 1 {
            let _ = pending.answer.try_send(Line::Progress(event.into()));
        }
    }
}

const FIELDS: [&str; 5] = ["id", "method", "params", "result", "error"];

fn text_of(raw: &Bytes) -> String {
    String::from_utf8_lossy(raw).into_owned()
}

/// Initialises a process that was just started: no one else does, so a process that was started again serves as the
/// one before it. Returns the result; `None` when the process ended or gave another answer.
async fn handshake(input: &Input, lines: &mut LineReader) -> Option<Bytes> {
    let initialize = json!({
        "jsonrpc": "2.0",
        "id": 0,
        "method": "initialize",
        "params": {
            "protocolVersion": VERSION_LEGACY,
            "capabilities": {},
            "clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
        },
    });
    put(input, format!("{initialize}\n").into()).ok()?;
    for _ in 0..HANDSHAKE_LINES_MAX {
        let line = lines.next().await?;
        let Ok(text) = json::check_text(&line) else { continue };
        let Ok([id, _, _, result, error]) = json::fields(text, &FIELDS) else { continue };
        if id.is_some_and(|id| id.get() == "0") && error.is_none() {
            let result = line.slice_ref(result?.get().as_bytes());
            let initialized = b"{\"jsonrpc\":\"2.0\",\"method\":\"notifications/initialized\"}\n";
            put(input, initialized.to_vec()).ok()?;
            return Some(result);
        }
    }
    None
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
            let room = LINE_BYTES_MAX.saturating_sub(self.line.len() as u64);
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

fn put(input: &Input, line: Vec<u8>) -> Result<(), Stuck> {
    input.try_send(line).map_err(|_| Stuck)
}

async fn write_lines(mut stdin: ChildStdin, mut queued: mpsc::Receiver<Vec<u8>>) {
    while let Some(line) = queued.recv().await {
        if stdin.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn log_lines(server: ServerName, errors: tokio::process::ChildStderr) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut errors).take(LOG_BYTES_MAX).read_until(b'\n', &mut line).await {
        tracing::info!(%server, line = %String::from_utf8_lossy(line.trim_ascii_end()), "server's standard error");
        line.clear();
    }
}
