//! Discovery: asking each server what it speaks and offers, and reporting it to the control plane.
//!
//! Always holds: what a server is asked depends on the server only, never on a client; each server is asked by one
//! task at a time, and at most every [`QUESTIONS_APART`]; the answer is bounded (by pages, and the catalog's own
//! limits). Lists that agents see come from what the control plane recorded of these reports, not from the reports
//! themselves.

mod link;
mod probe;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use gantry_model::{Catalog, ServerName, TenantName};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bans::Who;
use crate::config::server::{Credential, Server};
use crate::config::{Changed, Config};
use crate::mcp::Era;
use crate::node::Node;
use crate::upstream::client::AskError;
use crate::upstream::discovery::link::Link;
use crate::upstream::health::{Health, is_of_transport};

/// How long a server may take for each question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server is asked again when nothing else gives a reason.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a first failure; doubles up to [`INTERVAL`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Pause before a woken task asks, so that a burst of changes is asked about once.
const SETTLE: Duration = Duration::from_millis(50);
/// The least time from one question to the next, however many changes a server tells of.
const QUESTIONS_APART: Duration = Duration::from_millis(500);
/// The least time between two doubts about a server's era: agents' requests can cause them.
const DOUBTS_APART: Duration = Duration::from_secs(10);
/// How long the end of sessions may take when the node ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a list waits for a change that its server announced, and how long a report may take to come back.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What a server was found to offer, or why it could not be asked.
pub(crate) struct Report {
    pub(crate) tenant: TenantName,
    pub(crate) server: ServerName,
    /// The server as it was asked.
    spec_digest: [u8; 32],
    pub(crate) found: Result<Box<Catalog>, String>,
}

impl Report {
    /// Whether the server is still the one that was asked: what another offers is not told as its.
    pub(crate) fn is_current(&self, config: &Config) -> bool {
        let servers = config.tenants.get(&self.tenant).map(|tenant| &tenant.servers);
        let server = servers.and_then(|servers| servers.get(&self.server));
        server.is_some_and(|server| server.spec_digest == self.spec_digest)
    }
}

/// Wakes the task of a server.
#[derive(Clone, Default)]
pub(crate) struct Wakeup {
    /// Bounded by the servers of the configuration.
    tasks: Arc<dashmap::DashMap<(TenantName, ServerName), Arc<Bell>>>,
}

/// Wakes one task, and tells up to which waking the node's lists are what the server offers.
#[derive(Default)]
struct Bell {
    notify: Notify,
    doubted: Mutex<Option<Instant>>,
    rung: AtomicU64,
    answered: watch::Sender<u64>,
}

impl Wakeup {
    /// Has a server asked anew, soon.
    pub(crate) fn wake(&self, tenant: &TenantName, server: &ServerName) {
        if let Some(bell) = self.tasks.get(&(tenant.clone(), server.clone())) {
            bell.rung.fetch_add(1, Ordering::AcqRel);
            bell.notify.notify_one();
        }
    }

    /// Has a server asked anew, soon, without a reason to hold its lists back.
    pub(crate) fn nudge(&self, tenant: &TenantName, server: &ServerName) {
        if let Some(bell) = self.tasks.get(&(tenant.clone(), server.clone())) {
            bell.notify.notify_one();
        }
    }

    /// Has a server asked anew that answered as one of another era than its catalog says ([`is_of_other_era`]). Now
    /// and then only, because agents can cause such answers.
    pub(crate) fn doubt(&self, tenant: &TenantName, server: &ServerName) {
        let bell = self.tasks.get(&(tenant.clone(), server.clone())).map(|bell| bell.clone());
        let Some(bell) = bell else { return };
        let mut doubted = bell.doubted.lock().unwrap_or_else(PoisonError::into_inner);
        if doubted.is_none_or(|before| before.elapsed() >= DOUBTS_APART) {
            *doubted = Some(Instant::now());
            bell.notify.notify_one();
        }
    }

    /// Waits, for a bounded time, while a server said that its lists changed and the change is not here yet: a client
    /// that heard of it asks at once, and is not told again. Returns whether it had to wait.
    pub(crate) async fn settle(&self, tenant: &TenantName, server: &ServerName) -> bool {
        let bell = self.tasks.get(&(tenant.clone(), server.clone())).map(|bell| bell.clone());
        let Some(bell) = bell else { return false };
        let rung = bell.rung.load(Ordering::Acquire);
        if *bell.answered.borrow() >= rung {
            return false;
        }
        let mut answered = bell.answered.subscribe();
        // A server that does not answer in time has its lists served as they were.
        let _ = tokio::time::timeout(SETTLE_MAX, answered.wait_for(|answered| *answered >= rung)).await;
        true
    }
}

/// Whether a JSON-RPC error to a request of an era's core methods says that the server is of the other one: the modern
/// one has no sessions to miss and knows its own methods, and the legacy one has none of the modern codes.
pub(crate) fn is_of_other_era(asked: Era, code: i64) -> bool {
    match asked {
        Era::Modern => matches!(code, -32601 | -32022 | -32000),
        Era::Legacy => matches!(code, -32022..=-32020),
    }
}

/// Keeps one task for each server of the configuration.
pub(crate) struct Discovery {
    node: Arc<Node>,
    reports: mpsc::Sender<Report>,
    running: HashMap<TenantName, HashMap<ServerName, Asking>>,
    tasks: JoinSet<()>,
}

/// A task that asks a server.
struct Asking {
    fingerprint: Fingerprint,
    /// Whom it tells whether the server answers.
    health: Arc<Health>,
    stop: CancellationToken,
}

/// What the answer of a server depends on.
#[derive(Debug, Clone, PartialEq)]
struct Fingerprint {
    spec: gantry_model::resource::ServerSpec,
    credential: Option<Vec<u8>>,
}

impl Discovery {
    pub(crate) fn new(node: Arc<Node>, reports: mpsc::Sender<Report>) -> Discovery {
        Discovery { node, reports, running: HashMap::new(), tasks: JoinSet::new() }
    }

    /// Starts, ends and restarts tasks so that they fit a new configuration, in which these tenants are others.
    pub(crate) fn reconcile(&mut self, config: &Config, changed: &Changed) {
        for name in changed {
            let mut running = self.running.remove(name).unwrap_or_default();
            let none = HashMap::new();
            let wanted = config.tenants.get(name).map_or(&none, |tenant| &tenant.servers);
            running.retain(|server, asking| {
                let keep = wanted.get(server).is_some_and(|server| asking.is_of(server));
                if !keep {
                    asking.stop.cancel();
                    self.node.discovery.tasks.remove(&(name.clone(), server.clone()));
                }
                keep
            });
            for (server, wanted) in wanted {
                if !running.contains_key(server) {
                    running.insert(server.clone(), self.ask(wanted.clone()));
                }
            }
            if !running.is_empty() {
                self.running.insert(name.clone(), running);
            }
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Starts the task of a server.
    fn ask(&mut self, server: Arc<Server>) -> Asking {
        let (stop, bell) = (CancellationToken::new(), Arc::new(Bell::default()));
        let key = (server.tenant.clone(), server.name.clone());
        self.node.discovery.tasks.insert(key, bell.clone());
        let (fingerprint, health) = (Fingerprint::of(&server), server.health.clone());
        let asking = Asking { fingerprint, health, stop: stop.clone() };
        let (node, reports) = (self.node.clone(), self.reports.clone());
        self.tasks.spawn(async move {
            let mut link = Link::new(node, server);
            stop.run_until_cancelled(ask_while_free(&mut link, reports, bell)).await;
            link.end_session().await;
        });
        asking
    }

    /// Ends every task, and the sessions with servers as far as they end soon.
    pub(crate) async fn stop(mut self) {
        for asking in self.running.values().flat_map(HashMap::values) {
            asking.stop.cancel();
        }
        let ending = async { while self.tasks.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(STOP_TIMEOUT, ending).await;
        self.tasks.shutdown().await;
    }
}

impl Asking {
    fn is_of(&self, server: &Server) -> bool {
        Arc::ptr_eq(&self.health, &server.health) && self.fingerprint == Fingerprint::of(server)
    }
}

impl Fingerprint {
    fn of(server: &Server) -> Fingerprint {
        // Hashed, so that a secret does not lie here a second time.
        let secret = |credential: &Credential| {
            let value = credential.value.as_ref()?;
            Some(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, value.expose()).as_ref().to_vec())
        };
        Fingerprint { spec: server.spec.clone(), credential: server.credential.as_ref().and_then(secret) }
    }
}

/// Asks as long as the server is not banned; what is open to it then is dropped without a word to it.
async fn ask_while_free(link: &mut Link, reports: mpsc::Sender<Report>, bell: Arc<Bell>) {
    let (node, server) = (link.node.clone(), link.server.clone());
    loop {
        node.bans.until_free(&server.tenant, &server.name).await;
        let banned = node.bans.leash(Who::server(&server.tenant, &server.name));
        tokio::select! {
            biased;
            _ = banned => *link = Link::new(node.clone(), server.clone()),
            () = keep_asking(link, reports.clone(), bell.clone()) => return,
        }
    }
}

async fn keep_asking(link: &mut Link, reports: mpsc::Sender<Report>, bell: Arc<Bell>) {
    let (node, server) = (link.node.clone(), link.server.clone());
    let mut retry = RETRY_FIRST;
    loop {
        let rung = bell.rung.load(Ordering::Acquire);
        let began = Instant::now();
        let asked = probe::ask_all(link).await;
        tell_health(&server, &asked);
        let offered = asked.as_ref().ok().cloned();
        let (found, pause) = match asked {
            Ok(catalog) => {
                retry = RETRY_FIRST;
                (Ok(Box::new(catalog)), INTERVAL)
            }
            Err(error) => {
                let pause = retry;
                retry = (retry * 2).min(INTERVAL);
                (Err(error.to_string()), pause)
            }
        };
        let (tenant, name, spec_digest) = (server.tenant.clone(), server.name.clone(), server.spec_digest);
        if reports.send(Report { tenant, server: name, spec_digest, found }).await.is_err() {
            return;
        }
        if let Some(catalog) = offered
            && *bell.answered.borrow() < rung
        {
            // The report comes back as a change of configuration; one that is never recorded is not waited for.
            let _ = tokio::time::timeout(SETTLE_MAX, node.until(|config| offers(config, &server, &catalog)))
                .await;
        }
        bell.answered.send_replace(rung);
        tokio::select! {
            () = bell.notify.notified() => {
                tokio::time::sleep_until((began + QUESTIONS_APART).max(Instant::now() + SETTLE)).await;
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Agents' calls may go to a server again as soon as it answers the gateway.
fn tell_health(server: &Server, asked: &Result<Catalog, AskError>) {
    let health = &server.health;
    match asked {
        Err(AskError::Server(failure)) if is_of_transport(failure) => health.unanswered(),
        Ok(_) | Err(AskError::Server(_) | AskError::Refused { .. }) => health.answered(),
        // Of a server with a URL it says that it was not asked, or is not understood.
        Err(AskError::Failed(_)) if server.uri.is_some() => {}
        Err(AskError::Failed(_)) => health.unanswered(),
    }
}

fn offers(config: &Config, server: &Server, catalog: &Catalog) -> bool {
    let tenant = config.tenants.get(&server.tenant);
    let offer =
        tenant.and_then(|tenant| tenant.servers.get(&server.name)).and_then(|server| server.offer.as_ref());
    // What was recorded of the report need not be the report: some of it may be in quarantine.
    offer.is_some_and(|offer| Catalog::record(Some(&offer.catalog), catalog, server.spec.pin).is_none())
}

#[cfg(test)]
mod tests;
