//! The node's end of the stream to the control plane: takes updates, swaps the configuration, acknowledges, reports.
//!
//! Always holds: a node without a control plane serves what it has, and tries those that it knows of again and again
//! ([`choice`]).
//! An update is applied whole or not at all, and is answered by exactly one ack or nack. It starts with what was last
//! known to be good ([`last_known_good`]), and goes on from there.

pub(crate) mod approvals;
pub(crate) mod choice;
mod connection;
pub(crate) mod contact;
pub(crate) mod counting;
pub(crate) mod distrust;
pub(crate) mod last_known_good;
mod reader;
mod staleness;

use std::sync::Arc;
use std::time::Duration;

use gantry_model::Revision;
use gantry_node::seal::NodeSealKey;
use gantry_wire::sync_v1 as wire;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::bans::Configured;
use crate::config::holdings::{Holdings, Problem, Touched, UpdateError};
use crate::config::tenant::Tenant;
use crate::config::{Changed, Config};
use crate::node::Node;
use crate::start::Proof;
use crate::sync::choice::Choice;
use crate::sync::distrust::Distrust;
use crate::sync::last_known_good::{Beginning, Keeper};
use crate::upstream::discovery::{Discovery, Report};

/// Who the node is and whom it may follow.
pub(crate) struct Identity {
    pub(crate) node_id: String,
    pub(crate) incarnation: String,
    pub(crate) control_planes: Choice,
    pub(crate) proof: Proof,
    /// What of the control plane is not believed any more; `None` without TLS.
    pub(crate) distrust: Option<Distrust>,
}

/// How long a node that starts from what was last known to be good waits for a word of its peers before it says that it
/// is ready. A control plane that is there tells of them within some milliseconds.
const PEERS_WAIT: Duration = Duration::from_millis(250);

/// Changes of an update that are taken in at once, on a thread that requests need; more are taken in aside.
const CHANGES_AT_ONCE_MAX: usize = 64;

/// An update that was taken in, ready to be served.
struct Taken {
    config: Config,
    changed: Changed,
    problems: Vec<Problem>,
    bans: Configured,
    is_of_another_cluster: bool,
    /// Something was held of a tenant that is nothing now.
    lost_tenants: bool,
    /// Tenants that are served no more.
    gone: Vec<Arc<Tenant>>,
}

impl Taken {
    fn of(holdings: &mut Holdings, before: &Config, touched: Touched) -> Taken {
        let is_of_another_cluster = touched.is_of_another_cluster;
        let (bans, lost_any) = (holdings.bans(&touched), holdings.lost_any(&touched));
        let (config, changed, problems) = holdings.compile(before, touched);
        let gone = changed.iter().filter(|name| !config.tenants.contains_key(*name));
        let gone: Vec<_> = gone.filter_map(|name| before.tenants.get(name).cloned()).collect();
        let lost_tenants = lost_any || !gone.is_empty();
        Taken { config, changed, problems, bans, is_of_another_cluster, lost_tenants, gone }
    }
}

/// Follows the control plane until it is stopped.
pub(crate) struct Follower {
    identity: Identity,
    node: Arc<Node>,
    holdings: Holdings,
    seal: Arc<NodeSealKey>,
    discovery: Discovery,
    catalogs: mpsc::Receiver<Report>,
    records: mpsc::Receiver<Vec<u8>>,
    applied: watch::Sender<Revision>,
    keeper: Keeper,
}

/// What the follower reports, and where it says how far it is.
pub(crate) struct Channels {
    pub(crate) catalogs: mpsc::Receiver<Report>,
    pub(crate) records: mpsc::Receiver<Vec<u8>>,
    pub(crate) applied: watch::Sender<Revision>,
}

impl Follower {
    /// A node serves what it begins with when this returns.
    pub(crate) fn new(
        identity: Identity,
        node: Arc<Node>,
        seal: Arc<NodeSealKey>,
        discovery: Discovery,
        channels: Channels,
        beginning: Beginning,
    ) -> Follower {
        let Channels { catalogs, records, applied } = channels;
        let Beginning { holdings, touched, urgent, heard_at_ms, keeper } = beginning;
        node.contact.begin(heard_at_ms, last_known_good::now_ms());
        let mut follower =
            Follower { identity, node, holdings, seal, discovery, catalogs, records, applied, keeper };
        if let Some(touched) = touched {
            let before = follower.node.config();
            let taken = Taken::of(&mut follower.holdings, &before, touched);
            let (revision, _) = follower.put_in_force(taken);
            follower.restore(urgent);
            let (applied, node) = (follower.applied.clone(), follower.node.clone());
            // Whoever waits for the node to be ready sends it requests of sessions that other nodes have, and it does
            // not know them before a control plane told it of them.
            tokio::spawn(async move {
                let _ = tokio::time::timeout(PEERS_WAIT, node.mesh.told()).await;
                applied.send_if_modified(|told| {
                    let is_first = *told == Revision::NONE;
                    *told = revision.max(*told);
                    is_first
                });
            });
        }
        follower
    }

    /// Begins with what came ahead of the updates and was kept.
    fn restore(&self, mut urgent: wire::KeptUrgent) {
        let (cluster_id, narrowings) = (urgent.cluster_id.clone(), std::mem::take(&mut urgent.narrowings));
        if let Err(error) = self.node.bans.restore(urgent) {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "revocations that were kept cannot be read");
        }
        // Those of another cluster mean nobody here.
        if cluster_id == self.holdings.cluster_id() {
            for error in self.node.narrow(&cluster_id, narrowings) {
                let error: &dyn std::error::Error = &error;
                tracing::error!(error, "a denial that was kept cannot be put in force");
            }
        }
    }

    /// Takes an update, serves what is held then, and says so; returns the tenants that are served in an older form. It
    /// must not be dropped by whoever goes on: what is held would be lost.
    async fn take(&mut self, update: wire::Update) -> Result<Vec<Problem>, UpdateError> {
        let is_large = update.upserts.len() + update.deletes.len() > CHANGES_AT_ONCE_MAX;
        let mut holdings = std::mem::replace(&mut self.holdings, Holdings::new(self.seal.clone()));
        let before = self.node.config();
        let work = move || {
            let taken = holdings.take(update).map(|touched| Taken::of(&mut holdings, &before, touched));
            (holdings, taken)
        };
        let (holdings, taken) = match is_large {
            false => work(),
            // Requests, and bans, do not wait for it.
            true => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                Err(error) => std::panic::resume_unwind(error.into_panic()),
            },
        };
        self.holdings = holdings;
        let (revision, problems) = self.put_in_force(taken?);
        self.applied.send_replace(revision);
        Ok(problems)
    }

    fn put_in_force(&mut self, taken: Taken) -> (Revision, Vec<Problem>) {
        let Taken { config, changed, problems, bans, is_of_another_cluster, lost_tenants, gone } = taken;
        if is_of_another_cluster {
            self.keeper.clear();
        }
        let revision = config.revision;
        self.node.bans.configure(self.holdings.cluster_id(), revision, bans);
        self.node.upstreams.reconcile(&self.node.config(), &config, &changed);
        self.discovery.reconcile(&config, &changed);
        self.node.swap(config);
        for tenant in gone {
            // What began before the swap; nothing begins any more.
            tenant.live.cut();
        }
        if lost_tenants {
            self.keeper.forget_older();
            self.keeper.urgent().keep(self.node.ahead());
        }
        for Problem { tenant, message } in &problems {
            tracing::warn!(%tenant, %message, "a tenant cannot be compiled and keeps its last good form");
        }
        (revision, problems)
    }

    /// Notes when a control plane was heard, where a start without one will want to know.
    fn note_contact(&self) {
        if !self.node.config().fail_closed.is_empty() {
            self.keeper.heard();
        }
    }

    /// Runs until `stop`, and stays in the cluster meanwhile.
    pub(crate) async fn run(self, stop: CancellationToken) {
        match &self.identity.proof {
            Proof::Token(_) => self.follow(stop).await,
            Proof::Certificate(membership) => {
                let (membership, addresses) = (membership.clone(), self.identity.control_planes.addresses());
                tokio::select! {
                    biased;
                    () = self.follow(stop) => {}
                    never = membership.stay(&addresses) => match never {},
                }
            }
        }
    }

    async fn follow(mut self, stop: CancellationToken) {
        let watching = tokio::spawn(staleness::watch(self.node.clone(), stop.clone()));
        while !stop.is_cancelled() {
            let ended = stop.run_until_cancelled(connection::follow(&mut self)).await;
            if self.node.contact.lost() {
                self.note_contact();
            }
            let Some(error) = ended else { break };
            let control_plane = self.identity.control_planes.current().to_owned();
            let pause = self.identity.control_planes.failed();
            let next = self.identity.control_planes.current();
            tracing::warn!(%control_plane, %error, %next, ?pause, "the stream ended; trying again");
            stop.run_until_cancelled(tokio::time::sleep(pause)).await;
        }
        self.discovery.stop().await;
        self.keeper.finish().await;
        if watching.await.is_err() {
            tracing::error!("the task that ends streams of stale tenants panicked");
        }
    }
}

#[cfg(test)]
mod tests;
