//! The servers of the matrix: how each is started, what a client is to do with it, and what must come of that.

use std::path::Path;

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::process::Command;

use super::{Plan, Step};
use crate::dev::Options;
use crate::fixture;
use crate::peers::{Everything, InstallError, Node, Python, Scripted, Speech};
use crate::process::{ProcessError, run};

/// The time `git init` may take.
const GIT_TIME_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// A server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Server {
    /// The fixture, on the Rust SDK: every revision.
    Fixture,
    /// The Python SDK: every revision.
    Python,
    /// The TypeScript SDK 2, told to refuse everything but 2026-07-28.
    TypeScript,
    /// The reference server over Streamable HTTP: up to 2025-11-25.
    EverythingHttp,
    /// The same over HTTP+SSE of 2024-11-05.
    EverythingSse,
    /// The same over stdio.
    EverythingStdio,
    /// `server-memory` over stdio: up to 2025-11-25.
    Memory,
    /// `mcp-server-time` over stdio: every revision.
    Time,
    /// `mcp-server-git` over stdio: every revision.
    Git,
}

/// All servers, running; they end when it is dropped.
#[derive(Debug)]
pub struct Servers {
    fixture: fixture::Server,
    python: Scripted,
    typescript: Scripted,
    everything: Everything,
    everything_sse: Everything,
    everything_stdio: Vec<String>,
    node: Node,
    python_packages: Python,
    folder: TempDir,
}

impl Server {
    /// All of them, in the order of the columns.
    pub const ALL: [Self; 9] = [
        Self::Fixture,
        Self::Python,
        Self::TypeScript,
        Self::EverythingHttp,
        Self::EverythingSse,
        Self::EverythingStdio,
        Self::Memory,
        Self::Time,
        Self::Git,
    ];

    /// Its name as a server of the gateway.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Fixture => "fixture",
            Self::Python => "python",
            Self::TypeScript => "typescript",
            Self::EverythingHttp => "everything",
            Self::EverythingSse => "everything-sse",
            Self::EverythingStdio => "everything-stdio",
            Self::Memory => "memory",
            Self::Time => "time",
            Self::Git => "git",
        }
    }

    /// The head of its column.
    #[must_use]
    pub fn title(self) -> &'static str {
        match self {
            Self::Fixture => "rmcp fixture, both eras",
            Self::Python => "Python, both eras",
            Self::TypeScript => "TS v2, 2026-07-28 only",
            Self::EverythingHttp => "server-everything, legacy HTTP",
            Self::EverythingSse => "server-everything, HTTP+SSE",
            Self::EverythingStdio => "server-everything, stdio",
            Self::Memory => "server-memory, stdio",
            Self::Time => "mcp-server-time, stdio",
            Self::Git => "mcp-server-git, stdio",
        }
    }

    /// Whether it speaks 2026-07-28.
    #[must_use]
    pub fn is_modern(self) -> bool {
        matches!(self, Self::Fixture | Self::Python | Self::TypeScript | Self::Time | Self::Git)
    }

    /// Whether it speaks the revisions with sessions.
    #[must_use]
    pub fn is_legacy(self) -> bool {
        self != Self::TypeScript
    }

    /// What the result of a step must say somewhere; `None`: the server offers nothing of the kind.
    #[must_use]
    pub fn expected(self, step: Step) -> Option<&'static str> {
        let [list, call, progress, prompt, resource, elicit, sample] = self.expectations();
        match step {
            Step::List => list,
            Step::Call => call,
            Step::Progress => progress,
            Step::Prompt => prompt,
            Step::Resource => resource,
            Step::Elicit => elicit,
            Step::Sample => sample,
        }
    }

    fn expectations(self) -> [Option<&'static str>; 7] {
        let own = |call| {
            let said = ["counted", "Good morning", "A note", "Hello, Ada!", "The model says Paris"];
            let [progress, prompt, resource, elicit, sample] = said.map(Some);
            [Some("ask_model"), Some(call), progress, prompt, resource, elicit, sample]
        };
        let only = |list, call| [Some(list), Some(call), None, None, None, None, None];
        match self {
            Self::Fixture => [
                Some("test_tool_with_progress"),
                Some("{\"sum\":5}"),
                Some("Tool with progress executed successfully"),
                Some("This is a simple prompt"),
                Some("test://static-text"),
                Some("action=accept"),
                Some("LLM response: Paris"),
            ],
            Self::Python | Self::TypeScript => own("5"),
            Self::EverythingHttp | Self::EverythingSse | Self::EverythingStdio => [
                Some("get-resource-links"),
                Some("Echo: hi"),
                Some("Long running operation completed"),
                Some("simple prompt without arguments"),
                Some("demo://resource/dynamic/text/1"),
                Some("User provided the requested information"),
                Some("Paris"),
            ],
            Self::Memory => only("read_graph", "entities"),
            Self::Time => only("get_current_time", "UTC"),
            Self::Git => only("git_status", "No commits yet"),
        }
    }

    fn steps(self, repository: &Path) -> Map<String, Value> {
        let tool = |name: &str, arguments: Value| json!({"name": name, "arguments": arguments});
        let steps = match self {
            Self::Fixture => json!({
                "call": tool("add", json!({"a": 2, "b": 3})),
                "progress": tool("test_tool_with_progress", json!({})),
                "prompt": {"name": "test_simple_prompt"},
                "resource": {"uri": "test://static-text"},
                "elicit": tool("test_elicitation", json!({"message": "Who?"})),
                "sample": tool("test_sampling", json!({"prompt": "The capital of France?"})),
            }),
            Self::Python | Self::TypeScript => json!({
                "call": tool("add", json!({"a": 2, "b": 3})),
                "progress": tool("count", json!({})),
                "prompt": {"name": "greeting"},
                "resource": {"uri": "test://note"},
                "elicit": tool("ask_user", json!({})),
                "sample": tool("ask_model", json!({})),
            }),
            Self::EverythingHttp | Self::EverythingSse | Self::EverythingStdio => json!({
                "call": tool("echo", json!({"message": "hi"})),
                "progress": tool("trigger-long-running-operation", json!({"duration": 0.2, "steps": 3})),
                "prompt": {"name": "simple-prompt"},
                "resource": {"uri": "demo://resource/dynamic/text/1"},
                "elicit": tool("trigger-elicitation-request", json!({})),
                "sample": tool("trigger-sampling-request", json!({"prompt": "hi", "maxTokens": 10})),
            }),
            Self::Memory => json!({"call": tool("read_graph", json!({}))}),
            Self::Time => json!({"call": tool("get_current_time", json!({"timezone": "UTC"}))}),
            Self::Git => json!({"call": tool("git_status", json!({"repo_path": repository}))}),
        };
        match steps {
            Value::Object(steps) => steps,
            _ => Map::new(),
        }
    }

    fn content(self) -> Value {
        match self {
            Self::Fixture => json!({"username": "ada", "email": "ada@example.com"}),
            _ => json!({"name": "Ada"}),
        }
    }
}

impl Servers {
    /// Starts all that listen; the gateway starts those over stdio.
    ///
    /// # Errors
    /// When one cannot be installed or does not start.
    ///
    /// # Panics
    /// When the fixture does not start, or there is no temporary folder.
    pub async fn start() -> Result<Self, InstallError> {
        let folder = TempDir::new().expect("a temporary folder");
        let mut git = Command::new("git");
        git.args(["init", "--quiet"]).arg(folder.path().join("repository"));
        let made: Result<_, ProcessError> = run(git, GIT_TIME_MAX).await;
        assert!(made?.status.success(), "git makes a repository");
        let node = Node::install().await?;
        let python_packages = Python::install().await?;
        Ok(Self {
            fixture: fixture::Server::start(0).await.expect("a fixture server"),
            python: Scripted::start(python_packages.command("python-server.py")).await?,
            typescript: Scripted::start(node.command("typescript-server.mjs")).await?,
            everything: Everything::start().await?,
            everything_sse: Everything::start_as(Speech::Sse).await?,
            everything_stdio: Everything::stdio_command().await?,
            node,
            python_packages,
            folder,
        })
    }

    /// How `gantry dev` is told of all of them.
    #[must_use]
    pub fn options(&self) -> Options {
        let mut options = Options::default();
        for server in Server::ALL {
            match self.url(server) {
                Some(url) => options.servers.push((server.name().to_owned(), url)),
                None => options.stdio.push((server.name().to_owned(), self.command_line(server))),
            }
        }
        options
    }

    /// Where a server is reached directly; `None` for one over stdio.
    #[must_use]
    pub fn url(&self, server: Server) -> Option<String> {
        match server {
            Server::Fixture => Some(self.fixture.url()),
            Server::Python => Some(self.python.url().to_owned()),
            Server::TypeScript => Some(self.typescript.url().to_owned()),
            Server::EverythingHttp => Some(self.everything.url().to_owned()),
            Server::EverythingSse => Some(self.everything_sse.url().to_owned()),
            Server::EverythingStdio | Server::Memory | Server::Time | Server::Git => None,
        }
    }

    /// What a client is to do with a server at a URL.
    #[must_use]
    pub fn plan(&self, server: Server, url: String, key: Option<String>) -> Plan {
        let steps = server.steps(&self.repository());
        Plan { name: server.name(), url, key, steps, content: server.content() }
    }

    fn repository(&self) -> std::path::PathBuf {
        self.folder.path().join("repository")
    }

    fn command_line(&self, server: Server) -> String {
        let python = |module: &str| {
            let program = self.python_packages.program().to_string_lossy().into_owned();
            vec![program, "-m".to_owned(), module.to_owned()]
        };
        let words = match server {
            Server::Memory => {
                let file = self.folder.path().join("memory.jsonl");
                let script = self.node.path("node_modules/@modelcontextprotocol/server-memory/dist/index.js");
                let variable = format!("MEMORY_FILE_PATH={}", file.display());
                let program = self.node.program().to_string_lossy().into_owned();
                vec!["env".to_owned(), variable, program, script.to_string_lossy().into_owned()]
            }
            Server::Time => {
                [python("mcp_server_time"), vec!["--local-timezone".into(), "UTC".into()]].concat()
            }
            Server::Git => {
                let repository = self.repository().to_string_lossy().into_owned();
                [python("mcp_server_git"), vec!["--repository".into(), repository]].concat()
            }
            _ => self.everything_stdio.clone(),
        };
        words.join(" ")
    }
}
