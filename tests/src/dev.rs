//! `gantry dev` as a real process, built from this work tree, on free ports and in its own folder.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;
use tokio::process::Command;

use crate::process::{self, Finished, ProcessError, Running, Stream};

/// The time `dev` may take until it serves. A debug build on a busy machine takes a few seconds.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// The time `dev` may take to end once it is asked to.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// The time one admin command may take. The slowest wait for all nodes to follow.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(60);

/// How to start it.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Servers reached by URL: name and URL.
    pub servers: Vec<(String, String)>,
    /// Servers started as a child: name and command line.
    pub stdio: Vec<(String, String)>,
    /// Whether agents need no key.
    pub anonymous: bool,
    /// How many nodes run in the process; one when absent.
    pub nodes: Option<u8>,
    /// Where agents connect; a free port when absent.
    pub listen: Option<SocketAddr>,
    /// Where admins and nodes connect; a free port when absent.
    pub admin: Option<SocketAddr>,
    /// Where it keeps its data; a temporary folder when absent.
    pub data_dir: Option<PathBuf>,
    /// Certificate and key of the agents' listener, as PEM files.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// What is logged, as `GANTRY_LOG` has it.
    pub log: Option<String>,
    /// Another program than `gantry-under-test`.
    pub program: Option<PathBuf>,
}

/// A running `gantry dev`; dropping it kills it and removes its temporary folder.
#[derive(Debug)]
pub struct Dev {
    running: Running,
    ready: Ready,
    program: PathBuf,
    data_dir: PathBuf,
    // Dropped after the process, which still writes into it.
    _temporary: Option<TempDir>,
}

/// The first line that `dev --output json` prints.
#[derive(Clone, Deserialize)]
pub struct Ready {
    /// The URL that agents use.
    pub endpoint: String,
    /// With several servers, the URL of each by the server's name.
    #[serde(default)]
    pub endpoints: BTreeMap<String, String>,
    /// The key that agents present; absent for an anonymous endpoint.
    #[serde(default)]
    pub agent_key: Option<String>,
    /// The address of the admin API.
    pub admin_address: String,
    /// The token for the admin API. It is only printed when it is new.
    #[serde(default)]
    pub admin_token: Option<String>,
    /// The nodes within the process.
    #[serde(default)]
    pub nodes: Vec<ReadyNode>,
}

/// Where one node serves agents.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct ReadyNode {
    /// Its name.
    pub name: String,
    /// The URL of each endpoint by its name.
    pub endpoints: BTreeMap<String, String>,
}

/// Why `dev` is not running.
#[derive(Debug, thiserror::Error)]
pub enum DevError {
    /// No temporary folder, or the test's own program cannot be found.
    #[error("cannot prepare a start of dev")]
    Prepare(#[source] io::Error),
    /// It did not start, or did not end.
    #[error("gantry dev did not do as told")]
    Process(#[from] ProcessError),
    /// The first line is not what it should be.
    #[error("the first line of gantry dev is not valid\n{output}")]
    FirstLine {
        /// What it printed.
        output: String,
        /// Where it is wrong.
        #[source]
        source: serde_json::Error,
    },
}

impl Dev {
    /// Starts `gantry dev` and waits until it serves.
    ///
    /// # Errors
    /// When it does not print a valid first line in time. The error holds what it printed.
    pub async fn start(options: &Options) -> Result<Self, DevError> {
        let (data_dir, temporary) = match &options.data_dir {
            Some(folder) => (folder.clone(), None),
            None => {
                let temporary = TempDir::new().map_err(DevError::Prepare)?;
                (temporary.path().join(".gantry"), Some(temporary))
            }
        };
        let program = match &options.program {
            Some(program) => program.clone(),
            None => sibling("gantry-under-test").map_err(DevError::Prepare)?,
        };
        let mut command = command(&program, &data_dir);
        command.args(arguments(options, &data_dir));
        if let Some(log) = &options.log {
            command.env("GANTRY_LOG", log);
        }
        let (running, line) = Running::start(command, START_TIME_MAX, |stream, line| {
            (stream == Stream::Out).then(|| line.to_owned())
        })
        .await?;
        let ready = serde_json::from_str(&line)
            .map_err(|source| DevError::FirstLine { output: running.output(), source })?;
        Ok(Self { running, ready, program, data_dir, _temporary: temporary })
    }

    /// What it printed when it was ready.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The id of the process; `None` once it has ended.
    #[must_use]
    pub fn id(&self) -> Option<u32> {
        self.running.id()
    }

    /// Where it keeps its data.
    #[must_use]
    pub fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Runs an admin command of the same program against it, through the context file that it leaves.
    ///
    /// # Errors
    /// When the command does not run to its end. A bad exit status is no error here.
    pub async fn admin(&self, arguments: &[&str]) -> Result<Finished, DevError> {
        self.admin_with_input(arguments, &[]).await
    }

    /// As [`Dev::admin`], with what the command reads from standard input.
    ///
    /// # Errors
    /// As [`Dev::admin`].
    pub async fn admin_with_input(&self, arguments: &[&str], input: &[u8]) -> Result<Finished, DevError> {
        let mut command = command(&self.program, &self.data_dir);
        command.args(arguments).env("GANTRY_CONTEXT", self.data_dir.join("context.json"));
        Ok(process::run_with_input(command, input, COMMAND_TIME_MAX).await?)
    }

    /// What it printed last, for the message of a failing test. It may hold keys of this start.
    #[must_use]
    pub fn output(&self) -> String {
        self.running.output()
    }

    /// Kills it the hard way (SIGKILL); the data stay where they are if the test chose the folder.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(self) -> Result<(), DevError> {
        Ok(self.running.kill().await?)
    }

    /// Asks it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it does not end in time.
    pub async fn terminate(self) -> Result<ExitStatus, DevError> {
        Ok(self.running.terminate(STOP_TIME_MAX).await?)
    }
}

impl fmt::Debug for Ready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Ready")
            .field("endpoint", &self.endpoint)
            .field("endpoints", &self.endpoints)
            .field("has_agent_key", &self.agent_key.is_some())
            .field("admin_address", &self.admin_address)
            .field("has_admin_token", &self.admin_token.is_some())
            .field("nodes", &self.nodes)
            .finish()
    }
}

/// The path of another binary of this package, beside the program that is running.
///
/// # Errors
/// When the running program has no path.
pub fn sibling(name: &str) -> io::Result<PathBuf> {
    let program = std::env::current_exe()?;
    let folder = program.parent().unwrap_or(Path::new("."));
    // Tests run in a folder below the binaries.
    let folder = match folder.file_name() {
        Some(last) if last == "deps" => folder.parent().unwrap_or(folder),
        _ => folder,
    };
    Ok(folder.join(name))
}

/// A command that sees nothing of the user's own Gantry. Its home is the folder of the data directory.
#[must_use]
pub fn command(program: &Path, data_dir: &Path) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("GANTRY_") {
            command.env_remove(name);
        }
    }
    command.env("HOME", data_dir.parent().unwrap_or(data_dir)).env_remove("XDG_CONFIG_HOME");
    command
}

fn arguments(options: &Options, data_dir: &Path) -> Vec<OsString> {
    let free = SocketAddr::from(([127, 0, 0, 1], 0));
    let address = |address: Option<SocketAddr>| OsString::from(address.unwrap_or(free).to_string());
    let mut arguments: Vec<OsString> = ["dev", "--output", "json"].iter().map(OsString::from).collect();
    arguments.extend(["--listen".into(), address(options.listen)]);
    arguments.extend(["--admin".into(), address(options.admin)]);
    arguments.extend(["--data-dir".into(), data_dir.into()]);
    if let Some(nodes) = options.nodes {
        arguments.extend(["--nodes".into(), nodes.to_string().into()]);
    }
    if options.anonymous {
        arguments.push("--anonymous".into());
    }
    if let Some((certificate, key)) = &options.tls {
        arguments.extend(["--tls-cert".into(), certificate.into(), "--tls-key".into(), key.into()]);
    }
    for (name, url) in &options.servers {
        arguments.extend(["--server".into(), format!("{name}={url}").into()]);
    }
    for (name, command) in &options.stdio {
        arguments.extend(["--stdio".into(), format!("{name}={command}").into()]);
    }
    arguments
}
