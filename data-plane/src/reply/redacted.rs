//! An answer from which something is taken out as it passes.
//!
//! Always holds: no more of the answer is held than the redactor holds; what it gives out only at the end comes before
//! the end is told.

use std::task::{Context, Poll};

use bytes::Bytes;
use gantry_inspect::Redactor;
use http_body::Frame;

use super::{Body, BodyError, Source};

pub(super) struct Redacted {
    source: Source,
    redactor: Redactor,
    ended: bool,
}

impl Body {
    /// The same body, without what a redactor takes out of it.
    pub(crate) fn redacted(self, redactor: Redactor) -> Body {
        let source = Source::Redacted(Box::new(Redacted { source: self.source, redactor, ended: false }));
        Body { source, ..self }
    }
}

impl Redacted {
    pub(super) fn poll(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        while !self.ended {
            let frame = match self.source.poll(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Some(Err(error))),
                Poll::Ready(Some(Ok(frame))) => Some(frame),
                Poll::Ready(None) => None,
            };
            let mut out = Vec::new();
            match frame.as_ref().map(|frame| frame.data_ref().map(Bytes::as_ref).unwrap_or_default()) {
                Some(bytes) => self.redactor.push(bytes, &mut out),
                None => {
                    self.ended = true;
                    self.redactor.finish(&mut out);
                }
            }
            // All of a frame may be held until the next.
            if !out.is_empty() {
                return Poll::Ready(Some(Ok(Frame::data(out.into()))));
            }
        }
        Poll::Ready(None)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.ended
    }

    /// How much was taken out so far.
    pub(super) fn taken(&self) -> u64 {
        self.redactor.taken()
    }
}
