//! The admin service (`admin.proto`): one file per subject, each a function from request to response.
//!
//! Always holds: a request is checked whole before anything is proposed; a refused one changes nothing; a write whose
//! outcome is not known is answered as unknown, never as failed; no answer holds a stored secret.
//!
//! The token was checked before a call comes here (`access.rs`).

mod apply;
mod catalog;
mod credential;
mod endpoints;
mod enrolment;
mod keys;
mod members;
mod names;
mod node_keys;
mod policy;
mod read;
mod records;
mod rejection;
mod status;
mod tools;

use std::sync::Arc;

use gantry_wire::admin_v1::admin_server::Admin;
use gantry_wire::admin_v1::*;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::plane::Plane;

/// The service.
#[derive(Debug, Clone)]
pub(crate) struct AdminService {
    plane: Arc<Plane>,
}

impl AdminService {
    pub(crate) fn new(plane: Arc<Plane>) -> AdminService {
        AdminService { plane }
    }

    /// The plane, once this member has applied whatever was acknowledged before the call, here or elsewhere.
    async fn current(&self) -> Result<&Arc<Plane>, Status> {
        match self.plane.consensus.catch_up().await {
            Ok(()) => Ok(&self.plane),
            Err(error) => Err(Status::unavailable(format!(
                "{error}; nothing was changed; `gantry cluster status` shows the members as this one sees them"
            ))),
        }
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    type TailRecordsStream = ReceiverStream<Result<TailRecordsResponse, Status>>;

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        apply::apply(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        apply::delete(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        read::get(self.current().await?, &request.into_inner()).map(Response::new)
    }

    async fn create_key(
        &self,
        request: Request<CreateKeyRequest>,
    ) -> Result<Response<CreateKeyResponse>, Status> {
        keys::create(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn list_keys(
        &self,
        request: Request<ListKeysRequest>,
    ) -> Result<Response<ListKeysResponse>, Status> {
        keys::list(self.current().await?, &request.into_inner()).map(Response::new)
    }

    async fn revoke_key(
        &self,
        request: Request<RevokeKeyRequest>,
    ) -> Result<Response<RevokeKeyResponse>, Status> {
        keys::revoke(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn put_credential(
        &self,
        request: Request<PutCredentialRequest>,
    ) -> Result<Response<PutCredentialResponse>, Status> {
        credential::put(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn check_policy(
        &self,
        request: Request<CheckPolicyRequest>,
    ) -> Result<Response<CheckPolicyResponse>, Status> {
        policy::check(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn list_tools(
        &self,
        request: Request<ListToolsRequest>,
    ) -> Result<Response<ListToolsResponse>, Status> {
        tools::list(self.current().await?, request.into_inner()).await.map(Response::new)
    }

    async fn list_quarantine(
        &self,
        request: Request<ListQuarantineRequest>,
    ) -> Result<Response<ListQuarantineResponse>, Status> {
        catalog::list(self.current().await?, &request.into_inner()).map(Response::new)
    }

    async fn approve_catalog(
        &self,
        request: Request<ApproveCatalogRequest>,
    ) -> Result<Response<ApproveCatalogResponse>, Status> {
        catalog::approve(self.current().await?, &request.into_inner()).await.map(Response::new)
    }

    async fn rotate_node_keys(
        &self,
        request: Request<RotateNodeKeysRequest>,
    ) -> Result<Response<RotateNodeKeysResponse>, Status> {
        node_keys::rotate(self.current().await?, &request.into_inner()).await.map(Response::new)
    }

    async fn create_join_token(
        &self,
        request: Request<CreateJoinTokenRequest>,
    ) -> Result<Response<CreateJoinTokenResponse>, Status> {
        enrolment::create_token(&self.plane, request.get_ref()).await.map(Response::new)
    }

    async fn revoke_certificate(
        &self,
        request: Request<RevokeCertificateRequest>,
    ) -> Result<Response<RevokeCertificateResponse>, Status> {
        enrolment::revoke(&self.plane, request.get_ref()).await.map(Response::new)
    }

    async fn tail_records(
        &self,
        request: Request<TailRecordsRequest>,
    ) -> Result<Response<Self::TailRecordsStream>, Status> {
        records::tail(&self.plane, &request.into_inner()).map(Response::new)
    }

    async fn explain(&self, request: Request<ExplainRequest>) -> Result<Response<ExplainResponse>, Status> {
        records::explain(&self.plane, &request.into_inner()).map(Response::new)
    }

    async fn status(&self, _request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        Ok(Response::new(status::status(&self.plane).await))
    }

    async fn wait_applied(
        &self,
        request: Request<WaitAppliedRequest>,
    ) -> Result<Response<WaitAppliedResponse>, Status> {
        status::wait_applied(&self.plane, &request.into_inner()).await.map(Response::new)
    }

    async fn list_members(
        &self,
        _request: Request<ListMembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        Ok(Response::new(members::list(&self.plane).await))
    }

    async fn change_members(
        &self,
        request: Request<ChangeMembersRequest>,
    ) -> Result<Response<MembersResponse>, Status> {
        members::change(&self.plane, request.into_inner()).await.map(Response::new)
    }
}
