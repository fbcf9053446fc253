//! `gantry revoke`: the kill switch. What is revoked is refused by every node at once, and what is under way is cut.
//!
//! Always holds: with `--wait`, a node that did not answer is named, also one that went without a word and may serve
//! on; the command then ends with 5.

mod watch;

use gantry_wire::admin_v1::{LiftRevocationRequest, ListRevocationsRequest, RevokeRequest};
use gantry_wire::resource_v1::ban_target::Target;
use gantry_wire::resource_v1::{Ban, BanTarget, WholeTenant};
use serde::Serialize;
use serde_json::json;

use crate::admin::Admin;
use crate::change::{self, Changed, ReportFlags, title};
use crate::context::{Access, AdminAccess};
use crate::failure::{Exit, Failure};
use crate::moment::rfc3339;
use crate::output::{self, ReadFlags, TextFormat, visible};

/// Stop an agent, a key, a session, a server or a tenant at once, on every node.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Revoke {
    /// Refuse an agent, with all its keys and sessions.
    Agent(Named),
    /// Refuse a user, with whatever agent: PROVIDER/SUBJECT, as `gantry audit tail -o json` shows it.
    User(Named),
    /// Refuse one key, by its id: the 16 digits after `gantry_`.
    Key(Named),
    /// Refuse one session, by the id that `gantry audit tail -o json` shows.
    Session(Named),
    /// Send nothing to a server any more, and take its tools out of all lists.
    Server(Named),
    /// Refuse everything of a tenant.
    Tenant(Named),
    /// List what is revoked, by whom, when and why.
    Ls(List),
    /// Lift what was revoked.
    #[command(subcommand)]
    Lift(Lift),
}

/// Lift what was revoked.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Lift {
    /// Let an agent in again.
    Agent(Lifted),
    /// Let agents act for a user again.
    User(Lifted),
    /// Let a key be good again.
    Key(Lifted),
    /// Let a session go on.
    Session(Lifted),
    /// Let a server be called again.
    Server(Lifted),
    /// Serve a tenant again.
    Tenant(Lifted),
}

/// What is revoked, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// Its name or id.
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Why, for other admins. Agents are not told.
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    #[command(flatten)]
    pub(crate) report: ReportFlags,
    #[command(flatten)]
    pub(crate) access: Access,
}

/// What is lifted.
#[derive(Debug, clap::Args)]
pub(crate) struct Lifted {
    /// Its name or id.
    #[arg(value_name = "NAME")]
    name: String,
    /// Its tenant; the one of the context when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    report: ReportFlags,
    #[command(flatten)]
    access: Access,
}

/// `gantry revoke ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    /// Only of this tenant; all of them when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// What sort of thing is revoked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sort {
    Agent,
    User,
    Key,
    Session,
    Server,
    Tenant,
}

/// What is revoked, as it is listed.
#[derive(Debug, Serialize)]
struct Listed {
    tenant: String,
    kind: &'static str,
    name: String,
    by: String,
    at: String,
    reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    forgotten: Option<String>,
}

impl Revoke {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Revoke::Agent(named) => named.run(Sort::Agent).await,
            Revoke::User(named) => named.run(Sort::User).await,
            Revoke::Key(named) => named.run(Sort::Key).await,
            Revoke::Session(named) => named.run(Sort::Session).await,
            Revoke::Server(named) => named.run(Sort::Server).await,
            Revoke::Tenant(named) => named.run(Sort::Tenant).await,
            Revoke::Ls(list) => list.run().await,
            Revoke::Lift(Lift::Agent(lifted)) => lifted.run(Sort::Agent).await,
            Revoke::Lift(Lift::User(lifted)) => lifted.run(Sort::User).await,
            Revoke::Lift(Lift::Key(lifted)) => lifted.run(Sort::Key).await,
            Revoke::Lift(Lift::Session(lifted)) => lifted.run(Sort::Session).await,
            Revoke::Lift(Lift::Server(lifted)) => lifted.run(Sort::Server).await,
            Revoke::Lift(Lift::Tenant(lifted)) => lifted.run(Sort::Tenant).await,
        }
    }
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Sort::Agent => "Agent",
            Sort::User => "User",
            Sort::Key => "Key",
            Sort::Session => "Session",
            Sort::Server => "Server",
            Sort::Tenant => "Tenant",
        }
    }

    fn target(self, name: &str) -> BanTarget {
        let name = name.to_owned();
        let target = match self {
            Sort::Agent => Target::Agent(name),
            Sort::User => Target::User(name),
            Sort::Key => Target::Key(name),
            Sort::Session => Target::Session(name),
            Sort::Server => Target::Server(name),
            Sort::Tenant => Target::Tenant(WholeTenant {}),
        };
        BanTarget { target: Some(target) }
    }

    /// A tenant names itself.
    fn tenant(self, name: &str, given: Option<&str>, access: &AdminAccess) -> Result<String, Failure> {
        match (self, given) {
            (Sort::Tenant, Some(given)) if given != name => Err(Failure::usage(
                format!("tenant {name} is not of tenant {given}"),
                format!("`gantry revoke tenant {name}`"),
            )),
            (Sort::Tenant, _) => Ok(name.to_owned()),
            (_, given) => access.tenant_or(given),
        }
    }
}

impl Named {
    /// Revokes it.
    pub(crate) async fn run(self, sort: Sort) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let tenant = sort.tenant(&self.name, self.tenant.as_deref(), &access)?;
        let admin = Admin::connect(&access).await?;
        let target = Some(sort.target(&self.name));
        let request = RevokeRequest { tenant: tenant.clone(), target, reason: self.reason.clone() };
        let next = format!("`gantry get agents --tenant {tenant}`, `gantry key ls --tenant {tenant}`");
        let answer = admin.ask(admin.service().revoke(request), &next).await?;
        let change = if answer.already { "unchanged" } else { "revoked" };
        if let (true, Some(ban)) = (answer.already, &answer.ban) {
            output::say(&format!("it was revoked before, {}", because(ban)));
        }
        let what = title(sort.word(), &tenant, &self.name);
        if self.report.format() == TextFormat::Text {
            output::print(&format!("{change:<10} {what}\nrevision {}\n", answer.revision))?;
        }
        let seen = match self.report.deadline() {
            Some(span) => {
                Some(watch::until_in_force(&admin, answer.revision, span, self.report.format()).await?)
            }
            None => None,
        };
        if self.report.format() == TextFormat::Json {
            let result = json!({"kind": sort.word(), "tenant": tenant, "name": self.name, "change": change});
            let mut report = json!({"revision": answer.revision, "results": [result]});
            if let Some(seen) = &seen {
                report["wait"] = json!(seen);
            }
            output::print(&output::json(&report))?;
        }
        match seen.and_then(|seen| seen.failure(&what)) {
            Some(failure) => Err(failure),
            None => Ok(Exit::Done),
        }
    }
}

impl Lifted {
    async fn run(self, sort: Sort) -> Result<Exit, Failure> {
        let access = self.access.resolve()?;
        let tenant = sort.tenant(&self.name, self.tenant.as_deref(), &access)?;
        let admin = Admin::connect(&access).await?;
        let target = Some(sort.target(&self.name));
        let request = LiftRevocationRequest { tenant: tenant.clone(), target };
        let next = format!("`gantry revoke ls --tenant {tenant}` lists what is revoked");
        let answer = admin.ask(admin.service().lift_revocation(request), &next).await?;
        let kind = sort.word().to_owned();
        let lifted = Changed { kind, tenant, name: self.name, change: "lifted" };
        change::report(&admin, answer.revision, vec![lifted], &self.report).await
    }
}

impl List {
    async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let request = ListRevocationsRequest { tenant: self.tenant.unwrap_or_default() };
        let answer = admin.ask(admin.service().list_revocations(request), "`gantry get tenants`").await?;
        let listed: Vec<Listed> = answer.bans.iter().map(Listed::from).collect();
        output::show(&listed, self.read.output, || table(&listed))?;
        Ok(Exit::Done)
    }
}

fn table(listed: &[Listed]) -> String {
    if listed.is_empty() {
        output::say("nothing is revoked");
        return String::new();
    }
    let header = ["TENANT", "KIND", "NAME", "BY", "AT", "REASON"];
    output::table(&header, listed.iter().map(Listed::row).collect())
}

impl Listed {
    fn row(&self) -> Vec<String> {
        let Listed { tenant, kind, name, by, at, reason, .. } = self;
        vec![tenant.clone(), (*kind).to_owned(), name.clone(), visible(by), at.clone(), visible(reason)]
    }
}

impl From<&Ban> for Listed {
    fn from(ban: &Ban) -> Listed {
        let (kind, name) = kind_and_name(ban);
        Listed {
            tenant: ban.tenant.clone(),
            kind,
            name,
            by: ban.by.clone(),
            at: rfc3339(ban.at_ms),
            reason: ban.reason.clone(),
            forgotten: (ban.until_ms != 0).then(|| rfc3339(ban.until_ms)),
        }
    }
}

/// What a ban stops, in the words of the command line.
pub(crate) fn kind_and_name(ban: &Ban) -> (&'static str, String) {
    match ban.target.as_ref().and_then(|target| target.target.as_ref()) {
        Some(Target::Agent(name)) => ("agent", name.clone()),
        Some(Target::User(name)) => ("user", name.clone()),
        Some(Target::Key(id)) => ("key", id.clone()),
        Some(Target::Session(id)) => ("session", id.clone()),
        Some(Target::Server(name)) => ("server", name.clone()),
        Some(Target::Tenant(_)) => ("tenant", ban.tenant.clone()),
        None => ("unknown", String::new()),
    }
}

/// Who did it, when and why.
pub(crate) fn because(ban: &Ban) -> String {
    let mut told = format!("by {} at {}", visible(&ban.by), rfc3339(ban.at_ms));
    if !ban.reason.is_empty() {
        told.push_str(&format!(": {}", visible(&ban.reason)));
    }
    told
}
