//! Both planes in one process, as `gantry dev` has them: a control plane and its nodes.
//!
//! Always holds: the nodes reach the control plane over loopback with the node token; they stop first, so that the
//! last records find somebody to take them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::task::Poll;

use gantry_control_plane::raft::VoterId;
use gantry_control_plane::{ControlPlane, MemberOptions, MemberProof, Transport};
use gantry_data_plane::{LastKnownGood, Proof};
use gantry_model::Secret;
use gantry_node::tls::TlsFiles;
use tokio::task::JoinSet;

use super::directory::Directory;
use crate::context::SecretText;
use crate::failure::{Failure, chain};
use crate::node::{NodeProcess, STOP_TIMEOUT};
use crate::output;

/// The name of the first node; those after it have their number behind it.
const NODE: &str = "dev";

/// The nodes that are wanted.
pub(super) struct NodePlan {
    /// Where the first listens; the others take free ports of the same address.
    pub(super) listen: SocketAddr,
    /// TLS for agents, the same for all.
    pub(super) tls: Option<TlsFiles>,
    /// How many; at least one.
    pub(super) count: u8,
}

/// A control plane that waits for its nodes.
pub(super) struct Control {
    voters: Voters,
    node_token: SecretText,
}

/// The members of the control plane, the one of the first start first.
#[derive(Default)]
struct Voters(Vec<ControlPlane>);

/// The running planes.
pub(super) struct Planes {
    control: Voters,
    nodes: Vec<NodeProcess>,
}

impl Control {
    /// Starts so many voters of one control plane.
    pub(super) async fn start(
        directory: &Directory,
        listen: SocketAddr,
        count: u8,
        admin_token: &SecretText,
    ) -> Result<Control, Failure> {
        let node_token = directory.node_token()?;
        let mut voters = Voters::default();
        match voters.start(directory, listen, count, (admin_token, &node_token)).await {
            Ok(()) => Ok(Control { voters, node_token }),
            Err(failure) => {
                voters.shutdown().await;
                Err(failure)
            }
        }
    }

    /// Where admins connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.voters.first().address()
    }

    /// Starts the nodes of this control plane.
    pub(super) async fn with_nodes(self, directory: &Directory, plan: &NodePlan) -> Result<Planes, Failure> {
        let mut planes = Planes { control: self.voters, nodes: Vec::new() };
        for number in 1..=plan.count {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let port = if number == 1 { plan.listen.port() } else { 0 };
            let options = gantry_data_plane::Options {
                listen: SocketAddr::new(plan.listen.ip(), port),
                tls: plan.tls.clone(),
                control_planes: planes.control.addresses(),
                proof: Proof::Token(secret(&self.node_token)),
                node_id: format!("{NODE}{suffix}"),
                data_dir: directory.of_plane(&format!("data-plane{suffix}")),
                // The control plane is in the same process: they start and end together.
                last_known_good: LastKnownGood::Off,
                allow_stdio: true,
                // A node that joins later must find the others too.
                mesh_listen: Some((Ipv4Addr::LOCALHOST, 0).into()),
                mesh_advertise: None,
            };
            match NodeProcess::start(options).await {
                Ok(node) => planes.nodes.push(node),
                Err(failure) => {
                    planes.shutdown().await;
                    return Err(failure);
                }
            }
        }
        Ok(planes)
    }
}

impl Planes {
    /// The nodes, the first one first.
    pub(super) fn nodes(&self) -> &[NodeProcess] {
        &self.nodes
    }

    /// Completes only when a plane dies.
    pub(super) async fn failed(&mut self) -> Failure {
        tokio::select! {
            error = self.control.failed() => Failure::error(
                format!("the control plane died: {}", chain(&error)),
                "read the log above, then start `gantry dev` again: what was acknowledged is stored",
            ),
            failure = first_failed(&mut self.nodes) => failure,
        }
    }

    /// Stops all, each within a bound.
    pub(super) async fn shutdown(self) {
        let nodes: JoinSet<()> = self.nodes.into_iter().map(NodeProcess::stop).collect();
        nodes.join_all().await;
        self.control.shutdown().await;
    }
}

impl Voters {
    /// The founder first; each of the others joins through it.
    async fn start(
        &mut self,
        directory: &Directory,
        listen: SocketAddr,
        count: u8,
        (admin_token, node_token): (&SecretText, &SecretText),
    ) -> Result<(), Failure> {
        let folders = directory.voters(count)?;
        let mut starting = JoinSet::new();
        for (voter, data_dir) in (1..).zip(&folders) {
            let first = &folders[0];
            // A cluster of one that was made without the others needs no way to them.
            let member = (count > 1).then(|| member(directory, voter, data_dir, first)).transpose()?;
            let options = gantry_control_plane::Options {
                data_dir: data_dir.clone(),
                listen: if voter == 1 { listen } else { (Ipv4Addr::LOCALHOST, 0).into() },
                admin_token: secret(admin_token),
                transport: Transport::Plain { node_token: secret(node_token) },
                certificate_life: gantry_control_plane::CERTIFICATE_LIFE_MAX,
                member,
            };
            let is_new = !data_dir.join("consensus").exists();
            if is_new && voter > 1 {
                directory.share_key_file(first, data_dir)?;
            }
            if is_new && voter == 1 {
                // The key file comes with the founding.
                self.0.push(control_plane(options).await?);
            } else {
                starting.spawn(async move { (voter, control_plane(options).await) });
            }
        }
        let mut started: Vec<_> = starting.join_all().await;
        started.sort_by_key(|(voter, _)| *voter);
        for (_, plane) in started {
            self.0.push(plane?);
        }
        for voter in 2..=u64::from(count) {
            self.first().promote(VoterId(voter)).await.map_err(|error| {
                let next = "read the log above, then start `gantry dev` again";
                Failure::error(format!("voter {voter} does not join: {}", chain(&error)), next)
            })?;
        }
        Ok(())
    }

    fn first(&self) -> &ControlPlane {
        // INVARIANT: a start without a failure has at least one.
        &self.0[0]
    }

    /// Where nodes find them.
    fn addresses(&self) -> Vec<String> {
        self.0.iter().map(|plane| format!("http://{}", plane.address())).collect()
    }

    async fn failed(&self) -> gantry_control_plane::Failure {
        let mut watched: Vec<_> = self.0.iter().map(|plane| Box::pin(plane.failed())).collect();
        first_ready(&mut watched).await
    }

    async fn shutdown(self) {
        let stopping: JoinSet<()> = self.0.into_iter().map(stop_control).collect();
        stopping.join_all().await;
    }
}

/// A voter among several.
fn member(
    directory: &Directory,
    voter: u64,
    data_dir: &Path,
    first: &Path,
) -> Result<MemberOptions, Failure> {
    let join = (voter > 1).then(|| directory.peer_address(first)).transpose()?;
    Ok(MemberOptions {
        voter: VoterId(voter),
        listen: directory.peer_address(data_dir)?,
        advertise: None,
        proof: MemberProof::Token(secret(&directory.peer_token()?)),
        join: join.iter().map(ToString::to_string).collect(),
    })
}

async fn control_plane(options: gantry_control_plane::Options) -> Result<ControlPlane, Failure> {
    gantry_control_plane::start(options).await.map_err(|error| control_failed(&error, "--admin"))
}

/// Completes with the first node that dies.
async fn first_failed(nodes: &mut [NodeProcess]) -> Failure {
    let mut watched: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.failed())).collect();
    first_ready(&mut watched).await
}

/// Completes with the first that does.
async fn first_ready<Awaited: Future>(futures: &mut [Pin<Box<Awaited>>]) -> Awaited::Output {
    std::future::poll_fn(|context| {
        let polled = futures.iter_mut().map(|future| future.as_mut().poll(context));
        polled.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

/// Why a control plane does not start, and what to do about it; `listen_flag` names its address.
pub(crate) fn control_failed(error: &gantry_control_plane::StartError, listen_flag: &str) -> Failure {
    use gantry_control_plane::StartError;
    let next = match error {
        StartError::Options(gantry_control_plane::OptionsError::CertificateLife(_)) => {
            "name another time with `--certificate-life`, such as 24h"
        }
        StartError::Listen { .. } | StartError::Options(_) => {
            &format!("stop what listens there, or name another address with `{listen_flag} 127.0.0.1:PORT`")
        }
        StartError::Consensus(error) => error.way_back(),
        StartError::CutOff(_) => "empty the directory, or name another with `--data-dir DIR`",
        StartError::DataDirectory { .. }
        | StartError::Found(_)
        | StartError::Bootstrap(_)
        | StartError::Unseal(_)
        | StartError::Secure(_)
        | StartError::Audit(_)
        | StartError::Interrupted => "name another directory with `--data-dir DIR`",
    };
    Failure::error(format!("the control plane does not start: {}", chain(error)), next)
}

fn secret(token: &SecretText) -> Secret<String> {
    Secret::new(token.expose().to_owned())
}

/// Stops it, within a bound.
pub(crate) async fn stop_control(control: ControlPlane) {
    match tokio::time::timeout(STOP_TIMEOUT, control.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => output::warn(&format!("the control plane: {}", chain(&error))),
        Err(_) => {
            output::warn(&format!("the control plane did not stop within {} s", STOP_TIMEOUT.as_secs()));
        }
    }
}
