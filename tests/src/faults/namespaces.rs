//! Network namespaces of one run: a hub with a bridge, and one namespace with one link to it for each process.
//!
//! Always holds: nothing outside these namespaces is changed; their names begin with the id of the process that made
//! them; when [`Namespaces`] is dropped, also by a panic, whatever still runs in them is killed and they are removed;
//! what a dead run left is removed by the next one. It takes root, `ip` and `nft`.

use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::peers::MayBeMissing;
use crate::process::{ProcessError, run};

/// How the names of all namespaces of all runs begin.
const PREFIX: &str = "gantry-faults-";
/// How long one `ip` or `nft` may take; it takes 5 ms.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(30);
/// Places of a run; the addresses of the last number end below 255.
const PLACES_MAX: usize = 200;

/// Where a process is: the number of its namespace, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub usize);

/// The namespaces of this process; dropping it removes them.
#[derive(Debug)]
pub struct Namespaces {
    names: Names,
    count: usize,
}

/// How the namespaces of a run are called.
#[derive(Debug, Clone)]
pub struct Names(String);

/// Why there are no namespaces.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// Not root.
    #[error("network namespaces take root")]
    NotRoot,
    /// `ip` or `nft` is not installed.
    #[error("{0} is not installed")]
    Missing(&'static str),
    /// It cannot be run.
    #[error("cannot run {0}")]
    Run(&'static str, #[source] io::Error),
    /// It said no.
    #[error("{command}: {output}")]
    Refused {
        /// What was run.
        command: String,
        /// What it printed.
        output: String,
    },
    /// It did not end in time, or could not be started.
    #[error(transparent)]
    Process(#[from] ProcessError),
}

impl MayBeMissing for NamespaceError {
    fn missing(&self) -> Option<&str> {
        match self {
            Self::Missing(program) => Some(program),
            Self::NotRoot | Self::Run(..) | Self::Refused { .. } | Self::Process(_) => None,
        }
    }

    fn reason(&self) -> Option<String> {
        match self {
            Self::NotRoot | Self::Missing(_) => Some(self.to_string()),
            Self::Run(..) | Self::Refused { .. } | Self::Process(_) => None,
        }
    }
}

impl Place {
    /// Its address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 11 + u8::try_from(self.0).unwrap_or(u8::MAX - 11))
    }
}

impl Names {
    /// Those of the run of a process.
    #[must_use]
    pub fn of(process: u32) -> Self {
        Self(format!("{PREFIX}{process}-"))
    }

    /// The address of the hub, where clients and servers are.
    #[must_use]
    pub fn hub_address() -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, 1)
    }

    /// The namespace of the bridge.
    #[must_use]
    pub fn hub(&self) -> String {
        format!("{}hub", self.0)
    }

    /// The namespace of a place.
    #[must_use]
    pub fn of_place(&self, place: Place) -> String {
        format!("{}{}", self.0, place.0)
    }

    /// From now on nothing that comes from `sources` is heard at a place, besides what was cut before.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub async fn deafen(&self, place: Place, sources: &[Place]) -> Result<(), NamespaceError> {
        for source in sources {
            self.nft(place, &drop_rule(*source)).await?;
        }
        Ok(())
    }

    /// Everything is heard again at a place, but for `besides`, of which nothing is heard in between either.
    ///
    /// # Errors
    /// When `nft` refuses.
    pub async fn hear(&self, place: Place, besides: &[Place]) -> Result<(), NamespaceError> {
        let rules = besides.iter().map(|source| drop_rule(*source));
        let rules: Vec<_> = ["flush chain inet faults input".to_owned()].into_iter().chain(rules).collect();
        self.nft(place, &rules.join(" ; ")).await
    }

    /// Takes a place's link down, or up again.
    ///
    /// # Errors
    /// When `ip` refuses.
    pub async fn link(&self, place: Place, is_up: bool) -> Result<(), NamespaceError> {
        let state = if is_up { "up" } else { "down" };
        let mut command = tokio::process::Command::new("ip");
        command.args(["-n", &self.of_place(place), "link", "set", "eth0", state]);
        ended_well(format!("link {state}"), run(command, COMMAND_TIME_MAX).await?)
    }

    async fn nft(&self, place: Place, rule: &str) -> Result<(), NamespaceError> {
        let mut command = tokio::process::Command::new("ip");
        command.args(["netns", "exec", &self.of_place(place), "nft", rule]);
        ended_well(rule.to_owned(), run(command, COMMAND_TIME_MAX).await?)
    }
}

impl Namespaces {
    /// Removes what dead runs left, and makes `count` places around a hub.
    ///
    /// # Errors
    /// Without root or the tools, or when one of them refuses.
    ///
    /// # Panics
    /// When more places are asked for than there are addresses.
    pub fn make(count: usize) -> Result<Self, NamespaceError> {
        assert!(count <= PLACES_MAX, "{count} places; the bound is {PLACES_MAX}");
        if !is_root() {
            return Err(NamespaceError::NotRoot);
        }
        tool("nft", &["--version"])?;
        sweep()?;
        let names = Names::of(std::process::id());
        // From here on what there is goes with this value.
        let made = Self { names, count };
        let hub = made.names.hub();
        ip(&["netns", "add", &hub])?;
        ip(&["-n", &hub, "link", "set", "lo", "up"])?;
        ip(&["-n", &hub, "link", "add", "name", "bridge", "type", "bridge"])?;
        let address = format!("{}/24", Names::hub_address());
        ip(&["-n", &hub, "addr", "add", &address, "dev", "bridge"])?;
        ip(&["-n", &hub, "link", "set", "bridge", "up"])?;
        (0..count).try_for_each(|place| made.add(Place(place)))?;
        Ok(made)
    }

    /// How they are called.
    #[must_use]
    pub fn names(&self) -> &Names {
        &self.names
    }

    fn add(&self, place: Place) -> Result<(), NamespaceError> {
        let (hub, name, port) = (self.names.hub(), self.names.of_place(place), format!("port{}", place.0));
        ip(&["netns", "add", &name])?;
        let veth = ["link", "add", "name", &port, "type", "veth", "peer", "name", "eth0", "netns", &name];
        ip(&[&["-n", &hub], &veth[..]].concat())?;
        ip(&["-n", &hub, "link", "set", &port, "master", "bridge", "up"])?;
        let address = format!("{}/24", place.address());
        ip(&["-n", &name, "addr", "add", &address, "dev", "eth0"])?;
        ip(&["-n", &name, "link", "set", "eth0", "up"])?;
        ip(&["-n", &name, "link", "set", "lo", "up"])?;
        let chain = "add table inet faults ; \
                     add chain inet faults input { type filter hook input priority 0 ; }";
        ip(&["netns", "exec", &name, "nft", chain])
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        let places = (0..self.count).map(|place| self.names.of_place(Place(place)));
        let all: Vec<_> = places.chain([self.names.hub()]).collect();
        // There is nobody to tell; what stays is removed by the next run.
        let _ = remove(&all);
    }
}

/// Removes the namespaces of runs whose process is gone.
fn sweep() -> Result<(), NamespaceError> {
    let listed = tool("ip", &["netns", "list"])?;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    let names = listed.lines().filter_map(|line| line.split_whitespace().next());
    let is_left = |name: &&str| {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        process.is_some_and(|process| !Path::new("/proc").join(process).exists())
    };
    remove(&names.filter(is_left).map(str::to_owned).collect::<Vec<_>>())
}

/// Kills what runs in namespaces, then removes them.
fn remove(names: &[String]) -> Result<(), NamespaceError> {
    for name in names {
        let Ok(processes) = tool("ip", &["netns", "pids", name]) else { continue };
        for process in String::from_utf8_lossy(&processes.stdout).split_whitespace() {
            // It may have ended meanwhile.
            let _ = tool("kill", &["-KILL", process]);
        }
    }
    let removed = names.iter().map(|name| ip(&["netns", "del", name]));
    removed.fold(Ok(()), Result::and)
}

fn drop_rule(source: Place) -> String {
    format!("add rule inet faults input ip saddr {} drop", source.address())
}

fn is_root() -> bool {
    // The first number is that of the real user, the second counts.
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_whitespace().nth(1)) == Some("0")
}

fn ip(arguments: &[&str]) -> Result<(), NamespaceError> {
    let output = tool("ip", arguments)?;
    if output.status.success() {
        return Ok(());
    }
    let output = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(NamespaceError::Refused { command: format!("ip {}", arguments.join(" ")), output })
}

fn tool(program: &'static str, arguments: &[&str]) -> Result<Output, NamespaceError> {
    Command::new(program).args(arguments).output().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => NamespaceError::Missing(program),
        _ => NamespaceError::Run(program, error),
    })
}

fn ended_well(command: String, finished: crate::process::Finished) -> Result<(), NamespaceError> {
    match finished.status.success() {
        true => Ok(()),
        false => Err(NamespaceError::Refused { command, output: finished.stderr.trim().to_owned() }),
    }
}
