//! One stream of `subscriptions/listen`, as an agent holds it open for as long as it lives.
//!
//! What always holds: a stream counts as open once its acknowledgement came; its bytes are searched, not parsed.

use std::time::Instant;

use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
};
use hyper_util::rt::TokioIo;
use memchr::memmem;
use tokio::net::TcpStream;

use super::{
    answer,
    call::{Call, Endpoint, ID_MIN},
    connection::CallError,
};

/// Says that the stream is open.
const ACKNOWLEDGED: &[u8] = b"notifications/subscriptions/acknowledged";
/// Says that the list of tools is another.
const CHANGED: &[u8] = b"notifications/tools/list_changed";
/// Bytes kept to find a word that two frames share.
const TAIL_BYTES: usize = 64;

/// An open stream.
#[derive(Debug)]
pub struct Listener {
    body: Incoming,
    tail: Vec<u8>,
    /// Dropping it ends the connection.
    _sender: SendRequest<Full<Bytes>>,
}

impl Listener {
    /// Opens a stream and waits for its acknowledgement.
    ///
    /// # Errors
    /// When there is none.
    pub async fn open(endpoint: &Endpoint, call: &Call) -> Result<Self, CallError> {
        let stream = TcpStream::connect(&endpoint.authority).await.map_err(CallError::Connect)?;
        let (mut sender, io) = http1::Builder::new()
            .max_buf_size(8_192)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(CallError::Broken)?;
        // A broken connection shows in the stream.
        tokio::spawn(async move { drop(io.await) });
        let mut request = Request::new(Full::new(call.body_with_id(ID_MIN)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = call.path.clone();
        *request.headers_mut() = call.headers.clone();
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        let status = response.status();
        let mut listener = Self { body: response.into_body(), tail: Vec::new(), _sender: sender };
        if status != StatusCode::OK {
            let body = listener.body.collect().await.map_err(CallError::Broken)?.to_bytes();
            return Err(CallError::Status { status, excerpt: answer::excerpt(&body) });
        }
        listener.hear(ACKNOWLEDGED).await?;
        Ok(listener)
    }

    /// Waits until the stream says that the list of tools changed. Dropping the future loses what came meanwhile.
    ///
    /// # Errors
    /// When the stream ends.
    pub async fn changed(&mut self) -> Result<Instant, CallError> {
        self.hear(CHANGED).await
    }

    async fn hear(&mut self, word: &[u8]) -> Result<Instant, CallError> {
        let ended = || CallError::Wrong("the stream ended".to_owned());
        loop {
            if let Some(at) = memmem::find(&self.tail, word) {
                self.tail.drain(..at + word.len());
                return Ok(Instant::now());
            }
            let surplus = self.tail.len().saturating_sub(TAIL_BYTES);
            self.tail.drain(..surplus);
            let frame = self.body.frame().await.ok_or_else(ended)?.map_err(CallError::Broken)?;
            if let Some(data) = frame.data_ref() {
                self.tail.extend_from_slice(data);
            }
        }
    }
}
