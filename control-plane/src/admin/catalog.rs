//! What waits for approval, and approving it.
//!
//! Always holds: a definition is approved by the hash of what the admin saw; when it changed since, nothing of the
//! call is approved.

use std::sync::Arc;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::{Approval, Catalog, ResourceId, ServerName, TenantName};
use gantry_wire::admin_v1::{
    ApproveCatalogRequest, ApproveCatalogResponse, ListQuarantineRequest, ListQuarantineResponse,
    WaitingDefinition,
};
use prost::Message;
use tonic::Status;

use super::call::Call;
use super::read::ANSWER_BYTES_MAX;
use super::rejection::{index, parse, parse_or_every, refused, require, require_tenant};
use super::scan;

pub(super) async fn list(
    call: &Call,
    request: &ListQuarantineRequest,
) -> Result<ListQuarantineResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let server: Option<ServerName> = parse_or_every("server", &request.server)?;
    let view = call.view();
    match &server {
        Some(server) => require(&view.state, &ResourceId::server(&tenant, server))?,
        None => require_tenant(&view.state, &tenant)?,
    }
    let (revision, state) = (view.revision.0, view.state);
    let work = move || waiting(&state, &tenant, server.as_ref());
    Ok(ListQuarantineResponse { revision, waiting: scan::aside(call, work).await?? })
}

fn waiting(
    state: &State,
    tenant: &TenantName,
    only: Option<&ServerName>,
) -> Result<Vec<WaitingDefinition>, Status> {
    let (mut waiting, mut bytes) = (Vec::new(), 0);
    let catalogs = scan::catalogs(state, tenant);
    let of_server = |catalog: &&Arc<Catalog>| only.is_none_or(|only| catalog.server == *only);
    let held: Vec<_> =
        catalogs.iter().filter(of_server).filter(|known| !known.quarantined.is_empty()).collect();
    if held.is_empty() {
        return Ok(waiting);
    }
    let owners = scan::owners(state, tenant, &catalogs);
    for catalog in held {
        let odd = scan::of_quarantined(catalog, &owners);
        for held in &catalog.quarantined {
            let server = catalog.server.to_string();
            let oddities = odd.get(&(held.kind, &*held.definition.name)).cloned().unwrap_or_default();
            let definition = WaitingDefinition { server, quarantined: Some(held.into()), oddities };
            bytes += definition.encoded_len() + 8;
            if bytes > ANSWER_BYTES_MAX {
                return Err(Status::resource_exhausted("the answer would be too long; ask for one server"));
            }
            waiting.push(definition);
        }
    }
    Ok(waiting)
}

pub(super) async fn approve(
    call: &Call,
    request: &ApproveCatalogRequest,
) -> Result<ApproveCatalogResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let server: ServerName = parse("server", &request.server)?;
    let approvals: Result<Vec<Approval>, _> = request.approvals.iter().map(Approval::try_from).collect();
    let approvals = approvals.map_err(|error| Status::invalid_argument(format!("an approval: {error}")))?;
    if approvals.is_empty() {
        return Err(Status::invalid_argument("the call names no definition"));
    }
    require(&call.view().state, &ResourceId::server(&tenant, &server))?;
    let command = Command::ApproveCatalog { tenant: tenant.clone(), server: server.clone(), approvals };
    let command = call.guarded(command);
    let committed = call.propose(command).await?;
    match committed.outcome {
        Outcome::Done(_) => {
            let state = call.view().state;
            let waiting = |catalog: &Catalog| catalog.quarantined.len();
            let waiting = state.catalog(&tenant, &server).map_or(0, |catalog| waiting(catalog));
            Ok(ApproveCatalogResponse { revision: committed.revision.0, waiting_count: index(waiting) })
        }
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}
