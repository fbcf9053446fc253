//! `gantry cluster token` and `gantry cluster revoke`: who may join, and who may not stay.

use gantry_model::Labels;
use gantry_model::name::{Name, RegionName, TenantName};
use gantry_wire::admin_v1::create_join_token_request::Role as WireRole;
use gantry_wire::admin_v1::revoke_certificate_request::Subject;
use gantry_wire::admin_v1::{
    ControlPlaneRole, CreateJoinTokenRequest, NodeRole, RevokeCertificateRequest, StatusRequest,
};
use serde_json::json;

use crate::admin::Admin;
use crate::context::Access;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::output::{self, TextFormat};

/// `gantry cluster token`.
#[derive(Debug, clap::Args)]
pub(crate) struct Token {
    /// What may join with it.
    #[arg(long, value_enum)]
    role: Role,
    /// Only a node of this name may.
    #[arg(long, value_name = "NODE")]
    name: Option<Name>,
    /// The node is for this tenant, and holds nothing of others. May be given several times.
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<TenantName>,
    /// The region that the node is in; without one it holds no tenant that has regions.
    #[arg(long, value_name = "REGION")]
    region: Option<RegionName>,
    /// A label of the node, such as canary, by which stages of rollouts name it. May be given several times.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<Name>,
    /// How long it is good, such as 30m or 2h; an hour when absent, a week at most.
    #[arg(long, value_name = "SPAN")]
    ttl: Option<Span>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

/// What joins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Role {
    /// A process of the control plane.
    ControlPlane,
    /// A node of the data plane.
    Node,
}

/// `gantry cluster revoke`.
#[derive(Debug, clap::Args)]
pub(crate) struct Revoke {
    /// The node whose certificates are taken back.
    #[arg(long, value_name = "NODE", required_unless_present = "admin_name")]
    node: Option<Name>,
    /// The admin whose certificates are; tokens count still.
    #[arg(long, value_name = "ADMIN", conflicts_with = "node")]
    admin_name: Option<Name>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t)]
    output: TextFormat,
    #[command(flatten)]
    access: Access,
}

impl Token {
    /// Runs the command. The token is the only line on standard output.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let labels = Labels {
            tenants: self.tenants.into_iter().collect(),
            region: self.region,
            labels: self.labels.into_iter().collect(),
        };
        let role = match (self.role, self.name) {
            (Role::ControlPlane, None) if labels.is_empty() => WireRole::ControlPlane(ControlPlaneRole {}),
            (Role::ControlPlane, _) => {
                return Err(Failure::usage(
                    "--name, --tenant, --region and --label are for nodes; members of the control plane have numbers and hold \
                     everything",
                    "leave them out, or join with --role node",
                ));
            }
            (Role::Node, name) => WireRole::Node(NodeRole {
                name: name.map(|name| name.to_string()).unwrap_or_default(),
                labels: Some((&labels).into()),
            }),
        };
        let expires_in_seconds = self.ttl.map_or(0, |ttl| ttl.seconds);
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let request = CreateJoinTokenRequest { role: Some(role), expires_in_seconds };
        let next = "`gantry cluster token --help` shows what can be asked for";
        let made = admin.ask(admin.service().create_join_token(request), next).await?;
        match self.output {
            TextFormat::Text => {
                output::print(&format!("{}\n", made.token))?;
                output::say(match self.role {
                    Role::Node => {
                        "once only, and shown only now: gantry data-plane run --join-token-file FILE"
                    }
                    Role::ControlPlane => {
                        "once only, and shown only now: gantry cluster join --member HOST:PORT --token-file FILE"
                    }
                });
                Ok(Exit::Done)
            }
            TextFormat::Json => {
                let line = json!({
                    "id": made.id,
                    "token": made.token,
                    "expires_at_ms": made.expires_at_ms,
                    "revision": made.revision,
                });
                output::print(&format!("{line}\n"))?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Revoke {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.access.resolve()?).await?;
        let next = "`gantry status` shows the nodes";
        let status = admin.ask(admin.service().status(StatusRequest {}), next).await?;
        let party = match (&self.node, &self.admin_name) {
            (Some(node), _) => format!("node/{node}"),
            (None, Some(admin)) => format!("admin/{admin}"),
            (None, None) => return Err(Failure::usage("nobody is named", "add `--node NODE`")),
        };
        let name = format!("gantry://{}/{party}", status.cluster_id);
        let request = RevokeCertificateRequest { subject: Some(Subject::Name(name.clone())) };
        let done = admin.ask(admin.service().revoke_certificate(request), next).await?;
        output::print(&match self.output {
            TextFormat::Text => format!("revoked {name} at revision {}\n", done.revision),
            TextFormat::Json => format!("{}\n", json!({"name": name, "revision": done.revision})),
        })?;
        Ok(Exit::Done)
    }
}
