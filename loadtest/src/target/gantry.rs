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
use crate::{driver::call::Endpoint, pinning::Core, process::Process};

/// The name under which the upstream is known to Gantry.
const SERVER: &str = "bench";
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
    let path = fs::canonicalize(path)?;
    let folder = site.folder.join("gantry");
    fs::create_dir(&folder)?;
    let mut command = at_home(site.pinning.command(Core::Gateway, &path), &folder);
    command
        .args(["dev", "--server", &format!("{SERVER}={}", site.upstream_url)])
        .args(["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--output", "json"])
        .arg("--data-dir")
        .arg(folder.join(DATA_FOLDER))
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let started = Instant::now();
    let mut process = Process::start(command, &folder, "gantry")?;
    match become_ready(site, &path, &folder, started, &mut process).await {
        Ok((endpoint, tool_names, start_to_first_answer)) => Ok(Target {
            name: Name::Gantry,
            endpoint: Arc::new(endpoint),
            process: Some(process),
            version: version(&path, &folder).await,
            start_to_first_answer,
            tool_names,
        }),
        Err(error) => {
            process.stop().await?;
            Err(error)
        }
    }
}

async fn become_ready(
    site: &Site,
    path: &Path,
    folder: &Path,
    started: Instant,
    process: &mut Process,
) -> Result<(Endpoint, Vec<String>, std::time::Duration), TargetError> {
    let line = process.first_line("gantry").await?;
    let line: FirstLine = serde_json::from_str(&line).map_err(|_| TargetError::FirstLine)?;
    let endpoint = Endpoint::parse(&line.endpoint, Some(&line.agent_key))?;
    let (tool_names, start_to_first_answer) = first_answer(&endpoint, started, site.tool_count).await?;
    govern(path, folder).await?;
    Ok((endpoint, tool_names, start_to_first_answer))
}

/// Applies [`GOVERNANCE`] as an admin would.
async fn govern(path: &Path, folder: &Path) -> Result<(), TargetError> {
    for (index, document) in GOVERNANCE.iter().enumerate() {
        let file: PathBuf = folder.join(format!("governance-{index}.yaml"));
        fs::write(&file, document)?;
        let mut command = at_home(Command::new(path), folder);
        let output = command.args(["apply", "-f"]).arg(&file).output().await?;
        if !output.status.success() {
            let words = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(TargetError::SetUp { words });
        }
    }
    Ok(())
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

async fn version(path: &Path, folder: &Path) -> String {
    let output = at_home(Command::new(path), folder).arg("--version").output().await;
    let words = output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    words.ok().and_then(|words| Some(words.split_once(' ')?.1.to_owned())).unwrap_or_default()
}
