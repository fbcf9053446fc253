//! One keep-alive HTTP/1.1 connection that makes one call at a time, as one agent would.
//!
//! What always holds: a legacy connection has done its handshake before the first call and sends
//! the session id that it was given, if any; ids are never used twice on a connection.
//! It does not retry.

use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::{CONTENT_ENCODING, HeaderValue},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinHandle};

use super::{
    answer::{self, Template},
    call::{Call, Endpoint, Era, ID_MIN, Proof, SESSION_HEADER},
};

/// For the handshake; calls are bounded by their slot.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Far above the longest list; more is a broken target.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    io: JoinHandle<()>,
    session: Option<HeaderValue>,
    next_id: u64,
    template: Option<Template>,
    /// Kept to save an allocation for every answer of several frames.
    body: Vec<u8>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No connection.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The handshake or the answer took too long.
    #[error("no answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout,
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] hyper::Error),
    /// An HTTP error.
    #[error("HTTP {status}: {excerpt}")]
    Status {
        /// The status.
        status: StatusCode,
        /// The start of the body.
        excerpt: String,
    },
    /// An answer that is not what was asked for.
    #[error("{0}")]
    Wrong(String),
    /// An answer beyond any reason.
    #[error("the answer exceeds {ANSWER_BYTES_MAX} bytes")]
    TooLarge,
}

impl CallError {
    /// Whether the connection cannot be used any more.
    #[must_use]
    pub fn is_connection_lost(&self) -> bool {
        match self {
            Self::Connect(_) | Self::Timeout | Self::Broken(_) | Self::TooLarge => true,
            Self::Status { .. } | Self::Wrong(_) => false,
        }
    }
}

impl Connection {
    /// Connects and, for the legacy era, does the handshake.
    ///
    /// # Errors
    /// When there is no connection or the handshake fails within ten seconds.
    pub async fn open(endpoint: &Endpoint, era: Era) -> Result<Self, CallError> {
        tokio::time::timeout(CONNECT_TIMEOUT, Self::open_unbounded(endpoint, era))
            .await
            .map_err(|_| CallError::Timeout)?
    }

    async fn open_unbounded(endpoint: &Endpoint, era: Era) -> Result<Self, CallError> {
        let stream = TcpStream::connect(&endpoint.authority).await.map_err(CallError::Connect)?;
        stream.set_nodelay(true).map_err(CallError::Connect)?;
        let (sender, io) = http1::handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
        // A broken connection shows in the call that it breaks.
        let io = tokio::spawn(async move { drop(io.await) });
        let mut connection =
            Self { sender, io, session: None, next_id: ID_MIN, template: None, body: Vec::new() };
        match era {
            Era::Modern => {}
            Era::Legacy => connection.shake_hands(endpoint).await?,
        }
        Ok(connection)
    }

    async fn shake_hands(&mut self, endpoint: &Endpoint) -> Result<(), CallError> {
        let initialize = endpoint.initialize();
        let (response, id) = self.send(&initialize).await?;
        let session = response.headers().get(SESSION_HEADER).cloned();
        let status = response.status();
        let body = self.read(response).await?;
        expect_status(status, StatusCode::OK, &body)?;
        answer::prove(&initialize.proof, Era::Legacy, id, &body).map_err(CallError::Wrong)?;
        self.session = session;
        let (response, _) = self.send(&endpoint.initialized()).await?;
        let status = response.status();
        let body = self.read(response).await?;
        expect_status(status, StatusCode::ACCEPTED, &body)
    }

    /// Makes one call and checks its answer in full.
    ///
    /// The answers of one connection are compared with each other, so all calls of a connection
    /// have to be the same `call`. Dropping the future loses the connection.
    ///
    /// # Errors
    /// When there is no answer, or it is not the expected one.
    pub async fn call(&mut self, call: &Call) -> Result<(), CallError> {
        let (response, id) = self.send(call).await?;
        let status = response.status();
        let is_packed = response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding == "gzip");
        let body = self.read(response).await?;
        expect_status(status, StatusCode::OK, &body)?;
        if is_packed != call.is_packed {
            return Err(CallError::Wrong(format!("in gzip: {is_packed}, expected: {}", call.is_packed)));
        }
        let is_known = self.template.as_mut().is_some_and(|known| known.matches(&body, id));
        if !is_known {
            self.template = Some(proved(call, id, &body).map_err(CallError::Wrong)?);
        }
        self.body = body;
        Ok(())
    }

    /// The sorted names of the tools that the endpoint lists.
    ///
    /// # Errors
    /// When there is no such list.
    pub async fn tool_names(&mut self, endpoint: &Endpoint, era: Era) -> Result<Vec<String>, CallError> {
        let call = endpoint.list_tools(era, Proof::Anything);
        let (response, id) = self.send(&call).await?;
        let status = response.status();
        let body = self.read(response).await?;
        expect_status(status, StatusCode::OK, &body)?;
        answer::prove(&call.proof, call.era, id, &body).map_err(CallError::Wrong)?;
        let answer = answer::messages(&body).and_then(|mut messages| messages.pop());
        let names = answer.as_ref().and_then(|answer| answer::tool_names(&answer["result"]));
        names.ok_or_else(|| CallError::Wrong(format!("not a list: {}", answer::excerpt(&body))))
    }

    /// Closes the connection and waits until it is closed.
    pub async fn close(self) {
        drop(self.sender);
        // The task cannot panic, and aborting it is nobody's business here.
        let _ = self.io.await;
    }

    async fn send(&mut self, call: &Call) -> Result<(Response<Incoming>, u64), CallError> {
        let id = self.next_id;
        self.next_id += 1;
        let body = Full::new(call.body_with_id(id));
        let mut request = Request::new(body);
        *request.method_mut() = hyper::Method::POST;
        *request.uri_mut() = call.path.clone();
        let mut headers = call.headers.clone();
        if call.era == Era::Legacy
            && let Some(session) = &self.session
        {
            headers.insert(SESSION_HEADER, session.clone());
        }
        *request.headers_mut() = headers;
        self.sender.ready().await.map_err(CallError::Broken)?;
        let response = self.sender.send_request(request).await.map_err(CallError::Broken)?;
        Ok((response, id))
    }

    /// Reads the whole body into the kept buffer, which the caller gives back.
    async fn read(&mut self, response: Response<Incoming>) -> Result<Vec<u8>, CallError> {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        let mut incoming = response.into_body();
        while let Some(frame) = incoming.frame().await {
            let frame = frame.map_err(CallError::Broken)?;
            if let Some(data) = frame.data_ref() {
                if body.len() + data.len() > ANSWER_BYTES_MAX {
                    return Err(CallError::TooLarge);
                }
                body.extend_from_slice(data);
            }
        }
        Ok(body)
    }
}

/// Proves an answer in full.
fn proved(call: &Call, id: u64, body: &[u8]) -> Result<Template, String> {
    if !call.is_packed {
        answer::prove(&call.proof, call.era, id, body)?;
        return Ok(Template::of(body, id));
    }
    let text = answer::unpack(body, ANSWER_BYTES_MAX)?;
    answer::prove(&call.proof, call.era, id, &text)?;
    Ok(Template::of_packed(body, &text, id))
}

fn expect_status(actual: StatusCode, expected: StatusCode, body: &[u8]) -> Result<(), CallError> {
    if actual == expected {
        return Ok(());
    }
    Err(CallError::Status { status: actual, excerpt: answer::excerpt(body) })
}
