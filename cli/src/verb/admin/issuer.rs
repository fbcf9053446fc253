//! `gantry admin issuer`: whose tokens prove admins, and what for.

use std::path::PathBuf;

use gantry_model::admin::Role;
use gantry_model::admin_issuer::{AdminIssuer, AdminRule};
use gantry_model::name::Name;
use gantry_node::tls::read_authorities;
use gantry_wire::admin_v1::{DeleteAdminIssuerRequest, ListAdminIssuersRequest, PutAdminIssuerRequest};
use serde::Serialize;

use crate::admin::Admin as Client;
use crate::change::{self, Changed, ReportFlags};
use crate::context::Access;
use crate::failure::{Exit, Failure, chain};
use crate::output::{self, ReadFlags};

/// Say whose tokens prove admins (OpenID Connect).
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Issuer {
    /// Believe an issuer; in place of the one of this name.
    Put(Box<Put>),
    /// List the issuers, with what their claims give.
    Ls(Box<List>),
    /// Believe an issuer no more: its admins are none at once.
    Delete(Box<Delete>),
}

/// `gantry admin issuer put`.
#[derive(Debug, clap::Args)]
pub(crate) struct Put {
    /// What it is called here; part of the names of its admins.
    name: Name,
    /// Its URL, exactly as its metadata has it.
    #[arg(long, value_name = "URL")]
    issuer: String,
    /// For whom its tokens are: the client id of `gantry login`, as a rule. May be repeated.
    #[arg(long, value_name = "AUDIENCE", required = true)]
    audience: Vec<String>,
    /// With what it signs, such as RS256 or ES256; may be repeated.
    #[arg(long, value_name = "ALGORITHM", default_values = ["RS256"])]
    algorithm: Vec<String>,
    /// What a claim gives, such as groups=platform:cluster-admin or /realm_access/roles=ops:tenant-admin:acme; may be
    /// repeated.
    #[arg(long, value_name = "CLAIM=VALUE:ROLE", required = true, value_parser = parse_rule)]
    rule: Vec<AdminRule>,
    /// Certificates of authorities that it may be served by, as PEM; the public ones when absent.
    #[arg(long, value_name = "FILE")]
    issuer_ca: Option<PathBuf>,
    /// Let it be asked over http on loopback: for tests.
    #[arg(long)]
    plain_on_loopback: bool,
    #[command(flatten)]
    report: ReportFlags,
    #[command(flatten)]
    access: Access,
}

/// `gantry admin issuer ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry admin issuer delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// What it is called here.
    name: Name,
    #[command(flatten)]
    report: ReportFlags,
    #[command(flatten)]
    access: Access,
}

/// An issuer as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    issuer: String,
    audiences: Vec<String>,
    algorithms: Vec<String>,
    rules: Vec<String>,
}

/// The value may have colons, and a role has one at most.
fn parse_rule(text: &str) -> Result<AdminRule, String> {
    let form = "not of the form CLAIM=VALUE:ROLE, such as groups=platform:cluster-admin";
    let (claim, rest) = text.split_once('=').ok_or(form)?;
    let places = rest.match_indices(':').map(|(at, _)| at);
    let read = |at: usize| Some((&rest[..at], rest[at + 1..].parse::<Role>().ok()?));
    let (value, role) = places.filter_map(read).next().ok_or_else(|| {
        format!(
            "{form}; a role is cluster-admin, tenant-admin:TENANT, read-only[:TENANT], auditor[:TENANT] or approver[:TENANT]"
        )
    })?;
    Ok(AdminRule { claim: claim.to_owned(), value: value.to_owned(), role })
}

impl Issuer {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Issuer::Put(put) => put.run().await,
            Issuer::Ls(list) => list.run().await,
            Issuer::Delete(delete) => delete.run().await,
        }
    }
}

impl Put {
    async fn run(self) -> Result<Exit, Failure> {
        let authorities = match &self.issuer_ca {
            None => Vec::new(),
            Some(path) => read_authorities(path)
                .map_err(|error| Failure::error(chain(&error), "name a PEM file with `--issuer-ca FILE`"))?,
        };
        let issuer = AdminIssuer {
            name: self.name.clone(),
            issuer: self.issuer,
            audiences: self.audience,
            algorithms: self.algorithm,
            authorities: authorities.iter().map(|authority| authority.to_vec()).collect(),
            is_plain_on_loopback: self.plain_on_loopback,
            rules: self.rule,
        };
        let client = Client::connect(&self.access.resolve()?).await?;
        let request = PutAdminIssuerRequest { issuer: Some((&issuer).into()) };
        let next = "`gantry admin issuer put --help` shows what is asked for";
        let done = client.ask(client.service().put_admin_issuer(request), next).await?;
        report(&client, done.revision, &self.name, "put", &self.report).await
    }
}

impl List {
    async fn run(self) -> Result<Exit, Failure> {
        let client = Client::connect(&self.read.access.resolve()?).await?;
        let next = "`gantry admin whoami` shows who calls";
        let answer =
            client.ask(client.service().list_admin_issuers(ListAdminIssuersRequest {}), next).await?;
        let rule = |rule: &gantry_wire::resource_v1::AdminRule| {
            format!("{}={}:{}", rule.claim, rule.value, rule.role)
        };
        let issuers = answer.issuers.into_iter().map(|issuer| Shown {
            rules: issuer.rules.iter().map(rule).collect(),
            name: issuer.name,
            issuer: issuer.issuer,
            audiences: issuer.audiences,
            algorithms: issuer.algorithms,
        });
        let issuers: Vec<Shown> = issuers.collect();
        output::show(&issuers, self.read.output, || {
            let row = |issuer: &Shown| {
                let (audiences, rules) = (issuer.audiences.join(", "), issuer.rules.join("\n"));
                vec![issuer.name.clone(), issuer.issuer.clone(), audiences, rules]
            };
            output::table(&["NAME", "ISSUER", "AUDIENCES", "RULES"], issuers.iter().map(row).collect())
        })?;
        Ok(Exit::Done)
    }
}

impl Delete {
    async fn run(self) -> Result<Exit, Failure> {
        let client = Client::connect(&self.access.resolve()?).await?;
        let request = DeleteAdminIssuerRequest { name: self.name.to_string() };
        let next = "`gantry admin issuer ls` lists them";
        let done = client.ask(client.service().delete_admin_issuer(request), next).await?;
        report(&client, done.revision, &self.name, "deleted", &self.report).await
    }
}

async fn report(
    client: &Client,
    revision: u64,
    name: &Name,
    what: &'static str,
    flags: &ReportFlags,
) -> Result<Exit, Failure> {
    let changed = Changed {
        kind: "AdminIssuer".to_owned(),
        tenant: String::new(),
        name: name.to_string(),
        change: what,
    };
    change::report(client, revision, vec![changed], flags).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_a_claim_its_value_and_a_role() {
        let read = |text: &str| parse_rule(text).map(|rule| (rule.claim, rule.value, rule.role.to_string()));
        let rule = |claim: &str, value: &str, role: &str| Ok((claim.into(), value.into(), role.into()));
        assert_eq!(read("groups=ops:cluster-admin"), rule("groups", "ops", "cluster-admin"));
        assert_eq!(read("/a/b=urn:x:ops:tenant-admin:acme"), rule("/a/b", "urn:x:ops", "tenant-admin:acme"));
        // A tenant may be called as a role is.
        assert_eq!(read("groups=x:tenant-admin:auditor"), rule("groups", "x", "tenant-admin:auditor"));
        for none in ["groups", "groups=ops", "groups:ops=cluster-admin", "groups=ops:admin"] {
            assert!(read(none).is_err(), "{none}");
        }
    }
}
