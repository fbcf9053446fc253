//! `gantry tool ls`: what servers offer, and what an agent may call of it.

use gantry_wire::admin_v1::{ListToolsRequest, ToolInfo, Verdict};
use serde::Serialize;

use super::call::Call;
use crate::admin::Admin;
use crate::failure::{Exit, Failure};
use crate::output::{self, ReadFlags};

/// Longest description in a table, in characters.
const DESCRIPTION_MAX: usize = 60;

/// List tools as an admin, and call one as an agent.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Tool {
    /// List the tools of a tenant's servers; with --agent also what that agent may call.
    Ls(Box<List>),
    /// Call a tool through an endpoint, with an agent's key, as an agent does.
    Call(Box<Call>),
}

/// `gantry tool ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Only tools of this server.
    #[arg(long, value_name = "NAME")]
    server: Option<String>,
    /// Also say what this agent may call, and by which policies.
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// A tool as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    tenant: String,
    server: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    verdict: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    policies: Vec<String>,
    description: String,
    hash: String,
}

impl Tool {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Tool::Ls(list) => list.run().await,
            Tool::Call(call) => call.run().await,
        }
    }
}

impl List {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.read.access.resolve()?;
        let request = ListToolsRequest {
            tenant: access.tenant_or(self.tenant.as_deref())?,
            server: self.server.clone().unwrap_or_default(),
            agent: self.agent.clone().unwrap_or_default(),
            definitions: false,
        };
        let admin = Admin::connect(&access).await?;
        let answer =
            admin.ask(admin.service().list_tools(request), "`gantry get all` shows what is stored").await?;
        for warning in &answer.warnings {
            output::warn(&output::visible(warning));
        }
        let tools: Vec<Listed> = answer.tools.iter().map(Listed::from).collect();
        if tools.is_empty() {
            output::say("no tool is recorded; `gantry status` shows what each server said");
        }
        let table = || if tools.is_empty() { String::new() } else { self.table(&tools) };
        output::show(&tools, self.read.output, table)?;
        Ok(Exit::Done)
    }

    fn table(&self, tools: &[Listed]) -> String {
        let description = |tool: &Listed| output::first_line(&tool.description, DESCRIPTION_MAX);
        if self.agent.is_none() {
            let row = |tool: &Listed| vec![tool.server.clone(), tool.name.clone(), description(tool)];
            return output::table(&["SERVER", "TOOL", "DESCRIPTION"], tools.iter().map(row).collect());
        }
        let row = |tool: &Listed| {
            let verdict = tool.verdict.unwrap_or_default().to_owned();
            let policies = if tool.policies.is_empty() {
                "(no policy permits it)".to_owned()
            } else {
                tool.policies.join(", ")
            };
            vec![tool.server.clone(), tool.name.clone(), verdict, policies, description(tool)]
        };
        let header = ["SERVER", "TOOL", "VERDICT", "BECAUSE OF", "DESCRIPTION"];
        output::table(&header, tools.iter().map(row).collect())
    }
}

/// A policy that says its own name twice (`name/name`, after its `@id`) says it once here.
fn short(policy: &str) -> String {
    match policy.split_once('/') {
        Some((name, id)) if name == id => name.to_owned(),
        Some(_) | None => policy.to_owned(),
    }
}

impl From<&ToolInfo> for Listed {
    fn from(tool: &ToolInfo) -> Listed {
        let verdict = match tool.verdict() {
            Verdict::Unspecified => None,
            Verdict::Allow => Some("allow"),
            Verdict::Deny => Some("deny"),
            Verdict::ByCall => Some("by call"),
            Verdict::RequireApproval => Some("approval"),
        };
        Listed {
            tenant: tool.tenant.clone(),
            server: tool.server.clone(),
            name: tool.name.clone(),
            verdict,
            policies: tool.policies.iter().map(|policy| short(policy)).collect(),
            description: tool.description.clone(),
            hash: tool.hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}
