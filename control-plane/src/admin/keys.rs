//! Agents' keys: making, listing, revoking.
//!
//! Always holds: a key's secret is in the answer to its creation and nowhere else; what is stored is its keyed hash.

use gantry_control_state::{Command, Outcome};
use gantry_model::key::{KEY_ID_BYTES, KEY_SECRET_BYTES, KeyId, PresentedKey};
use gantry_model::record::RecordValue;
use gantry_model::{self as model, AgentKey, AgentName, ResourceId, Secret, TenantName};
use gantry_wire::admin_v1::{
    CreateKeyRequest, CreateKeyResponse, KeyInfo, ListKeysRequest, ListKeysResponse, RevokeKeyRequest,
    RevokeKeyResponse, RevokeRequest,
};
use gantry_wire::resource_v1::BanTarget;
use gantry_wire::resource_v1::ban_target::Target;
use tonic::Status;
use zeroize::Zeroizing;

use super::call::Call;
use super::rejection::{parse, parse_or_every, refused, require, require_tenant};
use super::revoke;
use crate::plane::now_ms;
use crate::vault::fill_random;

pub(super) async fn create(call: &Call, request: CreateKeyRequest) -> Result<CreateKeyResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let agent: AgentName = parse("agent", &request.agent)?;
    require(&call.view().state, &ResourceId::agent(&tenant, &agent))?;
    let created_at_ms = now_ms();
    let expires_at_ms = match request.expires_in_seconds {
        0 => None,
        seconds => Some(expiry("a key", created_at_ms, seconds)?),
    };
    let presented = random_key().map_err(|error| Status::internal(error.to_string()))?;
    let hash = call.plane.vault.hash_agent_key(&presented.secret);
    let key = AgentKey { tenant, agent, id: presented.id, hash, created_at_ms, expires_at_ms };
    let committed = call.propose(call.guarded(Command::PutKey(key))).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(CreateKeyResponse {
            revision: committed.revision.0,
            id: presented.id.to_string(),
            key: presented.to_text().expose().clone(),
        }),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}

pub(super) fn list(call: &Call, request: &ListKeysRequest) -> Result<ListKeysResponse, Status> {
    let tenant: TenantName = parse("tenant", &request.tenant)?;
    let agent: Option<AgentName> = parse_or_every("agent", &request.agent)?;
    let state = call.view().state;
    match &agent {
        Some(agent) => require(&state, &ResourceId::agent(&tenant, agent))?,
        None => require_tenant(&state, &tenant)?,
    }
    let keys = state
        .tenant_records(&tenant)
        .filter_map(|record| match &record.value {
            RecordValue::AgentKey(key) => Some(key),
            _ => None,
        })
        .filter(|key| agent.as_ref().is_none_or(|agent| key.agent == *agent))
        .map(|key| KeyInfo {
            tenant: key.tenant.to_string(),
            agent: key.agent.to_string(),
            id: key.id.to_string(),
            created_at_ms: key.created_at_ms,
            expires_at_ms: key.expires_at_ms.unwrap_or(0),
            revoked_at_ms: state.ban(&tenant, &model::BanTarget::Key(key.id)).map_or(0, |ban| ban.at_ms),
        })
        .collect();
    Ok(ListKeysResponse { keys })
}

pub(super) async fn revoke(call: &Call, request: RevokeKeyRequest) -> Result<RevokeKeyResponse, Status> {
    let target = BanTarget { target: Some(Target::Key(request.id)) };
    let request = RevokeRequest { tenant: request.tenant, target: Some(target), reason: String::new() };
    let revoked = revoke::revoke(call, request).await?;
    Ok(RevokeKeyResponse { revision: revoked.revision })
}

fn random_key() -> Result<PresentedKey, crate::vault::CryptoError> {
    let mut id = [0; KEY_ID_BYTES];
    fill_random(&mut id)?;
    let mut secret = Zeroizing::new([0; KEY_SECRET_BYTES]);
    fill_random(secret.as_mut())?;
    Ok(PresentedKey { id: KeyId(id), secret: Secret::new(*secret) })
}

/// When something ends that is made now, in milliseconds since 1970.
pub(super) fn expiry(what: &str, created_at_ms: u64, seconds: u64) -> Result<u64, Status> {
    let expires_at_ms = seconds.checked_mul(1000).and_then(|ms| created_at_ms.checked_add(ms));
    expires_at_ms.ok_or_else(|| Status::invalid_argument(format!("{what} cannot live for {seconds} seconds")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expiry_beyond_all_time_is_refused() {
        assert_eq!(expiry("a key", 5, 2).ok(), Some(2005));
        let refused = |created_at_ms, seconds| {
            expiry("a token", created_at_ms, seconds).map_err(|status| status.message().to_owned())
        };
        let most = u64::MAX;
        assert_eq!(refused(5, most), Err(format!("a token cannot live for {most} seconds")));
        assert_eq!(refused(most, 1), Err("a token cannot live for 1 seconds".to_owned()));
    }
}
