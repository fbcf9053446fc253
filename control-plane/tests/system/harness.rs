//! A control plane in a directory of its own, with a client for its admin service.

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use gantry_control_plane::{ControlPlane, Options, Transport};
use gantry_model::{Secret, document};
use gantry_wire::admin_v1::admin_client::AdminClient;
use gantry_wire::admin_v1::*;
use gantry_wire::resource_v1::Resource;
use serde_json::{Value, json};
use tempfile::TempDir;
use tonic::metadata::MetadataValue;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

/// What a test returns.
pub(crate) type Result<T = ()> = std::result::Result<T, Box<dyn Error + Send + Sync>>;
/// Adds a token to each call.
type AddToken = Box<dyn FnMut(Request<()>) -> std::result::Result<Request<()>, Status> + Send>;
/// A client of the admin service.
pub(crate) type Admin = AdminClient<InterceptedService<Channel, AddToken>>;

pub(crate) const ADMIN_TOKEN: &str = "admin-token-admin-token-admin-token";
pub(crate) const NODE_TOKEN: &str = "node-token-node-token-node-token-node";
/// How long anything may take before a test gives up on it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

pub(crate) struct Harness {
    pub(crate) directory: TempDir,
    pub(crate) plane: ControlPlane,
    pub(crate) admin: Admin,
}

impl Harness {
    pub(crate) async fn start() -> Result<Harness> {
        Harness::start_in(tempfile::tempdir()?).await
    }

    pub(crate) async fn start_in(directory: TempDir) -> Result<Harness> {
        let plane = gantry_control_plane::start(options(directory.path())).await?;
        let admin = admin(plane.address(), Some(ADMIN_TOKEN)).await?;
        Ok(Harness { directory, plane, admin })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.plane.address()
    }

    /// Ends the control plane; its data stays.
    pub(crate) async fn stop(self) -> Result<TempDir> {
        drop(self.admin);
        self.plane.shutdown().await?;
        Ok(self.directory)
    }

    /// Applies documents that must be accepted; answers the revision.
    pub(crate) async fn apply(&mut self, documents: &[Value]) -> Result<u64> {
        let response = self.try_apply(documents).await?;
        if !response.problems.is_empty() {
            return Err(format!("refused: {:?}", response.problems).into());
        }
        Ok(response.revision)
    }

    pub(crate) async fn try_apply(&mut self, documents: &[Value]) -> Result<ApplyResponse> {
        let request = ApplyRequest { resources: resources(documents)?, dry_run: false, ..Default::default() };
        Ok(self.admin.apply(request).await?.into_inner())
    }

    pub(crate) async fn status(&mut self) -> Result<StatusResponse> {
        Ok(self.admin.status(StatusRequest {}).await?.into_inner())
    }

    pub(crate) async fn create_key(&mut self, agent: &str) -> Result<CreateKeyResponse> {
        let request = CreateKeyRequest {
            tenant: "acme".into(),
            agent: agent.into(),
            expires_in_seconds: 0,
            ..Default::default()
        };
        Ok(self.admin.create_key(request).await?.into_inner())
    }

    pub(crate) async fn put_secret(
        &mut self,
        credential: &str,
        secret: &str,
    ) -> Result<PutCredentialResponse> {
        let (tenant, name, secret) = ("acme".into(), credential.into(), secret.into());
        Ok(self
            .admin
            .put_credential(PutCredentialRequest { tenant, name, secret, ..Default::default() })
            .await?
            .into_inner())
    }

    /// The ids of everything stored, as `Kind tenant/name`.
    pub(crate) async fn stored(&mut self) -> Result<Vec<String>> {
        let response = self.admin.get(GetRequest::default()).await?.into_inner();
        let id = |stored: StoredResource| -> Result<String> {
            let resource = stored.resource.ok_or("a resource")?;
            Ok(gantry_model::Resource::try_from(&resource)?.id().to_string())
        };
        response.resources.into_iter().map(id).collect()
    }
}

pub(crate) fn options(directory: &Path) -> Options {
    Options {
        data_dir: directory.to_owned(),
        listen: ([127, 0, 0, 1], 0).into(),
        admin_token: Secret::new(ADMIN_TOKEN.to_owned()),
        transport: Transport::Plain { node_token: Secret::new(NODE_TOKEN.to_owned()) },
        certificate_life: gantry_control_plane::CERTIFICATE_LIFE_MAX,
        member: None,
    }
}

pub(crate) async fn channel(address: SocketAddr) -> Result<Channel> {
    Ok(Endpoint::from_shared(format!("http://{address}"))?.timeout(DEADLINE).connect().await?)
}

pub(crate) async fn admin(address: SocketAddr, token: Option<&str>) -> Result<Admin> {
    Ok(AdminClient::with_interceptor(channel(address).await?, add_token(token)?))
}

pub(crate) fn add_token(token: Option<&str>) -> Result<AddToken> {
    let value = token.map(|token| MetadataValue::try_from(format!("Bearer {token}"))).transpose()?;
    Ok(Box::new(move |mut request: Request<()>| {
        if let Some(value) = &value {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }))
}

pub(crate) fn resources(documents: &[Value]) -> Result<Vec<Resource>> {
    let resource = |document: &Value| Ok((&document::parse(document.clone())?).into());
    documents.iter().map(resource).collect()
}

/// A tenant with an agent, a server, its endpoint and a credential.
pub(crate) fn acme() -> Vec<Value> {
    vec![
        json!({"kind": "Tenant", "name": "acme"}),
        json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {"groups": ["ops"]}}),
        json!({"kind": "Credential", "tenant": "acme", "name": "token", "spec": {"prefix": "Bearer "}}),
        json!({"kind": "Server", "tenant": "acme", "name": "files",
            "spec": {"url": "http://127.0.0.1:9/mcp", "credential": "token"}}),
        json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["files"]}}),
    ]
}

pub(crate) fn policy(name: &str, cedar: &str) -> Value {
    json!({"kind": "Policy", "tenant": "acme", "name": name, "spec": {"cedar": cedar}})
}

pub(crate) fn agent(name: &str) -> Value {
    json!({"kind": "Agent", "tenant": "acme", "name": name})
}

/// Asks again until the answer fits; the condition is the test's, the deadline bounds it.
pub(crate) async fn eventually<T>(
    mut ask: impl AsyncFnMut() -> Result<T>,
    fits: impl Fn(&T) -> bool,
) -> Result<T> {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let answer = ask().await?;
        if fits(&answer) {
            return Ok(answer);
        }
        if tokio::time::Instant::now() > deadline {
            return Err("the condition did not come true in time".into());
        }
        tokio::task::yield_now().await;
    }
}
