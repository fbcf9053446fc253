//! Accepting connections for gRPC: handshakes beside each other, and who is at the other end.
//!
//! Always holds: a slow or silent client delays nobody else; at most [`HANDSHAKES_MAX`] handshakes run at once, and
//! none beyond [`HANDSHAKE_DEADLINE`]; when [`Incoming`] is dropped they end. A failed handshake is logged and is not
//! the listener's end.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::guard::Guarded;
use super::handshake::{HandshakeError, chain};
use super::peer::Peer;
use super::trust::Trust;
use super::verify::peer_of;

/// Handshakes at one time. A thousand nodes that come back at once pass in four rounds of a few milliseconds; more at
/// a time would only hold more memory.
pub const HANDSHAKES_MAX: usize = 256;
/// How long a handshake may take: two round trips to the other side of the world, and a loaded machine.
pub const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after the system refused to: it is out of descriptors, which pass.
const REFUSED_PAUSE: Duration = Duration::from_millis(50);

/// The connections of a listener whose handshakes are done, for `serve_with_incoming`. It never ends and never fails.
pub struct Incoming {
    listener: TcpListener,
    acceptor: TlsAcceptor,
    trust: Arc<Trust>,
    handshakes: JoinSet<Option<Accepted>>,
    pause: Option<Pin<Box<Sleep>>>,
}

/// A connection whose handshake is done. Requests that come over it have its [`Caller`] among their extensions.
pub struct Accepted {
    stream: Guarded<TlsStream<TcpStream>>,
    caller: Caller,
}

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// From where.
    pub address: SocketAddr,
    /// Who that is; `None`: it showed no certificate.
    pub peer: Option<Peer>,
}

impl Incoming {
    /// Accepts what comes to `listener`.
    pub fn new(listener: TcpListener, config: Arc<ServerConfig>, trust: Arc<Trust>) -> Incoming {
        let acceptor = TlsAcceptor::from(config);
        Incoming { listener, acceptor, trust, handshakes: JoinSet::new(), pause: None }
    }

    /// Starts a handshake with everybody who waits, as long as there is room.
    fn poll_listener(&mut self, context: &mut Context<'_>) {
        while self.handshakes.len() < HANDSHAKES_MAX {
            if let Some(pause) = &mut self.pause {
                if pause.as_mut().poll(context).is_pending() {
                    return;
                }
                self.pause = None;
            }
            match self.listener.poll_accept(context) {
                Poll::Pending => return,
                Poll::Ready(Ok((stream, address))) => {
                    let (acceptor, trust) = (self.acceptor.clone(), self.trust.clone());
                    self.handshakes.spawn(handshake(acceptor, trust, stream, address));
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    self.pause = Some(Box::pin(tokio::time::sleep(REFUSED_PAUSE)));
                }
            }
        }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Accepted>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Accepted>>> {
        loop {
            self.poll_listener(context);
            match ready!(self.handshakes.poll_join_next(context)) {
                Some(Ok(Some(accepted))) => return Poll::Ready(Some(Ok(accepted))),
                Some(Ok(None)) => {}
                Some(Err(error)) => tracing::error!(%error, "a handshake broke off"),
                // None is under way, and the listener wakes us.
                None => return Poll::Pending,
            }
        }
    }
}

async fn handshake(
    acceptor: TlsAcceptor,
    trust: Arc<Trust>,
    stream: TcpStream,
    address: SocketAddr,
) -> Option<Accepted> {
    // Only a little slower without.
    let _ = stream.set_nodelay(true);
    let failure = match tokio::time::timeout(HANDSHAKE_DEADLINE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => {
            let peer = peer_of(stream.get_ref().1);
            let caller = Caller { address, peer: peer.clone() };
            return Some(Accepted { stream: Guarded::accepted(stream, peer, trust), caller });
        }
        Ok(Err(error)) => chain(&HandshakeError::from(error)),
        Err(_) => "it took too long".to_owned(),
    };
    tracing::warn!(%address, failure, "a client was refused in the handshake");
    None
}

impl Connected for Accepted {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller.clone()
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
