//! A data-plane node within this process, as `gantry dev` and `gantry data-plane run` have it.
//!
//! Always holds: it stops within [`STOP_TIMEOUT`]; why it does not start is told with what to do about it.

use std::net::SocketAddr;
use std::time::Duration;

use gantry_data_plane::{DataPlane, Options};
use gantry_model::Revision;

use crate::failure::{Failure, chain};
use crate::output;

/// How long a plane may take to stop: longer than its own drain.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A running node.
pub(crate) struct NodeProcess {
    name: String,
    plane: DataPlane,
}

impl NodeProcess {
    /// Starts it; it serves nobody before [`NodeProcess::ready`].
    pub(crate) async fn start(options: Options) -> Result<NodeProcess, Failure> {
        let name = options.node_id.clone();
        let plane = gantry_data_plane::start(options).await.map_err(|error| start_failed(&error))?;
        Ok(NodeProcess { name, plane })
    }

    /// Its name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Where agents connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// Completes once the node has its first configuration. It needs nothing of the node meanwhile.
    pub(crate) fn ready(&self) -> impl Future<Output = ()> + use<> {
        let mut applied = self.plane.applied();
        async move {
            // The sender ends with the node; `failed` tells of that.
            if applied.wait_for(|revision| *revision > Revision::NONE).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Completes only when a part of the node dies. May be dropped and called again.
    pub(crate) async fn failed(&mut self) -> Failure {
        let error = self.plane.failed().await;
        Failure::error(
            format!("the data plane died: {}", chain(&error)),
            "read the log above, then start it again: what was acknowledged is stored",
        )
    }

    /// Stops it, within a bound.
    pub(crate) async fn stop(self) {
        if tokio::time::timeout(STOP_TIMEOUT, self.plane.shutdown()).await.is_err() {
            output::warn(&format!("the node {} did not stop within {} s", self.name, STOP_TIMEOUT.as_secs()));
        }
    }
}

fn start_failed(error: &gantry_data_plane::StartError) -> Failure {
    use gantry_data_plane::StartError;
    let next = match error {
        StartError::NoControlPlane => "name one with `--control-plane URL`",
        StartError::Listen { .. } => {
            "stop what listens there, or name another address with `--listen 127.0.0.1:PORT`"
        }
        StartError::Tls(_) => {
            "name a PEM certificate chain and its key with `--tls-cert FILE --tls-key FILE`"
        }
        StartError::LastKnownGood(_) => {
            "mend what it says of the key file, or do without with `--no-last-known-good`"
        }
        StartError::Mesh(_) => {
            "name a free UDP address with `--mesh-listen IP:PORT`, and if that is every address, how other nodes \
             reach it with `--mesh-advertise IP:PORT`"
        }
        StartError::Audit(_) | StartError::Seal(_) => "name another directory with `--data-dir DIR`",
    };
    Failure::error(format!("the data plane does not start: {}", chain(error)), next)
}
