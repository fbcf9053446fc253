//! What proves a node that is started: the token of a control plane without TLS, or its certificate, for which it joins
//! the cluster first where it has none.
//!
//! Always holds: a token that all nodes share is sent over loopback only; a certificate that counts is used rather than
//! a join token of its cluster, so that a service may name the same flags at every start. A token of another cluster is
//! one that the node was given to move there, as after `gantry cluster restore`. A node whose certificate ended while it
//! was down, and that cannot join anew, starts all the same, and serves what it last had, as one that ran on would.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_data_plane::Proof;
use gantry_model::Secret;
use gantry_model::identity::{Party, PeerName};
use gantry_model::name::Name;
use gantry_node::membership::{FileError, JoinError, Membership};
use gantry_node::token::JoinToken;

use crate::address::host_and_port;
use crate::context::{AdminAddress, read_secret};
use crate::failure::{Failure, chain};
use crate::output::{self, Paint};
use crate::peer_files::{self, PeerFileFlags};

/// Below the data directory of a node: its key and certificate.
const IDENTITY: &str = "identity";

/// The flags that say it.
#[derive(Debug, clap::Args)]
pub(super) struct ProofFlags {
    /// File with the node token of a control plane without TLS; `gantry dev` leaves one as .gantry/node-token.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["join_token_file", "peer_ca"])]
    token_file: Option<PathBuf>,
    /// File with a token of `gantry cluster token --role node`, with which the node joins at its first start. It keeps
    /// its certificate in the data directory.
    #[arg(long, value_name = "FILE")]
    join_token_file: Option<PathBuf>,
    #[command(flatten)]
    peer: PeerFileFlags,
}

impl ProofFlags {
    /// The proof, and the addresses as they are dialled with it.
    pub(super) async fn resolve(
        &self,
        name: &Name,
        data_dir: &Path,
        control_planes: &[String],
    ) -> Result<(Proof, Vec<String>), Failure> {
        if let Some(file) = &self.token_file {
            let address = |text: &String| AdminAddress::parse_as("control plane", "--control-plane", text);
            let addresses = control_planes.iter().map(|text| Ok(address(text)?.as_url().to_owned()));
            let addresses = addresses.collect::<Result<_, Failure>>()?;
            let token = Secret::new(read_secret(file)?.expose().to_owned());
            return Ok((Proof::Token(token), addresses));
        }
        let addresses =
            control_planes.iter().map(|text| host_and_port("control plane", "--control-plane", text));
        let addresses = addresses.collect::<Result<Vec<_>, _>>()?;
        let membership = self.membership(name, data_dir.join(IDENTITY), &addresses).await?;
        Ok((Proof::Certificate(membership), addresses))
    }

    async fn membership(
        &self,
        name: &Name,
        file: PathBuf,
        addresses: &[String],
    ) -> Result<Membership, Failure> {
        if let Some(given) = self.peer.files().filter(|given| given.own.is_some()) {
            let own = given.own.as_ref().map(|own| own.certificate.clone()).unwrap_or_default();
            let membership = Membership::of_files(given).map_err(|error| peer_files::unusable(&error))?;
            check_name(name, membership.name(), &own)?;
            peer_files::warn_of_long_life(&membership);
            return Ok(membership);
        }
        let membership = self.enrolled(name, file, addresses).await?;
        match self.peer.files() {
            Some(given) => membership.with_files(given).map_err(|error| peer_files::unusable(&error)),
            None => Ok(membership),
        }
    }

    /// By a certificate of the built-in authority.
    async fn enrolled(
        &self,
        name: &Name,
        file: PathBuf,
        addresses: &[String],
    ) -> Result<Membership, Failure> {
        let kept = Membership::load(file.clone()).map_err(|error| unusable(&error))?;
        // Its file may be gone once it was used.
        let token = self.join_token();
        if let Some(kept) = kept {
            check_name(name, kept.name(), &file)?;
            let moves = matches!(&token, Ok(Some(token)) if token.cluster != *kept.cluster());
            if !moves {
                return Ok(if kept.expires_at_ms() > now_ms() {
                    kept
                } else {
                    or_kept(join_anew(token, name, &file, addresses).await, kept, &file)
                });
            }
        }
        join_anew(token, name, &file, addresses).await
    }

    fn join_token(&self) -> Result<Option<JoinToken>, Failure> {
        let Some(file) = &self.join_token_file else { return Ok(None) };
        let token = JoinToken::parse(read_secret(file)?.expose()).map_err(|error| {
            let said = format!("{}: {error}", file.display());
            Failure::error(said, "make one with `gantry cluster token --role node`")
        })?;
        Ok(Some(token))
    }
}

async fn join_anew(
    token: Result<Option<JoinToken>, Failure>,
    name: &Name,
    file: &Path,
    addresses: &[String],
) -> Result<Membership, Failure> {
    let Some(token) = token? else {
        return Err(Failure::usage(
            format!("nothing proves the node: it has no certificate that counts in {}", file.display()),
            "make a token with `gantry cluster token --role node`, and name its file with --join-token-file",
        ));
    };
    join(&token, name, file, addresses).await
}

/// What was joined, or the membership whose certificate has ended.
fn or_kept(joined: Result<Membership, Failure>, kept: Membership, file: &Path) -> Membership {
    joined.unwrap_or_else(|failure| {
        output::warn(&format!(
            "the certificate in {} has ended: no control plane takes the node in, and it serves what it last had",
            file.display()
        ));
        output::say(failure.render(Paint::stderr()).trim_end());
        kept
    })
}

/// Asks one control plane after the other; the first that says no has said it for all of them. One that cannot be
/// reached, or cannot say just now, has not: but the token may have been used up then.
async fn join(
    token: &JoinToken,
    name: &Name,
    file: &Path,
    addresses: &[String],
) -> Result<Membership, Failure> {
    let mut failed = None;
    for address in addresses {
        match Membership::join_as_node(token, name, address, file.to_owned()).await {
            Ok(membership) => {
                output::say(&format!("joined the cluster {} as node {name}", membership.cluster()));
                return Ok(membership);
            }
            Err(error) if error.may_pass() => failed = Some(error),
            Err(error) => return Err(not_joined(&error)),
        }
    }
    Err(failed.map_or_else(
        || Failure::usage("no control plane is named", "add --control-plane HOST:PORT"),
        |error| not_joined(&error),
    ))
}

fn not_joined(error: &JoinError) -> Failure {
    Failure::error(
        format!("the node does not join: {}", chain(error)),
        "look at the address and the token; `gantry cluster token --role node` makes another",
    )
}

fn unusable(error: &FileError) -> Failure {
    Failure::error(chain(error), "or name another directory with --data-dir DIR")
}

fn check_name(name: &Name, certified: &PeerName, file: &Path) -> Result<(), Failure> {
    match &certified.party {
        Party::Node(node) if node == name => Ok(()),
        Party::Node(_) | Party::ControlPlane(_) | Party::Admin(_) => Err(Failure::error(
            format!("the certificate in {} is that of {certified}, not of node {name}", file.display()),
            "name the node so with --name, or another directory with --data-dir DIR",
        )),
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
