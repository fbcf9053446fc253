//! Issuers of tokens by which admins prove themselves.
//!
//! Always holds: what is stored can be used on every member.

use gantry_control_state::{Command, Outcome};
use gantry_model::admin_issuer::AdminIssuer;
use gantry_model::enrolment::EnrolmentChange;
use gantry_model::{Name, Revision};
use gantry_wire::admin_v1::{
    DeleteAdminIssuerRequest, DeleteAdminIssuerResponse, ListAdminIssuersResponse, PutAdminIssuerRequest,
    PutAdminIssuerResponse,
};
use tonic::Status;

use super::call::Call;
use super::rejection::{parse, refused};
use crate::access::federation;

pub(super) async fn put(
    call: &Call,
    request: &PutAdminIssuerRequest,
) -> Result<PutAdminIssuerResponse, Status> {
    let issuer = request.issuer.as_ref().ok_or_else(|| Status::invalid_argument("issuer is missing"))?;
    let issuer = AdminIssuer::try_from(issuer);
    let issuer = issuer.map_err(|error| Status::invalid_argument(format!("the issuer: {error}")))?;
    federation::check(&issuer).map_err(|error| Status::invalid_argument(format!("the issuer: {error}")))?;
    let revision = change(call, EnrolmentChange::PutAdminIssuer(issuer)).await?;
    Ok(PutAdminIssuerResponse { revision: revision.0 })
}

pub(super) fn list(call: &Call) -> ListAdminIssuersResponse {
    let view = call.view();
    let issuers = view.state.cluster().map_or(&[][..], |cluster| &cluster.enrolment.admin_issuers);
    ListAdminIssuersResponse { revision: view.revision.0, issuers: issuers.iter().map(Into::into).collect() }
}

pub(super) async fn delete(
    call: &Call,
    request: &DeleteAdminIssuerRequest,
) -> Result<DeleteAdminIssuerResponse, Status> {
    let name: Name = parse("issuer", &request.name)?;
    let revision = change(call, EnrolmentChange::DeleteAdminIssuer(name)).await?;
    Ok(DeleteAdminIssuerResponse { revision: revision.0 })
}

async fn change(call: &Call, change: EnrolmentChange) -> Result<Revision, Status> {
    let committed = call.propose(Command::ChangeEnrolment(change)).await?;
    match committed.outcome {
        Outcome::Done(_) => Ok(committed.revision),
        Outcome::Refused(refusals) => Err(refused(&refusals)),
    }
}
