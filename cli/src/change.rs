//! What a write reports: the change of each resource, the new revision, and with `--wait` who has it.
//!
//! Always holds: the revision is told after what was written under it; a wait ends at its deadline.

use std::time::Duration;

use gantry_wire::admin_v1::{
    AppliedResource, ApplyRequest, ApplyResponse, Change, WaitAppliedRequest, WaitAppliedResponse,
};
use serde::Serialize;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::context::Access;
use crate::documents::DocumentSet;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::output;

/// Longest single question to the service within a wait; shorter than the bound on a call.
const WAIT_STEP: Duration = Duration::from_secs(20);

/// The flags of every write of an admin, and how it reaches the service.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct WriteFlags {
    /// Refuse when what this changes was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    pub(crate) expect: Option<u64>,
    #[command(flatten)]
    pub(crate) report: ReportFlags,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// How a write reports.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ReportFlags {
    #[command(flatten)]
    wait: WaitFlags,
    /// Form of the report.
    #[arg(short, long, value_enum, default_value_t)]
    output: output::TextFormat,
}

#[derive(Debug, Clone, clap::Args)]
struct WaitFlags {
    /// Wait until every connected node has the change.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 30s.
    #[arg(long, value_name = "SPAN", default_value = "10s", requires = "wait")]
    timeout: Span,
}

impl ReportFlags {
    /// How long to wait; `None`: not at all.
    pub(crate) fn deadline(&self) -> Option<Span> {
        self.wait.wait.then_some(self.wait.timeout)
    }

    /// The form of the report.
    pub(crate) fn format(&self) -> output::TextFormat {
        self.output
    }
}

/// What a file set is sent for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be stored.
    Apply,
    /// To be compared with what is stored.
    Compare,
}

/// Sends a file set, and tells warnings. A set with a problem is a failure that names every one.
pub(crate) async fn submit(
    admin: &Admin,
    set: &DocumentSet,
    purpose: Purpose,
    expected_revision: Option<u64>,
) -> Result<ApplyResponse, Failure> {
    let dry_run = purpose == Purpose::Compare;
    let request = ApplyRequest { resources: set.to_wire(), dry_run, expected_revision };
    let next = format!("correct the documents, then `gantry diff {}`", set.flags());
    let answer = admin.ask(admin.service().apply(request), &next).await?;
    for warning in &answer.warnings {
        output::warn(&output::visible(warning));
    }
    if answer.problems.is_empty() { Ok(answer) } else { Err(set.not_applied(&answer.problems)) }
}

/// One thing and what happened to it.
#[derive(Debug, Serialize)]
pub(crate) struct Changed {
    /// Its kind.
    pub(crate) kind: String,
    /// Its tenant; empty for a tenant.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) tenant: String,
    /// Its name.
    pub(crate) name: String,
    /// What happened, in one word.
    pub(crate) change: &'static str,
}

/// Who has a revision.
#[derive(Debug, Serialize)]
struct Acknowledgement {
    nodes: u32,
    acknowledged: u32,
    #[serde(skip_serializing_if = "String::is_empty")]
    slowest_node: String,
    slowest_ms: u64,
}

/// Everything that a write reports.
#[derive(Debug, Serialize)]
struct Report {
    revision: u64,
    results: Vec<Changed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    wait: Option<Acknowledgement>,
}

impl From<&AppliedResource> for Changed {
    fn from(result: &AppliedResource) -> Changed {
        let change = match result.change() {
            Change::Unspecified => "unknown",
            Change::Created => "created",
            Change::Updated => "updated",
            Change::Unchanged => "unchanged",
            Change::Deleted => "deleted",
        };
        let tenant = if result.kind == "Tenant" { String::new() } else { result.tenant.clone() };
        Changed { kind: result.kind.clone(), tenant, name: result.name.clone(), change }
    }
}

/// A resource as people name it.
pub(crate) fn title(kind: &str, tenant: &str, name: &str) -> String {
    if tenant.is_empty() || kind == "Tenant" {
        format!("{kind} {name}")
    } else {
        format!("{kind} {tenant}/{name}")
    }
}

/// Prints what a write did, and waits when that was asked for.
pub(crate) async fn report(
    admin: &Admin,
    revision: u64,
    results: Vec<Changed>,
    flags: &ReportFlags,
) -> Result<Exit, Failure> {
    let (format, flags) = (flags.output, &flags.wait);
    if format == output::TextFormat::Text {
        let lines: String = results
            .iter()
            .map(|result| {
                format!("{:<10} {}\n", result.change, title(&result.kind, &result.tenant, &result.name))
            })
            .collect();
        output::print(&format!("{lines}revision {revision}\n"))?;
    }
    let wait = match flags.wait {
        true => Some(wait(admin, revision, flags.timeout).await?),
        false => None,
    };
    let behind = wait.as_ref().is_some_and(|wait| wait.acknowledged < wait.nodes || wait.nodes == 0);
    let failure = wait.as_ref().filter(|_| behind).map(|wait| not_everywhere(revision, wait, flags.timeout));
    match (format, &wait) {
        (output::TextFormat::Json, _) => output::print(&output::json(&Report { revision, results, wait }))?,
        (output::TextFormat::Text, Some(wait)) if !behind => output::print(&acknowledged(wait))?,
        (output::TextFormat::Text, _) => {}
    }
    failure.map_or(Ok(Exit::Done), Err)
}

fn acknowledged(wait: &Acknowledgement) -> String {
    format!(
        "{} of {} {} acknowledged; slowest {}, {} ms\n",
        wait.acknowledged,
        wait.nodes,
        if wait.nodes == 1 { "node" } else { "nodes" },
        wait.slowest_node,
        wait.slowest_ms,
    )
}

fn not_everywhere(revision: u64, wait: &Acknowledgement, timeout: Span) -> Failure {
    let message = match wait.nodes {
        0 => format!("revision {revision} is stored, but no node is connected"),
        nodes => format!(
            "revision {revision} is stored, but only {} of {nodes} nodes acknowledged it within {} s",
            wait.acknowledged, timeout.seconds,
        ),
    };
    Failure::new(Exit::Unavailable, message, "`gantry status` shows which node is behind, and why")
}

async fn wait(admin: &Admin, revision: u64, timeout: Span) -> Result<Acknowledgement, Failure> {
    let deadline = Instant::now() + Duration::from_secs(timeout.seconds);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let answer = wait_once(admin, revision, left.min(WAIT_STEP)).await?;
        let complete = answer.node_count > 0 && answer.acked_count >= answer.node_count;
        if complete || Instant::now() >= deadline {
            return Ok(Acknowledgement {
                nodes: answer.node_count,
                acknowledged: answer.acked_count,
                slowest_node: answer.slowest_node,
                slowest_ms: answer.slowest_ms,
            });
        }
        if answer.node_count == 0 {
            // With no node there is nothing that the service could wait for.
            tokio::time::sleep(Duration::from_millis(100).min(left)).await;
        }
    }
}

/// Asks once who has a revision; the service answers when all connected nodes have it or when `limit` passed.
pub(crate) async fn wait_once(
    admin: &Admin,
    revision: u64,
    limit: Duration,
) -> Result<WaitAppliedResponse, Failure> {
    let timeout_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
    let request = WaitAppliedRequest { revision, timeout_ms, ..WaitAppliedRequest::default() };
    admin.ask(admin.service().wait_applied(request), "`gantry status`").await
}
