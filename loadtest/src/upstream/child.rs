//! The upstream as a process of its own, so that its processor time is its own too.
//!
//! What always holds: it ends when its input does, so it cannot outlive this process.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use crate::{
    driver::call::Endpoint,
    pinning::{Core, Pinning},
    process::{Process, ProcessError},
    upstream::CALLS_PATH,
};

/// Any free port of this machine.
pub const ANYWHERE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running upstream.
#[derive(Debug)]
pub struct Child {
    process: Process,
    /// Where it answers.
    pub url: String,
    authority: String,
}

/// What an upstream is to be.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Names its log.
    pub name: &'a str,
    /// Where it listens.
    pub listen: SocketAddr,
    /// How many tools it offers.
    pub tool_count: usize,
    /// How long it takes for every call of a tool.
    pub delay: Duration,
}

/// Why there is no upstream.
#[derive(Debug, thiserror::Error)]
pub enum ChildError {
    /// This very program is not found.
    #[error("the program of the upstream is not found")]
    Program(#[source] io::Error),
    /// It did not start.
    #[error("the upstream does not run")]
    Process(#[from] ProcessError),
    /// It does not say what it has seen.
    #[error("the upstream cannot be asked for its count")]
    Count(#[source] io::Error),
}

#[derive(Deserialize)]
struct FirstLine {
    url: String,
}

impl Child {
    /// Starts this very program as an upstream.
    ///
    /// # Errors
    /// When it does not become ready.
    pub async fn start(folder: &Path, pinning: &Pinning, wanted: Wanted<'_>) -> Result<Self, ChildError> {
        let program = std::env::current_exe().map_err(ChildError::Program)?;
        let mut command = pinning.command(Core::Load, &program);
        command
            .args(["upstream", "--listen", &wanted.listen.to_string(), "--end-with-input"])
            .args(["--tools", &wanted.tool_count.to_string()])
            .args(["--delay-seconds", &wanted.delay.as_secs_f64().to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(command, folder, wanted.name)?;
        let line = process.first_line(wanted.name).await?;
        let FirstLine { url } = serde_json::from_str(&line).map_err(|_| process.not_ready(wanted.name))?;
        let endpoint = Endpoint::parse(&url, None).map_err(|_| process.not_ready(wanted.name))?;
        Ok(Self { process, url, authority: endpoint.authority })
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where it listens, as `HOST:PORT`.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Ends it.
    ///
    /// # Errors
    /// When the system refuses.
    pub async fn stop(self) -> io::Result<ExitStatus> {
        self.process.stop().await
    }

    /// How many tool calls it has answered since its start.
    ///
    /// # Errors
    /// When it does not say.
    pub async fn call_count(&self) -> Result<u64, ChildError> {
        let stream = TcpStream::connect(&self.authority).await.map_err(ChildError::Count)?;
        let broken = |error: hyper::Error| ChildError::Count(io::Error::other(error));
        let (mut sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let io = tokio::spawn(io);
        let request = Request::get(CALLS_PATH)
            .header(hyper::header::HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .map_err(|error| ChildError::Count(io::Error::other(error)))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        drop(sender);
        // The answer is here; how the connection ends does not matter.
        let _ = io.await;
        let count = str::from_utf8(&body).ok().and_then(|count| count.parse().ok());
        count.ok_or_else(|| ChildError::Count(io::Error::other("the count of calls is not a number")))
    }
}
