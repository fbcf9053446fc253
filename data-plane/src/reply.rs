//! The body of an answer: made here, or passed on from a server while the audit looks on.
//!
//! Always holds: what a server sends is passed on as it comes, frame by frame; the watch keeps at most
//! [`INSPECTED_BYTES_MAX`] bytes of it. The entry of a request is closed when its body ends, breaks, or is dropped.

mod checked;
mod cut;
mod redacted;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::mpsc;
use tokio::time::Sleep;

use crate::audit::entry::{Entry, Outcome};
use crate::mcp::json;
use crate::mcp::sse::EventScanner;
pub(crate) use crate::mcp::sse::event;
pub(crate) use crate::reply::cut::{Cut, CutBy, Lapse};
use crate::upstream::exchange::MESSAGE_BYTES_MAX;
use crate::upstream::health::Permit;

/// Most bytes of a JSON answer that are kept to find out whether it is an error. A larger one counts as a result.
const INSPECTED_BYTES_MAX: usize = 64 * 1024;

/// An answer's body.
pub(crate) struct Body {
    source: Source,
    watch: Option<Watch>,
    /// What ends it before its time.
    cut: Option<Cut>,
    /// The place that the request has at its server until its answer is through.
    _permit: Option<Permit>,
}

enum Source {
    /// Written in turn, from the last to the first.
    Pieces(Vec<Bytes>),
    Upstream(Incoming),
    Reframed(Box<Reframed>),
    Events(Events),
    Parts(mpsc::Receiver<Result<Bytes, BodyError>>),
    Redacted(Box<redacted::Redacted>),
    Checked(Box<checked::Checked>),
}

/// A server's events, each looked at before it is passed on.
struct Reframed {
    incoming: Incoming,
    scanner: EventScanner,
    edit: Edit,
    ready: VecDeque<Bytes>,
    ended: bool,
}

/// Gives an event's data in another form; `None`: it may pass as it is.
pub(crate) type Edit = Box<dyn Fn(&[u8]) -> Option<Bytes> + Send + Sync>;

/// Events that are made here, with a comment now and then on a quiet stream, so that nothing between takes it for
/// dead.
struct Events {
    receiver: mpsc::Receiver<Bytes>,
    quiet: Option<Pin<Box<Sleep>>>,
}

/// How long a stream of events may be quiet: proxies and clients commonly give up after a minute.
const QUIET_MAX: Duration = Duration::from_secs(20);
const COMMENT: Bytes = Bytes::from_static(b":\n\n");

/// The answer could not be passed on to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The connection to the server broke.
    #[error("the server's answer broke off")]
    Upstream(#[source] hyper::Error),
    /// The node that serves the request broke off.
    #[error("another node's answer broke off")]
    Peer(#[source] crate::mesh::MeshError),
    /// The deadline passed.
    #[error("the server's answer was late")]
    Late,
    /// It was ended before its time.
    #[error(transparent)]
    Cut(CutBy),
}

/// What the audit keeps of an answer under way.
pub(crate) struct Watch {
    entry: Option<Entry>,
    form: Form,
    sent: Instant,
    deadline: Option<Instant>,
    timer: Option<Pin<Box<Sleep>>>,
    on_event: Option<OnEvent>,
}

/// Called with the data of each event of a stream.
pub(crate) type OnEvent = Box<dyn Fn(&[u8]) + Send + Sync>;

enum Form {
    Json(Vec<u8>),
    Events { scanner: EventScanner, last: Outcome },
    Other,
}

impl Body {
    /// A body that is there as a whole.
    pub(crate) fn full(bytes: Bytes) -> Body {
        Body::of(Source::Pieces(vec![bytes]))
    }

    /// No body.
    pub(crate) fn empty() -> Body {
        Body::of(Source::Pieces(Vec::new()))
    }

    /// A body of several pieces, none of which is copied.
    pub(crate) fn pieces(mut pieces: Vec<Bytes>) -> Body {
        pieces.reverse();
        Body::of(Source::Pieces(pieces))
    }

    /// What a server sends.
    pub(crate) fn upstream(incoming: Incoming) -> Body {
        Body::of(Source::Upstream(incoming))
    }

    /// A server's events, each passed through `edit`.
    pub(crate) fn reframed(incoming: Incoming, edit: Edit) -> Body {
        let scanner = EventScanner::with_limit(MESSAGE_BYTES_MAX);
        let reframed = Reframed { incoming, scanner, edit, ready: VecDeque::new(), ended: false };
        Body::of(Source::Reframed(Box::new(reframed)))
    }

    /// Events that are made here.
    pub(crate) fn events(receiver: mpsc::Receiver<Bytes>) -> Body {
        Body::of(Source::Events(Events { receiver, quiet: None }))
    }

    /// What another node sends.
    pub(crate) fn parts(receiver: mpsc::Receiver<Result<Bytes, BodyError>>) -> Body {
        Body::of(Source::Parts(receiver))
    }

    /// The same body, with an eye on it.
    pub(crate) fn watched(self, watch: Watch) -> Body {
        Body { watch: Some(watch), ..self }
    }

    /// The same body, which breaks off when it is cut.
    pub(crate) fn until(self, cut: Cut) -> Body {
        Body { cut: Some(cut), ..self }
    }

    /// The same body, with its request's place at the server until it is through.
    pub(crate) fn holding(self, permit: Permit) -> Body {
        Body { _permit: Some(permit), ..self }
    }

    fn of(source: Source) -> Body {
        Body { source, watch: None, cut: None, _permit: None }
    }
}

impl Watch {
    /// Watches an answer of a content type for an entry. `deadline` ends an answer that is still under way.
    pub(crate) fn new(entry: Entry, content_type: &str, sent: Instant, deadline: Option<Instant>) -> Watch {
        let form = if content_type.starts_with("application/json") {
            Form::Json(Vec::new())
        } else if content_type.starts_with("text/event-stream") {
            Form::Events { scanner: EventScanner::default(), last: Outcome::Ok }
        } else {
            Form::Other
        };
        Watch { entry: Some(entry), form, sent, deadline, timer: None, on_event: None }
    }

    /// Calls `on_event` with the data of each event.
    pub(crate) fn on_event(self, on_event: OnEvent) -> Watch {
        Watch { on_event: Some(on_event), ..self }
    }

    fn see(&mut self, bytes: &[u8], taken: u64) {
        if let Some(entry) = &mut self.entry {
            entry.facts.redacted = taken;
            entry.facts.response_bytes += bytes.len() as u64;
        }
        match &mut self.form {
            Form::Json(kept) if kept.len() + bytes.len() <= INSPECTED_BYTES_MAX => {
                kept.extend_from_slice(bytes)
            }
            Form::Json(_) => self.form = Form::Other,
            Form::Events { scanner, last } => scanner.scan(bytes, |data| {
                *last = outcome_of(data);
                if let Some(on_event) = &self.on_event {
                    on_event(data);
                }
            }),
            Form::Other => {}
        }
    }

    fn end(&mut self, outcome: Option<Outcome>) {
        let Some(mut entry) = self.entry.take() else { return };
        entry.facts.upstream_us = u64::try_from(self.sent.elapsed().as_micros()).ok();
        let seen = || match &self.form {
            Form::Json(kept) => outcome_of(kept),
            Form::Events { last, .. } => *last,
            Form::Other => Outcome::Ok,
        };
        let failed = entry.facts.status.is_some_and(|status| status >= 400);
        entry.close(outcome.unwrap_or_else(|| if failed { Outcome::Error } else { seen() }));
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let Some(deadline) = self.deadline else { return Poll::Pending };
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(deadline.into())));
        timer.as_mut().poll(context)
    }
}

/// Whether a JSON-RPC message is an error, or a tool's result that says it is one. The words are searched first,
/// because nearly every answer has none of them.
fn outcome_of(message: &[u8]) -> Outcome {
    let has = |word: &[u8]| memchr::memmem::find(message, word).is_some();
    if !has(b"\"error\"") && !has(b"\"isError\"") {
        return Outcome::Ok;
    }
    let Ok(text) = std::str::from_utf8(message) else { return Outcome::Error };
    match json::fields(text, &["result", "error"]) {
        Ok([_, Some(_)]) => Outcome::Error,
        Ok([Some(result), None]) => match json::fields(result.get(), &["isError"]) {
            Ok([Some(flag)]) if flag.get() == "true" => Outcome::Error,
            _ => Outcome::Ok,
        },
        Ok([None, None]) => Outcome::Ok,
        Err(_) => Outcome::Error,
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        if let Some(Poll::Ready(by)) = this.cut.as_mut().map(|cut| cut.poll(context)) {
            (this.cut, this.source) = (None, Source::Pieces(Vec::new()));
            this.watch.iter_mut().for_each(|watch| watch.cut(&by));
            return Poll::Ready(Some(Err(BodyError::Cut(by))));
        }
        let polled = this.source.poll(context);
        let Some(watch) = &mut this.watch else { return polled };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if let Some(bytes) = frame.data_ref() {
                    watch.see(bytes, this.source.taken());
                }
                // hyper does not ask again once it knows that nothing follows.
                if this.source.is_end_stream() {
                    watch.end(None);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                watch.end(None);
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                watch.end(Some(Outcome::Broken));
                Poll::Ready(Some(Err(error)))
            }
            Poll::Pending => match watch.poll_deadline(context) {
                Poll::Pending => Poll::Pending,
                Poll::Ready(()) => {
                    watch.end(Some(Outcome::Broken));
                    Poll::Ready(Some(Err(BodyError::Late)))
                }
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.source.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Pieces(pieces) => {
                SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum())
            }
            Source::Upstream(incoming) => incoming.size_hint(),
            Source::Reframed(_)
            | Source::Events(_)
            | Source::Parts(_)
            | Source::Redacted(_)
            | Source::Checked(_) => SizeHint::default(),
        }
    }
}

impl Source {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self {
            Source::Pieces(pieces) => Poll::Ready(pieces.pop().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upstream(incoming) => match Pin::new(incoming).poll_frame(context) {
                // What follows the body belongs to the server's hop.
                Poll::Ready(Some(Ok(frame))) if frame.is_trailers() => Poll::Ready(None),
                polled => polled.map_err(BodyError::Upstream),
            },
            Source::Reframed(reframed) => reframed.poll(context),
            Source::Parts(parts) => parts.poll_recv(context).map_ok(Frame::data),
            Source::Events(events) => {
                events.poll(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
            }
            Source::Redacted(redacted) => redacted.poll(context),
            Source::Checked(checked) => checked.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Source::Pieces(pieces) => pieces.is_empty(),
            Source::Upstream(incoming) => incoming.is_end_stream(),
            Source::Reframed(reframed) => reframed.ended && reframed.ready.is_empty(),
            Source::Redacted(redacted) => redacted.is_end_stream(),
            Source::Events(_) | Source::Parts(_) | Source::Checked(_) => false,
        }
    }

    /// How much was taken out of it so far.
    fn taken(&self) -> u64 {
        match self {
            Source::Redacted(redacted) => redacted.taken(),
            Source::Checked(checked) => checked.taken(),
            _ => 0,
        }
    }
}

impl Reframed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(bytes))));
            }
            if self.ended {
                return Poll::Ready(None);
            }
            match Pin::new(&mut self.incoming).poll_frame(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => self.ended = true,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(BodyError::Upstream(error)))),
                Poll::Ready(Some(Ok(frame))) => {
                    let (edit, ready) = (&self.edit, &mut self.ready);
                    let bytes = frame.data_ref().map(Bytes::as_ref).unwrap_or_default();
                    self.scanner.scan(bytes, |data| {
                        let edited = edit(data);
                        ready.push_back(event(edited.as_deref().unwrap_or(data)));
                    });
                }
            }
        }
    }
}

impl Events {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if let Poll::Ready(bytes) = self.receiver.poll_recv(context) {
            self.quiet = None;
            return Poll::Ready(bytes);
        }
        let quiet = self.quiet.get_or_insert_with(|| Box::pin(tokio::time::sleep(QUIET_MAX)));
        match quiet.as_mut().poll(context) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => {
                self.quiet = None;
                Poll::Ready(Some(COMMENT))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_told_from_a_result_that_talks_of_errors() {
        for (message, outcome) in [
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[]}}"#, Outcome::Ok),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":false}}"#, Outcome::Ok),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"content":[],"isError":true}}"#, Outcome::Error),
            (r#"{"jsonrpc":"2.0","id":1,"result":{"error":"a word"}}"#, Outcome::Ok),
            (r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"x"}}"#, Outcome::Error),
        ] {
            assert_eq!(outcome_of(message.as_bytes()), outcome, "{message}");
        }
    }
}
