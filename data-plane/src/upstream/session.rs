//! A session with a server of the legacy era, whatever carries it.
//!
//! Always holds: a session belongs to one principal, one credential and one set of client capabilities; its ids are
//! its own, so that no two callers can meet. What the server sends that belongs to no request is read by one reader.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use gantry_model::SessionCarrier;
use http::header::{HeaderName, HeaderValue};
use serde_json::json;
use serde_json::value::RawValue;
use tokio::sync::mpsc;

use crate::config::server::Server;
use crate::mcp::VERSION_LEGACY;
use crate::mcp::json;
use crate::rejection::Upstream;
use crate::upstream::Upstreams;
use crate::upstream::exchange::{Ask, Event, Exchange};
use crate::upstream::legacy::HttpSession;
use crate::upstream::sse::SseSession;
use crate::upstream::stdio::session::StdioSession;

/// What a session is opened with.
#[derive(Debug, Clone)]
pub(crate) struct Opening {
    /// The client's capabilities as raw JSON: an object.
    pub(crate) capabilities: Box<RawValue>,
    /// The server's credential, as a header where the transport has any.
    pub(crate) credential: Option<(HeaderName, HeaderValue)>,
    /// Whether the session's own stream is wanted: the server may ask there, or tell of changes.
    pub(crate) listens: bool,
    /// How long each step of the opening may take.
    pub(crate) timeout: Duration,
}

/// Why a session did not take a request.
#[derive(Debug)]
pub(crate) enum AskFailure {
    /// The server does not know the session any more; the request was not processed.
    Expired,
    /// The server failed.
    Failed(Upstream),
}

impl From<Upstream> for AskFailure {
    fn from(failure: Upstream) -> AskFailure {
        AskFailure::Failed(failure)
    }
}

/// A session with a server.
pub(crate) struct LegacySession {
    carrier: Carrier,
    ids: AtomicU64,
    unbound: Mutex<Option<mpsc::Receiver<Event>>>,
    /// The server's answer to `initialize`: the result, as it came.
    pub(crate) initialized: Bytes,
}

/// What carries a session.
pub(crate) enum Carrier {
    /// Streamable HTTP.
    Http(HttpSession),
    /// HTTP+SSE of 2024-11-05.
    Sse(Box<SseSession>),
    /// A process.
    Stdio(StdioSession),
}

/// A session that was just opened by its carrier.
pub(crate) struct Opened {
    pub(crate) carrier: Carrier,
    /// The result of `initialize`.
    pub(crate) initialized: Bytes,
    /// What the server sends that belongs to no request.
    pub(crate) unbound: mpsc::Receiver<Event>,
}

impl Opening {
    /// The message that opens a session; its id is 0.
    pub(crate) fn initialize(&self) -> Bytes {
        let params = json!({
            "protocolVersion": VERSION_LEGACY,
            "capabilities": &self.capabilities,
            "clientInfo": {"name": "gantry", "version": env!("CARGO_PKG_VERSION")},
        });
        json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}).to_string().into()
    }

    /// Reads the answer to [`Opening::initialize`]: the result, when it is one.
    pub(crate) fn read_answer(answer: &Bytes) -> Option<Bytes> {
        let [result] = json::fields(std::str::from_utf8(answer).ok()?, &["result"]).ok()?;
        let result = result?.get();
        let [version] = json::fields(result, &["protocolVersion"]).ok()?;
        version.is_some().then(|| answer.slice_ref(result.as_bytes()))
    }
}

/// Ends the opening of a session.
pub(crate) const INITIALIZED: Bytes =
    Bytes::from_static(br#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#);

impl LegacySession {
    /// Opens a session, over what the server was found to speak.
    pub(crate) async fn open(
        upstreams: &Upstreams,
        server: &Server,
        opening: &Opening,
    ) -> Result<LegacySession, Upstream> {
        let carrier = server.offer.as_ref().map(|offer| offer.catalog.carrier).unwrap_or_default();
        LegacySession::open_over(upstreams, server, carrier, opening).await
    }

    /// Opens a session over a carrier that may not be known yet to be the server's.
    pub(crate) async fn open_over(
        upstreams: &Upstreams,
        server: &Server,
        carrier: SessionCarrier,
        opening: &Opening,
    ) -> Result<LegacySession, Upstream> {
        let opened = match (&server.uri, carrier) {
            (Some(uri), SessionCarrier::StreamableHttp) => {
                HttpSession::open(&upstreams.http, uri, opening).await?
            }
            (Some(uri), SessionCarrier::HttpSse) => SseSession::open(&upstreams.http, uri, opening).await?,
            (None, _) => StdioSession::open(&upstreams.stdio, server, opening).await?,
        };
        Ok(LegacySession::of(opened))
    }

    /// The session that a carrier opened.
    pub(crate) fn of(opened: Opened) -> LegacySession {
        let Opened { carrier, initialized, unbound } = opened;
        LegacySession {
            carrier,
            // 0 opened the session.
            ids: AtomicU64::new(1),
            unbound: Mutex::new(Some(unbound)),
            initialized,
        }
    }

    /// An id for the next request.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Sends a request; its id is one of [`LegacySession::next_id`]. `timeout` is for what HTTP answers first.
    pub(crate) async fn ask(&self, ask: &Ask, timeout: Duration) -> Result<Exchange, AskFailure> {
        match &self.carrier {
            Carrier::Http(session) => session.ask(ask, timeout).await,
            Carrier::Sse(session) => session.ask(ask, timeout).await,
            Carrier::Stdio(session) => session.ask(ask),
        }
    }

    /// Sends what wants no answer: a notification, or an answer to what the server asked.
    pub(crate) async fn tell(&self, message: Bytes) -> Result<(), AskFailure> {
        match &self.carrier {
            Carrier::Http(session) => session.tell(message).await,
            Carrier::Sse(session) => session.tell(message).await,
            Carrier::Stdio(session) => session.tell(&message),
        }
    }

    /// Asks the server to stop working on a request; it may be too late.
    pub(crate) async fn cancel(&self, id: u64) {
        let note =
            json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}});
        let _ = self.tell(note.to_string().into()).await;
    }

    /// What the server sends that belongs to no request; for one reader, once.
    pub(crate) fn take_unbound(&self) -> Option<mpsc::Receiver<Event>> {
        self.unbound.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether the session is known to be over.
    pub(crate) fn is_over(&self) -> bool {
        match &self.carrier {
            Carrier::Http(session) => session.is_over(),
            Carrier::Sse(session) => session.is_over(),
            Carrier::Stdio(session) => session.is_over(),
        }
    }

    /// Waits until the session is known to be over.
    pub(crate) async fn ended(&self) {
        match &self.carrier {
            Carrier::Http(session) => session.ended().await,
            Carrier::Sse(session) => session.ended().await,
            Carrier::Stdio(session) => session.ended().await,
        }
    }

    /// Ends the session; a server that does not care is fine.
    pub(crate) async fn close(&self) {
        match &self.carrier {
            Carrier::Http(session) => session.close().await,
            Carrier::Sse(session) => session.close(),
            Carrier::Stdio(session) => session.close().await,
        }
    }
}
