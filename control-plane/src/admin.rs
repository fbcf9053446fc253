//! The admin service (`admin.proto`): one file per subject, each a function from request to response.
//!
//! Always holds: a request is checked whole before anything is proposed; a refused one changes nothing; a write whose
//! outcome is not known is answered as unknown, never as failed; no answer holds a stored secret.
//!
//! Who calls was asked before a call comes here (`access/gate.rs`), and every answer is worked out from a [`call::Call`],
//! which shows no more than its caller may see.

mod admins;
mod apply;
mod approvals;
mod authorities;
mod backup;
mod call;
mod catalog;
mod certificates;
mod credential;
mod endpoints;
mod enrolment;
mod issuers;
mod keys;
mod members;
mod names;
mod node_keys;
mod patterns;
mod policy;
mod read;
mod records;
mod rejection;
mod revoke;
mod rollout;
mod scan;
mod status;
mod subject;
mod tools;

use std::pin::Pin;
use std::sync::Arc;

use gantry_wire::admin_v1::admin_server::Admin;
use gantry_wire::admin_v1::*;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::plane::Plane;
use call::Call;
use subject::Asked;

/// The parts of a backup.
type BackupStream = Pin<Box<dyn Stream<Item = Result<BackupResponse, Status>> + Send>>;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct AdminService {
    plane: Arc<Plane>,
}

impl AdminService {
    pub(crate) fn new(plane: Arc<Plane>) -> AdminService {
        AdminService { plane }
    }

    /// Lets a call in once this member has applied whatever was acknowledged before it, here or elsewhere.
    async fn enter<Q: Asked>(&self, request: Request<Q>) -> Result<(Call, Q), Status> {
        call::caught_up(&self.plane).await?;
        Call::enter(&self.plane, request)
    }

    /// Lets a call in that needs no quorum: what its caller may is as this member knows it, which may be behind.
    fn enter_at_once<Q: Asked>(&self, request: Request<Q>) -> Result<(Call, Q), Status> {
        let (call, request) = Call::enter(&self.plane, request)?;
        // INVARIANT: nothing is changed by the word of a state that may be behind.
        assert!(call.may_be_behind(), "a call that changes something has to catch up first");
        Ok((call, request))
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type BackupStream = BackupStream;
    type TailRecordsStream = ReceiverStream<Result<TailRecordsResponse, Status>>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        apply::apply(&call, request).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        apply::delete(&call, request).await.map(Response::new)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        read::get(&call, &request).map(Response::new)
    }

    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        keys::create(&call, request).await.map(Response::new)
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        keys::list(&call, &request).map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        keys::revoke(&call, request).await.map(Response::new)
    }

    async fn revoke(&self, request: Request<RevokeRequest>) -> Result<Response<RevokeResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        revoke::revoke(&call, request).await.map(Response::new)
    }

    async fn list_revocations(
        &self,
        request: Request<ListRevocationsRequest>,
    ) -> Result<Response<ListRevocationsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        revoke::list(&call, &request).map(Response::new)
    }

    async fn lift_revocation(
        &self,
        request: Request<LiftRevocationRequest>,
    ) -> Result<Response<LiftRevocationResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        revoke::lift(&call, request).await.map(Response::new)
    }

    async fn put_credential(
        &self,
        request: Request<PutCredentialRequest>,
    ) -> Result<Response<PutCredentialResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        credential::put(&call, request).await.map(Response::new)
    }

    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        policy::check(&call, request).await.map(Response::new)
    }

    async fn list_tools(
        &self,
        request: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        tools::list(&call, request).await.map(Response::new)
    }

    async fn list_quarantine(
        &self,
        request: Request<ListQuarantineRequest>,
    ) -> Result<Response<ListQuarantineResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        catalog::list(&call, &request).await.map(Response::new)
    }

    async fn scan_catalogs(
        &self,
        request: Request<ScanCatalogsRequest>,
    ) -> Result<Response<ScanCatalogsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        scan::scan(&call, &request).await.map(Response::new)
    }

    async fn approve_catalog(
        &self,
        request: Request<ApproveCatalogRequest>,
    ) -> Result<Response<ApproveCatalogResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        catalog::approve(&call, &request).await.map(Response::new)
    }

    async fn rotate_node_keys(
        &self,
        request: Request<RotateNodeKeysRequest>,
    ) -> Result<Response<RotateNodeKeysResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        node_keys::rotate(&call, &request).await.map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        enrolment::create_token(&call, &request).await.map(Response::new)
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        enrolment::revoke(&call, &request).await.map(Response::new)
    }

    async fn tail_records(
        &self,
        request: Request<TailRecordsRequest>,
    ) -> Result<Response<Self::TailRecordsStream>, Status> {
        let (call, request) = self.enter_at_once(request)?;
        records::tail(call, &request).map(Response::new)
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        let (call, request) = self.enter_at_once(request)?;
        records::explain(&call, &request).map(Response::new)
    }

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        let (call, _) = self.enter_at_once(request)?;
        Ok(Response::new(status::status(&call).await))
    }

    async fn wait_applied(
        &self,
        request: Request<WaitAppliedRequest>,
    ) -> Result<Response<WaitAppliedResponse>, Status> {
        let (call, request) = self.enter_at_once(request)?;
        status::wait_applied(&call, &request).await.map(Response::new)
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let (call, _) = self.enter_at_once(request)?;
        Ok(Response::new(members::list(&call).await))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        members::change(&call, request).await.map(Response::new)
    }

    async fn who_am_i(&self, request: Request<WhoAmIRequest>) -> Result<Response<AdminInfo>, Status> {
        let (call, _) = self.enter_at_once(request)?;
        admins::whoami(&call).map(Response::new)
    }

    async fn create_admin(
        &self,
        request: Request<CreateAdminRequest>,
    ) -> Result<Response<AdminTokenResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        admins::create(&call, &request).await.map(Response::new)
    }

    async fn list_admins(
        &self,
        request: Request<ListAdminsRequest>,
    ) -> Result<Response<ListAdminsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        admins::list(&call, &request).map(Response::new)
    }

    async fn rotate_admin_token(
        &self,
        request: Request<RotateAdminTokenRequest>,
    ) -> Result<Response<AdminTokenResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        admins::rotate(&call, &request).await.map(Response::new)
    }

    async fn delete_admin(
        &self,
        request: Request<DeleteAdminRequest>,
    ) -> Result<Response<DeleteAdminResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        admins::delete(&call, &request).await.map(Response::new)
    }

    async fn backup(&self, request: Request<BackupRequest>) -> Result<Response<BackupStream>, Status> {
        let (call, request) = self.enter(request).await?;
        backup::backup(&call, &request).map(Response::new)
    }

    async fn certify_admin(
        &self,
        request: Request<CertifyAdminRequest>,
    ) -> Result<Response<CertifyAdminResponse>, Status> {
        // Nothing is changed, but by the word of a state that is behind a token might still count.
        let (call, request) = self.enter(request).await?;
        certificates::certify(&call, &request).map(Response::new)
    }

    async fn put_admin_issuer(
        &self,
        request: Request<PutAdminIssuerRequest>,
    ) -> Result<Response<PutAdminIssuerResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        issuers::put(&call, &request).await.map(Response::new)
    }

    async fn list_admin_issuers(
        &self,
        request: Request<ListAdminIssuersRequest>,
    ) -> Result<Response<ListAdminIssuersResponse>, Status> {
        let (call, _) = self.enter(request).await?;
        Ok(Response::new(issuers::list(&call)))
    }

    async fn delete_admin_issuer(
        &self,
        request: Request<DeleteAdminIssuerRequest>,
    ) -> Result<Response<DeleteAdminIssuerResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        issuers::delete(&call, &request).await.map(Response::new)
    }

    async fn begin_rollout(
        &self,
        request: Request<BeginRolloutRequest>,
    ) -> Result<Response<BeginRolloutResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        rollout::begin(&call, request).await.map(Response::new)
    }

    async fn list_rollouts(
        &self,
        request: Request<ListRolloutsRequest>,
    ) -> Result<Response<ListRolloutsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        rollout::list(&call, &request).map(Response::new)
    }

    async fn change_rollout(
        &self,
        request: Request<ChangeRolloutRequest>,
    ) -> Result<Response<ChangeRolloutResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        rollout::change(&call, request).await.map(Response::new)
    }

    async fn list_approvals(
        &self,
        request: Request<ListApprovalsRequest>,
    ) -> Result<Response<ListApprovalsResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        approvals::list(&call, &request).map(Response::new)
    }

    async fn vote_on_approval(
        &self,
        request: Request<VoteOnApprovalRequest>,
    ) -> Result<Response<VoteOnApprovalResponse>, Status> {
        let (call, request) = self.enter(request).await?;
        approvals::vote(&call, request).await.map(Response::new)
    }
}
