//! Frames on a QUIC stream, as `mesh.proto` says.
//!
//! Always holds: a frame is at most [`FRAME_BYTES_MAX`] long in both directions; memory is taken as bytes come, not as
//! a length says; a stream that ends without the end mark was broken off, however it ended.
//!
//! What a frame means is not known here.

use bytes::{Buf, Bytes, BytesMut};
use quinn::{ReadError, RecvStream, SendStream, WriteError};

use super::MeshError;
use crate::upstream::exchange::MESSAGE_BYTES_MAX;

/// Longest frame: a server's message at its bound, and what stands around it.
pub(crate) const FRAME_BYTES_MAX: usize = MESSAGE_BYTES_MAX + 64 * 1024;
/// Bytes of a frame's length.
const LENGTH_BYTES: usize = 4;
/// The length that marks the end.
const END: &[u8; LENGTH_BYTES] = &[0xff; LENGTH_BYTES];
/// Most bytes taken from a stream at once.
const READ_BYTES: usize = 64 * 1024;

/// Writes frames.
pub(super) struct FrameWriter {
    stream: SendStream,
    /// False while a frame is being written: a write that was dropped half way leaves no place for another.
    is_whole: bool,
}

/// Reads frames.
pub(super) struct FrameReader {
    stream: RecvStream,
    buffer: BytesMut,
    is_ended: bool,
}

impl FrameWriter {
    pub(super) fn new(stream: SendStream) -> FrameWriter {
        FrameWriter { stream, is_whole: true }
    }

    /// Writes a frame; waits while the other end does not read. A write that is dropped breaks the stream off.
    pub(super) async fn write(&mut self, frame: Bytes) -> Result<(), MeshError> {
        let bytes = frame.len();
        let length = u32::try_from(bytes).ok().filter(|_| bytes <= FRAME_BYTES_MAX);
        let length = length.ok_or(MeshError::TooLarge { bytes })?;
        self.write_parts(&mut [Bytes::copy_from_slice(&length.to_be_bytes()), frame]).await
    }

    /// Ends the stream properly.
    pub(super) async fn end(&mut self) -> Result<(), MeshError> {
        self.write_parts(&mut [Bytes::from_static(END)]).await?;
        self.stream.finish().map_err(|_| MeshError::Cut)
    }

    /// Completes when the other end reads no further, or is gone.
    pub(super) fn stopped(&self) -> impl Future<Output = ()> + Send + Sync + 'static {
        let stopped = self.stream.stopped();
        async {
            // Why is told by the next write.
            let _ = stopped.await;
        }
    }

    async fn write_parts(&mut self, parts: &mut [Bytes]) -> Result<(), MeshError> {
        if !std::mem::replace(&mut self.is_whole, false) {
            let _ = self.stream.reset(0_u32.into());
            return Err(MeshError::Cut);
        }
        self.stream.write_all_chunks(parts).await.map_err(write_failed)?;
        self.is_whole = true;
        Ok(())
    }
}

impl FrameReader {
    pub(super) fn new(stream: RecvStream) -> FrameReader {
        FrameReader { stream, buffer: BytesMut::new(), is_ended: false }
    }

    /// The next frame; `None` when the stream ended properly. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, MeshError> {
        while !self.is_ended {
            match self.take()? {
                Taken::Frame(frame) => return Ok(Some(frame)),
                Taken::End => {
                    // The end of the stream stands behind its mark; unread, it would be taken for a cancellation.
                    let _ = self.stream.read_chunk(1, true).await;
                    self.is_ended = true;
                }
                Taken::Nothing => {
                    let chunk = self.stream.read_chunk(READ_BYTES, true).await.map_err(read_failed)?;
                    self.buffer.extend_from_slice(&chunk.ok_or(MeshError::Cut)?.bytes);
                }
            }
        }
        Ok(None)
    }

    fn take(&mut self) -> Result<Taken, MeshError> {
        let Some(length) = self.buffer.first_chunk::<LENGTH_BYTES>() else { return Ok(Taken::Nothing) };
        if length == END {
            return Ok(Taken::End);
        }
        let bytes = u32::from_be_bytes(*length) as usize;
        if bytes > FRAME_BYTES_MAX {
            return Err(MeshError::TooLarge { bytes });
        }
        if self.buffer.len() < LENGTH_BYTES + bytes {
            return Ok(Taken::Nothing);
        }
        self.buffer.advance(LENGTH_BYTES);
        Ok(Taken::Frame(self.buffer.split_to(bytes).freeze()))
    }
}

enum Taken {
    Frame(Bytes),
    End,
    Nothing,
}

fn write_failed(error: WriteError) -> MeshError {
    match error {
        WriteError::ConnectionLost(error) => MeshError::Lost(error),
        WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => MeshError::Cut,
    }
}

fn read_failed(error: ReadError) -> MeshError {
    match error {
        ReadError::ConnectionLost(error) => MeshError::Lost(error),
        ReadError::Reset(_)
        | ReadError::ClosedStream
        | ReadError::IllegalOrderedRead
        | ReadError::ZeroRttRejected => MeshError::Cut,
    }
}
