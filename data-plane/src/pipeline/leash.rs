//! What ends an answer that is under way: its caller is banned, or would not be let in any more, or its tenant's streams are
//! cut.
//!
//! Always holds: a stream of events ends with any of them; other answers are under way for as long as a call may be, and end
//! when their callers are banned.

use std::sync::Arc;
use std::time::Duration;

use http::Response;
use http::header::CONTENT_TYPE;

use super::authenticate::Standing;
use super::{Caller, now_seconds, redact};
use crate::bans::Leash;
use crate::config::tenant::Tenant;
use crate::front::Credentials;
use crate::mcp::Era;
use crate::mcp::message::Id;
use crate::node::Node;
use crate::rejection::{Rejection, Unserved};
use crate::reply::{Body, Cut, Lapse};

/// The content type of a stream.
const EVENTS: &[u8] = b"text/event-stream";

/// What the answer to a request needs to know of it, besides what the stages made of it.
pub(super) struct Answering {
    pub(super) id: Option<Id>,
    pub(super) era: Era,
    /// Known once the caller is.
    known: Option<Known>,
    /// What ends the answer when its caller is banned; known once it is asked for.
    leash: Option<Leash>,
}

/// For how long a stream may go on.
enum Known {
    /// As long as what was shown lets its caller in.
    Here(Standing),
    /// Until then, in seconds since 1970: the node that let him in looks after the rest.
    Elsewhere(Arc<Tenant>, Option<u64>),
}

impl Answering {
    /// Of a request of which nothing was read yet.
    pub(super) const fn unknown() -> Answering {
        Answering { id: None, era: Era::Legacy, known: None, leash: None }
    }

    /// Of a caller who was let in by these.
    pub(super) fn knows(&mut self, node: &Arc<Node>, caller: &Caller, credentials: Credentials) {
        self.known = Some(Known::Here(Standing::of(node, caller, credentials)));
    }

    /// Of a caller whom another node let in.
    pub(super) fn vouched(&mut self, caller: &Caller) {
        self.known = Some(Known::Elsewhere(caller.tenant.clone(), caller.ends_at));
    }
}

/// Serves as long as nobody bans who asks, or what is asked; what is under way then is dropped, as when its client
/// leaves. The answer goes on by the same leash.
pub(super) async fn on_leash(
    mut leash: Leash,
    served: impl Future<Output = Result<redact::Redacted, Rejection>>,
    answering: &mut Answering,
) -> Result<redact::Redacted, Rejection> {
    let served = tokio::select! {
        biased;
        target = &mut leash => return Err(Rejection::Unserved(Unserved::Revoked(target))),
        served = served => served?,
    };
    answering.leash = Some(leash);
    Ok(served)
}

/// The answer, until something ends it.
pub(super) fn leashed(node: &Node, answering: Answering, response: Response<Body>) -> Response<Body> {
    let is_stream =
        response.headers().get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(EVENTS));
    match answering.leash {
        // A body that is there as a whole is through before anything could end it.
        Some(leash) if !response.body().is_here() => {
            let cut = match answering.known.filter(|_| is_stream) {
                None => Cut::by_ban(leash),
                Some(Known::Here(standing)) => {
                    Cut::of(node.cut_of(standing.tenant()), standing.lapse(), leash)
                }
                Some(Known::Elsewhere(tenant, ends_at)) => {
                    Cut::of(node.cut_of(&tenant), until(ends_at), leash)
                }
            };
            response.map(|body| body.until(cut))
        }
        _ => response,
    }
}

async fn until(ends_at: Option<u64>) -> Lapse {
    match ends_at {
        Some(at) => tokio::time::sleep(Duration::from_secs(at.saturating_sub(now_seconds()))).await,
        None => std::future::pending().await,
    }
    Lapse::Ended
}
