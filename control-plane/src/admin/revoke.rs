//! The kill switch: making, listing and lifting bans.
//!
//! Always holds: what is banned exists, as far as that can be known here (sessions are known to nodes only); who is
//! banned already stays so, with the admin and the reason of the first time.

use std::time::Duration;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::ban::REASON_BYTES_MAX;
use gantry_model::record::{RecordKey, RecordKind};
use gantry_model::{Ban, BanTarget, ResourceId, Revision, TenantName};
use gantry_wire::admin_v1::{
    LiftRevocationRequest, LiftRevocationResponse, ListRevocationsRequest, ListRevocationsResponse,
    RevokeRequest, RevokeResponse,
};
use gantry_wire::resource_v1 as wire;
use serde::Deserialize;
use tonic::Status;

use super::call::Call;
use super::rejection::{parse, parse_or_every, refused, require, require_tenant};
use crate::access::rules::Permission;
use crate::plane::now_ms;

/// How long the ban of a session is kept: nodes seal sessions for 24 hours, by clocks that may differ a little.
const SESSION_BAN_LIFE: Duration = Duration::from_secs(24 * 60 * 60 + 300);
/// How long a banned key is kept, so that it can be told as revoked, and its ban lifted. Then both are forgotten.
const KEY_BAN_LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

pub(super) async fn revoke(call: &Call, request: RevokeRequest) -> Result<RevokeResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let target = target(call, request.target.as_ref())?;
    let reason = request.reason.trim();
    if reason.len() > REASON_BYTES_MAX || reason.chars().any(char::is_control) {
        let message = format!("a reason is one line of at most {REASON_BYTES_MAX} bytes");
        return Err(Status::invalid_argument(message));
    }
    is_there(&call.view().state, &tenant, &target)?;
    let at_ms = now_ms();
    let life = match &target {
        BanTarget::Session(_) => Some(SESSION_BAN_LIFE),
        BanTarget::Key(_) => Some(KEY_BAN_LIFE),
        BanTarget::Agent(_) | BanTarget::Server(_) | BanTarget::Tenant => None,
    };
    let until = |life: Duration| at_ms.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX));
    let ban = Ban {
        tenant,
        target,
        by: call.identity().name.to_string(),
        reason: reason.to_owned(),
        at_ms,
        until_ms: life.map(until),
    };
    let revision = propose(call, Command::PutBan(ban.clone())).await?;
    // This member has applied it by now, and lifting it may have followed.
    let state = call.view().state;
    let stored = state.record(&RecordKey::ban(&ban.tenant, &ban.target)).map(|record| record.revision);
    let since = stored.filter(|stored| *stored < revision);
    let in_force = state.ban(&ban.tenant, &ban.target).map_or(&ban, AsRef::as_ref);
    Ok(RevokeResponse {
        revision: since.unwrap_or(revision).0,
        already: since.is_some(),
        ban: Some(in_force.into()),
    })
}

pub(super) fn list(call: &Call, request: &ListRevocationsRequest) -> Result<ListRevocationsResponse, Status> {
    let tenant: Option<TenantName> = parse_or_every("tenant", &request.tenant)?;
    let view = call.view();
    let bans = match &tenant {
        Some(tenant) => {
            require_tenant(&view.state, tenant)?;
            view.state.bans_of(tenant).map(|ban| ban.as_ref().into()).collect()
        }
        None => view.state.bans().map(|ban| ban.as_ref().into()).collect(),
    };
    Ok(ListRevocationsResponse { revision: view.revision.0, bans })
}

pub(super) async fn lift(
    call: &Call,
    request: LiftRevocationRequest,
) -> Result<LiftRevocationResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let target = target(call, request.target.as_ref())?;
    let state = call.view().state;
    require_tenant(&state, &tenant)?;
    if state.ban(&tenant, &target).is_none() {
        let what = target.key_name().replace('/', " ");
        return Err(Status::not_found(format!(
            "{what} of tenant {tenant} is not revoked; `gantry revoke ls --tenant {tenant}` lists what is"
        )));
    }
    let revision = propose(call, Command::LiftBan { tenant, target }).await?;
    Ok(LiftRevocationResponse { revision: revision.0 })
}

/// The bans that are in force now and would refuse the call of an audit record.
pub(super) fn refusing(state: &State, record: &[u8]) -> Vec<wire::Ban> {
    /// What of a record bans are found by.
    #[derive(Deserialize)]
    struct Called {
        tenant: Option<String>,
        agent: Option<String>,
        key_id: Option<String>,
        session: Option<String>,
        server: Option<String>,
    }
    let Ok(called) = serde_json::from_slice::<Called>(record) else { return Vec::new() };
    let Some(tenant) = called.tenant.and_then(|tenant| tenant.parse::<TenantName>().ok()) else {
        return Vec::new();
    };
    let targets = [
        Some(BanTarget::Tenant),
        called.agent.and_then(|agent| Some(BanTarget::Agent(agent.parse().ok()?))),
        called.key_id.and_then(|key| Some(BanTarget::Key(key.parse().ok()?))),
        called.session.and_then(|session| Some(BanTarget::Session(session.parse().ok()?))),
        called.server.and_then(|server| Some(BanTarget::Server(server.parse().ok()?))),
    ];
    let bans = targets.iter().flatten().filter_map(|target| state.ban(&tenant, target));
    bans.map(|ban| ban.as_ref().into()).collect()
}

/// What a request means; a tenant as a whole is the cluster's to stop, and to serve again.
fn target(call: &Call, target: Option<&wire::BanTarget>) -> Result<BanTarget, Status> {
    let target = target.ok_or_else(|| Status::invalid_argument("target is missing"))?;
    let target = BanTarget::try_from(target).map_err(|error| Status::invalid_argument(error.to_string()))?;
    if target == BanTarget::Tenant {
        call.require(Permission::Operate)?;
    }
    Ok(target)
}

fn is_there(state: &State, tenant: &TenantName, target: &BanTarget) -> Result<(), Status> {
    require_tenant(state, tenant)?;
    // What was banned may be gone by now, and is banned still.
    if state.ban(tenant, target).is_some() {
        return Ok(());
    }
    match target {
        BanTarget::Agent(agent) => require(state, &ResourceId::agent(tenant, agent)),
        BanTarget::Server(server) => require(state, &ResourceId::server(tenant, server)),
        BanTarget::Key(id) if state.record(&RecordKey::of(tenant, RecordKind::AgentKey, id)).is_none() => {
            Err(Status::not_found(format!(
                "tenant {tenant} has no key {id}; `gantry key ls --tenant {tenant}` lists its keys"
            )))
        }
        BanTarget::Key(_) | BanTarget::Session(_) | BanTarget::Tenant => Ok(()),
    }
}

async fn propose(call: &Call, command: Command) -> Result<Revision, Status> {
    let committed = call.propose(call.guarded(command)).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(committed.revision),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}
