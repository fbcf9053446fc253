//! Check: what services of the organisation's own say of a request, before it is approved, counted and forwarded.
//!
//! Always holds: a request goes on when every service that is asked has let it pass, or has failed and lets pass what it
//! says nothing of: first the tenant's, then the server's. What one puts in place of arguments is what the next is shown,
//! and what is authorised, validated and inspected anew before it goes on; of that nobody is asked again.

use std::sync::Arc;
use std::time::Instant;

use gantry_model::resource::CheckPhase;
use gantry_wire::check_v1 as wire;
use serde_json::Value;

use super::approve::Demanded;
use super::discover::{Discovered, Subject};
use super::inspect::Inspected;
use super::{Caller, Received, validate};
use crate::audit::entry::Facts;
use crate::check::{Checker, Failure, Verdict};
use crate::mcp::json;
use crate::mcp::message::{Kind, Message, Method};
use crate::mcp::object::Object;
use crate::rejection::{Checked as Why, Rejection};

/// Proof that whoever is to be asked was. Only this stage builds it.
pub(super) struct Checked {
    pub(super) caller: Caller,
    pub(super) received: Received,
    pub(super) subject: Subject,
    pub(super) demanded: Option<Demanded>,
    _private: (),
}

/// What becomes of a request.
pub(super) enum Passed {
    /// It goes on.
    AsItIs(Checked),
    /// It is another now, and has to pass what comes before once more.
    Changed(Discovered),
}

/// A request of which another node asked, or this one before it was changed.
pub(super) fn asked(inspected: Inspected) -> Checked {
    let Inspected { caller, received, subject, demanded, .. } = inspected;
    Checked { caller, received, subject, demanded, _private: () }
}

pub(super) async fn check(inspected: Inspected, facts: &mut Facts) -> Result<Passed, Rejection> {
    let is_asked =
        checkers(&inspected.caller, &inspected.subject).any(|one| one.is_asked(CheckPhase::Request));
    if !is_asked || about(&inspected.received).is_none() {
        return Ok(Passed::AsItIs(asked(inspected)));
    }
    // Most requests are asked of by nobody, and shall not carry what this takes.
    let replaced = Box::pin(ask(&inspected, facts)).await?;
    let Some((raw, arguments)) = replaced else { return Ok(Passed::AsItIs(asked(inspected))) };
    let Inspected { caller, mut received, subject, .. } = inspected;
    replace(&mut received, &subject, &raw, &arguments)?;
    facts.arguments = about(&received).and_then(|(_, arguments)| arguments.cloned());
    Ok(Passed::Changed(Discovered::again(caller, received, subject)))
}

/// Who is asked of requests to a subject and of their answers, in their order.
pub(super) fn checkers<'a>(
    caller: &'a Caller,
    subject: &'a Subject,
) -> impl Iterator<Item = &'a Arc<Checker>> {
    let server = match subject {
        // A stream of an endpoint's one server may repeat the answers of its tools.
        Subject::Protocol => caller.endpoint.only(),
        subject => subject.server(),
    };
    let own = server.and_then(|server| server.check.as_ref());
    let tenant = caller.tenant.check.as_ref().filter(|_| !matches!(subject, Subject::Here(_)));
    tenant.into_iter().chain(own)
}

/// What services are told of a request.
pub(super) fn subject(
    caller: &Caller,
    received: &Received,
    subject: &Subject,
    decision_id: &str,
) -> wire::Subject {
    let method = match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { method, .. }) => method.as_str().to_owned(),
        _ => String::new(),
    };
    let target = match subject {
        Subject::Tool(access) => access.tool.name.to_string(),
        Subject::Prompt(named) | Subject::Resource(named) => named.name.clone(),
        _ => String::new(),
    };
    let protocol = received.headers.get(crate::mcp::headers::PROTOCOL_VERSION);
    wire::Subject {
        decision_id: decision_id.to_owned(),
        tenant: caller.tenant.name.to_string(),
        endpoint: caller.endpoint.name.to_string(),
        agent: caller.agent.name.to_string(),
        user: caller.user().map(ToString::to_string).unwrap_or_default(),
        actors: caller.identity.as_ref().map(|identity| identity.actors.clone()).unwrap_or_default(),
        server: subject.server().map(|server| server.name.to_string()).unwrap_or_default(),
        method,
        target,
        protocol: protocol.and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned(),
    }
}

/// The name of the method and the arguments of what services are asked about; `None`: they are not.
fn about(received: &Received) -> Option<(&str, Option<&Value>)> {
    match received.message.as_ref().map(|message| &message.kind) {
        Some(Kind::Request { method, params, .. })
            if matches!(method, Method::ToolsCall | Method::PromptsGet | Method::ResourcesRead) =>
        {
            Some((method.as_str(), params.arguments.as_ref()))
        }
        _ => None,
    }
}

async fn ask(inspected: &Inspected, facts: &Facts) -> Result<Option<(String, Value)>, Rejection> {
    let Inspected { caller, received, subject: of, .. } = inspected;
    let about_it = subject(caller, received, of, &facts.decision_id);
    let sent = raw_arguments(received);
    let first = about(received).and_then(|(_, arguments)| arguments).zip(sent.as_deref());
    let refused = |why| {
        let what = facts.target.clone().unwrap_or_default();
        Err(Rejection::Checked { what, why, is_answer: false })
    };
    let mut replaced: Option<(String, Value)> = None;
    for checker in checkers(caller, of).filter(|one| one.is_asked(CheckPhase::Request)) {
        let began = Instant::now();
        let shown = replaced.as_ref().map(|(raw, arguments)| (arguments, raw.as_str())).or(first);
        let said = checker.request(about_it.clone(), shown).await;
        let (said, arguments) = match said {
            Ok(Verdict::Replace(text)) => match arguments_of(&text) {
                Some(arguments) => (Ok(Verdict::Replace(text)), Some(arguments)),
                None => (Err(Failure::Unreadable), None),
            },
            said => (said, None),
        };
        facts.checks.note(checker, CheckPhase::Request, &said, began.elapsed());
        match said {
            Ok(Verdict::Allow) => {}
            Ok(Verdict::Replace(text)) => replaced = arguments.map(|arguments| (text, arguments)),
            Ok(Verdict::Deny(reason)) => return refused(Why::Denied { reason }),
            Err(_) if checker.is_open() => {}
            Err(_) => return refused(Why::Failed),
        }
    }
    Ok(replaced)
}

/// The arguments as they were sent.
fn raw_arguments(received: &Received) -> Option<String> {
    let body = std::str::from_utf8(&received.message.as_ref()?.body).ok()?;
    let object = Object::parse(body).ok()?;
    let params = Object::parse(object.get("params")?).ok()?;
    params.get("arguments").map(str::to_owned)
}

/// What may stand in place of arguments: an object that says nothing twice.
fn arguments_of(text: &str) -> Option<Value> {
    json::strict_value(text).ok().filter(Value::is_object)
}

/// Puts other arguments in a message; the rest of it stays as it came, and what headers repeat of them is made anew.
fn replace(
    received: &mut Received,
    subject: &Subject,
    raw: &str,
    arguments: &Value,
) -> Result<(), Rejection> {
    let broken = || Rejection::Invalid("its arguments cannot be replaced".to_owned());
    let message = received.message.as_ref().ok_or_else(broken)?;
    let body = std::str::from_utf8(&message.body).map_err(|_| broken())?;
    let mut object = Object::parse(body).map_err(|_| broken())?;
    let mut params = Object::parse(object.get("params").ok_or_else(broken)?).map_err(|_| broken())?;
    params.set("arguments", raw);
    let params = params.to_string();
    object.set("params", params.as_str());
    let changed = Message::parse(object.to_string().into()).map_err(|_| broken())?;
    received.message = Some(changed);
    if let Subject::Tool(access) = subject {
        validate::mirror(&access.tool, arguments, &mut received.headers);
    }
    Ok(())
}
