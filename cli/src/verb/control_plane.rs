//! `gantry control-plane run`: a control plane as a process of its own, with TLS.
//!
//! Always holds: standard output gets one line, when it serves; the admin token is in a file that only its owner can
//! read, and is never printed; a signal ends the process in order. It is the only member of its cluster.

use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use gantry_control_plane::{ControlPlane as Plane, Options, Transport};
use gantry_model::Secret;
use serde_json::json;

use crate::context::{OWNER_ONLY, SecretText, read_secret};
use crate::dev::{control_failed, new_admin_token, stop_control};
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, TextFormat};
use crate::signals::Signals;

/// Below the data directory: the admin token, when no file is named.
const ADMIN_TOKEN: &str = "admin-token";
/// Below the data directory: the certificate of the cluster's authority, for `--ca` of the admin verbs.
const AUTHORITY: &str = "ca.pem";

/// Run control-plane members.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ControlPlane {
    /// Run a control plane, which makes its cluster at the first start.
    Run(Run),
}

/// `gantry control-plane run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// Where everything is stored; made at the first start. Back up its file `kek` apart from the rest.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where admins and nodes connect, by TLS; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// File with the admin token; DIR/admin-token when absent, which the first start makes.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// What is printed when it serves: text, or one JSON object on one line.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

impl ControlPlane {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            ControlPlane::Run(run) => run.run().await,
        }
    }
}

impl Run {
    /// Runs until it is told to stop, or until the control plane dies.
    async fn run(self) -> Result<Exit, Failure> {
        let mut signals = Signals::new()?;
        let options = Options {
            data_dir: self.data_dir.clone(),
            listen: self.listen,
            transport: Transport::Tls,
            admin_token: Secret::new(self.admin_token()?.expose().to_owned()),
            // Nodes have certificates; this one opens nothing.
            node_token: Secret::new(new_admin_token()?.expose().to_owned()),
            member: None,
        };
        let plane =
            gantry_control_plane::start(options).await.map_err(|error| control_failed(&error, "--listen"))?;
        let announced = self.announce(&plane);
        if let Err(failure) = announced {
            stop_control(plane).await;
            return Err(failure);
        }
        tokio::select! {
            error = plane.failed() => Err(Failure::error(
                format!("the control plane died: {}", chain(&error)),
                "read the log above, then start it again: what was acknowledged is stored",
            )),
            () = signals.next() => {
                output::say("stopping; once more to stop at once");
                tokio::select! {
                    () = stop_control(plane) => {}
                    () = signals.next() => output::warn("stopped at once: what was acknowledged is stored"),
                }
                Ok(Exit::Done)
            }
        }
    }

    fn admin_token_path(&self) -> PathBuf {
        self.admin_token_file.clone().unwrap_or_else(|| self.data_dir.join(ADMIN_TOKEN))
    }

    /// The admin token; a new one where no file was named and an earlier start left none.
    fn admin_token(&self) -> Result<SecretText, Failure> {
        let path = self.admin_token_path();
        if self.admin_token_file.is_some() || path.exists() {
            return read_secret(&path);
        }
        let token = new_admin_token()?;
        let write = || {
            DirBuilder::new().recursive(true).mode(0o700).create(&self.data_dir)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(OWNER_ONLY).open(&path)?;
            writeln!(file, "{}", token.expose())
        };
        write().map_err(|error| unwritable(&path, &error))?;
        Ok(token)
    }

    /// Leaves the authority's certificate where admins find it, and tells that it serves.
    fn announce(&self, plane: &Plane) -> Result<(), Failure> {
        let authority = plane.authority().ok_or_else(|| {
            Failure::error("the cluster has no authority", "start it again: it is made at the start")
        })?;
        let path = self.data_dir.join(AUTHORITY);
        let pem = pem::encode(&pem::Pem::new("CERTIFICATE", authority));
        std::fs::write(&path, pem).map_err(|error| unwritable(&path, &error))?;
        let (token, address) = (self.admin_token_path(), plane.address());
        output::print(&match self.output {
            TextFormat::Text => {
                let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
                format!(
                    "The control plane of cluster {} serves admins and nodes at {address}.\n\nTry next:\n\n  \
                     gantry status --admin {address} --ca {} --token-file {}\n",
                    plane.cluster_id(),
                    quoted(&path),
                    quoted(&token),
                )
            }
            TextFormat::Json => {
                let line = json!({
                    "cluster_id": plane.cluster_id(),
                    "address": address.to_string(),
                    "ca": path,
                    "admin_token_file": token,
                });
                format!("{line}\n")
            }
        })
    }
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::error(
        format!("{} cannot be written: {error}", path.display()),
        "make room or correct the permissions, then start again",
    )
}
