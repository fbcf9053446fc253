//! The issuer `oidc-provider`: OpenID Connect, written by others, with a person who confirms codes.

use std::time::Duration;

use gantry_token::{Fetcher, PlainHttp};
use serde_json::Value;

use super::install::{InstallError, Node};
use crate::process::{ProcessError, Running, Stream};

/// The time it may take to listen; it takes 1 s.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// A running issuer on loopback; dropping it kills it.
#[derive(Debug)]
pub struct Issuer {
    running: Running,
    url: String,
}

impl Issuer {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When it cannot be installed, or does not listen in time.
    pub async fn start() -> Result<Self, InstallError> {
        let node = Node::install().await?;
        let (running, url) =
            Running::start(node.command("oidc-provider.mjs"), START_TIME_MAX, |stream, line| {
                let ready: Value = serde_json::from_str(line).ok()?;
                (stream == Stream::Out).then(|| ready["issuer"].as_str().map(str::to_owned))?
            })
            .await?;
        Ok(Self { running, url })
    }

    /// Its URL, as it calls itself.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What it answers to a question of the test, such as `groups?login=alice&groups=ops`; see `oidc-provider.mjs`.
    ///
    /// # Errors
    /// When it does not answer with success.
    pub async fn ask(&self, question: &str) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let url = format!("{}/test/{question}", self.url).parse()?;
        let answer = Fetcher::new(&[], PlainHttp::OnLoopback)?.get(&url).await?;
        Ok(String::from_utf8(answer.to_vec())?)
    }

    /// Stops it and waits until it is gone.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(self) -> Result<(), ProcessError> {
        self.running.kill().await
    }
}
