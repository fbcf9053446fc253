//! Starting and ending a node.
//!
//! Always holds: every task has an owner that waits for it at the end; records of requests that ended are in the
//! file when [`DataPlane::shutdown`] returns.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_model::{Revision, Secret};
use gantry_node::membership::Membership;
use gantry_node::records::OpenError;
use gantry_node::seal::NodeSealKey;
use gantry_node::tls::{TlsError, TlsFiles};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::audit::Audit;
use crate::bans::{enforce, keep_enforcing};
use crate::bridge;
use crate::bridge::handoff::Handed;
use crate::config::site::Site;
use crate::listen::Listener;
use crate::mesh::accept::Acceptor;
use crate::mesh::{Bind, Mesh};
use crate::node::Node;
use crate::sync::choice::Choice;
use crate::sync::distrust::Distrust;
pub use crate::sync::last_known_good::LastKnownGood;
use crate::sync::{Channels, Follower, Identity, last_known_good};
use crate::upstream::Upstreams;
use crate::upstream::discovery::{Discovery, Wakeup};

/// Catalogs that may wait to be reported.
const REPORTS_MAX: usize = 64;
/// Copies of records that may wait to be reported; the file has them all.
const RECORDS_MAX: usize = 16_384;

/// How often sessions are looked for that nobody uses.
const SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// How long what outlived the drain may take to end.
const LEAVE_DEADLINE: Duration = Duration::from_secs(3);

/// How a node is started.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where agents connect; port 0 takes a free one.
    pub listen: SocketAddr,
    /// TLS for agents; plain HTTP without.
    pub tls: Option<TlsFiles>,
    /// Members of the control plane, such as `http://127.0.0.1:8081`; at least one. The node follows any of them, and
    /// another when that fails.
    pub control_planes: Vec<String>,
    /// What the control plane knows the node by.
    pub proof: Proof,
    /// The node's name; one process at a time has it. With a certificate, the name in that.
    pub node_id: String,
    /// Where audit records are written, and what was last known to be good.
    pub data_dir: PathBuf,
    /// Whether the node can start without a control plane.
    pub last_known_good: LastKnownGood,
    /// Whether servers may be child processes of this node.
    pub allow_stdio: bool,
    /// Where other nodes connect (UDP); port 0 takes a free one. Without it the node takes no part in the mesh, and
    /// sessions that begin on it are served by it alone.
    pub mesh_listen: Option<SocketAddr>,
    /// Where other nodes find it, when that is not where it listens. Port 0 stands for the port that it listens on.
    pub mesh_advertise: Option<SocketAddr>,
}

/// What proves a node to the control plane.
#[derive(Debug, Clone)]
pub enum Proof {
    /// The token that all nodes of a control plane without TLS share.
    Token(Secret<String>),
    /// Its certificate, which it renews.
    Certificate(Membership),
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is nobody to follow.
    #[error("no control plane is named")]
    NoControlPlane,
    /// The listener cannot be bound.
    #[error("{address} cannot be listened on")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The TLS files cannot be used.
    #[error("TLS for agents cannot be set up")]
    Tls(#[from] TlsError),
    /// The audit file cannot be used.
    #[error("audit cannot be started")]
    Audit(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// No key pair can be made.
    #[error("the node's key cannot be made")]
    Seal(#[from] gantry_node::seal::SealError),
    /// Nothing can be kept for a start without a control plane.
    #[error("last-known-good files cannot be used")]
    LastKnownGood(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The mesh cannot be bound.
    #[error("the mesh cannot be joined")]
    Mesh(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<OpenError> for StartError {
    fn from(error: OpenError) -> StartError {
        StartError::Audit(Box::new(error))
    }
}

/// A running node.
pub struct DataPlane {
    address: SocketAddr,
    applied: watch::Receiver<Revision>,
    /// Ends the taking of new requests.
    stop: CancellationToken,
    /// Ends the stream to the control plane, by which peers hear that the node is gone.
    leave: CancellationToken,
    listening: JoinHandle<()>,
    following: JoinHandle<()>,
    meshing: JoinHandle<()>,
    counting: JoinHandle<()>,
    node: Arc<Node>,
}

/// A part of the node ended without being asked to.
#[derive(Debug, thiserror::Error)]
#[error("a task of the data plane ended unexpectedly; see the log")]
pub struct Died;

/// Starts a node. It serves what was last known to be good; where nothing is, nobody until its first update came
/// ([`DataPlane::applied`]).
pub async fn start(options: Options) -> Result<DataPlane, StartError> {
    let control_planes = Choice::of(options.control_planes.clone()).ok_or(StartError::NoControlPlane)?;
    let tls = options.tls.as_ref().map(TlsFiles::load).transpose()?;
    let failed = |source| StartError::Listen { address: options.listen, source };
    let listener = Listener::bind(options.listen, tls).await.map_err(failed)?;
    let address = listener.address().map_err(failed)?;
    let incarnation = random_hex();
    let (record_sender, records) = mpsc::channel(RECORDS_MAX);
    let audit = Audit::start(&options.data_dir, &options.node_id, &incarnation, record_sender)?;
    let seal = Arc::new(NodeSealKey::generate()?);
    let beginning = last_known_good::begin(&options.last_known_good, &options.data_dir, seal.clone()).await;
    let beginning = beginning.map_err(|error| StartError::LastKnownGood(Box::new(error)))?;
    let (mesh, acceptor) = join_mesh(&options)?;
    let upstreams = Upstreams::new(options.allow_stdio);
    let site = Site::of(address, options.tls.is_some());
    let node = Arc::new(Node::new(audit, upstreams, Wakeup::default(), mesh, site));
    let (report_sender, catalogs) = mpsc::channel(REPORTS_MAX);
    let (applied_sender, applied) = watch::channel(Revision::NONE);
    let (node_id, proof) = (options.node_id, options.proof);
    node.approvals.begin(control_planes.addresses(), proof.clone());
    let distrust = match &proof {
        Proof::Token(_) => None,
        Proof::Certificate(membership) => {
            Some(Distrust::begin(membership.trust().clone(), &options.data_dir))
        }
    };
    let identity = Identity { node_id, incarnation, control_planes, proof, distrust };
    let discovery = Discovery::new(node.clone(), report_sender);
    let channels = Channels { catalogs, records, applied: applied_sender };
    let follower = Follower::new(identity, node.clone(), seal, discovery, channels, beginning);
    let (stop, leave) = (node.stopping.clone(), CancellationToken::new());
    let handed = Arc::new(Handed { node: node.clone() });
    tokio::spawn(sweep(node.clone(), stop.clone()));
    tokio::spawn(keep_enforcing(node.clone(), stop.clone()));
    let counted = node.clone();
    let counting = tokio::spawn(async move { counted.budgets.run(counted.leaving.clone()).await });
    Ok(DataPlane {
        address,
        applied,
        listening: tokio::spawn(listener.serve(node.clone(), stop.clone())),
        following: tokio::spawn(follower.run(leave.clone())),
        counting,
        meshing: tokio::spawn(acceptor.serve(handed, stop.clone())),
        stop,
        leave,
        node,
    })
}

/// Lets go of what nobody uses, now and then.
async fn sweep(node: Arc<Node>, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(SWEEP_INTERVAL)).await.is_some() {
        let work = async {
            bridge::sweep::sweep(&node.homes, &node.upstreams.pool, Instant::now()).await;
            node.upstreams.stdio.sweep(&node.config());
            // What was being opened when somebody was banned.
            enforce(&node).await;
        };
        stop.run_until_cancelled(work).await;
    }
}

fn join_mesh(options: &Options) -> Result<(Mesh, Acceptor), StartError> {
    let Some(listen) = options.mesh_listen else { return Ok(Mesh::alone(&options.node_id)) };
    let bind = Bind { listen, advertise: options.mesh_advertise };
    Mesh::bind(&options.node_id, bind).map_err(|error| StartError::Mesh(Box::new(error)))
}

impl DataPlane {
    /// Where agents connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The revision that requests see; changes as updates come.
    pub fn applied(&self) -> watch::Receiver<Revision> {
        self.applied.clone()
    }

    /// Returns only when a part of the node ended without being asked to. May be dropped and called again.
    pub async fn failed(&mut self) -> Died {
        // A handle must not be asked again once it said that its task ended.
        if [&self.listening, &self.following, &self.meshing, &self.counting]
            .into_iter()
            .any(JoinHandle::is_finished)
        {
            return Died;
        }
        tokio::select! {
            _ = &mut self.listening => Died,
            _ = &mut self.following => Died,
            _ = &mut self.meshing => Died,
            _ = &mut self.counting => Died,
        }
    }

    /// Ends the node: lets requests under way end (bounded), its own and those of its peers, and writes the last
    /// records. Only then its peers hear that it is gone, because they cut what they have with it.
    pub async fn shutdown(self) {
        self.stop.cancel();
        let ((), listening) = tokio::join!(self.node.mesh.drain(), self.listening);
        self.node.leaving.cancel();
        self.node.homes.clear();
        self.node.tasks.close();
        let _ = tokio::time::timeout(LEAVE_DEADLINE, self.node.tasks.wait()).await;
        // What it owns of limits it hands over while its peers know it still.
        let counting = self.counting.await;
        self.leave.cancel();
        let following = self.following.await;
        self.node.mesh.close().await;
        for ended in [listening, following, counting, self.meshing.await] {
            if ended.is_err() {
                tracing::error!("a task of the data plane panicked");
            }
        }
        self.node.upstreams.stdio.stop().await;
        // Requests that outlived the drain still hold the node; their records are lost with the process.
        if let Some(node) = Arc::into_inner(self.node) {
            let audit = node.into_audit();
            let _ = tokio::task::spawn_blocking(move || audit.finish()).await;
        }
    }
}

/// 8 random bytes as text: tells one run of the process from another.
fn random_hex() -> String {
    let mut bytes = [0; 8];
    // Without randomness two runs would share decision ids; time tells them apart well enough then.
    if aws_lc_rs::rand::fill(&mut bytes).is_err() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes.copy_from_slice(&now.as_nanos().to_le_bytes()[..8]);
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    type Result<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

    /// Status and body of the answer to a request.
    async fn ask(address: SocketAddr, request: &str) -> Result<(u16, String)> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("a head")?;
        Ok((head.split(' ').nth(1).ok_or("a status")?.parse()?, body.to_owned()))
    }

    /// A node that follows nobody.
    async fn alone(directory: &tempfile::TempDir) -> Result<DataPlane> {
        let node = start(Options {
            listen: ([127, 0, 0, 1], 0).into(),
            tls: None,
            // Nobody listens there.
            control_planes: vec!["http://127.0.0.1:1".to_owned()],
            proof: Proof::Token(Secret::new("n".repeat(32))),
            node_id: "node".to_owned(),
            data_dir: directory.path().to_owned(),
            last_known_good: LastKnownGood::KeyInDataDir,
            allow_stdio: false,
            mesh_listen: None,
            mesh_advertise: None,
        })
        .await?;
        Ok(node)
    }

    #[tokio::test]
    async fn a_node_that_ends_answers_every_connection_that_was_made_before_and_refuses_later_ones() -> Result
    {
        let directory = tempfile::tempdir()?;
        let node = alone(&directory).await?;
        let address = node.address();
        let mut accepted = TcpStream::connect(address).await?;
        // Another is served after it, so it was accepted.
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        let close = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        assert_eq!(ask(address, close).await?.0, 200);
        // Nothing runs on this thread until the next await: the system has it, and the node does not know of it.
        let waiting = std::net::TcpStream::connect(address)?;
        let ending = tokio::spawn(node.shutdown());
        waiting.set_nonblocking(true)?;
        let mut waiting = TcpStream::from_std(waiting)?;
        // The node has seen that it is to end before it sees these requests.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        for stream in [&mut accepted, &mut waiting] {
            stream.write_all(request).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:?}");
        }
        ending.await?;
        Ok(())
    }

    #[tokio::test]
    async fn a_node_without_a_configuration_says_so_and_is_not_ready() -> Result {
        let directory = tempfile::tempdir()?;
        let node = alone(&directory).await?;
        let head = "Host: localhost\r\nConnection: close\r\n";
        let ready = ask(node.address(), &format!("GET /readyz HTTP/1.1\r\n{head}\r\n")).await?;
        assert_eq!(ready, (503, String::new()));
        let health = ask(node.address(), &format!("GET /healthz HTTP/1.1\r\n{head}\r\n")).await?;
        assert_eq!(health, (200, String::new()));

        // Whether the key is a good one is not known.
        let call = format!(
            "POST /acme/tools/mcp HTTP/1.1\r\n{head}Authorization: Bearer x\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let (status, body) = ask(node.address(), &call).await?;
        let mut body: Value = serde_json::from_str(&body)?;
        assert!(body["error"]["data"]["decisionId"].take().is_string(), "{body}");
        let message = "this node has no configuration yet; try again in a moment, or at another node";
        let data = json!({"rejection": "not_ready", "decisionId": null});
        let error = json!({"code": -31503, "message": message, "data": data});
        assert_eq!((status, body), (503, json!({"jsonrpc": "2.0", "id": null, "error": error})));
        node.shutdown().await;
        let record = std::fs::read_to_string(directory.path().join("audit.jsonl"))?;
        let record: Value = serde_json::from_str(&record)?;
        assert_eq!((&record["outcome"], &record["status"]), (&json!("not_ready"), &json!(503)));
        Ok(())
    }
}
