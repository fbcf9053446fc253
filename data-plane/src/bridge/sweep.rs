//! Letting go of sessions that nobody uses any more: most legacy clients leave without a word.
//!
//! Always holds: while its client has a stream open, a call under way or a question to answer, a session is kept, and
//! with it its sessions with servers, which may have state of their own (a browser, a shell). A client whose session
//! was let go of is served with a new one, as after the death of a node.

use std::time::{Duration, Instant};

use crate::bridge::home::Homes;
use crate::config::server::Server;
use crate::upstream::pool::Pool;

/// How long a session is kept whose client says nothing and has no stream open: a person may be at lunch.
const QUIET_MAX: Duration = Duration::from_secs(30 * 60);
/// How long it is kept where another waits for its place at a server: programs that come and go leave a session
/// behind at each run, and a process of one server is what a node has fewest of.
const YIELD_AFTER: Duration = Duration::from_secs(2 * 60);

/// Lets go of what nobody uses.
pub(crate) async fn sweep(homes: &Homes, pool: &Pool, now: Instant) {
    homes.sweep(QUIET_MAX, now);
    pool.end(pool.take_idle(now, |client| homes.is_quiet(client, QUIET_MAX, now))).await;
}

/// Ends the session with a server that was unused for longest, so that another can begin. Returns whether there was one.
pub(crate) async fn make_room(homes: &Homes, pool: &Pool, server: &Server, now: Instant) -> bool {
    let is_quiet = |client: &str| homes.is_quiet(client, YIELD_AFTER, now);
    let taken = pool.take_longest_unused(server, (YIELD_AFTER, now), is_quiet);
    let is_any = !taken.is_empty();
    pool.end(taken).await;
    is_any
}

#[cfg(test)]
mod tests;
