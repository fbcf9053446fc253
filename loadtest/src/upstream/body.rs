//! A response body made of finished pieces, sent without copying the large ones.
//!
//! What always holds: the pieces are sent in order, each as one frame; a body that is not a
//! stream states its exact length.

use std::{
    array,
    convert::Infallible,
    iter::Flatten,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::body::{Body, Bytes, Frame, SizeHint};

/// Progress events before the answer, plus the answer.
pub(super) const PIECE_COUNT_MAX: usize = 4;

/// The pieces that are still to be sent.
pub(super) struct Pieces {
    rest: Flatten<array::IntoIter<Option<Bytes>, PIECE_COUNT_MAX>>,
    rest_count: usize,
    /// `None` for a stream of events, whose length a server would not know.
    rest_bytes: Option<u64>,
}

impl Pieces {
    pub(super) fn empty() -> Self {
        Self::new([const { None }; PIECE_COUNT_MAX], true)
    }

    pub(super) fn one(piece: Bytes) -> Self {
        Self::new([Some(piece), None, None, None], true)
    }

    pub(super) fn two(head: Bytes, tail: Bytes) -> Self {
        Self::new([Some(head), Some(tail), None, None], true)
    }

    pub(super) fn events(events: [Option<Bytes>; PIECE_COUNT_MAX]) -> Self {
        Self::new(events, false)
    }

    fn new(pieces: [Option<Bytes>; PIECE_COUNT_MAX], is_length_known: bool) -> Self {
        let rest_count = pieces.iter().flatten().count();
        let bytes = || pieces.iter().flatten().map(|piece| piece.len() as u64).sum();
        let rest_bytes = is_length_known.then(bytes);
        Self { rest: pieces.into_iter().flatten(), rest_count, rest_bytes }
    }
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let Some(piece) = self.rest.next() else {
            return Poll::Ready(None);
        };
        self.rest_count -= 1;
        self.rest_bytes = self.rest_bytes.map(|bytes| bytes - piece.len() as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest_count == 0
    }

    fn size_hint(&self) -> SizeHint {
        self.rest_bytes.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}
