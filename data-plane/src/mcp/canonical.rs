//! What a call says in one form, so that an approval is of exactly this.
//!
//! Always holds: two texts have the same form only where they are the same JSON to every reader: fields may stand in another
//! order, strings be escaped otherwise, blanks be elsewhere. A number counts as it is written, because readers differ in how
//! many of its digits they keep. Everything counts that a server may be told, also what nobody here has heard of, but for
//! `_meta`, which speaks of the message, and the name, which is bound as the server's own.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{self, Context, SHA256};
use serde_json::Value;
use serde_json::value::RawValue;

use super::json;

/// Most that a call may say that can be approved, in bytes: more than anybody reads.
pub(crate) const APPROVABLE_BYTES_MAX: usize = 64 * 1024;
/// What of `params` is no part of it.
const APART: [&str; 2] = ["_meta", "name"];
/// The arguments among `params`.
const ARGUMENTS: &str = "arguments";

/// What a call says.
#[derive(Debug)]
pub(crate) struct Said {
    /// SHA-256 of the canonical form; of no arguments as of none given.
    pub(crate) hash: [u8; 32],
    /// What it says besides its arguments; nearly every call says nothing.
    pub(crate) besides: Option<Value>,
}

/// The call cannot be told from others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CanonicalError {
    #[error("a call of more than {APPROVABLE_BYTES_MAX} bytes cannot be approved")]
    TooLong,
    #[error("the call cannot be read")]
    Unreadable,
}

/// What a call's body says.
pub(crate) fn said(body: &[u8]) -> Result<Said, CanonicalError> {
    let unreadable = |_| CanonicalError::Unreadable;
    let text = std::str::from_utf8(body).map_err(|_| CanonicalError::Unreadable)?;
    let [params] = json::fields(text, &["params"]).map_err(unreadable)?;
    let params = params.map_or("{}", RawValue::get);
    // What is said twice is read one way here, and another way elsewhere.
    let Ok(Value::Object(mut besides)) = json::strict_value(params) else {
        return Err(CanonicalError::Unreadable);
    };
    besides.retain(|name, _| name != ARGUMENTS && !APART.contains(&name.as_str()));
    let mut fields: BTreeMap<String, &RawValue> = serde_json::from_str(params).map_err(unreadable)?;
    fields.retain(|name, _| !APART.contains(&name.as_str()));
    if !fields.contains_key(ARGUMENTS) {
        fields.insert(ARGUMENTS.to_owned(), serde_json::from_str("{}").map_err(unreadable)?);
    }
    if fields.iter().map(|(name, value)| name.len() + value.get().len()).sum::<usize>() > APPROVABLE_BYTES_MAX
    {
        return Err(CanonicalError::TooLong);
    }
    let mut context = Context::new(&SHA256);
    write_object(&fields, &mut context).map_err(unreadable)?;
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(Said { hash, besides: (!besides.is_empty()).then_some(Value::Object(besides)) })
}

/// Depth is bounded where the body is read.
fn write(value: &str, into: &mut Context) -> Result<(), serde_json::Error> {
    let value = value.trim_ascii();
    match value.as_bytes().first() {
        Some(b'{') => write_object(&serde_json::from_str(value)?, into)?,
        Some(b'[') => {
            let elements: Vec<&RawValue> = serde_json::from_str(value)?;
            into.update(b"[");
            for (at, value) in elements.iter().enumerate() {
                into.update(if at == 0 { b"" } else { b"," });
                write(value.get(), into)?;
            }
            into.update(b"]");
        }
        Some(b'"') => into.update(serde_json::to_string(&serde_json::from_str::<String>(value)?)?.as_bytes()),
        _ => into.update(value.as_bytes()),
    }
    Ok(())
}

fn write_object(fields: &BTreeMap<String, &RawValue>, into: &mut Context) -> Result<(), serde_json::Error> {
    into.update(b"{");
    for (at, (name, value)) in fields.iter().enumerate() {
        into.update(if at == 0 { b"" } else { b"," });
        into.update(serde_json::to_string(name)?.as_bytes());
        into.update(b":");
        write(value.get(), into)?;
    }
    into.update(b"}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of_params(params: &str) -> Result<Said, CanonicalError> {
        said(format!(r#"{{"jsonrpc":"2.0","id":1,"params":{params}}}"#).as_bytes())
    }

    fn hash(arguments: &str) -> [u8; 32] {
        of_params(&format!(r#"{{"arguments":{arguments},"name":"x"}}"#)).expect("it can be read").hash
    }

    #[test]
    fn the_same_arguments_have_one_hash_however_they_are_written() {
        let one = hash(r#"{"a":[1,{"c":"é","b":null}],"d":"x/y"}"#);
        assert_eq!(one, hash("{ \"d\" : \"x\\/y\",\n\"a\": [ 1 , {\"b\":null,\"c\":\"\\u00e9\"} ] }"));
        let none = of_params(r#"{"name":"x"}"#).expect("it can be read");
        assert_eq!((none.hash, none.besides), (hash("{}"), None));
        assert_eq!(said(b"{}").expect("it can be read").hash, hash("{}"));
    }

    #[test]
    fn others_have_another_also_where_a_float_would_not_tell() {
        for (one, other) in [
            (r#"{"a":1}"#, r#"{"a":"1"}"#),
            (r#"{"a":1}"#, r#"{"a":1.0}"#),
            (r#"{"a":20000000000000000001}"#, r#"{"a":20000000000000000002}"#),
            (r#"{"a":0.30000000000000001}"#, r#"{"a":0.3}"#),
            (r#"{"a":["b","c"]}"#, r#"{"a":["c","b"]}"#),
            (r#"{"a":["b,c"]}"#, r#"{"a":["b","c"]}"#),
            (r#"{"a":{"b":1}}"#, r#"{"a":{},"b":1}"#),
            (r#"{"a":null}"#, "{}"),
        ] {
            assert_ne!(hash(one), hash(other), "{one} {other}");
        }
    }

    #[test]
    fn whatever_else_a_call_says_counts_and_is_told() {
        let bare = hash("{}");
        for (besides, told) in [
            (
                r#""inputResponses":{"a":{"action":"accept"}}"#,
                json!({"inputResponses": {"a": {"action": "accept"}}}),
            ),
            (r#""requestState":"s""#, json!({"requestState": "s"})),
            (r#""task":{"ttl":1}"#, json!({"task": {"ttl": 1}})),
            (r#""unheard":0"#, json!({"unheard": 0})),
        ] {
            let said =
                of_params(&format!(r#"{{"name":"x","arguments":{{}},{besides}}}"#)).expect("it can be read");
            assert_ne!(said.hash, bare, "{besides}");
            assert_eq!(said.besides, Some(told));
        }
        let said = of_params(r#"{"name":"y","_meta":{"progressToken":7}}"#).expect("it can be read");
        assert_eq!((said.hash, said.besides), (bare, None));
    }

    #[test]
    fn what_nobody_would_read_or_two_would_read_otherwise_is_refused() {
        for long in ["arguments", "unheard"] {
            let long = of_params(&format!(r#"{{"{long}":{{"a":"{}"}}}}"#, "x".repeat(APPROVABLE_BYTES_MAX)));
            assert!(matches!(long, Err(CanonicalError::TooLong)));
        }
        for doubled in [r#"{"unheard":1,"unheard":2}"#, r#"{"inputResponses":{"a":1,"a":2}}"#, "[]"] {
            assert!(matches!(of_params(doubled), Err(CanonicalError::Unreadable)), "{doubled}");
        }
    }
}
