//! A connection that ends with the right to it.
//!
//! Always holds: when the peer's certificate is revoked the connection breaks at once, with everything that runs over
//! it, whichever side accepted it. A connection that was accepted also ends when the certificate that opened it does:
//! the peer has a newer one by then, and dials again. A connection that was dialled does not, or all clients of a
//! server would come back at the same moment.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Peer;
use super::presenter::Presenter;
use super::trust::Trust;

/// Why a connection was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Cut {
    /// The peer's certificate does not count any more.
    #[error("the certificate of the peer was revoked")]
    Revoked,
    /// The peer's certificate has ended.
    #[error("the certificate of the peer has expired")]
    Expired,
}

/// A stream that is cut when the right to it ends.
pub struct Guarded<S> {
    stream: S,
    end: End,
    /// Who hears what a server says of the certificate that it was shown: in TLS 1.3 with the first answer.
    shown: Option<Arc<Presenter>>,
}

enum End {
    /// Nobody is there whose certificate could end.
    Never,
    Watched(Pin<Box<dyn Future<Output = Cut> + Send>>),
    Cut(Cut),
}

impl<S> Guarded<S> {
    /// A connection that a client opened; `None`: it showed no certificate.
    pub(super) fn accepted(stream: S, peer: Option<Peer>, trust: Arc<Trust>) -> Guarded<S> {
        let end = peer.map_or(End::Never, |peer| {
            End::Watched(Box::pin(async move {
                tokio::select! {
                    () = trust.revokes(&peer) => Cut::Revoked,
                    () = tokio::time::sleep(until(peer.expires_at_ms)) => Cut::Expired,
                }
            }))
        });
        Guarded { stream, end, shown: None }
    }

    /// A connection to a server, to which `shown` was shown.
    pub(super) fn dialled(
        stream: S,
        peer: Option<Peer>,
        trust: Arc<Trust>,
        shown: Arc<Presenter>,
    ) -> Guarded<S> {
        let end = peer.map_or(End::Never, |peer| {
            End::Watched(Box::pin(async move {
                trust.revokes(&peer).await;
                Cut::Revoked
            }))
        });
        Guarded { stream, end, shown: Some(shown) }
    }

    fn check(&mut self, context: &mut Context<'_>) -> io::Result<()> {
        if let End::Watched(end) = &mut self.end
            && let Poll::Ready(cut) = end.as_mut().poll(context)
        {
            self.end = End::Cut(cut);
        }
        match self.end {
            End::Cut(cut) => Err(io::Error::new(io::ErrorKind::ConnectionAborted, cut)),
            End::Never | End::Watched(_) => Ok(()),
        }
    }
}

/// How long it is from now to a time in milliseconds since 1970.
fn until(at_ms: u64) -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Duration::from_millis(at_ms).saturating_sub(now)
}

impl<S: AsyncRead + Unpin> AsyncRead for Guarded<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(context)?;
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let (Poll::Ready(Err(error)), Some(shown)) = (&read, &self.shown) {
            shown.hear(error);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guarded<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check(context)?;
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
