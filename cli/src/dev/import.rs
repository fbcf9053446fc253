//! `mcp.json`: the `mcpServers` that MCP clients keep, made into planned servers.
//!
//! Always holds: a secret of the file becomes a vaulted secret and is not printed; what cannot be taken over is
//! told in a note, never dropped in silence. `${NAME}` and `${NAME:-default}` are filled from the environment.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use gantry_model::Secret;
use gantry_model::resource::{CredentialSpec, Transport};
use serde::Deserialize;
use serde_json::Value;
use url::Url;

use super::plan::PlannedSecret;
use crate::failure::Failure;

/// Headers that every client sends by itself: they say nothing about the server.
const HEADERS_OF_CLIENTS: [&str; 4] = ["accept", "content-type", "user-agent", "mcp-protocol-version"];

/// What a file has.
#[derive(Debug, Default)]
pub(super) struct Imported {
    /// The servers that can be taken over.
    pub(super) servers: Vec<ImportedServer>,
    /// What cannot.
    pub(super) notes: Vec<String>,
}

/// A server of the file, under the name that it has there.
#[derive(Debug)]
pub(super) struct ImportedServer {
    /// Its name in the file.
    pub(super) name: String,
    /// How it is reached.
    pub(super) transport: Transport,
    /// The secret of its header.
    pub(super) secret: Option<PlannedSecret>,
}

#[derive(Deserialize)]
struct File {
    #[serde(rename = "mcpServers")]
    servers: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    command: Option<String>,
    #[serde(default)]
    args: Vec<String>,
    #[serde(default)]
    env: BTreeMap<String, String>,
    #[serde(default)]
    disabled: bool,
    #[serde(flatten)]
    others: BTreeMap<String, Value>,
}

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<Imported, Failure> {
    let next = "name a JSON file of the form {\"mcpServers\": {\"NAME\": {\"url\": ...}}}";
    let text = fs::read_to_string(path)
        .map_err(|error| Failure::error(format!("{} cannot be read: {error}", path.display()), next))?;
    let environment = |name: &str| std::env::var(name).ok();
    parse(&text, &environment).map_err(|reason| Failure::error(format!("{}: {reason}", path.display()), next))
}

fn parse(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<Imported, String> {
    let file: File = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let mut imported = Imported::default();
    for (name, entry) in file.servers {
        if entry.disabled {
            imported.notes.push(format!("{name} is disabled in the file and left out"));
            continue;
        }
        for field in entry.others.keys() {
            imported.notes.push(format!("{name}: the field {field:?} has no counterpart and is left out"));
        }
        let server = server(name.clone(), entry, environment, &mut imported.notes)
            .map_err(|reason| format!("{name}: {reason}"))?;
        imported.servers.push(server);
    }
    Ok(imported)
}

fn server(
    name: String,
    entry: Entry,
    environment: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<ImportedServer, String> {
    match (entry.url, entry.command) {
        (Some(url), None) => {
            if entry.kind.as_deref() == Some("sse") {
                notes.push(format!(
                    "{name} is of type sse, the transport of 2024; it is called as Streamable HTTP, which it may not speak"
                ));
            }
            let url = expand(&url, environment)?;
            let url = Url::parse(&url).map_err(|error| format!("url: {error}"))?;
            let secret = secret_of(&name, entry.headers, environment, notes)?;
            Ok(ImportedServer { name, transport: Transport::Http { url }, secret })
        }
        (None, Some(command)) => {
            let mut words = vec![expand(&command, environment)?];
            for argument in &entry.args {
                words.push(expand(argument, environment)?);
            }
            let mut variables = BTreeMap::new();
            for (variable, value) in &entry.env {
                variables.insert(variable.clone(), expand(value, environment)?);
            }
            if !variables.is_empty() {
                let names: Vec<_> = variables.keys().map(String::as_str).collect();
                notes.push(format!(
                    "{name}: the values of {} are stored in the clear and shown by `gantry get`",
                    names.join(", ")
                ));
            }
            let transport = Transport::Stdio { command: words, environment: variables };
            Ok(ImportedServer { name, transport, secret: None })
        }
        (Some(_), Some(_)) => Err("has a url and a command; a server has one of them".to_owned()),
        (None, None) => Err("has neither a url nor a command".to_owned()),
    }
}

/// The one header that becomes a credential: `Authorization` before any other.
fn secret_of(
    name: &str,
    headers: BTreeMap<String, String>,
    environment: &dyn Fn(&str) -> Option<String>,
    notes: &mut Vec<String>,
) -> Result<Option<PlannedSecret>, String> {
    let mut candidates: Vec<(String, String)> = headers
        .into_iter()
        .map(|(header, value)| (header.to_ascii_lowercase(), value))
        .filter(|(header, _)| !HEADERS_OF_CLIENTS.contains(&header.as_str()))
        .collect();
    candidates.sort_by_key(|(header, _)| (header != "authorization", header.clone()));
    let mut candidates = candidates.into_iter();
    let Some((header, value)) = candidates.next() else {
        return Ok(None);
    };
    for (left_out, _) in candidates {
        notes.push(format!("{name}: a server has one credential; the header {left_out} is left out"));
    }
    let value = expand(&value, environment)?;
    let (prefix, secret) = match value.split_once(' ') {
        Some((scheme, secret)) if header == "authorization" => {
            (format!("{scheme} "), secret.trim().to_owned())
        }
        Some(_) | None => (String::new(), value),
    };
    if secret.is_empty() {
        return Err(format!("the header {header} is empty"));
    }
    let spec = CredentialSpec { header, prefix };
    Ok(Some(PlannedSecret { spec, value: Secret::new(secret) }))
}

/// Fills `${NAME}` and `${NAME:-default}`.
fn expand(text: &str, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        let (inside, behind) = after.split_once('}').ok_or("`${` has no `}`")?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        match (environment(name), default) {
            (Some(value), _) => filled.push_str(&value),
            (None, Some(default)) => filled.push_str(default),
            (None, None) => return Err(format!("the environment variable {name} is not set")),
        }
        rest = behind;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(name: &str) -> Option<String> {
        (name == "TOKEN").then(|| "t0k".to_owned())
    }

    #[test]
    fn urls_and_commands_are_taken_over() -> Result<(), String> {
        let text = r#"{"mcpServers": {
            "Files": {"command": "npx", "args": ["-y", "files", "${DIR:-/tmp}"], "env": {"KEY": "${TOKEN}"}},
            "hub": {"type": "http", "url": "https://hub.example/mcp",
                    "headers": {"Authorization": "Bearer ${TOKEN}", "Accept": "*/*", "X-Org": "acme"}},
            "off": {"command": "x", "disabled": true},
            "plain": {"url": "http://127.0.0.1:1/mcp", "timeout": 5}
        }}"#;
        let imported = parse(text, &environment)?;
        let names: Vec<_> = imported.servers.iter().map(|server| server.name.as_str()).collect();
        assert_eq!(names, ["Files", "hub", "plain"]);
        assert_eq!(
            imported.servers[0].transport,
            Transport::Stdio {
                command: ["npx", "-y", "files", "/tmp"].map(str::to_owned).to_vec(),
                environment: BTreeMap::from([("KEY".to_owned(), "t0k".to_owned())]),
            }
        );
        let secret = imported.servers[1].secret.as_ref().ok_or("no secret")?;
        let spec = CredentialSpec { header: "authorization".to_owned(), prefix: "Bearer ".to_owned() };
        assert_eq!((&secret.spec, secret.value.expose().as_str()), (&spec, "t0k"));
        assert!(imported.servers[2].secret.is_none());
        assert_eq!(
            imported.notes,
            [
                "Files: the values of KEY are stored in the clear and shown by `gantry get`",
                "hub: a server has one credential; the header x-org is left out",
                "off is disabled in the file and left out",
                "plain: the field \"timeout\" has no counterpart and is left out",
            ]
        );
        assert!(!format!("{imported:?}").contains("Bearer t0k"));
        Ok(())
    }

    #[test]
    fn what_cannot_be_a_server_is_refused_by_its_name() {
        let refused =
            |entry: &str| parse(&format!(r#"{{"mcpServers": {{"a": {entry}}}}}"#), &environment).err();
        let expected = |reason: &str| Some(format!("a: {reason}"));
        assert_eq!(refused("{}"), expected("has neither a url nor a command"));
        assert_eq!(
            refused(r#"{"url": "http://x/", "command": "y"}"#),
            expected("has a url and a command; a server has one of them")
        );
        assert_eq!(
            refused(r#"{"url": "http://x/${NOPE}"}"#),
            expected("the environment variable NOPE is not set")
        );
        assert_eq!(refused(r#"{"url": "nowhere"}"#), expected("url: relative URL without a base"));
    }
}
