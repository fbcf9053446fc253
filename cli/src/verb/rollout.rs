//! `gantry rollout`: a change that goes to some nodes first. `gantry apply --rollout` and `gantry delete --rollout` begin
//! one.
//!
//! Always holds: what is decided is decided about the stage that was seen; with `--wait`, `status` ends with 0 when all
//! nodes are to have the change, with 1 when it was taken back, and with 5 when neither came in time.

mod view;

use std::time::Duration;

use gantry_wire::admin_v1::change_rollout_request::Change;
use gantry_wire::admin_v1::{
    BeginRolloutRequest, BeginRolloutResponse, ChangeRolloutRequest, ListRolloutsRequest, RolloutStatus,
    RolloutStep,
};
use gantry_wire::resource_v1::RolloutStage;
use tokio::time::Instant;

use crate::admin::Admin;
use crate::change::{self, Changed, ReportFlags};
use crate::context::Access;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::output::{self, ReadFlags, TextFormat, visible};
use view::RolloutView;

/// Between two looks of a wait; the service is asked of what it has in memory.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Show, promote or abort staged rollouts; `gantry apply --rollout` begins one.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Rollout {
    /// Show how the rollout of each tenant goes, or went.
    Status(Status),
    /// Go on to the next stage now, or to all nodes.
    Promote(Promote),
    /// Take the change back from the nodes that have it.
    Abort(Abort),
}

/// `gantry rollout status`.
#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Of this tenant; of all of them when absent.
    #[arg(long, value_name = "NAME", required_if_eq("wait", "true"))]
    tenant: Option<String>,
    /// Wait until all nodes are to have the change, or it was taken back.
    #[arg(long)]
    wait: bool,
    /// How long to wait, such as 30m.
    #[arg(long, value_name = "SPAN", default_value = "1h", requires = "wait")]
    timeout: Span,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry rollout promote`.
#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    #[command(flatten)]
    which: Which,
    /// All nodes at once, whatever stages are left.
    #[arg(long)]
    all: bool,
}

/// `gantry rollout abort`.
#[derive(Debug, clap::Args)]
pub(crate) struct Abort {
    #[command(flatten)]
    which: Which,
    /// Why, for other admins.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
}

/// Which rollout is meant, and how the change is reported.
#[derive(Debug, clap::Args)]
struct Which {
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Refuse when it is another one by now.
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// Refuse when it is in another stage, from 1, than this.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    stage: Option<u32>,
    #[command(flatten)]
    report: ReportFlags,
    #[command(flatten)]
    access: Access,
}

/// How a change is staged.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct StageFlags {
    /// Give the change to some nodes first, and to all when that went well.
    #[arg(long)]
    rollout: bool,
    /// Which nodes join one after the other: those with a label, or a share; all come last by themselves.
    #[arg(
        long,
        value_name = "LABEL|N%",
        value_delimiter = ',',
        default_value = "canary,25%",
        requires = "rollout"
    )]
    stages: Vec<gantry_model::rollout::Stage>,
    /// How long a stage has to be healthy before the next begins, such as 10m.
    #[arg(long, value_name = "SPAN", default_value = "5m", requires = "rollout")]
    pause: Span,
    /// No stage ends by itself: go on with `gantry rollout promote`.
    #[arg(long, requires = "rollout", conflicts_with = "pause")]
    manual: bool,
    /// By how many of a hundred calls more may be rejected than on other nodes before the change is taken back.
    #[arg(long, value_name = "PERCENT", default_value_t = 5, requires = "rollout", value_parser = clap::value_parser!(u32).range(0..=100))]
    max_rise: u32,
    /// Calls on either side below which rejections decide nothing.
    #[arg(long, value_name = "COUNT", default_value_t = 50, requires = "rollout")]
    min_calls: u32,
}

impl StageFlags {
    /// Whether the change is to be staged.
    pub(crate) fn is_asked(&self) -> bool {
        self.rollout
    }

    /// Begins a rollout of what `change` applies and deletes, and tells warnings. Where the answer has a problem nothing
    /// began.
    pub(crate) async fn begin(
        &self,
        admin: &Admin,
        change: BeginRolloutRequest,
        next: &str,
    ) -> Result<BeginRolloutResponse, Failure> {
        let request = BeginRolloutRequest {
            stages: self.stages.iter().map(RolloutStage::from).collect(),
            pause_seconds: if self.manual { 0 } else { self.pause.seconds },
            rise_percent: self.max_rise,
            calls_min: self.min_calls,
            ..change
        };
        let answer = admin.ask(admin.service().begin_rollout(request), next).await?;
        for warning in &answer.warnings {
            output::warn(&visible(warning));
        }
        Ok(answer)
    }
}

/// Reports a rollout that began.
pub(crate) async fn begun(
    admin: &Admin,
    answer: &BeginRolloutResponse,
    flags: &ReportFlags,
) -> Result<Exit, Failure> {
    let (id, tenant) = (&answer.id, &answer.tenant);
    output::say(&format!(
        "rollout {id} of tenant {tenant} begins; what is listed is what all nodes get in the end; \
         `gantry rollout status --tenant {tenant}` shows how it goes"
    ));
    let results = answer.results.iter().map(Changed::from).collect();
    change::report(admin, answer.revision, results, flags).await
}

impl Rollout {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Rollout::Status(status) => status.run().await,
            Rollout::Promote(promote) => {
                let step = if promote.all { RolloutStep::All } else { RolloutStep::Next };
                promote.which.change(Change::Promote(step.into())).await
            }
            Rollout::Abort(abort) => abort.which.change(Change::Abort(abort.reason)).await,
        }
    }
}

impl Status {
    async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let deadline = Instant::now() + Duration::from_secs(self.timeout.seconds);
        let mut rollouts = self.look(&admin).await?;
        // The tenant's is another one once somebody begins it.
        let waited_for = rollouts.first().map(|rollout| rollout.id().to_owned()).unwrap_or_default();
        let goes_on = |rollout: &RolloutView| rollout.is_running() && rollout.id() == waited_for;
        while self.wait && rollouts.iter().any(goes_on) && Instant::now() < deadline {
            tokio::time::sleep(LOOK_INTERVAL).await;
            rollouts = self.look(&admin).await?;
        }
        output::show(&rollouts, self.read.output, || view::text(&rollouts))?;
        if !self.wait {
            return Ok(Exit::Done);
        }
        let Some(rollout) = rollouts.first() else {
            let message = "the tenant has no rollout";
            return Err(Failure::error(message, "`gantry apply --rollout -f FILE` begins one"));
        };
        rollout.ending(&waited_for, self.timeout)
    }

    async fn look(&self, admin: &Admin) -> Result<Vec<RolloutView>, Failure> {
        let request = ListRolloutsRequest { tenant: self.tenant.clone().unwrap_or_default() };
        let answer = admin.ask(admin.service().list_rollouts(request), "`gantry get tenants`").await?;
        Ok(answer.rollouts.iter().filter_map(RolloutView::new).collect())
    }
}

impl Which {
    async fn change(self, change: Change) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let stage = self.stage.map(|stage| stage - 1);
        let id = self.id.unwrap_or_default();
        let request = ChangeRolloutRequest { tenant: tenant.clone(), id, stage, change: Some(change) };
        let next = format!("`gantry rollout status --tenant {tenant}`");
        let answer = admin.ask(admin.service().change_rollout(request), &next).await?;
        let told = answer.rollout.as_ref().and_then(|rollout: &RolloutStatus| RolloutView::new(rollout));
        if let (TextFormat::Text, Some(rollout)) = (self.report.format(), &told) {
            output::print(&rollout.line())?;
        }
        change::report(&admin, answer.revision, Vec::new(), &self.report).await
    }
}
