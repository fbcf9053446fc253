//! Bodies: what is taken for a message is read by everybody as it was read here.
//!
//! The other reader is `serde_json` without the checks of [`mcp::json`]: it keeps every field of an object, in order.
//! Not checked: that a good message is taken; the tests of [`mcp::message`] do that.

use std::fmt;

use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;

use super::digest;
use super::mcp::batch::{self, BATCH_MESSAGES_MAX};
use super::mcp::json::{self, DEPTH_MAX};
use super::mcp::message::{Kind, Message, MessageError, Meta, Method, Params};

/// What JSON-RPC names of a message.
const ENVELOPE: [&str; 6] = ["jsonrpc", "id", "method", "params", "result", "error"];

/// What routes or governs a request.
const PARAMS: [&str; 14] = [
    "name",
    "uri",
    "taskId",
    "arguments",
    "ref",
    "cursor",
    "level",
    "requestState",
    "inputResponses",
    "capabilities",
    "protocolVersion",
    "requestId",
    "notifications",
    "_meta",
];

const VERSION: &str = "io.modelcontextprotocol/protocolVersion";
const CAPABILITIES: &str = "io.modelcontextprotocol/clientCapabilities";
const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";
const META: [&str; 4] = [VERSION, CAPABILITIES, LOG_LEVEL, "progressToken"];

/// Every field of an object, those that stand twice too.
struct Object<'a>(Vec<(String, &'a RawValue)>);

/// Whatever bytes come as a body.
pub fn envelope(body: &[u8]) {
    texts(body);
    let body = Bytes::copy_from_slice(body);
    taken_apart(&body);
    match Message::parse(body.clone()) {
        Ok(message) => {
            accepted(&body, &message);
            others_are_refused(&body);
        }
        Err(MessageError::Invalid { id: Some(id), message }) => {
            assert!(!message.is_empty());
            assert!(lies_within(&body, &id.0), "the id is no part of the body");
            assert!(serde_json::from_slice::<IgnoredAny>(&id.0).is_ok(), "the id is no JSON");
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The readers that a message stands on, by themselves.
fn texts(body: &[u8]) {
    let checked = json::check_text(body);
    if let Ok(value) = serde_json::from_slice::<Value>(body) {
        assert_eq!(checked.is_ok(), depth(&value) <= DEPTH_MAX, "nesting is counted as it is read");
    }
    if let Ok(text) = checked
        && let Ok(strict) = json::strict_value(text)
    {
        assert_eq!(serde_json::from_str::<Value>(text).ok(), Some(strict));
        assert!(says_nothing_twice(text));
    }
}

/// A batch has the messages that others find in it, and none that asks for a session.
fn taken_apart(body: &Bytes) {
    let Ok(messages) = batch::split(body) else { return };
    assert!(batch::is_array(body) && (1..=BATCH_MESSAGES_MAX).contains(&messages.len()));
    let others = serde_json::from_slice::<Vec<&RawValue>>(body).expect("it is an array to others");
    let others: Vec<_> = others.iter().map(|raw| raw.get().as_bytes()).collect();
    assert_eq!(messages, others);
    for message in messages {
        assert!(lies_within(body, &message));
        if let Ok(message) = Message::parse(message) {
            let is_initialize = matches!(message.kind, Kind::Request { method: Method::Initialize, .. });
            assert!(!is_initialize, "`initialize` in a batch");
        }
    }
}

fn accepted(body: &Bytes, message: &Message) {
    assert_eq!((message.body.as_ptr(), message.body.len()), (body.as_ptr(), body.len()));
    let envelope = Object::read(std::str::from_utf8(body).expect("it was taken for UTF-8"));
    envelope.says_once(&ENVELOPE);
    assert_eq!(envelope.get("jsonrpc"), Some("\"2.0\""));
    let (method, params) = match &message.kind {
        Kind::Request { id, method, params } => {
            assert!(lies_within(body, &id.0));
            assert_eq!(envelope.get("id").map(str::as_bytes), Some(&id.0[..]));
            (method, params)
        }
        Kind::Notification { method, params } => {
            assert_eq!(envelope.get("id"), None);
            (method, params)
        }
        Kind::Response { id } => {
            slice_agrees(body, Some(id), envelope.get("id"));
            assert!(envelope.get("method").is_none());
            assert!(envelope.get("result").is_some() != envelope.get("error").is_some());
            return;
        }
    };
    assert!(envelope.get("result").is_none() && envelope.get("error").is_none());
    assert_eq!(envelope.text("method").as_deref(), Some(method.as_str()));
    let is_notification = matches!(message.kind, Kind::Notification { .. });
    assert_eq!(method.as_str().starts_with("notifications/"), is_notification);
    let object = envelope.get("params").map(Object::read).unwrap_or(Object(Vec::new()));
    object.says_once(&PARAMS);
    params_agree(body, params, &object);
}

fn params_agree(body: &Bytes, params: &Params, object: &Object<'_>) {
    let texts = [
        (&params.name, "name"),
        (&params.uri, "uri"),
        (&params.task_id, "taskId"),
        (&params.request_state, "requestState"),
    ];
    for (text, field) in texts {
        assert_eq!(*text, object.text(field), "{field}");
    }
    // Other methods have fields of these names, of other forms; `null` is no place to go on from.
    for (text, field) in [(&params.level, "level"), (&params.protocol_version, "protocolVersion")] {
        assert_eq!(*text, object.text_if_any(field), "{field}");
    }
    let cursor = object.get("cursor").filter(|raw| *raw != "null");
    assert_eq!(params.cursor, cursor.map(|raw| serde_json::from_str(raw).expect("a text")));
    let raw = object.get("arguments");
    assert_eq!(params.arguments.as_ref(), raw.map(value).as_ref());
    assert!(params.arguments.as_ref().is_none_or(Value::is_object));
    assert!(raw.is_none_or(says_nothing_twice));
    let slices = [
        (&params.reference, "ref"),
        (&params.request_id, "requestId"),
        (&params.notifications, "notifications"),
    ];
    for (slice, field) in slices {
        slice_agrees(body, slice.as_ref(), object.get(field));
    }
    for (slice, field) in
        [(&params.input_responses, "inputResponses"), (&params.capabilities, "capabilities")]
    {
        slice_agrees(body, slice.as_ref(), object.get(field).filter(|raw| raw.starts_with('{')));
    }
    let object = object.get("_meta").map(Object::read).unwrap_or(Object(Vec::new()));
    object.says_once(&META);
    let Meta { protocol_version, capabilities, log_level, progress_token } = &params.meta;
    assert_eq!(*protocol_version, object.text(VERSION));
    assert_eq!(*log_level, object.text_if_any(LOG_LEVEL));
    slice_agrees(body, capabilities.as_ref(), object.get(CAPABILITIES).filter(|raw| raw.starts_with('{')));
    slice_agrees(body, progress_token.as_ref(), object.get("progressToken"));
}

fn slice_agrees(body: &Bytes, slice: Option<&Bytes>, raw: Option<&str>) {
    assert_eq!(slice.map(|slice| &slice[..]), raw.map(str::as_bytes));
    assert!(slice.is_none_or(|slice| lies_within(body, slice)));
}

/// From a body that was taken, others are made that must not be: cut, with something behind it, and with a known
/// field said a second time, in one spelling or another.
fn others_are_refused(body: &[u8]) {
    let refused = |other: Vec<u8>| {
        let shown = String::from_utf8_lossy(&other).into_owned();
        assert!(Message::parse(other.into()).is_err(), "{shown:?} is taken");
    };
    let text = std::str::from_utf8(body).expect("it was taken for UTF-8");
    let choice = digest(body);
    refused(body[..choice % text.trim_end().len()].to_vec());
    refused([body, b"{}"].concat());
    let envelope = Object::read(text);
    // Parameters of what has no method say nothing to anybody.
    let params = envelope.get("method").and_then(|_| envelope.get("params")).map(|raw| (raw, &PARAMS[..]));
    let meta = params.and_then(|(raw, _)| Object::read(raw).get("_meta")).map(|raw| (raw, &META[..]));
    for (object, known) in [Some((text, &ENVELOPE[..])), params, meta].into_iter().flatten() {
        let present: Vec<_> = Object::read(object).0.into_iter().map(|(field, _)| field).collect();
        let known: Vec<_> =
            known.iter().filter(|known| present.iter().any(|field| field == *known)).collect();
        let Some(field) = known.get(choice.checked_rem(known.len()).unwrap_or_default()) else { continue };
        let object_begins = object.as_ptr() as usize - text.as_ptr() as usize;
        let begin = object_begins + object.find('{').expect("it was read as an object") + 1;
        for spelling in spellings(field) {
            let again = format!("\"{spelling}\":0,");
            refused([&body[..begin], again.as_bytes(), &body[begin..]].concat());
        }
    }
}

/// How a field may be written so that some reader takes it for the known one.
fn spellings(field: &str) -> [String; 6] {
    let escaped = format!("\\u{:04x}{}", u32::from(field.as_bytes()[0]), &field[1..]);
    // LATIN SMALL LETTER LONG S, KELVIN SIGN and DOTLESS I: letters that become ASCII in another case.
    let folded = field.replace('s', "\u{17f}").replace('k', "\u{212a}");
    let dotless = field.replace('i', "\u{131}");
    let mixed = field
        .chars()
        .enumerate()
        .map(|(at, c)| if at % 2 == 0 { c.to_ascii_uppercase() } else { c })
        .collect();
    [field.to_owned(), field.to_uppercase(), mixed, escaped, folded, dotless]
}

fn says_nothing_twice(text: &str) -> bool {
    if text.trim_start().starts_with('{') {
        let Object(fields) = Object::read(text);
        let is_double = |at: usize| fields[..at].iter().any(|(field, _)| *field == fields[at].0);
        return !(0..fields.len()).any(is_double)
            && fields.iter().all(|(_, raw)| says_nothing_twice(raw.get()));
    }
    match serde_json::from_str::<Vec<&RawValue>>(text) {
        Ok(elements) => elements.iter().all(|raw| says_nothing_twice(raw.get())),
        Err(_) => true,
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(elements) => 1 + elements.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
    }
}

fn value(text: &str) -> Value {
    serde_json::from_str(text).expect("what is looked into can be read by others")
}

fn lies_within(body: &Bytes, slice: &Bytes) -> bool {
    slice.is_empty()
        || body.as_ptr_range().start <= slice.as_ptr_range().start
            && slice.as_ptr_range().end <= body.as_ptr_range().end
}

impl<'a> Object<'a> {
    fn read(text: &'a str) -> Object<'a> {
        serde_json::from_str(text).expect("what is taken for an object is one to others")
    }

    fn get(&self, field: &str) -> Option<&'a str> {
        self.0.iter().find(|(found, _)| found == field).map(|(_, raw)| raw.get())
    }

    fn text(&self, field: &str) -> Option<String> {
        self.get(field).map(|raw| serde_json::from_str(raw).expect("a text"))
    }

    fn text_if_any(&self, field: &str) -> Option<String> {
        serde_json::from_str(self.get(field)?).ok()
    }

    /// No field is, in any case of its letters, a known one, but for at most one that is that very one.
    fn says_once(&self, known: &[&str]) {
        for known in known {
            let alike: Vec<_> =
                self.0.iter().map(|(field, _)| field).filter(|field| is_alike(field, known)).collect();
            assert!(alike.len() <= 1 && alike.iter().all(|field| field == known), "{alike:?} for {known}");
        }
    }
}

fn is_alike(field: &str, known: &str) -> bool {
    let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
    let upper = |text: &str| text.chars().flat_map(char::to_uppercase).collect::<String>();
    lower(field) == lower(known) || upper(field) == upper(known)
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
                let mut fields = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    fields.push(entry);
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Fields).map(Object)
    }
}
