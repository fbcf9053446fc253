//! Both planes in one process, as `gantry dev` has them: a control plane and its nodes.
//!
//! Always holds: the nodes reach the control plane over loopback with the node token; they stop first, so that the
//! last records find somebody to take them.

use std::net::{Ipv4Addr, SocketAddr};
use std::task::Poll;

use gantry_control_plane::{ControlPlane, Transport};
use gantry_data_plane::LastKnownGood;
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
    plane: ControlPlane,
    node_token: SecretText,
}

/// The running planes.
pub(super) struct Planes {
    control: ControlPlane,
    nodes: Vec<NodeProcess>,
}

impl Control {
    /// Starts the control plane.
    pub(super) async fn start(
        directory: &Directory,
        listen: SocketAddr,
        admin_token: &SecretText,
    ) -> Result<Control, Failure> {
        let node_token = directory.node_token()?;
        let options = gantry_control_plane::Options {
            data_dir: directory.of_plane("control-plane"),
            listen,
            admin_token: secret(admin_token),
            node_token: secret(&node_token),
            transport: Transport::Plain,
        };
        let plane = gantry_control_plane::start(options).await.map_err(|error| control_failed(&error))?;
        Ok(Control { plane, node_token })
    }

    /// Where admins connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// Starts the nodes of this control plane.
    pub(super) async fn with_nodes(self, directory: &Directory, plan: &NodePlan) -> Result<Planes, Failure> {
        let mut planes = Planes { control: self.plane, nodes: Vec::new() };
        for number in 1..=plan.count {
            let suffix = if number == 1 { String::new() } else { format!("-{number}") };
            let port = if number == 1 { plan.listen.port() } else { 0 };
            let options = gantry_data_plane::Options {
                listen: SocketAddr::new(plan.listen.ip(), port),
                tls: plan.tls.clone(),
                control_planes: vec![format!("http://{}", planes.control.address())],
                node_token: secret(&self.node_token),
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
        stop_control(self.control).await;
    }
}

/// Completes with the first node that dies.
async fn first_failed(nodes: &mut [NodeProcess]) -> Failure {
    let mut watched: Vec<_> = nodes.iter_mut().map(|node| Box::pin(node.failed())).collect();
    std::future::poll_fn(|context| {
        let polled = watched.iter_mut().map(|failed| failed.as_mut().poll(context));
        polled.into_iter().find(Poll::is_ready).unwrap_or(Poll::Pending)
    })
    .await
}

fn control_failed(error: &gantry_control_plane::StartError) -> Failure {
    use gantry_control_plane::StartError;
    let next = match error {
        StartError::Listen { .. } | StartError::Options(_) => {
            "stop what listens there, or name another address with `--admin 127.0.0.1:PORT`"
        }
        StartError::Consensus(_) => {
            "stop the process that uses the directory, or name another with `--data-dir DIR`"
        }
        StartError::DataDirectory { .. }
        | StartError::Found(_)
        | StartError::Bootstrap(_)
        | StartError::Unseal(_)
        | StartError::Secure(_)
        | StartError::Interrupted => "name another directory with `--data-dir DIR`",
    };
    Failure::error(format!("the control plane does not start: {}", chain(error)), next)
}

fn secret(token: &SecretText) -> Secret<String> {
    Secret::new(token.expose().to_owned())
}

async fn stop_control(control: ControlPlane) {
    match tokio::time::timeout(STOP_TIMEOUT, control.shutdown()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => output::warn(&format!("the control plane: {}", chain(&error))),
        Err(_) => {
            output::warn(&format!("the control plane did not stop within {} s", STOP_TIMEOUT.as_secs()));
        }
    }
}
