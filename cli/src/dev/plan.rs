//! What `gantry dev` governs: the demo server, or the user's own servers from flags and an `mcp.json`.
//!
//! Always holds: a planned server has a name of its own that is a name, and one transport.

use std::collections::BTreeMap;
use std::path::Path;

use gantry_model::Secret;
use gantry_model::name::{EndpointName, Name, ServerName};
use gantry_model::resource::{CredentialSpec, Transport};
use url::Url;

use super::import;
use crate::failure::Failure;
use crate::name::sanitised;

/// Most servers of one start: a laptop runs few, and a longer list is a wrong file.
const SERVERS_MAX: usize = 64;

/// The tenant of the demo.
pub(super) const DEMO_TENANT: &str = "demo";
/// The tenant of the user's own servers.
pub(super) const OWN_TENANT: &str = "dev";

/// What is governed.
#[derive(Debug)]
pub(super) struct Plan {
    /// The tenant that everything belongs to.
    pub(super) tenant: &'static str,
    /// The servers; at least one.
    pub(super) servers: Vec<PlannedServer>,
    /// Whether the built-in demo server is what is governed.
    pub(super) is_demo: bool,
    /// What the user should know about it.
    pub(super) notes: Vec<String>,
}

/// A server with its endpoint.
#[derive(Debug)]
pub(super) struct PlannedServer {
    /// Its name.
    pub(super) name: ServerName,
    /// The endpoint in front of it.
    pub(super) endpoint: EndpointName,
    /// How it is reached.
    pub(super) transport: Transport,
    /// The secret that it needs, when the import has one.
    pub(super) secret: Option<PlannedSecret>,
}

/// A secret for a server; the credential is named like the server.
#[derive(Debug)]
pub(super) struct PlannedSecret {
    /// Where it is used.
    pub(super) spec: CredentialSpec,
    /// The secret.
    pub(super) value: Secret<String>,
}

/// `NAME=VALUE` of `--server` and `--stdio`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedValue {
    name: String,
    value: String,
}

/// Reads `NAME=VALUE`.
pub(super) fn parse_named(text: &str) -> Result<NamedValue, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE")?;
    if name.is_empty() || value.is_empty() {
        return Err("write NAME=VALUE, neither of them empty".to_owned());
    }
    Ok(NamedValue { name: name.to_owned(), value: value.to_owned() })
}

impl Plan {
    /// The demo server, which is reached at `url`.
    pub(super) fn demo(url: &str) -> Result<Plan, Failure> {
        let unusable =
            |reason: String| Failure::error(format!("the demo server: {reason}"), "run `gantry dev` again");
        let name: Name = DEMO_TENANT.parse().map_err(|error| unusable(format!("{error}")))?;
        let endpoint: EndpointName = "main".parse().map_err(|error| unusable(format!("{error}")))?;
        let url = Url::parse(url).map_err(|error| unusable(error.to_string()))?;
        let transport = Transport::Http { url };
        let server = PlannedServer { name: name.into(), endpoint, transport, secret: None };
        Ok(Plan { tenant: DEMO_TENANT, servers: vec![server], is_demo: true, notes: Vec::new() })
    }

    /// The user's own servers; `None` when no flag names one.
    pub(super) fn own(
        servers: &[NamedValue],
        stdio: &[NamedValue],
        imports: &[impl AsRef<Path>],
    ) -> Result<Option<Plan>, Failure> {
        let mut own = Own::default();
        for NamedValue { name, value } in servers {
            let url = Url::parse(value).map_err(|error| {
                let next = "write it as `--server NAME=http://HOST:PORT/mcp`";
                Failure::usage(format!("--server {name}: {value:?} is no URL: {error}"), next)
            })?;
            own.add(name, Transport::Http { url }, None)?;
        }
        for NamedValue { name, value } in stdio {
            let command = shell_words::split(value).map_err(|error| {
                let next = "write it as `--stdio NAME='PROGRAM ARGUMENT...'`";
                Failure::usage(format!("--stdio {name}: {value:?} cannot be split: {error}"), next)
            })?;
            own.add(name, Transport::Stdio { command, environment: BTreeMap::new() }, None)?;
        }
        for path in imports {
            let imported = import::read(path.as_ref())?;
            own.notes.extend(imported.notes);
            for server in imported.servers {
                own.add(&server.name, server.transport, server.secret)?;
            }
        }
        own.finish(servers.len() + stdio.len() + imports.len())
    }
}

#[derive(Debug, Default)]
struct Own {
    servers: Vec<PlannedServer>,
    notes: Vec<String>,
}

impl Own {
    fn add(
        &mut self,
        given: &str,
        transport: Transport,
        secret: Option<PlannedSecret>,
    ) -> Result<(), Failure> {
        let name = sanitised(given).ok_or_else(|| {
            Failure::usage(
                format!("{given:?} has nothing that can stand in a name"),
                "name the server with lowercase letters, digits and `-`",
            )
        })?;
        if name.as_str() != given {
            self.notes.push(format!("the server {given:?} is named {name} here"));
        }
        if self.servers.iter().any(|server| server.name.as_name() == &name) {
            return Err(Failure::usage(
                format!("two servers are named {name}"),
                "name each server once, with lowercase letters, digits and `-`",
            ));
        }
        let endpoint = EndpointName::from(name.clone());
        self.servers.push(PlannedServer { name: name.into(), endpoint, transport, secret });
        Ok(())
    }

    fn finish(self, flag_count: usize) -> Result<Option<Plan>, Failure> {
        if flag_count == 0 {
            return Ok(None);
        }
        if self.servers.is_empty() {
            let next = "name one with `--server NAME=URL` or `--stdio NAME='CMD ARGS'`";
            return Err(Failure::error("there is no server to govern", next).with_details(self.notes));
        }
        if self.servers.len() > SERVERS_MAX {
            return Err(Failure::usage(
                format!("{} servers are more than {SERVERS_MAX}", self.servers.len()),
                "start with fewer, then `gantry apply` the others",
            ));
        }
        Ok(Some(Plan { tenant: OWN_TENANT, servers: self.servers, is_demo: false, notes: self.notes }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(text: &str) -> NamedValue {
        parse_named(text).expect("a named value")
    }

    const NO_IMPORT: [&str; 0] = [];

    #[test]
    fn a_name_and_a_value_stand_around_the_first_equals_sign() {
        assert_eq!(
            parse_named("a=http://x/?b=c"),
            Ok(NamedValue { name: "a".to_owned(), value: "http://x/?b=c".to_owned() })
        );
        assert_eq!(parse_named("a"), Err("write NAME=VALUE".to_owned()));
        assert_eq!(parse_named("=x"), Err("write NAME=VALUE, neither of them empty".to_owned()));
    }

    #[test]
    fn own_servers_get_names_that_are_names() -> Result<(), Failure> {
        let servers = [named("My Files=http://127.0.0.1:1/mcp")];
        let stdio = [named("time=uvx 'mcp server'")];
        let plan = Plan::own(&servers, &stdio, &NO_IMPORT)?.expect("a plan");
        let names: Vec<_> = plan.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!((plan.tenant, names), ("dev", vec!["my-files", "time"]));
        assert_eq!(plan.notes, ["the server \"My Files\" is named my-files here"]);
        assert_eq!(
            plan.servers[1].transport,
            Transport::Stdio {
                command: vec!["uvx".to_owned(), "mcp server".to_owned()],
                environment: BTreeMap::new()
            }
        );
        Ok(())
    }

    #[test]
    fn two_servers_of_one_name_are_refused() {
        let servers = [named("a b=http://x/"), named("a-b=http://y/")];
        let refused = Plan::own(&servers, &[], &NO_IMPORT).err();
        let next = "name each server once, with lowercase letters, digits and `-`";
        assert_eq!(refused, Some(Failure::usage("two servers are named a-b", next)));
    }

    #[test]
    fn without_a_flag_there_is_no_plan_of_own_servers() {
        assert!(matches!(Plan::own(&[], &[], &NO_IMPORT), Ok(None)));
    }
}
