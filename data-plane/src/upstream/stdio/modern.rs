//! A process of the modern era: one for all callers of its server.
//!
//! Always holds: every request comes with an id of its own, so that no two callers can meet. The process ends when its server
//! is no longer configured and the last request under way is done.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::rejection::Upstream;
use crate::upstream::exchange::{Ask, Exchange};
use crate::upstream::stdio::pipe::Pipe;

/// A shared process.
pub(crate) struct ModernProcess {
    pipe: Arc<Pipe>,
}

impl ModernProcess {
    pub(super) fn new(pipe: Arc<Pipe>) -> ModernProcess {
        ModernProcess { pipe }
    }

    /// Sends a request; its id is no other's on this node, and its progress token, too. Fails before anything was sent. Dropping the
    /// exchange cancels the request.
    pub(crate) fn ask(&self, ask: &Ask) -> Result<Exchange, Upstream> {
        self.pipe.ask(ask.id, &ask.body)
    }

    /// Whether the process has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.pipe.is_over()
    }

    pub(super) fn life(&self) -> (Duration, Instant) {
        self.pipe.life()
    }
}
