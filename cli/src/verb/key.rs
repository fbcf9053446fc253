//! `gantry key`: agent keys. The secret of a key is printed once, alone, on standard output.

use gantry_wire::admin_v1::{CreateKeyRequest, KeyInfo, ListKeysRequest};
use serde::Serialize;

use crate::admin::Admin;
use crate::context::Access;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::moment::rfc3339;
use crate::output::{self, ReadFlags};
use crate::verb::revoke::{Named, Sort};

/// Create, list and revoke agent keys.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Key {
    /// Create a key; it is printed once and stored nowhere.
    Create(Create),
    /// List keys, without their secrets.
    Ls(List),
    /// The same as `gantry revoke key`.
    Revoke(Named),
}

/// `gantry key create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The agent that the key proves.
    #[arg(long, value_name = "NAME")]
    agent: String,
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// How long the key is valid, such as 30d; for ever when absent.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Refuse when the agent was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    #[command(flatten)]
    access: Access,
}

/// `gantry key ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only keys of this agent.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// A key as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    tenant: String,
    agent: String,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

impl Key {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Key::Create(create) => create.run().await,
            Key::Ls(list) => list.run().await,
            Key::Revoke(named) => named.run(Sort::Key).await,
        }
    }
}

impl Create {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let request = CreateKeyRequest {
            tenant: tenant.clone(),
            agent: self.agent.clone(),
            expires_in_seconds: self.expires.map_or(0, |span| span.seconds),
            expected_revision: self.expect,
        };
        let next = format!("`gantry get agents --tenant {tenant}` lists the agents");
        let answer = admin.ask(admin.service().create_key(request), &next).await?;
        output::say(&format!(
            "key {} of agent {tenant}/{}; it is shown this once\nrevision {}",
            answer.id, self.agent, answer.revision
        ));
        output::print(&format!("{}\n", answer.key))?;
        Ok(Exit::Done)
    }
}

impl List {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.read.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let request = ListKeysRequest { tenant, agent: self.agent.unwrap_or_default() };
        let answer = admin.ask(admin.service().list_keys(request), "`gantry get agents`").await?;
        let keys: Vec<Listed> = answer.keys.iter().map(Listed::from).collect();
        output::show(&keys, self.read.output, || table(&keys))?;
        Ok(Exit::Done)
    }
}

fn table(keys: &[Listed]) -> String {
    if keys.is_empty() {
        output::say("there is no key; `gantry key create --agent NAME` makes one");
        return String::new();
    }
    let row = |key: &Listed| {
        let expires = key.expires.clone().unwrap_or_else(|| "never".to_owned());
        let revoked = key.revoked.clone().unwrap_or_default();
        let Listed { id, tenant, agent, created, .. } = key;
        vec![id.clone(), tenant.clone(), agent.clone(), created.clone(), expires, revoked]
    };
    let header = ["ID", "TENANT", "AGENT", "CREATED", "EXPIRES", "REVOKED"];
    output::table(&header, keys.iter().map(row).collect())
}

impl From<&KeyInfo> for Listed {
    fn from(key: &KeyInfo) -> Listed {
        Listed {
            id: key.id.clone(),
            tenant: key.tenant.clone(),
            agent: key.agent.clone(),
            created: rfc3339(key.created_at_ms),
            expires: (key.expires_at_ms != 0).then(|| rfc3339(key.expires_at_ms)),
            revoked: (key.revoked_at_ms != 0).then(|| rfc3339(key.revoked_at_ms)),
        }
    }
}
