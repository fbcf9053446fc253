//! Every way that a request may stop, and what its caller sees of it.
//!
//! Always holds: what a caller sees is written here and nowhere else; it never carries internal text (addresses of
//! servers, errors of libraries, policy text). Codes of our own stand outside the range that JSON-RPC and MCP
//! reserve. A rejection that an agent's model can act on says what to do.

mod approval;
mod checked;
mod code;
mod message;
mod unauthenticated;
mod unserved;
mod upstream;

use std::time::Duration;

use bytes::Bytes;
use gantry_model::{DefinitionKind, LimitName};
use gantry_policy::Reason;
use http::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use serde_json::json;

use crate::breaker::Tripped;
use crate::config::server::Withheld;
use crate::mcp::headers::HeaderError;
use crate::mcp::message::Id;
use crate::mcp::{Era, VERSION_MODERN};
pub(crate) use crate::rejection::approval::{APPROVAL_QUESTION, Approval};
pub(crate) use crate::rejection::checked::Checked;
pub(crate) use crate::rejection::unauthenticated::Unauthenticated;
pub(crate) use crate::rejection::unserved::{Unserved, revoked};
pub(crate) use crate::rejection::upstream::Upstream;
use crate::reply::Body;

/// Why a request stopped.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// No key or token, or not a good one; and what the endpoint tells of where to get one, after a comma.
    Unauthenticated { why: Unauthenticated, challenge: String },
    /// The token is not for what is asked.
    Scope {
        /// What it would have to be for.
        needed: Vec<String>,
        /// As above.
        challenge: String,
    },
    /// No such path or endpoint.
    NoEndpoint,
    /// Not a method of this path (405).
    HttpMethod,
    /// `Host` or `Origin` of another site.
    Origin,
    /// The body is not `application/json`.
    MediaType,
    /// The body is larger than the limit in bytes.
    BodyTooLarge(usize),
    /// The body did not arrive in time or whole.
    BodyBroken,
    /// The body is no JSON.
    Malformed(String),
    /// The body is no JSON-RPC message, or not one for this method.
    Invalid(String),
    /// Parameters are missing or of a wrong form.
    InvalidParams(String),
    /// Headers and body of a modern request disagree.
    Headers(HeaderError),
    /// The method belongs to an extension that the client did not say it has.
    Extension(&'static str),
    /// Not a method of this era.
    Method(String),
    /// The session is not one of this principal and endpoint, or no longer.
    SessionGone,
    /// The node has no catalog of the server yet.
    NotReady,
    /// As much as there may be is open or waits already.
    Busy,
    /// The server has no such tool.
    UnknownTool {
        /// The name in the call.
        name: String,
        /// The nearest tool that the agent may call.
        nearest: Option<String>,
    },
    /// The definition is withheld.
    Withheld {
        /// What sort of thing it defines.
        kind: DefinitionKind,
        /// Its name in the request.
        name: String,
        /// Its server.
        server: String,
        /// Why.
        why: Withheld,
    },
    /// No server of the endpoint can have the resource.
    UnknownResource {
        /// The URI in the request.
        uri: String,
        /// Of the client's hop, which has a code of its own for it.
        era: Era,
    },
    /// The client's answers to what it was asked concern nothing that waits.
    NothingWaits,
    /// Policy says no.
    Denied {
        /// The method.
        method: String,
        /// The tool, prompt, resource or server.
        what: String,
        /// The policies that forbid it; empty: none permits it.
        reasons: Vec<Reason>,
        /// Policies that failed; any failure denies.
        failed: bool,
    },
    /// Nobody has approved it.
    Approval(Approval),
    /// Arguments do not fit the tool's schema. Answered as a tool result, so that the model can correct itself.
    Arguments {
        /// The tool.
        tool: String,
        /// Each with the failing path.
        problems: Vec<String>,
    },
    /// There is something in the arguments that does not pass.
    Inspected {
        /// The tool or prompt.
        what: String,
        /// Each with its place.
        findings: Vec<String>,
    },
    /// A service of the organisation's own does not let it pass, or said nothing of it.
    Checked {
        /// The tool, prompt or resource.
        what: String,
        /// Why.
        why: Checked,
        /// Whether it is the answer that does not pass.
        is_answer: bool,
    },
    /// The tool's own schema cannot be used.
    Schema {
        /// The tool.
        tool: String,
    },
    /// A budget is spent.
    Limited {
        /// The limit.
        limit: LimitName,
        /// Until a call is free again.
        retry_after: Duration,
    },
    /// The caller is stopped for a while, for what it did.
    Tripped(Tripped),
    /// The credential that the server needs has no secret.
    NoCredential(String),
    /// The server failed.
    Upstream(Upstream),
    /// Nothing is served here and now.
    Unserved(Unserved),
}

/// What a rejection is answered with, besides what it says itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    /// The request's id, once it was read.
    pub(crate) id: Option<&'a Id>,
    /// The era of the client's hop.
    pub(crate) era: Era,
    /// What the record of the request is found by.
    pub(crate) decision_id: &'a str,
}

impl Rejection {
    /// The word for it in records and in `error.data.rejection`.
    pub(crate) fn outcome(&self) -> &'static str {
        match self {
            Rejection::Unauthenticated { .. } => "unauthenticated",
            Rejection::Scope { .. } => "denied",
            Rejection::Malformed(_) | Rejection::BodyTooLarge(_) | Rejection::BodyBroken => "malformed",
            Rejection::NoEndpoint
            | Rejection::HttpMethod
            | Rejection::Origin
            | Rejection::MediaType
            | Rejection::Invalid(_)
            | Rejection::InvalidParams(_)
            | Rejection::Headers(_)
            | Rejection::Extension(_)
            | Rejection::Method(_)
            | Rejection::SessionGone
            | Rejection::UnknownTool { .. }
            | Rejection::Withheld { why: Withheld::Waits, .. }
            | Rejection::UnknownResource { .. }
            | Rejection::NothingWaits
            | Rejection::Arguments { .. }
            | Rejection::Schema { .. } => "invalid",
            Rejection::Withheld { why: Withheld::Odd(_), .. } => "denied",
            Rejection::Denied { .. } | Rejection::Inspected { .. } => "denied",
            Rejection::Limited { .. } | Rejection::Tripped(_) | Rejection::Busy => "limited",
            Rejection::Approval(approval) => approval.outcome(),
            Rejection::Checked { why, .. } => why.outcome(),
            Rejection::Unserved(unserved) => unserved.outcome(),
            Rejection::NotReady | Rejection::NoCredential(_) | Rejection::Upstream(_) => "upstream_failed",
        }
    }

    /// What records tell of it.
    pub(crate) fn recorded(&self) -> String {
        match self {
            Rejection::Unauthenticated { why, .. } => why.recorded(),
            other => other.message(),
        }
    }

    /// The HTTP answer.
    pub(crate) fn respond(&self, context: Context<'_>) -> Response<Body> {
        let status = self.status(context.era);
        let mut response = Response::new(Body::full(self.message_for(context)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        match self {
            Rejection::Unauthenticated { why, challenge } => headers.extend(why.header(challenge)),
            Rejection::Scope { challenge, .. } => headers.extend(unauthenticated::step_up(challenge)),
            Rejection::Limited { retry_after, .. } | Rejection::Tripped(Tripped { retry_after, .. }) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(seconds(*retry_after)));
            }
            _ => {}
        }
        response
    }

    /// The answer as a JSON-RPC message alone, for a front without HTTP's words.
    pub(crate) fn message_for(&self, context: Context<'_>) -> Bytes {
        match self {
            Rejection::Arguments { tool, problems } => arguments_result(tool, problems, context),
            Rejection::Approval(Approval::Linked { url, state, .. }) => {
                let result = approval::ask_to_open(&self.message(), url, state, context.decision_id);
                envelope(context.id, "result", &result.to_string())
            }
            _ => self.error_body(context),
        }
    }

    /// Failures of the call itself stay 200, as MCP's errors of tools do, so that every client hands the JSON-RPC
    /// error to its model; failures of the request have HTTP's word for it.
    fn status(&self, era: Era) -> StatusCode {
        match self {
            Rejection::Unauthenticated { why, .. } => why.status(),
            Rejection::Scope { .. } => StatusCode::FORBIDDEN,
            Rejection::NoEndpoint | Rejection::SessionGone => StatusCode::NOT_FOUND,
            Rejection::HttpMethod => StatusCode::METHOD_NOT_ALLOWED,
            Rejection::Origin => StatusCode::FORBIDDEN,
            Rejection::MediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Rejection::BodyTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Rejection::BodyBroken
            | Rejection::Malformed(_)
            | Rejection::Invalid(_)
            | Rejection::Headers(_)
            | Rejection::Extension(_) => StatusCode::BAD_REQUEST,
            Rejection::Method(_) if era == Era::Modern => StatusCode::NOT_FOUND,
            Rejection::Limited { .. } | Rejection::Tripped(_) => StatusCode::TOO_MANY_REQUESTS,
            Rejection::Busy => StatusCode::SERVICE_UNAVAILABLE,
            Rejection::Unserved(unserved) => unserved.status(),
            Rejection::Method(_)
            | Rejection::InvalidParams(_)
            | Rejection::NotReady
            | Rejection::UnknownTool { .. }
            | Rejection::Withheld { .. }
            | Rejection::UnknownResource { .. }
            | Rejection::NothingWaits
            | Rejection::Denied { .. }
            | Rejection::Approval(_)
            | Rejection::Arguments { .. }
            | Rejection::Inspected { .. }
            | Rejection::Checked { .. }
            | Rejection::Schema { .. }
            | Rejection::NoCredential(_)
            | Rejection::Upstream(_) => StatusCode::OK,
        }
    }

    fn code(&self) -> i32 {
        match self {
            Rejection::Unauthenticated { .. } => code::UNAUTHENTICATED,
            Rejection::Scope { .. } => code::DENIED,
            Rejection::Malformed(_) => code::PARSE,
            Rejection::Headers(HeaderError::MissingMeta(_))
            | Rejection::InvalidParams(_)
            | Rejection::UnknownTool { .. }
            | Rejection::NothingWaits
            | Rejection::UnknownResource { era: Era::Modern, .. }
            | Rejection::Arguments { .. } => code::INVALID_PARAMS,
            Rejection::UnknownResource { era: Era::Legacy, .. } => code::RESOURCE_NOT_FOUND,
            Rejection::Withheld { why: Withheld::Waits, .. } => code::DENIED,
            Rejection::Withheld { why: Withheld::Odd(_), .. } => code::INSPECTED,
            Rejection::Headers(HeaderError::Mismatch(_)) => code::HEADER_MISMATCH,
            Rejection::Headers(HeaderError::Version(_)) => code::UNSUPPORTED_VERSION,
            Rejection::Extension(_) => code::MISSING_CAPABILITY,
            Rejection::Method(_) => code::METHOD_NOT_FOUND,
            Rejection::SessionGone => code::SESSION,
            Rejection::Denied { .. } => code::DENIED,
            Rejection::Inspected { .. } => code::INSPECTED,
            Rejection::Limited { .. } | Rejection::Tripped(_) | Rejection::Busy => code::LIMITED,
            Rejection::NotReady => code::NOT_READY,
            Rejection::Approval(approval) => approval.code(),
            Rejection::Checked { why, .. } => why.code(),
            Rejection::Unserved(unserved) => unserved.code(),
            Rejection::NoCredential(_) | Rejection::Upstream(_) | Rejection::Schema { .. } => code::UPSTREAM,
            Rejection::NoEndpoint
            | Rejection::HttpMethod
            | Rejection::Origin
            | Rejection::MediaType
            | Rejection::BodyTooLarge(_)
            | Rejection::BodyBroken
            | Rejection::Invalid(_) => code::INVALID_REQUEST,
        }
    }

    fn error_body(&self, context: Context<'_>) -> Bytes {
        let mut data = json!({"rejection": self.outcome(), "decisionId": context.decision_id});
        match self {
            Rejection::Limited { retry_after, limit } => {
                data["retryAfterSeconds"] = json!(seconds(*retry_after));
                data["limit"] = json!(limit.as_str());
            }
            Rejection::Tripped(Tripped { trip, retry_after }) => {
                data["retryAfterSeconds"] = json!(seconds(*retry_after));
                data["breaker"] = json!(trip.name());
            }
            Rejection::Approval(approval) => approval.tell(&mut data),
            Rejection::Upstream(failure) => {
                if let Some(retry_after) = failure.retry_after() {
                    data["retryAfterSeconds"] = json!(seconds(retry_after));
                }
            }
            Rejection::Headers(HeaderError::Version(requested)) => {
                data["requested"] = json!(requested);
                data["supported"] = json!([VERSION_MODERN]);
            }
            Rejection::Extension(extension) => {
                data["requiredCapabilities"] = json!({"extensions": {*extension: {}}});
            }
            _ => {}
        }
        let error = json!({"code": self.code(), "message": self.message(), "data": data});
        envelope(context.id, "error", &error.to_string())
    }
}

/// A JSON-RPC response around a raw member.
pub(crate) fn envelope(id: Option<&Id>, member: &str, raw: &str) -> Bytes {
    let id = id.map_or("null", |id| std::str::from_utf8(&id.0).unwrap_or("null"));
    format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{raw}}}"#).into()
}

fn arguments_result(tool: &str, problems: &[String], context: Context<'_>) -> Bytes {
    let text = format!("Invalid arguments for tool {tool:?}:\n- {}", problems.join("\n- "));
    let mut result = json!({
        "content": [{"type": "text", "text": text}],
        "isError": true,
        "_meta": {"dev.gantry/decisionId": context.decision_id},
    });
    if context.era == Era::Modern {
        result["resultType"] = json!("complete");
    }
    envelope(context.id, "result", &result.to_string())
}

/// Whole seconds, rounded up, so that a caller that waits them is not early.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}
