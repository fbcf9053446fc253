//! Admins: who there is, making one, giving a new token, ending one.
//!
//! Always holds: a token is in the answer that makes it and nowhere else, or in none where a certificate hangs on it;
//! what is stored is a hash of its secret. Who
//! makes one for himself, and may not make admins, gets none that counts longer than what he has proved himself with.

use std::time::Duration;

use gantry_control_state::{Command, Outcome, State};
use gantry_model::admin::{Admin, AdminChange, AdminToken, PresentedToken, Role};
use gantry_model::key::{KEY_ID_BYTES, KEY_SECRET_BYTES, KeyId};
use gantry_model::record::RecordKey;
use gantry_model::{Name, Revision, Secret};
use gantry_wire::admin_v1::{
    AdminInfo, AdminTokenInfo, AdminTokenResponse, CreateAdminRequest, DeleteAdminRequest,
    DeleteAdminResponse, ListAdminsRequest, ListAdminsResponse, RotateAdminTokenRequest,
};
use tonic::Status;
use zeroize::Zeroizing;

use super::call::Call;
use super::certificates;
use super::keys::expiry;
use super::rejection::{parse, parse_or_every, refused};
use crate::access::identity::{Identity, Proof};
use crate::access::rules::Permission;
use crate::access::sha256;
use crate::ca::LEAF_LIFE;
use crate::plane::now_ms;
use crate::vault::{CryptoError, fill_random};

/// Longest time that older tokens count beside a new one. Who needs longer rotates when the machines are ready.
const GRACE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// What a new token is, to its bearer and to the state.
struct NewToken {
    presented: PresentedToken,
    stored: AdminToken,
}

pub(super) async fn create(call: &Call, request: &CreateAdminRequest) -> Result<AdminTokenResponse, Status> {
    let name: Name = parse("admin", &request.name)?;
    let role = |text: &String| parse::<Role>("role", text);
    let mut roles = request.roles.iter().map(role).collect::<Result<Vec<_>, _>>()?;
    roles.sort();
    roles.dedup();
    let now_ms = now_ms();
    let token = NewToken::make(&name, now_ms, request.expires_in_seconds)?;
    let answer = token.answer(call, &name, &request.certificate_request)?;
    let admin = Admin { name, roles, tokens: vec![token.stored.clone()], created_at_ms: now_ms };
    let revision = change(call, AdminChange::Create(admin)).await?;
    Ok(AdminTokenResponse { revision: revision.0, ..answer })
}

pub(super) async fn rotate(
    call: &Call,
    request: &RotateAdminTokenRequest,
) -> Result<AdminTokenResponse, Status> {
    let own = &call.identity().name;
    let name = parse_or_every::<Name>("admin", &request.name)?.unwrap_or_else(|| own.clone());
    let (asked_with, end_at_ms) = match call.require(Permission::Administer) {
        Ok(()) => (None, None),
        // Whoever may not is told so whether there is one of that name or not.
        Err(denied) if name != *own => return Err(denied),
        Err(_) => bounds(call),
    };
    let grace = Duration::from_secs(request.grace_seconds);
    if grace > GRACE_MAX {
        let days = GRACE_MAX.as_secs() / (24 * 60 * 60);
        return Err(Status::invalid_argument(format!("older tokens count for {days} days more at most")));
    }
    let now_ms = now_ms();
    let mut token = NewToken::make(&name, now_ms, request.expires_in_seconds)?;
    token.stored.expires_at_ms = [token.stored.expires_at_ms, end_at_ms].into_iter().flatten().min();
    let older_end_at_ms = now_ms.saturating_add(request.grace_seconds.saturating_mul(1_000));
    let answer = token.answer(call, &name, &request.certificate_request)?;
    let stored = token.stored.clone();
    let rotation = AdminChange::Rotate { name, token: stored, older_end_at_ms, now_ms, asked_with };
    let revision = change(call, rotation).await?;
    Ok(AdminTokenResponse { revision: revision.0, ..answer })
}

pub(super) async fn delete(call: &Call, request: &DeleteAdminRequest) -> Result<DeleteAdminResponse, Status> {
    let name: Name = parse("admin", &request.name)?;
    let revision = change(call, AdminChange::Delete(name)).await?;
    Ok(DeleteAdminResponse { revision: revision.0 })
}

pub(super) fn list(call: &Call, request: &ListAdminsRequest) -> Result<ListAdminsResponse, Status> {
    let name: Option<Name> = parse_or_every("admin", &request.name)?;
    let view = call.view();
    let asked_for = |admin: &&std::sync::Arc<Admin>| name.as_ref().is_none_or(|name| admin.name == *name);
    let info = |admin: &std::sync::Arc<Admin>| {
        let record = view.state.record(&RecordKey::admin(&admin.name));
        info(admin, record.map_or(Revision::NONE, |record| record.revision))
    };
    let admins: Vec<AdminInfo> = view.state.admins().filter(asked_for).map(info).collect();
    match &name {
        Some(name) if admins.is_empty() => {
            Err(Status::not_found(format!("there is no admin {name}; `gantry admin ls` lists them")))
        }
        _ => Ok(ListAdminsResponse { revision: view.revision.0, admins }),
    }
}

/// Also for an admin who may do nothing else.
pub(super) fn whoami(call: &Call) -> Result<AdminInfo, Status> {
    own_info(&call.plane.consensus.feed().latest().state, call.identity())
}

fn own_info(state: &State, identity: &Identity) -> Result<AdminInfo, Status> {
    let own = match (&identity.proof, state.admin(&identity.name)) {
        (Proof::Root, _) => AdminInfo {
            name: identity.name.to_string(),
            roles: vec![Role::ClusterAdmin.to_string()],
            ..AdminInfo::default()
        },
        (Proof::Federated(federated), _) => AdminInfo {
            name: identity.name.to_string(),
            roles: federated.roles(state, now_ms() / 1_000)?.iter().map(ToString::to_string).collect(),
            ..AdminInfo::default()
        },
        (Proof::Token(_) | Proof::Certificate { .. }, Some(admin)) => info(admin, Revision::NONE),
        // He was deleted after he was let in.
        (Proof::Token(_) | Proof::Certificate { .. }, None) => {
            return Err(Status::unauthenticated("the caller is no admin any more; ask a cluster-admin"));
        }
    };
    Ok(AdminInfo { proof: identity.proof.to_string(), ..own })
}

/// What binds a new token of whoever makes it for himself: the token that he has shown, or that his certificate hangs on,
/// and when his proof ends.
fn bounds(call: &Call) -> (Option<KeyId>, Option<u64>) {
    let Identity { name, proof } = call.identity();
    match proof {
        Proof::Root => (None, None),
        Proof::Federated(federated) => (None, Some(federated.expires_at_ms())),
        Proof::Token(id) => {
            let state = call.plane.consensus.feed().latest().state;
            let admin = state.admin(name);
            let shown = admin.and_then(|admin| admin.tokens.iter().find(|token| token.id == *id));
            (Some(*id), shown.and_then(|token| token.expires_at_ms))
        }
        Proof::Certificate { expires_at_ms, token, .. } => (*token, Some(*expires_at_ms)),
    }
}

async fn change(call: &Call, change: AdminChange) -> Result<Revision, Status> {
    let committed = call.propose(call.guarded(Command::ChangeAdmin(change))).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(committed.revision),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}

fn info(admin: &Admin, revision: Revision) -> AdminInfo {
    let token = |token: &AdminToken| AdminTokenInfo {
        id: token.id.to_string(),
        created_at_ms: token.created_at_ms,
        expires_at_ms: token.expires_at_ms.unwrap_or(0),
    };
    AdminInfo {
        name: admin.name.to_string(),
        roles: admin.roles.iter().map(ToString::to_string).collect(),
        created_at_ms: admin.created_at_ms,
        tokens: admin.tokens.iter().map(token).collect(),
        revision: revision.0,
        proof: String::new(),
    }
}

impl NewToken {
    fn make(name: &Name, now_ms: u64, expires_in_seconds: u64) -> Result<NewToken, Status> {
        let expires_at_ms = match expires_in_seconds {
            0 => None,
            seconds => Some(expiry("a token", now_ms, seconds)?),
        };
        let broken = |error: CryptoError| Status::internal(error.to_string());
        let mut id = [0; KEY_ID_BYTES];
        fill_random(&mut id).map_err(broken)?;
        let mut secret = Zeroizing::new([0; KEY_SECRET_BYTES]);
        fill_random(secret.as_mut()).map_err(broken)?;
        let id = KeyId(id);
        let hash = sha256(secret.as_ref());
        let presented = PresentedToken { name: name.clone(), id, secret: Secret::new(*secret) };
        Ok(NewToken { presented, stored: AdminToken { id, hash, created_at_ms: now_ms, expires_at_ms } })
    }

    /// What its bearer is told: the token, or a certificate for his key that hangs on it.
    fn answer(&self, call: &Call, name: &Name, request: &[u8]) -> Result<AdminTokenResponse, Status> {
        let told = AdminTokenResponse {
            id: self.stored.id.to_string(),
            expires_at_ms: self.stored.expires_at_ms.unwrap_or(0),
            ..AdminTokenResponse::default()
        };
        if request.is_empty() {
            return Ok(AdminTokenResponse { token: self.presented.to_text().expose().clone(), ..told });
        }
        let state = call.plane.consensus.feed().latest().state;
        let certificate = certificates::sign(call, &state, (name, &self.stored), request, LEAF_LIFE)?;
        Ok(AdminTokenResponse { certificate: Some(certificate), ..told })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_shown_the_start_token_is_answered_as_root() {
        let (state, proofs) = (State::default(), [Proof::Root, Proof::Token(KeyId([1; 8]))]);
        let told = proofs.map(|proof| {
            let identity = Identity { name: "alice".parse().expect("a name"), proof };
            own_info(&state, &identity).map(|own| own.roles).map_err(|status| status.code())
        });
        assert_eq!(told, [Ok(vec!["cluster-admin".to_owned()]), Err(tonic::Code::Unauthenticated)]);
    }
}
