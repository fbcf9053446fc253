//! `gantry approval`: calls that wait until somebody lets them through: look at them, approve or deny them.
//!
//! Always holds: what is decided is named by its id, which is of one call with these arguments; the answer shows what was
//! decided. Arguments are shown as records show them, without what looks like a secret.

use gantry_wire::admin_v1::{ApprovalInfo, ListApprovalsRequest, VoteOnApprovalRequest};
use gantry_wire::resource_v1::{ApprovalCall, ApprovalRequest};
use serde::Serialize;
use serde_json::Value;

use crate::admin::Admin;
use crate::context::Access;
use crate::failure::{Exit, Failure};
use crate::moment;
use crate::output::{self, ReadFlags, visible};

/// Look at calls that wait for approval, approve and deny them.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Approval {
    /// List the calls that wait, or are approved and were not made yet.
    Ls(Ls),
    /// Show one, with its arguments.
    Show(Show),
    /// Let a call through, once.
    Approve(Decide),
    /// Refuse a call; nobody can approve it any more.
    Deny(Decide),
}

/// `gantry approval ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct Ls {
    /// Only of this tenant; of every one that you may see when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Those too that were denied, used, or not decided in time, for an hour.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry approval show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// Its id, as `gantry approval ls` shows it.
    id: String,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry approval approve` and `deny`.
#[derive(Debug, clap::Args)]
pub(crate) struct Decide {
    /// Its id, as `gantry approval ls` shows it.
    id: String,
    /// Why: one line, kept with the decision.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    read: ReadFlags,
}

/// A request, as it is printed.
#[derive(Debug, Serialize)]
struct Listed {
    id: String,
    state: String,
    tenant: String,
    agent: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    user: String,
    server: String,
    tool: String,
    arguments: Value,
    /// What else the call says, such as answers to what its server asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    besides: Option<Value>,
    policies: Vec<Demand>,
    votes: Vec<Vote>,
    created_at: String,
    expires_at: String,
}

/// What a policy demands.
#[derive(Debug, Serialize)]
struct Demand {
    policy: String,
    approvals: u32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    approvers: Vec<String>,
}

/// What an admin said.
#[derive(Debug, Serialize)]
struct Vote {
    by: String,
    vote: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    reason: String,
    at: String,
}

/// Where to look next.
const NEXT: &str = "`gantry approval ls` lists what waits";

impl Approval {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Approval::Ls(ls) => ls.run().await,
            Approval::Show(show) => show.run().await,
            Approval::Approve(decide) => decide.run(true).await,
            Approval::Deny(decide) => decide.run(false).await,
        }
    }
}

impl Ls {
    async fn run(self) -> Result<Exit, Failure> {
        let tenant = self.tenant.clone().unwrap_or_default();
        let request = ListApprovalsRequest { tenant, id: String::new(), all: self.all };
        let listed = list(&self.read.access, request).await?;
        output::show(&listed, self.read.output, || table(&listed))?;
        if let Some(first) = listed.iter().find(|listed| listed.state == "pending") {
            output::say(&format!(
                "`gantry approval show {0}` shows one; `gantry approval approve {0}` (or deny) decides it",
                first.id
            ));
        } else if listed.is_empty() {
            output::say("nothing waits for approval");
        }
        Ok(Exit::Done)
    }
}

impl Show {
    async fn run(self) -> Result<Exit, Failure> {
        let request = ListApprovalsRequest { tenant: String::new(), id: self.id.clone(), all: true };
        let listed = list(&self.read.access, request).await?;
        output::show(&listed, self.read.output, || listed.iter().map(text).collect())?;
        Ok(Exit::Done)
    }
}

impl Decide {
    async fn run(self, approves: bool) -> Result<Exit, Failure> {
        let access = self.read.access.resolve()?;
        let admin = Admin::connect(&access).await?;
        let (id, reason) = (self.id.clone(), self.reason.clone());
        let request = VoteOnApprovalRequest { id, tenant: String::new(), approves, reason };
        let answer = admin.ask(admin.service().vote_on_approval(request), NEXT).await?;
        let listed: Vec<Listed> = answer.approval.into_iter().map(Listed::from).collect();
        output::show(&listed, self.read.output, || listed.iter().map(text).collect())?;
        if let Some(decided) = listed.first() {
            output::say(&match decided.state.as_str() {
                "approved" => "approved: the same call goes through, once".to_owned(),
                "pending" => "noted: another approver is needed".to_owned(),
                other => format!("it is {other}"),
            });
        }
        Ok(Exit::Done)
    }
}

async fn list(access: &Access, request: ListApprovalsRequest) -> Result<Vec<Listed>, Failure> {
    let admin = Admin::connect(&access.resolve()?).await?;
    let answer = admin.ask(admin.service().list_approvals(request), NEXT).await?;
    Ok(answer.approvals.into_iter().map(Listed::from).collect())
}

impl From<ApprovalInfo> for Listed {
    fn from(info: ApprovalInfo) -> Listed {
        let request: ApprovalRequest = info.request.unwrap_or_default();
        let call: ApprovalCall = request.call.unwrap_or_default();
        let demand = |(policy, demand): (gantry_wire::resource_v1::ApprovalPolicy, _)| {
            let gantry_wire::resource_v1::ApprovalSpec { approvals, approvers, .. } = demand;
            Demand { policy: policy.name, approvals, approvers }
        };
        let vote = |vote: gantry_wire::resource_v1::ApprovalVote| Vote {
            by: vote.by,
            vote: if vote.approves { "approve" } else { "deny" },
            reason: vote.reason,
            at: moment::rfc3339(vote.at_ms),
        };
        let (arguments, besides) = said(request.arguments);
        Listed {
            id: info.id,
            state: info.state,
            tenant: call.tenant,
            agent: call.agent,
            user: call.user,
            server: call.server,
            tool: call.tool,
            arguments,
            besides,
            policies: call.policies.into_iter().zip(request.demands).map(demand).collect(),
            votes: request.votes.into_iter().map(vote).collect(),
            created_at: moment::rfc3339(request.created_at_ms),
            expires_at: moment::rfc3339(request.expires_at_ms),
        }
    }
}

/// The arguments of a call, and what it says besides: two together stand in an array, which arguments never are.
fn said(arguments: String) -> (Value, Option<Value>) {
    match serde_json::from_str(&arguments) {
        Ok(Value::Array(said)) => match <[Value; 2]>::try_from(said) {
            Ok([arguments, besides]) => (arguments, Some(besides)),
            Err(said) => (Value::Array(said), None),
        },
        Ok(arguments) => (arguments, None),
        // What does not read is shown as it is.
        Err(_) => (Value::String(arguments), None),
    }
}

impl Listed {
    fn who(&self) -> String {
        match self.user.as_str() {
            "" => visible(&self.agent),
            user => format!("{} for {}", visible(&self.agent), visible(user)),
        }
    }
}

fn table(listed: &[Listed]) -> String {
    let row = |listed: &Listed| {
        let approving = listed.votes.iter().filter(|vote| vote.vote == "approve").count();
        let needed = listed.policies.iter().map(|demand| demand.approvals).max().unwrap_or_default();
        vec![
            listed.id.clone(),
            listed.state.clone(),
            format!("{approving}/{needed}"),
            visible(&listed.tenant),
            listed.who(),
            visible(&format!("{}/{}", listed.server, listed.tool)),
            visible(&listed.expires_at),
        ]
    };
    let header = ["ID", "STATE", "APPROVED", "TENANT", "WHO", "TOOL", "EXPIRES"];
    output::table(&header, listed.iter().map(row).collect())
}

fn text(listed: &Listed) -> String {
    let mut shown = format!("{} {}\n", visible(&listed.state), visible(&listed.id));
    let mut line = |name: &str, value: String| shown.push_str(&format!("  {name:<10} {value}\n"));
    line("who", format!("agent {} of tenant {}", listed.who(), visible(&listed.tenant)));
    line("what", format!("tool {} of server {}", visible(&listed.tool), visible(&listed.server)));
    line("arguments", visible(&listed.arguments.to_string()));
    if let Some(besides) = &listed.besides {
        line("besides", visible(&besides.to_string()));
    }
    for Demand { policy, approvals, approvers } in &listed.policies {
        let of = if approvers.is_empty() { String::new() } else { format!(" of {}", approvers.join(", ")) };
        line("policy", visible(&format!("{policy} demands {approvals}{of}")));
    }
    for Vote { by, vote, reason, at } in &listed.votes {
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        line(vote, visible(&format!("{by}, {at}{why}")));
    }
    line("asked", listed.created_at.clone());
    line("expires", listed.expires_at.clone());
    shown
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_call_says_besides_its_arguments_is_told_apart() {
        for (text, expected) in [
            (r#"{"a":[1,2]}"#, (json!({"a": [1, 2]}), None)),
            (r#"[{"a":1},{"inputResponses":{}}]"#, (json!({"a": 1}), Some(json!({"inputResponses": {}})))),
            ("[1]", (json!([1]), None)),
            ("{", (json!("{"), None)),
        ] {
            assert_eq!(said(text.to_owned()), expected, "{text}");
        }
    }
}
