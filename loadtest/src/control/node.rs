//! A node of the product as a process, `gantry data-plane run`, and a tenant that it serves.
//!
//! Always holds: it runs in a folder of this run with a home of its own; started again it has its data and its address.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_wire::resource_v1::{NodeLabels, Resource};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::{
    ControlError,
    admin::{Admin, of_tenant, resource},
    cluster::{Cluster, write_secret},
};
use crate::{
    driver::{
        call::{Call, Endpoint, Era, Proof},
        connection::{CallError, Connection},
    },
    process::Process,
    upstream::catalog::{SMALL_TEXT_BYTES, SMALL_TOOL, text},
};

/// How long a node may take until it answers a call.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two tries.
const ANSWER_PAUSE: Duration = Duration::from_millis(2);
/// The tenant, and its agent, server and endpoint.
pub(super) const TENANT: &str = "served";
pub(super) const AGENT: &str = "caller";
const SERVER: &str = "bench";
const ENDPOINT: &str = "main";

/// Who starts nodes, and for which control plane.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) members: Vec<SocketAddr>,
}

/// A node.
#[derive(Debug)]
pub(super) struct Node {
    site: Site,
    name: String,
    pub(super) address: SocketAddr,
    /// `None` while it is killed.
    process: Option<Process>,
}

#[derive(Deserialize)]
struct Ready {
    address: SocketAddr,
}

impl Site {
    pub(super) fn of(program: &Path, folder: &Path, cluster: &Cluster) -> Self {
        Self { program: program.to_owned(), folder: folder.to_owned(), members: cluster.addresses() }
    }
}

impl Node {
    /// Starts a node of this name, which `admin` lets join; it serves when this returns.
    pub(super) async fn start(site: &Site, admin: &mut Admin, name: &str) -> Result<Self, ControlError> {
        Self::start_for(site, admin, name, None).await
    }

    /// The same, for what its labels say.
    pub(super) async fn start_for(
        site: &Site,
        admin: &mut Admin,
        name: &str,
        labels: Option<NodeLabels>,
    ) -> Result<Self, ControlError> {
        write_secret(
            &site.folder.join(format!("{name}-token")),
            &admin.node_token(name, labels, Duration::ZERO).await?,
        )?;
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut node = Self { site: site.clone(), name: name.to_owned(), address: free, process: None };
        node.restart().await?;
        Ok(node)
    }

    /// Where it keeps its data.
    pub(super) fn data_dir(&self) -> PathBuf {
        self.site.folder.join(&self.name)
    }

    /// Starts it where it was.
    pub(super) async fn restart(&mut self) -> Result<(), ControlError> {
        let home = self.site.folder.join(format!("{}-home", self.name));
        std::fs::create_dir_all(&home)?;
        let members: Vec<String> = self.site.members.iter().map(ToString::to_string).collect();
        let mut command = Command::new(&self.site.program);
        command
            .current_dir(&home)
            .env("HOME", &home)
            .args(["data-plane", "run", "--output", "json", "--name", &self.name])
            .args(["--control-plane", &members.join(","), "--listen", &self.address.to_string()])
            .arg("--join-token-file")
            .arg(self.site.folder.join(format!("{}-token", self.name)))
            .arg("--data-dir")
            .arg(self.data_dir())
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut process = Process::start(command, &home, &self.name)?;
        let line = process.first_line(&self.name).await?;
        let ready: Ready = serde_json::from_str(&line).map_err(|_| ControlError::Line(self.name.clone()))?;
        (self.address, self.process) = (ready.address, Some(process));
        Ok(())
    }

    /// Kills it the hard way (SIGKILL).
    pub(super) async fn kill(&mut self) -> Result<(), ControlError> {
        if let Some(process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Its process while it runs.
    pub(super) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// The endpoint of the tenant at this node.
    pub(super) fn endpoint(&self, key: &str) -> Result<Arc<Endpoint>, ControlError> {
        let url = format!("http://{}/{TENANT}/{ENDPOINT}/mcp", self.address);
        Ok(Arc::new(Endpoint::parse(&url, Some(key))?))
    }

    /// Tries until a call is answered.
    pub(super) async fn answer(&self, key: &str) -> Result<(), ControlError> {
        let (endpoint, began) = (self.endpoint(key)?, Instant::now());
        loop {
            let failure = match call_once(&endpoint).await {
                Ok(()) => return Ok(()),
                Err(failure) => failure,
            };
            if began.elapsed() > ANSWER_TIMEOUT {
                return Err(failure.into());
            }
            tokio::time::sleep(ANSWER_PAUSE).await;
        }
    }
}

async fn call_once(endpoint: &Endpoint) -> Result<(), CallError> {
    let mut connection = Connection::open(endpoint, Era::Modern).await?;
    connection.call(&small_call(endpoint)).await?;
    connection.close().await;
    Ok(())
}

/// A call that goes through to the server.
pub(super) fn small_call(endpoint: &Endpoint) -> Call {
    let proof = Proof::Text { text: text(SMALL_TEXT_BYTES), progress_count: 0 };
    endpoint.call_tool(Era::Modern, SMALL_TOOL, proof)
}

/// A tenant with one server at `url`, which its agent may call.
pub(super) fn tenant(url: &str) -> Result<Vec<Resource>, ControlError> {
    let allow = format!(
        "permit(principal == Agent::\"{AGENT}\", action == Action::\"tools/call\", resource in Server::\"{SERVER}\");"
    );
    Ok(vec![
        resource(json!({"kind": "Tenant", "name": TENANT}))?,
        of_tenant(TENANT, "Agent", AGENT, json!({}))?,
        of_tenant(TENANT, "Server", SERVER, json!({"url": url}))?,
        of_tenant(TENANT, "Endpoint", ENDPOINT, json!({"servers": [SERVER]}))?,
        of_tenant(TENANT, "Policy", "allow", json!({"cedar": allow}))?,
    ])
}
