//! Sessions with legacy servers, kept for those who may use them again.
//!
//! Always holds: a session is shared only by requests of one principal, one credential, one set of client capabilities
//! and, where the client has a session with the gateway, of that session; one that is over is never given out. It is
//! in use while somebody beside the pool holds it. One that nobody used for [`IDLE_MAX`], or whose client's session is
//! gone, is ended. At most [`SESSIONS_MAX`] are kept.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use dashmap::DashMap;
use gantry_model::{ServerName, TenantName};
use tokio::sync::broadcast;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::bans::Who;
use crate::config::server::Server;
use crate::config::{Changed, Config};
use crate::identity::Principal;
use crate::rejection::Upstream;
use crate::upstream::Upstreams;
use crate::upstream::exchange::Event;
use crate::upstream::session::{LegacySession, Opening};
use crate::upstream::stdio::session::START_TIMEOUT;

/// Sessions that a node keeps at once; each has a stream, and so a connection, where the server offers one.
const SESSIONS_MAX: usize = 8_192;
/// How long a session is kept that nobody uses.
const IDLE_MAX: Duration = Duration::from_secs(600);
/// Sessions that are ended at once; each end may wait for its server.
const CLOSINGS_MAX: usize = 64;
/// Events of a session that belong to no request and wait for whoever listens; who falls behind loses the oldest.
const EVENTS_MAX: usize = 256;

/// Who may use a session.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SessionKey {
    tenant: TenantName,
    server: ServerName,
    principal: Principal,
    /// Of the server's specification, the credential and the client's capabilities.
    digest: [u8; 32],
    /// The client's session with the gateway, when it has one.
    client: Option<String>,
}

impl SessionKey {
    pub(crate) fn new(
        server: &Server,
        principal: &Principal,
        opening: &Opening,
        client: Option<&str>,
    ) -> SessionKey {
        let credential = opening.credential.as_ref().map(|(_, value)| value.as_bytes()).unwrap_or_default();
        let mut hasher = blake3::Hasher::new();
        hasher.update(&server.spec_digest);
        // With its length, so that no other two give the same bytes.
        hasher.update(&(credential.len() as u64).to_le_bytes()).update(credential);
        hasher.update(opening.capabilities.get().as_bytes());
        SessionKey {
            tenant: server.tenant.clone(),
            server: server.name.clone(),
            principal: principal.clone(),
            digest: hasher.finalize().into(),
            client: client.map(str::to_owned),
        }
    }
}

impl SessionKey {
    /// Whom a ban would stop from using it. The session of a client is its id.
    pub(crate) fn who(&self) -> Who {
        let session = self.client.as_ref().and_then(|client| client.parse().ok());
        let servers = vec![self.server.clone()];
        Who { session, servers, ..Who::agent(&self.tenant, &self.principal, None) }
    }
}

/// A session that is kept.
pub(crate) struct Pooled {
    /// Tells it from the sessions before and after it.
    pub(crate) number: u64,
    pub(crate) session: LegacySession,
    /// What the server sends that belongs to no request.
    events: broadcast::Sender<Event>,
    used: Mutex<Instant>,
    /// The log level that the server was asked for.
    pub(crate) level: Mutex<Option<String>>,
    _pump: AbortOnDropHandle<()>,
}

/// The sessions of a node.
#[derive(Default)]
pub(crate) struct Pool {
    opened: AtomicU64,
    slots: DashMap<SessionKey, Arc<Slot>>,
}

/// One place; opening a session holds it, so that two requests do not open two.
#[derive(Default)]
struct Slot(tokio::sync::Mutex<Option<Arc<Pooled>>>);

impl Pooled {
    fn new(session: LegacySession, number: u64) -> Pooled {
        let (events, _) = broadcast::channel(EVENTS_MAX);
        let sender = events.clone();
        let unbound = session.take_unbound();
        let pump = tokio::spawn(async move {
            let Some(mut unbound) = unbound else { return };
            while let Some(event) = unbound.recv().await {
                // Nobody may be listening.
                let _ = sender.send(event);
            }
        });
        let used = Mutex::new(Instant::now());
        let level = Mutex::default();
        Pooled { number, session, events, used, level, _pump: AbortOnDropHandle::new(pump) }
    }

    /// What the server sends from now on that belongs to no request.
    pub(crate) fn listen(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    fn touch(&self, now: Instant) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn is_unused(&self, unused: Duration, now: Instant) -> bool {
        now.saturating_duration_since(self.used()) >= unused
    }

    fn used(&self) -> Instant {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pool {
    /// The session of a key, opened if there is none that lives. The whole takes at most the time of one step of an
    /// opening, or of a process's start: those who wait for another's opening are told when that one is.
    pub(crate) async fn get(
        &self,
        upstreams: &Upstreams,
        server: &Server,
        key: &SessionKey,
        opening: &Opening,
    ) -> Result<Arc<Pooled>, Upstream> {
        let time_max = match server.uri {
            Some(_) => opening.timeout,
            None => opening.timeout.max(START_TIMEOUT),
        };
        let found = tokio::time::timeout(time_max, self.find(upstreams, server, key, opening)).await;
        found.map_err(|_| Upstream::Timeout(time_max))?
    }

    async fn find(
        &self,
        upstreams: &Upstreams,
        server: &Server,
        key: &SessionKey,
        opening: &Opening,
    ) -> Result<Arc<Pooled>, Upstream> {
        if self.slots.len() >= SESSIONS_MAX && !self.slots.contains_key(key) {
            return Err(Upstream::Busy);
        }
        let slot = self.slots.entry(key.clone()).or_default().clone();
        let mut place = slot.0.lock().await;
        if let Some(pooled) = place.as_ref().filter(|pooled| !pooled.session.is_over()) {
            pooled.touch(Instant::now());
            return Ok(pooled.clone());
        }
        let session = LegacySession::open(upstreams, server, opening).await?;
        let opened = Arc::new(Pooled::new(session, self.opened.fetch_add(1, Ordering::Relaxed)));
        *place = Some(opened.clone());
        Ok(opened)
    }

    /// The sessions of a client's session, as far as they are open.
    pub(crate) fn of_client(&self, client: &str) -> Vec<Arc<Pooled>> {
        let its = self.slots.iter().filter(|slot| slot.key().client.as_deref() == Some(client));
        its.filter_map(|slot| slot.value().0.try_lock().ok()?.clone()).collect()
    }

    /// Ends the sessions of a client's session.
    pub(crate) async fn end_client(&self, client: &str) {
        let is_of = |key: &SessionKey| key.client.as_deref() == Some(client);
        self.end(self.take(|key, _| is_of(key))).await;
    }

    /// Takes out the sessions of servers and agents that are gone with a change of these tenants.
    pub(crate) fn reconcile(&self, config: &Config, changed: &Changed) -> Vec<Arc<Pooled>> {
        let known = |key: &SessionKey| {
            let tenant = config.tenants.get(&key.tenant);
            tenant.is_some_and(|tenant| {
                tenant.servers.contains_key(&key.server) && tenant.agents.contains_key(&key.principal.agent)
            })
        };
        self.take(|key, _| changed.contains(&key.tenant) && !known(key))
    }

    /// Takes out what nobody used for long. `is_gone` says of a client's session whether it is over.
    pub(crate) fn take_idle(&self, now: Instant, is_gone: impl Fn(&str) -> bool) -> Vec<Arc<Pooled>> {
        self.take(|key, pooled| match &key.client {
            _ if is_held(pooled, now) => false,
            Some(client) => is_gone(client),
            None => pooled.is_unused(IDLE_MAX, now),
        })
    }

    /// Takes out the session with a server that was unused for longest, of those that nobody used for so long.
    /// `is_quiet` says of a client's session whether it may be taken.
    pub(crate) fn take_longest_unused(
        &self,
        server: &Server,
        (unused, now): (Duration, Instant),
        is_quiet: impl Fn(&str) -> bool,
    ) -> Vec<Arc<Pooled>> {
        let is_its = |key: &SessionKey| key.tenant == server.tenant && key.server == server.name;
        let may_go = |key: &SessionKey, pooled: &Arc<Pooled>| {
            is_its(key)
                && !is_held(pooled, now)
                && pooled.is_unused(unused, now)
                && key.client.as_deref().is_none_or(&is_quiet)
        };
        let unused = self.slots.iter().filter_map(|slot| {
            let place = slot.value().0.try_lock().ok()?;
            let pooled = place.as_ref().filter(|pooled| may_go(slot.key(), pooled))?;
            Some((pooled.used(), pooled.number))
        });
        let Some((_, number)) = unused.min() else { return Vec::new() };
        self.take(|key, pooled| pooled.number == number && may_go(key, pooled))
    }

    /// Ends sessions that were taken out; each server is told.
    pub(crate) async fn end(&self, sessions: Vec<Arc<Pooled>>) {
        let mut closing = JoinSet::new();
        for pooled in sessions {
            if closing.len() >= CLOSINGS_MAX {
                closing.join_next().await;
            }
            closing.spawn(async move { pooled.session.close().await });
        }
        while closing.join_next().await.is_some() {}
    }

    /// Takes out the sessions of whom is banned. One that is being opened is found the next time.
    pub(crate) fn take_banned(&self, is_banned: impl Fn(&SessionKey) -> bool) -> Vec<Arc<Pooled>> {
        self.take(|key, _| is_banned(key))
    }

    fn take(&self, unwanted: impl Fn(&SessionKey, &Arc<Pooled>) -> bool) -> Vec<Arc<Pooled>> {
        let mut taken = Vec::new();
        self.slots.retain(|key, slot| {
            // A place that is held is being opened, or was asked for just now.
            let Ok(mut place) = slot.0.try_lock() else { return true };
            let Some(pooled) = place.as_ref() else { return Arc::strong_count(slot) > 1 };
            if pooled.session.is_over() || unwanted(key, pooled) {
                taken.extend(place.take());
                return false;
            }
            true
        });
        taken
    }
}

/// Whether somebody beside the pool has the session: a call, a watch, a question. Whoever had it used it until then.
fn is_held(pooled: &Arc<Pooled>, now: Instant) -> bool {
    let is_held = Arc::strong_count(pooled) > 1;
    if is_held {
        pooled.touch(now);
    }
    is_held
}

/// The level as a request to the server.
pub(crate) fn set_level(id: u64, level: &str) -> Bytes {
    let params = serde_json::json!({"level": level});
    let message =
        serde_json::json!({"jsonrpc": "2.0", "id": id, "method": "logging/setLevel", "params": params});
    message.to_string().into()
}
