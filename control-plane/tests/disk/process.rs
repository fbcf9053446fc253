//! A child process on a watched disk: starting it, hearing it, ending it.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};

use crate::shim::{Failure, put_under};
use crate::trace::{self, Op};

/// What marks a line of a child's own among those of the test harness.
pub(crate) const MARK: &str = "disk: ";
/// Which child a process is to be.
pub(crate) const PART: &str = "GANTRY_DISK_PART";
/// Where its data lies.
pub(crate) const DIRECTORY: &str = "GANTRY_DISK_DIRECTORY";
/// Which round it is in.
pub(crate) const ROUND: &str = "GANTRY_DISK_ROUND";

/// A running child and what it says.
pub(crate) struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    stdin: Option<ChildStdin>,
    trace: PathBuf,
    round: u64,
}

impl Process {
    /// Starts this test binary again as `part`, on `root/data`.
    pub(crate) fn start(part: &str, root: &Path, round: u64, failure: Option<Failure>) -> Self {
        let trace = root.with_extension("trace");
        let mut command = Command::new(std::env::current_exe().expect("own path"));
        command
            .args(["--exact", "child", "--nocapture"])
            .env(PART, part)
            .env(DIRECTORY, root.join("data"))
            .env(ROUND, round.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        put_under(&mut command, root, &trace, failure);
        let mut child = command.spawn().expect("start a child");
        let lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        let stdin = child.stdin.take();
        Self { child, lines, stdin, trace, round }
    }

    /// Tells it something. A child that has ended does not hear it.
    pub(crate) fn tell(&mut self, line: &str) {
        if let Some(stdin) = &mut self.stdin {
            let _ = stdin.write_all(format!("{line}\n").as_bytes()).and_then(|()| stdin.flush());
        }
    }

    /// The next of its own lines, as its first word and the rest; `None` when it has ended.
    pub(crate) fn line(&mut self) -> Option<(String, String)> {
        loop {
            let line = self.lines.next()?.expect("read");
            if let Some((_, line)) = line.split_once(MARK) {
                return Some(parted(line));
            }
        }
    }

    /// Its lines up to one that begins with `last`, without that. Fails the test when it ends before.
    pub(crate) fn lines_until(&mut self, last: &str) -> Vec<(String, String)> {
        let mut lines = Vec::new();
        while let Some(line) = self.line() {
            if line.0 == last {
                return lines;
            }
            lines.push(line);
        }
        let (round, stderr) = (self.round, self.end().1);
        panic!("round {round}: the child ended before it was {last}: {lines:?}\n{stderr}");
    }

    /// Kills it; everything that it did.
    pub(crate) fn kill(mut self) -> Vec<Op> {
        self.child.kill().expect("kill");
        while self.line().is_some() {}
        self.child.wait().expect("wait");
        trace::read(&self.trace)
    }

    /// Waits until it ends by itself: how, and what it wrote to standard error.
    pub(crate) fn end(&mut self) -> (ExitStatus, String) {
        self.stdin = None;
        let stderr = self.child.stderr.take().expect("taken once");
        let stderr = std::thread::spawn(move || std::io::read_to_string(stderr).unwrap_or_default());
        while self.line().is_some() {}
        (self.child.wait().expect("wait"), stderr.join().expect("read"))
    }

    /// Everything that it did so far.
    pub(crate) fn trace(&self) -> Vec<Op> {
        trace::read(&self.trace)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The first word of a line, and the rest.
pub(crate) fn parted(line: &str) -> (String, String) {
    let (what, rest) = line.split_once(' ').unwrap_or((line, ""));
    (what.to_owned(), rest.to_owned())
}

/// Says one whole line. Fails, and so ends the child, when nobody reads.
pub(crate) fn say(what: &str, rest: &str) {
    let mut stdout = std::io::stdout().lock();
    stdout
        .write_all(format!("{MARK}{what} {rest}\n").as_bytes())
        .and_then(|()| stdout.flush())
        .expect("stdout");
}
