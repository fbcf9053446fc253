//! A control plane of several members, each a real process with TLS, in folders of its own.
//!
//! Always holds: every member listens on a free port of loopback, a new one at each start, and tells the others.

pub mod node;

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use crate::dev::{command, sibling};
use crate::eventually::eventually;
use crate::process::{Finished, ProcessError, Running, Stream, run, run_with_input};

/// A debug build on a busy machine takes seconds to start, and an election three.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// Why a member does not do what it should.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// The folder of all members.
pub struct Members {
    folder: TempDir,
}

/// A member that runs; dropping it kills it.
pub struct Member {
    /// Its number.
    pub number: u64,
    /// Where it serves admins and nodes.
    pub address: SocketAddr,
    /// Where the other members reach it.
    pub peer_address: String,
    /// By whom admins know it.
    pub ca: PathBuf,
    folder: PathBuf,
    running: Running,
}

impl Members {
    /// An empty folder.
    pub fn new() -> Result<Members, Error> {
        Ok(Members { folder: tempfile::tempdir()? })
    }

    /// A path in it.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The binary under test, to be run in this folder.
    pub fn gantry(&self, arguments: &[&str]) -> Result<Command, Error> {
        let mut gantry = command(&sibling("gantry-under-test")?, &self.path("data"));
        gantry.args(arguments);
        Ok(gantry)
    }

    /// Founds a cluster and runs its first member.
    pub async fn found(&self, name: &str) -> Result<Member, Error> {
        let mut init = self.gantry(&["cluster", "init"])?;
        init.args(places()).arg("--data-dir").arg(self.path(name));
        done(run(init, DEADLINE).await?)?;
        self.run(name).await
    }

    /// Joins the cluster of `through`, without running the member.
    pub async fn join(&self, name: &str, through: &Member) -> Result<Finished, Error> {
        let token = through.admin(self, &["cluster", "token", "--role", "control-plane"]).await?;
        let file = self.path(&format!("{name}.token"));
        write_secret(&file, &done(token)?.stdout)?;
        let mut join = self.gantry(&["cluster", "join", "--member", &through.address.to_string()])?;
        join.args(places()).arg("--data-dir").arg(self.path(name)).arg("--token-file").arg(file);
        Ok(run(join, DEADLINE).await?)
    }

    /// Joins the cluster of `through` and runs the member, which follows and does not vote.
    pub async fn learner(&self, name: &str, through: &Member) -> Result<Member, Error> {
        done(self.join(name, through).await?)?;
        self.run(name).await
    }

    /// One more voter.
    pub async fn voter(&self, name: &str, through: &Member) -> Result<Member, Error> {
        let member = self.learner(name, through).await?;
        let number = member.number.to_string();
        done(through.admin(self, &["cluster", "add", &number]).await?)?;
        Ok(member)
    }

    /// The command that runs the member of a directory.
    pub fn run_command(&self, name: &str) -> Result<Command, Error> {
        let mut command = self.gantry(&["control-plane", "run", "--output", "json"])?;
        command.arg("--data-dir").arg(self.path(name));
        Ok(command)
    }

    /// Runs the member of a directory.
    pub async fn run(&self, name: &str) -> Result<Member, Error> {
        self.start(name, self.run_command(name)?).await
    }

    /// Runs the member of a directory with a command of [`Members::run_command`] and more.
    pub async fn start(&self, name: &str, command: Command) -> Result<Member, Error> {
        let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
        let (running, line) = Running::start(command, DEADLINE, line).await?;
        let ready: Value = serde_json::from_str(&line)?;
        Ok(Member {
            number: ready["member"].as_u64().ok_or("a number")?,
            address: ready["address"].as_str().ok_or("an address")?.parse()?,
            peer_address: ready["peer_address"].as_str().ok_or("where it is reached")?.to_owned(),
            ca: ready["ca"].as_str().ok_or("by whom it is known")?.into(),
            folder: self.path(name),
            running,
        })
    }
}

impl Member {
    /// An admin verb at this member, over TLS.
    pub async fn admin(&self, members: &Members, arguments: &[&str]) -> Result<Finished, Error> {
        self.admin_with_input(members, arguments, "").await
    }

    /// An admin verb that reads its standard input.
    pub async fn admin_with_input(
        &self,
        members: &Members,
        arguments: &[&str],
        input: &str,
    ) -> Result<Finished, Error> {
        let mut command = members.gantry(arguments)?;
        command.args(["--admin", &self.address.to_string()]);
        command.arg("--token-file").arg(self.folder.join("admin-token"));
        command.arg("--ca").arg(&self.ca);
        Ok(run_with_input(command, input.as_bytes(), DEADLINE).await?)
    }

    /// Who leads as far as this member knows, and who the members are: number and role.
    pub async fn roles(&self, members: &Members) -> Result<(Option<u64>, Vec<(u64, String)>), Error> {
        let status = done(self.admin(members, &["cluster", "status", "--output", "json"]).await?)?;
        let status: Value = serde_json::from_str(&status.stdout)?;
        let role = |member: &Value| {
            Some((member["id"].as_u64()?, member["role"].as_str()?.replace("leader", "voter")))
        };
        let listed = status["members"].as_array().ok_or("members")?.iter();
        Ok((status["leader"].as_u64(), listed.filter_map(role).collect()))
    }

    /// Waits until a member among `among` leads, as far as this one knows.
    pub async fn led_by(&self, members: &Members, among: &[u64]) -> u64 {
        let look = async || self.roles(members).await.ok()?.0.filter(|leader| among.contains(leader));
        eventually("another leader", DEADLINE, look).await
    }

    /// What it printed last.
    #[must_use]
    pub fn output(&self) -> String {
        self.running.output()
    }

    /// Ends it in order.
    pub async fn terminate(self) -> Result<ExitStatus, ProcessError> {
        self.running.terminate(DEADLINE).await
    }

    /// Ends it at once.
    pub async fn kill(self) -> Result<(), ProcessError> {
        self.running.kill().await
    }
}

/// The flags of a member on free ports of loopback.
fn places() -> [&'static str; 4] {
    ["--listen", "127.0.0.1:0", "--peer-listen", "127.0.0.1:0"]
}

/// What a command printed that has to end well.
pub fn done(finished: Finished) -> Result<Finished, Error> {
    match finished.status.success() {
        true => Ok(finished),
        false => Err(format!("{}: {}{}", finished.status, finished.stdout, finished.stderr).into()),
    }
}

/// Writes a file that only its owner can read.
pub fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, PermissionsExt::from_mode(0o600))
}
