//! Guard: whether the caller is one that is let go on, by what it did lately.
//!
//! Always holds: only calls of tools that there are count, each once, on the node that received it; before policy, so that
//! an agent that goes on asking for what it is denied is stopped too. A call that was interrupted to ask the client
//! goes on, and is not made again.

use std::time::Instant;

use super::discover::{Discovered, Subject};
use crate::audit::entry::Facts;
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

/// The facts of a request that another node received have nobody to watch.
pub(super) fn guard(discovered: Discovered, facts: &Facts) -> Result<Guarded, Rejection> {
    let message = discovered.received.message.as_ref();
    if let (Some(watched), Subject::Tool(access), Some(Kind::Request { params, .. })) =
        (&facts.watched, &discovered.subject, message.map(|message| &message.kind))
        && params.request_state.is_none()
    {
        let tool = format!("{}/{}", access.server.name, access.tool.name);
        watched.begin(&tool, params.arguments.as_ref(), Instant::now()).map_err(Rejection::Tripped)?;
    }
    Ok(Guarded(discovered))
}
