//! The control plane under test: several members, each `gantry control-plane run`, in a folder of this run.
//!
//! Always holds: every link has TLS, as it has for users; a member that was killed starts again with its data at its
//! addresses; only processes that were started here are ended. It knows Gantry by its command line.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_model::Secret;
use gantry_node::tls::{Trust, read_authorities};
use serde::Deserialize;
use tokio::process::Command;

use super::{
    ControlError,
    admin::{Access, Admin},
};
use crate::process::{Meter, Process, Usage};

/// How long a new cluster, or one that lost its leader, may take until a member leads.
const LEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is asked who leads.
const LEADER_PAUSE: Duration = Duration::from_millis(20);

/// The members, the founder first.
#[derive(Debug)]
pub(super) struct Cluster {
    program: PathBuf,
    members: Vec<Member>,
}

#[derive(Debug)]
struct Member {
    voter: u64,
    data_dir: PathBuf,
    access: Access,
    /// `None` while it is killed.
    process: Option<Process>,
}

/// What a member prints when it serves.
#[derive(Deserialize)]
struct Ready {
    member: u64,
    address: SocketAddr,
    ca: PathBuf,
    admin_token_file: PathBuf,
}

impl Cluster {
    /// Founds a cluster and lets the other members join it as voters.
    pub(super) async fn start(program: &Path, folder: &Path, count: u64) -> Result<Self, ControlError> {
        let folder = folder.join("cluster");
        std::fs::create_dir_all(&folder)?;
        let program = std::fs::canonicalize(program)?;
        let mut cluster = Self { program, members: Vec::new() };
        for number in 1..=count {
            let data_dir = folder.join(format!("member-{number}"));
            cluster.make(&folder, &data_dir).await?;
            let member = Member::start(&cluster.program, data_dir).await?;
            if let Some(founder) = cluster.members.first() {
                Admin::connect(&founder.access).await?.promote(member.voter).await?;
            }
            cluster.members.push(member);
        }
        Ok(cluster)
    }

    /// Makes the directory of the next member: founds the cluster, or joins it with a token.
    async fn make(&self, folder: &Path, data_dir: &Path) -> Result<(), ControlError> {
        let mut command = Command::new(&self.program);
        match self.members.first() {
            None => command.args(["cluster", "init"]),
            Some(founder) => {
                let file = folder.join("join-token");
                let token = Admin::connect(&founder.access).await?.member_token().await?;
                write_secret(&file, &token)?;
                let through = founder.access.address.to_string();
                command.args(["cluster", "join", "--member", &through]).arg("--token-file").arg(file)
            }
        };
        let (listen, peer_listen) = (free_address()?.to_string(), free_address()?.to_string());
        command.args(["--listen", &listen, "--peer-listen", &peer_listen]).arg("--data-dir").arg(data_dir);
        let output = command.stdin(Stdio::null()).output().await?;
        if output.status.success() {
            return Ok(());
        }
        Err(ControlError::Refused(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    /// How admins reach each member.
    pub(super) fn accesses(&self) -> Vec<Access> {
        self.members.iter().map(|member| member.access.clone()).collect()
    }

    /// Where nodes connect.
    pub(super) fn addresses(&self) -> Vec<SocketAddr> {
        self.members.iter().map(|member| member.access.address).collect()
    }

    /// What the members that run have used, together.
    pub(super) fn usage(&self, meter: &Meter) -> Result<Usage, ControlError> {
        let mut sum = Usage::default();
        for process in self.members.iter().filter_map(|member| member.process.as_ref()) {
            let usage = meter.usage(process.id())?;
            sum.processor += usage.processor;
            sum.resident_kib += usage.resident_kib;
        }
        Ok(sum)
    }

    /// The member that leads, by its place, once one does.
    pub(super) async fn leader(&self) -> Result<usize, ControlError> {
        let began = Instant::now();
        while began.elapsed() < LEADER_TIMEOUT {
            for (at, member) in self.members.iter().enumerate() {
                if member.process.is_some() && leads(member).await.unwrap_or(false) {
                    return Ok(at);
                }
            }
            tokio::time::sleep(LEADER_PAUSE).await;
        }
        Err(ControlError::Waited { what: "a leader" })
    }

    /// Kills a member the hard way (SIGKILL).
    pub(super) async fn kill(&mut self, at: usize) -> Result<(), ControlError> {
        if let Some(process) = self.members[at].process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Starts a member that was killed.
    pub(super) async fn restart(&mut self, at: usize) -> Result<(), ControlError> {
        let data_dir = self.members[at].data_dir.clone();
        self.members[at] = Member::start(&self.program, data_dir).await?;
        Ok(())
    }

    /// Ends all members. Nothing of them is kept.
    pub(super) async fn stop(self) -> Result<(), ControlError> {
        for process in self.members.into_iter().filter_map(|member| member.process) {
            process.kill().await?;
        }
        Ok(())
    }
}

impl Member {
    /// Runs the member of a directory.
    async fn start(program: &Path, data_dir: PathBuf) -> Result<Self, ControlError> {
        let mut command = Command::new(program);
        command
            .args(["control-plane", "run", "--output", "json"])
            .arg("--data-dir")
            .arg(&data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let name = "member";
        let mut process = Process::start(command, &data_dir, name)?;
        let line = process.first_line(name).await?;
        let ready: Ready = serde_json::from_str(&line).map_err(|_| ControlError::Line(name.to_owned()))?;
        let token = std::fs::read_to_string(&ready.admin_token_file)?.trim().to_owned();
        let trust = Trust::new(&read_authorities(&ready.ca)?)?;
        let access = Access { address: ready.address, token: Arc::new(Secret::new(token)), trust };
        Ok(Self { voter: ready.member, data_dir, access, process: Some(process) })
    }
}

async fn leads(member: &Member) -> Result<bool, ControlError> {
    let members = Admin::connect(&member.access).await?.members().await?;
    Ok(members.leader == member.voter)
}

/// An address that nobody has now, to be had again at each start.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Writes a file that only its owner can read.
pub(super) fn write_secret(path: &Path, text: &str) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::write(path, text)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}
