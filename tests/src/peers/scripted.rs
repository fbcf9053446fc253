//! Servers of a few lines on SDKs that others wrote: scripts of ours that print their URL when they listen.

use std::time::Duration;

use tokio::process::Command;

use crate::process::{ProcessError, Running, Stream};

/// The time one may take to listen; it takes a second.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// A running server on loopback; dropping it kills it.
#[derive(Debug)]
pub struct Scripted {
    // Held for its end.
    _running: Running,
    url: String,
}

impl Scripted {
    /// Starts a script and waits for the line with its URL.
    ///
    /// # Errors
    /// When it does not listen in time.
    pub async fn start(command: Command) -> Result<Self, ProcessError> {
        let (running, url) = Running::start(command, START_TIME_MAX, |stream, line| {
            (stream == Stream::Out && line.starts_with("http://")).then(|| line.to_owned())
        })
        .await?;
        Ok(Self { _running: running, url })
    }

    /// The URL of its MCP endpoint.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }
}
