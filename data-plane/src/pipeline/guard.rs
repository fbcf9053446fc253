//! Guard: whether the caller is one that is let go on, by what it did lately.
//!
//! Always holds: only calls of tools that there are count, each once, on the node that received it; before policy, so that
//! an agent that goes on asking for what it is denied is stopped too. A call that was interrupted to ask the client
//! (2026-07-28) goes on and is not made again, but whoever is stopped does not go on either. One whose client was only sent to
//! the page of an approval is made anew.

use std::time::Instant;

use super::approve::link;
use super::discover::{Discovered, Subject};
use crate::audit::entry::Facts;
use crate::mcp::Era;
use crate::mcp::message::Kind;
use crate::rejection::Rejection;

/// Proof that the caller is not stopped. Only this stage builds it.
pub(super) struct Guarded(Discovered);

impl Guarded {
    /// For the next stage.
    pub(super) fn into_discovered(self) -> Discovered {
        self.0
    }
}

/// A request with other arguments than it was let on with: it was counted as it came.
pub(super) fn again(changed: Discovered) -> Guarded {
    Guarded(changed)
}

/// The facts of a request that another node received have nobody to watch.
pub(super) fn guard(discovered: Discovered, facts: &Facts) -> Result<Guarded, Rejection> {
    let message = discovered.received.message.as_ref();
    if let (Some(watched), Subject::Tool(access), Some(Kind::Request { params, .. })) =
        (&facts.watched, &discovered.subject, message.map(|message| &message.kind))
    {
        let tool = format!("{}/{}", access.server.name, access.tool.name);
        let is_new = |token: &String| link::is_sent(&discovered.caller, token);
        let goes_on = discovered.received.era == Era::Modern
            && params.request_state.as_ref().is_some_and(|token| !is_new(token));
        let call = (!goes_on).then_some((tool.as_str(), params.arguments.as_ref()));
        watched.begin(call, Instant::now()).map_err(Rejection::Tripped)?;
    }
    Ok(Guarded(discovered))
}
