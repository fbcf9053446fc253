//! What a caller reads of a rejection, and a record has as its reason.
//!
//! Always holds: a text is bounded, says what to do where something can be done, and has nothing internal in it.

use gantry_policy::Reason;

use super::{Rejection, seconds};
use crate::breaker::{Trip, Tripped};
use crate::config::server::Withheld;

/// Longest message in characters.
const MESSAGE_CHARS_MAX: usize = 1_000;

impl Rejection {
    /// What the caller reads, and what stands as `reason` in the record. It may repeat what the client wrote, so it is
    /// cut.
    pub(crate) fn message(&self) -> String {
        let mut message = self.full_message();
        if let Some((end, _)) = message.char_indices().nth(MESSAGE_CHARS_MAX) {
            message.truncate(end);
        }
        message
    }

    fn full_message(&self) -> String {
        match self {
            Rejection::Unauthenticated { why, .. } => why.message(),
            Rejection::Scope { needed, .. } => {
                format!("the token is not for this; it needs the scopes {}", needed.join(" "))
            }
            Rejection::NoEndpoint => "there is no such endpoint; the path is /TENANT/ENDPOINT/mcp".to_owned(),
            Rejection::HttpMethod => "this HTTP method is not served here".to_owned(),
            Rejection::Origin => "Host or Origin is not allowed here".to_owned(),
            Rejection::MediaType => "the body must be application/json".to_owned(),
            Rejection::BodyTooLarge(limit) => format!("the body is larger than {limit} bytes"),
            Rejection::BodyBroken => "the body did not arrive whole or in time".to_owned(),
            Rejection::Malformed(detail) => format!("the body is not JSON that is taken here: {detail}"),
            Rejection::Invalid(detail) | Rejection::InvalidParams(detail) => detail.clone(),
            Rejection::Headers(error) => error.to_string(),
            Rejection::Extension(extension) => {
                format!("the client did not declare the extension {extension}")
            }
            Rejection::Method(method) => format!("method {method:?} is not served here"),
            Rejection::SessionGone => {
                "the session does not exist or has expired; initialize again".to_owned()
            }
            Rejection::NotReady => {
                "what the server offers is not known yet; try again in a moment".to_owned()
            }
            Rejection::Busy => {
                "as much as is served at once is open or waits already; try again in a moment".to_owned()
            }
            Rejection::UnknownTool { name, nearest: Some(nearest) } => {
                format!("unknown tool {name:?}; the nearest is {nearest:?}")
            }
            Rejection::UnknownTool { name, nearest: None } => format!("unknown tool {name:?}"),
            Rejection::Withheld { kind, name, server, why: Withheld::Waits } => format!(
                "{kind} {name:?} is withheld: its definition changed at server {server:?} and waits for approval \
                 (`gantry catalog diff {server}`)"
            ),
            Rejection::Withheld { kind, name, server, why: Withheld::Odd(found) } => format!(
                "{kind} {name:?} is withheld: its definition at server {server:?} has what does not pass: {} \
                 (`gantry catalog scan {server}`)",
                found.join("; ")
            ),
            Rejection::UnknownResource { uri, .. } => format!("resource {uri:?} is not found"),
            Rejection::NothingWaits => {
                "no call waits for these answers any more; send the request anew without requestState"
                    .to_owned()
            }
            Rejection::Denied { method, what, reasons, failed } => {
                denied_message(method, what, reasons, *failed)
            }
            Rejection::Approval(approval) => approval.message(),
            Rejection::Arguments { tool, problems } => {
                format!("invalid arguments for tool {tool:?}: {}", problems.join("; "))
            }
            Rejection::Checked { what, why, is_answer } => why.message(what, *is_answer),
            Rejection::Inspected { what, findings } => {
                format!("the arguments of {what:?} do not pass: {}", findings.join("; "))
            }
            Rejection::Schema { tool } => {
                format!("the input schema of tool {tool:?} cannot be used to check a call")
            }
            Rejection::Limited { limit, retry_after } => {
                format!("limit {limit:?} is spent; try again in {} s", seconds(*retry_after))
            }
            Rejection::Tripped(tripped) => tripped_message(tripped),
            Rejection::NoCredential(name) => format!("credential {name:?} has no secret yet"),
            Rejection::Upstream(failure) => failure.message(),
            Rejection::Unserved(unserved) => unserved.message(),
        }
    }
}

fn denied_message(method: &str, what: &str, reasons: &[Reason], failed: bool) -> String {
    let because = match (reasons, failed) {
        (_, true) => "a policy could not be evaluated",
        ([], false) => "no policy permits it",
        (_, false) => "a policy forbids it",
    };
    format!("{method} of {what:?} is denied: {because}")
}

fn tripped_message(tripped: &Tripped) -> String {
    let Tripped { trip, retry_after } = tripped;
    let why = match trip {
        Trip::Repeats(repeats) => format!(
            "the same call was made more than {} times within {} s; do something else",
            repeats.calls, repeats.window_seconds
        ),
        Trip::Failures { calls, failed } => format!("{failed} of the last {calls} calls failed"),
    };
    format!("{why}; no call is let through for {} s", seconds(*retry_after))
}
