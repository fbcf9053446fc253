//! `gantry admin`: who may call the control plane, and what. A token, or a certificate in its place, is printed once,
//! alone, on standard output.

mod certificate;
mod issuer;

use std::path::PathBuf;

use gantry_model::admin::Role;
use gantry_wire::admin_v1::{
    AdminInfo, AdminTokenResponse, CreateAdminRequest, DeleteAdminRequest, ListAdminsRequest,
    RotateAdminTokenRequest, WhoAmIRequest,
};
use serde::Serialize;

use crate::admin::Admin as Client;
use crate::change::{self, Changed, WriteFlags};
use crate::context::Access;
use crate::duration::Span;
use crate::failure::{Exit, Failure};
use crate::moment::rfc3339;
use crate::output::{self, ReadFlags};

/// Create, list and end admins, and give them new tokens.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Admin {
    /// Create an admin; the token is printed once and stored nowhere.
    Create(Create),
    /// List admins.
    Ls(List),
    /// Show one admin, with the tokens but not their secrets.
    Show(Show),
    /// Make another token of an admin; the older ones end after a while.
    Rotate(Rotate),
    /// End an admin at once, with all tokens and certificates.
    Delete(Delete),
    /// Show who calls, and what the roles are.
    Whoami(Whoami),
    /// Make a key, and the request by which an admin who may make admins certifies it.
    Request(certificate::MakeRequest),
    /// Have a certificate of your own, or the next one: it takes the place of a token, and ends within a day.
    Certificate(certificate::Certificate),
    #[command(subcommand)]
    Issuer(issuer::Issuer),
}

/// `gantry admin create`.
#[derive(Debug, clap::Args)]
pub(crate) struct Create {
    /// The name.
    name: String,
    /// cluster-admin, tenant-admin:TENANT, read-only[:TENANT], auditor[:TENANT] or approver[:TENANT]; may be repeated.
    #[arg(long, value_name = "ROLE", required = true)]
    role: Vec<Role>,
    /// How long the token is good, such as 90d; for ever when absent.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// Certify the key of this request, as PEM, in place of showing the token.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// `gantry admin ls`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry admin show`.
#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The name.
    name: String,
    #[command(flatten)]
    read: ReadFlags,
}

/// `gantry admin rotate`.
#[derive(Debug, clap::Args)]
pub(crate) struct Rotate {
    /// The name; whoever calls when absent.
    name: Option<String>,
    /// How long the new token is good, such as 90d; for ever when absent. One of your own ends with the one that you
    /// call with at the latest, unless you may make admins.
    #[arg(long, value_name = "SPAN")]
    expires: Option<Span>,
    /// How long the older tokens count still, such as 1h; 1s when they were lost.
    #[arg(long, value_name = "SPAN", default_value = "1d")]
    grace: Span,
    /// Refuse when the admin was changed after this revision.
    #[arg(long, value_name = "REVISION")]
    expect: Option<u64>,
    /// Certify the key of this request, as PEM, in place of showing the new token.
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    #[command(flatten)]
    access: Access,
}

/// `gantry admin delete`.
#[derive(Debug, clap::Args)]
pub(crate) struct Delete {
    /// The name.
    name: String,
    #[command(flatten)]
    write: WriteFlags,
}

/// `gantry admin whoami`.
#[derive(Debug, clap::Args)]
pub(crate) struct Whoami {
    #[command(flatten)]
    read: ReadFlags,
}

/// An admin as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    name: String,
    roles: Vec<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    proof: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<String>,
    tokens: Vec<ShownToken>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<u64>,
}

#[derive(Debug, Serialize)]
struct ShownToken {
    id: String,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

impl Admin {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        match self {
            Admin::Create(create) => create.run().await,
            Admin::Ls(list) => {
                let admins = listed(&list.read.access, String::new()).await?;
                let admins: Vec<Shown> = admins.iter().map(Shown::from).collect();
                output::show(&admins, list.read.output, || table(&admins))?;
                Ok(Exit::Done)
            }
            Admin::Show(one) => {
                let admins = listed(&one.read.access, one.name).await?;
                let admins: Vec<Shown> = admins.iter().map(Shown::from).collect();
                output::show(&admins.first(), one.read.output, || admins.iter().map(Shown::text).collect())?;
                Ok(Exit::Done)
            }
            Admin::Rotate(rotate) => rotate.run().await,
            Admin::Delete(delete) => delete.run().await,
            Admin::Request(make) => make.run(),
            Admin::Certificate(certificate) => certificate.run().await,
            Admin::Issuer(issuer) => issuer.run().await,
            Admin::Whoami(whoami) => {
                let client = Client::connect(&whoami.read.access.resolve()?).await?;
                let answer =
                    client.ask(client.service().who_am_i(WhoAmIRequest {}), "`gantry status`").await?;
                let own = Shown::from(&answer);
                output::show(&own, whoami.read.output, || own.text())?;
                Ok(Exit::Done)
            }
        }
    }
}

impl Create {
    async fn run(self) -> Result<Exit, Failure> {
        let certificate_request = certificate::read_request(self.request.as_deref())?;
        let client = Client::connect(&self.access.resolve()?).await?;
        let request = CreateAdminRequest {
            name: self.name.clone(),
            roles: self.role.iter().map(ToString::to_string).collect(),
            expires_in_seconds: self.expires.map_or(0, |span| span.seconds),
            expected_revision: None,
            certificate_request,
        };
        let next = "`gantry admin ls` lists the admins, `gantry get tenants` the tenants";
        let answer = client.ask(client.service().create_admin(request), next).await?;
        hand_over(&self.name, &answer)
    }
}

impl Rotate {
    async fn run(self) -> Result<Exit, Failure> {
        let certificate_request = certificate::read_request(self.request.as_deref())?;
        let client = Client::connect(&self.access.resolve()?).await?;
        let name = self.name.unwrap_or_default();
        let request = RotateAdminTokenRequest {
            name: name.clone(),
            expires_in_seconds: self.expires.map_or(0, |span| span.seconds),
            grace_seconds: self.grace.seconds,
            expected_revision: self.expect,
            certificate_request,
        };
        let next = "`gantry admin whoami` shows who calls";
        let answer = client.ask(client.service().rotate_admin_token(request), next).await?;
        hand_over(&name, &answer)
    }
}

impl Delete {
    async fn run(self) -> Result<Exit, Failure> {
        let client = Client::connect(&self.write.access.resolve()?).await?;
        let request = DeleteAdminRequest { name: self.name.clone(), expected_revision: self.write.expect };
        let next = "`gantry admin ls` lists the admins";
        let answer = client.ask(client.service().delete_admin(request), next).await?;
        let deleted =
            Changed { kind: "Admin".to_owned(), tenant: String::new(), name: self.name, change: "deleted" };
        change::report(&client, answer.revision, vec![deleted], &self.write.report).await
    }
}

/// Prints a new token, which is the only line on standard output, or the certificate in its place.
fn hand_over(name: &str, answer: &AdminTokenResponse) -> Result<Exit, Failure> {
    let of = if name.is_empty() { String::new() } else { format!(" of admin {name}") };
    let end = match answer.expires_at_ms {
        0 => String::new(),
        ms => format!(", which ends {}", rfc3339(ms)),
    };
    if let Some(made) = &answer.certificate {
        output::say(&format!(
            "certificate{of}, which ends {}, and hangs on token {}{end}\nrevision {}",
            rfc3339(made.expires_at_ms),
            answer.id,
            answer.revision
        ));
        output::print(&certificate::to_pem(&made.chain))?;
        return Ok(Exit::Done);
    }
    output::say(&format!(
        "token {}{of}{end}; it is shown this once: write it to a file and name that with --token-file\nrevision {}",
        answer.id, answer.revision
    ));
    output::print(&format!("{}\n", answer.token))?;
    Ok(Exit::Done)
}

async fn listed(access: &Access, name: String) -> Result<Vec<AdminInfo>, Failure> {
    let client = Client::connect(&access.resolve()?).await?;
    let request = ListAdminsRequest { name };
    let next = "`gantry admin ls` lists the admins";
    Ok(client.ask(client.service().list_admins(request), next).await?.admins)
}

fn table(admins: &[Shown]) -> String {
    if admins.is_empty() {
        output::say("there is nobody but root; `gantry admin create NAME --role ROLE` makes an admin");
        return String::new();
    }
    let row = |admin: &Shown| {
        let created = admin.created.clone().unwrap_or_default();
        vec![admin.name.clone(), admin.roles.join(", "), admin.tokens.len().to_string(), created]
    };
    output::table(&["NAME", "ROLES", "TOKENS", "CREATED"], admins.iter().map(row).collect())
}

impl Shown {
    fn text(&self) -> String {
        let mut text = format!("{}: {}\n", self.name, self.roles.join(", "));
        if !self.proof.is_empty() {
            text.push_str(&format!("proved by {}\n", self.proof));
        }
        for token in &self.tokens {
            let end = token.expires.as_ref().map_or("never ends".to_owned(), |end| format!("ends {end}"));
            text.push_str(&format!("token {}, made {}, {end}\n", token.id, token.created));
        }
        text
    }
}

impl From<&AdminInfo> for Shown {
    fn from(admin: &AdminInfo) -> Shown {
        let time = |ms: u64| (ms != 0).then(|| rfc3339(ms));
        let token = |token: &gantry_wire::admin_v1::AdminTokenInfo| ShownToken {
            id: token.id.clone(),
            created: rfc3339(token.created_at_ms),
            expires: time(token.expires_at_ms),
        };
        Shown {
            name: admin.name.clone(),
            roles: admin.roles.clone(),
            proof: admin.proof.clone(),
            created: time(admin.created_at_ms),
            tokens: admin.tokens.iter().map(token).collect(),
            revision: (admin.revision != 0).then_some(admin.revision),
        }
    }
}
