//! What is odd about what servers say to models, and what becomes of it on nodes.
//!
//! Always holds: it is found by what nodes withhold by, on the recorded catalogs, so that an admin sees what they do; it
//! is looked for when it is asked for, and not kept.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use gantry_control_state::State;
use gantry_inspect::definition::{self, Actions, Owners, Scan, Subject};
use gantry_model::inspection::Mode;
use gantry_model::record::RecordValue;
use gantry_model::resource::Inspection;
use gantry_model::{Catalog, DefinitionKind, ResourceId, ServerName, Spec, TenantName};
use gantry_wire::admin_v1::{Oddity, ScanCatalogsRequest, ScanCatalogsResponse, Suspect};
use gantry_wire::resource_v1;
use prost::Message;
use tonic::Status;

use super::call::Call;
use super::read::ANSWER_BYTES_MAX;
use super::rejection::{broken_off, index, parse, parse_or_every, require, require_tenant};

pub(super) async fn scan(call: &Call, request: &ScanCatalogsRequest) -> Result<ScanCatalogsResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let server: Option<ServerName> = parse_or_every("server", &request.server)?;
    let view = call.view();
    match &server {
        Some(server) => require(&view.state, &ResourceId::server(&tenant, server))?,
        None => require_tenant(&view.state, &tenant)?,
    }
    let (revision, state) = (view.revision.0, view.state);
    let work = move || suspects(&state, &tenant, server.as_ref());
    let (suspects, count) = aside(call, work).await?;
    let bytes: usize = suspects.iter().map(|suspect| suspect.encoded_len() + 8).sum();
    if bytes > ANSWER_BYTES_MAX {
        return Err(Status::resource_exhausted("the answer would be too long; ask for one server"));
    }
    Ok(ScanCatalogsResponse { revision, suspects, definition_count: index(count) })
}

/// Does work on catalogs aside of what other calls need, as soon as there is room for it.
pub(super) async fn aside<T: Send + 'static>(
    call: &Call,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Status> {
    let room = call.plane.scans.clone().acquire_owned().await.map_err(|_| broken_off())?;
    let work = move || {
        let done = work();
        drop(room);
        done
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| broken_off())
}

/// What is odd about each definition that waits for approval.
pub(super) fn of_quarantined<'c>(
    catalog: &'c Catalog,
    owners: &Owners,
) -> HashMap<(DefinitionKind, &'c str), Vec<Oddity>> {
    let found = Scan::of_quarantined(catalog).suspects(&|name| owners.has_elsewhere(&catalog.server, name));
    let held = |kind: DefinitionKind, name: &str| Some(&*catalog.quarantined(kind, name)?.definition.name);
    let by_name = found.into_iter().filter_map(|suspect| match suspect.subject {
        Subject::Definition(kind, name) => Some(((kind, held(kind, &name)?), told(&suspect.oddities))),
        Subject::Instructions => None,
    });
    by_name.collect()
}

/// What the servers of a tenant offer.
pub(super) fn catalogs(state: &State, tenant: &TenantName) -> Vec<Arc<Catalog>> {
    let of_catalog = |value: &RecordValue| match value {
        RecordValue::Catalog(catalog) => Some(catalog.clone()),
        _ => None,
    };
    state.tenant_records(tenant).filter_map(|record| of_catalog(&record.value)).collect()
}

/// Whose tools have a name in a tenant.
pub(super) fn owners(state: &State, tenant: &TenantName, catalogs: &[Arc<Catalog>]) -> Owners {
    let endpoints = state.tenant_records(tenant).filter_map(|record| match &record.value {
        RecordValue::Resource(resource) => match &resource.spec {
            Spec::Endpoint(spec) => Some(spec),
            _ => None,
        },
        _ => None,
    });
    Owners::of(catalogs.iter().map(AsRef::as_ref), endpoints)
}

/// Tools of a server that no agent is offered, because of what their definitions say.
pub(super) fn withheld(state: &State, tenant: &TenantName, catalog: &Catalog) -> HashSet<Arc<str>> {
    let of_tenant = inspection(state, &ResourceId::of_tenant(tenant));
    let actions = Actions::of(&of_tenant, &inspection(state, &ResourceId::server(tenant, &catalog.server)));
    if !actions.may_withhold() {
        return HashSet::new();
    }
    // What other servers have is no reason to withhold.
    let suspects = Scan::of(catalog).suspects(&|_| false).into_iter();
    let blocked = suspects.filter(|suspect| suspect.action(&actions) == Mode::Block);
    let tools = blocked.filter_map(|suspect| match suspect.subject {
        Subject::Definition(DefinitionKind::Tool, name) => Some(name),
        Subject::Definition(..) | Subject::Instructions => None,
    });
    tools.collect()
}

fn suspects(state: &State, tenant: &TenantName, only: Option<&ServerName>) -> (Vec<Suspect>, usize) {
    let catalogs = catalogs(state, tenant);
    let owners = owners(state, tenant, &catalogs);
    let of_tenant = inspection(state, &ResourceId::of_tenant(tenant));
    let (mut found, mut count) = (Vec::new(), 0);
    for catalog in catalogs.iter().filter(|catalog| only.is_none_or(|only| catalog.server == *only)) {
        count += DefinitionKind::ALL.into_iter().map(|kind| catalog.definitions(kind).len()).sum::<usize>();
        let of_server = inspection(state, &ResourceId::server(tenant, &catalog.server));
        let actions = Actions::of(&of_tenant, &of_server);
        for suspect in Scan::of(catalog).suspects(&|name| owners.has_elsewhere(&catalog.server, name)) {
            let (kind, name) = match &suspect.subject {
                Subject::Instructions => (resource_v1::DefinitionKind::Unspecified, String::new()),
                Subject::Definition(kind, name) => ((*kind).into(), name.to_string()),
            };
            found.push(Suspect {
                server: catalog.server.to_string(),
                kind: kind.into(),
                name,
                action: action(suspect.action(&actions)).into(),
                oddities: told(&suspect.oddities),
            });
        }
    }
    (found, count)
}

fn inspection(state: &State, id: &ResourceId) -> Inspection {
    match state.resource(id).map(|(resource, _)| &resource.spec) {
        Some(Spec::Tenant(spec)) => spec.inspection.clone(),
        Some(Spec::Server(spec)) => spec.inspection.clone(),
        _ => Inspection::default(),
    }
}

fn action(mode: Mode) -> resource_v1::FilterAction {
    match mode {
        Mode::Off => resource_v1::FilterAction::Off,
        Mode::Report => resource_v1::FilterAction::Report,
        Mode::Block => resource_v1::FilterAction::Block,
    }
}

fn told(oddities: &[definition::Oddity]) -> Vec<Oddity> {
    let told = oddities.iter().map(|odd| Oddity {
        what: odd.what.to_owned(),
        place: odd.place.clone(),
        excerpt: odd.excerpt.clone(),
    });
    told.collect()
}
