//! What `gantry dev` prints once it serves: where, with which keys, and what to try.
//!
//! Always holds: the commands run as printed, from the directory in which `gantry dev` was started.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Value, json};

use super::setup::{AGENT, RESTRICTIVE};
use crate::context::{CONTEXT_PATH, ContextFile};
use crate::output::Paint;

/// Everything that is told.
#[derive(Debug)]
pub(super) struct Announcement<'a> {
    /// What every other command finds.
    pub(super) context: &'a ContextFile,
    /// Where the context stands.
    pub(super) context_path: PathBuf,
    /// Whether the demo server is what is governed.
    pub(super) is_demo: bool,
    /// Whether the endpoints serve callers without a key.
    pub(super) is_anonymous: bool,
    /// The nodes; at least one.
    pub(super) nodes: Vec<NodeUrls>,
    /// Where the token stands by which more nodes join.
    pub(super) node_token_file: PathBuf,
}

/// Where one node serves the endpoints.
#[derive(Debug, Serialize)]
pub(super) struct NodeUrls {
    /// Its name.
    pub(super) name: String,
    /// URLs by endpoint name.
    pub(super) endpoints: BTreeMap<String, String>,
}

/// The one line of `--output json`.
#[derive(Debug, Serialize)]
struct Line<'a> {
    endpoint: &'a str,
    endpoints: &'a BTreeMap<String, String>,
    agent_key: &'a str,
    admin_address: &'a str,
    admin_token: &'a str,
    pid: u32,
    client_config: Value,
    tenant: &'a str,
    agent: &'static str,
    context: &'a Path,
    nodes: &'a [NodeUrls],
    node_token_file: &'a Path,
}

impl Announcement<'_> {
    /// One JSON object on one line.
    pub(super) fn json(&self) -> String {
        let line = Line {
            endpoint: self.endpoint(),
            endpoints: &self.context.endpoints,
            agent_key: self.agent_key(),
            admin_address: &self.context.admin_address,
            admin_token: self.context.admin_token.expose(),
            pid: std::process::id(),
            client_config: self.client_config(),
            tenant: &self.context.tenant,
            agent: AGENT,
            context: &self.context_path,
            nodes: &self.nodes,
            node_token_file: &self.node_token_file,
        };
        // Text keys and numbers only: it always has a JSON form.
        let mut text = serde_json::to_string(&line).unwrap_or_default();
        text.push('\n');
        text
    }

    /// The same for people.
    pub(super) fn text(&self, program: &str, paint: Paint) -> String {
        let context = self.context;
        let mut text = format!("{}\n\n", paint.bold("Gantry is ready."));
        text.push_str(&self.endpoint_lines());
        let anonymous =
            if self.is_anonymous { "; callers without a key are the agent anonymous" } else { "" };
        text.push_str(&format!("  agent key       {}\n", self.agent_key()));
        text.push_str(&format!("                  of agent {AGENT}, tenant {}{anonymous}\n", context.tenant));
        text.push_str(&format!("  admin address   {}\n", context.admin_address));
        text.push_str(&format!("  admin token     {}\n", context.admin_token.expose()));
        text.push_str(&format!("\n{}\n\n", paint.bold("Connect a client:")));
        for (name, url) in self.clients() {
            let header = format!("\"Authorization: Bearer {}\"", self.agent_key());
            text.push_str(&format!("  claude mcp add --transport http {name} {url} --header {header}\n"));
        }
        text.push_str("\nor, where a client reads JSON:\n\n");
        for line in crate::output::json(&self.client_config()).lines() {
            text.push_str(&format!("  {line}\n"));
        }
        text.push_str(&format!("\n{}\n\n", paint.bold("Try next, in another terminal:")));
        let commands = self.commands(program);
        let width = commands.iter().map(|(command, _)| command.chars().count()).max().unwrap_or(0);
        for (command, why) in commands {
            text.push_str(&format!("  {command:<width$}  {}\n", paint.cyan(&format!("# {why}"))));
        }
        text.push_str("\nCtrl-C stops it. The next start finds everything that this one stored.\n");
        text
    }

    fn endpoint_lines(&self) -> String {
        let endpoints = &self.context.endpoints;
        let mut text = format!("  endpoint        {}\n", self.endpoint());
        if endpoints.len() > 1 {
            text.push_str(&format!(
                "                  of server {}, which `tool call` takes unless\n",
                self.context.endpoint
            ));
            text.push_str("                  another is named with `--endpoint NAME`:\n");
        }
        for (name, url) in endpoints.iter().filter(|(name, _)| **name != self.context.endpoint) {
            text.push_str(&format!("                  {name}: {url}\n"));
        }
        for node in self.nodes.iter().skip(1) {
            text.push_str(&format!("  node {:<11}", node.name));
            let urls: Vec<_> = node.endpoints.values().map(String::as_str).collect();
            text.push_str(&format!("{}\n", urls.join("\n                  ")));
        }
        text
    }

    fn endpoint(&self) -> &str {
        self.context.endpoints.get(&self.context.endpoint).map_or("", String::as_str)
    }

    fn agent_key(&self) -> &str {
        self.context.agent_key().map_or("", |key| key.expose())
    }

    /// Name and URL of each endpoint, as a client's configuration names them.
    fn clients(&self) -> impl Iterator<Item = (&str, &String)> {
        let is_demo = self.is_demo;
        self.context
            .endpoints
            .iter()
            .map(move |(name, url)| (if is_demo { "gantry-demo" } else { name.as_str() }, url))
    }

    fn client_config(&self) -> Value {
        let authorization = format!("Bearer {}", self.agent_key());
        let servers: serde_json::Map<String, Value> = self
            .clients()
            .map(|(name, url)| {
                let entry = json!({"type": "http", "url": url, "headers": {"Authorization": authorization}});
                (name.to_owned(), entry)
            })
            .collect();
        json!({"mcpServers": servers})
    }

    fn commands(&self, program: &str) -> Vec<(String, String)> {
        let context = match self.context_path == Path::new(CONTEXT_PATH) {
            true => String::new(),
            false => format!(" --context {}", shell_words::quote(&self.context_path.to_string_lossy())),
        };
        let command = |verb: &str| format!("{program} {verb}{context}");
        if self.is_demo {
            return vec![
                (command("tool call read_note --arg id=1"), "allowed".to_owned()),
                (command("tool call delete_note --arg id=1"), format!("denied by the policy {RESTRICTIVE}")),
                (command("policy explain last"), "why it was denied".to_owned()),
            ];
        }
        vec![
            (command(&format!("tool ls --agent {AGENT}")), "what the agent may call".to_owned()),
            (command("get policies -o yaml"), "why; change it with `gantry apply -f FILE`".to_owned()),
            (command("audit tail --follow"), "every call as it happens".to_owned()),
        ]
    }
}

/// How the running program is named on a command line: `gantry` where the search path finds it, else its path,
/// relative below the working directory.
pub(super) fn program_name() -> String {
    let Ok(program) = std::env::current_exe() else {
        return "gantry".to_owned();
    };
    let search_path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&search_path)
        .filter(|directory| directory.is_absolute())
        .map(|directory| directory.join("gantry"))
        .find(|candidate| candidate.is_file());
    if found.and_then(|found| found.canonicalize().ok()).is_some_and(|found| found == program) {
        return "gantry".to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    let shown = match program.strip_prefix(&here) {
        Ok(below) => Path::new(".").join(below),
        Err(_) => program.clone(),
    };
    shell_words::quote(&shown.to_string_lossy()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::SecretText;

    fn context(endpoints: &[&str]) -> ContextFile {
        let url = |name: &str| (name.to_owned(), format!("http://127.0.0.1:8080/demo/{name}/mcp"));
        ContextFile {
            admin_address: "127.0.0.1:8081".to_owned(),
            admin_token: SecretText::new("token".to_owned()),
            tenant: "demo".to_owned(),
            endpoint: endpoints[0].to_owned(),
            endpoints: endpoints.iter().map(|name| url(name)).collect(),
            agent_keys: BTreeMap::from([("demo".to_owned(), SecretText::new("key".to_owned()))]),
            certificate: None,
        }
    }

    fn node(name: &str, port: u16, endpoints: &[&str]) -> NodeUrls {
        let url = |name: &str| (name.to_owned(), format!("http://127.0.0.1:{port}/demo/{name}/mcp"));
        NodeUrls { name: name.to_owned(), endpoints: endpoints.iter().map(|name| url(name)).collect() }
    }

    #[test]
    fn the_demo_is_told_with_three_commands_to_try() {
        let context = context(&["main"]);
        let announcement = Announcement {
            context: &context,
            context_path: CONTEXT_PATH.into(),
            is_demo: true,
            is_anonymous: false,
            nodes: vec![node("dev", 8080, &["main"])],
            node_token_file: ".gantry/node-token".into(),
        };
        let expected = r#"Gantry is ready.

  endpoint        http://127.0.0.1:8080/demo/main/mcp
  agent key       key
                  of agent demo-agent, tenant demo
  admin address   127.0.0.1:8081
  admin token     token

Connect a client:

  claude mcp add --transport http gantry-demo http://127.0.0.1:8080/demo/main/mcp --header "Authorization: Bearer key"

or, where a client reads JSON:

  {
    "mcpServers": {
      "gantry-demo": {
        "type": "http",
        "url": "http://127.0.0.1:8080/demo/main/mcp",
        "headers": {
          "Authorization": "Bearer key"
        }
      }
    }
  }

Try next, in another terminal:

  ./gantry tool call read_note --arg id=1    # allowed
  ./gantry tool call delete_note --arg id=1  # denied by the policy no-destructive-tools
  ./gantry policy explain last               # why it was denied

Ctrl-C stops it. The next start finds everything that this one stored.
"#;
        assert_eq!(announcement.text("./gantry", Paint::PLAIN), expected);
    }

    #[test]
    fn the_endpoint_that_is_meant_when_none_is_named_comes_first() {
        let context = context(&["b", "a"]);
        let announcement = Announcement {
            context: &context,
            context_path: CONTEXT_PATH.into(),
            is_demo: false,
            is_anonymous: false,
            nodes: vec![node("dev", 8080, &["a", "b"]), node("dev-2", 9000, &["a", "b"])],
            node_token_file: ".gantry/node-token".into(),
        };
        let expected = "  endpoint        http://127.0.0.1:8080/demo/b/mcp
                  of server b, which `tool call` takes unless
                  another is named with `--endpoint NAME`:
                  a: http://127.0.0.1:8080/demo/a/mcp
  node dev-2      http://127.0.0.1:9000/demo/a/mcp
                  http://127.0.0.1:9000/demo/b/mcp
";
        assert_eq!(announcement.endpoint_lines(), expected);
    }

    #[test]
    fn programs_are_told_in_one_line() -> Result<(), serde_json::Error> {
        let context = context(&["a", "b"]);
        let announcement = Announcement {
            context: &context,
            context_path: "/tmp/x/context.json".into(),
            is_demo: false,
            is_anonymous: true,
            nodes: vec![node("dev", 8080, &["a", "b"])],
            node_token_file: "/tmp/x/node-token".into(),
        };
        let text = announcement.json();
        assert_eq!(text.lines().count(), 1);
        let header = json!({"Authorization": "Bearer key"});
        let url = |name: &str| format!("http://127.0.0.1:8080/demo/{name}/mcp");
        let expected = json!({
            "endpoint": url("a"),
            "endpoints": {"a": url("a"), "b": url("b")},
            "agent_key": "key",
            "admin_address": "127.0.0.1:8081",
            "admin_token": "token",
            "pid": std::process::id(),
            "client_config": {"mcpServers": {
                "a": {"type": "http", "url": url("a"), "headers": header},
                "b": {"type": "http", "url": url("b"), "headers": header},
            }},
            "tenant": "demo",
            "agent": "demo-agent",
            "context": "/tmp/x/context.json",
            "nodes": [{"name": "dev", "endpoints": {"a": url("a"), "b": url("b")}}],
            "node_token_file": "/tmp/x/node-token",
        });
        assert_eq!(serde_json::from_str::<Value>(&text)?, expected);
        Ok(())
    }

    #[test]
    fn commands_name_a_context_that_would_not_be_found() {
        let context = context(&["a"]);
        let announcement = Announcement {
            context: &context,
            context_path: "my data/context.json".into(),
            is_demo: false,
            is_anonymous: false,
            nodes: vec![node("dev", 8080, &["main"])],
            node_token_file: ".gantry/node-token".into(),
        };
        let commands: Vec<_> =
            announcement.commands("gantry").into_iter().map(|(command, _)| command).collect();
        assert_eq!(
            commands,
            [
                "gantry tool ls --agent demo-agent --context 'my data/context.json'",
                "gantry get policies -o yaml --context 'my data/context.json'",
                "gantry audit tail --follow --context 'my data/context.json'",
            ]
        );
    }
}
