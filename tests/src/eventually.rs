//! Waiting for what has no notification: a condition that is looked at again and again, until a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long to wait between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Looks until there is something, and returns it.
///
/// # Panics
/// When there is still nothing after `within`; `what` tells what was waited for.
pub async fn eventually<T>(what: &str, within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain for {what}");
        sleep(STEP).await;
    }
}
