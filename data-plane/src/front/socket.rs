//! MCP over WebSocket: one JSON-RPC message a text frame, in both eras.
//!
//! Always holds: nobody gets a socket whose credentials are not good, and each message is authenticated anew with
//! them. A frame has at most [`REQUEST_BODY_MAX`] bytes. A client that neither sends nor answers a ping for
//! [`IDLE_MAX`], or takes nothing for [`WRITE_DEADLINE`], is left. Messages wait for each other only where one rests on
//! another ([`super::conversation`]).

use std::time::Duration;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use http::header::{
    CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
    SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::frame::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::conversation::{Conversation, End};
use super::{Credentials, Hold, KEEP_ALIVE, OUT_MAX, Place, Posted};
use crate::node::Node;
use crate::pipeline::{self, REQUEST_BODY_MAX, Shown, Standing};
use crate::rejection::Rejection;
use crate::reply::Body;
use crate::route::EndpointPath;

/// How long a client may be silent: two pings and their answers.
const IDLE_MAX: Duration = Duration::from_secs(45);
/// How long one message to a client may take to be taken.
const WRITE_DEADLINE: Duration = Duration::from_secs(30);
/// How long the connection may take to change hands.
const UPGRADE_DEADLINE: Duration = Duration::from_secs(15);
/// What is read and thrown away after the last word, so that it arrives: as much as a refused body, and as long.
const LINGER_MAX: usize = 4 * REQUEST_BODY_MAX;
/// How long.
const LINGER_DEADLINE: Duration = Duration::from_secs(5);
/// Bytes read at once. Sockets are many and mostly quiet.
const READ_BYTES: usize = 8 * 1024;

/// What a client may ask to speak.
const PROTOCOL: &str = "mcp";
/// RFC 6455, 1.3.
const ACCEPT_GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// Whether a request asks for a WebSocket. HTTP/2 has no upgrades.
pub(crate) fn is_asked_for(request: &Request<Incoming>) -> bool {
    request.method() == Method::GET
        && request.version() == Version::HTTP_11
        && has_word(request.headers(), &UPGRADE, "websocket")
}

/// Answers a request for a WebSocket.
pub(crate) async fn open(
    node: &std::sync::Arc<Node>,
    path: EndpointPath<'_>,
    mut request: Request<Incoming>,
    hold: Hold,
) -> Response<Body> {
    let accept = match accept_key(request.headers()) {
        Ok(accept) => accept,
        Err(reason) => return pipeline::refuse(node, &Rejection::Invalid(reason.to_owned())).await,
    };
    let opened = ("websocket", StatusCode::SWITCHING_PROTOCOLS);
    let certificate = request.extensions().get();
    let shown = Shown { headers: request.headers(), query: request.uri().query(), certificate };
    let caller = match pipeline::admit(node, path, shown, opened).await {
        Ok(caller) => caller,
        Err(refused) => return refused,
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let (place, credentials) =
        (Place::new(node, path, &caller), Credentials::of(request.headers(), request.extensions()));
    let tasks = hold.tasks.clone();
    let standing = Standing::of(node, &caller, credentials.clone());
    tasks.spawn(serve(upgrade, (place, standing), credentials, hold));
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    if has_word(request.headers(), &SEC_WEBSOCKET_PROTOCOL, PROTOCOL) {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

/// The answer to a handshake (RFC 6455, 4.2).
fn accept_key(headers: &HeaderMap) -> Result<HeaderValue, &'static str> {
    if !has_word(headers, &CONNECTION, "upgrade") {
        return Err("a WebSocket needs `Connection: upgrade`");
    }
    if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        return Err("a WebSocket needs `Sec-WebSocket-Version: 13`");
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).map_or(0, |nonce| nonce.len()) != 16 {
        return Err("a WebSocket needs a `Sec-WebSocket-Key` of 16 bytes");
    }
    // It proves that this side speaks the protocol, and nothing else.
    let proof = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key, ACCEPT_GUID].concat());
    HeaderValue::from_str(&STANDARD.encode(proof)).map_err(|_| "the handshake cannot be answered")
}

/// Whether a header's list has a word, whatever its case.
fn has_word(headers: &HeaderMap, name: &http::HeaderName, word: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(word))
}

async fn serve(
    upgrade: OnUpgrade,
    (place, standing): (Place, Standing),
    credentials: Credentials,
    hold: Hold,
) {
    let Ok(Ok(upgraded)) = tokio::time::timeout(UPGRADE_DEADLINE, upgrade).await else { return };
    let config = WebSocketConfig::default()
        .max_message_size(Some(REQUEST_BODY_MAX))
        .max_frame_size(Some(REQUEST_BODY_MAX))
        .read_buffer_size(READ_BYTES)
        .write_buffer_size(0);
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
    let (sink, mut stream) = socket.split();
    let (out, outgoing) = mpsc::channel(OUT_MAX);
    let (close, closing) = oneshot::channel();
    let talk = async {
        let conversation = (Conversation::new(place, out), standing);
        let code = talk(&mut stream, conversation, credentials, &hold).await;
        // The writer may have ended already.
        let _ = close.send(code);
    };
    let ((), sink) = tokio::join!(talk, write(sink, outgoing, closing));
    if let Ok(socket) = sink.reunite(stream) {
        linger(socket).await;
    }
}

/// Serves messages until one side ends it; returns how the socket is closed.
async fn talk(
    stream: &mut SplitStream<Socket>,
    (conversation, standing): (Conversation, Standing),
    credentials: Credentials,
    hold: &Hold,
) -> CloseCode {
    // One message waits at most; the rest waits in the connection, so that the client feels it.
    let (messages, incoming) = mpsc::channel(1);
    let mut running = std::pin::pin!(conversation.run(standing, incoming, &hold.stop));
    let reading = read(stream, messages, credentials);
    tokio::select! {
        end = &mut running => match end {
            End::Left => CloseCode::Normal,
            End::Refused => CloseCode::Policy,
            End::Stopped => CloseCode::Away,
        },
        code = reading => {
            running.await;
            code
        }
    }
}

/// Reads messages until the client leaves or does what it must not; returns how the socket is closed.
async fn read(
    stream: &mut SplitStream<Socket>,
    messages: mpsc::Sender<Posted>,
    credentials: Credentials,
) -> CloseCode {
    loop {
        let frame = match tokio::time::timeout(IDLE_MAX, stream.next()).await {
            Err(_) => return CloseCode::Away,
            Ok(None) => return CloseCode::Normal,
            Ok(Some(frame)) => frame,
        };
        let message = match frame {
            Ok(Message::Text(text)) => Bytes::from(text),
            // Pings are answered where they are read.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => continue,
            Ok(Message::Close(_)) => return CloseCode::Normal,
            Ok(Message::Binary(_)) => return CloseCode::Unsupported,
            Err(Error::Capacity(_)) => return CloseCode::Size,
            Err(Error::Utf8(_)) => return CloseCode::Invalid,
            Err(_) => return CloseCode::Protocol,
        };
        let posted = Posted { credentials: credentials.clone(), message };
        if messages.send(posted).await.is_err() {
            // The conversation is over, and says why.
            return CloseCode::Normal;
        }
    }
}

/// Writes messages, and pings between them, until there are no more or nobody takes them.
async fn write(
    mut sink: SplitSink<Socket, Message>,
    mut outgoing: mpsc::Receiver<Bytes>,
    closing: oneshot::Receiver<CloseCode>,
) -> SplitSink<Socket, Message> {
    let mut alive = tokio::time::interval(KEEP_ALIVE);
    alive.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let frame = tokio::select! {
            message = outgoing.recv() => match message {
                // A server's JSON is UTF-8, or was not taken for a message.
                Some(message) => Utf8Bytes::try_from(message).map(Message::Text).ok(),
                None => break,
            },
            _ = alive.tick() => Some(Message::Ping(Bytes::new())),
        };
        let Some(frame) = frame else { continue };
        match tokio::time::timeout(WRITE_DEADLINE, sink.send(frame)).await {
            Ok(Ok(())) => {}
            // Dropping the queue ends the conversation.
            Ok(Err(_)) | Err(_) => return sink,
        }
    }
    let code = closing.await.unwrap_or(CloseCode::Away);
    let last = Message::Close(Some(CloseFrame { code, reason: Utf8Bytes::from_static("") }));
    // A client that left first has no need of it.
    let _ = tokio::time::timeout(WRITE_DEADLINE, sink.send(last)).await;
    sink
}

/// Reads on until the client has closed, within bounds: closing a connection with unread bytes takes back what was
/// written to it.
async fn linger(mut socket: Socket) {
    let read = async {
        let (mut buffer, mut room) = (vec![0; READ_BYTES], LINGER_MAX);
        while let Ok(length @ 1..) = socket.get_mut().read(&mut buffer).await {
            match room.checked_sub(length) {
                Some(left) => room = left,
                None => return,
            }
        }
    };
    // The client heard, or it did not.
    let _ = tokio::time::timeout(LINGER_DEADLINE, read).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_is_answered_as_the_specification_has_it() {
        let mut headers = HeaderMap::new();
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive, Upgrade"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        // The example of RFC 6455, 1.3.
        assert_eq!(accept_key(&headers), Ok(HeaderValue::from_static("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")));
        headers.insert(SEC_WEBSOCKET_KEY, HeaderValue::from_static("short"));
        assert_eq!(accept_key(&headers), Err("a WebSocket needs a `Sec-WebSocket-Key` of 16 bytes"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("8"));
        assert_eq!(accept_key(&headers), Err("a WebSocket needs `Sec-WebSocket-Version: 13`"));
        headers.remove(CONNECTION);
        assert_eq!(accept_key(&headers), Err("a WebSocket needs `Connection: upgrade`"));
    }
}
