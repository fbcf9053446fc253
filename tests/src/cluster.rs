//! Three nodes behind a balancer, as processes: `gantry dev`, which is the control plane and a node, and two nodes of
//! the production role. Each can be killed and started again at the same address.
//!
//! What fails here fails the test: nothing returns an error.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use tempfile::TempDir;

use crate::balancer::Balancer;
use crate::dev::{Dev, Options, command, sibling};
use crate::governed;
use crate::peers::chain;
use crate::process::{Running, Stream};

/// How many nodes there are.
pub const NODES: usize = 3;

/// The time a node may take until it serves. A debug build on a busy machine takes a second or two.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// The nodes and the balancer; they end when it is dropped.
#[derive(Debug)]
pub struct Cluster {
    nodes: Nodes,
    balancer: Balancer,
}

/// The nodes by number, from 0, which is the one within `gantry dev`.
#[derive(Debug)]
pub struct Nodes {
    options: Options,
    /// `None` while it is killed.
    dev: Option<Dev>,
    joined: Vec<Joined>,
    endpoint: String,
    token_file: PathBuf,
    // Dropped after the processes, which still write into it.
    folder: TempDir,
}

#[derive(Debug)]
struct Joined {
    name: String,
    address: SocketAddr,
    /// `None` while it is killed.
    running: Option<Running>,
}

/// The line that a node prints.
#[derive(Deserialize)]
struct ReadyNode {
    address: SocketAddr,
}

impl Cluster {
    /// Starts everything; the options say what the nodes govern.
    ///
    /// # Panics
    /// When something does not start.
    pub async fn start(options: Options) -> Self {
        let nodes = Nodes::start(options).await;
        let balancer = Balancer::start(&nodes.addresses()).await.expect("a port for the balancer");
        Self { nodes, balancer }
    }

    /// The balancer.
    #[must_use]
    pub fn balancer(&self) -> &Balancer {
        &self.balancer
    }

    /// The nodes.
    pub fn nodes(&mut self) -> &mut Nodes {
        &mut self.nodes
    }

    /// The endpoint of the first server, through the balancer.
    #[must_use]
    pub fn url(&self) -> String {
        self.balancer.url(&self.nodes.endpoint)
    }

    /// Nodes and balancer apart, for who hands one of them on.
    #[must_use]
    pub fn into_parts(self) -> (Nodes, Balancer) {
        (self.nodes, self.balancer)
    }
}

impl Nodes {
    async fn start(options: Options) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        let data_dir = folder.path().join(".gantry");
        let token_file = data_dir.join("node-token");
        let dev = governed::start(&Options { data_dir: Some(data_dir), ..options.clone() }).await;
        let endpoint = dev.ready().endpoint.clone();
        let admin = dev.ready().admin_address.parse().expect("the admin address is one");
        // Where it listens now is where it listens after every kill.
        let options = Options { listen: Some(address_of(&endpoint)), admin: Some(admin), ..options };
        let mut nodes = Self { options, dev: Some(dev), joined: Vec::new(), endpoint, token_file, folder };
        for number in 1..NODES {
            let free = SocketAddr::from(([127, 0, 0, 1], 0));
            let joined = Joined { name: format!("node-{number}"), address: free, running: None };
            nodes.joined.push(joined);
            nodes.restart(number).await;
        }
        nodes
    }

    /// The endpoint of the first server at the first node.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The key of the agent.
    ///
    /// # Panics
    /// When `gantry dev` is killed, or printed none.
    #[must_use]
    pub fn key(&self) -> String {
        let dev = self.dev.as_ref().expect("gantry dev runs");
        dev.ready().agent_key.clone().expect("a start prints an agent key")
    }

    /// The process of the first node.
    ///
    /// # Panics
    /// When `gantry dev` is killed.
    #[must_use]
    pub fn dev(&self) -> &Dev {
        self.dev.as_ref().expect("gantry dev runs")
    }

    /// Where the nodes serve agents.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let joined = self.joined.iter().map(|node| node.address);
        std::iter::once(address_of(&self.endpoint)).chain(joined).collect()
    }

    /// The process of a node that joined, while it runs.
    ///
    /// # Panics
    /// For the first node, which is a part of `gantry dev`.
    #[must_use]
    pub fn id(&self, number: usize) -> Option<u32> {
        let joined = number.checked_sub(1).expect("a node that joined");
        self.joined[joined].running.as_ref()?.id()
    }

    /// Where a node that joined keeps its data.
    ///
    /// # Panics
    /// For the first node, which has it with the control plane's.
    #[must_use]
    pub fn data_dir(&self, number: usize) -> PathBuf {
        let joined = number.checked_sub(1).expect("a node that joined");
        self.folder.path().join(&self.joined[joined].name)
    }

    /// Kills a node the hard way (SIGKILL) and waits until it is gone. With the first goes the control plane.
    ///
    /// # Panics
    /// When the system refuses.
    pub async fn kill(&mut self, number: usize) {
        match number.checked_sub(1) {
            None => {
                let Some(dev) = self.dev.take() else { return };
                dev.kill().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            }
            Some(joined) => {
                let Some(running) = self.joined[joined].running.take() else { return };
                running.kill().await.unwrap_or_else(|error| panic!("{}", chain(&error)));
            }
        }
    }

    /// Starts a node that was killed, where it was, and waits until it serves.
    ///
    /// # Panics
    /// When it does not.
    pub async fn restart(&mut self, number: usize) {
        let data_dir = self.folder.path().join(".gantry");
        let Some(joined) = number.checked_sub(1) else {
            let options = Options { data_dir: Some(data_dir), ..self.options.clone() };
            self.dev = Some(governed::start(&options).await);
            return;
        };
        let admin = self.options.admin.expect("it was set when dev had started");
        let node = &mut self.joined[joined];
        let program = match &self.options.program {
            Some(program) => program.clone(),
            None => sibling("gantry-under-test").expect("the test program has a folder"),
        };
        let mut command = command(&program, &data_dir);
        command
            .args(["data-plane", "run", "--output", "json", "--allow-stdio", "--name", &node.name])
            .args(["--control-plane", &format!("http://{admin}"), "--listen", &node.address.to_string()])
            .arg("--token-file")
            .arg(&self.token_file)
            .arg("--data-dir")
            .arg(self.folder.path().join(&node.name));
        if let Some(log) = &self.options.log {
            command.env("GANTRY_LOG", log);
        }
        let started = Running::start(command, START_TIME_MAX, |stream, line| {
            (stream == Stream::Out).then(|| line.to_owned())
        })
        .await;
        let (running, line) = started.unwrap_or_else(|error| panic!("{}", chain(&error)));
        let ready: ReadyNode = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        node.address = ready.address;
        node.running = Some(running);
    }

    /// What the nodes that run printed last, for the message of a failing test. It may hold keys of this start.
    #[must_use]
    pub fn output(&self) -> String {
        let dev = self.dev.iter().map(|dev| ("dev", dev.output()));
        let joined =
            self.joined.iter().filter_map(|node| Some((node.name.as_str(), node.running.as_ref()?.output())));
        dev.chain(joined).map(|(name, output)| format!("--- {name}\n{output}")).collect()
    }
}

fn address_of(url: &str) -> SocketAddr {
    let uri: http::Uri = url.parse().expect("a URL");
    let authority = uri.authority().expect("a URL with an address");
    authority.as_str().parse().expect("an address")
}
