//! What tells a process that goes on running to stop: an interrupt or a request to terminate.
//!
//! Always holds: from the moment it is made no such signal is lost or ends the process by itself.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::Failure;

/// What tells the process to stop.
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Starts to receive them.
    pub(crate) fn new() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::error(format!("signals cannot be received: {error}"), "run it in an ordinary shell")
            })
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Completes with the next signal to stop.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
