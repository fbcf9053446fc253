//! A WebSocket client that says exactly what a test wants said. The handshake is a request as any other.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::Role;

/// How long one message may take.
const MESSAGE_TIME_MAX: Duration = Duration::from_secs(20);

/// An open socket.
#[derive(Debug)]
pub struct Socket {
    stream: WebSocketStream<TokioIo<Upgraded>>,
    headers: HeaderMap,
}

/// What comes by a socket.
#[derive(Debug, Clone, PartialEq)]
pub enum Heard {
    /// A message.
    Message(Value),
    /// The code with which the other side closed it.
    Closed(u16),
    /// It broke, or ended without a word.
    Gone,
}

impl Socket {
    /// Asks an endpoint for a socket, with these headers besides those of the handshake.
    ///
    /// # Errors
    /// The answer, where it is no socket.
    ///
    /// # Panics
    /// When nobody answers.
    pub async fn open(url: &str, headers: &[(&str, &str)]) -> Result<Self, Response<Incoming>> {
        let uri: Uri = url.parse().expect("a URL");
        let authority = uri.authority().expect("a host").as_str();
        let address: SocketAddr = authority.parse().expect("an address");
        let stream = TcpStream::connect(address).await.expect("the endpoint is reached");
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.expect("the endpoint speaks HTTP");
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::get(uri.path())
            .header("connection", "Upgrade")
            .header("upgrade", "websocket")
            .header("sec-websocket-version", "13")
            .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
        if !headers.iter().any(|(name, _)| *name == "host") {
            request = request.header("host", authority);
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let response = sender.send_request(request).await.expect("an answer");
        if response.status().as_u16() != 101 {
            return Err(response);
        }
        let headers = response.headers().clone();
        let upgraded = hyper::upgrade::on(response).await.expect("the connection changes hands");
        let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await;
        Ok(Self { stream, headers })
    }

    /// The headers with which it was granted.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Says a message.
    ///
    /// # Panics
    /// When the socket is broken.
    pub async fn say(&mut self, message: &Value) {
        self.send(Message::text(message.to_string())).await.expect("the socket holds");
    }

    /// Sends any frame. The other side may have left.
    ///
    /// # Errors
    /// When it has.
    pub async fn send(&mut self, message: Message) -> Result<(), tokio_tungstenite::tungstenite::Error> {
        self.stream.send(message).await
    }

    /// What comes next.
    ///
    /// # Panics
    /// When nothing comes in time.
    pub async fn hear(&mut self) -> Heard {
        loop {
            let next = timeout(MESSAGE_TIME_MAX, self.stream.next()).await.expect("a frame in time");
            match next {
                Some(Ok(Message::Text(text))) => {
                    return Heard::Message(serde_json::from_str(&text).expect("a frame is JSON"));
                }
                Some(Ok(Message::Close(frame))) => {
                    return Heard::Closed(frame.map_or(1005, |frame| frame.code.into()));
                }
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return Heard::Gone,
            }
        }
    }

    /// The next message.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn message(&mut self) -> Value {
        match self.hear().await {
            Heard::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    /// Says a request, and waits for its answer; what comes before it is in the second place.
    ///
    /// # Panics
    /// As [`Socket::message`].
    pub async fn ask(&mut self, request: &Value) -> (Value, Vec<Value>) {
        self.say(request).await;
        let mut before = Vec::new();
        loop {
            let message = self.message().await;
            if message["id"] == request["id"] && message.get("method").is_none() {
                return (message, before);
            }
            before.push(message);
        }
    }
}
