//! Certificates for admins.
//!
//! Always holds: a certificate hangs on a token of its admin, whether anybody was told that or not, and so ends with that
//! token, by its time, a rotation or the end of the admin; so does each that follows it. Nobody outlasts by certificates
//! what he was given. The key never comes here.

use std::time::{Duration, SystemTime};

use gantry_control_state::State;
use gantry_model::Name;
use gantry_model::admin::AdminToken;
use gantry_model::key::KeyId;
use gantry_node::tls::Peer;
use gantry_wire::admin_v1::{AdminCertificate, CertifyAdminRequest, CertifyAdminResponse};
use tonic::Status;

use super::call::Call;
use crate::access::identity::Proof;
use crate::ca::{Ca, IssueError, LEAF_LIFE};
use crate::plane::now_ms;

/// Shortest life that may be asked for: less than that is over before it is used on a machine whose clock is behind.
const LIFE_MIN: Duration = Duration::from_secs(30);

pub(super) fn certify(call: &Call, request: &CertifyAdminRequest) -> Result<CertifyAdminResponse, Status> {
    let identity = call.identity();
    let state = call.plane.consensus.feed().latest().state;
    let id = match &identity.proof {
        Proof::Token(id) | Proof::Certificate { token: Some(id), .. } => *id,
        Proof::Root => {
            return Err(Status::failed_precondition(
                "the start token has no certificates; make an admin with `gantry admin create NAME --request FILE`",
            ));
        }
        Proof::Federated(_) => {
            return Err(Status::failed_precondition(
                "who calls by the token of an issuer has no certificates; `gantry login` has the next token made",
            ));
        }
        Proof::Certificate { token: None, .. } => {
            return Err(Status::failed_precondition(
                "the certificate is of an organisation's authority, and is renewed by that",
            ));
        }
    };
    let token = state.admin(&identity.name);
    let token = token.and_then(|admin| admin.tokens.iter().find(|token| token.id == id));
    let token = token.ok_or_else(|| Status::unauthenticated("the token does not count any more"))?;
    let life = match Duration::from_secs(request.expires_in_seconds) {
        Duration::ZERO => LEAF_LIFE,
        life if (LIFE_MIN..=LEAF_LIFE).contains(&life) => life,
        _ => {
            let hours = LEAF_LIFE.as_secs() / 3_600;
            let told = format!("a certificate counts for {} s to {hours} h", LIFE_MIN.as_secs());
            return Err(Status::invalid_argument(told));
        }
    };
    let certificate = sign(call, &state, (&identity.name, token), &request.certificate_request, life)?;
    let name = identity.name.to_string();
    Ok(CertifyAdminResponse { name, token_id: id.to_string(), certificate: Some(certificate) })
}

/// A certificate that hangs on `token`, for `life` at most.
pub(super) fn sign(
    call: &Call,
    state: &State,
    (name, token): (&Name, &AdminToken),
    request: &[u8],
    life: Duration,
) -> Result<AdminCertificate, Status> {
    let left = token.expires_at_ms.map(|end| Duration::from_millis(end.saturating_sub(now_ms())));
    let life = life.min(call.plane.certificate_life).min(left.unwrap_or(Duration::MAX));
    let ca = Ca::open(&call.plane.vault, state).map_err(|error| broken(&error, name))?;
    let id: KeyId = token.id;
    let chain = ca.with_life(life).issue_to_admin(request, (name, id), SystemTime::now());
    let chain = chain.map_err(|error| match error {
        IssueError::Request(_) | IssueError::TooLarge(_) | IssueError::KeyKind => {
            Status::invalid_argument(error.to_string())
        }
        IssueError::OtherCluster(_) | IssueError::Crypto(_) | IssueError::Sign(_) => broken(&error, name),
    })?;
    let leaf = chain.first().and_then(|leaf| Peer::read(leaf).ok());
    let leaf = leaf.ok_or_else(|| Status::internal("the certificate that was made cannot be read"))?;
    tracing::info!(%name, token = %id, serial = %leaf.serial, "an admin was certified");
    let bytes: Vec<Vec<u8>> = chain.iter().map(|certificate| certificate.to_vec()).collect();
    let authorities = bytes.last().cloned().into_iter().collect();
    Ok(AdminCertificate { chain: bytes, authorities, expires_at_ms: leaf.expires_at_ms })
}

fn broken(error: &(dyn std::error::Error + 'static), name: &Name) -> Status {
    tracing::error!(error, %name, "an admin was not certified");
    Status::internal("this control plane cannot certify anybody; its log says why")
}
