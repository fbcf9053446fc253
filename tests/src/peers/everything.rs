//! The reference server `@modelcontextprotocol/server-everything`: written by others, legacy only.

use std::time::Duration;

use super::install::{InstallError, Node};
use crate::process::{ProcessError, Running, Stream};

/// The time it may take to listen; it takes 1 s.
const START_TIME_MAX: Duration = Duration::from_secs(30);

const SCRIPT: &str = "node_modules/@modelcontextprotocol/server-everything/dist/index.js";

/// A running server on loopback; dropping it kills it.
#[derive(Debug)]
pub struct Everything {
    running: Running,
    url: String,
}

/// How the server is spoken to when it listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speech {
    /// Streamable HTTP, with sessions.
    StreamableHttp,
    /// HTTP+SSE of 2024-11-05.
    Sse,
}

impl Everything {
    /// Starts the server with Streamable HTTP on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot be installed, or does not listen in time.
    pub async fn start() -> Result<Self, InstallError> {
        Self::start_as(Speech::StreamableHttp).await
    }

    /// Starts the server on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// As [`Everything::start`].
    pub async fn start_as(speech: Speech) -> Result<Self, InstallError> {
        let (word, path) = match speech {
            Speech::StreamableHttp => ("streamableHttp", "mcp"),
            Speech::Sse => ("sse", "sse"),
        };
        let node = Node::install().await?;
        let mut command = tokio::process::Command::new(node.program());
        command
            .arg("--require")
            .arg(node.path("loopback.cjs"))
            .arg(node.path(SCRIPT))
            .arg(word)
            .env("PORT", "0");
        let (running, url) = Running::start(command, START_TIME_MAX, move |stream, line| {
            // The address follows other words on the same line.
            let (_, address) = line.split_once("listening on 127.0.0.1:")?;
            (stream == Stream::Err).then(|| format!("http://127.0.0.1:{address}/{path}"))
        })
        .await?;
        Ok(Self { running, url })
    }

    /// The words of a command line that runs the server over stdio.
    ///
    /// # Errors
    /// When it cannot be installed.
    pub async fn stdio_command() -> Result<Vec<String>, InstallError> {
        let node = Node::install().await?;
        let script = node.path(SCRIPT);
        let words = [node.program().into_os_string(), script.into_os_string()];
        let mut words: Vec<_> = words.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.push("stdio".to_owned());
        Ok(words)
    }

    /// The URL of its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops it and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(self) -> Result<(), ProcessError> {
        self.running.kill().await
    }
}
