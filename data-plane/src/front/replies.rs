//! Reading the pipeline's answer to a message back into messages, for clients that get no HTTP answers.
//!
//! Always holds: a request has exactly one answer, under its own id, also where the answer broke off or said nothing;
//! what is no request has none. A message has at most [`MESSAGE_BYTES_MAX`] bytes; a larger one counts as missing.
//! The body is read to its end, so that its record says how it ended.

use std::collections::VecDeque;

use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body_util::BodyExt;

use crate::mcp::Era;
use crate::mcp::json;
use crate::mcp::message::Id;
use crate::mcp::sse::EventScanner;
use crate::rejection::{self, Context, Rejection, Upstream};
use crate::reply::Body;
use crate::upstream::exchange::{Event, MESSAGE_BYTES_MAX, read_message, read_messages};

/// What is answered: a request, or a message that is none at all and is told so.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// `None`: it could not be read.
    pub(super) id: Option<Id>,
    pub(super) era: Era,
}

/// The messages of an answer, in their order.
pub(super) struct Replies {
    body: Option<Body>,
    form: Form,
    /// What is still to be answered.
    asked: Option<Asked>,
    ready: VecDeque<Bytes>,
}

enum Form {
    /// One message, or an array of them.
    Json(Vec<u8>),
    Events(EventScanner),
}

impl Replies {
    /// Reads the answer to what was asked, or, without that, to a notification, an answer or a stream's opening.
    pub(super) fn of(response: Response<Body>, asked: Option<Asked>) -> Replies {
        let form = match is_stream(&response) {
            true => Form::Events(EventScanner::with_limit(MESSAGE_BYTES_MAX)),
            false => Form::Json(Vec::new()),
        };
        Replies { body: Some(response.into_body()), form, asked, ready: VecDeque::new() }
    }

    /// The next message; `None` after the last.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Some(message);
            }
            let body = self.body.as_mut()?;
            match body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(bytes) = frame.data_ref() {
                        self.see(bytes);
                    }
                }
                Some(Err(_)) => self.end(Upstream::Unreachable),
                None => {
                    if let Form::Json(kept) = &mut self.form {
                        let whole = Bytes::from(std::mem::take(kept));
                        self.take(&whole);
                    }
                    self.end(Upstream::Protocol);
                }
            }
        }
    }

    /// The answer alone, if there is to be one; a failure in its place where it has more than `room` bytes.
    pub(super) async fn answer(mut self, room: usize) -> Option<Bytes> {
        let asked = self.asked.clone()?;
        let mut answer = None;
        while let Some(message) = self.next().await {
            if matches!(read_message(&message), Some(Event::Answer(_))) {
                answer = Some(message);
            }
        }
        let fits = answer.filter(|answer| answer.len() <= room);
        Some(fits.unwrap_or_else(|| asked.fail(Upstream::Protocol)))
    }

    fn see(&mut self, bytes: &[u8]) {
        match &mut self.form {
            Form::Json(kept) if kept.len() + bytes.len() <= MESSAGE_BYTES_MAX => {
                kept.extend_from_slice(bytes)
            }
            // What is cut is no JSON and counts as missing.
            Form::Json(_) => {}
            Form::Events(scanner) => {
                let mut events = Vec::new();
                scanner.scan(bytes, |data| events.push(Bytes::copy_from_slice(data)));
                for event in &events {
                    self.take(event);
                }
            }
        }
    }

    fn take(&mut self, bytes: &Bytes) {
        let mut events = VecDeque::new();
        read_messages(bytes, &mut events);
        for event in events {
            match event {
                Event::Notification(message) | Event::Request { message, .. } => {
                    self.ready.push_back(message)
                }
                Event::Answer(message) => {
                    if let Some(asked) = self.asked.take() {
                        self.ready.push_back(under_id(asked.id.as_ref(), message));
                    }
                }
            }
        }
    }

    fn end(&mut self, failure: Upstream) {
        self.body = None;
        if let Some(asked) = self.asked.take() {
            self.ready.push_back(asked.fail(failure));
        }
    }
}

impl Asked {
    fn fail(&self, failure: Upstream) -> Bytes {
        let context = Context { id: self.id.as_ref(), era: self.era, decision_id: "" };
        Rejection::Upstream(failure).message_for(context)
    }
}

/// Whether an answer is a stream of events.
pub(super) fn is_stream(response: &Response<Body>) -> bool {
    let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
    content_type.is_some_and(|text| text.starts_with("text/event-stream"))
}

/// Whoever is refused before the message is read is answered without its id, which HTTP's own answer does not need.
fn under_id(id: Option<&Id>, message: Bytes) -> Bytes {
    let (Some(id), Ok(text)) = (id, std::str::from_utf8(&message)) else { return message };
    match json::fields(text, &["id", "error"]) {
        Ok([given, Some(error)]) if given.is_none_or(|raw| raw.get() == "null") => {
            rejection::envelope(Some(id), "error", error.get())
        }
        _ => message,
    }
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    async fn read(content_type: &'static str, body: &'static str, id: Option<&'static str>) -> Vec<String> {
        let mut response = Response::new(Body::full(Bytes::from_static(body.as_bytes())));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let asked = id.map(|id| Asked { id: Some(Id(Bytes::from_static(id.as_bytes()))), era: Era::Legacy });
        let mut replies = Replies::of(response, asked);
        let mut found = Vec::new();
        while let Some(message) = replies.next().await {
            found.push(String::from_utf8_lossy(&message).into_owned());
        }
        found
    }

    #[tokio::test]
    async fn a_stream_is_read_event_by_event_and_json_as_one_message() {
        let note = r#"{"jsonrpc":"2.0","method":"notifications/x"}"#;
        let answer = r#"{"jsonrpc":"2.0","id":7,"result":{}}"#;
        let stream = concat!(
            "id: 1\ndata: \n\nevent: message\ndata: {\"jsonrpc\":\"2.0\",\"method\":\"notifications/x\"}\n\n",
            "data: {\"jsonrpc\":\"2.0\",\"id\":7,\"result\":{}}\n\n"
        );
        assert_eq!(read("text/event-stream", stream, Some("7")).await, [note, answer]);
        assert_eq!(read("application/json", answer, Some("7")).await, [answer]);
    }

    #[tokio::test]
    async fn a_request_has_one_answer_under_its_id_and_a_notification_none() {
        let refused = r#"{"jsonrpc":"2.0","id":null,"error":{"code":1}}"#;
        assert_eq!(
            read("application/json", refused, Some("\"a\"")).await,
            [r#"{"jsonrpc":"2.0","id":"a","error":{"code":1}}"#]
        );
        assert_eq!(read("application/json", refused, None).await, Vec::<String>::new());
        for (content_type, nothing) in
            [("application/json", ""), ("text/event-stream", ": x\n\n"), ("text/html", "<p>")]
        {
            let answers = read(content_type, nothing, Some("7")).await;
            let answer: serde_json::Value = serde_json::from_str(&answers[0]).expect("an answer");
            assert_eq!(
                (answers.len(), &answer["id"], &answer["error"]["code"]),
                (1, &7.into(), &(-31502).into())
            );
        }
    }
}
