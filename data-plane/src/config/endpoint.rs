//! An endpoint, compiled: its servers, and under which names what they offer is offered to agents.
//!
//! Always holds: a name is resolved by the table that lists are made of, never by taking it apart. A URI of an
//! endpoint of several servers is the server's own after the server's name and `+`, which no server's name has; which
//! servers there are says the table. The order is that of the endpoint's servers, then each server's own.

use std::collections::HashMap;
use std::sync::Arc;

use gantry_model::catalog::DefinitionKind;
use gantry_model::exposed::exposed_name;
use gantry_model::resource::{AliasTarget, EndpointSpec, Naming};
use gantry_model::{Definition, EndpointName};

use crate::config::access::Access;
use crate::config::greeting::Greeting;
use crate::config::server::{Server, Withheld};
use crate::config::tool::Tool;
use crate::config::view::Shared;
use crate::mcp::Era;
use crate::mcp::object::Object;

/// Stands between a server's name and its own URI.
const URI_SEPARATOR: char = '+';

/// A URL handed to agents.
pub(crate) struct Endpoint {
    pub(crate) name: EndpointName,
    /// In the order of the endpoint's specification.
    pub(crate) servers: Vec<Arc<Server>>,
    pub(crate) anonymous: bool,
    /// By what its callers are known.
    pub(crate) access: Access,
    /// What each era's clients are told when they begin.
    pub(crate) greeting: Greeting,
    naming: Naming,
    pub(crate) tools: Vec<ExposedTool>,
    pub(crate) prompts: Vec<Exposed>,
    pub(crate) resources: Vec<Exposed>,
    pub(crate) templates: Vec<Exposed>,
    prompts_by_name: HashMap<Arc<str>, usize>,
    /// Of its views.
    pub(crate) lists: Shared,
}

/// A tool as agents see it.
pub(crate) struct ExposedTool {
    /// The name that agents use.
    pub(crate) name: Arc<str>,
    pub(crate) server: Arc<Server>,
    pub(crate) tool: Arc<Tool>,
    /// The definition as agents see it.
    pub(crate) json: Arc<str>,
}

/// A prompt, resource or template as agents see it.
pub(crate) struct Exposed {
    pub(crate) server: Arc<Server>,
    /// What the server calls it.
    pub(crate) inner: Arc<str>,
    pub(crate) json: Arc<str>,
}

/// Something of one server, by the server's own name for it.
#[derive(Clone)]
pub(crate) struct Named {
    pub(crate) server: Arc<Server>,
    pub(crate) name: String,
}

/// Which member of a definition names it.
const NAME: &str = "name";
const URI: &str = "uri";
const TEMPLATE: &str = "uriTemplate";

impl Endpoint {
    /// Compiles an endpoint of servers.
    pub(crate) fn compile(
        name: EndpointName,
        spec: &EndpointSpec,
        servers: Vec<Arc<Server>>,
        access: Access,
    ) -> Endpoint {
        let mut endpoint = Endpoint {
            greeting: Greeting::compose(&name, &servers, spec.naming),
            name,
            anonymous: spec.anonymous,
            access,
            naming: spec.naming,
            servers,
            tools: Vec::new(),
            prompts: Vec::new(),
            resources: Vec::new(),
            templates: Vec::new(),
            prompts_by_name: HashMap::new(),
            lists: Shared::default(),
        };
        for server in endpoint.servers.clone() {
            endpoint.add(&server, spec);
        }
        let names = endpoint.prompts.iter().enumerate();
        endpoint.prompts_by_name = names
            .filter_map(|(index, prompt)| Some((exposed_as(&prompt.json, NAME)?.into(), index)))
            .collect();
        endpoint
    }

    fn add(&mut self, server: &Arc<Server>, spec: &EndpointSpec) {
        let Some(offer) = &server.offer else { return };
        let is_offered = |kind, name: &str| server.oddities.withheld(kind, name).is_none();
        for tool in offer.tools.iter().filter(|tool| is_offered(DefinitionKind::Tool, &tool.name)) {
            let names = names_of(spec, server, &AliasTarget::Tool(tool.name.to_string()), &tool.name);
            for name in names {
                let json = self.definition(&tool.json, &tool.name, &name, server);
                let (server, tool) = (server.clone(), tool.clone());
                self.tools.push(ExposedTool { name, server, tool, json });
            }
        }
        let prompts = offer.catalog.prompts.iter();
        for prompt in prompts.filter(|prompt| is_offered(DefinitionKind::Prompt, &prompt.name)) {
            let names = names_of(spec, server, &AliasTarget::Prompt(prompt.name.to_string()), &prompt.name);
            for name in names {
                let json = self.definition(&prompt.json, &prompt.name, &name, server);
                self.prompts.push(Exposed { server: server.clone(), inner: prompt.name.clone(), json });
            }
        }
        let exposed = |definition: &Definition, member| Exposed {
            server: server.clone(),
            inner: definition.name.clone(),
            json: match self.is_bare() {
                true => definition.json.clone(),
                false => renamed(&definition.json, member, &self.expose_uri(server, &definition.name)),
            },
        };
        let offered = |kind, member| {
            let found = offer.catalog.definitions(kind).iter();
            let found = found.filter(|found| is_offered(kind, &found.name));
            found.map(|found| exposed(found, member)).collect::<Vec<_>>()
        };
        let resources = offered(DefinitionKind::Resource, URI);
        let templates = offered(DefinitionKind::ResourceTemplate, TEMPLATE);
        self.resources.extend(resources);
        self.templates.extend(templates);
    }

    /// The definition of a tool or prompt under another name.
    fn definition(&self, json: &Arc<str>, inner: &str, name: &str, server: &Server) -> Arc<str> {
        if self.is_bare() {
            return json.clone();
        }
        let json = if inner == name { json.clone() } else { renamed(json, NAME, name) };
        self.rewrite_definition_links(json, server)
    }

    /// `_meta.ui.resourceUri` names a resource of the server (MCP Apps).
    fn rewrite_definition_links(&self, json: Arc<str>, server: &Server) -> Arc<str> {
        if !json.contains("resourceUri") {
            return json;
        }
        let rewritten = Object::parse(&json).ok().and_then(|mut object| {
            let mut meta = Object::parse(object.get("_meta")?).ok()?;
            let mut ui = Object::parse(meta.get("ui")?).ok()?;
            let uri = self.expose_uri(server, &ui.text("resourceUri")?);
            ui.set_text("resourceUri", &uri);
            let ui = ui.to_string();
            meta.set("ui", ui);
            let meta = meta.to_string();
            object.set("_meta", meta);
            Some(object.to_string())
        });
        rewritten.map_or(json, Arc::from)
    }

    /// Whether names stand as the one server has them.
    pub(crate) fn is_bare(&self) -> bool {
        self.naming == Naming::Bare
    }

    /// The one server of a bare endpoint.
    pub(crate) fn only(&self) -> Option<&Arc<Server>> {
        match self.naming {
            Naming::Bare => self.servers.first(),
            Naming::Prefixed | Naming::Aliased => None,
        }
    }

    /// The server whose messages may pass as they are for clients of an era. In the legacy one that has its own answer to
    /// `initialize` with it, whose instructions nobody searched: what it says to this client it need not have said before.
    pub(crate) fn relays(&self, era: Era) -> Option<&Arc<Server>> {
        let passes = |server: &&Arc<Server>| era == Era::Modern || !server.oddities.guards_instructions();
        self.only().filter(|server| server.streams(era) && server.speaks(era)).filter(passes)
    }

    /// A server by its name.
    pub(crate) fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.name.as_str() == name)
    }

    /// The server whose tool of this name is withheld, and why.
    pub(crate) fn withheld(&self, name: &str) -> Option<(&Arc<Server>, Withheld)> {
        let is_called = |server: &Server, inner: &str| match self.naming {
            Naming::Bare => inner == name,
            Naming::Prefixed | Naming::Aliased => exposed_name(&server.name, inner) == name,
        };
        self.servers.iter().find_map(|server| {
            let catalog = &server.offer.as_ref()?.catalog;
            let waiting = catalog.quarantined.iter().filter(|waiting| waiting.kind == DefinitionKind::Tool);
            let tools = waiting.map(|waiting| &waiting.definition).chain(&catalog.tools);
            let mut names = tools.map(|tool| &*tool.name).filter(|inner| is_called(server, inner));
            names.find_map(|inner| Some((server, server.withheld(DefinitionKind::Tool, inner)?)))
        })
    }

    /// A prompt by the name that agents use. A bare endpoint passes on names that it does not know.
    pub(crate) fn prompt(&self, name: &str) -> Option<Named> {
        if let Some(server) = self.only() {
            return Some(Named { server: server.clone(), name: name.to_owned() });
        }
        let prompt = &self.prompts[*self.prompts_by_name.get(name)?];
        Some(Named { server: prompt.server.clone(), name: prompt.inner.to_string() })
    }

    /// What an agent's URI, or URI template, is called by its server; it need not be in the catalog.
    pub(crate) fn resource(&self, uri: &str) -> Option<Named> {
        if let Some(server) = self.only() {
            return Some(Named { server: server.clone(), name: uri.to_owned() });
        }
        let (server, inner) = uri.split_once(URI_SEPARATOR)?;
        Some(Named { server: self.server(server)?.clone(), name: inner.to_owned() })
    }

    /// What agents call a URI of a server.
    pub(crate) fn expose_uri(&self, server: &Server, uri: &str) -> String {
        if self.is_bare() { uri.to_owned() } else { format!("{}{URI_SEPARATOR}{uri}", server.name) }
    }
}

/// Under which names a tool or prompt is offered; an alias takes the place of the prefixed name.
fn names_of(spec: &EndpointSpec, server: &Server, target: &AliasTarget, inner: &Arc<str>) -> Vec<Arc<str>> {
    if spec.naming == Naming::Bare {
        return vec![inner.clone()];
    }
    let aliases = spec.aliases.iter();
    let aliases = aliases.filter(|(_, alias)| alias.server == server.name && alias.target == *target);
    let mut names: Vec<Arc<str>> = aliases.map(|(name, _)| name.as_str().into()).collect();
    if names.is_empty() && spec.naming == Naming::Prefixed {
        names.push(exposed_name(&server.name, inner).into());
    }
    names
}

fn renamed(json: &Arc<str>, member: &'static str, name: &str) -> Arc<str> {
    match Object::parse(json) {
        Ok(mut object) => {
            object.set_text(member, name);
            object.to_string().into()
        }
        // A definition without members is none that anybody can use.
        Err(_) => json.clone(),
    }
}

fn exposed_as(json: &str, member: &str) -> Option<String> {
    Object::parse(json).ok()?.text(member)
}
