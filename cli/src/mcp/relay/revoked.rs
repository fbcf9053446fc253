//! An agent that an admin revoked: the relay says so and ends, since nothing that it could send would be served.

use http::{Response, StatusCode};
use hyper::body::Incoming;
use serde_json::Value;
use tokio::sync::watch;

use super::super::reader::whole;
use super::Wire;
use crate::failure::{Exit, Failure};
use crate::output;

impl Wire {
    /// The same, of an answer that nobody has read.
    pub(super) async fn end_if_revoked_by(&self, response: Response<Incoming>) {
        let status = response.status();
        let body = whole(response.into_body()).await.unwrap_or_default();
        self.end_if_revoked(status, &body);
    }

    /// Ends the relay when this is the answer to an agent that was revoked.
    pub(super) fn end_if_revoked(&self, status: StatusCode, body: &[u8]) {
        if let Some(why) = revocation(status, body) {
            self.revoked.send_replace(Some(why));
        }
    }
}

/// How the relay ends then.
pub(super) fn failure(revoked: &watch::Receiver<Option<String>>) -> Option<Failure> {
    let why = revoked.borrow().clone()?;
    let next = "ask whoever runs the gateway; `gantry revoke ls` shows them who did it, and why";
    Some(Failure::new(Exit::Denied, format!("the endpoint refuses this agent: {why}"), next))
}

fn revocation(status: StatusCode, body: &[u8]) -> Option<String> {
    if status != StatusCode::FORBIDDEN {
        return None;
    }
    let message: Value = serde_json::from_slice(body).ok()?;
    let is_revoked = message.pointer("/error/data/rejection")?.as_str()? == "revoked";
    let why = message.pointer("/error/message")?.as_str().map(output::visible)?;
    is_revoked.then_some(why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_revocation_ends_the_relay() {
        let body = br#"{"error":{"code":-31410,"message":"agent \"bot\" is revoked","data":{"rejection":"revoked"}}}"#;
        let told = Some("agent \"bot\" is revoked".to_owned());
        assert_eq!(revocation(StatusCode::FORBIDDEN, body), told);
        assert_eq!(revocation(StatusCode::OK, body), None, "of one server only");
        let other = br#"{"error":{"code":-32600,"message":"x","data":{"rejection":"invalid"}}}"#;
        assert_eq!(revocation(StatusCode::FORBIDDEN, other), None);
        assert_eq!(revocation(StatusCode::FORBIDDEN, b"<p>"), None);
    }
}
