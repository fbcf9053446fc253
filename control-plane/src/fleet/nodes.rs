//! The table of nodes: who is connected, which revision each has acknowledged, what went wrong.
//!
//! Always holds: at most [`NODES_MAX`] nodes; one session per node, the newest; only that session changes the node's
//! row. A node that left is forgotten after [`GONE_KEPT`].

mod row;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gantry_model::{Revision, Scope, TenantName};
use gantry_node::seal::SealPublicKey;
use gantry_wire::raft_v1 as wire;
use gantry_wire::sync_v1::TenantCalls;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::acks::Answers;
use super::others::{Others, ToldNode};
use super::told::{NodeView, Problem, Seen};
use super::{NodeId, Place};
use row::Node;

/// Most nodes of one control-plane process. Each costs a stream; a larger fleet has more processes.
pub(crate) const NODES_MAX: usize = 10_000;
/// How long a node that left is still shown, so that whoever looks after an incident sees it.
const GONE_KEPT: Duration = Duration::from_secs(3600);

/// A node that connects.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub(crate) node: NodeId,
    pub(crate) build: String,
    /// What it may hold.
    pub(crate) scope: Scope,
    /// Lives as long as the node's process, so it tells processes apart.
    pub(crate) seal_key: SealPublicKey,
    /// Its place in the mesh, if it takes part.
    pub(crate) place: Option<Place>,
    /// From where its stream comes, where that is known.
    pub(crate) address: Option<SocketAddr>,
    /// In milliseconds since 1970.
    pub(crate) connected_at_ms: u64,
}

/// One session of one node.
#[derive(Debug, Clone)]
pub(crate) struct Ticket {
    pub(crate) node: NodeId,
    /// Cancelled when the node connects again.
    pub(crate) replaced: CancellationToken,
    /// Whether this very process has every secret up to what it acknowledged.
    pub(crate) provisioned: bool,
    /// What the node may hold.
    pub(crate) scope: Scope,
    seal_key: SealPublicKey,
    session: u64,
}

/// There are as many nodes as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{NODES_MAX} nodes are connected already")]
pub(crate) struct FleetFull;

/// The table.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    rows: Mutex<Rows>,
    changes: watch::Sender<u64>,
    /// Changes with the nodes that follow this very member.
    own: watch::Sender<u64>,
    /// Changes with the members of the mesh.
    membership: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Rows {
    nodes: HashMap<NodeId, Node>,
    others: Others,
    sessions: u64,
}

impl Nodes {
    /// A node connected. A session that it still has is told to end.
    pub(crate) fn enter(&self, arrival: Arrival, now: Instant) -> Result<Ticket, FleetFull> {
        let mut rows = self.rows();
        rows.forget_gone(now);
        if rows.nodes.len() >= NODES_MAX && !rows.nodes.contains_key(&arrival.node) {
            rows.make_room()?;
        }
        rows.sessions += 1;
        let session = rows.sessions;
        let replaced = CancellationToken::new();
        let node = rows.nodes.entry(arrival.node.clone()).or_insert_with(|| Node::new(now));
        node.replaced.cancel();
        (node.session, node.replaced) = (session, replaced.clone());
        let seen = Arc::make_mut(&mut node.seen);
        seen.build = arrival.build;
        // Secrets of a scope that was another are not all of this one.
        let is_same_scope = seen.scope == arrival.scope;
        seen.scope = arrival.scope.clone();
        seen.address = arrival.address.map(|address| address.to_string()).unwrap_or_default();
        seen.connected_at_ms = arrival.connected_at_ms;
        // Another process counts anew.
        seen.calls.clear();
        let was_member = node.place.is_some();
        node.place = arrival.place;
        let is_member = node.place.is_some();
        (node.connected_at, node.gone_at, node.took_leave) = (now, None, false);
        let provisioned = is_same_scope && node.provisioned == Some(arrival.seal_key);
        drop(rows);
        self.changed();
        if was_member || is_member {
            self.membership_changed();
        }
        let Arrival { node, scope, seal_key, .. } = arrival;
        Ok(Ticket { node, replaced, provisioned, scope, seal_key, session })
    }

    /// A session ended.
    pub(crate) fn leave(&self, ticket: &Ticket, now: Instant) {
        let mut was_member = false;
        self.update(ticket, |node| {
            node.gone_at = Some(now);
            was_member = node.place.take().is_some();
        });
        if was_member {
            self.membership_changed();
        }
    }

    /// The node applied a revision. `provisioned`: it then holds every secret there is.
    pub(crate) fn acked(
        &self,
        ticket: &Ticket,
        revision: Revision,
        apply_us: u64,
        provisioned: bool,
        now: Instant,
    ) {
        self.update(ticket, |node| {
            node.answers.configuration.note(revision, now);
            Arc::make_mut(&mut node.seen).applied(apply_us);
            if provisioned {
                node.provisioned = Some(ticket.seal_key);
            }
        });
    }

    /// What is urgent up to a revision is in force on the node.
    pub(crate) fn urgent_acked(&self, ticket: &Ticket, revision: Revision, now: Instant) {
        self.update(ticket, |node| node.answers.urgent.note(revision, now));
    }

    /// The node ends its session on purpose: it goes down, or elsewhere.
    pub(crate) fn takes_leave(&self, ticket: &Ticket) {
        self.update(ticket, |node| node.took_leave = true);
    }

    /// Something went wrong with the node. Stays until it acknowledges an update.
    pub(crate) fn failed(&self, ticket: &Ticket, message: &str) {
        self.see(ticket, |seen| seen.failed(message));
    }

    /// The node refused a part of an update. Stays until it acknowledges one.
    pub(crate) fn refused(&self, ticket: &Ticket, revision: Revision, problems: Vec<Problem>) {
        self.see(ticket, |seen| seen.refused(revision, problems));
    }

    /// The node took nothing of an update, and asks for a snapshot.
    pub(crate) fn refused_whole(&self, ticket: &Ticket, revision: Revision, message: &str) {
        self.see(ticket, |seen| seen.refused_whole(revision, message));
    }

    /// How many audit records the node did not report for want of room, since it started.
    pub(crate) fn records_dropped(&self, ticket: &Ticket, count: u64) {
        self.see(ticket, |seen| seen.records_dropped = count);
    }

    /// The node told of calls. Of tenants whose rollouts have ended nothing is kept.
    pub(crate) fn counted(
        &self,
        ticket: &Ticket,
        calls: &[TenantCalls],
        is_running: impl Fn(&TenantName) -> bool,
    ) {
        self.see(ticket, |seen| {
            seen.calls.retain(|tenant, _| is_running(tenant));
            seen.counted(calls);
        });
    }

    /// Every row, in the order of the ids.
    pub(crate) fn list(&self, now: Instant) -> Vec<NodeView> {
        let mut rows = self.rows();
        rows.forget_gone(now);
        let others = rows.others.nodes();
        let elsewhere = |id: &NodeId, node: &Node| node.gone_at.is_some() && others.contains_key(id);
        let here = rows.nodes.iter().filter(|(id, node)| !elsewhere(id, node));
        let mut views: Vec<NodeView> = here.map(|(id, node)| node.view(id)).collect();
        views.extend(rows.elsewhere().map(|(_, node)| node.view.clone()));
        drop(rows);
        views.sort_by(|left, right| left.node.cmp(&right.node));
        views
    }

    /// The connected nodes that take part in the mesh, and may have a tenant in common with one of this scope.
    pub(crate) fn members(&self, scope: &Scope) -> Vec<(NodeId, Place)> {
        let rows = self.rows();
        // INVARIANT: a node that is gone has no place.
        let here = rows.nodes.iter().map(|(id, node)| (id, &node.seen.scope, &node.place));
        let elsewhere = rows.elsewhere().map(|(id, node)| (id, &node.view.seen.scope, &node.place));
        let peers = here.chain(elsewhere).filter(|(_, other, _)| scope.may_share(other));
        peers.filter_map(|(id, _, place)| Some((id.clone(), place.clone()?))).collect()
    }

    /// The nodes that follow this member, as the others are told of them.
    pub(crate) fn news(&self) -> wire::FleetNews {
        let rows = self.rows();
        let connected = rows.nodes.iter().filter(|(_, node)| node.gone_at.is_none());
        wire::FleetNews { nodes: connected.map(|(id, node)| node.news(id)).collect() }
    }

    /// Takes what another member tells of the nodes that follow it.
    pub(crate) fn told(&self, member: u64, news: wire::FleetNews, now: Instant) {
        let places_changed = self.rows().others.tell(member, news, now);
        self.others_changed(places_changed);
    }

    /// Forgets what members told that have been silent for long.
    pub(crate) fn forget_silent(&self, now: Instant) {
        if self.rows().others.forget_silent(now) {
            self.others_changed(true);
        }
    }

    /// Tells of every change of the nodes that follow this member; several may arrive as one.
    pub(crate) fn subscribe_to_own(&self) -> watch::Receiver<u64> {
        self.own.subscribe()
    }

    fn others_changed(&self, places_changed: bool) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        if places_changed {
            self.membership_changed();
        }
    }

    /// Tells when a member joined or left; several may arrive as one.
    pub(crate) fn subscribe_to_members(&self) -> watch::Receiver<u64> {
        self.membership.subscribe()
    }

    /// Every connected node of some scopes: since when it is there, and what it answered.
    pub(super) fn each_connected(
        &self,
        whose: impl Fn(&Scope) -> bool,
        mut each: impl FnMut(&NodeId, Instant, &Answers),
    ) {
        let rows = self.rows();
        let here = rows.nodes.iter().filter(|(_, node)| node.gone_at.is_none());
        for (id, node) in here.filter(|(_, node)| whose(&node.seen.scope)) {
            each(id, node.connected_at, &node.answers);
        }
        for (id, node) in rows.elsewhere().filter(|(_, node)| whose(&node.view.seen.scope)) {
            each(id, node.since, &node.answers);
        }
    }

    /// Every node of some scopes that went without a word and is not found elsewhere, and when that was seen.
    pub(super) fn each_lost(&self, whose: impl Fn(&Scope) -> bool, mut each: impl FnMut(&NodeId, Instant)) {
        let rows = self.rows();
        let others = rows.others.nodes();
        let not_elsewhere = rows.nodes.iter().filter(|(id, _)| !others.contains_key(id));
        for (id, node) in not_elsewhere.filter(|(_, node)| whose(&node.seen.scope)) {
            if let Some(gone_at) = node.gone_at.filter(|_| !node.took_leave) {
                each(id, gone_at);
            }
        }
    }

    /// What a node has acknowledged, to whichever session.
    pub(crate) fn acked_by(&self, ticket: &Ticket) -> Revision {
        let rows = self.rows();
        rows.nodes.get(&ticket.node).map_or(Revision::NONE, |node| node.answers.configuration.newest())
    }

    /// Tells of every change of the table; several may arrive as one.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    fn see(&self, ticket: &Ticket, change: impl FnOnce(&mut Seen)) {
        self.update(ticket, |node| change(Arc::make_mut(&mut node.seen)));
    }

    fn update(&self, ticket: &Ticket, change: impl FnOnce(&mut Node)) {
        let mut rows = self.rows();
        let of_session = rows.nodes.get_mut(&ticket.node).filter(|node| node.session == ticket.session);
        if let Some(node) = of_session {
            change(node);
            drop(rows);
            self.changed();
        }
    }

    fn changed(&self) {
        self.changes.send_modify(|changes| *changes = changes.wrapping_add(1));
        self.own.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn membership_changed(&self) {
        self.membership.send_modify(|changes| *changes = changes.wrapping_add(1));
    }

    fn rows(&self) -> MutexGuard<'_, Rows> {
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rows {
    /// The nodes that follow another member and not this one.
    fn elsewhere(&self) -> impl Iterator<Item = (&NodeId, &ToldNode)> {
        let is_here = |id: &NodeId| self.nodes.get(id).is_some_and(|node| node.gone_at.is_none());
        self.others.nodes().into_iter().filter(move |(id, _)| !is_here(id))
    }

    fn forget_gone(&mut self, now: Instant) {
        let long_gone = |at: Instant| now.saturating_duration_since(at) > GONE_KEPT;
        self.nodes.retain(|_, node| !node.gone_at.is_some_and(long_gone));
    }

    /// Forgets the node that is gone for longest.
    fn make_room(&mut self) -> Result<(), FleetFull> {
        let gone = self.nodes.iter().filter_map(|(id, node)| Some((node.gone_at?, id.clone())));
        let (_, id) = gone.min_by_key(|(at, _)| *at).ok_or(FleetFull)?;
        self.nodes.remove(&id);
        Ok(())
    }
}

impl Ticket {
    /// The key that secrets for this node are sealed to.
    pub(crate) fn seal_key(&self) -> &SealPublicKey {
        &self.seal_key
    }
}
