//! An answer of which services are asked before it is passed on ([`crate::check`]).
//!
//! Always holds: the questions are a part of the body: who drops that, ends them. Bytes that were asked about pass as
//! they came.

use std::pin::Pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use tokio::sync::mpsc;

use super::{Body, BodyError, Source};
use crate::check::AnswerChecks;
use crate::check::answer::{Passed, Splitter, Written, data_of, with_data};
use crate::reply::event;

/// Parts that may wait to be written: the next is asked about while one is.
const PARTS_MAX: usize = 2;

pub(super) struct Checked {
    /// Within a lock that nobody takes: a body is shared with who may not poll it.
    work: Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>,
    parts: mpsc::Receiver<Result<Bytes, BodyError>>,
    taken: Arc<AtomicU64>,
    is_done: bool,
}

/// What of an answer is under way.
struct Asking {
    source: Source,
    checks: AnswerChecks,
    parts: mpsc::Sender<Result<Bytes, BodyError>>,
    taken: Arc<AtomicU64>,
}

impl Body {
    /// The same body, of which services are asked as its media type says.
    pub(crate) fn checked(self, checks: AnswerChecks, content_type: &str) -> Body {
        let (sender, parts) = mpsc::channel(PARTS_MAX);
        let taken = Arc::new(AtomicU64::new(0));
        let asking = Asking { source: self.source, checks, parts: sender, taken: taken.clone() };
        let media = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let work: Pin<Box<dyn Future<Output = ()> + Send>> = match media.as_str() {
            "text/event-stream" => Box::pin(asking.events()),
            "application/json" => Box::pin(asking.whole(Written::Json)),
            _ => Box::pin(asking.whole(Written::Text)),
        };
        let source =
            Source::Checked(Box::new(Checked { work: Mutex::new(work), parts, taken, is_done: false }));
        Body { source, ..self }
    }
}

impl Checked {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        loop {
            if let Poll::Ready(part) = self.parts.poll_recv(context) {
                return Poll::Ready(part.map(|part| part.map(Frame::data)));
            }
            if self.is_done {
                // All that it sent was taken, and its end of the channel is gone with it.
                return Poll::Ready(None);
            }
            let work = self.work.get_mut().unwrap_or_else(PoisonError::into_inner);
            self.is_done = work.as_mut().poll(context).is_ready();
            if !self.is_done {
                // It may have sent something before it came to wait.
                return self.parts.poll_recv(context).map(|part| part.map(|part| part.map(Frame::data)));
            }
        }
    }

    /// How much was taken out of the answer so far.
    pub(super) fn taken(&self) -> u64 {
        self.taken.load(Ordering::Relaxed)
    }
}

impl Asking {
    async fn next(&mut self) -> Option<Result<Bytes, BodyError>> {
        loop {
            let frame = std::future::poll_fn(|context| self.source.poll(context)).await?;
            self.taken.store(self.source.taken(), Ordering::Relaxed);
            match frame.map(Frame::into_data) {
                Ok(Ok(bytes)) => return Some(Ok(bytes)),
                // Trailers are no part of the answer.
                Ok(Err(_)) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Gives a part out; false: nobody takes it any more.
    async fn give(&self, part: Result<Bytes, BodyError>) -> bool {
        self.parts.send(part).await.is_ok()
    }

    /// Asks about the answer as one.
    async fn whole(mut self, written: Written) {
        let most = self.checks.bytes_max();
        let mut held: Vec<u8> = Vec::new();
        while let Some(part) = self.next().await {
            match part {
                Ok(bytes) => held.extend_from_slice(&bytes),
                Err(error) => {
                    self.give(Err(error)).await;
                    return;
                }
            }
            if held.len() > most {
                return self.larger(held).await;
            }
        }
        // Of nothing nobody is asked.
        if held.is_empty() {
            return;
        }
        let part = match self.checks.ask(&held, written, 0).await {
            Passed::AsItIs => Some(Bytes::from(held)),
            Passed::Replaced(text) => Some(text.into()),
            Passed::Refused(why) => self.checks.refusal(why),
        };
        if let Some(part) = part {
            self.give(Ok(part)).await;
        }
    }

    /// Goes on with more than anybody is shown.
    async fn larger(mut self, held: Vec<u8>) {
        match self.checks.too_large() {
            Passed::Refused(why) => {
                if let Some(refusal) = self.checks.refusal(why) {
                    self.give(Ok(refusal)).await;
                }
            }
            Passed::AsItIs | Passed::Replaced(_) => {
                if self.give(Ok(held.into())).await {
                    self.pass().await;
                }
            }
        }
    }

    async fn pass(&mut self) {
        while let Some(part) = self.next().await {
            let is_over = part.is_err();
            if !self.give(part).await || is_over {
                return;
            }
        }
    }

    /// Asks about each event.
    async fn events(mut self) {
        let most = self.checks.bytes_max();
        let (mut splitter, mut index) = (Splitter::default(), 0);
        loop {
            let part = self.next().await;
            if let Some(Ok(bytes)) = &part {
                splitter.push(bytes);
            }
            while let Some(raw) = splitter.next() {
                if !self.event(raw, &mut index).await {
                    return;
                }
            }
            match part {
                Some(Ok(_)) if splitter.len() > most => return self.larger_event(splitter.rest()).await,
                Some(Ok(_)) => {}
                Some(Err(error)) => {
                    self.give(Err(error)).await;
                    return;
                }
                None => {
                    let rest = splitter.rest();
                    if !rest.is_empty() {
                        self.event(rest, &mut index).await;
                    }
                    return;
                }
            }
        }
    }

    /// Asks about one event, and gives it out; false: the answer is over.
    async fn event(&mut self, raw: Vec<u8>, index: &mut u32) -> bool {
        let Some(data) = data_of(&raw) else { return self.give(Ok(raw.into())).await };
        let passed = self.checks.ask(&data, Written::Json, *index).await;
        *index = index.saturating_add(1);
        match passed {
            Passed::AsItIs => self.give(Ok(raw.into())).await,
            Passed::Replaced(text) => self.give(Ok(with_data(&raw, &text).into())).await,
            Passed::Refused(why) => {
                if let Some(refusal) = self.checks.refusal(why) {
                    self.give(Ok(event(&refusal))).await;
                }
                false
            }
        }
    }

    async fn larger_event(mut self, held: Vec<u8>) {
        match self.checks.too_large() {
            Passed::Refused(why) => {
                if let Some(refusal) = self.checks.refusal(why) {
                    // What came of the event before it was not given out.
                    self.give(Ok(event(&refusal))).await;
                }
            }
            // Nobody could say where in it the next begins but by reading it: what follows passes with it.
            Passed::AsItIs | Passed::Replaced(_) => {
                if self.give(Ok(held.into())).await {
                    self.pass().await;
                }
            }
        }
    }
}
