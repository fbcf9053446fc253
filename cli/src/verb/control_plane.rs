//! `gantry control-plane run`: a member of a control plane as a process of its own, with TLS.
//!
//! Always holds: it runs what `gantry cluster init` or `gantry cluster join` made, and makes no cluster itself; standard
//! output gets one line, when it serves; the admin token is in a file that only its owner can read, and is never printed;
//! a signal ends the process in order, and another member leads first.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_control_plane::member::{LoadError, Member};
use gantry_control_plane::{ControlPlane as Plane, Options, Transport};
use gantry_model::Secret;
use gantry_node::owner_only;
use serde_json::json;

use crate::address::host_and_port;
use crate::context::{SecretText, read_secret};
use crate::dev::{control_failed, new_admin_token, stop_control};
use crate::duration::Span;
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, TextFormat};
use crate::peer_files::{self, PeerFileFlags};
use crate::signals::Signals;

/// Below the data directory: the admin token, when no file is named.
const ADMIN_TOKEN: &str = "admin-token";
/// Below the data directory: the certificate of the cluster's authority, for `--ca` of the admin verbs.
const AUTHORITY: &str = "ca.pem";
/// How long another member may take to lead before this one ends all the same: three elections.
const HAND_OVER_TIMEOUT: Duration = Duration::from_secs(10);

/// Run control-plane members.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum ControlPlane {
    /// Run the member that `gantry cluster init` or `gantry cluster join` made.
    Run(Run),
}

/// `gantry control-plane run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Run {
    /// The member's directory.
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// Where admins and nodes connect, by TLS, in place of what DIR/member.json says; port 0 takes a free one.
    #[arg(long, value_name = "IP:PORT")]
    listen: Option<SocketAddr>,
    /// Where the other members are heard, in place of what DIR/member.json says.
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<SocketAddr>,
    /// Where the other members reach it, in place of what DIR/member.json says; port 0 stands for the port that it
    /// listens on.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// File with the admin token; DIR/admin-token when absent.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// How long the certificates count that this member signs, its own among them, such as 1h: 30s to 24h. They are renewed
    /// by themselves after six to seven tenths of it; the clocks of the cluster have to agree to a tenth of it.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    certificate_life: Span,
    #[command(flatten)]
    peer: PeerFileFlags,
    /// What is printed when it serves: text, or one JSON object on one line.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

/// What an admin needs to reach a member: made with its directory.
pub(crate) struct AdminFiles {
    /// The authority's certificate, as PEM.
    pub(crate) authority: PathBuf,
    /// The admin token.
    pub(crate) token: PathBuf,
}

impl AdminFiles {
    /// Makes them in a member's directory, where an earlier start left none. Each member has a token of its own there.
    pub(crate) fn make(data_dir: &Path, member: &Member) -> Result<AdminFiles, Failure> {
        let files = AdminFiles { authority: data_dir.join(AUTHORITY), token: data_dir.join(ADMIN_TOKEN) };
        let authority = member.membership.presenter().certified();
        if let Some(authority) = authority.as_ref().and_then(|certified| certified.chain().last()) {
            let pem = pem::encode(&pem::Pem::new("CERTIFICATE", authority.to_vec()));
            std::fs::write(&files.authority, pem).map_err(|error| unwritable(&files.authority, &error))?;
        }
        if !files.token.exists() {
            let token = new_admin_token()?;
            let line = format!("{}\n", token.expose());
            owner_only::make(&files.token, line.as_bytes())
                .map_err(|error| unwritable(&files.token, &error))?;
        }
        Ok(files)
    }
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
        let member = self.member()?;
        let mut files = AdminFiles::make(&self.data_dir, &member)?;
        let member = match self.peer.files() {
            Some(given) => {
                // By these admins know it.
                files.authority = given.authorities.clone();
                let member = member.with_files(given).map_err(|error| peer_files::unusable(&error))?;
                peer_files::warn_of_long_life(&member.membership);
                member
            }
            None => member,
        };
        let options = Options {
            data_dir: self.data_dir.clone(),
            listen: member.place.listen,
            transport: Transport::Tls,
            admin_token: Secret::new(self.admin_token(&files)?.expose().to_owned()),
            certificate_life: Duration::from_secs(self.certificate_life.seconds),
            member: Some(member.options()),
        };
        let started = tokio::select! {
            started = gantry_control_plane::start(options) => started,
            () = signals.next() => {
                output::say("stopped before it served");
                return Ok(Exit::Done);
            }
        };
        let plane = started.map_err(|error| control_failed(&error, "--listen"))?;
        if let Err(failure) = self.announce(&plane, &member, &files) {
            stop_control(plane).await;
            return Err(failure);
        }
        tokio::select! {
            error = plane.failed() => Err(Failure::error(
                format!("the control plane died: {}", chain(&error)),
                "read the log above, make room or mend the disk, then start it again: what was acknowledged is stored",
            )),
            () = signals.next() => {
                output::say("stopping; once more to stop at once");
                tokio::select! {
                    () = stop(plane) => {}
                    () = signals.next() => output::warn("stopped at once: what was acknowledged is stored"),
                }
                Ok(Exit::Done)
            }
        }
    }

    /// The member of the directory, where the flags say that it is.
    fn member(&self) -> Result<Member, Failure> {
        let mut member = Member::load(&self.data_dir).map_err(|error| not_loaded(&error))?;
        if let Some(listen) = self.listen {
            member.place.listen = listen;
        }
        if let Some(listen) = self.peer_listen {
            member.place.peer_listen = listen;
        }
        if let Some(advertise) = &self.advertise {
            member.place.advertise = host_and_port("address", "--advertise", advertise)?;
        }
        Ok(member)
    }

    fn admin_token(&self, files: &AdminFiles) -> Result<SecretText, Failure> {
        read_secret(self.admin_token_file.as_deref().unwrap_or(&files.token))
    }

    fn announce(&self, plane: &Plane, member: &Member, files: &AdminFiles) -> Result<(), Failure> {
        let (token, address) = (self.admin_token_file.as_ref().unwrap_or(&files.token), plane.address());
        output::print(&match self.output {
            TextFormat::Text => {
                let quoted = |path: &Path| shell_words::quote(&path.to_string_lossy()).into_owned();
                format!(
                    "Member {} of cluster {} serves admins and nodes at {address}.\n\nTry next:\n\n  \
                     gantry status --admin {address} --ca {} --token-file {}\n",
                    member.id,
                    plane.cluster_id(),
                    quoted(&files.authority),
                    quoted(token),
                )
            }
            TextFormat::Json => {
                let line = json!({
                    "cluster_id": plane.cluster_id(),
                    "member": member.id.get(),
                    "address": address.to_string(),
                    "peer_address": plane.peer_address(),
                    "ca": files.authority,
                    "admin_token_file": token,
                });
                format!("{line}\n")
            }
        })
    }
}

/// Lets another member lead, then stops.
async fn stop(plane: Plane) {
    match tokio::time::timeout(HAND_OVER_TIMEOUT, plane.hand_over()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => output::warn(&format!("no other member leads yet: {}", chain(&error))),
        Err(_) => output::warn("no other member leads yet; the others elect one by themselves"),
    }
    stop_control(plane).await;
}

fn not_loaded(error: &LoadError) -> Failure {
    let next = match error {
        LoadError::None(_) => {
            "`gantry cluster init --data-dir DIR` founds a cluster; `gantry cluster join --data-dir DIR` joins one"
        }
        LoadError::EmptyDisk { .. } => {
            "join anew from an empty directory: `gantry cluster token --role control-plane` at another member, then \
             `gantry cluster join` here"
        }
        LoadError::Identity(_) | LoadError::OtherParty { .. } => {
            "name the directory of a member with --data-dir DIR"
        }
        LoadError::Place { .. } => {
            "correct it: it has listen, peer_listen (IP:PORT), advertise (HOST:PORT) and contacts"
        }
    };
    Failure::error(format!("the member does not start: {}", chain(error)), next)
}

fn unwritable(path: &Path, error: &io::Error) -> Failure {
    Failure::error(
        format!("{} cannot be written: {error}", path.display()),
        "make room or correct the permissions, then start again",
    )
}
