//! `gantry catalog scan`: what servers say of their tools to models alone, and what becomes of it.
//!
//! Always holds: what is shown is safe to print; it is the control plane that made it so, and it is escaped once more.

use gantry_wire::admin_v1::{Oddity, ScanCatalogsRequest, Suspect};
use gantry_wire::resource_v1::{DefinitionKind, FilterAction};
use serde::Serialize;

use crate::admin::Admin;
use crate::failure::{Exit, Failure};
use crate::output::{self, ReadFlags};

/// `gantry catalog scan`.
#[derive(Debug, clap::Args)]
pub(crate) struct Scan {
    /// Only of this server.
    server: Option<String>,
    /// The tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// A definition that something is odd about.
#[derive(Debug, Serialize)]
struct SuspectView {
    server: String,
    kind: &'static str,
    name: String,
    action: &'static str,
    found: Vec<OddityView>,
}

/// Something odd.
#[derive(Debug, Serialize)]
pub(crate) struct OddityView {
    what: String,
    place: String,
    excerpt: String,
}

impl Scan {
    pub(super) async fn run(self) -> Result<Exit, Failure> {
        let access = self.read.access.resolve()?;
        let tenant = access.tenant_or(self.tenant.as_deref())?;
        let admin = Admin::connect(&access).await?;
        let server = self.server.unwrap_or_default();
        let request = ScanCatalogsRequest { tenant: tenant.clone(), server };
        let next = "`gantry get servers` lists the servers";
        let answer = admin.ask(admin.service().scan_catalogs(request), next).await?;
        let views: Vec<SuspectView> = answer.suspects.iter().map(SuspectView::from).collect();
        output::show(&views, self.read.output, || text(&views))?;
        let count = answer.definition_count;
        if views.is_empty() {
            output::say(&format!("{count} definitions were read, and nothing is odd about them"));
            return Ok(Exit::Done);
        }
        let blocked = views.iter().filter(|view| view.action == "block").count();
        output::say(&format!(
            "{} of {count} definitions are odd, {blocked} are withheld; `inspection: {{filters: {{definitions: block}}}}` \
             of the tenant, a server or a tool withholds them, `report` and `off` let them pass",
            views.len()
        ));
        Ok(Exit::Differs)
    }
}

impl From<&Suspect> for SuspectView {
    fn from(suspect: &Suspect) -> SuspectView {
        SuspectView {
            server: suspect.server.clone(),
            kind: match suspect.kind() {
                DefinitionKind::Unspecified => "instructions",
                DefinitionKind::Tool => "tool",
                DefinitionKind::Prompt => "prompt",
                DefinitionKind::Resource => "resource",
                DefinitionKind::ResourceTemplate => "resource-template",
            },
            name: suspect.name.clone(),
            action: match suspect.action() {
                FilterAction::Block => "block",
                FilterAction::Off => "off",
                FilterAction::Report | FilterAction::Unspecified => "report",
            },
            found: suspect.oddities.iter().map(OddityView::from).collect(),
        }
    }
}

impl From<&Oddity> for OddityView {
    fn from(oddity: &Oddity) -> OddityView {
        let Oddity { what, place, excerpt } = oddity.clone();
        OddityView { what, place, excerpt }
    }
}

impl OddityView {
    /// As one line.
    pub(crate) fn line(&self) -> String {
        output::visible(&format!("{} at {}: {}", self.what, self.place, self.excerpt))
    }
}

fn text(views: &[SuspectView]) -> String {
    if views.is_empty() {
        return String::new();
    }
    let rows = views.iter().flat_map(|view| {
        view.found.iter().map(|odd| {
            let cells =
                [&view.server, view.kind, &view.name, view.action, &odd.what, &odd.place, &odd.excerpt];
            cells.map(str::to_owned).to_vec()
        })
    });
    output::table(&["SERVER", "KIND", "NAME", "ACTION", "FOUND", "PLACE", "EXCERPT"], rows.collect())
}
