//! Gantry as a user starts it, `gantry dev`, with everything on.
//!
//! What always holds: it runs in a folder of this run, with a home of its own, so that no data and
//! no context of a user is read or changed; the agent key is never printed.
//! It knows Gantry by its command line and its endpoint alone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Instant,
};

use serde::Deserialize;
use tokio::process::Command;

use super::{Missing, Name, Site, Target, TargetError, first_answer};
use crate::{
    driver::call::Endpoint,
    pinning::{Core, Pinning},
    process::Process,
};

/// The name under which the upstream is known to Gantry.
const SERVER: &str = "bench";
/// The tenant of `gantry dev`.
pub const TENANT: &str = "dev";
/// Where the admin commands look for a context by themselves.
const DATA_FOLDER: &str = ".gantry";
/// Variables that would lead an admin command to another Gantry.
const CONTEXT_VARIABLES: [&str; 3] = ["GANTRY_ADMIN", "GANTRY_TOKEN_FILE", "GANTRY_CONTEXT"];
/// YAML that is applied before the first call, so that every stage has work to do. `gantry dev
/// --server` itself brings a policy for the server.
const GOVERNANCE: &[&str] = &["\
kind: Limit
tenant: dev
name: generous
spec: {per: [agent, tool], calls: 1000000, window_seconds: 1}
"];

/// What `gantry dev --output json` prints first, as far as it is needed here.
#[derive(Deserialize)]
struct FirstLine {
    endpoint: String,
    agent_key: String,
}

/// Starts the program at `path` if there is one.
///
/// # Errors
/// When there is none, or it does not work.
pub async fn start(site: &Site, path: &Path) -> Result<Target, Missing> {
    if !path.is_file() {
        let reason = format!("not built, there is no {}", path.display());
        return Err(Missing::absent(Name::Gantry, reason));
    }
    start_program(site, path).await.map_err(|error| Missing::broken(Name::Gantry, &error))
}

async fn start_program(site: &Site, path: &Path) -> Result<Target, TargetError> {
    let servers = [(SERVER.to_owned(), site.upstream_url.clone())];
    let gateway = Gateway::start(&site.folder, &site.pinning, path, &servers).await?;
    match become_ready(site, &gateway).await {
        Ok((endpoint, tool_names, start_to_first_answer)) => Ok(Target {
            name: Name::Gantry,
            endpoint: Arc::new(endpoint),
            version: gateway.version().await,
            process: Some(gateway.process),
            start_to_first_answer,
            tool_names,
        }),
        Err(error) => {
            gateway.process.stop().await?;
            Err(error)
        }
    }
}

async fn become_ready(
    site: &Site,
    gateway: &Gateway,
) -> Result<(Endpoint, Vec<String>, std::time::Duration), TargetError> {
    let endpoint = Endpoint::parse(&gateway.first_endpoint, Some(&gateway.agent_key))?;
    let (tool_names, start_to_first_answer) =
        first_answer(&endpoint, gateway.started, site.tool_count).await?;
    for document in GOVERNANCE {
        gateway.apply(document).await?;
    }
    Ok((endpoint, tool_names, start_to_first_answer))
}

/// A running `gantry dev`.
#[derive(Debug)]
pub struct Gateway {
    /// Its process.
    pub process: Process,
    /// When it was started.
    pub started: Instant,
    program: PathBuf,
    folder: PathBuf,
    first_endpoint: String,
    agent_key: String,
}

impl Gateway {
    /// Starts the program at `path` with these servers, each a name and a URL, in a folder within `folder`.
    ///
    /// # Errors
    /// When it does not say that it is ready.
    pub async fn start(
        folder: &Path,
        pinning: &Pinning,
        path: &Path,
        servers: &[(String, String)],
    ) -> Result<Self, TargetError> {
        let program = fs::canonicalize(path)?;
        let folder = folder.join("gantry");
        fs::create_dir(&folder)?;
        let mut command = at_home(pinning.command(Core::Gateway, &program), &folder);
        command.arg("dev");
        for (name, url) in servers {
            command.args(["--server", &format!("{name}={url}")]);
        }
        command
            .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--output", "json"])
            .arg("--data-dir")
            .arg(folder.join(DATA_FOLDER))
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let started = Instant::now();
        let mut process = Process::start(command, &folder, "gantry")?;
        match read_first_line(&mut process).await {
            Ok(FirstLine { endpoint: first_endpoint, agent_key }) => {
                Ok(Self { process, started, program, folder, first_endpoint, agent_key })
            }
            Err(error) => {
                process.stop().await?;
                Err(error)
            }
        }
    }

    /// An endpoint by its name, with the agent's key.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn endpoint(&self, name: &str) -> Result<Endpoint, TargetError> {
        self.endpoint_of(TENANT, name, &self.agent_key)
    }

    /// An endpoint of any tenant, with the key or the token of an agent.
    ///
    /// # Errors
    /// When it cannot be used.
    pub fn endpoint_of(&self, tenant: &str, name: &str, proof: &str) -> Result<Endpoint, TargetError> {
        let origin = self.first_endpoint.split_once(&format!("/{TENANT}/")).ok_or(TargetError::FirstLine)?.0;
        Ok(Endpoint::parse(&format!("{origin}/{tenant}/{name}/mcp"), Some(proof))?)
    }

    /// Applies a YAML document as an admin would.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn apply(&self, document: &str) -> Result<(), TargetError> {
        let file = self.folder.join("applied.yaml");
        fs::write(&file, document)?;
        let mut command = at_home(Command::new(&self.program), &self.folder);
        command.args(["apply", "-f"]).arg(&file);
        ask(command).await.map(drop)
    }

    /// Makes a key of an agent. Never printed.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn create_key(&self, tenant: &str, agent: &str) -> Result<String, TargetError> {
        let mut command = at_home(Command::new(&self.program), &self.folder);
        command.args(["key", "create", "--tenant", tenant, "--agent", agent]);
        Ok(ask(command).await?.trim().to_owned())
    }

    /// What it says of itself.
    pub async fn version(&self) -> String {
        let output = at_home(Command::new(&self.program), &self.folder).arg("--version").output().await;
        let words = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        words.ok().and_then(|words| Some(words.split_once(' ')?.1.to_owned())).unwrap_or_default()
    }
}

/// What an admin's command prints, once it succeeded.
async fn ask(mut command: Command) -> Result<String, TargetError> {
    let output = command.stdin(Stdio::null()).output().await?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(TargetError::SetUp { words: String::from_utf8_lossy(&output.stderr).trim().to_owned() }),
    }
}

async fn read_first_line(process: &mut Process) -> Result<FirstLine, TargetError> {
    let line = process.first_line("gantry").await?;
    serde_json::from_str(&line).map_err(|_| TargetError::FirstLine)
}

/// Keeps the contexts and data that a command finds or leaves within `folder`.
fn at_home(mut command: Command, folder: &Path) -> Command {
    command
        .current_dir(folder)
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder.join("config"))
        .env("XDG_DATA_HOME", folder.join("share"));
    for variable in CONTEXT_VARIABLES {
        command.env_remove(variable);
    }
    command
}
