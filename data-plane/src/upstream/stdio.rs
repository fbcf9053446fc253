//! Servers as child processes, in both eras.
//!
//! Always holds: a process of the legacy era is one session and belongs to whoever opened it; a process of the modern
//! era is shared by all callers of its server, because that era has no sessions. Of one server at most
//! [`Limits::processes`] processes run on a node, those that are ending included. A process and its children end
//! when nobody can call it any more. Which caller may have which session is not known here.

mod child;
mod log;
pub(crate) mod modern;
mod pace;
pub(crate) mod pipe;
mod places;
pub(crate) mod probe;
pub(crate) mod session;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use gantry_model::resource::{ServerSpec, Transport};
use gantry_model::{ServerName, TenantName};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Config;
use crate::config::server::Server;
use crate::rejection::Upstream;
use crate::upstream::exchange::Event;
use crate::upstream::stdio::modern::ModernProcess;
use crate::upstream::stdio::pace::Pace;
use crate::upstream::stdio::pipe::Pipe;
use crate::upstream::stdio::places::Places;

/// Longest pause of a program that failed which a caller waits for; while a longer one lasts, calls are refused at once.
const PAUSE_WAITED_MAX: Duration = Duration::from_secs(1);
/// How long the end of the node waits for its processes: longer than the longest end of one ([`child::KILL_AFTER`]).
const STOP_TIMEOUT: Duration = Duration::from_secs(7);

/// All processes of a node.
pub(crate) struct Stdio {
    allowed: bool,
    /// Bounded by the servers of the configuration.
    programs: DashMap<(TenantName, ServerName), Arc<Program>>,
    yard: Yard,
}

/// Where the tasks of all processes are.
#[derive(Clone, Default)]
pub(super) struct Yard {
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// What runs for a server, and what it may have.
pub(super) struct Program {
    server: ServerName,
    command: Vec<String>,
    environment: BTreeMap<String, String>,
    limits: Limits,
    places: Arc<Places>,
    pace: Mutex<Pace>,
    modern: Mutex<Option<Arc<ModernProcess>>>,
    yard: Yard,
}

/// Bounds of a server's processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    /// At once on this node.
    processes: u32,
    /// Address space of each in MiB.
    memory_mb: Option<u32>,
}

impl Stdio {
    /// Without processes yet. Where they are not allowed, every server of this kind is unreachable.
    pub(crate) fn new(allowed: bool) -> Stdio {
        Stdio { allowed, programs: DashMap::new(), yard: Yard::default() }
    }

    /// Lets go of a server's shared process when the configuration does not want it any more; calls under way end first.
    pub(crate) fn reconcile(&self, before: &Server, config: &Config) {
        let key = (before.tenant.clone(), before.name.clone());
        self.programs.remove_if(&key, |key, program| !program.is_wanted(key, config));
    }

    /// The same for all servers: a request under an older configuration may have brought one back.
    pub(crate) fn sweep(&self, config: &Config) {
        self.programs.retain(|key, program| program.is_wanted(key, config));
    }

    /// Lets go of the shared processes of banned servers.
    pub(crate) fn let_go(&self, is_banned: impl Fn(&TenantName, &ServerName) -> bool) {
        self.programs.retain(|(tenant, name), _| !is_banned(tenant, name));
    }

    /// The process of a server of the modern era: the one that runs, or a new one. After failures it waits, briefly.
    pub(crate) async fn modern(&self, server: &Server) -> Result<Arc<ModernProcess>, Upstream> {
        self.program(server)?.modern().await
    }

    /// Ends every process, and waits until they have ended.
    pub(crate) async fn stop(&self) {
        self.yard.stop.cancel();
        self.yard.tasks.close();
        if tokio::time::timeout(STOP_TIMEOUT, self.yard.tasks.wait()).await.is_err() {
            tracing::warn!(processes = self.yard.tasks.len(), "servers' processes outlive the node");
        }
    }

    fn program(&self, server: &Server) -> Result<Arc<Program>, Upstream> {
        let Transport::Stdio { .. } = server.spec.transport else { return Err(Upstream::Unreachable) };
        if !self.allowed {
            return Err(Upstream::Unreachable);
        }
        let new = || Program::new(&server.name, &server.spec, self.yard.clone()).map(Arc::new);
        let key = (server.tenant.clone(), server.name.clone());
        let mut program =
            self.programs.entry(key).or_try_insert_with(|| new().ok_or(Upstream::Unreachable))?;
        if !program.is_of(&server.spec) {
            *program = new().ok_or(Upstream::Unreachable)?;
        }
        Ok(program.clone())
    }
}

impl Limits {
    fn of(spec: &ServerSpec) -> Limits {
        Limits { processes: spec.processes, memory_mb: spec.memory_mb }
    }
}

impl Program {
    /// `None` for a server that is no process.
    fn new(server: &ServerName, spec: &ServerSpec, yard: Yard) -> Option<Program> {
        let Transport::Stdio { command, environment } = &spec.transport else { return None };
        let limits = Limits::of(spec);
        Some(Program {
            server: server.clone(),
            command: command.clone(),
            environment: environment.clone(),
            limits,
            places: Arc::new(Places::new(limits.processes)),
            pace: Mutex::new(Pace::default()),
            modern: Mutex::new(None),
            yard,
        })
    }

    fn is_wanted(&self, (tenant, name): &(TenantName, ServerName), config: &Config) -> bool {
        let server = config.tenants.get(tenant).and_then(|tenant| tenant.servers.get(name));
        server.is_some_and(|server| self.is_of(&server.spec))
    }

    fn is_of(&self, spec: &ServerSpec) -> bool {
        let Transport::Stdio { command, environment } = &spec.transport else { return false };
        self.command == *command && self.environment == *environment && self.limits == Limits::of(spec)
    }

    /// Starts a process, within the server's bounds. Returns what it sends that belongs to no request, too.
    async fn start(&self) -> Result<(Arc<Pipe>, mpsc::Receiver<Event>), Upstream> {
        self.wait_for_pace().await?;
        let place = self.places.take().await?;
        Pipe::start(self, place).map_err(|error| {
            tracing::warn!(server = %self.server, program = %self.command[0], %error, "server does not start");
            self.pace().failed(Instant::now());
            Upstream::Unreachable
        })
    }

    /// A program that failed is not started again at once.
    async fn wait_for_pace(&self) -> Result<(), Upstream> {
        loop {
            let pause = self.pace().pause(Instant::now());
            match pause {
                Duration::ZERO => return Ok(()),
                _ if pause > PAUSE_WAITED_MAX => return Err(Upstream::Unreachable),
                _ => tokio::time::sleep(pause).await,
            }
        }
    }

    async fn modern(&self) -> Result<Arc<ModernProcess>, Upstream> {
        if let Some(process) = self.running() {
            return Ok(process);
        }
        // Of several callers that find none, each starts one, and the first that is back keeps it; so nobody waits
        // with a lock held.
        let (pipe, _unbound) = self.start().await?;
        Ok(self.adopt(pipe))
    }

    /// Makes a process the server's shared one, unless there is one.
    fn adopt(&self, pipe: Arc<Pipe>) -> Arc<ModernProcess> {
        let mut modern = self.modern.lock().unwrap_or_else(PoisonError::into_inner);
        match modern.as_ref().filter(|process| !process.is_over()) {
            Some(process) => process.clone(),
            None => modern.insert(Arc::new(ModernProcess::new(pipe))).clone(),
        }
    }

    /// The shared process, if it runs. One that is found dead counts as a failure when it was young.
    fn running(&self) -> Option<Arc<ModernProcess>> {
        let mut modern = self.modern.lock().unwrap_or_else(PoisonError::into_inner);
        let process = modern.as_ref()?;
        if !process.is_over() {
            return Some(process.clone());
        }
        let (lived, ended) = process.life();
        *modern = None;
        self.pace().ended(lived, ended);
        None
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
