//! The kill switch: making, listing and lifting bans.
//!
//! Always holds: what is banned exists, as far as that can be known here (sessions are known to nodes only, users to their providers); who is
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
use crate::audit::ADMIN_KIND;
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
        BanTarget::Agent(_) | BanTarget::User(_) | BanTarget::Server(_) | BanTarget::Tenant => None,
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
    // Another's may have been made at the same revision, just before.
    let in_force = state.ban(&ban.tenant, &ban.target).map_or(&ban, AsRef::as_ref);
    Ok(RevokeResponse {
        revision: stored.map_or(revision, |stored| stored.min(revision)).0,
        already: *in_force != ban,
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

/// The bans that are in force now and would refuse the call of an audit record; none refuses a call of an admin.
pub(super) fn refusing(state: &State, record: &[u8], now_ms: u64) -> Vec<wire::Ban> {
    /// What of a record bans are found by.
    #[derive(Deserialize)]
    struct Called {
        kind: Option<String>,
        tenant: Option<String>,
        agent: Option<String>,
        user: Option<String>,
        key_id: Option<String>,
        session: Option<String>,
        server: Option<String>,
    }
    let Ok(called) = serde_json::from_slice::<Called>(record) else { return Vec::new() };
    if called.kind.as_deref() == Some(ADMIN_KIND) {
        return Vec::new();
    }
    let Some(tenant) = called.tenant.and_then(|tenant| tenant.parse::<TenantName>().ok()) else {
        return Vec::new();
    };
    let targets = [
        Some(BanTarget::Tenant),
        called.agent.and_then(|agent| Some(BanTarget::Agent(agent.parse().ok()?))),
        called.user.and_then(|user| Some(BanTarget::User(user.parse().ok()?))),
        called.key_id.and_then(|key| Some(BanTarget::Key(key.parse().ok()?))),
        called.session.and_then(|session| Some(BanTarget::Session(session.parse().ok()?))),
        called.server.and_then(|server| Some(BanTarget::Server(server.parse().ok()?))),
    ];
    let bans = targets.iter().flatten().filter_map(|target| state.ban(&tenant, target));
    bans.filter(|ban| !ban.is_past(now_ms)).map(|ban| ban.as_ref().into()).collect()
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
    let somewhere = |id: &ResourceId| if state.is_staged(id) { Ok(()) } else { require(state, id) };
    match target {
        BanTarget::Agent(agent) => somewhere(&ResourceId::agent(tenant, agent)),
        BanTarget::User(user) => somewhere(&ResourceId::provider(tenant, user.provider())),
        BanTarget::Server(server) => somewhere(&ResourceId::server(tenant, server)),
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

#[cfg(test)]
mod tests {
    use gantry_model::document;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_record_is_told_with_the_bans_that_would_refuse_its_call_now() {
        let mut state = State::default();
        let tenant: TenantName = "acme".parse().expect("a name");
        let set = [("Tenant", "acme"), ("Agent", "bot")].map(|(kind, name)| {
            document::parse(json!({"kind": kind, "tenant": "acme", "name": name})).expect("a document")
        });
        state.apply(Revision(1), &Command::Apply(set.to_vec()));
        let session = "000102030405060708090a0b";
        let targets = [
            (BanTarget::Tenant, None),
            (BanTarget::Agent("bot".parse().expect("a name")), None),
            (BanTarget::Session(session.parse().expect("an id")), Some(100)),
        ];
        for (target, until_ms) in targets {
            let (by, reason) = ("ann".to_owned(), String::new());
            let ban = Ban { tenant: tenant.clone(), target, by, reason, at_ms: 1, until_ms };
            state.apply(Revision(2), &Command::PutBan(ban));
        }
        let told = |record: serde_json::Value, now_ms| -> Vec<String> {
            let bans = refusing(&state, record.to_string().as_bytes(), now_ms);
            let name = |ban: wire::Ban| {
                BanTarget::try_from(&ban.target.expect("a target")).map(|ban| ban.key_name())
            };
            bans.into_iter().map(|ban| name(ban).expect("a target")).collect()
        };
        let call = json!({"tenant": "acme", "agent": "bot", "session": session, "key_id": "0".repeat(16)});
        let all = ["tenant", "agent/bot", &format!("session/{session}")].map(str::to_owned);
        assert_eq!(told(call.clone(), 99), all);
        assert_eq!(told(call, 100), all[..2], "what is past refuses nothing");
        assert_eq!(told(json!({"kind": "admin", "tenant": "acme"}), 1), [""; 0], "an admin is no agent");
        assert_eq!(told(json!({"tenant": "globex", "agent": "bot"}), 1), [""; 0]);
    }
}
