//! Both planes in one process, as `gantry dev` has them.
//!
//! Always holds: the data plane reaches the control plane over loopback with a token of this start; it stops first,
//! so that the last records find somebody to take them.

use std::net::SocketAddr;
use std::time::Duration;

use gantry_control_plane::ControlPlane;
use gantry_data_plane::DataPlane;
use gantry_model::Secret;
use gantry_node::tls::TlsFiles;

use super::directory::{Directory, new_node_token};
use crate::context::SecretText;
use crate::failure::{Failure, chain};
use crate::output;

/// The name of the one node.
const NODE: &str = "dev";
/// How long a plane may take to stop: longer than its own drain.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A control plane that waits for its node.
pub(super) struct Control {
    plane: ControlPlane,
    node_token: SecretText,
}

/// The running planes.
pub(super) struct Planes {
    control: ControlPlane,
    data: DataPlane,
}

impl Control {
    /// Starts the control plane.
    pub(super) async fn start(
        directory: &Directory,
        listen: SocketAddr,
        admin_token: &SecretText,
    ) -> Result<Control, Failure> {
        let node_token = new_node_token()?;
        let options = gantry_control_plane::Options {
            data_dir: directory.of_plane("control-plane"),
            listen,
            admin_token: secret(admin_token),
            node_token: secret(&node_token),
        };
        let plane = gantry_control_plane::start(options).await.map_err(|error| control_failed(&error))?;
        Ok(Control { plane, node_token })
    }

    /// Where admins connect.
    pub(super) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// Starts the data plane as the node of this control plane.
    pub(super) async fn with_node(
        self,
        directory: &Directory,
        listen: SocketAddr,
        tls: Option<TlsFiles>,
    ) -> Result<Planes, Failure> {
        let options = gantry_data_plane::Options {
            listen,
            tls,
            control_plane: format!("http://{}", self.plane.address()),
            node_token: secret(&self.node_token),
            node_id: NODE.to_owned(),
            data_dir: directory.of_plane("data-plane"),
            allow_stdio: true,
        };
        match gantry_data_plane::start(options).await {
            Ok(data) => Ok(Planes { control: self.plane, data }),
            Err(error) => {
                stop_control(self.plane).await;
                Err(data_failed(&error))
            }
        }
    }
}

impl Planes {
    /// Where agents connect.
    pub(super) fn agents_address(&self) -> SocketAddr {
        self.data.address()
    }

    /// Completes only when a plane dies.
    pub(super) async fn failed(&mut self) -> Failure {
        let message = tokio::select! {
            error = self.control.failed() => format!("the control plane died: {}", chain(&error)),
            error = self.data.failed() => format!("the data plane died: {}", chain(&error)),
        };
        Failure::error(
            message,
            "read the log above, then start `gantry dev` again: what was acknowledged is stored",
        )
    }

    /// Stops both, each within a bound.
    pub(super) async fn shutdown(self) {
        if tokio::time::timeout(STOP_TIMEOUT, self.data.shutdown()).await.is_err() {
            output::warn(&format!("the data plane did not stop within {} s", STOP_TIMEOUT.as_secs()));
        }
        stop_control(self.control).await;
    }
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
        | StartError::Interrupted => "name another directory with `--data-dir DIR`",
    };
    Failure::error(format!("the control plane does not start: {}", chain(error)), next)
}

fn data_failed(error: &gantry_data_plane::StartError) -> Failure {
    use gantry_data_plane::StartError;
    let next = match error {
        StartError::Listen { .. } => {
            "stop what listens there, or name another address with `--listen 127.0.0.1:PORT`"
        }
        StartError::Tls(_) => {
            "name a PEM certificate chain and its key with `--tls-cert FILE --tls-key FILE`"
        }
        StartError::Audit(_) | StartError::Seal(_) => "name another directory with `--data-dir DIR`",
    };
    Failure::error(format!("the data plane does not start: {}", chain(error)), next)
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
