//! `gantry cluster init` and `gantry cluster join`: the directory of a member, before `gantry control-plane run`.
//!
//! Always holds: a directory becomes one member's, once; secrets are in files that only their owner can read, and are
//! never printed; standard output gets what the next step needs.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use gantry_control_plane::member::{self, MakeError, Member, Place};
use gantry_node::token::JoinToken;
use serde_json::{Value, json};

use crate::address::host_and_port;
use crate::context::read_secret;
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, TextFormat};
use crate::peer_files;
use crate::verb::control_plane::AdminFiles;

/// Where the members of a cluster on one machine are heard.
const PEER_PORT: u16 = 8082;

/// `gantry cluster init`.
#[derive(Debug, clap::Args)]
pub(crate) struct Init {
    #[command(flatten)]
    place: PlaceFlags,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

/// `gantry cluster join`.
#[derive(Debug, clap::Args)]
pub(crate) struct Join {
    #[command(flatten)]
    place: PlaceFlags,
    /// Where a member of the cluster serves admins and nodes, such as cp-1.example.com:8081.
    #[arg(long, value_name = "HOST:PORT")]
    member: String,
    /// File with a token of `gantry cluster token --role control-plane`.
    #[arg(long, value_name = "FILE")]
    token_file: PathBuf,
    /// PEM certificates of the authorities that the member is believed by, where it shows a certificate of the
    /// organisation's.
    #[arg(long, value_name = "FILE")]
    peer_ca: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
}

/// Where a member is.
#[derive(Debug, clap::Args)]
pub(super) struct PlaceFlags {
    /// Where everything is stored; made here. Back up its file `kek` apart from the rest.
    #[arg(long, value_name = "DIR")]
    pub(super) data_dir: PathBuf,
    /// Where admins and nodes will connect, by TLS; port 0 takes a free one at each start.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:8081")]
    listen: SocketAddr,
    /// Where the other members will be heard, by TLS; when absent, the address that --advertise names, or its port on
    /// every address when that is a host name.
    #[arg(long, value_name = "IP:PORT")]
    peer_listen: Option<SocketAddr>,
    /// Where the other members will reach it, such as cp-1.example.com:8082; when absent, where it listens for them.
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
}

/// What is said of a directory that has become a member's.
pub(super) struct Told {
    /// What was done, in one sentence.
    pub(super) first: String,
    /// Lines after what to try next.
    pub(super) last: String,
    /// What the JSON form has besides.
    pub(super) more: Vec<(&'static str, Value)>,
}

impl PlaceFlags {
    pub(super) fn resolve(&self) -> Result<Place, Failure> {
        let advertise = self.advertise.as_deref();
        let advertise = advertise.map(|text| host_and_port("address", "--advertise", text)).transpose()?;
        let (peer_listen, advertise) = match (self.peer_listen, advertise) {
            (Some(listen), Some(advertise)) => (listen, advertise),
            (None, Some(advertise)) => (listen_for(&advertise), advertise),
            (Some(listen), None) if listen.ip().is_unspecified() => {
                return Err(Failure::usage(
                    format!("{listen} is no address at which others could reach this member"),
                    "add --advertise HOST:PORT",
                ));
            }
            (Some(listen), None) => (listen, listen.to_string()),
            (None, None) => {
                let listen = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PEER_PORT);
                (listen, listen.to_string())
            }
        };
        Ok(Place { listen: self.listen, peer_listen, advertise, contacts: Vec::new() })
    }
}

/// Where a member listens that is reached at `advertise`.
fn listen_for(advertise: &str) -> SocketAddr {
    advertise.parse().unwrap_or_else(|_| {
        let port = advertise.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.unwrap_or(PEER_PORT))
    })
}

impl Init {
    /// Runs the command.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let data_dir = &self.place.data_dir;
        let made = member::found(data_dir, self.place.resolve()?).await;
        let made = made.map_err(|error| not_made(&error, "the cluster is not founded"))?;
        let files = AdminFiles::make(data_dir, &made)?;
        let first = format!("Founded the cluster {}; this is member {}.", made.membership.cluster(), made.id);
        let told = Told { first, last: String::new(), more: Vec::new() };
        told.report(self.output, data_dir, &made, &files)
    }
}

impl Join {
    /// Runs the command.
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let data_dir = &self.place.data_dir;
        let address = host_and_port("member", "--member", &self.member)?;
        let token = JoinToken::parse(read_secret(&self.token_file)?.expose()).map_err(|error| {
            let next = "make one with `gantry cluster token --role control-plane`";
            Failure::error(format!("{}: {error}", self.token_file.display()), next)
        })?;
        let trust = self.peer_ca.as_deref().map(peer_files::trust).transpose()?;
        let made = member::join(data_dir, &token, &address, self.place.resolve()?, trust).await;
        let made = made.map_err(|error| not_made(&error, "this member does not join"))?;
        let files = AdminFiles::make(data_dir, &made)?;
        let first = format!("Joined the cluster {} as member {}.", made.membership.cluster(), made.id);
        let last = format!("  gantry cluster add {}   (at any member: to let it vote)\n", made.id);
        Told { first, last, more: Vec::new() }.report(self.output, data_dir, &made, &files)
    }
}

impl Told {
    pub(super) fn report(
        self,
        format: TextFormat,
        data_dir: &Path,
        made: &Member,
        files: &AdminFiles,
    ) -> Result<Exit, Failure> {
        let Told { first, last, more } = self;
        output::print(&match format {
            TextFormat::Text => {
                let quoted = shell_words::quote(&data_dir.to_string_lossy()).into_owned();
                format!("{first}\n\nTry next:\n\n  gantry control-plane run --data-dir {quoted}\n{last}")
            }
            TextFormat::Json => {
                let mut line = json!({
                    "cluster_id": made.membership.cluster().as_str(),
                    "member": made.id.get(),
                    "ca": files.authority,
                    "admin_token_file": files.token,
                });
                for (name, value) in more {
                    line[name] = value;
                }
                format!("{line}\n")
            }
        })?;
        Ok(Exit::Done)
    }
}

fn not_made(error: &MakeError, what: &str) -> Failure {
    let next = match error {
        MakeError::Used(_) => {
            "run it with `gantry control-plane run`, or name an empty directory with --data-dir DIR"
        }
        MakeError::Join(_) | MakeError::NoKeyFile | MakeError::NotMember(_) => {
            "look at the address and the token; `gantry cluster token --role control-plane` makes another"
        }
        MakeError::Start(_)
        | MakeError::Secure(_)
        | MakeError::Keep(_)
        | MakeError::KeyFile(_)
        | MakeError::Store(_)
        | MakeError::Write { .. } => {
            "look at the directory and its rights, or name another with --data-dir DIR"
        }
    };
    Failure::error(format!("{what}: {}", chain(error)), next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(peer_listen: Option<&str>, advertise: Option<&str>) -> Option<(String, String)> {
        let flags = PlaceFlags {
            data_dir: PathBuf::new(),
            listen: ([127, 0, 0, 1], 1).into(),
            peer_listen: peer_listen.map(|listen| listen.parse().expect("an address")),
            advertise: advertise.map(str::to_owned),
        };
        let place = flags.resolve().ok()?;
        Some((place.peer_listen.to_string(), place.advertise))
    }

    #[test]
    fn a_member_listens_where_it_is_reached_unless_it_is_told_otherwise() {
        let both = |listen: &str, advertise: &str| Some((listen.to_owned(), advertise.to_owned()));
        assert_eq!(place(None, None), both("127.0.0.1:8082", "127.0.0.1:8082"));
        assert_eq!(place(None, Some("10.0.0.1:9")), both("10.0.0.1:9", "10.0.0.1:9"));
        assert_eq!(place(None, Some("cp-1.example.com:9")), both("0.0.0.0:9", "cp-1.example.com:9"));
        assert_eq!(place(Some("10.0.0.1:9"), None), both("10.0.0.1:9", "10.0.0.1:9"));
        assert_eq!(place(Some("0.0.0.0:7"), Some("cp-1:9")), both("0.0.0.0:7", "cp-1:9"));
        assert_eq!(place(Some("0.0.0.0:7"), None), None);
        assert_eq!(place(None, Some("http://cp-1:9")), None);
    }
}
