//! What a policy may name: the agents, groups and servers of one tenant, and what the servers offer.
//!
//! Always holds: an answer depends on what was added only. A server whose catalog is not recorded yet may offer
//! anything; its names are told apart as unchecked, never as wrong.

use std::collections::{BTreeMap, BTreeSet};

use gantry_model::name::TOOL_NAME_BYTES_MAX;
use gantry_model::nearest::nearest;
use gantry_model::{
    AgentName, Catalog, Definition, DefinitionKind, GroupName, ProviderName, ServerName, UserId,
};

use crate::problem::shorten;
use crate::schema::EntityKind;

/// What the policies of one tenant may name. Whatever is not added does not exist.
#[derive(Debug, Clone, Default)]
pub struct Known<'a> {
    agents: BTreeSet<&'a str>,
    groups: BTreeSet<&'a str>,
    providers: BTreeSet<&'a str>,
    servers: BTreeMap<&'a str, Option<&'a Catalog>>,
}

/// Whether an entity exists.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Existence {
    Exists,
    /// It may exist, for this reason.
    Unchecked {
        because: String,
    },
    Missing {
        message: String,
        help: Option<String>,
    },
}

impl<'a> Known<'a> {
    /// Nothing is known.
    pub fn new() -> Known<'a> {
        Known::default()
    }

    /// Makes an agent known. The agent that unauthenticated callers act as is one like any other: add it too.
    pub fn add_agent(&mut self, agent: &'a AgentName) {
        self.agents.insert(agent.as_str());
    }

    /// Makes a group known.
    pub fn add_group(&mut self, group: &'a GroupName) {
        self.groups.insert(group.as_str());
    }

    /// Makes a provider known, whose tokens may name users, and groups that no agent is in.
    pub fn add_provider(&mut self, provider: &'a ProviderName) {
        self.providers.insert(provider.as_str());
    }

    /// Makes a server known, with its catalog when that is recorded.
    pub fn add_server(&mut self, server: &'a ServerName, catalog: Option<&'a Catalog>) {
        self.servers.insert(server.as_str(), catalog);
    }

    /// The tools of one server, or of all: each with the server's name, those that wait for approval included. A
    /// server without a recorded catalog has `None` for them.
    pub(crate) fn tools(
        &self,
        only: Option<&str>,
    ) -> impl Iterator<Item = (&'a str, Option<&'a Definition>)> {
        let servers = self.servers.iter().filter(move |(server, _)| only.is_none_or(|only| only == **server));
        let tools = |catalog: &'a Catalog| {
            let withheld = catalog.quarantined.iter().filter(|it| it.kind == DefinitionKind::Tool);
            catalog.tools.iter().chain(withheld.map(|it| &it.definition)).map(Some)
        };
        servers.flat_map(move |(server, catalog)| {
            let (server, catalog): (&'a str, Option<&'a Catalog>) = (server, *catalog);
            let unknown = if catalog.is_none() { Some(None) } else { None };
            catalog.into_iter().flat_map(tools).chain(unknown).map(move |tool| (server, tool))
        })
    }

    /// Whether an entity exists; if not, what to say about it.
    pub(crate) fn existence(&self, kind: EntityKind, id: &str) -> Existence {
        match kind {
            EntityKind::Agent if self.agents.contains(id) => Existence::Exists,
            EntityKind::Agent => missing(kind, id, self.agents.iter().copied(), None),
            EntityKind::Group if self.groups.contains(id) => Existence::Exists,
            EntityKind::Group if !self.providers.is_empty() => Existence::Unchecked {
                because: format!(
                    "no agent is in group `{}`; users are where their provider's tokens say so, which is not checked",
                    shorten(id)
                ),
            },
            EntityKind::User => self.user(id),
            EntityKind::Group => {
                let otherwise = Some("a group exists once an agent is in it");
                missing(kind, id, self.groups.iter().copied(), otherwise)
            }
            EntityKind::Server if self.servers.contains_key(id) => Existence::Exists,
            EntityKind::Server => missing(kind, id, self.servers.keys().copied(), None),
            EntityKind::Tool | EntityKind::Prompt | EntityKind::Resource => self.offered(kind, id),
        }
    }

    /// Who there is, only his provider knows.
    fn user(&self, id: &str) -> Existence {
        let there_is_no = format!("there is no {}", literal_words(EntityKind::User, id));
        match id.parse::<UserId>() {
            Ok(user) if self.providers.contains(user.provider().as_str()) => Existence::Exists,
            Ok(user) => {
                let (provider, near) = (
                    user.provider().as_str(),
                    near_name(user.provider().as_str(), self.providers.iter().copied()),
                );
                let message = format!("{there_is_no}, for there is no provider {provider:?}");
                Existence::Missing { message, help: near.map(|near| format!("nearest: {near}")) }
            }
            Err(problem) => Existence::Missing { message: there_is_no, help: Some(problem.to_string()) },
        }
    }

    fn offered(&self, kind: EntityKind, id: &str) -> Existence {
        let there_is_no = format!("there is no {}", literal_words(kind, id));
        let Some((server, name)) = id.split_once('/') else {
            let help = match self.offering(kind, id) {
                Some(server) => format!("nearest: {}", literal(kind, &format!("{server}/{id}"))),
                None => format!("its server's name comes first: {}", literal(kind, "server/...")),
            };
            return Existence::Missing { message: there_is_no, help: Some(help) };
        };
        let Some(catalog) = self.servers.get(server) else {
            let message =
                format!("{there_is_no}, for there is no {}", literal_words(EntityKind::Server, server));
            let near = near_name(server, self.servers.keys().copied());
            let help = near.map(|near| self.nearest_at(kind, near, name));
            return Existence::Missing { message, help };
        };
        if kind == EntityKind::Resource {
            // A resource may come from a template, so a catalog does not list all that there are.
            return Existence::Exists;
        }
        let Some(catalog) = catalog else {
            let what = kind.as_str().to_lowercase();
            let because =
                format!("server `{server}` has no recorded catalog yet, so its {what} names are not checked");
            return Existence::Unchecked { because };
        };
        let definitions = definitions(kind, catalog);
        if definitions.iter().any(|definition| &*definition.name == name) || is_withheld(kind, catalog, name)
        {
            return Existence::Exists;
        }
        let near = near_name(name, definitions.iter().map(|definition| &*definition.name));
        let help = near.map(|near| format!("nearest: {}", literal(kind, &format!("{server}/{near}"))));
        Existence::Missing { message: there_is_no, help }
    }

    /// What to name instead, when a known server was probably meant.
    fn nearest_at(&self, kind: EntityKind, server: &str, name: &str) -> String {
        let id = format!("{server}/{name}");
        match self.offered(kind, &id) {
            Existence::Exists | Existence::Unchecked { .. } => format!("nearest: {}", literal(kind, &id)),
            Existence::Missing { help: Some(help), .. } => help,
            Existence::Missing { help: None, .. } => {
                format!("nearest: {}", literal(EntityKind::Server, server))
            }
        }
    }

    /// A server that offers that very name.
    fn offering(&self, kind: EntityKind, name: &str) -> Option<&'a str> {
        let offers = |catalog: &Catalog| definitions(kind, catalog).iter().any(|it| &*it.name == name);
        let mut servers = self.servers.iter();
        servers.find(|(_, catalog)| catalog.is_some_and(offers)).map(|(server, _)| *server)
    }
}

fn missing<'n>(
    kind: EntityKind,
    id: &str,
    names: impl Iterator<Item = &'n str>,
    otherwise: Option<&str>,
) -> Existence {
    let near = near_name(id, names).map(|near| format!("nearest: {}", literal(kind, near)));
    let help = near.or(otherwise.map(str::to_owned));
    Existence::Missing { message: format!("there is no {}", literal_words(kind, id)), help }
}

/// A policy may come before the approval of what it is about.
fn is_withheld(kind: EntityKind, catalog: &Catalog, name: &str) -> bool {
    let kind = match kind {
        EntityKind::Tool => DefinitionKind::Tool,
        EntityKind::Prompt => DefinitionKind::Prompt,
        EntityKind::Resource => DefinitionKind::Resource,
        EntityKind::Agent | EntityKind::Group | EntityKind::User | EntityKind::Server => return false,
    };
    catalog.quarantined(kind, name).is_some()
}

fn definitions(kind: EntityKind, catalog: &Catalog) -> &[Definition] {
    match kind {
        EntityKind::Tool => &catalog.tools,
        EntityKind::Prompt => &catalog.prompts,
        EntityKind::Resource => &catalog.resources,
        EntityKind::Agent | EntityKind::Group | EntityKind::User | EntityKind::Server => &[],
    }
}

/// The nearest name. The comparison takes time and memory by the product of two lengths, so long ones are left out.
fn near_name<'n>(name: &str, candidates: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let short = |text: &str| text.len() <= TOOL_NAME_BYTES_MAX;
    if !short(name) {
        return None;
    }
    nearest(name, candidates.filter(|candidate| short(candidate)))
}

/// An entity as policies name it.
fn literal(kind: EntityKind, id: &str) -> String {
    format!("{}::{id:?}", kind.as_str())
}

/// An entity as sentences name it.
fn literal_words(kind: EntityKind, id: &str) -> String {
    format!("{} {:?}", kind.as_str(), shorten(id))
}
