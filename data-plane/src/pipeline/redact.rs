//! Redact: the last stage before the answer leaves. What the record keeps of the arguments is redacted as it is
//! written ([`crate::audit::redaction`]); what a tenant, a server or a tool has taken out of answers is taken out as they
//! pass, on the node that received the request.
//!
//! Of what is left, services of the organisation's own are asked ([`crate::check`]).
//!
//! Always holds: the entry of a forwarded request is closed by the answer's body, at its end.

use std::sync::Arc;

use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Body as _;

use super::forward::{Forwarded, Source};
use crate::audit::entry::{Entry, Outcome};
use crate::node::Node;
use crate::reply::{Body, Watch};

/// Proof that the answer may leave. Only this stage builds it.
pub(super) struct Redacted {
    forwarded: Forwarded,
}

pub(super) fn redact(forwarded: Forwarded) -> Redacted {
    Redacted { forwarded }
}

impl Redacted {
    /// The answer for the node that received the request, and has its entry.
    pub(super) fn hand_back(self) -> Response<Body> {
        self.forwarded.response
    }

    /// The answer, which closes the entry when it ends.
    pub(super) fn respond(self, node: &Arc<Node>, mut entry: Entry) -> Response<Body> {
        let Forwarded { response, sent, deadline, source, rules, checks, .. } = self.forwarded;
        if matches!(source, Source::Here) {
            super::close(entry, &response, Outcome::Ok);
            return response;
        }
        if response.body().is_end_stream() {
            // Nobody asks a body for frames that it has not, so it could not close the entry.
            let outcome = if response.status().is_success() { Outcome::Ok } else { Outcome::Error };
            super::close(entry, &response, outcome);
            return response;
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let content_type = content_type.unwrap_or_default().to_owned();
        let response = match rules.and_then(|rules| rules.answers.redactor(&content_type)) {
            Some(redactor) => response.map(|body| body.redacted(redactor)),
            None => response,
        };
        // Nobody is shown what was taken out.
        let response = match checks {
            Some(checks) => response.map(|body| body.checked(checks, &content_type)),
            None => response,
        };
        entry.facts.status = Some(response.status().as_u16());
        let mut watch = Watch::new(entry, &content_type, sent, deadline);
        if let (Source::Relayed(server), true) = (source, content_type.starts_with("text/event-stream")) {
            let node = node.clone();
            watch = watch.on_event(Box::new(move |data| node.notice(&server, data)));
        }
        response.map(|body| body.watched(watch))
    }
}
