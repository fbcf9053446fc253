//! An admin of the control plane under test: connections to a member, and changes made of documents.
//!
//! Always holds: a change that was refused is an error, never a fast success.

use std::{
    fmt,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use gantry_model::{Secret, document};
use gantry_node::{
    bearer::Bearer,
    tls::{Connector, Expected, Presenter, Trust},
};
use gantry_wire::{
    MESSAGE_BYTES_MAX,
    admin_v1::{
        ApplyRequest, ChangeMembersRequest, ControlPlaneRole, CreateJoinTokenRequest, CreateKeyRequest,
        ListMembersRequest, MembersResponse, NodeRole, RevokeKeyRequest, StatusRequest, StatusResponse,
        WaitAppliedRequest, admin_client::AdminClient, change_members_request::Change,
        create_join_token_request::Role,
    },
    resource_v1::{NodeLabels, Resource},
};
use serde_json::{Value, json};
use tonic::{
    Code,
    service::interceptor::InterceptedService,
    transport::{Channel, Endpoint},
};

use super::ControlError;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a call may take; the service's own bound on a write is shorter.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long it is waited for room for another join token, and between two tries.
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
const TOKEN_PAUSE: Duration = Duration::from_millis(100);

/// What a small organisation's tenant has.
pub(super) const SERVER_COUNT: usize = 5;
pub(super) const AGENT_COUNT: usize = 10;

/// How an admin reaches a member: its token, and whom it believes.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) address: SocketAddr,
    pub(super) token: Arc<Secret<String>>,
    pub(super) trust: Arc<Trust>,
}

/// A connection to one member.
#[derive(Clone)]
pub(super) struct Admin {
    client: AdminClient<InterceptedService<Channel, Bearer>>,
}

impl fmt::Debug for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Access").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Admin {
    /// Connects, with a connection of its own.
    pub(super) async fn connect(access: &Access) -> Result<Self, ControlError> {
        // Also for TLS: what is below the connection is the connector's.
        let endpoint = Endpoint::from_shared(format!("http://{}", access.address))?;
        let connector = Connector::new(Presenter::empty(), access.trust.clone(), Expected::ControlPlane)?;
        let endpoint = endpoint.connect_timeout(CONNECT_TIMEOUT).timeout(CALL_TIMEOUT);
        let channel = endpoint.connect_with_connector(connector).await?;
        let bearer = Bearer::new(&access.token).map_err(|_| ControlError::Token)?;
        let client = AdminClient::with_interceptor(channel, bearer)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok(Self { client })
    }

    /// A token with which a member joins, once.
    pub(super) async fn member_token(&mut self) -> Result<String, ControlError> {
        self.join_token(Role::ControlPlane(ControlPlaneRole {}), Duration::ZERO).await
    }

    /// A token with which the node of a name joins, once, within `lifetime`; zero is the usual one. A cluster has 256
    /// tokens at a time, those that were used and have not expired among them: it is waited for room.
    pub(super) async fn node_token(
        &mut self,
        name: &str,
        labels: Option<NodeLabels>,
        lifetime: Duration,
    ) -> Result<String, ControlError> {
        let began = Instant::now();
        loop {
            let role = Role::Node(NodeRole { name: name.to_owned(), labels: labels.clone() });
            match self.join_token(role, lifetime).await {
                Err(ControlError::Status(status))
                    if status.code() == Code::FailedPrecondition && began.elapsed() < TOKEN_TIMEOUT =>
                {
                    tokio::time::sleep(TOKEN_PAUSE).await;
                }
                answered => return answered,
            }
        }
    }

    async fn join_token(&mut self, role: Role, lifetime: Duration) -> Result<String, ControlError> {
        let expires_in_seconds = lifetime.as_secs();
        let request = CreateJoinTokenRequest { role: Some(role), expires_in_seconds };
        Ok(self.client.create_join_token(request).await?.into_inner().token)
    }

    /// Applies a set and returns its revision.
    pub(super) async fn apply(&mut self, resources: Vec<Resource>) -> Result<u64, ControlError> {
        let request = ApplyRequest { resources, ..ApplyRequest::default() };
        let answer = self.client.apply(request).await?.into_inner();
        match answer.problems.first() {
            None => Ok(answer.revision),
            Some(problem) => Err(ControlError::Refused(problem.message.clone())),
        }
    }

    pub(super) async fn status(&mut self) -> Result<StatusResponse, ControlError> {
        Ok(self.client.status(StatusRequest {}).await?.into_inner())
    }

    /// Waits until every connected node has a revision.
    pub(super) async fn wait_applied(&mut self, revision: u64, wait: Duration) -> Result<(), ControlError> {
        let timeout_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        let request = WaitAppliedRequest { revision, timeout_ms, ..WaitAppliedRequest::default() };
        let answer = self.client.wait_applied(request).await?.into_inner();
        if answer.acked_count < answer.node_count || answer.node_count == 0 {
            return Err(ControlError::Waited { what: "a change on the nodes" });
        }
        Ok(())
    }

    pub(super) async fn members(&mut self) -> Result<MembersResponse, ControlError> {
        Ok(self.client.list_members(ListMembersRequest {}).await?.into_inner())
    }

    pub(super) async fn promote(&mut self, voter: u64) -> Result<(), ControlError> {
        let request = ChangeMembersRequest { expected: None, change: Some(Change::Promote(voter)) };
        self.client.change_members(request).await?;
        Ok(())
    }

    /// A new key of an agent: its id and its secret.
    pub(super) async fn create_key(
        &mut self,
        tenant: &str,
        agent: &str,
    ) -> Result<(String, String), ControlError> {
        let request = CreateKeyRequest {
            tenant: tenant.to_owned(),
            agent: agent.to_owned(),
            ..CreateKeyRequest::default()
        };
        let key = self.client.create_key(request).await?.into_inner();
        Ok((key.id, key.key))
    }

    /// Revokes a key and returns the revision.
    pub(super) async fn revoke_key(&mut self, tenant: &str, id: &str) -> Result<u64, ControlError> {
        let request =
            RevokeKeyRequest { tenant: tenant.to_owned(), id: id.to_owned(), ..RevokeKeyRequest::default() };
        Ok(self.client.revoke_key(request).await?.into_inner().revision)
    }
}

/// A document as it is sent.
pub(super) fn resource(document: Value) -> Result<Resource, ControlError> {
    let resource = document::parse(document).map_err(|error| ControlError::Refused(error.to_string()))?;
    Ok((&resource).into())
}

/// A resource that belongs to a tenant.
pub(super) fn of_tenant(tenant: &str, kind: &str, name: &str, spec: Value) -> Result<Resource, ControlError> {
    resource(json!({"kind": kind, "tenant": tenant, "name": name, "spec": spec}))
}

/// A tenant as a small organisation has it; `policy` is one of its own.
pub(super) fn organisation(tenant: &str, policy: Resource) -> Result<Vec<Resource>, ControlError> {
    let mut set = vec![resource(json!({"kind": "Tenant", "name": tenant}))?];
    for number in 0..SERVER_COUNT {
        let url = json!({"url": format!("http://127.0.0.1:9/{tenant}/{number}")});
        set.push(of_tenant(tenant, "Server", &format!("server-{number}"), url)?);
    }
    for number in 0..AGENT_COUNT {
        set.push(of_tenant(tenant, "Agent", &format!("agent-{number}"), json!({"groups": ["staff"]}))?);
    }
    set.push(policy);
    Ok(set)
}
