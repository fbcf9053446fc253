//! What ends the streams of a tenant while the node runs on.
//!
//! Always holds: a stream that was begun before a cut ends with it; one that begins later waits for the next. It is the
//! same for all forms of a tenant that follow each other.

use std::sync::{Mutex, PoisonError};

use tokio_util::sync::CancellationToken;

/// The streams of a tenant.
#[derive(Debug, Default)]
pub(crate) struct Live(Mutex<CancellationToken>);

impl Live {
    /// Ends when the streams are cut next.
    pub(crate) fn token(&self) -> CancellationToken {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Cuts all streams that there are.
    pub(crate) fn cut(&self) {
        let mut token = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *token).cancel();
    }
}
