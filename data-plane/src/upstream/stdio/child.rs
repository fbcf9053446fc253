//! One child process of the system: how it starts, what it may use, and how it ends.
//!
//! Always holds: it has a process group of its own, and the whole group is killed when the process ended or its
//! owner is dropped, so that no child of a server outlives it (one that leaves the group on purpose does). It
//! inherits the variables of [`INHERITED`] and nothing else of the node's environment. Limits are set right after the
//! start, before the process was sent anything; what it starts later inherits them. Where the system has no call for
//! that (anything but Linux), only a limit of memory that was asked for is refused.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncRead;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};

use crate::upstream::stdio::Program;

/// From the closing of its input to SIGTERM.
pub(super) const TERMINATE_AFTER: Duration = Duration::from_secs(2);
/// From the closing of its input to SIGKILL.
pub(super) const KILL_AFTER: Duration = Duration::from_secs(5);
/// Files that a process may have open: the usual soft limit of a login.
#[cfg(target_os = "linux")]
const FILES_MAX: u64 = 1_024;
/// Variables that a process inherits.
const INHERITED: [&str; 8] = ["PATH", "HOME", "USER", "LANG", "LC_ALL", "TERM", "TMPDIR", "SHELL"];

/// A running process. Dropped, its group is killed.
pub(super) struct Child {
    process: tokio::process::Child,
    /// `None` once the group was killed after the end of the process.
    group: Option<Pid>,
}

/// What is connected to a process.
pub(super) struct Ends {
    pub(super) input: ChildStdin,
    pub(super) output: ChildStdout,
    pub(super) errors: ChildStderr,
}

/// Starts a program.
pub(super) fn start(program: &Program) -> io::Result<(Child, Ends)> {
    let (name, arguments) =
        program.command.split_first().ok_or_else(|| io::Error::other("the command is empty"))?;
    let mut command = std::process::Command::new(name);
    command.args(arguments).env_clear().process_group(0);
    command.envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.envs(&program.environment);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut process = Command::from(command).spawn()?;
    let id = process.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let child = &mut process;
    let (input, output, errors) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    // From here on, a failure kills what was started.
    let child = Child { process, group: id };
    let (Some(id), Some(input), Some(output), Some(errors)) = (id, input, output, errors) else {
        return Err(io::Error::other("the process has no id or no pipes"));
    };
    limit(id, program.limits.memory_mb)?;
    Ok((child, Ends { input, output, errors }))
}

impl Child {
    /// Returns when the process has ended. May be dropped and called again.
    pub(super) async fn ended(&mut self) {
        // An error means that there is nothing to wait for.
        let _ = self.process.wait().await;
    }

    /// Kills what is left of the group of a process that has ended.
    pub(super) fn kill_rest(&mut self) {
        // The number of a group is not given away while the group has members, and a group without any is not
        // found: so close to its end, nobody else has its number.
        self.signal(Signal::KILL);
        self.group = None;
    }

    /// Ends the process whose input is being closed: waits, asks, and kills. Its output is read until then, so that
    /// it can end by itself.
    pub(super) async fn end(mut self, output: &mut (impl AsyncRead + Unpin), close_input: impl FnOnce()) {
        let mut sink = tokio::io::sink();
        let ending = async {
            if tokio::time::timeout(TERMINATE_AFTER, self.ended()).await.is_ok() {
                return;
            }
            // It does not read its input, or does not care.
            close_input();
            self.signal(Signal::TERM);
            if tokio::time::timeout(KILL_AFTER - TERMINATE_AFTER, self.ended()).await.is_ok() {
                return;
            }
            self.signal(Signal::KILL);
            self.ended().await;
        };
        let reading = async {
            let _ = tokio::io::copy(output, &mut sink).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = ending => {}
            () = reading => {}
        }
        self.kill_rest();
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // The only failure is that nobody is left.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

#[cfg(target_os = "linux")]
fn limit(process: Pid, memory_mb: Option<u32>) -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

    let both = |value: u64| Rlimit { current: Some(value), maximum: Some(value) };
    let files = getrlimit(Resource::Nofile).maximum.map_or(FILES_MAX, |own| own.min(FILES_MAX));
    prlimit(Some(process), Resource::Nofile, both(files))?;
    // A dump of a server's memory holds the secrets that were sent to it.
    prlimit(Some(process), Resource::Core, both(0))?;
    if let Some(memory_mb) = memory_mb {
        prlimit(Some(process), Resource::As, both(u64::from(memory_mb) * 1024 * 1024))?;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn limit(_process: Pid, memory_mb: Option<u32>) -> io::Result<()> {
    match memory_mb {
        None => Ok(()),
        Some(_) => Err(io::Error::other("memory_mb is kept on Linux only")),
    }
}
