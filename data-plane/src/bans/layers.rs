//! What makes up the bans in force: those of the configuration, and those that came ahead of it.
//!
//! Always holds: of two words on one target the later counts, by revision; what came ahead is forgotten as soon as the
//! configuration has it. Revisions of two clusters are not compared: what comes ahead of the first configuration of
//! another cluster is in force beside that of the one before.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use gantry_model::key::KeyId;
use gantry_model::record::{RecordKey, RecordValue};
use gantry_model::{AgentName, Ban, BanTarget, Revision, ServerName, SessionId, TenantName, UserId};
use gantry_wire::{WireError, decode_record, sync_v1 as wire};

use super::{Configured, UnreadableBan, Who};

/// The layers.
#[derive(Default)]
pub(super) struct Layers {
    /// Of whose configuration `revision` and `configured` are; empty before the first.
    cluster_id: String,
    revision: Revision,
    configured: HashMap<TenantName, Vec<Arc<Ban>>>,
    /// Whose control plane said what is ahead.
    ahead_of: String,
    /// By the key of the ban's record. All of them are later than `revision`, where both are of one cluster.
    ahead: BTreeMap<String, Ahead>,
}

/// A ban that came ahead.
struct Ahead {
    revision: Revision,
    /// `None`: it was lifted.
    ban: Option<(Bytes, Arc<Ban>)>,
}

/// The bans in force, to be asked.
#[derive(Default)]
pub(super) struct InForce(HashMap<TenantName, OfTenant>);

#[derive(Default)]
struct OfTenant {
    all: bool,
    agents: HashSet<AgentName>,
    users: HashSet<UserId>,
    keys: HashSet<KeyId>,
    sessions: HashSet<SessionId>,
    servers: Arc<BTreeSet<ServerName>>,
}

impl Layers {
    pub(super) fn take(&mut self, urgent: wire::Urgent) -> Result<(), UnreadableBan> {
        let revision = Revision(urgent.revision);
        let read = |entry: wire::Entry| Ok((entry.key.clone(), Some((entry.record.clone(), ban_of(entry)?))));
        let upserts = urgent.upserts.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
        let deletes = urgent.deletes.into_iter().map(|key| (key, None));
        self.hear(&urgent.cluster_id);
        if urgent.complete {
            // A member that is behind the one before knows all up to its own revision only.
            self.ahead.retain(|_, ahead| ahead.revision > revision);
        }
        for (key, ban) in upserts.into_iter().chain(deletes) {
            self.put_ahead(revision, key, ban);
        }
        Ok(())
    }

    /// Says whether anything changed.
    pub(super) fn configure(&mut self, cluster_id: &str, revision: Revision, touched: Configured) -> bool {
        let mut is_changed = false;
        if self.cluster_id != cluster_id {
            is_changed |= !self.configured.is_empty();
            self.configured.clear();
            self.cluster_id = cluster_id.to_owned();
        }
        is_changed |= self.hear(cluster_id);
        self.revision = revision;
        for (tenant, bans) in touched {
            let before = self.configured.get(&tenant).map(Vec::as_slice).unwrap_or_default();
            is_changed |= before != bans;
            match bans.is_empty() {
                true => drop(self.configured.remove(&tenant)),
                false => drop(self.configured.insert(tenant, bans)),
            }
        }
        let before = self.ahead.len();
        self.ahead.retain(|_, ahead| ahead.revision > revision);
        is_changed || self.ahead.len() != before
    }

    pub(super) fn ahead(&self) -> wire::KeptUrgent {
        let kept = |(key, ahead): (&String, &Ahead)| wire::KeptBan {
            revision: ahead.revision.0,
            key: key.clone(),
            record: ahead.ban.as_ref().map(|(record, _)| record.clone()).unwrap_or_default(),
        };
        let bans = self.ahead.iter().map(kept).collect();
        wire::KeptUrgent { cluster_id: self.ahead_of.clone(), bans, ..wire::KeptUrgent::default() }
    }

    pub(super) fn restore(&mut self, kept: wire::KeptUrgent) -> Result<(), UnreadableBan> {
        // Those of another cluster mean nobody here.
        if kept.cluster_id != self.cluster_id {
            return Ok(());
        }
        self.hear(&kept.cluster_id);
        for wire::KeptBan { revision, key, record } in kept.bans {
            let ban = match record.is_empty() {
                true => None,
                false => Some((record.clone(), ban_of(wire::Entry { key: key.clone(), record })?)),
            };
            self.put_ahead(Revision(revision), key, ban);
        }
        Ok(())
    }

    pub(super) fn in_force(&self) -> InForce {
        let mut in_force = InForce::default();
        let is_superseded = |ban: &&Arc<Ban>| {
            self.is_of_one_cluster()
                && !self.ahead.is_empty()
                && self.ahead.contains_key(&RecordKey::ban(&ban.tenant, &ban.target).to_string())
        };
        let configured = self.configured.values().flatten().filter(|ban| !is_superseded(ban));
        let ahead = self.ahead.values().filter_map(|ahead| ahead.ban.as_ref()).map(|(_, ban)| ban);
        configured.chain(ahead).for_each(|ban| in_force.add(ban));
        in_force
    }

    /// What another cluster said before means nobody any more. Says whether there was any.
    fn hear(&mut self, cluster_id: &str) -> bool {
        if self.ahead_of == cluster_id {
            return false;
        }
        self.ahead_of = cluster_id.to_owned();
        let had_any = !self.ahead.is_empty();
        self.ahead.clear();
        had_any
    }

    /// Whether what is ahead and the configuration have revisions that can be compared.
    fn is_of_one_cluster(&self) -> bool {
        self.ahead_of == self.cluster_id
    }

    fn put_ahead(&mut self, revision: Revision, key: String, ban: Option<(Bytes, Arc<Ban>)>) {
        // What the configuration has already, or will have had by then.
        if revision <= self.revision && self.is_of_one_cluster() {
            return;
        }
        if self.ahead.get(&key).is_none_or(|known| known.revision <= revision) {
            self.ahead.insert(key, Ahead { revision, ban });
        }
    }
}

impl InForce {
    pub(super) fn refusal(&self, who: &Who) -> Option<BanTarget> {
        let bans = self.0.get(&who.tenant)?;
        if bans.all {
            return Some(BanTarget::Tenant);
        }
        let agent = who.agent.as_ref().filter(|agent| bans.agents.contains(*agent));
        let user = who.user.as_ref().filter(|user| bans.users.contains(*user));
        let key = who.key.filter(|key| bans.keys.contains(key));
        let session = who.session.filter(|session| bans.sessions.contains(session));
        let server = who.servers.iter().find(|server| bans.servers.contains(*server));
        agent
            .map(|agent| BanTarget::Agent(agent.clone()))
            .or(user.map(|user| BanTarget::User(user.clone())))
            .or(key.map(BanTarget::Key))
            .or(session.map(BanTarget::Session))
            .or(server.map(|server| BanTarget::Server(server.clone())))
    }

    pub(super) fn servers(&self, tenant: &TenantName) -> Arc<BTreeSet<ServerName>> {
        self.0.get(tenant).map(|bans| bans.servers.clone()).unwrap_or_default()
    }

    fn add(&mut self, ban: &Ban) {
        let bans = self.0.entry(ban.tenant.clone()).or_default();
        match &ban.target {
            BanTarget::Agent(agent) => drop(bans.agents.insert(agent.clone())),
            BanTarget::User(user) => drop(bans.users.insert(user.clone())),
            BanTarget::Key(key) => drop(bans.keys.insert(*key)),
            BanTarget::Session(session) => drop(bans.sessions.insert(*session)),
            BanTarget::Server(server) => drop(Arc::make_mut(&mut bans.servers).insert(server.clone())),
            BanTarget::Tenant => bans.all = true,
        }
    }
}

fn ban_of(entry: wire::Entry) -> Result<Arc<Ban>, UnreadableBan> {
    let wire::Entry { key, record } = entry;
    let unreadable = |source| UnreadableBan { key: key.clone(), source };
    match decode_record(&record).map_err(unreadable)?.value {
        RecordValue::Ban(ban) if RecordKey::ban(&ban.tenant, &ban.target).to_string() == key => Ok(ban),
        _ => Err(unreadable(WireError::Missing("ban"))),
    }
}
