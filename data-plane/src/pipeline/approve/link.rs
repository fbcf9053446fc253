//! Approvals by a URL: what a client of 2026-07-28 has its person open while a call waits, and how it comes back.
//!
//! Always holds: what a client brings back says only that it was sent here; whether the call is approved is asked as of any
//! other call, and what is approved, recorded and forwarded is the call without it. Only a client that said that it opens URLs
//! is sent, and only where the endpoint's own URL is known. A call that answers its server's question is not: it has one state
//! to bring back, and that is the server's.

use bytes::Bytes;
use gantry_model::ApprovalId;
use serde_json::value::RawValue;

use crate::bridge::tokens::{self, State};
use crate::mcp::message::{Kind, Message, Params};
use crate::mcp::object::Object;
use crate::mcp::{Era, json};
use crate::page;
use crate::pipeline::{Caller, Received};
use crate::rejection::{APPROVAL_QUESTION, Approval, Rejection};

/// How a client that may be sent comes here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coming {
    /// For the first time.
    New,
    /// From the URL.
    Back,
}

/// How to send a client to the page of an approval.
pub(super) struct Link {
    origin: String,
    state: String,
    pub(super) coming: Coming,
}

impl Link {
    /// For the client of this call; `None`: it cannot be sent.
    pub(super) fn to(caller: &Caller, received: &Received, coming: Option<Coming>) -> Option<Link> {
        let message = received.message.as_ref()?;
        let params = params(received)?;
        if params.request_state.is_some()
            || params.input_responses.is_some()
            || !opens_urls(params.meta.capabilities.as_ref()?)
        {
            return None;
        }
        let url = caller.endpoint.access.url.as_deref()?;
        let origin = url.match_indices('/').nth(2).map_or(url, |(at, _)| &url[..at]).to_owned();
        let state = tokens::seal_state(caller, &State::Approval { about: tokens::about(message) })?;
        Some(Link { origin, state, coming: coming? })
    }

    /// What a client is told whose call waits.
    pub(super) fn tell(self, caller: &Caller, tool: String, id: ApprovalId) -> Approval {
        let url = format!("{}{}", self.origin, page::approval_path(&caller.tenant.name, id));
        Approval::Linked { tool, id, url, state: self.state }
    }
}

/// Takes out of a call by what its client comes back from a URL. `None`: its person did not want to open it.
pub(super) fn come(caller: &Caller, received: &mut Received) -> Result<Option<Coming>, Rejection> {
    let (Some(params), Some(message)) = (params(received), &received.message) else {
        return Ok(Some(Coming::New));
    };
    let state = params.request_state.as_ref().map(|token| tokens::open_state(caller, token));
    // What else it may be is looked at where it is used.
    let Some(Ok(State::Approval { about })) = state else { return Ok(Some(Coming::New)) };
    if about != tokens::about(message) {
        return Err(Rejection::InvalidParams("requestState is that of another request".to_owned()));
    }
    let is_accepted = params.input_responses.as_ref().is_some_and(accepts);
    received.message = Some(without_state(message).ok_or_else(unreadable)?);
    Ok(is_accepted.then_some(Coming::Back))
}

fn params(received: &Received) -> Option<&Params> {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { params, .. }) if received.era == Era::Modern && received.session.is_none() => {
            Some(params)
        }
        _ => None,
    }
}

/// Whether capabilities of a client say that it opens URLs for its person.
fn opens_urls(capabilities: &Bytes) -> bool {
    let modes = std::str::from_utf8(capabilities).ok().and_then(|text| field(text, "elicitation"));
    modes.and_then(|modes| field(modes.get(), "url")).is_some_and(|url| url.get().starts_with('{'))
}

fn accepts(responses: &Bytes) -> bool {
    let response = std::str::from_utf8(responses).ok().and_then(|text| field(text, APPROVAL_QUESTION));
    response
        .and_then(|response| field(response.get(), "action"))
        .is_some_and(|action| action.get() == r#""accept""#)
}

fn field<'a>(text: &'a str, name: &'static str) -> Option<&'a RawValue> {
    let [value] = json::fields(text, &[name]).ok()?;
    value
}

/// The same call as if it were made for the first time; all else stays byte for byte.
fn without_state(message: &Message) -> Option<Message> {
    let text = std::str::from_utf8(&message.body).ok()?;
    let mut body = Object::parse(text).ok()?;
    let mut params = Object::parse(body.get("params")?).ok()?;
    params.remove(|name| matches!(name, "requestState" | "inputResponses"));
    let params = params.to_string();
    body.set("params", params);
    Message::parse(body.to_string().into()).ok()
}

fn unreadable() -> Rejection {
    Rejection::InvalidParams("the call cannot be read without its requestState; send it anew".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Message {
        Message::parse(Bytes::copy_from_slice(text.as_bytes())).expect("a message")
    }

    #[test]
    fn a_call_that_comes_back_is_the_call_that_was_made() {
        let message = parsed(
            r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","inputResponses":{"approval":{"action":"accept"}},
                "arguments":{"sum": 1.50},"requestState":"x","_meta":{"a":1}}}"#,
        );
        let again = without_state(&message).expect("the call");
        let expected = r#"{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"pay","arguments":{"sum": 1.50},"_meta":{"a":1}}}"#;
        assert_eq!(std::str::from_utf8(&again.body), Ok(expected));
    }

    #[test]
    fn only_a_client_that_says_so_opens_urls_and_only_accept_is_yes() {
        let opens = |text: &'static str| opens_urls(&Bytes::from_static(text.as_bytes()));
        assert!(opens(r#"{"elicitation":{"form":{},"url":{}}}"#));
        for text in ["{}", r#"{"elicitation":{}}"#, r#"{"elicitation":{"url":false}}"#, r#"{"url":{}}"#, "[]"]
        {
            assert!(!opens(text), "{text}");
        }
        let accepts = |text: &'static str| accepts(&Bytes::from_static(text.as_bytes()));
        assert!(accepts(r#"{"approval":{"action":"accept"}}"#));
        for text in [
            "{}",
            r#"{"approval":{"action":"decline"}}"#,
            r#"{"other":{"action":"accept"}}"#,
            r#"{"approval":1}"#,
        ] {
            assert!(!accepts(text), "{text}");
        }
    }
}
