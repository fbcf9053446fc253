//! `gantry data-plane run`: one node as a process of its own, the production role.
//!
//! Always holds: standard output gets one line, when the node serves; a signal ends the node in order. How it proves
//! itself to the control plane is in [`proof`].

mod proof;

use std::net::SocketAddr;
use std::path::PathBuf;

use gantry_data_plane::{LastKnownGood, Options};
use gantry_model::name::Name;
use gantry_node::tls::TlsFiles;
use serde_json::json;

use crate::failure::{Exit, Failure};
use crate::node::NodeProcess;
use crate::output::{self, TextFormat};
use crate::signals::Signals;
use proof::ProofFlags;

/// Run data-plane nodes.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum DataPlane {
    /// Run a node that follows a control plane.
    Run(Box<Run>),
}

/// `gantry data-plane run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// A member of the control plane, such as cp-1.example.com:8081. Named several times, or with commas between: the
    /// node follows any of them, and another when that fails.
    #[arg(long, value_name = "URL", required = true, value_delimiter = ',')]
    control_plane: Vec<String>,
    #[command(flatten)]
    proof: ProofFlags,
    /// The node's name; one process at a time may have it.
    #[arg(long, value_name = "NODE")]
    name: Name,
    /// Where agents connect; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where audit records are written, and what the node starts from when no control plane answers;
    /// .gantry/nodes/NODE when absent.
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
    /// File with the key (32 bytes, mode 0600) of what the node starts from when no control plane answers; when
    /// absent, one is made in the data directory.
    #[arg(long, value_name = "FILE")]
    last_known_good_key_file: Option<PathBuf>,
    /// Keep nothing to start from: without a control plane, a node that starts serves nobody.
    #[arg(long, conflicts_with = "last_known_good_key_file")]
    no_last_known_good: bool,
    /// PEM certificate chain for the agents' listener.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Let servers be child processes of this node.
    #[arg(long)]
    allow_stdio: bool,
    /// Where other nodes connect, by UDP; when absent, a free port of the agents' address, if that is a certain one.
    #[arg(long, value_name = "IP:PORT")]
    mesh_listen: Option<SocketAddr>,
    /// Where other nodes find it, when that is not where it listens; port 0 stands for the port that it listens on.
    #[arg(long, value_name = "IP:PORT")]
    mesh_advertise: Option<SocketAddr>,
    /// What is printed when it serves: text, or one JSON object on one line.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

impl DataPlane {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            DataPlane::Run(run) => run.run().await,
        }
    }
}

impl Run {
    /// Runs until it is told to stop, or until a part of the node dies.
    async fn run(self) -> Result<Exit, Failure> {
        let mut signals = Signals::new()?;
        if !self.listen.ip().is_loopback() && self.tls_cert.is_none() {
            output::warn(&format!("agents that connect to {} send their keys unencrypted", self.listen));
        }
        let mut node = NodeProcess::start(self.options().await?).await?;
        tokio::select! {
            () = node.ready() => self.announce(&node)?,
            failure = node.failed() => return Err(failure),
            () = signals.next() => return self.stop(node, signals).await,
        }
        tokio::select! {
            failure = node.failed() => Err(failure),
            () = signals.next() => self.stop(node, signals).await,
        }
    }

    async fn stop(&self, node: NodeProcess, mut signals: Signals) -> Result<Exit, Failure> {
        output::say("stopping; once more to stop at once");
        tokio::select! {
            () = node.stop() => {}
            () = signals.next() => output::warn("stopped at once: calls under way are cut off"),
        }
        Ok(Exit::Done)
    }

    async fn options(&self) -> Result<Options, Failure> {
        let below = || PathBuf::from(".gantry/nodes").join(self.name.as_str());
        let data_dir = self.data_dir.clone().unwrap_or_else(below);
        let (proof, control_planes) = self.proof.resolve(&self.name, &data_dir, &self.control_plane).await?;
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        Ok(Options {
            listen: self.listen,
            tls: tls.map(|(certificate, key)| TlsFiles { certificate, key }),
            control_planes,
            proof,
            node_id: self.name.to_string(),
            data_dir,
            last_known_good: self.last_known_good(),
            allow_stdio: self.allow_stdio,
            mesh_listen: self.mesh_listen(),
            mesh_advertise: self.mesh_advertise,
        })
    }

    fn last_known_good(&self) -> LastKnownGood {
        match &self.last_known_good_key_file {
            _ if self.no_last_known_good => LastKnownGood::Off,
            Some(path) => LastKnownGood::KeyFile(path.clone()),
            None => LastKnownGood::KeyInDataDir,
        }
    }

    fn mesh_listen(&self) -> Option<SocketAddr> {
        let is_known = !self.listen.ip().is_unspecified() || self.mesh_advertise.is_some();
        let listen = self.mesh_listen.or(is_known.then_some(SocketAddr::new(self.listen.ip(), 0)));
        if listen.is_none() {
            output::warn(
                "other nodes do not find this one, and sessions stay where they begin: name an address with \
                 --mesh-advertise IP:0",
            );
        }
        listen
    }

    fn announce(&self, node: &NodeProcess) -> Result<(), Failure> {
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{}", node.address());
        output::print(&match self.output {
            TextFormat::Text => {
                format!("The node {} serves agents at {url}/TENANT/ENDPOINT/mcp\n", self.name)
            }
            TextFormat::Json => {
                let line =
                    json!({"name": self.name.as_str(), "address": node.address().to_string(), "url": url});
                format!("{line}\n")
            }
        })
    }
}
