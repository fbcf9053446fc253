//! An admin of the cluster under test: a connection to one member, and what became of each call.
//!
//! Always holds: a call ends within its deadline; a change that got no answer is unknown, never refused.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_model::{Secret, document};
use gantry_node::bearer::Bearer;
use gantry_node::tls::{Connector, Expected, Presenter, Trust, read_authorities};
use gantry_wire::MESSAGE_BYTES_MAX;
use gantry_wire::admin_v1::admin_client::AdminClient;
use gantry_wire::admin_v1::change_members_request::Change;
use gantry_wire::admin_v1::create_join_token_request::Role;
use gantry_wire::admin_v1::{
    ApplyRequest, ChangeMembersRequest, ControlPlaneRole, CreateJoinTokenRequest, CreateKeyRequest,
    GetRequest, GetResponse, ListMembersRequest, MembersResponse, NodeRole, StatusRequest, StatusResponse,
};
use gantry_wire::resource_v1::Resource;
use serde_json::Value;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Response, Status};

use crate::members::Error;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long a call may take: longer than the control plane's own bound on a write, which is 10 s.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// How an admin reaches a member.
#[derive(Debug, Clone)]
pub struct Access {
    address: SocketAddr,
    token: Arc<Secret<String>>,
    trust: Arc<Trust>,
}

/// A connection to a member.
#[derive(Debug, Clone)]
pub struct Admin {
    client: AdminClient<InterceptedService<Channel, Bearer>>,
}

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// It was not sent.
    #[error("not sent: {0}")]
    NotSent(String),
    /// Nobody says whether it was done.
    #[error("unknown: {0}")]
    Unknown(String),
    /// It was not done, and will not be.
    #[error("refused: {0}")]
    Refused(String),
}

impl Access {
    /// To the member of a directory.
    ///
    /// # Errors
    /// When its files cannot be read.
    pub fn read(directory: &Path, address: SocketAddr) -> Result<Self, Error> {
        let token = std::fs::read_to_string(directory.join("admin-token"))?.trim().to_owned();
        let trust = Trust::new(&read_authorities(&directory.join("ca.pem"))?)?;
        Ok(Self { address, token: Arc::new(Secret::new(token)), trust })
    }

    /// Connects.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn connect(&self) -> Result<Admin, CallError> {
        let not_sent = |error: &dyn std::error::Error| CallError::NotSent(crate::peers::chain(error));
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address));
        let endpoint = endpoint.map_err(|error| not_sent(&error))?.connect_timeout(CONNECT_TIMEOUT);
        let connector = Connector::new(Presenter::empty(), self.trust.clone(), Expected::ControlPlane)
            .map_err(|error| not_sent(&error))?;
        let bearer = Bearer::new(&self.token).map_err(|error| not_sent(&error))?;
        let endpoint = endpoint.timeout(CALL_TIMEOUT);
        let connecting = endpoint.connect_with_connector(connector);
        let channel = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(connected) => connected.map_err(|error| not_sent(&error))?,
            Err(late) => return Err(not_sent(&late)),
        };
        let client = AdminClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Admin { client })
    }
}

impl Admin {
    /// Applies documents, on top of a revision of what they change if one is given; the revision that they made.
    ///
    /// # Errors
    /// When they were refused, or nobody says.
    pub async fn apply(&mut self, documents: Vec<Value>, on_top_of: Option<u64>) -> Result<u64, CallError> {
        let read = |document| {
            let resource = document::parse(document);
            resource.map(|resource| Resource::from(&resource))
        };
        let resources = documents.into_iter().map(read).collect::<Result<_, _>>();
        let resources = resources.map_err(|error| CallError::Refused(error.to_string()))?;
        let request = ApplyRequest { resources, expected_revision: on_top_of, ..ApplyRequest::default() };
        let answer = answered(self.client.apply(request)).await?;
        match answer.problems.first() {
            None => Ok(answer.revision),
            Some(problem) => Err(CallError::Refused(problem.message.clone())),
        }
    }

    /// What is stored; empty texts stand for all.
    ///
    /// # Errors
    /// When nobody says.
    pub async fn get(&mut self, kind: &str, tenant: &str, name: &str) -> Result<GetResponse, CallError> {
        let [kind, tenant, name] = [kind, tenant, name].map(str::to_owned);
        answered(self.client.get(GetRequest { kind, tenant, name })).await
    }

    /// How the member is, and the nodes.
    ///
    /// # Errors
    /// When nobody says.
    pub async fn status(&mut self) -> Result<StatusResponse, CallError> {
        answered(self.client.status(StatusRequest {})).await
    }

    /// The membership, as the member has it.
    ///
    /// # Errors
    /// When nobody says.
    pub async fn members(&mut self) -> Result<MembersResponse, CallError> {
        answered(self.client.list_members(ListMembersRequest {})).await
    }

    /// Makes a learner a voter.
    ///
    /// # Errors
    /// When it was refused, or nobody says.
    pub async fn promote(&mut self, member: u64) -> Result<(), CallError> {
        let request = ChangeMembersRequest { expected: None, change: Some(Change::Promote(member)) };
        answered(self.client.change_members(request)).await.map(|_| ())
    }

    /// A token with which the node of a name joins, or a member.
    ///
    /// # Errors
    /// When it was refused, or nobody says.
    pub async fn join_token(&mut self, node: Option<&str>) -> Result<String, CallError> {
        let role = match node {
            Some(name) => Role::Node(NodeRole { name: name.to_owned(), labels: None }),
            None => Role::ControlPlane(ControlPlaneRole {}),
        };
        let request = CreateJoinTokenRequest { role: Some(role), expires_in_seconds: 0 };
        Ok(answered(self.client.create_join_token(request)).await?.token)
    }

    /// A new key of an agent.
    ///
    /// # Errors
    /// When it was refused, or nobody says.
    pub async fn create_key(&mut self, tenant: &str, agent: &str) -> Result<String, CallError> {
        let (tenant, agent) = (tenant.to_owned(), agent.to_owned());
        let request = CreateKeyRequest { tenant, agent, ..CreateKeyRequest::default() };
        Ok(answered(self.client.create_key(request)).await?.key)
    }
}

async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, CallError> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(match status.code() {
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unauthenticated
            | Code::Unimplemented => CallError::Refused(format!("{:?}: {}", status.code(), status.message())),
            // Among these are some that say that nothing was changed; a client library makes them as well.
            _ => CallError::Unknown(format!("{:?}: {}", status.code(), status.message())),
        }),
        Err(_) => Err(CallError::Unknown(format!("no answer within {CALL_TIMEOUT:?}"))),
    }
}
