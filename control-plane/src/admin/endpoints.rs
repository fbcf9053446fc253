//! What there is to say about the names that an endpoint offers, beside the catalogs of its servers.
//!
//! Always holds: these are warnings, never refusals: a server may offer tomorrow what it does not offer today. Names
//! in quarantine count as there.

use gantry_control_state::State;
use gantry_model::exposed::{EXPOSED_NAME_BYTES_MAX, SEPARATOR, exposed_name, is_exposable};
use gantry_model::nearest::nearest;
use gantry_model::resource::{Alias, AliasTarget, EndpointSpec, Naming};
use gantry_model::{Catalog, DefinitionKind, Resource, ResourceId, ServerName, Spec, TenantName};

/// What the authors of these documents should know, as `state` has the catalogs.
pub(super) fn warnings<'d>(state: &State, documents: impl Iterator<Item = &'d Resource>) -> Vec<String> {
    let mut warnings = Vec::new();
    for document in documents {
        let Spec::Endpoint(spec) = &document.spec else { continue };
        if spec.naming == Naming::Bare {
            continue;
        }
        let endpoint = Endpoint { id: document.id(), spec };
        for server in &spec.servers {
            endpoint.check(server, catalog(state, &document.tenant, server), &mut warnings);
        }
    }
    warnings
}

fn catalog<'s>(state: &'s State, tenant: &TenantName, server: &ServerName) -> Option<&'s Catalog> {
    state.catalog(tenant, server).map(AsRef::as_ref)
}

struct Endpoint<'d> {
    id: ResourceId,
    spec: &'d EndpointSpec,
}

impl Endpoint<'_> {
    fn check(&self, server: &ServerName, catalog: Option<&Catalog>, warnings: &mut Vec<String>) {
        let Some(catalog) = catalog else {
            warnings.push(format!(
                "{}: its names are not checked against server {server}, which no node has reported on yet",
                self.id
            ));
            return;
        };
        for (name, alias) in self.spec.aliases.iter().filter(|(_, alias)| alias.server == *server) {
            warnings.extend(self.dangling(name, alias, catalog));
        }
        if self.spec.naming == Naming::Prefixed {
            for kind in [DefinitionKind::Tool, DefinitionKind::Prompt] {
                for name in names(catalog, kind) {
                    warnings.extend(self.awkward(server, kind, name));
                }
            }
        }
    }

    fn dangling(&self, alias_name: &str, alias: &Alias, catalog: &Catalog) -> Option<String> {
        let kind = kind_of(&alias.target);
        let name = alias.target.name();
        if names(catalog, kind).any(|known| known == name) {
            return None;
        }
        let near = nearest(name, names(catalog, kind));
        let near = near.map(|near| format!("; nearest: {near:?}")).unwrap_or_default();
        let server = &alias.server;
        Some(format!("{}: alias {alias_name}: server {server} offers no {kind} {name:?}{near}", self.id))
    }

    /// A name that is not offered as `server__name`, or that an alias of something else takes away.
    fn awkward(&self, server: &ServerName, kind: DefinitionKind, name: &str) -> Option<String> {
        let aliased = |alias: &Alias| {
            alias.server == *server && kind_of(&alias.target) == kind && alias.target.name() == name
        };
        if self.spec.aliases.values().any(aliased) {
            return None;
        }
        let exposed = exposed_name(server, name);
        if self.spec.aliases.get(&exposed).is_some_and(|alias| kind_of(&alias.target) == kind) {
            return Some(format!(
                "{}: alias {exposed} has the name of {kind} {name:?} of server {server}, which is not offered then",
                self.id
            ));
        }
        let whole = format!("{server}{SEPARATOR}{name}");
        if exposed == whole {
            return None;
        }
        let because = if is_exposable(&whole) {
            "because it ends like a shortened name".to_owned()
        } else {
            format!("because a name has at most {EXPOSED_NAME_BYTES_MAX} characters of `A-Z a-z 0-9 _ . -`")
        };
        let proposal = proposal(name);
        Some(format!(
            "{}: {kind} {name:?} of server {server} is offered as {exposed}, {because}; give it another: \
             `aliases: {{{proposal}: {{server: {server}, {kind}: {name:?}}}}}`",
            self.id
        ))
    }
}

fn kind_of(target: &AliasTarget) -> DefinitionKind {
    match target {
        AliasTarget::Tool(_) => DefinitionKind::Tool,
        AliasTarget::Prompt(_) => DefinitionKind::Prompt,
    }
}

fn names(catalog: &Catalog, kind: DefinitionKind) -> impl Iterator<Item = &str> {
    let in_force = catalog.definitions(kind).iter();
    let held = catalog.quarantined.iter().filter(move |held| held.kind == kind).map(|held| &held.definition);
    in_force.chain(held).map(|definition| &*definition.name)
}

/// A name that fits, made of one that need not.
fn proposal(name: &str) -> String {
    let legal = |character: char| {
        if is_exposable(character.encode_utf8(&mut [0; 4])) { character } else { '_' }
    };
    let proposal: String = name.chars().map(legal).take(EXPOSED_NAME_BYTES_MAX).collect();
    let proposal = proposal.trim_matches('_');
    if proposal.is_empty() { "NAME".to_owned() } else { proposal.to_owned() }
}

#[cfg(test)]
mod tests {
    use gantry_control_state::Command;
    use gantry_model::{Definition, Revision, document};
    use serde_json::{Value, json};

    use super::*;

    fn resource(kind: &str, name: &str, spec: Value) -> Resource {
        let mut fields = json!({"kind": kind, "name": name, "spec": spec});
        if kind != "Tenant" {
            fields["tenant"] = json!("acme");
        }
        document::parse(fields).expect("a valid document")
    }

    fn warned(endpoint: Value) -> Vec<String> {
        let mut state = State::default();
        let url = json!({"url": "http://127.0.0.1:1/mcp"});
        let set = vec![
            resource("Tenant", "acme", json!({})),
            resource("Server", "files", url.clone()),
            resource("Server", "time", url),
        ];
        state.apply(Revision(1), &Command::Apply(set));
        let mut catalog = Catalog::empty("acme".parse().expect("a name"), "files".parse().expect("a name"));
        catalog.tools = ["read_file", "lies die"].map(|name| Definition::new(name, "{}")).to_vec();
        catalog.prompts = vec![Definition::new("question", "{}")];
        state.apply(Revision(2), &Command::PutCatalog(catalog));
        warnings(&state, [resource("Endpoint", "main", endpoint)].iter())
    }

    #[test]
    fn names_that_do_not_fit_are_told_with_an_alias_that_does() {
        let told = warned(json!({"servers": ["files", "time"], "naming": "prefixed"}));
        let short = exposed_name(&"files".parse().expect("a name"), "lies die");
        assert_eq!(
            told,
            [
                format!(
                    "Endpoint acme/main: tool \"lies die\" of server files is offered as {short}, because a name \
                     has at most 64 characters of `A-Z a-z 0-9 _ . -`; give it another: \
                     `aliases: {{lies_die: {{server: files, tool: \"lies die\"}}}}`"
                ),
                "Endpoint acme/main: its names are not checked against server time, which no node has reported on yet"
                    .to_owned(),
            ]
        );
        let aliased = json!({"servers": ["files"], "naming": "prefixed",
            "aliases": {"lies": {"server": "files", "tool": "lies die"}}});
        assert_eq!(warned(aliased), Vec::<String>::new());
        assert_eq!(warned(json!({"servers": ["files"]})), Vec::<String>::new());
    }

    #[test]
    fn aliases_of_what_is_not_offered_are_told_with_the_nearest() {
        let told = warned(json!({"servers": ["files"], "naming": "aliased", "aliases": {
            "ask": {"server": "files", "prompt": "question"},
            "read": {"server": "files", "tool": "raed_file"},
            "other": {"server": "files", "prompt": "read_file"},
        }}));
        assert_eq!(
            told,
            [
                "Endpoint acme/main: alias other: server files offers no prompt \"read_file\"",
                "Endpoint acme/main: alias read: server files offers no tool \"raed_file\"; nearest: \"read_file\"",
            ]
        );
    }

    #[test]
    fn an_alias_that_takes_the_name_of_another_tool_is_told() {
        let told = warned(json!({"servers": ["files"], "naming": "prefixed", "aliases": {
            "files__read_file": {"server": "files", "tool": "lies die"},
        }}));
        let message = "Endpoint acme/main: alias files__read_file has the name of tool \"read_file\" of server files, \
                       which is not offered then";
        assert_eq!(told, [message]);
    }
}
