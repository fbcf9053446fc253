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
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::splice::{Part, splice};
use super::{Call, Line};
use crate::mcp::json;
use crate::mcp::message::{Id, Kind};

/// Calls under way at one process.
const PENDING_MAX: usize = 1_024;
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
    pending: HashMap<u64, Pending>,
    next: u64,
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
        calls: mpsc::Receiver<Call>,
        stop: CancellationToken,
    ) -> Process {
        Process { server, command, environment, calls, stop, pending: HashMap::new(), next: 1 }
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
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return;
        };
        let logging = tokio::spawn(log_lines(self.server.clone(), errors));
        let mut lines = LineReader { output: BufReader::new(output), line: Vec::new() };
        loop {
            tokio::select! {
                () = self.stop.cancelled() => break,
                call = self.calls.recv() => match call {
                    None => break,
                    Some(call) => if self.send(&mut input, call).await.is_err() { break },
                },
                line = lines.next() => match line {
                    Some(line) => if self.take(&mut input, &line).await.is_err() { break },
                    None => break,
                },
            }
        }
        drop(input);
        if !self.stop.is_cancelled() {
            tracing::warn!(server = %self.server, "server's process ended");
        }
        let _ = child.kill().await;
        logging.abort();
    }

    async fn send(&mut self, input: &mut ChildStdin, call: Call) -> std::io::Result<()> {
        self.forget_left(input).await?;
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
        input.write_all(&line).await
    }

    /// Calls whose callers left are cancelled at the server and forgotten.
    async fn forget_left(&mut self, input: &mut ChildStdin) -> std::io::Result<()> {
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
            input.write_all(format!("{cancel}\n").as_bytes()).await?;
        }
        Ok(())
    }

    /// Takes a line that the process wrote.
    async fn take(&mut self, input: &mut ChildStdin, line: &Bytes) -> std::io::Result<()> {
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
                input.write_all(format!("{answer}\n").as_bytes()).await?;
            }
            (Some(id), None) => {
                let number = id.get().parse().ok();
                if let Some(pending) = number.and_then(|number: u64| self.pending.remove(&number)) {
                    let old = line.slice_ref(id.get().as_bytes());
                    let answer = splice(line, vec![Part { old: &old, new: text_of(&pending.id.0) }]);
                    // Progress may fill the channel; the answer must not be lost behind it.
                    let _ =
                        tokio::time::timeout(BACKOFF_MAX, pending.answer.send(Line::Answer(answer.into())))
                            .await;
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
        let _ = pending.answer.try_send(Line::Progress(event.into()));
    }
}

const FIELDS: [&str; 5] = ["id", "method", "params", "result", "error"];

fn text_of(raw: &Bytes) -> String {
    String::from_utf8_lossy(raw).into_owned()
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

async fn log_lines(server: ServerName, errors: tokio::process::ChildStderr) {
    let mut errors = BufReader::new(errors);
    let mut line = Vec::new();
    while let Ok(1..) = (&mut errors).take(LOG_BYTES_MAX).read_until(b'\n', &mut line).await {
        tracing::info!(%server, line = %String::from_utf8_lossy(line.trim_ascii_end()), "server's standard error");
        line.clear();
    }
}
