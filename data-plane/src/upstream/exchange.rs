//! One request to a server, and what comes back for it until its answer.
//!
//! Always holds: events are whole JSON-RPC messages as the server wrote them, with the gateway's own ids; nothing
//! follows the answer. The bytes of one message are bounded by [`MESSAGE_BYTES_MAX`]. What an event means for the
//! client is not known here.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderMap};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::mcp::batch;
use crate::mcp::json;
use crate::mcp::message::Method;
use crate::mcp::sse::EventScanner;
use crate::rejection::Upstream;
use crate::upstream::stdio::pipe::Pipe;

/// Most bytes of one message of a server that is read as a whole: results with images and files are the large ones.
pub(crate) const MESSAGE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most messages of one batch of a server (2025-03-26). What belongs to a request is few; without a bound, the elements
/// of the largest message would be kept many times their size.
const BATCH_MESSAGES_MAX: usize = 1_024;
/// Events of one request that may wait for whoever reads them, where the server's stream is shared with others.
pub(crate) const EVENTS_MAX: usize = 256;

/// A request to a server, ready to be sent.
pub(crate) struct Ask {
    /// Its JSON-RPC id, which `body` has; unique within the session or process that it is sent to.
    pub(crate) id: u64,
    pub(crate) method: Method,
    /// What only HTTP carries: `Mcp-Name` and `Mcp-Param-*` for the modern era, and the server's credential.
    pub(crate) headers: HeaderMap,
    /// The whole message.
    pub(crate) body: Bytes,
}

/// What a server sends for a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Wants no answer.
    Notification(Bytes),
    /// The server asks its client (legacy era); `id` is raw JSON.
    Request { id: Bytes, message: Bytes },
    /// The response: the last event.
    Answer(Bytes),
}

/// A request under way. Dropping it ends a modern request at its server, and any at a process; a legacy one over HTTP
/// runs on unless it is cancelled by a notification.
pub(crate) struct Exchange {
    own: Own,
    /// Came before the answer began.
    early: Option<Event>,
    /// What concerns this request and came by the session's own stream.
    side: Option<mpsc::Receiver<Event>>,
    /// The process that answers: it runs while somebody waits for it, and learns when nobody does any more.
    process: Option<Arc<Pipe>>,
}

enum Own {
    /// The server speaks by the session's own stream, and its response has not begun.
    Pending(Pin<Box<dyn Future<Output = Result<Own, Upstream>> + Send>>),
    Body(Box<BodyEvents>),
    Queue(mpsc::Receiver<Event>),
    Done,
}

impl Exchange {
    /// An exchange whose events come by a queue; a queue that ends without an answer is a failure of the server.
    pub(crate) fn of_queue(events: mpsc::Receiver<Event>) -> Exchange {
        Exchange { own: Own::Queue(events), side: None, process: None, early: None }
    }

    /// An exchange with a process. Dropped before its answer, it is cancelled there.
    pub(crate) fn of_process(events: mpsc::Receiver<Event>, process: Arc<Pipe>) -> Exchange {
        Exchange { own: Own::Queue(events), side: None, process: Some(process), early: None }
    }

    /// An exchange over an HTTP response, JSON or a stream of events. `side` has what the session's own stream
    /// brings for it.
    pub(crate) async fn of_response(
        response: Response<Incoming>,
        side: Option<mpsc::Receiver<Event>>,
    ) -> Result<Exchange, Upstream> {
        let (head, body) = response.into_parts();
        let content_type = head.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default();
        if content_type.starts_with("text/event-stream") && head.status.is_success() {
            let scanner = EventScanner::with_limit(MESSAGE_BYTES_MAX);
            let events = BodyEvents { body, scanner, ready: VecDeque::new() };
            return Ok(Exchange { own: Own::Body(Box::new(events)), side, process: None, early: None });
        }
        let failed = |status: StatusCode| {
            if status.is_success() { Upstream::Protocol } else { Upstream::Status(status) }
        };
        let collected = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
        let bytes = collected.map_err(|_| failed(head.status))?.to_bytes();
        let mut ready = VecDeque::new();
        read_messages(&bytes, &mut ready);
        if !ready.iter().any(|event| matches!(event, Event::Answer(_))) {
            return Err(failed(head.status));
        }
        let (sender, receiver) = mpsc::channel(ready.len());
        for event in ready {
            // There is room for each.
            let _ = sender.try_send(event);
        }
        Ok(Exchange { own: Own::Queue(receiver), side, process: None, early: None })
    }

    /// An exchange whose HTTP response has not begun, while `early` and what follows it in `side` came by the session's
    /// own stream: the server may want to be answered first.
    pub(crate) fn of_pending(
        early: Event,
        side: mpsc::Receiver<Event>,
        response: impl Future<Output = Result<Exchange, Upstream>> + Send + 'static,
    ) -> Exchange {
        let own = async move { Ok(std::mem::replace(&mut response.await?.own, Own::Done)) };
        let own = Own::Pending(Box::pin(own));
        Exchange { own, side: Some(side), process: None, early: Some(early) }
    }

    /// The next event; `None` after the answer. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Upstream>> {
        if let Some(early) = self.early.take() {
            return Some(Ok(early));
        }
        let event = match (&mut self.own, &mut self.side) {
            (Own::Done, _) => return None,
            (own, None) => own.next().await,
            (own, Some(side)) => tokio::select! {
                biased;
                Some(event) = side.recv() => Some(Ok(event)),
                event = own.next() => event,
            },
        };
        let event = event.unwrap_or(Err(Upstream::Unreachable));
        if matches!(event, Err(_) | Ok(Event::Answer(_))) {
            self.own = Own::Done;
        }
        Some(event)
    }

    /// The answer alone; what comes before it is passed over.
    pub(crate) async fn answer(mut self) -> Result<Bytes, Upstream> {
        while let Some(event) = self.next().await {
            if let Event::Answer(message) = event? {
                return Ok(message);
            }
        }
        Err(Upstream::Unreachable)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let (Some(process), false) = (self.process.take(), matches!(self.own, Own::Done)) {
            // First the queue is closed, so that the process's task finds it closed.
            self.own = Own::Done;
            process.caller_left();
        }
    }
}

impl Own {
    async fn next(&mut self) -> Option<Result<Event, Upstream>> {
        if let Own::Pending(response) = self {
            match response.await {
                Ok(begun) => *self = begun,
                Err(failure) => return Some(Err(failure)),
            }
        }
        match self {
            Own::Body(events) => events.next().await,
            Own::Queue(events) => events.recv().await.map(Ok),
            Own::Pending(_) | Own::Done => None,
        }
    }
}

/// The messages of a response's event stream, or of a session's own stream.
pub(crate) struct BodyEvents {
    body: Incoming,
    scanner: EventScanner,
    ready: VecDeque<Event>,
}

impl BodyEvents {
    pub(crate) fn new(body: Incoming) -> BodyEvents {
        BodyEvents { body, scanner: EventScanner::with_limit(MESSAGE_BYTES_MAX), ready: VecDeque::new() }
    }

    /// The next message; `None` at the end of the stream. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Result<Event, Upstream>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(Ok(event));
            }
            let frame = match self.body.frame().await? {
                Ok(frame) => frame,
                Err(_) => return Some(Err(Upstream::Unreachable)),
            };
            if let Some(bytes) = frame.data_ref() {
                let ready = &mut self.ready;
                self.scanner.scan(bytes, |data| read_messages(&Bytes::copy_from_slice(data), ready));
            }
        }
    }
}

/// Reads a message, or a batch of them (2025-03-26); what is no message is passed over, and so is a batch that is too
/// long.
pub(crate) fn read_messages(bytes: &Bytes, into: &mut VecDeque<Event>) {
    let Ok(text) = json::check_text(bytes) else { return };
    if batch::is_array(bytes) {
        let elements = batch::elements(text, BATCH_MESSAGES_MAX).unwrap_or_default();
        let slices = elements.into_iter().map(|raw| bytes.slice_ref(raw.get().as_bytes()));
        into.extend(slices.filter_map(|message| read_message(&message)));
    } else {
        into.extend(read_message(bytes));
    }
}

/// Reads one message; `None` when it is none.
pub(crate) fn read_message(message: &Bytes) -> Option<Event> {
    let text = std::str::from_utf8(message).ok()?;
    let [id, method, result, error] = json::fields(text, &["id", "method", "result", "error"]).ok()?;
    match (id, method, result.is_some() || error.is_some()) {
        (Some(id), Some(_), false) => {
            Some(Event::Request { id: message.slice_ref(id.get().as_bytes()), message: message.clone() })
        }
        (None, Some(_), false) => Some(Event::Notification(message.clone())),
        (_, None, true) => Some(Event::Answer(message.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &'static str) -> Vec<Event> {
        let mut events = VecDeque::new();
        read_messages(&Bytes::from_static(text.as_bytes()), &mut events);
        events.into()
    }

    #[test]
    fn messages_are_told_apart_by_what_they_have() {
        let ping = r#"{"jsonrpc":"2.0","id":"a","method":"ping"}"#;
        let request =
            Event::Request { id: Bytes::from_static(b"\"a\""), message: Bytes::from_static(ping.as_bytes()) };
        assert_eq!(read(ping), std::slice::from_ref(&request));
        let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
        let note_event = Event::Notification(Bytes::from_static(note.as_bytes()));
        assert_eq!(read(note), std::slice::from_ref(&note_event));
        let answer = r#"{"jsonrpc":"2.0","id":1,"result":{}}"#;
        let answer_event = Event::Answer(Bytes::from_static(answer.as_bytes()));
        assert_eq!(read(answer), std::slice::from_ref(&answer_event));
        for nothing in ["", "1", "{}", r#"{"id":1}"#, r#"{"id":1,"method":"x","result":1}"#] {
            assert_eq!(read(nothing), [], "{nothing}");
        }
        let batch =
            r#"[{"jsonrpc":"2.0","method":"notifications/x"},{"jsonrpc":"2.0","id":1,"result":{}},7]"#;
        assert_eq!(read(batch), [note_event, answer_event.clone()]);
        let of = |count: usize| Bytes::from(format!("[{}{answer}]", "1,".repeat(count - 1)));
        let mut events = VecDeque::new();
        read_messages(&of(BATCH_MESSAGES_MAX + 1), &mut events);
        assert_eq!(events, []);
        read_messages(&of(BATCH_MESSAGES_MAX), &mut events);
        assert_eq!(events, [answer_event]);
    }
}
