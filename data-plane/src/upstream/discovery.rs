//! Discovery: asking each server what it speaks and offers, and reporting it to the control plane.
//!
//! Always holds: what a server is asked depends on the server only, never on a client; each server is asked by one
//! task at a time; the answer is bounded ([`PAGES_MAX`], the catalog's own limits). Lists that agents see come from
//! what the control plane recorded of these reports, not from the reports themselves.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_model::resource::Transport;
use gantry_model::{Catalog, Definition, ServerName, TenantName};
use serde_json::{Value, json};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::config::tenant::{Credential, Server};
use crate::mcp::{Era, VERSION_LEGACY, VERSION_MODERN};
use crate::node::Node;
use crate::upstream::client::{AskError, Conversation, failed};

/// Most pages of one list.
const PAGES_MAX: usize = 64;
/// How long a server may take for each question.
const QUESTION_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a server is asked again when nothing else gives a reason.
const INTERVAL: Duration = Duration::from_secs(60);
/// Pause after a first failure; doubles up to [`INTERVAL`].
const RETRY_FIRST: Duration = Duration::from_millis(500);
/// Pause before a woken task asks, so that a burst of changes is asked about once.
const SETTLE: Duration = Duration::from_millis(50);

/// How long a list waits for a change that its server announced, and how long a report may take to come back.
const SETTLE_MAX: Duration = Duration::from_secs(2);

/// What a server was found to offer, or why not.
pub(crate) enum Report {
    /// The catalog.
    Found(Box<Catalog>),
    /// The server could not be asked.
    Failed { tenant: TenantName, server: ServerName, message: String },
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

/// Keeps one task for each server of the configuration.
pub(crate) struct Discovery {
    node: Arc<Node>,
    reports: mpsc::Sender<Report>,
    running: HashMap<(TenantName, ServerName), (Fingerprint, CancellationToken)>,
    tasks: JoinSet<()>,
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

    /// Starts, ends and restarts tasks so that they fit a new configuration.
    pub(crate) fn reconcile(&mut self, config: &Config) {
        let mut wanted = HashMap::new();
        for server in config.tenants.values().flat_map(|tenant| tenant.servers.values()) {
            wanted.insert((server.tenant.clone(), server.name.clone()), server.clone());
        }
        self.running.retain(|key, (fingerprint, stop)| {
            let keep = wanted.get(key).is_some_and(|server| Fingerprint::of(server) == *fingerprint);
            if !keep {
                stop.cancel();
                self.node.discovery.tasks.remove(key);
            }
            keep
        });
        for (key, server) in wanted {
            if self.running.contains_key(&key) {
                continue;
            }
            let stop = CancellationToken::new();
            let bell = Arc::new(Bell::default());
            self.node.discovery.tasks.insert(key.clone(), bell.clone());
            self.running.insert(key, (Fingerprint::of(&server), stop.clone()));
            let (node, reports) = (self.node.clone(), self.reports.clone());
            self.tasks.spawn(async move {
                stop.run_until_cancelled(keep_asking(node, server, reports, bell)).await;
            });
        }
        while self.tasks.try_join_next().is_some() {}
    }

    /// Ends every task.
    pub(crate) async fn stop(mut self) {
        self.tasks.shutdown().await;
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

async fn keep_asking(node: Arc<Node>, server: Arc<Server>, reports: mpsc::Sender<Report>, bell: Arc<Bell>) {
    let mut retry = RETRY_FIRST;
    loop {
        let rung = bell.rung.load(Ordering::Acquire);
        let asked = ask_all(&node, &server).await;
        let found = asked.as_ref().ok().cloned();
        let (report, pause) = match asked {
            Ok(catalog) => {
                retry = RETRY_FIRST;
                (Report::Found(Box::new(catalog)), INTERVAL)
            }
            Err(error) => {
                let pause = retry;
                retry = (retry * 2).min(INTERVAL);
                let (tenant, name) = (server.tenant.clone(), server.name.clone());
                (Report::Failed { tenant, server: name, message: error.to_string() }, pause)
            }
        };
        if reports.send(report).await.is_err() {
            return;
        }
        if let Some(catalog) = found
            && *bell.answered.borrow() < rung
        {
            // The report comes back as a change of configuration; one that is never recorded is not waited for.
            let _ = tokio::time::timeout(SETTLE_MAX, node.until(|config| offers(config, &server, &catalog)))
                .await;
        }
        bell.answered.send_replace(rung);
        tokio::select! {
            () = bell.notify.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

fn offers(config: &Config, server: &Server, catalog: &Catalog) -> bool {
    let tenant = config.tenants.get(&server.tenant);
    let offer =
        tenant.and_then(|tenant| tenant.servers.get(&server.name)).and_then(|server| server.offer.as_ref());
    // What was recorded of the report need not be the report: some of it may be in quarantine.
    offer.is_some_and(|offer| Catalog::record(Some(&offer.catalog), catalog, server.spec.pin).is_none())
}

/// Asks for everything, in both eras where the server speaks both; definitions come from the newer one.
async fn ask_all(node: &Node, server: &Server) -> Result<Catalog, AskError> {
    let mut catalog = Catalog::empty(server.tenant.clone(), server.name.clone());
    if let Transport::Http { .. } = server.spec.transport {
        ask_modern(node, server, &mut catalog).await?;
    } else if !node.upstreams.allows_stdio() {
        return Err(failed("this node does not run processes"));
    }
    if let Err(error) = ask_legacy(node, server, &mut catalog).await
        && catalog.revisions.is_empty()
    {
        return Err(error);
    }
    catalog.check().map_err(|error| failed(error.to_string()))?;
    Ok(catalog)
}

async fn ask_modern(node: &Node, server: &Server, catalog: &mut Catalog) -> Result<(), AskError> {
    let mut conversation = Conversation::new(&node.upstreams, server, Era::Modern, QUESTION_TIMEOUT);
    // Whatever else a server answers, it is not one of this era.
    let Ok(discovered) = conversation.ask("server/discover", json!({})).await else { return Ok(()) };
    let versions = discovered["supportedVersions"].as_array();
    if !versions.is_some_and(|versions| versions.iter().any(|version| version == VERSION_MODERN)) {
        return Ok(());
    }
    ask_lists(&mut conversation, &discovered["capabilities"], catalog).await?;
    catalog.revisions.push(VERSION_MODERN.to_owned());
    catalog.discover_result = Some(discovered.to_string().into());
    Ok(())
}

async fn ask_legacy(node: &Node, server: &Server, catalog: &mut Catalog) -> Result<(), AskError> {
    let mut conversation = Conversation::new(&node.upstreams, server, Era::Legacy, QUESTION_TIMEOUT);
    let initialized = conversation
        .ask(
            "initialize",
            json!({
                "protocolVersion": VERSION_LEGACY,
                "capabilities": {},
                "clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
            }),
        )
        .await?;
    let Some(version) = initialized["protocolVersion"].as_str() else {
        return Err(failed("the server's answer to initialize has no protocolVersion"));
    };
    let version = version.to_owned();
    conversation.tell("notifications/initialized").await?;
    let lists = match catalog.revisions.is_empty() {
        true => ask_lists(&mut conversation, &initialized["capabilities"], catalog).await,
        false => Ok(()),
    };
    conversation.end().await;
    lists?;
    catalog.revisions.push(version);
    catalog.initialize_result = Some(initialized.to_string().into());
    Ok(())
}

async fn ask_lists(
    conversation: &mut Conversation<'_>,
    capabilities: &Value,
    catalog: &mut Catalog,
) -> Result<(), AskError> {
    let has = |capability: &str| capabilities.get(capability).is_some_and(|value| !value.is_null());
    if has("tools") {
        catalog.tools = ask_list(conversation, "tools/list", "tools", "name").await?;
    }
    if has("prompts") {
        catalog.prompts = ask_list(conversation, "prompts/list", "prompts", "name").await?;
    }
    if has("resources") {
        catalog.resources = ask_list(conversation, "resources/list", "resources", "uri").await?;
        let templates =
            ask_list(conversation, "resources/templates/list", "resourceTemplates", "uriTemplate").await;
        // Many servers have resources and do not know the method.
        catalog.resource_templates = match templates {
            Err(AskError::Refused { .. }) => Vec::new(),
            other => other?,
        };
    }
    Ok(())
}

async fn ask_list(
    conversation: &mut Conversation<'_>,
    method: &'static str,
    field: &'static str,
    name: &'static str,
) -> Result<Vec<Definition>, AskError> {
    let mut definitions = Vec::new();
    let mut params = json!({});
    for _ in 0..PAGES_MAX {
        let mut page = conversation.ask(method, params).await?;
        let Value::Array(elements) = page[field].take() else {
            return Err(failed(format!("the server's answer to {method} has no {field}")));
        };
        for element in elements {
            match element[name].as_str() {
                Some(text) => definitions.push(Definition::new(text, element.to_string())),
                None => return Err(failed(format!("an element of {method} has no {name}"))),
            }
        }
        match page["nextCursor"].take() {
            Value::String(cursor) => params = json!({"cursor": cursor}),
            _ => return Ok(definitions),
        }
    }
    Err(failed(format!("{method} has more than {PAGES_MAX} pages")))
}
