//! `gantry catalog`: what servers want to offer and may not yet: look at it, and approve it; and what is odd about it.
//!
//! Always holds: what is approved is what was looked at, by its hash: `approve` asks for what waits, shows it, and
//! sends the hashes of that; what changes in between is refused.

pub(crate) mod scan;

use gantry_model::{DefinitionKind, Quarantined};
use gantry_wire::admin_v1::{ApproveCatalogRequest, ListQuarantineRequest};
use gantry_wire::resource_v1::Approval;

use crate::admin::Admin;
use crate::change::{self, Changed, WriteFlags};
use crate::failure::{Exit, Failure};
use crate::output::{self, Paint, ReadFlags};
use crate::verb::catalog::scan::OddityView;
use crate::waiting::{Waiting, WaitingView};

/// Look at definitions that wait for approval, approve them, and see what is odd about any.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Catalog {
    /// Compare what waits with what was in force; exit code 3 when something waits.
    Diff(Diff),
    /// Put definitions that wait in force, as they are shown.
    Approve(Approve),
    /// Show what is said to models alone, or hidden; exit code 3 when something is.
    Scan(scan::Scan),
}

/// `gantry catalog diff`.
#[derive(Debug, clap::Args)]
pub(crate) struct Diff {
    /// Only of this server.
    server: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry catalog approve`.
#[derive(Debug, clap::Args)]
pub(crate) struct Approve {
    /// The server.
    server: String,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// A definition by its name (a resource by its URI); may be repeated.
    #[arg(long, value_name = "NAME", required_unless_present = "all", conflicts_with = "all")]
    name: Vec<String>,
    /// Only definitions of this kind.
    #[arg(long, value_enum)]
    kind: Option<KindFlag>,
    /// Everything that waits now.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    write: WriteFlags,
}

/// A kind on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum KindFlag {
    Tool,
    Prompt,
    Resource,
    ResourceTemplate,
}

impl From<KindFlag> for DefinitionKind {
    fn from(flag: KindFlag) -> DefinitionKind {
        match flag {
            KindFlag::Tool => DefinitionKind::Tool,
            KindFlag::Prompt => DefinitionKind::Prompt,
            KindFlag::Resource => DefinitionKind::Resource,
            KindFlag::ResourceTemplate => DefinitionKind::ResourceTemplate,
        }
    }
}

impl Catalog {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Catalog::Diff(diff) => diff.run().await,
            Catalog::Approve(approve) => approve.run().await,
            Catalog::Scan(scan) => scan.run().await,
        }
    }
}

impl Diff {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.read.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let waiting = waiting(&admin, &tenant, self.server.clone().unwrap_or_default()).await?;
        let views: Vec<WaitingView> = waiting.iter().map(WaitingView::from).collect();
        output::show(&views, self.read.output, || {
            waiting.iter().map(|waiting| waiting.text(Paint::stdout())).collect()
        })?;
        let Some(first) = waiting.first() else {
            output::say("nothing waits for approval");
            return Ok(Exit::Done);
        };
        let count = waiting.len();
        let server = self.server.as_deref().unwrap_or(&first.server);
        output::say(&format!(
            "{count} wait for approval; `gantry catalog approve {server} --tenant {tenant} --name NAME` \
             (or --all) puts them in force"
        ));
        Ok(Exit::Differs)
    }
}

impl Approve {
    async fn run(self) -> Result<Exit, Failure> {
        let access = self.write.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let waiting = waiting(&admin, &tenant, self.server.clone()).await?;
        let chosen = self.choose(&waiting, &tenant)?;
        for waiting in &chosen {
            output::say(waiting.text(Paint::stderr()).trim_end());
        }
        let request = ApproveCatalogRequest {
            tenant: tenant.clone(),
            server: self.server.clone(),
            approvals: chosen.iter().map(|waiting| approval(&waiting.held)).collect(),
            expected_revision: self.write.expect,
        };
        let next = format!("`gantry catalog diff {} --tenant {tenant}` shows what waits now", self.server);
        let answer = admin.ask(admin.service().approve_catalog(request), &next).await?;
        let approved = |waiting: &&Waiting| Changed {
            kind: waiting.held.kind.to_string(),
            tenant: tenant.clone(),
            name: format!("{}/{}", self.server, output::visible(&waiting.held.definition.name)),
            change: "approved",
        };
        if answer.waiting_count > 0 {
            output::say(&format!("{} still wait", answer.waiting_count));
        }
        let approved = chosen.iter().map(approved).collect();
        change::report(&admin, answer.revision, approved, &self.write.report).await
    }

    fn choose<'w>(&self, waiting: &'w [Waiting], tenant: &str) -> Result<Vec<&'w Waiting>, Failure> {
        let next = format!("`gantry catalog diff {} --tenant {tenant}` shows what waits", self.server);
        let of_kind =
            |waiting: &&Waiting| self.kind.is_none_or(|kind| DefinitionKind::from(kind) == waiting.held.kind);
        let chosen: Vec<&Waiting> = waiting
            .iter()
            .filter(of_kind)
            .filter(|waiting| {
                self.all || self.name.iter().any(|name| **name == *waiting.held.definition.name)
            })
            .collect();
        let is_chosen =
            |name: &&String| chosen.iter().any(|waiting| *waiting.held.definition.name == ***name);
        if let Some(missing) = self.name.iter().find(|name| !is_chosen(name)) {
            return Err(Failure::error(format!("nothing named {missing:?} waits for approval"), next));
        }
        if chosen.is_empty() {
            return Err(Failure::error("nothing waits for approval", next));
        }
        Ok(chosen)
    }
}

fn approval(held: &Quarantined) -> Approval {
    let (kind, name, hash) = (held.kind, held.definition.name.clone(), held.definition.hash);
    (&gantry_model::Approval { kind, name, hash }).into()
}

async fn waiting(admin: &Admin, tenant: &str, server: String) -> Result<Vec<Waiting>, Failure> {
    let request = ListQuarantineRequest { tenant: tenant.to_owned(), server };
    let next = "`gantry get servers` lists the servers";
    let answer = admin.ask(admin.service().list_quarantine(request), next).await?;
    let unreadable = |error: &dyn std::fmt::Display| {
        Failure::error(
            format!("what waits cannot be read: {error}"),
            "compare `gantry --version` with the build that `gantry status` shows",
        )
    };
    let read = |waiting: gantry_wire::admin_v1::WaitingDefinition| {
        let held = waiting.quarantined.ok_or_else(|| unreadable(&"a definition is missing"))?;
        let held = Quarantined::try_from(&held).map_err(|error| unreadable(&error))?;
        let odd = waiting.oddities.iter().map(OddityView::from).collect();
        Ok(Waiting { server: waiting.server, held, odd })
    };
    answer.waiting.into_iter().map(read).collect()
}
