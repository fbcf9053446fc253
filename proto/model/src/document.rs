//! Documents: the `kind`, `tenant`, `name`, `spec` that an admin writes, and resources made from them.
//!
//! Always holds: what [`parse`] returns passed [`Spec::check`]; whatever it refuses is named by its path, with the
//! nearest known name. It reads a parsed value, not text: YAML is the caller's.

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::name::{Name, TenantName};
use crate::nearest::nearest;
use crate::resource::{CLIENT_AUTHORITIES, Kind, ProviderSpec, Resource, ServerDocument, ServerSpec, Spec};

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {message}")]
pub struct DocumentError {
    /// Where, such as `spec.servers[0]`; empty for the document itself.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// The nearest known name, when a name was unknown.
    pub nearest: Option<String>,
}

const FIELDS: [&str; 4] = ["kind", "tenant", "name", "spec"];

/// Makes a resource of a document.
pub fn parse(document: Value) -> Result<Resource, DocumentError> {
    let Value::Object(mut fields) = document else {
        return Err(error("", "a document is a mapping with kind, tenant, name and spec"));
    };
    if let Some(unknown) = fields.keys().find(|field| !FIELDS.contains(&field.as_str())) {
        return Err(DocumentError {
            path: unknown.clone(),
            message: "unknown field".to_owned(),
            nearest: nearest(unknown, FIELDS).map(str::to_owned),
        });
    }
    let kind = parse_kind(fields.remove("kind"))?;
    let name: Name = parse_name("name", fields.remove("name"))?;
    let tenant = match (kind, fields.remove("tenant")) {
        (Kind::Tenant, None) => TenantName::from(name.clone()),
        (Kind::Tenant, Some(tenant)) if tenant.as_str() == Some(name.as_str()) => {
            TenantName::from(name.clone())
        }
        (Kind::Tenant, Some(_)) => {
            return Err(error("tenant", "a tenant belongs to itself; leave the field out"));
        }
        (_, tenant) => TenantName::from(parse_name("tenant", tenant)?),
    };
    let spec = match fields.remove("spec") {
        None | Some(Value::Null) => Value::Object(serde_json::Map::new()),
        Some(spec) => spec,
    };
    let spec = parse_spec(kind, spec)?;
    spec.check().map_err(|problem| error(&format!("spec.{}", problem.path), &problem.message))?;
    Ok(Resource { tenant, name, spec })
}

/// The document of a resource, in the order of its fields.
#[derive(Debug, Serialize)]
pub struct Document {
    kind: Kind,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant: Option<TenantName>,
    name: Name,
    spec: Value,
}

impl From<&Resource> for Document {
    fn from(resource: &Resource) -> Document {
        let spec = match &resource.spec {
            Spec::Tenant(spec) => serde_json::to_value(spec),
            Spec::Server(spec) => serde_json::to_value(ServerDocument::from(spec)),
            Spec::Endpoint(spec) => serde_json::to_value(spec),
            Spec::Agent(spec) => serde_json::to_value(spec),
            Spec::Policy(spec) => serde_json::to_value(spec),
            Spec::Limit(spec) => serde_json::to_value(spec),
            Spec::Credential(spec) => serde_json::to_value(spec),
            Spec::Provider(spec) => serde_json::to_value(spec),
        };
        Document {
            kind: resource.spec.kind(),
            tenant: (resource.spec.kind() != Kind::Tenant).then(|| resource.tenant.clone()),
            name: resource.name.clone(),
            // A specification has text keys and finite numbers only, so it always has a JSON form.
            spec: spec.unwrap_or(Value::Null),
        }
    }
}

fn parse_kind(value: Option<Value>) -> Result<Kind, DocumentError> {
    let known = || Kind::ALL.into_iter().map(Kind::as_str);
    match value {
        Some(Value::String(text)) => {
            Kind::ALL.into_iter().find(|kind| kind.as_str() == text).ok_or_else(|| DocumentError {
                path: "kind".to_owned(),
                message: format!("unknown kind {text:?}"),
                nearest: nearest(&text, known()).map(str::to_owned),
            })
        }
        Some(_) => Err(error("kind", "must be a text")),
        None => Err(error("kind", &format!("is missing; one of {}", known().collect::<Vec<_>>().join(", ")))),
    }
}

fn parse_name(path: &str, value: Option<Value>) -> Result<Name, DocumentError> {
    match value {
        Some(Value::String(text)) => {
            text.parse().map_err(|problem| error(path, &format!("{text:?}: {problem}")))
        }
        Some(_) => Err(error(path, "must be a text")),
        None => Err(error(path, "is missing")),
    }
}

fn parse_spec(kind: Kind, spec: Value) -> Result<Spec, DocumentError> {
    Ok(match kind {
        Kind::Tenant => Spec::Tenant(typed(spec)?),
        Kind::Server => {
            let document: ServerDocument = typed(spec)?;
            let spec = ServerSpec::try_from(document)
                .map_err(|problem| error(&format!("spec.{}", problem.path), &problem.message))?;
            Spec::Server(spec)
        }
        Kind::Endpoint => Spec::Endpoint(typed(spec)?),
        Kind::Agent => Spec::Agent(typed(spec)?),
        Kind::Policy => Spec::Policy(typed(spec)?),
        Kind::Limit => Spec::Limit(typed(spec)?),
        Kind::Credential => Spec::Credential(typed(spec)?),
        Kind::Provider if spec.get(CLIENT_AUTHORITIES).is_some() => {
            Spec::Provider(ProviderSpec::Authority(typed(spec)?))
        }
        Kind::Provider => Spec::Provider(ProviderSpec::Issuer(typed(spec)?)),
    })
}

fn typed<T: DeserializeOwned>(spec: Value) -> Result<T, DocumentError> {
    serde_path_to_error::deserialize(spec).map_err(|problem| {
        let message = problem.inner().to_string();
        let path = match problem.path().to_string().as_str() {
            "." => "spec".to_owned(),
            inner => format!("spec.{inner}"),
        };
        let nearest = unknown_and_known(&message).and_then(|(unknown, known)| nearest(unknown, known));
        DocumentError { nearest: nearest.map(str::to_owned), path, message }
    })
}

/// serde tells of an unknown field only in words: "unknown field `x`, expected one of `a`, `b`".
fn unknown_and_known(message: &str) -> Option<(&str, Vec<&str>)> {
    let rest =
        message.strip_prefix("unknown field `").or_else(|| message.strip_prefix("unknown variant `"))?;
    let mut quoted = rest.split('`');
    let unknown = quoted.next()?;
    Some((unknown, quoted.skip(1).step_by(2).collect()))
}

fn error(path: &str, message: &str) -> DocumentError {
    DocumentError { path: path.to_owned(), message: message.to_owned(), nearest: None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(document: Value) -> (String, String, Option<String>) {
        match parse(document) {
            Ok(resource) => panic!("accepted: {resource:?}"),
            Err(error) => (error.path, error.message, error.nearest),
        }
    }

    #[test]
    fn a_document_survives_its_resource() -> Result<(), Box<dyn std::error::Error>> {
        let documents = [
            json!({"kind": "Tenant", "name": "acme", "spec": {"description": "x"}}),
            json!({"kind": "Tenant", "name": "acme",
                "spec": {"staleness": {"fail_closed_after_seconds": 3600}}}),
            json!({"kind": "Server", "tenant": "acme", "name": "files",
                "spec": {"url": "http://127.0.0.1:9/mcp", "credential": "token", "timeout_ms": 5}}),
            json!({"kind": "Server", "tenant": "acme", "name": "time",
                "spec": {"command": ["uvx", "time"], "env": {"TZ": "UTC"}, "timeout_ms": 60000}}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servers": ["files"]}}),
            json!({"kind": "Server", "tenant": "acme", "name": "time", "spec": {"command": ["uvx"],
                "timeout_ms": 5, "pin": "review", "concurrency": 8, "processes": 2, "memory_mb": 512}}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "both", "spec": {"servers": ["files", "time"],
                "naming": "prefixed", "aliases": {"ask": {"server": "time", "prompt": "question"},
                "read": {"server": "files", "tool": "read_file"}}}}),
            json!({"kind": "Agent", "tenant": "acme", "name": "bot", "spec": {"groups": ["ops"]}}),
            json!({"kind": "Policy", "tenant": "acme", "name": "all", "spec": {"cedar": "permit(principal, action, resource);"}}),
            json!({"kind": "Provider", "tenant": "acme", "name": "corp", "spec": {
                "issuer": "https://id.example.com", "algorithms": ["ES256"], "audiences": ["mcp"],
                "clock_skew_seconds": 5, "claims": {"agent": ["azp"], "user": ["sub"], "groups": [],
                "scopes": ["scp"], "tags": {"department": "/org/department"}}}}),
            json!({"kind": "Agent", "tenant": "acme", "name": "known",
                "spec": {"identities": [{"provider": "corp", "client": "x"}, {"provider": "corp"}]}}),
            json!({"kind": "Tenant", "name": "acme",
                "spec": {"public_url": "https://mcp.example.com"}}),
            json!({"kind": "Tenant", "name": "acme", "spec": {"breaker": {"open_seconds": 5,
                "repeats": {"calls": 9, "window_seconds": 60},
                "failures": {"percent": 80, "calls": 20, "window_seconds": 30}}}}),
            json!({"kind": "Endpoint", "tenant": "acme", "name": "strict", "spec": {"servers": ["files"],
                "authentication": {"keys": false, "providers": ["corp"], "required_scopes": ["mcp"],
                "tool_scopes": {"rm": ["admin"]}}}}),
            json!({"kind": "Limit", "tenant": "acme", "name": "slow",
                "spec": {"per": ["agent", "tool"], "calls": 5, "window_seconds": 60, "burst": 2}}),
            json!({"kind": "Credential", "tenant": "acme", "name": "token",
                "spec": {"header": "authorization", "prefix": "Bearer "}}),
        ];
        for document in documents {
            let resource = parse(document.clone())?;
            assert_eq!(serde_json::to_value(Document::from(&resource))?, document);
        }
        Ok(())
    }

    #[test]
    fn an_unknown_field_is_refused_with_its_path_and_the_nearest_known_one() {
        let (path, message, nearest) = refused(
            json!({"kind": "Endpoint", "tenant": "acme", "name": "main", "spec": {"servres": ["files"]}}),
        );
        assert_eq!((path.as_str(), nearest.as_deref()), ("spec.servres", Some("servers")));
        assert!(message.starts_with("unknown field `servres`"), "{message}");
        let (path, _, nearest) = refused(json!({"kind": "Sever", "name": "x"}));
        assert_eq!((path.as_str(), nearest.as_deref()), ("kind", Some("Server")));
        let (path, _, nearest) = refused(json!({"kind": "Tenant", "name": "x", "spce": {}}));
        assert_eq!((path.as_str(), nearest.as_deref()), ("spce", Some("spec")));
    }

    #[test]
    fn a_broken_rule_is_named_by_its_field() {
        let endpoint =
            json!({"kind": "Endpoint", "tenant": "a", "name": "b", "spec": {"servers": ["x", "y"]}});
        assert_eq!(refused(endpoint).0, "spec.servers");
        let server = json!({"kind": "Server", "tenant": "a", "name": "b", "spec": {}});
        assert_eq!(refused(server).0, "spec.url");
        let secret = json!({"kind": "Server", "tenant": "a", "name": "b", "spec": {"url": "http://u:p@h/"}});
        assert_eq!(refused(secret).0, "spec.url");
        for header in ["mcp-session-id", "host", "last-event-id", "keep-alive", "trailer", "user-agent"] {
            let spec = json!({"header": header});
            let credential = json!({"kind": "Credential", "tenant": "a", "name": "b", "spec": spec});
            assert_eq!(refused(credential).0, "spec.header", "{header}");
        }
        let name = json!({"kind": "Agent", "tenant": "a", "name": "B"});
        assert_eq!(refused(name).0, "name");
    }

    #[test]
    fn what_belongs_to_a_command_is_refused_beside_a_url() {
        let url = json!({"url": "http://h/"});
        for (field, value) in [("processes", json!(2)), ("memory_mb", json!(64)), ("env", json!({"A": "b"}))]
        {
            let mut spec = url.clone();
            spec[field] = value;
            let (path, message, _) =
                refused(json!({"kind": "Server", "tenant": "a", "name": "b", "spec": spec}));
            assert_eq!(
                (path, message.as_str()),
                (format!("spec.{field}"), "belongs to a `command`, not to a `url`")
            );
        }
        for (field, value) in [
            ("concurrency", json!(0)),
            ("concurrency", json!(4097)),
            ("processes", json!(257)),
            ("memory_mb", json!(1)),
        ] {
            let spec = json!({"command": ["x"], field: value});
            let server = json!({"kind": "Server", "tenant": "a", "name": "b", "spec": spec});
            assert_eq!(refused(server).0, format!("spec.{field}"));
        }
        let pin =
            json!({"kind": "Server", "tenant": "a", "name": "b", "spec": {"command": ["x"], "pin": "reviw"}});
        let (path, _, nearest) = refused(pin);
        assert_eq!((path.as_str(), nearest.as_deref()), ("spec.pin", Some("review")));
    }

    #[test]
    fn a_refused_endpoint_names_the_place() {
        let long = "x".repeat(65);
        let cases = [
            (json!({"servers": []}), "spec.servers"),
            (json!({"servers": ["x", "y"], "naming": "bare"}), "spec.servers"),
            (json!({"servers": ["x", "x"], "naming": "prefixed"}), "spec.servers[1]"),
            (json!({"servers": ["x"], "naming": "both"}), "spec.naming"),
            (json!({"servers": ["x"], "aliases": {"read": {"server": "x", "tool": "r"}}}), "spec.aliases"),
            (alias("read", json!({"server": "y", "tool": "r"})), "spec.aliases.read.server"),
            (alias("read", json!({"server": "x"})), "spec.aliases.read"),
            (alias("read", json!({"server": "x", "tool": "r", "prompt": "r"})), "spec.aliases.read"),
            (alias("read", json!({"server": "x", "tool": ""})), "spec.aliases.read.tool"),
            (alias("read", json!({"server": "x", "tol": "r"})), "spec.aliases.read.tol"),
            (alias("re ad", json!({"server": "x", "tool": "r"})), "spec.aliases.re ad"),
            (alias(&long, json!({"server": "x", "tool": "r"})), &format!("spec.aliases.{long}")),
        ];
        for (spec, path) in cases {
            let endpoint = json!({"kind": "Endpoint", "tenant": "a", "name": "b", "spec": spec});
            assert_eq!(refused(endpoint.clone()).0, path, "{endpoint}");
        }
    }

    fn alias(name: &str, alias: Value) -> Value {
        json!({"servers": ["x"], "naming": "aliased", "aliases": {name: alias}})
    }
}
