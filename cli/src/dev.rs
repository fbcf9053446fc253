//! `gantry dev`: both planes in one process, governing the built-in demo server or the user's own.
//!
//! Always holds: everything that it sets up goes through the admin service, as an admin's `apply` does; a start that
//! fails leaves the context of the one before; what it prints works as printed.

mod announce;
mod directory;
mod import;
mod plan;
mod planes;
mod ready;
mod setup;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;

use gantry_node::tls::TlsFiles;

use crate::admin::Admin;
use crate::context::{AdminAccess, AdminAddress, ContextFile, Proof, SecretText};
use crate::demo::DemoServer;
use crate::failure::{Exit, Failure};
use crate::node::NodeProcess;
use crate::output::{self, Paint, TextFormat};
use crate::signals::Signals;
use announce::{Announcement, NodeUrls};
use directory::Directory;
use plan::{NamedValue, Plan, parse_named};
use planes::{Control, NodePlan, Planes};

pub(crate) use directory::new_admin_token;
pub(crate) use planes::{control_failed, stop_control};

/// Most nodes of one start: enough to see what several do, and no more than a laptop has processors for.
const NODES_MAX: i64 = 8;
/// Most voters of one start: the loss of two can be tried.
const VOTERS_MAX: i64 = 5;

/// Run everything on this machine: control plane, data plane, and a demo server or your own servers.
#[derive(Debug, clap::Args)]
pub(crate) struct Dev {
    /// Where agents connect; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// How many data-plane nodes run; those after the first listen on free ports of the same address.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=NODES_MAX))]
    nodes: u8,
    /// How many control-plane voters run; those after the first take free ports of loopback.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=VOTERS_MAX))]
    voters: u8,
    /// Where admins connect; loopback only.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// Where everything is stored.
    #[arg(long, value_name = "DIR", default_value = ".gantry")]
    data_dir: PathBuf,
    /// Govern this MCP server instead of the demo; repeatable.
    #[arg(long = "server", value_name = "NAME=URL", value_parser = parse_named)]
    servers: Vec<NamedValue>,
    /// Govern this MCP server, run as a child process; repeatable.
    #[arg(long, value_name = "NAME='CMD ARGS'", value_parser = parse_named)]
    stdio: Vec<NamedValue>,
    /// Govern the servers of an mcp.json; repeatable.
    #[arg(long = "import", value_name = "mcp.json")]
    imports: Vec<PathBuf>,
    /// Serve callers without a key as the agent `anonymous`; loopback only.
    #[arg(long)]
    anonymous: bool,
    /// PEM certificate chain for the agents' listener.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// PEM key of the certificate.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// What is printed when it serves: text, or one JSON object on one line.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

impl Dev {
    /// Runs until it is told to stop, or until a plane dies.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        self.check()?;
        let mut signals = Signals::new()?;
        let own = Plan::own(&self.servers, &self.stdio, &self.imports)?;
        let directory = Directory::open(&self.data_dir)?;
        let earlier = directory.context()?;
        let (plan, demo) = match own {
            Some(plan) => (plan, None),
            None => {
                let demo = DemoServer::start().await.map_err(|error| {
                    Failure::error(format!("the demo server does not start: {error}"), "start again")
                })?;
                (Plan::demo(&demo.url())?, Some(demo))
            }
        };
        for note in &plan.notes {
            output::say(&format!("note: {}", output::visible(note)));
        }
        let admin_token = match &earlier {
            Some(earlier) => earlier.admin_token.clone(),
            None => new_admin_token()?,
        };
        let mut planes = tokio::select! {
            planes = self.start(&directory, &plan, earlier, admin_token) => planes?,
            // What was acknowledged is durable; there is nothing to undo.
            () = signals.next() => return Ok(Exit::Done),
        };
        tokio::select! {
            failure = planes.failed() => return Err(failure),
            () = signals.next() => output::say("stopping; once more to stop at once"),
        }
        tokio::select! {
            () = planes.shutdown() => {}
            () = signals.next() => output::warn("stopped at once: calls under way are cut off"),
        }
        drop(demo);
        Ok(Exit::Done)
    }

    fn check(&self) -> Result<(), Failure> {
        if self.anonymous && !self.listen.ip().is_loopback() {
            return Err(Failure::usage(
                format!("--anonymous would serve everybody who reaches {}", self.listen),
                "listen on loopback (`--listen 127.0.0.1:8080`), or leave --anonymous out",
            ));
        }
        if !self.admin.ip().is_loopback() {
            return Err(Failure::usage(
                format!(
                    "--admin {} can be reached from other machines, and the admin service has no TLS",
                    self.admin
                ),
                "listen on loopback, such as `--admin 127.0.0.1:8081`",
            ));
        }
        if !self.listen.ip().is_loopback() && self.tls_cert.is_none() {
            output::warn(&format!("agents that connect to {} send their keys unencrypted", self.listen));
        }
        Ok(())
    }

    /// Starts both planes, sets up what is missing, waits until it is served, and tells of it. The node comes after
    /// the set-up, so that it never asks a server where an earlier start had it.
    async fn start(
        &self,
        directory: &Directory,
        plan: &Plan,
        earlier: Option<ContextFile>,
        admin_token: SecretText,
    ) -> Result<Planes, Failure> {
        let control = Control::start(directory, self.admin, self.voters, &admin_token).await?;
        let admin_address = control.address();
        let access = AdminAccess {
            trust: None,
            address: AdminAddress::parse(&admin_address.to_string())?,
            proof: Proof::Token(admin_token.clone()),
            tenant: Some(plan.tenant.to_owned()),
        };
        let admin = Admin::connect(&access).await?;
        let revision = setup::set_up(&admin, plan, self.anonymous).await?;
        let tls = self.tls_cert.clone().zip(self.tls_key.clone());
        let tls = tls.map(|(certificate, key)| TlsFiles { certificate, key });
        let nodes = NodePlan { listen: self.listen, tls, count: self.nodes };
        let planes = control.with_nodes(directory, &nodes).await?;
        let mut agent_keys = earlier.map(|earlier| earlier.agent_keys).unwrap_or_default();
        let key = setup::agent_key(&admin, plan.tenant, agent_keys.get(plan.tenant)).await?;
        agent_keys.insert(plan.tenant.to_owned(), key);
        let context = ContextFile {
            admin_address: admin_address.to_string(),
            admin_token,
            tenant: plan.tenant.to_owned(),
            endpoint: plan.servers.first().map(|server| server.endpoint.to_string()).unwrap_or_default(),
            endpoints: self.endpoints(plan, planes.nodes().first().map(|node| node.address())),
            agent_keys,
            certificate: self.certificate()?,
        };
        directory.keep(&context)?;
        ready::wait_until_ready(&admin, plan, revision, self.nodes).await?;
        let announcement = Announcement {
            context: &context,
            context_path: directory.context_path(),
            is_demo: plan.is_demo,
            is_anonymous: self.anonymous,
            nodes: self.node_urls(plan, &planes),
            node_token_file: directory.node_token_path(),
        };
        output::print(&match self.output {
            TextFormat::Json => announcement.json(),
            TextFormat::Text => announcement.text(&announce::program_name(), Paint::stdout()),
        })?;
        Ok(planes)
    }

    fn node_urls(&self, plan: &Plan, planes: &Planes) -> Vec<NodeUrls> {
        let urls = |node: &NodeProcess| NodeUrls {
            name: node.name().to_owned(),
            endpoints: self.endpoints(plan, Some(node.address())),
        };
        planes.nodes().iter().map(urls).collect()
    }

    fn endpoints(&self, plan: &Plan, agents: Option<SocketAddr>) -> BTreeMap<String, String> {
        let Some(agents) = agents else { return BTreeMap::new() };
        let scheme = if self.tls_cert.is_some() { "https" } else { "http" };
        let host = SocketAddr::new(reachable(agents.ip()), agents.port());
        let url = |endpoint: &str| format!("{scheme}://{host}/{}/{endpoint}/mcp", plan.tenant);
        plan.servers
            .iter()
            .map(|server| (server.endpoint.to_string(), url(server.endpoint.as_str())))
            .collect()
    }

    /// The certificate by its whole path, because other commands run elsewhere.
    fn certificate(&self) -> Result<Option<PathBuf>, Failure> {
        let absolute = self.tls_cert.as_ref().map(std::path::absolute).transpose();
        absolute.map_err(|error| {
            Failure::error(format!("--tls-cert: {error}"), "name the file by its whole path")
        })
    }
}

/// An address at which a listener on every address is reached from this machine.
fn reachable(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) if address.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(address) if address.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        address => address,
    }
}
