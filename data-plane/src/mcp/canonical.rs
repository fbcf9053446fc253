//! The arguments of a call in one form, so that an approval is of exactly these.
//!
//! Always holds: two texts have the same form only where they are the same JSON to every reader: fields may stand in another
//! order, strings be escaped otherwise, blanks be elsewhere. A number counts as it is written, because readers differ in how
//! many of its digits they keep.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{self, Context, SHA256};
use serde_json::value::RawValue;

use super::json;

/// Longest arguments that can be approved, in bytes: more than anybody reads.
pub(crate) const APPROVABLE_BYTES_MAX: usize = 64 * 1024;

/// The arguments cannot be told from others.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CanonicalError {
    #[error("arguments of more than {APPROVABLE_BYTES_MAX} bytes cannot be approved")]
    TooLong,
    #[error("the arguments cannot be read")]
    Unreadable,
}

/// SHA-256 of the canonical form of a request's arguments; of no arguments as of none given.
pub(crate) fn arguments_hash(body: &[u8]) -> Result<[u8; 32], CanonicalError> {
    let unreadable = |_| CanonicalError::Unreadable;
    let text = std::str::from_utf8(body).map_err(|_| CanonicalError::Unreadable)?;
    let [params] = json::fields(text, &["params"]).map_err(unreadable)?;
    let arguments = match params {
        Some(params) => json::fields(params.get(), &["arguments"]).map_err(unreadable)?[0],
        None => None,
    };
    let arguments = arguments.map_or("{}", RawValue::get);
    if arguments.len() > APPROVABLE_BYTES_MAX {
        return Err(CanonicalError::TooLong);
    }
    let mut context = Context::new(&SHA256);
    write(arguments, &mut context).map_err(unreadable)?;
    let mut hash = [0; digest::SHA256_OUTPUT_LEN];
    hash.copy_from_slice(context.finish().as_ref());
    Ok(hash)
}

/// Depth is bounded where the body is read.
fn write(value: &str, into: &mut Context) -> Result<(), serde_json::Error> {
    let value = value.trim_ascii();
    match value.as_bytes().first() {
        Some(b'{') => {
            let fields: BTreeMap<String, &RawValue> = serde_json::from_str(value)?;
            into.update(b"{");
            for (at, (name, value)) in fields.iter().enumerate() {
                into.update(if at == 0 { b"" } else { b"," });
                into.update(serde_json::to_string(name)?.as_bytes());
                into.update(b":");
                write(value.get(), into)?;
            }
            into.update(b"}");
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn hash(arguments: &str) -> [u8; 32] {
        let body = format!(r#"{{"jsonrpc":"2.0","id":1,"params":{{"arguments":{arguments},"name":"x"}}}}"#);
        arguments_hash(body.as_bytes()).expect("it can be read")
    }

    #[test]
    fn the_same_arguments_have_one_hash_however_they_are_written() {
        let one = hash(r#"{"a":[1,{"c":"é","b":null}],"d":"x/y"}"#);
        assert_eq!(one, hash("{ \"d\" : \"x\\/y\",\n\"a\": [ 1 , {\"b\":null,\"c\":\"\\u00e9\"} ] }"));
        let none = arguments_hash(br#"{"params":{"name":"x"}}"#).expect("it can be read");
        assert_eq!(none, hash("{}"));
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
    fn what_nobody_would_read_is_refused() {
        let long = format!(r#"{{"params":{{"arguments":{{"a":"{}"}}}}}}"#, "x".repeat(APPROVABLE_BYTES_MAX));
        assert!(matches!(arguments_hash(long.as_bytes()), Err(CanonicalError::TooLong)));
        assert!(arguments_hash(b"[]").is_err());
    }
}
