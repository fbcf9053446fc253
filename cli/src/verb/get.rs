//! `gantry get`: what is stored.

use gantry_model::document::Document;
use gantry_model::nearest::nearest;
use gantry_model::resource::{
    Kind, LimitKeyPart, LimitSpec, Naming, ProviderSpec, Resource, Spec, Transport,
};
use gantry_wire::admin_v1::{GetRequest, StoredResource};

use crate::admin::Admin;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, ReadFlags};

/// Longest description in a table, in characters.
const ABOUT_MAX: usize = 72;

/// Show what is stored; with -o yaml in the form that apply reads.
#[derive(Debug, clap::Args)]
pub(crate) struct Get {
    /// Tenant, Server, Endpoint, Agent, Policy, Limit or Credential, in any case, singular or plural; or all.
    #[arg(value_parser = parse_kind)]
    kind: KindOrAll,
    /// Its name; every one when absent.
    name: Option<String>,
    /// Only of this tenant; every tenant when absent.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    read: ReadFlags,
}

/// One kind, or every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KindOrAll {
    /// One kind.
    One(Kind),
    /// Every kind.
    All,
}

/// Reads a kind, or `all`.
pub(crate) fn parse_kind(text: &str) -> Result<KindOrAll, String> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(KindOrAll::All);
    }
    text.parse::<Kind>().map(KindOrAll::One).map_err(|error| {
        let known: Vec<String> = Kind::ALL.iter().map(|kind| kind.as_str().to_ascii_lowercase()).collect();
        let near = nearest(&text.to_ascii_lowercase(), known.iter().map(String::as_str)).map(str::to_owned);
        match near {
            Some(near) => format!("{error}; nearest known name: {near}"),
            None => format!("{error}; one of {}", known.join(", ")),
        }
    })
}

impl Get {
    /// Runs the command.
    pub(crate) async fn run(self) -> Result<Exit, Failure> {
        let admin = Admin::connect(&self.read.access.resolve()?).await?;
        let kind = match self.kind {
            KindOrAll::One(kind) => kind.as_str(),
            KindOrAll::All => "",
        };
        let tenant = self.tenant.as_deref().unwrap_or_default();
        let mut stored = get(&admin, kind, tenant, self.name.as_deref().unwrap_or_default()).await?;
        if let (Some(name), true) = (&self.name, stored.is_empty()) {
            return Err(not_found(&admin, kind, tenant, name).await?);
        }
        stored.sort_by_key(|(resource, _)| {
            let order = Kind::ALL.iter().position(|kind| *kind == resource.spec.kind());
            (resource.tenant.clone(), order, resource.name.clone())
        });
        output::print(&self.render(&stored))?;
        if stored.is_empty() {
            output::say("nothing of that is stored; `gantry apply -f FILE` stores documents");
        }
        Ok(Exit::Done)
    }

    fn render(&self, stored: &[(Resource, u64)]) -> String {
        let documents = || stored.iter().map(|(resource, _)| Document::from(resource));
        match self.read.output {
            Format::Table if stored.is_empty() => String::new(),
            Format::Table => {
                let rows = stored.iter().map(|(resource, revision)| row(resource, *revision)).collect();
                output::table(&["KIND", "TENANT", "NAME", "REVISION", "ABOUT"], rows)
            }
            Format::Json if self.name.is_some() && stored.len() == 1 => {
                documents().map(|document| output::json(&document)).collect()
            }
            Format::Json => output::json(&documents().collect::<Vec<_>>()),
            Format::Yaml => {
                documents().map(|document| output::yaml(&document)).collect::<Vec<_>>().join("---\n")
            }
        }
    }
}

/// Asks for resources, each with the revision of its last change; an empty text asks for all.
pub(crate) async fn get(
    admin: &Admin,
    kind: &str,
    tenant: &str,
    name: &str,
) -> Result<Vec<(Resource, u64)>, Failure> {
    let request = GetRequest { kind: kind.to_owned(), tenant: tenant.to_owned(), name: name.to_owned() };
    let answer = admin.ask(admin.service().get(request), "`gantry get all` shows what is stored").await?;
    answer.resources.iter().map(read).collect()
}

/// Reads a stored resource with the revision of its last change.
fn read(stored: &StoredResource) -> Result<(Resource, u64), Failure> {
    let unreadable = |reason: String| {
        Failure::error(
            format!("the admin service sent a resource that cannot be read: {reason}"),
            "compare `gantry --version` with the build that `gantry status` shows",
        )
    };
    let resource = stored.resource.as_ref().ok_or_else(|| unreadable("it is empty".to_owned()))?;
    let resource = Resource::try_from(resource).map_err(|error| unreadable(error.to_string()))?;
    Ok((resource, stored.revision))
}

async fn not_found(admin: &Admin, kind: &str, tenant: &str, name: &str) -> Result<Failure, Failure> {
    let others = get(admin, kind, tenant, "").await?;
    let what = if kind.is_empty() { "resource" } else { kind };
    let message = match nearest(name, others.iter().map(|(resource, _)| resource.name.as_str())) {
        Some(near) => format!("there is no {what} {name:?}; nearest known name: {near}"),
        None => format!("there is no {what} {name:?}"),
    };
    let list = if kind.is_empty() { "all".to_owned() } else { kind.to_ascii_lowercase() };
    Ok(Failure::error(message, format!("`gantry get {list}` lists what is there")))
}

fn row(resource: &Resource, revision: u64) -> Vec<String> {
    let kind = resource.spec.kind();
    let tenant = if kind == Kind::Tenant { String::new() } else { resource.tenant.to_string() };
    let about = output::first_line(&about(&resource.spec), ABOUT_MAX);
    vec![kind.to_string(), tenant, resource.name.to_string(), revision.to_string(), about]
}

fn about(spec: &Spec) -> String {
    match spec {
        Spec::Tenant(spec) => spec.description.clone(),
        Spec::Server(spec) => match &spec.transport {
            Transport::Http { url } => url.to_string(),
            Transport::Stdio { command, .. } => shell_words::join(command),
        },
        Spec::Endpoint(spec) => {
            let servers: Vec<_> = spec.servers.iter().map(ToString::to_string).collect();
            let naming = match spec.naming {
                Naming::Bare => "",
                Naming::Prefixed => ", prefixed",
                Naming::Aliased => ", aliased",
            };
            let anonymous = if spec.anonymous { ", anonymous" } else { "" };
            format!("{}{naming}{anonymous}", servers.join(", "))
        }
        Spec::Agent(spec) if spec.description.is_empty() => {
            spec.groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
        }
        Spec::Agent(spec) => spec.description.clone(),
        Spec::Policy(spec) => {
            let lines = spec.cedar.lines().filter(|line| !line.trim_start().starts_with("//"));
            let shadow = spec.shadow.then_some("(shadow)");
            let approval = spec.approval.as_ref().map(|_| "(approval)");
            shadow
                .into_iter()
                .chain(approval)
                .chain(lines.flat_map(str::split_whitespace))
                .collect::<Vec<_>>()
                .join(" ")
        }
        Spec::Limit(spec) => about_limit(spec),
        Spec::Credential(spec) => format!("{}: {}…", spec.header, spec.prefix),
        Spec::Provider(ProviderSpec::Issuer(spec)) => spec.issuer.clone(),
        Spec::Provider(ProviderSpec::Authority(spec)) => match &spec.trust_domain {
            Some(domain) => format!("certificates of spiffe://{domain}"),
            None => format!("certificates by {}", spec.client_name.as_str()),
        },
    }
}

fn about_limit(spec: &LimitSpec) -> String {
    let part = |part: &LimitKeyPart| match part {
        LimitKeyPart::Agent => "agent",
        LimitKeyPart::Server => "server",
        LimitKeyPart::Tool => "tool",
        LimitKeyPart::User => "user",
    };
    let mut text = format!("{} calls in {} s", spec.calls, spec.window_seconds);
    if !spec.per.is_empty() {
        let parts: Vec<_> = spec.per.iter().map(part).collect();
        text.push_str(&format!(" per {}", parts.join(" and ")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_read_in_any_form_and_a_slip_is_told_of() {
        assert_eq!(parse_kind("servers"), Ok(KindOrAll::One(Kind::Server)));
        assert_eq!(parse_kind("all"), Ok(KindOrAll::All));
        assert_eq!(parse_kind("sever"), Err("unknown kind \"sever\"; nearest known name: server".to_owned()));
    }
}
