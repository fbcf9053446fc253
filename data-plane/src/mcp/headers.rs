//! The request headers of the 2026-07-28 revision, checked against the body.
//!
//! Specification: 2026-07-28, basic/transports/streamable-http, "Request metadata". Always holds: whoever reads the
//! body refuses a request whose headers say something else; header names compare without case, values with it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Number, Value};

use super::message::{Kind, Method, Params};
use super::{Era, VERSION_MODERN};

pub(crate) const PROTOCOL_VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
pub(crate) const METHOD: HeaderName = HeaderName::from_static("mcp-method");
pub(crate) const NAME: HeaderName = HeaderName::from_static("mcp-name");
pub(crate) const SESSION_ID: HeaderName = HeaderName::from_static("mcp-session-id");
pub(crate) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
/// What the headers of mirrored arguments begin with.
pub(crate) const PARAM_PREFIX: &str = "mcp-param-";

const SENTINEL_BEGIN: &str = "=?base64?";
const SENTINEL_END: &str = "?=";

/// Why headers and body do not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// `_meta` lacks what every request of the era carries (-32602).
    #[error("params._meta must hold {0}")]
    MissingMeta(&'static str),
    /// A header is missing, doubled, or differs from the body (-32020).
    #[error("{0}")]
    Mismatch(String),
    /// A version that is not spoken here (-32022).
    #[error("protocol version {0:?} is not supported")]
    Version(String),
}

/// The era of a message, by what it says of itself: the header, or `_meta` of the modern era.
pub(crate) fn era_of(headers: &HeaderMap, kind: &Kind) -> Era {
    let in_header = headers.get(PROTOCOL_VERSION).and_then(|value| value.to_str().ok());
    let in_body = match kind {
        Kind::Request { params, .. } | Kind::Notification { params, .. } => {
            params.meta.protocol_version.as_deref()
        }
        Kind::Response { .. } => None,
    };
    let modern = |version: &str| Era::of_version(version) == Era::Modern;
    if in_header.is_some_and(modern) || in_body.is_some() { Era::Modern } else { Era::Legacy }
}

/// Checks the headers of a modern request against its body, in the order of the specification's ladder.
pub(crate) fn check_modern(headers: &HeaderMap, method: &Method, params: &Params) -> Result<(), HeaderError> {
    let Some(version) = params.meta.protocol_version.as_deref() else {
        return Err(HeaderError::MissingMeta("io.modelcontextprotocol/protocolVersion"));
    };
    if params.meta.capabilities.is_none() {
        return Err(HeaderError::MissingMeta("io.modelcontextprotocol/clientCapabilities"));
    }
    expect(headers, &PROTOCOL_VERSION, version)?;
    expect(headers, &METHOD, method.as_str())?;
    match named(method, params) {
        Some(name) => expect_decoded(headers, &NAME, name)?,
        // A request without the name in its body is refused later, as an invalid request; a name that stands
        // in the header alone is a disagreement already.
        None => {
            single(headers, &NAME)?;
        }
    }
    if version != VERSION_MODERN {
        return Err(HeaderError::Version(version.to_owned()));
    }
    Ok(())
}

/// Gives a message that came without a head the headers that repeat it, so that whoever checks or forwards them finds
/// them. Other values of theirs are replaced.
pub(crate) fn repeat(headers: &mut HeaderMap, kind: &Kind) {
    let (Kind::Request { method, params, .. } | Kind::Notification { method, params }) = kind else { return };
    let Some(version) = params.meta.protocol_version.as_deref() else { return };
    let name = named(method, params);
    for (header, text) in [(PROTOCOL_VERSION, Some(version)), (METHOD, Some(method.as_str())), (NAME, name)] {
        headers.remove(&header);
        headers.extend(text.and_then(encode).map(|value| (header, value)));
    }
}

/// The value of a header that says a text: as it is where a header can, else in the `=?base64?...?=` form.
pub(crate) fn encode(text: &str) -> Option<HeaderValue> {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
        && text.trim_matches(' ').len() == text.len()
        && !text.starts_with(SENTINEL_BEGIN);
    if plain {
        return HeaderValue::from_str(text).ok();
    }
    HeaderValue::from_str(&format!("{SENTINEL_BEGIN}{}{SENTINEL_END}", STANDARD.encode(text))).ok()
}

/// The member of the parameters that `Mcp-Name` repeats; `None` where the header has no meaning.
fn name_of(method: &Method) -> Option<fn(&Params) -> Option<&str>> {
    match method {
        Method::ToolsCall | Method::PromptsGet => Some(|params| params.name.as_deref()),
        Method::ResourcesRead => Some(|params| params.uri.as_deref()),
        Method::TasksGet | Method::TasksUpdate | Method::TasksCancel => {
            Some(|params| params.task_id.as_deref())
        }
        _ => None,
    }
}

/// Whether `Mcp-Name` has a meaning for a request.
pub(crate) fn has_name(method: &Method) -> bool {
    name_of(method).is_some()
}

/// What `Mcp-Name` repeats of a request; `None` where it has no meaning.
pub(crate) fn named<'a>(method: &Method, params: &'a Params) -> Option<&'a str> {
    name_of(method)?(params)
}

/// The one value of a header; an error when it stands twice or is not visible ASCII.
pub(crate) fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, HeaderError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(HeaderError::Mismatch(format!("header {name} stands twice")));
    }
    value
        .to_str()
        .map(|text| Some(text.trim_matches([' ', '\t'])))
        .map_err(|_| HeaderError::Mismatch(format!("header {name} is not visible ASCII")))
}

fn required<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<&'a str, HeaderError> {
    single(headers, name)?.ok_or_else(|| HeaderError::Mismatch(format!("header {name} is missing")))
}

fn expect(headers: &HeaderMap, name: &HeaderName, body: &str) -> Result<(), HeaderError> {
    let value = required(headers, name)?;
    if value == body { Ok(()) } else { Err(differs(name, value, body)) }
}

/// As [`expect`], for a header whose value may be encoded.
pub(crate) fn expect_decoded(headers: &HeaderMap, name: &HeaderName, body: &str) -> Result<(), HeaderError> {
    let value = required(headers, name)?;
    if decode(name, value)? == body { Ok(()) } else { Err(differs(name, value, body)) }
}

fn differs(name: &HeaderName, value: &str, body: &str) -> HeaderError {
    HeaderError::Mismatch(format!("header {name} is {value:?}, but the body says {body:?}"))
}

/// Decodes the `=?base64?...?=` form; half a sentinel is a literal.
pub(crate) fn decode(name: &HeaderName, value: &str) -> Result<String, HeaderError> {
    let inner = value.strip_prefix(SENTINEL_BEGIN).and_then(|rest| rest.strip_suffix(SENTINEL_END));
    let Some(inner) = inner else { return Ok(value.to_owned()) };
    let bytes = STANDARD
        .decode(inner)
        .map_err(|_| HeaderError::Mismatch(format!("header {name} is not valid base64")))?;
    String::from_utf8(bytes).map_err(|_| HeaderError::Mismatch(format!("header {name} is not UTF-8")))
}

/// Whether a header's decoded value repeats an argument: texts and truth values letter by letter, numbers by value
/// (`42.0` says what `42` says).
pub(crate) fn repeats(sent: &str, argument: &Value) -> bool {
    match argument {
        Value::String(text) => sent == text,
        Value::Bool(value) => sent == if *value { "true" } else { "false" },
        Value::Number(number) => repeats_number(sent, number),
        Value::Null | Value::Array(_) | Value::Object(_) => false,
    }
}

/// Integers that a floating-point number holds exactly; beyond, neighbours become equal.
const INTEGER_EXACT_MAX: u128 = 1 << 53;

fn repeats_number(sent: &str, number: &Number) -> bool {
    let is_blank = |byte: u8| byte.is_ascii_whitespace();
    let Ok(value) = serde_json::from_str::<Number>(sent) else { return false };
    if sent.bytes().any(is_blank) {
        return false;
    }
    match (number.as_i128(), value.as_i128()) {
        (Some(number), Some(value)) => number == value,
        (Some(number), None) if number.unsigned_abs() > INTEGER_EXACT_MAX => false,
        _ => number.as_f64() == value.as_f64(),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::json;

    use super::*;
    use crate::mcp::message::Id;

    fn call(name: &str) -> Params {
        let mut params = Params { name: Some(name.to_owned()), ..Params::default() };
        params.meta.protocol_version = Some(VERSION_MODERN.to_owned());
        params.meta.capabilities = Some(bytes::Bytes::from_static(b"{}"));
        params
    }

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    fn mismatch(message: &str) -> Result<(), HeaderError> {
        Err(HeaderError::Mismatch(message.to_owned()))
    }

    #[test]
    fn headers_must_say_what_the_body_says() {
        let version = ("mcp-protocol-version", VERSION_MODERN);
        let method = ("mcp-method", "tools/call");
        let check = |pairs: &[_], name| check_modern(&headers(pairs), &Method::ToolsCall, &call(name));
        assert_eq!(check(&[version, method, ("mcp-name", "echo")], "echo"), Ok(()));
        assert_eq!(check(&[version, method, ("mcp-name", "=?base64?ZWNobw==?=")], "echo"), Ok(()));
        assert_eq!(check(&[version, method], "echo"), mismatch("header mcp-name is missing"));
        assert_eq!(check(&[version, ("mcp-name", "echo")], "echo"), mismatch("header mcp-method is missing"));
        assert_eq!(
            check(&[version, ("mcp-method", "TOOLS/CALL"), ("mcp-name", "echo")], "echo"),
            mismatch(r#"header mcp-method is "TOOLS/CALL", but the body says "tools/call""#)
        );
        assert_eq!(
            check(&[version, method, ("mcp-name", "delete")], "echo"),
            mismatch(r#"header mcp-name is "delete", but the body says "echo""#)
        );
        assert_eq!(
            check(&[version, method, ("mcp-name", "=?base64?ZWNobw?=")], "echo"),
            mismatch("header mcp-name is not valid base64")
        );
        let mut doubled = headers(&[version, method, ("mcp-name", "echo")]);
        doubled.append(NAME, HeaderValue::from_static("echo"));
        assert_eq!(
            check_modern(&doubled, &Method::ToolsCall, &call("echo")),
            mismatch("header mcp-name stands twice")
        );
    }

    #[test]
    fn headers_made_of_a_message_agree_with_it() {
        for name in ["echo", "é", " a", "", "=?base64?x"] {
            let kind = Kind::Request {
                id: Id(Bytes::from_static(b"1")),
                method: Method::ToolsCall,
                params: call(name),
            };
            let mut made = headers(&[("mcp-protocol-version", "2025-11-25"), ("mcp-name", "other")]);
            repeat(&mut made, &kind);
            assert_eq!(check_modern(&made, &Method::ToolsCall, &call(name)), Ok(()), "{name:?}");
        }
    }

    #[test]
    fn an_unknown_version_is_refused_after_the_headers_agree() {
        let mut params = call("echo");
        params.meta.protocol_version = Some("2031-01-01".to_owned());
        let pairs =
            [("mcp-protocol-version", "2031-01-01"), ("mcp-method", "tools/call"), ("mcp-name", "echo")];
        assert_eq!(
            check_modern(&headers(&pairs), &Method::ToolsCall, &params),
            Err(HeaderError::Version("2031-01-01".to_owned()))
        );
    }

    #[test]
    fn a_header_repeats_numbers_by_value_and_texts_by_letter() {
        let large = json!(9_007_199_254_740_993_u64);
        for (sent, argument) in [
            ("42", json!(42)),
            ("42.0", json!(42)),
            ("42", json!(42.0)),
            ("4.2e1", json!(42)),
            ("-0.5", json!(-0.5)),
            ("9007199254740993", large.clone()),
            ("true", json!(true)),
            ("", json!("")),
        ] {
            assert!(repeats(sent, &argument), "{sent} for {argument}");
        }
        for (sent, argument) in [
            ("42", json!("42.0")),
            ("042", json!("42")),
            ("042", json!(42)),
            ("+42", json!(42)),
            (" 42", json!(42)),
            ("9007199254740992", large.clone()),
            ("9007199254740993.0", large),
            ("inf", json!("infinity")),
            ("True", json!(true)),
            ("null", json!(null)),
        ] {
            assert!(!repeats(sent, &argument), "{sent} for {argument}");
        }
    }
}
