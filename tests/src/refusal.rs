//! Requests that are refused: what the agent sees, what is recorded, and that nothing else is lost by it.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::agent::{Agent, Answer, Message, Protocol};
use crate::governed::Governed;
use crate::peers::chain;

/// A request, and what must come of it.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// What is wrong with it, for the message of a failing test.
    pub what: &'static str,
    /// The request.
    pub message: Message,
    /// HTTP's status.
    pub status: u16,
    /// The body; where the decision's id stands, `ID`.
    pub body: Value,
    /// Headers that the answer must have, besides those that every answer has.
    pub headers: Vec<(&'static str, String)>,
    /// The word in the record.
    pub outcome: &'static str,
}

/// Headers that every answer has, whose values tell nothing.
const HEADERS_OF_HTTP: [&str; 3] = ["content-length", "date", "connection"];

impl Refusal {
    /// A refusal that is a JSON-RPC error; it answers the request with the id 1.
    #[must_use]
    pub fn new(what: &'static str, message: Message, outcome: &'static str) -> Self {
        let body = json!({"jsonrpc": "2.0", "id": 1});
        Self { what, message, status: 200, body, headers: Vec::new(), outcome }
    }

    /// The same with the error.
    #[must_use]
    pub fn error(mut self, status: u16, code: i32, message: &str) -> Self {
        self.status = status;
        let data = json!({"rejection": self.outcome, "decisionId": "ID"});
        self.body["error"] = json!({"code": code, "message": message, "data": data});
        self
    }

    /// The same with an answer that has no id, because none could be read.
    #[must_use]
    pub fn without_id(mut self) -> Self {
        self.body["id"] = Value::Null;
        self
    }

    /// The same with one more field of the error's data.
    #[must_use]
    pub fn data(mut self, field: &str, value: Value) -> Self {
        self.body["error"]["data"][field] = value;
        self
    }

    /// The same with a tool's result instead of an error.
    #[must_use]
    pub fn result(mut self, result: Value) -> Self {
        self.body["result"] = result;
        self
    }

    /// The same with a header of the answer.
    #[must_use]
    pub fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

/// Sends every request, and after each a good call on the same connection, which must succeed. Then every request
/// must have left exactly one record, with the outcome and the id that its answer had.
///
/// # Panics
/// At the first thing that is not so.
pub async fn check(governed: &Governed, protocol: Protocol, refusals: &[Refusal]) {
    check_over(governed, governed.connect(protocol).await, refusals).await;
}

/// As [`check`], over a connection that is there already.
///
/// # Panics
/// As [`check`].
pub async fn check_over(governed: &Governed, mut agent: Agent, refusals: &[Refusal]) {
    let before = mark(governed, &mut agent).await;
    let good = governed.call("add", json!({"a": 2, "b": 3}));
    let mut expected = Vec::new();
    for refusal in refusals {
        let answer = agent.ask(&refusal.message).await;
        let answer = answer.unwrap_or_else(|error| panic!("{}: {}", refusal.what, chain(&error)));
        let id = compare(refusal, &answer);
        expected.push(json!([id, refusal.outcome, refusal.status]));
        let answer = agent.ask(&good).await;
        let answer = answer.unwrap_or_else(|error| panic!("after {}: {}", refusal.what, chain(&error)));
        assert_eq!((answer.status, sum(&answer)), (200, json!(5)), "after {}", refusal.what);
        expected.push(json!([null, "ok", 200]));
    }
    let count = before + expected.len();
    let trail = governed.trail();
    let mut records = trail.at_least(count).await;
    let seen = records.drain(before..).zip(&expected).map(|(record, expected)| {
        // The answer of a good call has no decision id.
        let id = if expected[0].is_null() { Value::Null } else { record["decision_id"].clone() };
        json!([id, record["outcome"], record["status"]])
    });
    assert_eq!(seen.collect::<Vec<_>>(), expected, "what was recorded");
    assert_eq!(trail.records().len(), count, "one record for each request");
}

/// Makes a request that is refused, and returns the number of records up to its own.
async fn mark(governed: &Governed, agent: &mut Agent) -> usize {
    let answer = agent.ask(&governed.call("no-such-tool", json!({}))).await;
    let answer = answer.unwrap_or_else(|error| panic!("{}", chain(&error))).json();
    let id = &answer["error"]["data"]["decisionId"];
    let records =
        governed.trail().until("the record of the mark", |record| record["decision_id"] == *id).await;
    let at = records.iter().position(|record| record["decision_id"] == *id);
    at.map_or(0, |at| at + 1)
}

/// Compares the whole answer, and returns the decision's id.
fn compare(refusal: &Refusal, answer: &Answer) -> String {
    let what = refusal.what;
    let mut body = answer.json();
    let mut ids = Vec::new();
    for pointer in ["/error/data/decisionId", "/result/_meta/dev.gantry~1decisionId"] {
        if let Some(id) = body.pointer_mut(pointer) {
            ids.push(id.as_str().unwrap_or_default().to_owned());
            *id = json!("ID");
        }
    }
    assert_eq!((answer.status, &body), (refusal.status, &refusal.body), "{what}");
    let seen: BTreeMap<&str, &str> = answer
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default()))
        .filter(|(name, _)| !HEADERS_OF_HTTP.contains(name))
        .collect();
    let mut headers: BTreeMap<&str, &str> =
        refusal.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.insert("content-type", "application/json");
    assert_eq!(seen, headers, "{what}");
    let [id] = ids.as_slice() else { panic!("{what}: {} decision ids", ids.len()) };
    assert!(!id.is_empty(), "{what}: the decision has no id");
    id.clone()
}

/// The result of the good call.
fn sum(answer: &Answer) -> Value {
    let text = String::from_utf8_lossy(&answer.body).into_owned();
    // The server answers with one event or with plain JSON, as it likes.
    let json = text.lines().find_map(|line| line.strip_prefix("data: ").filter(|data| data.starts_with('{')));
    let message: Value = serde_json::from_str(json.unwrap_or(&text)).unwrap_or_default();
    message["result"]["structuredContent"]["sum"].clone()
}
