//! Which era a program speaks.
//!
//! Always holds: the program is asked `server/discover` first; an answer of the modern era decides, whenever it comes;
//! an error, or silence for [`PROBE_TIMEOUT`], lets the same process be asked `initialize`; a program that exits on
//! the first question is started once more and asked `initialize` at once. Nothing is remembered here: who asks keeps
//! the answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::config::server::Server;
use crate::mcp::{VERSION_MODERN, json};
use crate::rejection::Upstream;
use crate::upstream::exchange::{Event, Exchange};
use crate::upstream::session::{LegacySession, Opened, Opening};
use crate::upstream::stdio::modern::ModernProcess;
use crate::upstream::stdio::pipe::Pipe;
use crate::upstream::stdio::session::{self, StdioSession};
use crate::upstream::stdio::{Program, Stdio};

/// How long a program may be silent before it is taken to be of the legacy era: some never answer what they do not
/// know.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The id of the question. It may be answered late, when the same process has a session whose ids count up from 0: no
/// id of those reaches this one. Every language's integers hold it.
const PROBE_ID: u64 = i32::MAX as u64;
/// Error codes that only the modern era has.
const MODERN_CODES: [i64; 3] = [-32_020, -32_021, -32_022];

/// What a program speaks, and the process that said so.
pub(crate) enum Probed {
    /// The modern era: its shared process, and the result of `server/discover` where it gave one.
    Modern { process: Arc<ModernProcess>, discovered: Option<Bytes> },
    /// The legacy era: a session that was opened with the given opening.
    Legacy(Box<LegacySession>),
}

/// What a program answered to `server/discover`.
enum Era {
    Modern(Option<Bytes>),
    Legacy,
}

impl Stdio {
    /// Finds out which era a server's program speaks. The process of the answer is kept: the shared one of the modern
    /// era, or a session of the legacy era, which `opening` is for. Dropping the future ends the process.
    pub(crate) async fn probe(&self, server: &Server, opening: &Opening) -> Result<Probed, Upstream> {
        self.program(server)?.probe(opening).await
    }
}

impl Program {
    pub(super) async fn probe(&self, opening: &Opening) -> Result<Probed, Upstream> {
        let (pipe, unbound) = self.start().await?;
        let mut discover = pipe.ask(PROBE_ID, &discover_message())?;
        match tokio::time::timeout(PROBE_TIMEOUT, answer(&mut discover)).await {
            Ok(Ok(Era::Modern(discovered))) => {
                self.pace().serves();
                Ok(Probed::Modern { process: self.adopt(pipe), discovered })
            }
            Ok(Ok(Era::Legacy)) => self.initialize(pipe, unbound, None, opening).await,
            Err(_) => self.initialize(pipe, unbound, Some(discover), opening).await,
            Ok(Err(_)) => self.initialize_anew(pipe, opening).await,
        }
    }

    /// Opens a session with a process that did not say that it is modern. `discover`: it may still say so, when it
    /// was slow to start.
    async fn initialize(
        &self,
        pipe: Arc<Pipe>,
        unbound: mpsc::Receiver<Event>,
        discover: Option<Exchange>,
        opening: &Opening,
    ) -> Result<Probed, Upstream> {
        let Ok(initialize) = session::begin(&pipe, opening) else {
            return self.initialize_anew(pipe, opening).await;
        };
        let late = async {
            if let Some(mut discover) = discover
                && let Ok(Era::Modern(discovered)) = answer(&mut discover).await
            {
                return discovered;
            }
            std::future::pending().await
        };
        let opened = tokio::select! {
            biased;
            discovered = late => {
                // This process was asked `initialize`, too, and may have taken that for its era.
                drop(pipe);
                return Ok(Probed::Modern { process: self.modern().await?, discovered });
            }
            opened = session::finish(&pipe, unbound, initialize, opening) => opened,
        };
        match opened {
            Err(Upstream::Unreachable) => self.initialize_anew(pipe, opening).await,
            opened => self.legacy(opened),
        }
    }

    /// A program that exited on a question that it did not know.
    async fn initialize_anew(&self, ended: Arc<Pipe>, opening: &Opening) -> Result<Probed, Upstream> {
        ended.close().await;
        StdioSession::open_at(self, opening).await.map(legacy)
    }

    fn legacy(&self, opened: Result<Opened, Upstream>) -> Result<Probed, Upstream> {
        match &opened {
            Ok(_) => self.pace().serves(),
            Err(_) => self.pace().failed(Instant::now()),
        }
        opened.map(legacy)
    }
}

fn legacy(opened: Opened) -> Probed {
    Probed::Legacy(Box::new(LegacySession::of(opened)))
}

fn discover_message() -> Bytes {
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": VERSION_MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
        "io.modelcontextprotocol/clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
    });
    let params = json!({"_meta": meta});
    json!({"jsonrpc": "2.0", "id": PROBE_ID, "method": "server/discover", "params": params})
        .to_string()
        .into()
}

/// What the answer says. May be dropped and called again.
async fn answer(discover: &mut Exchange) -> Result<Era, Upstream> {
    while let Some(event) = discover.next().await {
        if let Event::Answer(answer) = event? {
            return Ok(read(&answer).unwrap_or(Era::Legacy));
        }
    }
    Err(Upstream::Unreachable)
}

/// `None`: nothing that the modern era would say.
fn read(answer: &Bytes) -> Option<Era> {
    let [result, error] = json::fields(std::str::from_utf8(answer).ok()?, &["result", "error"]).ok()?;
    if let Some(result) = result {
        let [versions] = json::fields(result.get(), &["supportedVersions"]).ok()?;
        let versions: Vec<String> = serde_json::from_str(versions?.get()).ok()?;
        let is_modern = versions.iter().any(|version| version == VERSION_MODERN);
        return is_modern.then(|| Era::Modern(Some(answer.slice_ref(result.get().as_bytes()))));
    }
    let [code] = json::fields(error?.get(), &["code"]).ok()?;
    let code: i64 = code?.get().parse().ok()?;
    MODERN_CODES.contains(&code).then_some(Era::Modern(None))
}
