//! Approvals by a URL: what a client of 2026-07-28 has its person open while a call waits, and how it comes back.
//!
//! Always holds: what a client brings back says only that it was sent here; whether the call is approved is asked as of any
//! other call, and what is approved, recorded and forwarded is the call without it. Only a client that said that it opens URLs
//! is sent, and only where the endpoint's own URL is known. A call that answers its server's question is not: it has one state
//! to bring back, and that is the server's.

use std::time::Duration;

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
    /// For the first time, or again without a word about the URL.
    New,
    /// From the URL.
    Back,
}

/// How to send a client to the page of an approval.
pub(super) struct Link {
    origin: String,
    about: String,
    pub(super) coming: Coming,
}

impl Link {
    /// For the client of this call; `None`: it cannot be sent.
    pub(super) fn to(caller: &Caller, received: &Received, coming: Coming) -> Option<Link> {
        let about = tokens::about(received.message.as_ref()?);
        let params = params(received)?;
        if params.request_state.is_some()
            || params.input_responses.is_some()
            || !opens_urls(params.meta.capabilities.as_ref()?)
        {
            return None;
        }
        let url = caller.endpoint.access.url.as_deref()?;
        let origin = url.match_indices('/').nth(2).map_or(url, |(at, _)| &url[..at]).to_owned();
        Some(Link { origin, about, coming })
    }

    /// What a client is told whose call waits, for as long as it may; `None`: it cannot be told now.
    pub(super) fn tell(
        self,
        caller: &Caller,
        tool: String,
        (id, waits): (ApprovalId, Duration),
    ) -> Option<Approval> {
        let url = format!("{}{}", self.origin, page::approval_path(&caller.tenant.name, id));
        let state = tokens::seal_state(caller, &State::Approval { about: self.about }, waits)?;
        Some(Approval::Linked { tool, id, url, state })
    }
}

/// Takes out of a call by what its client comes back from a URL. A person who did not want to open it does not want the call.
pub(super) fn come(caller: &Caller, received: &mut Received) -> Result<Coming, Rejection> {
    let (Some(params), Some(message)) = (params(received), &received.message) else { return Ok(Coming::New) };
    let Some(token) = &params.request_state else { return Ok(Coming::New) };
    // One that is good for nothing would be part of what is approved, and refused after the approval was used up.
    match tokens::open_state(caller, token)? {
        State::Approval { about } | State::Server { about, .. } if about != tokens::about(message) => {
            return Err(Rejection::InvalidParams("requestState is that of another request".to_owned()));
        }
        State::Approval { .. } => {}
        State::Server { .. } | State::Parked { .. } => return Ok(Coming::New),
    }
    let coming = match params.input_responses.as_ref().and_then(response) {
        None => Coming::New,
        Some(response) if is_yes(&response) => Coming::Back,
        Some(_) => return Err(Rejection::Approval(Approval::Cancelled)),
    };
    received.message = Some(without_state(message).ok_or_else(unreadable)?);
    Ok(coming)
}

/// Whether a state only says that its client was sent to a page: the call is made for the first time.
pub(in crate::pipeline) fn is_sent(caller: &Caller, token: &str) -> bool {
    matches!(tokens::open_state(caller, token), Ok(State::Approval { .. }))
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

/// What the client's person said to the question.
fn response(responses: &Bytes) -> Option<String> {
    let text = std::str::from_utf8(responses).ok()?;
    Some(field(text, APPROVAL_QUESTION)?.get().to_owned())
}

fn is_yes(response: &str) -> bool {
    field(response, "action").is_some_and(|action| action.get() == r#""accept""#)
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
        let said =
            |text: &'static str| response(&Bytes::from_static(text.as_bytes())).map(|said| is_yes(&said));
        assert_eq!(said(r#"{"approval":{"action":"accept"}}"#), Some(true));
        for text in [
            r#"{"approval":{"action":"decline"}}"#,
            r#"{"approval":{"action":"cancel"}}"#,
            r#"{"approval":1}"#,
        ] {
            assert_eq!(said(text), Some(false), "{text}");
        }
        for text in ["{}", r#"{"other":{"action":"accept"}}"#, "[]"] {
            assert_eq!(said(text), None, "{text}");
        }
    }
}
