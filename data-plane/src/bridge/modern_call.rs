//! A call to a server of the modern era, where every request stands by itself.
//!
//! Always holds: what the server asks (`input_required`) goes to a client of the same era as it is, and to a legacy
//! client as requests in the stream of its call, at most [`ROUNDS_MAX`] times. Dropping the exchange ends the request
//! at the server.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::bridge::call::{Call, Stop};
use crate::bridge::home::Home;
use crate::bridge::translate::{Hop, Input};
use crate::mcp::Era;
use crate::mcp::headers::{NAME, encode, has_name};
use crate::mcp::object::{Object, quote};
use crate::rejection::{Rejection, Upstream};
use crate::upstream::exchange::{Ask, Event, Exchange};
use crate::upstream::modern;

/// Rounds of questions in one call of a legacy client; other clients give up at ten, too.
const ROUNDS_MAX: usize = 10;
/// Questions of one round.
const QUESTIONS_MAX: usize = 16;

/// Carries the call; returns the server's answer.
pub(crate) async fn run(call: &mut Call) -> Result<Bytes, Stop> {
    let mut responses =
        call.params().input_responses.clone().and_then(|raw| String::from_utf8(raw.into()).ok());
    let mut state = call.state.clone();
    for _ in 0..=ROUNDS_MAX {
        let deadline = Instant::now() + call.timeout();
        let asking = ask(call, responses.as_deref(), state.as_deref());
        let asked = call.within(deadline, asking).await.flatten();
        let exchange = call.judge(asked)?;
        let answer = until_answer(call, exchange, deadline).await?;
        let asks = (call.era == Era::Legacy).then(|| Asks::read(&answer)).flatten();
        let Some(asks) = asks else { return Ok(answer) };
        let home = call.home.clone();
        let Some(home) = home else {
            let message =
                "the server asks the client, which can be asked only in a session; initialize first";
            return Err(Rejection::InvalidParams(message.to_owned()).into());
        };
        responses = Some(asks.answers(&home, call).await?);
        state = asks.state;
    }
    Err(Upstream::Protocol.into())
}

async fn ask(call: &Call, responses: Option<&str>, state: Option<&str>) -> Result<Exchange, Stop> {
    let capabilities = call.capabilities();
    let level = call.home.as_ref().and_then(|home| home.level());
    let id = call.node.upstreams.next_id();
    let hop = Hop {
        client: call.era,
        server: Era::Modern,
        id,
        inner: call.inner.as_deref(),
        capabilities: &capabilities,
        level: level.as_deref(),
        input: Some(Input { responses, state }),
    };
    let mut headers = call.mirrored.clone();
    headers.extend(call.credential.clone());
    if let (true, Some(inner)) = (has_name(&call.method), &call.inner) {
        headers.insert(NAME, encode(inner).ok_or(Upstream::Protocol)?);
    }
    let ask = Ask { id, method: call.method.clone(), headers, body: call.request(&hop) };
    Ok(modern::ask(&call.node.upstreams, &call.server, &ask, call.timeout()).await?)
}

async fn until_answer(call: &Call, mut exchange: Exchange, deadline: Instant) -> Result<Bytes, Stop> {
    loop {
        match call.within(deadline, exchange.next()).await? {
            Some(Ok(Event::Answer(answer))) => return Ok(answer),
            Some(Ok(Event::Notification(note))) => call.notify(&note).await,
            // This era has no such thing.
            Some(Ok(Event::Request { .. })) => {}
            Some(Err(failure)) => return Err(failure.into()),
            None => return Err(Upstream::Unreachable.into()),
        }
    }
}

/// What a server wants to know before it answers.
struct Asks {
    /// Key, method, parameters as raw JSON.
    requests: Vec<(String, String, Option<String>)>,
    state: Option<String>,
}

impl Asks {
    /// Reads an answer; `None` when it asks nothing.
    fn read(answer: &Bytes) -> Option<Asks> {
        memchr::memmem::find(answer, b"input_required")?;
        let message = Object::parse(std::str::from_utf8(answer).ok()?).ok()?;
        let result = message.object("result");
        if result.text("resultType")? != "input_required" {
            return None;
        }
        let requests = result.object("inputRequests");
        let requests = requests.iter().take(QUESTIONS_MAX).filter_map(|(key, request)| {
            let request = Object::parse(request).ok()?;
            Some((key.to_owned(), request.text("method")?, request.get("params").map(str::to_owned)))
        });
        Some(Asks { requests: requests.collect(), state: result.text("requestState") })
    }

    /// Asks the client one thing after the other; returns the answers as raw JSON.
    async fn answers(&self, home: &Home, call: &Call) -> Result<String, Stop> {
        let mut answers = Vec::new();
        for (key, method, params) in &self.requests {
            let asking = home.ask(Some(&call.outlet), method, params.as_deref());
            let answer = tokio::select! {
                answer = asking => answer,
                () = call.cancelled.cancelled() => return Err(Stop::Gone),
            };
            let answer = answer.map_err(|error| Rejection::InvalidParams(error.to_string()))?;
            let response = Object::parse(std::str::from_utf8(&answer).unwrap_or("{}")).unwrap_or_default();
            let Some(result) = response.get("result") else {
                let error = response.object("error").text("message").unwrap_or_default();
                let message = format!("the client did not answer what the server asked: {error}");
                return Err(Rejection::InvalidParams(message).into());
            };
            answers.push(format!("{}:{result}", quote(key)));
        }
        if answers.is_empty() {
            // Only a state to come back with: the server wants time.
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(format!("{{{}}}", answers.join(",")))
    }
}
