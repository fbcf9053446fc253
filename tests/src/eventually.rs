//! Waiting for what has no notification: a condition that is looked at again and again, until a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How long to wait between two looks.
const STEP: Duration = Duration::from_millis(10);

/// Looks until there is something, and returns it.
///
/// # Panics
/// When there is still nothing after `within`; `what` tells what was waited for.
pub async fn eventually<T>(what: &str, within: Duration, look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = soon(within, look).await;
    found.unwrap_or_else(|| panic!("waited {within:?} in vain for {what}"))
}

/// Looks until there is something, and returns it; `None` when there is still nothing after `within`.
pub async fn soon<T>(within: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + within;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        sleep(STEP).await;
    }
}
