//! Recording what servers offer, as nodes report it.
//!
//! Always holds: reports of one node are recorded in their order, so an older catalog never replaces a newer one of
//! the same node; a catalog that would change nothing is not proposed, and neither is one of a server that flaps
//! (`fleet/flapping.rs`); at most [`QUEUE_BYTES_MAX`] bytes of one node's reports wait. What waits when its node leaves is dropped: nodes ask their servers, and report, again and
//! again.

use std::sync::Arc;
use std::time::Duration;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::resource::Pin;
use gantry_model::{Catalog, ResourceId, Scope, ServerName, TenantName};
use gantry_wire::resource_v1;
use gantry_wire::sync_v1::{CatalogReport, ServerFailure};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::Instant;

use crate::fleet::Ticket;
use crate::plane::Plane;
use crate::raft::ProposeError;

/// Reports of one node that wait.
const QUEUE_REPORTS_MAX: usize = 256;
/// Bytes of them: a few catalogs at their bound, or very many common ones.
const QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What the bytes are counted in.
const UNIT_BYTES: usize = 1024;
/// Attempts to record one catalog. What fails is told in the status, and the node reports again later.
const ATTEMPTS_MAX: u32 = 3;
/// Between attempts, times the number of the attempt.
const ATTEMPT_PAUSE: Duration = Duration::from_millis(200);

/// Where reports go in.
pub(super) struct ReportSender {
    reports: mpsc::Sender<Report>,
    room: Arc<Semaphore>,
}

/// Where reports come out.
pub(super) struct Reports(mpsc::Receiver<Report>);

struct Report {
    report: CatalogReport,
    _room: OwnedSemaphorePermit,
}

/// A queue for the reports of one node.
pub(super) fn queue() -> (ReportSender, Reports) {
    let (sender, receiver) = mpsc::channel(QUEUE_REPORTS_MAX);
    let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / UNIT_BYTES));
    (ReportSender { reports: sender, room }, Reports(receiver))
}

impl ReportSender {
    /// Waits for room. A report that comes after the queue's end is dropped with its session.
    pub(super) async fn send(&self, report: CatalogReport) {
        let units = (report.encoded_len() / UNIT_BYTES + 1).min(QUEUE_BYTES_MAX / UNIT_BYTES);
        let units = u32::try_from(units).unwrap_or(u32::MAX);
        if let Ok(room) = self.room.clone().acquire_many_owned(units).await {
            let _ = self.reports.send(Report { report, _room: room }).await;
        }
    }
}

impl Reports {
    /// Records each report; ends with the queue.
    pub(super) async fn record_into(mut self, plane: &Plane, ticket: &Ticket) {
        while let Some(Report { report, _room }) = self.0.recv().await {
            if !is_within(plane, &ticket.scope, &report) {
                tracing::warn!("a node reports on a server that it does not hold");
                continue;
            }
            match report {
                CatalogReport { failure: Some(failure), .. } => note_failure(plane, &failure),
                CatalogReport { catalog: Some(catalog), failure: None } => {
                    let names = names(&catalog.tenant, &catalog.server);
                    match (Catalog::try_from(&catalog), names) {
                        (Ok(catalog), _) => record(plane, catalog).await,
                        (Err(error), Some((tenant, server))) => {
                            let message = format!("what the server offers cannot be recorded: {error}");
                            note(plane, &tenant, &server, &message);
                        }
                        (Err(error), None) => tracing::warn!(%error, "a catalog of no server is reported"),
                    }
                }
                CatalogReport { catalog: None, failure: None } => {}
            }
        }
    }
}

/// Whether a report is of a tenant that the node holds.
fn is_within(plane: &Plane, scope: &Scope, report: &CatalogReport) -> bool {
    let tenant = match (&report.failure, &report.catalog) {
        (Some(failure), _) => failure.tenant.as_str(),
        (None, Some(catalog)) => catalog.tenant.as_str(),
        (None, None) => return true,
    };
    let view = plane.consensus.feed().latest();
    tenant.parse().is_ok_and(|tenant| view.state.digests().has(scope, &tenant))
}

/// Whether the node may have asked a server that is another one to it than to others, since it is, or was at what it has
/// acknowledged, in a stage of a rollout. Others would be told of a catalog that is not of the server that they have.
pub(super) fn is_staged(plane: &Plane, ticket: &Ticket, report: &CatalogReport) -> bool {
    let Some(catalog) = &report.catalog else { return false };
    let Some((tenant, server)) = names(&catalog.tenant, &catalog.server) else { return false };
    let server = ResourceId::server(&tenant, &server);
    let acked = plane.fleet.nodes.acked_by(ticket);
    let pasts = plane.consensus.feed().staged_since(acked);
    pasts.iter().any(|past| past.laid(ticket.node.as_str(), &ticket.scope).touches(&server))
}

async fn record(plane: &Plane, catalog: Catalog) {
    let (tenant, server) = (catalog.tenant.clone(), catalog.server.clone());
    let mut last = None;
    for attempt in 1..=ATTEMPTS_MAX {
        let state = plane.consensus.feed().latest().state;
        let Some(next) = state.catalog_after(&catalog) else {
            plane.fleet.flapping.agrees(&tenant, &server);
            return plane.fleet.failures.clear(&tenant, &server);
        };
        if attempt == 1 && !may_record(plane, &state, &catalog, &next) {
            tracing::debug!(%tenant, %server, "a catalog is held back: its server offers now this, now that");
            return plane.fleet.failures.clear(&tenant, &server);
        }
        match plane.consensus.propose(Command::PutCatalog(catalog.clone())).await {
            Ok(committed) => {
                if let Outcome::Refused(refusals) = committed.outcome {
                    // The server was deleted meanwhile.
                    tracing::debug!(%tenant, %server, ?refusals, "a catalog was refused");
                }
                return plane.fleet.failures.clear(&tenant, &server);
            }
            Err(error @ (ProposeError::TooLarge { .. } | ProposeError::ShuttingDown)) => {
                last = Some(error);
                break;
            }
            // Recording it twice does no harm, so the unknown is tried again too.
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(ATTEMPT_PAUSE * attempt).await;
    }
    if let Some(error) = last {
        note(plane, &tenant, &server, &format!("what the server offers could not be recorded: {error}"));
    }
}

/// A first catalog is recorded at once. So is one by which a pinned definition is withdrawn, whatever its server did
/// before: what the server would now do is not what was approved.
fn may_record(plane: &Plane, state: &State, reported: &Catalog, next: &Catalog) -> bool {
    let (tenant, server) = (&reported.tenant, &reported.server);
    let Some(stored) = state.catalog(tenant, server) else { return true };
    if state.pin(tenant, server) == Some(Pin::Review) && stored.is_withdrawn_by(next) {
        return true;
    }
    let digest = blake3::hash(&resource_v1::Catalog::from(reported).encode_to_vec());
    plane.fleet.flapping.may_change(tenant, server, digest.into(), Instant::now())
}

fn note_failure(plane: &Plane, failure: &ServerFailure) {
    match names(&failure.tenant, &failure.server) {
        Some((tenant, server)) => note(plane, &tenant, &server, &failure.message),
        None => tracing::warn!("a failure of no server is reported"),
    }
}

/// Only of servers that there are, so that a node cannot fill the table with others.
fn note(plane: &Plane, tenant: &TenantName, server: &ServerName, message: &str) {
    tracing::warn!(%tenant, %server, message, "a server could not be asked");
    let state = plane.consensus.feed().latest().state;
    if state.resource(&ResourceId::server(tenant, server)).is_some() {
        plane.fleet.failures.set(tenant, server, message);
    }
}

fn names(tenant: &str, server: &str) -> Option<(TenantName, ServerName)> {
    Some((tenant.parse().ok()?, server.parse().ok()?))
}
