//! Bringing what a server sends on a shared stream to the request that it concerns.
//!
//! A stdio process, an HTTP+SSE session and a legacy session's own stream carry messages for many requests at once.
//! Always holds: a response goes to the request with its id, progress to the request that is its token, a
//! subscription's message to its listen; what a server asks goes to the request that was sent last, because the wire
//! does not say which one it is for; everything else is unbound. A reader that does not keep up loses
//! notifications, never its answer.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::mcp::json;
use crate::upstream::exchange::{EVENTS_MAX, Event, read_message};

/// Requests under way on one stream.
pub(crate) const CALLS_MAX: usize = 1_024;
/// Places of a request's queue that only its answer and the server's own requests may take.
const RESERVED: usize = 8;

/// The requests under way on one stream.
pub(crate) struct Router {
    calls: Mutex<BTreeMap<u64, mpsc::Sender<Event>>>,
    unbound: mpsc::Sender<Event>,
}

/// Too many requests are under way on the stream.
#[derive(Debug, thiserror::Error)]
#[error("more than {CALLS_MAX} requests are under way at the server")]
pub(crate) struct Full;

impl Router {
    /// A router without requests, and what concerns none of them.
    pub(crate) fn new() -> (Router, mpsc::Receiver<Event>) {
        let (unbound, receiver) = mpsc::channel(EVENTS_MAX);
        (Router { calls: Mutex::default(), unbound }, receiver)
    }

    /// Opens a request by its id. It is forgotten when its answer came, or when the receiver is dropped.
    pub(crate) fn open(&self, id: u64) -> Result<mpsc::Receiver<Event>, Full> {
        let mut calls = self.lock();
        if calls.len() >= CALLS_MAX {
            calls.retain(|_, sender| !sender.is_closed());
        }
        if calls.len() >= CALLS_MAX {
            return Err(Full);
        }
        let (sender, receiver) = mpsc::channel(EVENTS_MAX);
        calls.insert(id, sender);
        Ok(receiver)
    }

    /// Forgets requests whose readers left, and tells which they were.
    pub(crate) fn forget_left(&self) -> Vec<u64> {
        let mut calls = self.lock();
        let left: Vec<u64> =
            calls.iter().filter(|(_, sender)| sender.is_closed()).map(|(id, _)| *id).collect();
        for id in &left {
            calls.remove(id);
        }
        left
    }

    /// Forgets one request.
    pub(crate) fn close(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// Ends every request under way: their queues end without an answer.
    pub(crate) fn end_all(&self) {
        self.lock().clear();
    }

    /// Brings a message to whom it concerns. Returns whether it is a message.
    pub(crate) fn deliver(&self, message: &Bytes) -> bool {
        let event = read_message(message);
        event.map(|event| self.route(event)).is_some()
    }

    /// Brings an event to whom it concerns. Returns whether somebody took it.
    pub(crate) fn route(&self, event: Event) -> bool {
        match &event {
            Event::Answer(answer) => {
                let id = number(answer, "id");
                let call = id.and_then(|id| self.lock().remove(&id));
                // A full queue keeps places free for it.
                call.is_some_and(|call| call.try_send(event).is_ok())
            }
            Event::Request { .. } => {
                let calls = self.lock();
                let latest = calls.values().rev().find(|sender| !sender.is_closed()).cloned();
                drop(calls);
                latest.unwrap_or_else(|| self.unbound.clone()).try_send(event).is_ok()
            }
            Event::Notification(note) => {
                let call = notified(note).and_then(|id| self.lock().get(&id).cloned());
                let queue = call.unwrap_or_else(|| self.unbound.clone());
                queue.capacity() > RESERVED && queue.try_send(event).is_ok()
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, mpsc::Sender<Event>>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn number(message: &Bytes, field: &'static str) -> Option<u64> {
    let text = std::str::from_utf8(message).ok()?;
    let [value] = json::fields(text, &[field]).ok()?;
    value?.get().parse().ok()
}

/// The request that a notification belongs to, as far as it says so: by progress token or subscription.
fn notified(note: &Bytes) -> Option<u64> {
    let text = std::str::from_utf8(note).ok()?;
    let [params] = json::fields(text, &["params"]).ok()?;
    let [token, meta] = json::fields(params?.get(), &["progressToken", "_meta"]).ok()?;
    let named = match (token, meta) {
        (Some(token), _) => token.get(),
        (None, Some(meta)) => {
            let [subscription] =
                json::fields(meta.get(), &["io.modelcontextprotocol/subscriptionId"]).ok()?;
            subscription?.get()
        }
        (None, None) => return None,
    };
    named.trim_matches('"').parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> Bytes {
        Bytes::copy_from_slice(text.as_bytes())
    }

    #[test]
    fn each_message_finds_its_request() -> Result<(), Full> {
        let (router, mut unbound) = Router::new();
        let (mut one, mut two) = (router.open(1)?, router.open(2)?);
        let progress =
            message(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#);
        let listed = message(
            r#"{"jsonrpc":"2.0","method":"notifications/x","params":{"_meta":{"io.modelcontextprotocol/subscriptionId":"1"}}}"#,
        );
        let asked = message(r#"{"jsonrpc":"2.0","id":"q","method":"roots/list"}"#);
        let log = message(r#"{"jsonrpc":"2.0","method":"notifications/message","params":{}}"#);
        let answer = message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#);
        for text in [&progress, &listed, &asked, &log, &answer] {
            assert!(router.deliver(text));
        }
        assert!(!router.deliver(&message("no message")));
        assert_eq!(one.try_recv(), Ok(Event::Notification(progress)));
        assert_eq!(one.try_recv(), Ok(Event::Notification(listed)));
        assert_eq!(one.try_recv(), Ok(Event::Answer(answer)));
        assert_eq!(two.try_recv(), Ok(Event::Request { id: message("\"q\""), message: asked }));
        assert_eq!(unbound.try_recv(), Ok(Event::Notification(log)));
        drop(two);
        assert_eq!(router.forget_left(), [2]);
        Ok(())
    }

    #[test]
    fn a_reader_that_does_not_keep_up_loses_notifications_and_not_its_answer() -> Result<(), Full> {
        let (router, _unbound) = Router::new();
        let mut slow = router.open(1)?;
        let progress =
            message(r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1}}"#);
        for _ in 0..2 * EVENTS_MAX {
            router.deliver(&progress);
        }
        router.deliver(&message(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#));
        let mut events = Vec::new();
        while let Ok(event) = slow.try_recv() {
            events.push(event);
        }
        assert_eq!(events.len(), EVENTS_MAX - RESERVED + 1);
        assert!(matches!(events.last(), Some(Event::Answer(_))));
        Ok(())
    }
}
