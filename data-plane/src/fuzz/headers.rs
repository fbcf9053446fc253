//! Heads of requests: one that passes says what its body says, and stops passing when it says anything else.
//!
//! An input is a head as it stands on the wire (lines of `name: value`), an empty line, and a body. Lines that no
//! HTTP library would hand on are left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::digest;
use super::mcp::headers::{self, HeaderError, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION};
use super::mcp::message::{Kind, Message, Method, Params};
use super::mcp::{Era, VERSION_MODERN};

/// A head, an empty line, a body.
pub fn headers(input: &[u8]) {
    let split = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = split.map_or((input, &b""[..]), |at| (&input[..at + 1], &input[at + 2..]));
    let head = read(head);
    for (name, value) in &head {
        decoding(name, value);
    }
    let Ok(message) = Message::parse(Bytes::copy_from_slice(body)) else { return };
    let era = headers::era_of(&head, &message.kind);
    let Kind::Request { method, params, .. } = &message.kind else { return };
    if params.meta.protocol_version.is_some() {
        assert_eq!(era, Era::Modern, "what the body says of itself is not overruled by a header");
    }
    mirrored(&head, params);
    repeated(&head, &message.kind);
    match headers::check_modern(&head, method, params) {
        Ok(()) => {
            assert_eq!(era, Era::Modern);
            passed(&head, method, params);
            others_are_refused(&head, method, params, digest(input));
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// The headers that are made of a message agree with it, whatever stood there before.
fn repeated(head: &HeaderMap, kind: &Kind) {
    let Kind::Request { method, params, .. } = kind else { return };
    let mut made = head.clone();
    headers::repeat(&mut made, kind);
    // A method's header has no encoded form.
    let method_fits = headers::encode(method.as_str()).is_some_and(|value| value == method.as_str());
    let meta = &params.meta;
    if meta.protocol_version.as_deref() == Some(VERSION_MODERN) && meta.capabilities.is_some() && method_fits
    {
        assert_eq!(headers::check_modern(&made, method, params), Ok(()), "{made:?}");
    }
}

fn read(head: &[u8]) -> HeaderMap {
    let pair = |line: &[u8]| {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        Some((name, HeaderValue::from_bytes(&line[colon + 1..]).ok()?))
    };
    let mut head_map = HeaderMap::new();
    for (name, value) in head.split(|byte| *byte == b'\n').filter_map(pair) {
        head_map.append(name, value);
    }
    head_map
}

/// What is decoded is what its one encoding stands for; everything else is a literal or refused.
fn decoding(name: &HeaderName, value: &HeaderValue) {
    let Ok(text) = value.to_str() else { return };
    let inner = text.strip_prefix("=?base64?").and_then(|rest| rest.strip_suffix("?="));
    match (headers::decode(name, text), inner) {
        (Ok(decoded), None) => assert_eq!(decoded, text),
        (Ok(decoded), Some(inner)) => assert_eq!(STANDARD.encode(decoded), inner),
        (Err(HeaderError::Mismatch(_)), Some(_)) => {}
        (Err(error), _) => panic!("{error} for {text:?}"),
    }
}

fn passed(head: &HeaderMap, method: &Method, params: &Params) {
    let only = |name: &HeaderName| {
        let values: Vec<_> = head.get_all(name).iter().collect();
        assert!(values.len() <= 1, "{name} stands twice");
        values
            .first()
            .map(|value| value.to_str().expect("visible ASCII").trim_matches([' ', '\t']).to_owned())
    };
    assert_eq!(params.meta.protocol_version.as_deref(), Some(VERSION_MODERN));
    assert!(params.meta.capabilities.is_some());
    assert_eq!(only(&PROTOCOL_VERSION).as_deref(), Some(VERSION_MODERN));
    assert_eq!(only(&METHOD).as_deref(), Some(method.as_str()));
    let sent = only(&NAME);
    if let Some(name) = headers::named(method, params) {
        let sent = sent.expect("the header is required");
        let encoded = format!("=?base64?{}?=", STANDARD.encode(name));
        assert!(sent == name || sent == encoded, "{sent:?} passes for {name:?}");
    }
}

fn others_are_refused(head: &HeaderMap, method: &Method, params: &Params, choice: usize) {
    let check = |head: &HeaderMap| headers::check_modern(head, method, params);
    let refused = |head: &HeaderMap| assert!(check(head).is_err(), "{head:?} passes");
    let named = headers::named(method, params);
    let mut required = vec![PROTOCOL_VERSION, METHOD];
    required.extend(named.map(|_| NAME));
    let name = &required[choice % required.len()];
    let mut other = head.clone();
    other.append(name, head[name].clone());
    refused(&other);
    let mut other = head.clone();
    other.remove(name);
    refused(&other);
    let mut changed = head[name].as_bytes().to_vec();
    changed.push(b'x');
    let mut other = head.clone();
    other.insert(name, HeaderValue::from_bytes(&changed).expect("one more letter"));
    refused(&other);
    if let Some(name) = named {
        let encoded = format!("=?base64?{}?=", STANDARD.encode(name));
        let mut other = head.clone();
        other.insert(NAME, HeaderValue::try_from(encoded).expect("base64 is visible"));
        assert_eq!(check(&other), Ok(()), "the encoded name is the name");
    }
}

/// An argument is repeated by its header only if a reader of the header sees the same value.
fn mirrored(head: &HeaderMap, params: &Params) {
    let Some(Value::Object(arguments)) = &params.arguments else { return };
    for (field, argument) in arguments {
        let Ok(name) = HeaderName::try_from(format!("{PARAM_PREFIX}{field}")) else { continue };
        let Ok(Some(sent)) = headers::single(head, &name) else { continue };
        let Ok(sent) = headers::decode(&name, sent) else { continue };
        let is_same = match argument {
            Value::String(text) => *text == sent,
            Value::Bool(value) => value.to_string() == sent,
            Value::Number(number) => is_same_number(&sent, &number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        };
        assert_eq!(headers::repeats(&sent, argument), is_same, "{sent:?} for {argument}");
    }
}

/// By value; integers exactly, also where a floating-point number would round them.
fn is_same_number(sent: &str, argument: &str) -> bool {
    if !serde_json::from_str::<Value>(sent).is_ok_and(|value| value.is_number()) || sent.trim() != sent {
        return false;
    }
    match (sent.parse::<i128>(), argument.parse::<i128>()) {
        (Ok(sent), Ok(argument)) => sent == argument,
        (Err(_), Ok(integer)) if integer.unsigned_abs() > 1 << 53 => false,
        _ => sent.parse::<f64>() == argument.parse::<f64>(),
    }
}
