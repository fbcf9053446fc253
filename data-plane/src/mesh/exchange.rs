//! The two ends of an exchange: one request, then frames back until the end.
//!
//! Always holds: nothing of a request is sent before the other end said that it takes it; whoever goes away is noticed
//! by the other end, in both directions.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::Mutex;

use super::frame::{FrameReader, FrameWriter};
use super::{Gone, MeshError};

/// An exchange that a peer will take. Dropping it lets the peer go.
pub(crate) struct Outbound {
    pub(super) writer: FrameWriter,
    pub(super) reader: FrameReader,
}

/// Frames that the peer sends back, until its end. Dropping them tells the peer.
pub(crate) struct Frames {
    reader: FrameReader,
}

/// Where a service answers an exchange. After the future of [`super::Service::exchange`] ended nothing is sent any more.
pub(crate) struct Replies {
    /// Shared with who ends the stream; otherwise never contended.
    writer: Arc<Mutex<FrameWriter>>,
}

/// Ends the stream of replies, once the service is done.
pub(super) struct ReplyEnd {
    writer: Arc<Mutex<FrameWriter>>,
}

impl Outbound {
    /// Sends the request. On an error the peer may have it or not. Dropping the future breaks the exchange off.
    pub(crate) async fn send(mut self, request: Bytes) -> Result<Frames, MeshError> {
        self.writer.write(request).await?;
        self.writer.end().await?;
        Ok(Frames { reader: self.reader })
    }
}

impl Frames {
    /// The next frame; `None` when the peer finished properly. May be dropped and called again. After an error there
    /// is nothing more.
    pub(crate) async fn next(&mut self) -> Option<Result<Bytes, MeshError>> {
        self.reader.next().await.transpose()
    }
}

impl Replies {
    /// A stream's replies, and its end.
    pub(super) fn new(writer: FrameWriter) -> (Replies, ReplyEnd) {
        let writer = Arc::new(Mutex::new(writer));
        (Replies { writer: writer.clone() }, ReplyEnd { writer })
    }

    /// Sends a frame; waits while the other side does not read. Dropping the future breaks the exchange off.
    pub(crate) async fn send(&mut self, frame: Bytes) -> Result<(), Gone> {
        self.writer.lock().await.write(frame).await.map_err(Gone)
    }

    /// Completes when the other side left. May be dropped and called again.
    pub(crate) async fn closed(&mut self) {
        let stopped = self.writer.lock().await.stopped();
        stopped.await;
    }
}

impl ReplyEnd {
    pub(super) async fn end(self) -> Result<(), MeshError> {
        self.writer.lock().await.end().await
    }
}
