//! Join tokens, and certificates that are taken back.
//!
//! Always holds: a token's text is in one answer and nowhere else; a revocation lasts until every certificate that it
//! means has ended.

use std::time::Duration;

use gantry_control_state::{Command, Outcome};
use gantry_model::enrolment::{
    EnrolmentChange, JOIN_TOKEN_ID_BYTES, JoinRole, JoinToken, JoinTokenId, Revocation, Revoked,
};
use gantry_model::identity::{PeerName, Serial};
use gantry_model::nearest::nearest;
use gantry_model::{Kind, Labels, Name, ResourceId, Revision, Secret};
use gantry_node::tls::Fingerprint;
use gantry_node::token::{self, JOIN_SECRET_BYTES};
use gantry_wire::WireError;
use gantry_wire::admin_v1::create_join_token_request::Role;
use gantry_wire::admin_v1::revoke_certificate_request::Subject;
use gantry_wire::admin_v1::{
    CreateJoinTokenRequest, CreateJoinTokenResponse, RevokeCertificateRequest, RevokeCertificateResponse,
};
use gantry_wire::resource_v1::NodeLabels;
use tonic::Status;

use super::call::Call;
use super::rejection::{parse, parse_or_every, refused};
use crate::ca::{CLOCK_SKEW, Ca, LEAF_LIFE};
use crate::enrol::hash_of;
use crate::plane::now_ms;
use crate::vault::fill_random;

/// How long a join token is good when nobody says otherwise: to start a machine with it.
const LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Longest life of a join token: a week, for machines that are delivered. One that lies about is found sooner or later.
const LIFETIME_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);

pub(super) async fn create_token(
    call: &Call,
    request: &CreateJoinTokenRequest,
) -> Result<CreateJoinTokenResponse, Status> {
    let role = match &request.role {
        Some(Role::ControlPlane(_)) => JoinRole::ControlPlane,
        Some(Role::Node(node)) => JoinRole::Node {
            name: parse_or_every::<Name>("node", &node.name)?,
            labels: labels(call, node.labels.as_ref())?,
        },
        None => return Err(Status::invalid_argument("role is missing")),
    };
    let lifetime = match request.expires_in_seconds {
        0 => LIFETIME,
        seconds => Duration::from_secs(seconds),
    };
    if lifetime > LIFETIME_MAX {
        let days = LIFETIME_MAX.as_secs() / (24 * 60 * 60);
        return Err(Status::invalid_argument(format!("a join token is good for {days} days at most")));
    }
    let state = call.view().state;
    let ca = Ca::open(&call.plane.vault, &state).map_err(|error| broken(&error))?;
    let mut id = [0; JOIN_TOKEN_ID_BYTES];
    let mut secret = [0; JOIN_SECRET_BYTES];
    fill_random(&mut id).and_then(|()| fill_random(&mut secret)).map_err(|error| broken(&error))?;
    let handed = token::JoinToken {
        cluster: ca.cluster().clone(),
        id: JoinTokenId(id),
        secret: Secret::new(secret),
        authority: Fingerprint::of(ca.certificate()),
    };
    let now_ms = now_ms();
    let expires_at_ms = now_ms.saturating_add(u64::try_from(lifetime.as_millis()).unwrap_or(u64::MAX));
    let kept = JoinToken {
        id: handed.id,
        hash: hash_of(handed.secret.expose()),
        role,
        expires_at_ms,
        is_used: false,
    };
    let revision = change(call, EnrolmentChange::PutJoinToken { token: kept, now_ms }).await?;
    Ok(CreateJoinTokenResponse {
        revision: revision.0,
        id: handed.id.to_string(),
        token: handed.encode().expose().clone(),
        expires_at_ms,
    })
}

/// What a node is to hold. Its tenants have to be there: a name that was mistyped would be a node that serves nobody.
fn labels(call: &Call, labels: Option<&NodeLabels>) -> Result<Labels, Status> {
    let labels: Labels = labels
        .map(TryInto::try_into)
        .transpose()
        .map_err(|error: WireError| Status::invalid_argument(format!("the node's labels: {error}")))?
        .unwrap_or_default();
    let state = call.view().state;
    for tenant in &labels.tenants {
        if state.resource(&ResourceId::of_tenant(tenant)).is_none() {
            let names = state.names(tenant, Kind::Tenant);
            let near = nearest(tenant.as_str(), names.iter().map(String::as_str));
            let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
            return Err(Status::not_found(format!("there is no Tenant {tenant}{hint}")));
        }
    }
    Ok(labels)
}

pub(super) async fn revoke(
    call: &Call,
    request: &RevokeCertificateRequest,
) -> Result<RevokeCertificateResponse, Status> {
    let subject = match &request.subject {
        Some(Subject::Name(name)) => {
            let name = parse::<PeerName>("name", name)?;
            if name.cluster.as_str() != call.plane.vault.cluster_id() {
                return Err(Status::not_found(format!("{name} is of another cluster")));
            }
            Revoked::Name(name)
        }
        Some(Subject::Serial(serial)) => Revoked::Serial(Serial::new(serial)),
        None => return Err(Status::invalid_argument("subject is missing")),
    };
    let now_ms = now_ms();
    // Another member may have signed it, by a clock that is ahead.
    let life = u64::try_from((LEAF_LIFE + CLOCK_SKEW).as_millis()).unwrap_or(u64::MAX);
    let revocation = Revocation { subject, until_ms: now_ms.saturating_add(life) };
    let revision = change(call, EnrolmentChange::Revoke { revocation, now_ms }).await?;
    Ok(RevokeCertificateResponse { revision: revision.0 })
}

async fn change(call: &Call, change: EnrolmentChange) -> Result<Revision, Status> {
    let committed = call.propose(Command::ChangeEnrolment(change)).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(committed.revision),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}

fn broken(error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "no join token can be made");
    Status::internal("this control plane cannot make a join token; its log says why")
}
