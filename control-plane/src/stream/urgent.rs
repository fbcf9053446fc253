//! Telling a node of bans and denials, ahead of the updates that bring them.
//!
//! Always holds: whoever is banned is told of at once, also between the parts of an update, and while one is unanswered;
//! while the node does not read, bans become one message. A denial goes ahead only where an update is in its way
//! ([`Lane`]): where none is, the update that brings it is as fast. What is told here stands in a later update too.

use bytes::Bytes;
use gantry_control_state::Digests;
use gantry_model::{RecordKey, Resource, Revision, Scope, Spec, TenantName};
use gantry_wire::sync_v1::server_message::Message as ToNode;
use gantry_wire::sync_v1::{Entry, Narrowing, NarrowingAgent, NarrowingPolicy, ServerMessage, Urgent};
use prost::Message as _;
use tokio::sync::watch;

use super::session::Outbound;
use tokio::time::Instant;

use crate::feed::{self, View};
use crate::fleet::Ticket;
use crate::plane::Plane;
use crate::rollout::Laid;

/// Bytes of what goes ahead in one message: as many policies as a tenant may have statements, of an ordinary length. A
/// tenant with more has to wait for its update, which is no larger.
const NARROWINGS_BYTES_MAX: usize = 1024 * 1024;

/// What updates do to denials on their way to one node.
pub(super) struct Lane(watch::Sender<Standing>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Standing {
    /// An update is being made, sent or taken in, and a later one has to wait for it.
    is_blocked: bool,
    /// Up to here the node has denials, or is about to.
    told: Revision,
}

impl Lane {
    /// Of a node that has everything up to `told`, or is to have it by its first update and by nothing else.
    pub(super) fn new(told: Revision) -> Lane {
        Lane(watch::Sender::new(Standing { is_blocked: true, told }))
    }

    /// An update begins that may take long.
    pub(super) fn block(&self) {
        self.0.send_modify(|standing| standing.is_blocked = true);
    }

    /// An update that brings everything up to `revision` is sent at once.
    pub(super) fn block_after(&self, revision: Revision) {
        self.note(true, revision);
    }

    /// The node answered: it has everything up to `revision`.
    pub(super) fn free(&self, revision: Revision) {
        self.note(false, revision);
    }

    /// An update was refused: the node has no more than `revision`, and the next one takes long.
    pub(super) fn take_back(&self, revision: Revision) {
        self.0.send_replace(Standing { is_blocked: true, told: revision });
    }

    /// The node is told of denials up to `revision`. Where the lane is another meanwhile it is told of some twice.
    fn told(&self, as_of: Standing, revision: Revision) {
        self.0.send_if_modified(|standing| {
            if *standing == as_of {
                standing.told = revision.max(standing.told);
            }
            false
        });
    }

    /// Wakes nobody: there is nothing to tell for it.
    fn note(&self, is_blocked: bool, told: Revision) {
        self.0.send_if_modified(|standing| {
            *standing = Standing { is_blocked, told: told.max(standing.told) };
            false
        });
    }
}

/// Tells until the node is gone; of bans from what it has, which is all up to `position`, or nothing that counts.
/// Of tenants beyond the node's scope it tells nothing; one that comes into it later brings its bans with the update.
pub(super) async fn tell(
    plane: &Plane,
    ticket: &Ticket,
    position: Option<Revision>,
    (lane, outbound): (&Lane, &Outbound),
) {
    let feed = plane.consensus.feed();
    let (mut news, mut standing) = (feed.subscribe_to_urgent(), lane.0.subscribe());
    let mut told = position;
    loop {
        news.borrow_and_update();
        let standing_now = *standing.borrow_and_update();
        let mut urgent = feed.urgent_since(told);
        told = Some(urgent.revision);
        let is_any = !urgent.changes.is_empty();
        if let Scope::Of(_) = ticket.scope {
            let view = feed.latest();
            let digests = view.state.digests();
            urgent.changes.retain(|change| is_within(digests, &ticket.scope, &change.key));
        }
        let narrowings = match standing_now.is_blocked {
            true => narrowings(plane, ticket, standing_now.told, urgent.revision),
            false => Vec::new(),
        };
        // Also without a ban: what the node may have of another time of the cluster is then over.
        if urgent.is_complete || !urgent.changes.is_empty() || !narrowings.is_empty() {
            let revision = urgent.revision;
            let message = to_wire(urgent, plane.vault.cluster_id().to_owned(), narrowings);
            if outbound.send(Ok(ServerMessage { message: Some(ToNode::Urgent(message)) })).await.is_err() {
                return;
            }
            if standing_now.is_blocked {
                lane.told(standing_now, revision);
            }
        } else if is_any {
            // What stops others only, it cannot let through.
            plane.fleet.nodes.urgent_acked(ticket, urgent.revision, Instant::now());
        }
        // The feed lives as long as the process, and the lane as long as this.
        let ended = tokio::select! {
            changed = news.changed() => changed.is_err(),
            changed = standing.changed() => changed.is_err(),
        };
        if ended {
            return;
        }
    }
}

/// The denials after one revision and up to another, of tenants that the node holds; the latest first, and as many as
/// fit.
fn narrowings(plane: &Plane, ticket: &Ticket, after: Revision, upto: Revision) -> Vec<Narrowing> {
    let feed = plane.consensus.feed();
    let tenants = feed.denied_between(after, upto);
    if tenants.is_empty() {
        return Vec::new();
    }
    let (view, before) = (feed.latest(), feed.past_at(after));
    let holds = |tenant: &TenantName| {
        let had = before.as_ref().is_some_and(|before| before.digests.has(&ticket.scope, tenant));
        had || view.state.digests().has(&ticket.scope, tenant)
    };
    // What a node in a stage of a rollout has to wait for is the state with the change laid over it.
    let laid = view.laid(ticket.node.as_str(), &ticket.scope);
    let mut room = NARROWINGS_BYTES_MAX;
    let mut narrowings = Vec::new();
    for tenant in tenants.iter().filter(|tenant| holds(tenant)) {
        let narrowing = narrowing((&view, &laid), tenant, &ticket.scope);
        let bytes = narrowing.encoded_len();
        match room.checked_sub(bytes) {
            Some(left) => {
                room = left;
                narrowings.push(narrowing);
            }
            None => {
                let node = &ticket.node;
                tracing::warn!(%node, %tenant, bytes, "a denial is too large to go ahead of its update");
            }
        }
    }
    narrowings
}

fn narrowing((view, laid): (&View, &Laid), tenant: &TenantName, scope: &Scope) -> Narrowing {
    let revision = view.revision.0;
    let mut narrowing = Narrowing { tenant: tenant.to_string(), revision, ..Narrowing::default() };
    if view.state.digests().has(scope, tenant) {
        fill(&mut narrowing, laid.resources(&view.state, tenant));
    }
    narrowing
}

fn fill<'a>(narrowing: &mut Narrowing, resources: impl Iterator<Item = &'a Resource>) {
    for resource in resources {
        let name = resource.name.to_string();
        match &resource.spec {
            // It denies nothing, and allows nothing either.
            Spec::Policy(spec) if spec.shadow => {}
            Spec::Policy(spec) => narrowing.policies.push(NarrowingPolicy {
                name,
                cedar: spec.cedar.clone(),
                needs_approval: spec.approval.is_some(),
            }),
            Spec::Agent(spec) => {
                let groups = spec.groups.iter().map(ToString::to_string).collect();
                narrowing.agents.push(NarrowingAgent { name, groups });
            }
            Spec::Server(_) => narrowing.servers.push(name),
            Spec::Endpoint(_) => narrowing.endpoints.push(name),
            // The end of a provider comes with the update: whom it is to stop at once is banned.
            Spec::Tenant(_) | Spec::Limit(_) | Spec::Credential(_) | Spec::Provider(_) => {}
        }
    }
}

/// Whether a node of a scope holds the tenant of a ban.
fn is_within(digests: &Digests, scope: &Scope, key: &str) -> bool {
    let key = key.parse::<RecordKey>();
    key.is_ok_and(|key| key.tenant().is_some_and(|tenant| digests.has(scope, tenant)))
}

fn to_wire(urgent: feed::Urgent, cluster_id: String, narrowings: Vec<Narrowing>) -> Urgent {
    let (revision, complete) = (urgent.revision.0, urgent.is_complete);
    let mut message = Urgent { revision, complete, cluster_id, narrowings, ..Urgent::default() };
    for change in urgent.changes {
        match change.value {
            Some(record) => {
                message.upserts.push(Entry { key: change.key, record: Bytes::from_owner(record) });
            }
            None => message.deletes.push(change.key),
        }
    }
    message
}
