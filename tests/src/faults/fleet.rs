//! The processes of a run: voters and nodes, each in a namespace and a directory of its own.
//!
//! Always holds: a process that was ended starts again with its directory, at its address, and as the build that it was,
//! until it is told to become the one under test; what it printed is kept in `logs/` of the folder.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use gantry_node::membership::Membership;
use serde_json::Value;
use tokio::process::Command;

use super::admin::Access;
use super::ledger::Ledger;
use super::namespaces::{Names, Place};
use super::{NODES, VOTERS};
use crate::dev::command;
use crate::members::{DEADLINE, Error, done, write_secret};
use crate::process::{Running, Stream, run};

/// Where voters serve admins and nodes, where they are heard by each other, and where nodes serve agents. All
/// addresses differ, so that the ports may be the same.
const ADMIN_PORT: u16 = 8081;
const PEER_PORT: u16 = 8082;
const AGENT_PORT: u16 = 8080;

/// What the processes are made of.
#[derive(Debug, Clone)]
pub struct Builds {
    /// The one under test.
    pub current: PathBuf,
    /// The one before, with which everything starts if there is one.
    pub previous: Option<PathBuf>,
    /// How long certificates count that the last voter signs, and all others that can be told.
    pub certificate_life: Duration,
    /// Whether the other voters are told.
    pub all_short: bool,
}

/// All processes.
pub struct Fleet {
    names: Names,
    folder: PathBuf,
    builds: Builds,
    ledger: Arc<Ledger>,
    /// The voters, then the nodes.
    processes: Vec<Process>,
    accesses: Vec<Access>,
}

struct Process {
    name: String,
    is_current: bool,
    /// `None` while it is not there.
    running: Option<Running>,
}

/// The place of a voter, from 0.
#[must_use]
pub fn voter(number: usize) -> Place {
    Place(number)
}

/// The place of a node, from 0.
#[must_use]
pub fn node(number: usize) -> Place {
    Place(VOTERS + number)
}

/// The number of the node at a place, if one is there.
#[must_use]
pub fn node_at(place: Place) -> Option<usize> {
    place.0.checked_sub(VOTERS)
}

/// Where a node serves agents.
#[must_use]
pub fn agent_address(number: usize) -> SocketAddr {
    (node(number).address(), AGENT_PORT).into()
}

fn admin_address(number: usize) -> SocketAddr {
    (voter(number).address(), ADMIN_PORT).into()
}

impl Fleet {
    /// Nothing runs yet.
    #[must_use]
    pub fn new(names: Names, folder: PathBuf, builds: Builds, ledger: Arc<Ledger>) -> Self {
        let is_current = builds.previous.is_none();
        let named = |name: String| Process { name, is_current, running: None };
        let voters = (1..=VOTERS).map(|number| format!("voter-{number}"));
        let nodes = (1..=NODES).map(|number| format!("node-{number}"));
        let processes = voters.chain(nodes).map(named).collect();
        Self { names, folder, builds, ledger, processes, accesses: Vec::new() }
    }

    /// Founds the cluster and lets the other voters join it.
    ///
    /// # Errors
    /// When one of them does not.
    pub async fn found(&mut self) -> Result<(), Error> {
        for number in 0..VOTERS {
            let mut make = self.command(voter(number));
            if number == 0 {
                make.args(["cluster", "init"]);
            } else {
                let token = self.accesses[0].connect().await?.join_token(None).await?;
                let file = self.folder.join(format!("voter-{}.token", number + 1));
                write_secret(&file, &token)?;
                make.args(["cluster", "join", "--member", &admin_address(0).to_string(), "--token-file"]);
                make.arg(file);
            }
            let advertise = format!("{}:{PEER_PORT}", voter(number).address());
            make.args(["--listen", &admin_address(number).to_string(), "--advertise", &advertise]);
            make.arg("--data-dir").arg(self.directory(voter(number)));
            done(run(make, DEADLINE).await?)?;
            self.start(voter(number)).await?;
            let access = Access::read(&self.directory(voter(number)), admin_address(number))?;
            self.accesses.push(access);
            if number > 0 {
                let member = u64::try_from(number)? + 1;
                self.accesses[0].connect().await?.promote(member).await?;
            }
        }
        Ok(())
    }

    /// Lets the nodes join and starts them.
    ///
    /// # Errors
    /// When one of them does not.
    pub async fn join_nodes(&mut self) -> Result<(), Error> {
        for number in 0..NODES {
            self.new_token(number).await?;
        }
        self.start_all(&(0..NODES).map(node).collect::<Vec<_>>()).await
    }

    /// Makes a token with which a node joins at its next start, if its certificate does not count then.
    ///
    /// # Errors
    /// When no member makes one.
    pub async fn new_token(&self, number: usize) -> Result<(), Error> {
        let name = &self.processes[node(number).0].name;
        let mut failed = None;
        for access in &self.accesses {
            let made = async { access.connect().await?.join_token(Some(name)).await };
            match made.await {
                Ok(token) => return Ok(write_secret(&self.token_file(number), &token)?),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.map_or("no voter".into(), Into::into))
    }

    /// How admins reach the voters.
    #[must_use]
    pub fn accesses(&self) -> &[Access] {
        &self.accesses
    }

    /// Starts the process of a place, and waits until it serves.
    ///
    /// # Errors
    /// When it does not.
    pub async fn start(&mut self, place: Place) -> Result<(), Error> {
        let running = self.run(place).await?;
        self.processes[place.0].running = Some(running);
        Ok(())
    }

    /// Starts several at once: none of them may be able to serve without the others.
    ///
    /// # Errors
    /// When one of them does not serve.
    pub async fn start_all(&mut self, places: &[Place]) -> Result<(), Error> {
        let started = try_join_all(places.iter().map(|place| self.run(*place))).await?;
        for (place, running) in places.iter().zip(started) {
            self.processes[place.0].running = Some(running);
        }
        Ok(())
    }

    async fn run(&self, place: Place) -> Result<Running, Error> {
        let command = match node_at(place) {
            None => self.voter_command(place).await?,
            Some(number) => self.node_command(number),
        };
        self.ledger.with(|told| match node_at(place) {
            None => told.voter_starts[place.0] += 1,
            Some(number) => told.node_starts[number] += 1,
        });
        let line = |stream, line: &str| (stream == Stream::Out).then(|| line.to_owned());
        let (running, line) = Running::start(command, DEADLINE, line).await?;
        serde_json::from_str::<Value>(&line)?;
        Ok(running)
    }

    /// Kills the process of a place (SIGKILL).
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn kill(&mut self, place: Place) -> Result<(), Error> {
        let Some(running) = self.processes[place.0].running.take() else { return Ok(()) };
        self.keep_output(place, &running)?;
        Ok(running.kill().await?)
    }

    /// Ends the process of a place in order (SIGTERM).
    ///
    /// # Errors
    /// When it does not end, or not with 0.
    pub async fn terminate(&mut self, place: Place) -> Result<(), Error> {
        let Some(mut running) = self.processes[place.0].running.take() else { return Ok(()) };
        running.signal("TERM").await?;
        let status = running.ended(DEADLINE).await?;
        self.keep_output(place, &running)?;
        match status.success() {
            true => Ok(()),
            false => Err(format!("{} ended with {status}", self.processes[place.0].name).into()),
        }
    }

    /// Sends the process of a place a signal.
    ///
    /// # Errors
    /// When `kill` cannot be run.
    pub async fn signal(&self, place: Place, signal: &str) -> Result<(), Error> {
        match &self.processes[place.0].running {
            Some(running) => Ok(running.signal(signal).await?),
            None => Ok(()),
        }
    }

    /// From its next start on a process is the build under test.
    pub fn upgrade(&mut self, place: Place) {
        self.processes[place.0].is_current = true;
    }

    /// The places whose process is of the build before.
    #[must_use]
    pub fn outdated(&self) -> Vec<Place> {
        let places = self.processes.iter().enumerate();
        places.filter(|(_, process)| !process.is_current).map(|(place, _)| Place(place)).collect()
    }

    /// When the certificate ends that a node keeps, in milliseconds since 1970.
    ///
    /// # Errors
    /// When it has none.
    pub fn certificate_end(&self, number: usize) -> Result<u64, Error> {
        let kept = Membership::load(self.directory(node(number)).join("identity"))?;
        Ok(kept.ok_or("a node without a certificate")?.expires_at_ms())
    }

    /// A node that has stopped forgets its certificate, so that it joins anew.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn forget_certificate(&self, number: usize) -> Result<(), Error> {
        Ok(std::fs::remove_file(self.directory(node(number)).join("identity"))?)
    }

    /// Keeps what every process has printed.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_outputs(&self) -> Result<PathBuf, Error> {
        for (place, process) in self.processes.iter().enumerate() {
            if let Some(running) = &process.running {
                self.keep_output(Place(place), running)?;
            }
        }
        Ok(self.folder.join("logs"))
    }

    fn keep_output(&self, place: Place, running: &Running) -> Result<(), Error> {
        let logs = self.folder.join("logs");
        std::fs::create_dir_all(&logs)?;
        let path = logs.join(&self.processes[place.0].name);
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
        Ok(write!(log, "{}\n---\n", running.output())?)
    }

    fn directory(&self, place: Place) -> PathBuf {
        self.folder.join(&self.processes[place.0].name)
    }

    fn token_file(&self, number: usize) -> PathBuf {
        self.folder.join(format!("node-{}.token", number + 1))
    }

    fn program(&self, place: Place) -> &Path {
        match &self.builds.previous {
            Some(previous) if !self.processes[place.0].is_current => previous,
            _ => &self.builds.current,
        }
    }

    /// The program of a place, in its namespace.
    fn command(&self, place: Place) -> Command {
        let mut command = command(Path::new("ip"), &self.folder.join("data"));
        command.args(["netns", "exec", &self.names.of_place(place)]).arg(self.program(place));
        command
    }

    async fn voter_command(&self, place: Place) -> Result<Command, Error> {
        let mut command = self.command(place);
        command.args(["control-plane", "run", "--output", "json", "--data-dir"]).arg(self.directory(place));
        let is_short = self.builds.all_short || place == voter(VOTERS - 1);
        if is_short && self.knows_certificate_life(place).await? {
            let seconds = self.builds.certificate_life.as_secs();
            command.args(["--certificate-life", &format!("{seconds}s")]);
        }
        Ok(command)
    }

    /// A build before that flag does not.
    async fn knows_certificate_life(&self, place: Place) -> Result<bool, Error> {
        let mut help = self.command(place);
        help.args(["control-plane", "run", "--help"]);
        Ok(done(run(help, DEADLINE).await?)?.stdout.contains("--certificate-life"))
    }

    fn node_command(&self, number: usize) -> Command {
        let place = node(number);
        let mut command = self.command(place);
        // The last voter first: it is asked for a certificate, if the node has none.
        let voters = (0..VOTERS).rev().map(|number| admin_address(number).to_string());
        let voters = voters.collect::<Vec<_>>().join(",");
        let listen = agent_address(number).to_string();
        let name = &self.processes[place.0].name;
        command.args(["data-plane", "run", "--output", "json", "--name", name, "--listen", &listen]);
        command.args(["--control-plane", &voters, "--data-dir"]).arg(self.directory(place));
        command.arg("--join-token-file").arg(self.token_file(number));
        command
    }
}
