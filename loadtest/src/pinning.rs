//! Which core does what: the gateway alone on one, the driver and the upstream on the other, so
//! that neither takes processor time from the other.
//!
//! What always holds: either all processes of a run are pinned or none is, and the report says
//! which. Pinning is done by `taskset`, because doing it here would need unsafe code.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command as BlockingCommand, Stdio},
};

use tokio::process::Command;

/// Directories of system programs that an ordinary user's `PATH` may lack.
const SYSTEM_DIRECTORIES: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/bin"];
/// How late the kernel may wake the driver, in nanoseconds; 50,000 unless told, as much as a call
/// takes.
const TIMER_SLACK_NANOSECONDS: &str = "1000";

/// What a core is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Core {
    /// What is measured.
    Gateway,
    /// The driver and the upstream.
    Load,
}

/// Whether processes are pinned to cores.
#[derive(Clone, Debug)]
pub struct Pinning {
    taskset: Option<PathBuf>,
}

impl Core {
    fn number(self) -> &'static str {
        match self {
            Self::Gateway => "0",
            Self::Load => "1",
        }
    }
}

impl Pinning {
    /// Pins this process to the load core, if that is possible, and sharpens its timers.
    ///
    /// Threads that run already are pinned too; call it before starting others all the same,
    /// since only new threads inherit the timers.
    #[must_use]
    pub fn of_this_process() -> Self {
        // Where this is refused, latencies at a fixed rate are some 0.05 ms higher for all targets.
        let _ = std::fs::write("/proc/self/timerslack_ns", TIMER_SLACK_NANOSECONDS);
        let taskset = find_program("taskset").filter(|taskset| {
            // Trying the other core first shows that both can be used.
            [Core::Gateway, Core::Load].into_iter().all(|core| pin_this_process(taskset, core))
        });
        Self { taskset }
    }

    /// No pinning.
    #[must_use]
    pub fn none() -> Self {
        Self { taskset: None }
    }

    /// Whether processes are pinned.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.taskset.is_some()
    }

    /// A command that runs `program` on `core`; the process that it starts is `program` itself.
    #[must_use]
    pub fn command(&self, core: Core, program: &Path) -> Command {
        let Some(taskset) = &self.taskset else {
            return Command::new(program);
        };
        let mut command = Command::new(taskset);
        command.args([OsStr::new("-c"), OsStr::new(core.number()), program.as_os_str()]);
        command
    }
}

/// The path of a program in `PATH` or in the system's directories.
#[must_use]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(SYSTEM_DIRECTORIES.map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| candidate.is_file())
}

fn pin_this_process(taskset: &Path, core: Core) -> bool {
    BlockingCommand::new(taskset)
        .args(["-a", "-c", "-p", core.number(), &std::process::id().to_string()])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
