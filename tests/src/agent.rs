//! An agent that says exactly what a test wants said: one connection, requests and answers as HTTP has them.
//!
//! No library of the protocol stands between. Nothing is sent twice, and nothing is added to a [`Message`] besides
//! the host.

use std::net::SocketAddr;

use bytes::{Buf, Bytes, BytesMut};
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

/// The protocol revision without sessions.
pub const MODERN: &str = "2026-07-28";

/// The newest protocol revision with sessions.
pub const LEGACY: &str = "2025-11-25";

/// The version of HTTP that a connection speaks from its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, without asking for it first.
    Http2,
}

/// One connection; dropping it closes it.
#[derive(Debug)]
pub struct Agent {
    authority: String,
    path: String,
    sender: Sender,
    driver: JoinHandle<()>,
}

#[derive(Debug)]
enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Message {
    method: Method,
    headers: HeaderMap,
    body: Bytes,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP's status.
    pub status: u16,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// An answer that comes event by event.
#[derive(Debug)]
pub struct Events {
    body: Incoming,
    read: BytesMut,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The URL names no address.
    #[error("{0} names no address")]
    Url(String),
    /// Nobody listens there.
    #[error("cannot connect")]
    Connect(#[source] std::io::Error),
    /// The connection broke, or the other side speaks no HTTP.
    #[error("the connection broke")]
    Http(#[from] hyper::Error),
}

impl Agent {
    /// Connects to the host of a URL; requests go to its path.
    ///
    /// # Errors
    /// When nobody listens there.
    pub async fn connect(url: &str, protocol: Protocol) -> Result<Self, AgentError> {
        let uri: Uri = url.parse().map_err(|_| AgentError::Url(url.to_owned()))?;
        let address: Option<SocketAddr> = uri.authority().and_then(|host| host.as_str().parse().ok());
        let address = address.ok_or_else(|| AgentError::Url(url.to_owned()))?;
        let stream = TcpStream::connect(address).await.map_err(AgentError::Connect)?;
        stream.set_nodelay(true).map_err(AgentError::Connect)?;
        Self::over(stream, url, protocol).await
    }

    /// Speaks over a connection that is there already.
    ///
    /// # Errors
    /// When the other side does not greet as the version of HTTP has it.
    pub async fn over<S>(stream: S, url: &str, protocol: Protocol) -> Result<Self, AgentError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let uri: Uri = url.parse().map_err(|_| AgentError::Url(url.to_owned()))?;
        let authority = uri.authority().ok_or_else(|| AgentError::Url(url.to_owned()))?.to_string();
        let path = uri.path().to_owned();
        let stream = TokioIo::new(stream);
        // How a connection ended shows in the request that it ended.
        let (sender, driver) = match protocol {
            Protocol::Http1 => {
                let (sender, connection) = http1::handshake(stream).await?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http1(sender), driver)
            }
            Protocol::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), stream).await?;
                let driver = tokio::spawn(async { drop(connection.await) });
                (Sender::Http2(sender), driver)
            }
        };
        Ok(Self { authority, path, sender, driver })
    }

    /// The same connection, with requests to another path.
    #[must_use]
    pub fn at(mut self, path: &str) -> Self {
        self.go_to(path);
        self
    }

    /// Requests go to another path from now on.
    pub fn go_to(&mut self, path: &str) {
        path.clone_into(&mut self.path);
    }

    /// Sends a message and waits for the head of its answer.
    ///
    /// # Errors
    /// When the connection breaks before.
    pub async fn send(&mut self, message: &Message) -> Result<Response<Incoming>, AgentError> {
        let mut request = Request::new(Full::new(message.body.clone()));
        *request.method_mut() = message.method.clone();
        *request.headers_mut() = message.headers.clone();
        let target = match &self.sender {
            Sender::Http1(_) => self.path.clone(),
            Sender::Http2(_) => format!("http://{}{}", self.authority, self.path),
        };
        *request.uri_mut() = target.parse().map_err(|_| AgentError::Url(target))?;
        match &mut self.sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::from_str(&self.authority);
                let host = host.map_err(|_| AgentError::Url(self.authority.clone()))?;
                request.headers_mut().entry(HOST).or_insert(host);
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Sends a message and waits for its whole answer.
    ///
    /// # Errors
    /// When the connection breaks before.
    pub async fn ask(&mut self, message: &Message) -> Result<Answer, AgentError> {
        let (head, body) = self.send(message).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // HTTP/1.1 would otherwise wait for the answer that is under way.
        self.driver.abort();
    }
}

impl Message {
    /// A body that says of itself that it is JSON.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
        Self { method: Method::POST, headers, body: body.into() }
    }

    /// A request of 2026-07-28 with the id 1, and with the headers that it needs.
    ///
    /// # Panics
    /// When the parameters are no object.
    #[must_use]
    pub fn modern(method: &str, mut params: Value) -> Self {
        let name = params.get("name").or_else(|| params.get("uri")).and_then(Value::as_str);
        let name = name.map(str::to_owned);
        params["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!(MODERN);
        params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({});
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let message =
            Self::new(body.to_string()).with("mcp-protocol-version", MODERN).with("mcp-method", method);
        match name {
            Some(name) => message.with("mcp-name", &name),
            None => message,
        }
    }

    /// A call of a tool, of 2026-07-28.
    #[must_use]
    pub fn call(tool: &str, arguments: Value) -> Self {
        Self::modern("tools/call", json!({"name": tool, "arguments": arguments}))
    }

    /// A message of a revision with sessions.
    #[must_use]
    pub fn legacy(body: &Value) -> Self {
        Self::new(body.to_string()).with("mcp-protocol-version", LEGACY)
    }

    /// The same with an agent key.
    #[must_use]
    pub fn with_key(self, key: &str) -> Self {
        self.with(AUTHORIZATION.as_str(), &format!("Bearer {key}"))
    }

    /// The same with one more header; one that is there already stays.
    ///
    /// # Panics
    /// When HTTP has no such header.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        let name: HeaderName = name.parse().expect("a header's name");
        self.headers.append(name, value.parse().expect("a header's value"));
        self
    }

    /// The same without a header.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.headers.remove(name);
        self
    }

    /// The same with another body.
    #[must_use]
    pub fn with_body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// The same with another method of HTTP.
    #[must_use]
    pub fn by(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    /// What it says.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }
}

impl Answer {
    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {} {:?}", self.status, self.body),
        }
    }

    /// The messages of the body, be they one JSON document or the data of events.
    ///
    /// # Panics
    /// When something of it is no JSON.
    #[must_use]
    pub fn messages(&self) -> Vec<Value> {
        if !self.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")) {
            return vec![self.json()];
        }
        let text = String::from_utf8_lossy(&self.body);
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let data = data.map(str::trim).filter(|data| !data.is_empty());
        data.map(|data| serde_json::from_str(data).expect("data of an event are JSON")).collect()
    }

    /// What a call came to: the text of its result, or the message of its error.
    ///
    /// # Panics
    /// When it is neither.
    #[must_use]
    pub fn said(&self) -> String {
        let message = self.messages().pop().unwrap_or_default();
        let said = message.pointer("/error/message").or_else(|| message.pointer("/result/content/0/text"));
        said.and_then(Value::as_str).unwrap_or_else(|| panic!("{message}")).to_owned()
    }

    /// The names of the tools in a list.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn tools(&self) -> Vec<String> {
        let list = self.json();
        let tools = list["result"]["tools"].as_array().unwrap_or_else(|| panic!("{list}"));
        tools.iter().map(|tool| tool["name"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// A header that stands once, as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.get_all(name).iter();
        let value = values.next()?.to_str().ok()?;
        values.next().is_none().then_some(value)
    }
}

impl Events {
    /// Reads the body of an answer as events.
    #[must_use]
    pub fn of(response: Response<Incoming>) -> Self {
        Self { body: response.into_body(), read: BytesMut::new() }
    }

    /// The data of the next event that has some, as JSON; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks before.
    ///
    /// # Panics
    /// When the data are no JSON.
    pub async fn next(&mut self) -> Result<Option<Value>, AgentError> {
        loop {
            while let Some(end) = self.read.windows(2).position(|pair| pair == b"\n\n") {
                let event = self.read.split_to(end);
                self.read.advance(2);
                let text = String::from_utf8_lossy(&event);
                let data: String = text.lines().filter_map(|line| line.strip_prefix("data:")).collect();
                if !data.trim().is_empty() {
                    return Ok(Some(serde_json::from_str(&data).expect("data of an event are JSON")));
                }
            }
            let Some(frame) = self.body.frame().await.transpose()? else { return Ok(None) };
            if let Some(data) = frame.data_ref() {
                self.read.extend_from_slice(data);
            }
        }
    }
}
