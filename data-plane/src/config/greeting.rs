//! What a client is told when it begins: the answers to `initialize` and `server/discover` of an endpoint, made of
//! what its servers said.
//!
//! Always holds: a capability is offered to clients of either era when a server has it and it can be had through the
//! gateway in that era, so no server drags the others down; what belongs to one era only is offered by servers of
//! that era. Changes of lists are always told, because the gateway tells them itself.

use std::sync::Arc;

use gantry_model::EndpointName;
use gantry_model::resource::Naming;
use serde_json::{Map, Value, json};

use crate::config::server::Server;
use crate::config::view::LIST_TTL_MS;
use crate::mcp::{Era, VERSION_LEGACY, VERSION_MODERN, VERSIONS_LEGACY};

/// Most characters of all servers' instructions: they stand in every conversation of an agent's model.
const INSTRUCTIONS_CHARS_MAX: usize = 16_384;

/// What clients of each era are told.
pub(crate) struct Greeting {
    legacy: Map<String, Value>,
    /// The result of `server/discover`.
    pub(crate) discover: String,
}

impl Greeting {
    /// Composes the greeting of an endpoint.
    pub(crate) fn compose(endpoint: &EndpointName, servers: &[Arc<Server>], naming: Naming) -> Greeting {
        let said: Vec<Said> = servers.iter().filter_map(Said::of).collect();
        let bare = (naming == Naming::Bare).then(|| said.first()).flatten();
        let mut about = bare.map(|said| said.result.clone()).unwrap_or_default();
        about.insert(
            "serverInfo".to_owned(),
            match bare.and_then(Said::info) {
                Some(info) => info,
                None => json!({"name": endpoint.as_str(), "version": env!("CARGO_PKG_VERSION")}),
            },
        );
        match instructions(&said, naming) {
            Some(text) => about.insert("instructions".to_owned(), text.into()),
            None => about.remove("instructions"),
        };
        about.insert("capabilities".to_owned(), capabilities(&said, Era::Modern));
        let mut legacy = Map::new();
        for member in ["serverInfo", "instructions"] {
            if let Some(value) = about.get(member) {
                legacy.insert(member.to_owned(), value.clone());
            }
        }
        legacy.insert("capabilities".to_owned(), capabilities(&said, Era::Legacy));
        Greeting { legacy, discover: discover_result(about) }
    }

    /// The result of `initialize` for a client that asks for a version.
    pub(crate) fn initialize(&self, requested: Option<&str>) -> (&'static str, String) {
        let known = VERSIONS_LEGACY.into_iter().find(|version| Some(*version) == requested);
        let version = known.unwrap_or(VERSION_LEGACY);
        let mut result = Map::new();
        result.insert("protocolVersion".to_owned(), version.into());
        result.extend(self.legacy.clone());
        (version, Value::Object(result).to_string())
    }
}

fn discover_result(mut about: Map<String, Value>) -> String {
    let mut versions = vec![Value::from(VERSION_MODERN)];
    versions.extend(VERSIONS_LEGACY.iter().rev().map(|version| Value::from(*version)));
    about.remove("protocolVersion");
    about.insert("supportedVersions".to_owned(), versions.into());
    about.insert("resultType".to_owned(), "complete".into());
    about.insert("ttlMs".to_owned(), LIST_TTL_MS.into());
    about.insert("cacheScope".to_owned(), "private".into());
    // Where this era has the server's name.
    if let Some(info) = about.remove("serverInfo") {
        let meta = about.entry("_meta").or_insert_with(|| json!({}));
        meta["io.modelcontextprotocol/serverInfo"] = info;
    }
    Value::Object(about).to_string()
}

/// What one server said of itself.
struct Said {
    server: String,
    result: Map<String, Value>,
    is_modern: bool,
}

impl Said {
    fn of(server: &Arc<Server>) -> Option<Said> {
        let catalog = &server.offer.as_ref()?.catalog;
        let (text, is_modern) = match (&catalog.discover_result, &catalog.initialize_result) {
            (Some(discovered), _) => (discovered, true),
            (None, Some(initialized)) => (initialized, false),
            (None, None) => return None,
        };
        let Ok(Value::Object(mut result)) = serde_json::from_str(text) else { return None };
        if server.oddities.withholds_instructions() {
            result.remove("instructions");
        }
        Some(Said { server: server.name.to_string(), result, is_modern })
    }

    fn info(&self) -> Option<Value> {
        let in_meta = || self.result.get("_meta")?.get("io.modelcontextprotocol/serverInfo");
        self.result.get("serverInfo").or_else(in_meta).cloned()
    }

    fn has(&self, capability: &str) -> bool {
        self.result
            .get("capabilities")
            .and_then(|all| all.get(capability))
            .is_some_and(|value| !value.is_null())
    }
}

fn capabilities(said: &[Said], era: Era) -> Value {
    let any = |capability: &str| said.iter().any(|said| said.has(capability));
    let mut merged = Map::new();
    for list in ["tools", "prompts"] {
        if any(list) {
            merged.insert(list.to_owned(), json!({"listChanged": true}));
        }
    }
    if any("resources") {
        let subscribes = |said: &Said| said.result["capabilities"]["resources"]["subscribe"] == true;
        let mut resources = json!({"listChanged": true});
        if said.iter().any(subscribes) {
            resources["subscribe"] = true.into();
        }
        merged.insert("resources".to_owned(), resources);
    }
    for whole in ["completions", "logging"] {
        if any(whole) {
            merged.insert(whole.to_owned(), json!({}));
        }
    }
    if era == Era::Modern {
        let mut extensions = Map::new();
        for said in said.iter().filter(|said| said.is_modern) {
            if let Some(Value::Object(offered)) = said.result["capabilities"].get("extensions") {
                extensions.extend(offered.clone());
            }
        }
        if !extensions.is_empty() {
            merged.insert("extensions".to_owned(), extensions.into());
        }
    }
    merged.into()
}

fn instructions(said: &[Said], naming: Naming) -> Option<String> {
    let texts = said.iter().filter_map(|said| {
        let text = said.result.get("instructions")?.as_str().filter(|text| !text.is_empty())?;
        Some(match naming {
            Naming::Bare => text.to_owned(),
            Naming::Prefixed | Naming::Aliased => format!("## {}\n{text}", said.server),
        })
    });
    let text = texts.collect::<Vec<_>>().join("\n\n");
    (!text.is_empty()).then(|| text.chars().take(INSTRUCTIONS_CHARS_MAX).collect())
}
