//! What documents have in them that a replay does not compare: it asks policies anew, and a call may end otherwise by more.
//!
//! Always holds: a document that is not named differs from what is stored in nothing but what policies decide by, or in what
//! no decision rests on.

use gantry_model::resource::{Inspection, Resource};
use gantry_model::{ResourceId, Spec};

use crate::documents::Document;

/// Those of the documents, each with what of it is not compared.
pub(super) fn unreplayed(documents: &[Document], stored: &[Resource]) -> Vec<String> {
    let of = |id: &ResourceId| stored.iter().find(|resource| resource.id() == *id);
    let told = |resource: &Resource| {
        let what = what(&resource.spec, of(&resource.id()).map(|resource| &resource.spec))?;
        Some(format!("{} {} ({what})", resource.spec.kind(), resource.name))
    };
    documents.iter().filter_map(|document| told(&document.resource)).collect()
}

/// What of a document is not compared and is not as it is stored.
fn what(spec: &Spec, stored: Option<&Spec>) -> Option<&'static str> {
    if stored == Some(spec) {
        return None;
    }
    let (is_other, what) = match (spec, stored) {
        (Spec::Policy(policy), _) => (policy.shadow, "a shadow decides nothing"),
        (Spec::Agent(agent), Some(Spec::Agent(stored))) => {
            (agent.identities != stored.identities, "which tokens mean it")
        }
        (Spec::Agent(agent), _) => (!agent.identities.is_empty(), "which tokens mean it"),
        (Spec::Provider(_), _) => (true, "which tokens it vouches for, and what their claims say"),
        (Spec::Endpoint(_), _) => (true, "who gets in, and what is offered there"),
        (Spec::Limit(_), _) => (true, "how many calls pass"),
        (Spec::Credential(_), _) => (true, "what servers are shown"),
        (Spec::Server(_) | Spec::Tenant(_), stored) => {
            let is_other = stored.is_some_and(|stored| bare(stored) != bare(spec));
            (is_other, "all but what its arguments are declared to be")
        }
    };
    is_other.then_some(what)
}

/// Without what a replay does compare: what arguments are declared to be.
fn bare(spec: &Spec) -> Spec {
    let mut bare = spec.clone();
    let inspection = match &mut bare {
        Spec::Server(server) => &mut server.inspection,
        Spec::Tenant(tenant) => &mut tenant.inspection,
        _ => return bare,
    };
    inspection.arguments.clear();
    inspection.tools.values_mut().for_each(|tool| tool.arguments.clear());
    inspection.tools.retain(|_, tool| *tool != Inspection::default());
    bare
}

#[cfg(test)]
mod tests {
    use gantry_model::document;
    use serde_json::{Value, json};

    use super::*;

    fn spec(kind: &str, spec: Value) -> Spec {
        let mut whole = json!({"kind": kind, "name": "x", "spec": spec});
        if kind != "Tenant" {
            whole["tenant"] = json!("acme");
        }
        document::parse(whole).expect("a document").spec
    }

    #[test]
    fn what_is_not_compared_is_named_and_what_is_compared_is_not() {
        let told = |kind: &str, new: Value, old: Option<Value>| {
            what(&spec(kind, new), old.map(|old| spec(kind, old)).as_ref())
        };
        let permit = "permit(principal, action, resource);";
        assert_eq!(told("Policy", json!({"cedar": permit}), None), None);
        assert_eq!(
            told("Policy", json!({"cedar": permit, "shadow": true}), Some(json!({"cedar": permit}))),
            Some("a shadow decides nothing")
        );
        let of_token = json!({"identities": [{"provider": "corp", "client": "x"}]});
        assert_eq!(told("Agent", json!({"groups": ["g"]}), Some(json!({}))), None);
        assert_eq!(told("Agent", of_token.clone(), Some(json!({}))), Some("which tokens mean it"));
        assert_eq!(told("Agent", of_token.clone(), None), Some("which tokens mean it"));
        assert_eq!(told("Agent", of_token.clone(), Some(of_token)), None);
        let provider = json!({"issuer": "https://id.example.com"});
        assert!(told("Provider", provider.clone(), None).is_some());
        assert_eq!(told("Provider", provider.clone(), Some(provider)), None);
        let endpoint = |servers: &[&str]| json!({"servers": servers});
        assert!(told("Endpoint", endpoint(&["a"]), Some(endpoint(&["b"]))).is_some());

        let server = |url: &str, inspection: Value| json!({"url": url, "inspection": inspection});
        let stored = || Some(server("https://a.example.com", json!({})));
        let declared = json!({"arguments": {"q": "sql"}, "tools": {"t": {"arguments": {"path": "path"}}}});
        assert_eq!(told("Server", server("https://a.example.com", declared.clone()), stored()), None);
        assert!(told("Server", server("https://b.example.com", declared), stored()).is_some());
        let blocks = json!({"filters": {"sql": "block"}});
        assert!(told("Server", server("https://a.example.com", blocks.clone()), stored()).is_some());
        assert!(told("Tenant", json!({"inspection": blocks}), Some(json!({}))).is_some());
        assert_eq!(told("Tenant", json!({"inspection": {"arguments": {"q": "sql"}}}), Some(json!({}))), None);
    }
}
