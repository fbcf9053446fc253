//! The upstream as a process of its own, so that its processor time is its own too.
//!
//! What always holds: it ends when its input does, so it cannot outlive this process.

use std::{path::Path, process::Stdio};

use http_body_util::{BodyExt, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

use super::CompareError;
use crate::{
    driver::call::Endpoint,
    pinning::{Core, Pinning},
    process::Process,
    upstream::CALLS_PATH,
};

/// A running upstream.
#[derive(Debug)]
pub(super) struct UpstreamProcess {
    pub(super) process: Process,
    pub(super) url: String,
    authority: String,
}

#[derive(Deserialize)]
struct FirstLine {
    url: String,
}

impl UpstreamProcess {
    /// Starts this very program as an upstream with `tool_count` tools.
    pub(super) async fn start(
        folder: &Path,
        pinning: &Pinning,
        tool_count: usize,
    ) -> Result<Self, CompareError> {
        let program = std::env::current_exe().map_err(CompareError::Files)?;
        let mut command = pinning.command(Core::Load, &program);
        command
            .args(["upstream", "--listen", "127.0.0.1:0", "--end-with-input"])
            .args(["--tools", &tool_count.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut process = Process::start(command, folder, "upstream")?;
        let line = process.first_line("upstream").await?;
        let FirstLine { url } = serde_json::from_str(&line).map_err(|_| process.not_ready("upstream"))?;
        let endpoint = Endpoint::parse(&url, None).map_err(|_| process.not_ready("upstream"))?;
        Ok(Self { process, url, authority: endpoint.authority })
    }

    /// How many tool calls it has answered since its start.
    pub(super) async fn call_count(&self) -> Result<u64, CompareError> {
        let stream = TcpStream::connect(&self.authority).await.map_err(CompareError::Upstream)?;
        let broken = |error: hyper::Error| CompareError::Upstream(std::io::Error::other(error));
        let (mut sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let io = tokio::spawn(io);
        let request = Request::get(CALLS_PATH)
            .header(hyper::header::HOST, &self.authority)
            .body(Empty::<Bytes>::new())
            .map_err(|error| CompareError::Upstream(std::io::Error::other(error)))?;
        let response = sender.send_request(request).await.map_err(broken)?;
        let body = response.into_body().collect().await.map_err(broken)?.to_bytes();
        drop(sender);
        // The answer is here; how the connection ends does not matter.
        let _ = io.await;
        let count = str::from_utf8(&body).ok().and_then(|count| count.parse().ok());
        count.ok_or_else(|| {
            CompareError::Upstream(std::io::Error::other("the count of calls is not a number"))
        })
    }
}
