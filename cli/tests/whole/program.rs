//! The program under test, in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// How long `dev` may take until it serves: a debug build on a busy machine takes seconds.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long it may take to end: longer than its own bounds.
const STOP_TIMEOUT: Duration = Duration::from_secs(45);

/// What a command did.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What a test expects to see.
pub(crate) fn seen(code: i32, stdout: &str, stderr: &str) -> Seen {
    Seen { code: Some(code), stdout: stdout.to_owned(), stderr: stderr.to_owned() }
}

/// A folder in which commands run.
pub(crate) struct Folder {
    directory: TempDir,
}

/// A running `gantry dev`; dropping it kills it.
pub(crate) struct Dev {
    child: Child,
    pub(crate) ready: Value,
}

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder { directory: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path().join(name), text).expect("a file");
    }

    /// Runs `gantry` to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Seen {
        self.run_with(arguments, "")
    }

    /// Runs `gantry` to its end, with a text on standard input.
    pub(crate) fn run_with(&self, arguments: &[&str], input: &str) -> Seen {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().expect("gantry");
        // A command that reads nothing may have ended already.
        let _ = child.stdin.take().expect("its input").write_all(input.as_bytes());
        let output = child.wait_with_output().expect("its output");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Seen { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) }
    }

    /// Starts `gantry dev` on free ports and waits until it serves.
    pub(crate) fn dev(&self, arguments: &[&str]) -> Dev {
        let fixed = ["dev", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--output", "json"];
        let mut child = self.command(&[&fixed, arguments].concat()).spawn().expect("gantry dev");
        let stdout = child.stdout.take().expect("its output");
        let mut stderr = child.stderr.take().expect("its talk");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut line = String::new();
            let _ = BufReader::new(stdout).read_line(&mut line);
            let _ = sender.send(line);
        });
        let talk = thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let line = receiver.recv_timeout(START_TIMEOUT).unwrap_or_default();
        match serde_json::from_str(&line) {
            Ok(ready) => Dev { child, ready },
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                panic!("no first line ({error}): {line:?}\n{}", talk.join().unwrap_or_default());
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gantry"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("GANTRY_") {
                command.env_remove(name);
            }
        }
        command
            .args(arguments)
            .current_dir(self.path())
            .env("HOME", self.path())
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

impl Dev {
    /// A text of the first line.
    pub(crate) fn text(&self, field: &str) -> String {
        self.ready[field].as_str().unwrap_or_default().to_owned()
    }

    /// Asks it to end, as a service manager does, and waits until it has.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = self.child.id().to_string();
        let asked = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(asked.success());
        let deadline = Instant::now() + STOP_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait().expect("its status") {
                return status;
            }
            assert!(Instant::now() < deadline, "gantry dev does not end");
            thread::yield_now();
        }
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks until something is as it should be, at most for a time.
pub(crate) fn eventually(limit: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        if holds() {
            return true;
        }
        if Instant::now() >= deadline {
            return false;
        }
    }
}
