//! A call to a server of the legacy era, within a session of its own.
//!
//! Always holds: a request is sent again only when the server forgot the session, which means that it did nothing.
//! What the server asks goes to the client: in the stream of the call where the client is of the same era, and as
//! `input_required` where it is not; the call then waits, parked, for the client's next request.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use serde_json::value::RawValue;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::bridge::call::{Call, Place, Stop};
use crate::bridge::home::{ASK_MAX, AskError, Home};
use crate::bridge::outlet::Outlet;
use crate::bridge::parked::Resume;
use crate::bridge::sweep::make_room;
use crate::bridge::tokens::{State, Tokens, about};
use crate::bridge::translate::Hop;
use crate::mcp::Era;
use crate::mcp::object::{Object, quote};
use crate::rejection::{Rejection, Upstream};
use crate::upstream::exchange::{Ask, Event, Exchange};
use crate::upstream::pool::{Pooled, SessionKey, set_level};
use crate::upstream::session::{AskFailure, Opening};

/// Questions of one call that may wait at once.
const QUESTIONS_MAX: usize = 16;
/// How long more questions are waited for after one, so that they go to the client together.
const GATHER: Duration = Duration::from_millis(5);

/// A question of the server.
struct Question {
    /// As raw JSON.
    id: Bytes,
    method: String,
    params: Option<String>,
}

/// A request that the server has, and whose answer began.
struct Begun {
    pooled: Arc<Pooled>,
    id: u64,
    exchange: Exchange,
    deadline: Instant,
}

/// What happens next to a call.
enum Step {
    Event(Option<Result<Event, Upstream>>),
    Left,
    Cancelled,
    Late,
}

/// Carries the call; returns the server's answer.
pub(crate) async fn run(call: &mut Call) -> Result<Bytes, Stop> {
    let begun = begin(call).await;
    let Begun { pooled, id, mut exchange, mut deadline } = call.judge(begun)?;
    let mut asked = JoinSet::new();
    // A legacy client that leaves may come back to its session; its call goes on.
    let mut left = false;
    loop {
        let step = tokio::select! {
            event = exchange.next() => Step::Event(event),
            () = call.outlet.left(), if !left => Step::Left,
            () = call.cancelled.cancelled() => Step::Cancelled,
            () = tokio::time::sleep_until(deadline) => Step::Late,
        };
        match step {
            Step::Event(Some(Ok(Event::Answer(answer)))) => return Ok(answer),
            Step::Event(Some(Ok(Event::Notification(note)))) => call.notify(&note).await,
            Step::Event(Some(Ok(Event::Request { id: asker, message }))) => {
                let Some(question) = Question::read(asker, &message) else { continue };
                match (call.era, &call.home) {
                    (Era::Legacy, Some(home)) if asked.len() < QUESTIONS_MAX => {
                        let (home, outlet) = (home.clone(), call.outlet.clone());
                        asked.spawn(ask(home, Some(outlet), pooled.clone(), question));
                    }
                    (Era::Modern, _) => {
                        let questions = gather(call, &mut exchange, question).await?;
                        park(call, &pooled, questions).await.inspect_err(|_| cancel(&pooled, id))?;
                        deadline = Instant::now() + call.timeout();
                    }
                    (Era::Legacy, _) => refuse(&pooled, &question, "the client cannot be asked").await,
                }
            }
            Step::Event(Some(Err(failure))) => return Err(failure.into()),
            Step::Event(None) => return Err(Upstream::Unreachable.into()),
            Step::Left if call.era == Era::Legacy => left = true,
            Step::Left | Step::Cancelled => {
                cancel(&pooled, id);
                return Err(Stop::Gone);
            }
            Step::Late => {
                while asked.try_join_next().is_some() {}
                if asked.is_empty() {
                    cancel(&pooled, id);
                    return Err(Upstream::Timeout(call.timeout()).into());
                }
                // It is the client that takes its time.
                deadline = Instant::now() + call.timeout();
            }
        }
    }
}

/// Sends the request within a session; once more when the server forgot the session. One that stops before the answer
/// begins is cancelled at the server, which may be at work on it: servers that answer with JSON begin when they are done.
async fn begin(call: &Call) -> Result<Begun, Stop> {
    let opening = opening(call);
    let client = call.home.as_ref().map(|home| home.bridged.nonce.as_str());
    let key = SessionKey::new(&call.server, &call.caller.principal(), &opening, client);
    let mut again = true;
    loop {
        // An opening that began is finished, within its own time, for others and for the client's next request.
        let pooled = session(call, &key, &opening).await?;
        let deadline = Instant::now() + call.timeout();
        if let Some(home) = &call.home {
            super::stream::forward(&call.node, &call.caller.endpoint, home, &call.server, &pooled);
        }
        let _ = tokio::time::timeout_at(deadline, adjust_level(call, &pooled)).await;
        let id = pooled.session.next_id();
        let hop = Hop {
            client: call.era,
            server: Era::Legacy,
            id,
            inner: call.inner.as_deref(),
            capabilities: &opening.capabilities,
            level: None,
            input: None,
        };
        let ask =
            Ask { id, method: call.method.clone(), headers: HeaderMap::new(), body: call.request(&hop) };
        match call.within(deadline, pooled.session.ask(&ask, call.timeout())).await {
            Ok(Ok(exchange)) => return Ok(Begun { pooled, id, exchange, deadline }),
            Ok(Err(AskFailure::Expired)) if again => again = false,
            Ok(Err(AskFailure::Expired)) => return Err(Upstream::Unreachable.into()),
            Ok(Err(AskFailure::Failed(failure))) => {
                if let Upstream::Timeout(_) = failure {
                    cancel(&pooled, id);
                }
                return Err(failure.into());
            }
            Err(stop) => {
                cancel(&pooled, id);
                return Err(stop);
            }
        }
    }
}

/// The call's session with the server; one that is full of sessions may have some that nobody uses.
async fn session(call: &Call, key: &SessionKey, opening: &Opening) -> Result<Arc<Pooled>, Upstream> {
    let (node, server) = (&call.node, &*call.server);
    let pool = &node.upstreams.pool;
    match pool.get(&node.upstreams, server, key, opening).await {
        Err(Upstream::Busy) if make_room(&node.homes, pool, server, std::time::Instant::now()).await => {
            pool.get(&node.upstreams, server, key, opening).await
        }
        got => got,
    }
}

/// What the session is opened with: the client's own capabilities, so that the server asks nothing that it cannot.
pub(crate) fn opening(call: &Call) -> Opening {
    let declared = call.capabilities();
    let capabilities = match Object::parse(declared.get()) {
        Ok(mut object) => {
            // Extensions belong to the modern era; tasks of one are not those of the other.
            object.remove(|name| matches!(name, "extensions" | "tasks") && call.era == Era::Modern);
            RawValue::from_string(object.to_string()).unwrap_or(declared)
        }
        Err(_) => declared,
    };
    let listens = call.home.is_some() || capabilities.get() != "{}";
    Opening { capabilities, credential: call.credential.clone(), listens, timeout: call.timeout() }
}

/// Has the server log at the level that the client wants, when it is another than before.
async fn adjust_level(call: &Call, pooled: &Pooled) {
    let wanted = match &call.home {
        Some(home) => home.level(),
        None => call.params().meta.log_level.clone(),
    };
    let Some(wanted) = wanted else { return };
    {
        let mut level = pooled.level.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if level.as_ref() == Some(&wanted) {
            return;
        }
        *level = Some(wanted.clone());
    }
    let id = pooled.session.next_id();
    let headers = HeaderMap::new();
    let ask =
        Ask { id, method: crate::mcp::message::Method::SetLevel, headers, body: set_level(id, &wanted) };
    if let Ok(exchange) = pooled.session.ask(&ask, call.timeout()).await {
        // A server without log levels is fine.
        let _ = tokio::time::timeout(call.timeout(), exchange.answer()).await;
    }
}

fn cancel(pooled: &Arc<Pooled>, id: u64) {
    let pooled = pooled.clone();
    // Nobody waits for it.
    tokio::spawn(async move { pooled.session.cancel(id).await });
}

impl Question {
    fn read(id: Bytes, message: &Bytes) -> Option<Question> {
        let object = Object::parse(std::str::from_utf8(message).ok()?).ok()?;
        let method = object.text("method")?;
        Some(Question { id, method, params: object.get("params").map(str::to_owned) })
    }

    /// The response for the server, of a raw member of the client's.
    fn response(&self, member: &str, raw: &str) -> Bytes {
        let id = String::from_utf8_lossy(&self.id);
        format!(r#"{{"jsonrpc":"2.0","id":{id},"{member}":{raw}}}"#).into()
    }
}

/// Asks a client what its server asks outside of any call.
pub(crate) async fn ask_outside(home: Arc<Home>, pooled: Arc<Pooled>, id: Bytes, message: Bytes) {
    if let Some(question) = Question::read(id, &message) {
        ask(home, None, pooled, question).await;
    }
}

/// Asks a client of the same era and brings its answer to the server.
async fn ask(home: Arc<Home>, outlet: Option<Outlet>, pooled: Arc<Pooled>, question: Question) {
    if question.method == "ping" {
        let _ = pooled.session.tell(question.response("result", "{}")).await;
        return;
    }
    match home.ask(outlet.as_ref(), &question.method, question.params.as_deref()).await {
        Ok(answer) => {
            let response = Object::parse(std::str::from_utf8(&answer).unwrap_or("{}")).unwrap_or_default();
            let response = match (response.get("result"), response.get("error")) {
                (Some(result), _) => question.response("result", result),
                (None, Some(error)) => question.response("error", error),
                (None, None) => question.response("result", "{}"),
            };
            // A server that is gone ends the call by itself.
            let _ = pooled.session.tell(response).await;
        }
        Err(error) => refuse(&pooled, &question, &error.to_string()).await,
    }
}

async fn refuse(pooled: &Pooled, question: &Question, why: &str) {
    let error = format!(r#"{{"code":-32603,"message":{}}}"#, quote(why));
    let _ = pooled.session.tell(question.response("error", &error)).await;
}

/// More questions that come at once.
async fn gather(call: &Call, exchange: &mut Exchange, first: Question) -> Result<Vec<Question>, Stop> {
    let mut questions = vec![first];
    let until = Instant::now() + GATHER;
    while questions.len() < QUESTIONS_MAX
        && let Ok(event) = tokio::time::timeout_at(until, exchange.next()).await
    {
        match event {
            Some(Ok(Event::Request { id, message })) => questions.extend(Question::read(id, &message)),
            Some(Ok(Event::Notification(note))) => call.notify(&note).await,
            // An answer to a call that still waits for an answer itself: the question was not worth one.
            Some(Ok(Event::Answer(_))) | None => return Err(Upstream::Protocol.into()),
            Some(Err(failure)) => return Err(failure.into()),
        }
    }
    Ok(questions)
}

/// Answers the client with the questions, waits for its next request, and brings the answers to the server.
async fn park(call: &mut Call, pooled: &Pooled, questions: Vec<Question>) -> Result<(), Stop> {
    let mut open = Vec::new();
    for question in questions {
        match question.method.as_str() {
            "ping" => {
                let _ = pooled.session.tell(question.response("result", "{}")).await;
            }
            "elicitation/create" | "sampling/createMessage" | "roots/list" => open.push(question),
            _ => refuse(pooled, &question, "the client cannot be asked that").await,
        }
    }
    call.place = Place::Free;
    let node = call.node.clone();
    while !open.is_empty() {
        let place = node.parked.park(&call.caller, about(&call.message));
        let mut place = place.ok_or(Stop::Rejected(Rejection::Upstream(Upstream::Busy)))?;
        let state = State::Parked { node: node.mesh.me().to_string(), id: place.number };
        let state = Tokens::new(&call.caller, &call.server, &call.message)?.seal_new(&state);
        let answer = input_required(&call.id.0, &open, &state);
        // A client that left may still come back with the answers, if it got the questions.
        let _ = call.outlet.finish(answer).await;
        let resumed = tokio::select! {
            resumed = tokio::time::timeout(ASK_MAX, place.resumed()) => resumed,
            () = call.cancelled.cancelled() => return Err(Stop::Gone),
        };
        let Ok(Some(Resume { outlet, id, progress_token, responses })) = resumed else {
            for question in &open {
                refuse(pooled, question, &AskError::Late.to_string()).await;
            }
            return Err(Stop::Gone);
        };
        (call.outlet, call.id, call.progress_token) = (outlet, id, progress_token);
        open = answer_questions(pooled, open, responses.as_ref()).await;
    }
    Ok(())
}

/// Brings the client's answers to the server; returns the questions that it left out.
async fn answer_questions(pooled: &Pooled, open: Vec<Question>, responses: Option<&Bytes>) -> Vec<Question> {
    let text = responses.and_then(|raw| std::str::from_utf8(raw).ok()).unwrap_or("{}");
    let responses = Object::parse(text).unwrap_or_default();
    let mut left = Vec::new();
    for question in open {
        match responses.get(&question.key()) {
            Some(result) => {
                let _ = pooled.session.tell(question.response("result", result)).await;
            }
            None => left.push(question),
        }
    }
    left
}

impl Question {
    /// What the client answers it by.
    fn key(&self) -> String {
        format!("q{}", String::from_utf8_lossy(&self.id).trim_matches('"'))
    }
}

fn input_required(id: &[u8], questions: &[Question], state: &str) -> Bytes {
    let id = String::from_utf8_lossy(id);
    let requests = questions.iter().map(|question| {
        let params =
            question.params.as_deref().map(|params| format!(r#","params":{params}"#)).unwrap_or_default();
        format!(r#"{}:{{"method":{}{params}}}"#, quote(&question.key()), quote(&question.method))
    });
    let requests = requests.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"jsonrpc":"2.0","id":{id},"result":{{"resultType":"input_required","inputRequests":{{{requests}}},"requestState":{}}}}}"#,
        quote(state)
    )
    .into()
}
