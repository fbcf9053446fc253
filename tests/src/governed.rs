//! The fixture server with `gantry dev` in front of it, and what most tests of the whole system do with the two.
//!
//! What fails here fails the test: nothing returns an error.

use crate::agent::{Agent, Message, Protocol};
use crate::audit::Trail;
use crate::dev::{Dev, Options};
use crate::fixture;
use crate::peers::chain;

/// Both of them; they end when it is dropped.
#[derive(Debug)]
pub struct Governed {
    dev: Dev,
    server: fixture::Server,
}

impl Governed {
    /// Starts both; the server is named `fixture`, its tenant `dev`.
    ///
    /// # Panics
    /// When one of them does not start.
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    /// As [`Governed::start`], with other options of `dev`.
    ///
    /// # Panics
    /// When one of them does not start.
    pub async fn start_with(options: Options) -> Self {
        let server = fixture::Server::start(0).await.expect("a fixture server");
        let servers = vec![("fixture".to_owned(), server.url())];
        let dev = start(&Options { servers, ..options }).await;
        Self { dev, server }
    }

    /// The gateway.
    #[must_use]
    pub fn dev(&self) -> &Dev {
        &self.dev
    }

    /// The server behind it.
    #[must_use]
    pub fn server(&self) -> &fixture::Server {
        &self.server
    }

    /// Stops the server and starts it at the same address; it knows nothing of its sessions any more.
    ///
    /// # Panics
    /// When it does not start again.
    pub async fn restart_server(&mut self) {
        let url = self.server.url();
        let port = url.rsplit(':').next().and_then(|rest| rest.split('/').next()?.parse().ok());
        // Another takes its place meanwhile, because the port is free only then.
        let between = fixture::Server::start(0).await.expect("a fixture server");
        std::mem::replace(&mut self.server, between).stop().await;
        self.server = fixture::Server::start(port.expect("a port")).await.expect("a fixture server");
    }

    /// The key that the start printed.
    ///
    /// # Panics
    /// When it printed none.
    #[must_use]
    pub fn key(&self) -> &str {
        self.dev.ready().agent_key.as_deref().expect("a start prints an agent key")
    }

    /// The audit file.
    #[must_use]
    pub fn trail(&self) -> Trail {
        Trail::below(self.dev.data_dir())
    }

    /// A connection to the endpoint.
    ///
    /// # Panics
    /// When it cannot be made.
    pub async fn connect(&self, protocol: Protocol) -> Agent {
        Agent::connect(&self.dev.ready().endpoint, protocol).await.expect("the endpoint is reached")
    }

    /// A call of a tool as the agent makes it, of 2026-07-28.
    #[must_use]
    pub fn call(&self, tool: &str, arguments: serde_json::Value) -> Message {
        Message::call(tool, arguments).with_key(self.key())
    }

    /// Applies documents and waits until the node has them.
    ///
    /// # Panics
    /// When they are refused.
    pub async fn apply(&self, documents: &str) {
        self.admin(&["apply", "-f", "-", "--wait"], documents).await;
    }

    /// Runs an admin command that must succeed; returns what it printed.
    ///
    /// # Panics
    /// When it ends with another code than 0.
    pub async fn admin(&self, arguments: &[&str], input: &str) -> String {
        let finished = self.dev.admin_with_input(arguments, input.as_bytes()).await;
        let finished = finished.unwrap_or_else(|error| panic!("{}", chain(&error)));
        assert!(finished.status.success(), "{arguments:?}\n{}{}", finished.stdout, finished.stderr);
        finished.stdout
    }
}

/// Starts `gantry dev`.
///
/// # Panics
/// With everything that it printed, when it does not start.
pub async fn start(options: &Options) -> Dev {
    Dev::start(options).await.unwrap_or_else(|error| panic!("{}", chain(&error)))
}
