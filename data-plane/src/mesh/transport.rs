//! How QUIC is set: windows, streams, timeouts.
//!
//! Always holds: only who connected opens streams on a connection, and none but bidirectional ones. What a peer can
//! make this node keep in memory is bounded by [`STREAMS_MAX`] times [`STREAM_WINDOW_BYTES`] in each direction.

use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{IdleTimeout, ServerConfig, TransportConfig, VarInt};

use super::{IDLE_TIMEOUT, KEEP_ALIVE};

/// Streams that a peer may have open: as many as a node has requests under way, since all may be for one other node.
pub(super) const STREAMS_MAX: u32 = 16_384;
/// Bytes of a stream that wait unread. More would be taken up by clients that read slowly; a message of any length
/// passes all the same.
const STREAM_WINDOW_BYTES: u32 = 64 * 1024;
/// Bytes of all streams of a connection that wait unread: what its streams may, so that slow readers of some never
/// hold up the others.
const CONNECTION_WINDOW_BYTES: u32 = STREAMS_MAX * STREAM_WINDOW_BYTES;
/// Bytes that were sent and not acknowledged: 10 Gbit/s over 10 ms, nearly.
const SEND_WINDOW_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of datagrams that wait, each way; when there are more, the oldest are lost.
const DATAGRAMS_BYTES: usize = 1024 * 1024;
/// Taken for the round trip until it was measured. A first packet that gets lost is sent again after three times that,
/// well within the deadline of whoever waits.
const INITIAL_ROUND_TRIP: Duration = Duration::from_millis(50);
/// Connections whose first packets wait to be looked at.
const INCOMING_MAX: usize = 1_024;

/// For connections that come in.
pub(super) fn server(crypto: QuicServerConfig) -> ServerConfig {
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    let mut transport = transport();
    transport.max_concurrent_bidi_streams(VarInt::from_u32(STREAMS_MAX));
    config.transport_config(Arc::new(transport)).max_incoming(INCOMING_MAX).migration(false);
    config
}

/// For connections that go out.
pub(super) fn of_dialer() -> TransportConfig {
    let mut transport = transport();
    // One end keeps a connection alive for both.
    transport.keep_alive_interval(Some(KEEP_ALIVE)).max_concurrent_bidi_streams(VarInt::from_u32(0));
    transport
}

fn transport() -> TransportConfig {
    let idle_ms = u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW_BYTES))
        .receive_window(VarInt::from_u32(CONNECTION_WINDOW_BYTES))
        .send_window(SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(Some(DATAGRAMS_BYTES))
        .datagram_send_buffer_size(DATAGRAMS_BYTES)
        .initial_rtt(INITIAL_ROUND_TRIP);
    transport
}
